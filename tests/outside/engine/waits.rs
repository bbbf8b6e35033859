//! When a key that failed is asked for again.

use super::{addresses, base, set_rules};
use crate::support::address;
use serde_json::json;

/// Seconds that the keys of a service wait after their attempt, as the worker noted them.
const WAITS: &str =
    "SELECT extract(epoch FROM next_attempt_at - last_attempt_at)::float8 FROM enrichment_queue WHERE cache_key = ";

#[test]
fn keys_that_fail_together_are_asked_again_at_different_times() {
    let base = base("spread");
    set_rules(&base, "dshield", r#"{"breaker": {"failures": 0}}"#);
    base.run("UPDATE enrichment_service SET max_in_flight = 20 WHERE name = 'dshield'");
    base.sandbox.fault(json!({"service": "dshield", "kind": "status", "status": 500}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 20)));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts = 1", 20i64);
    // without chance all of them would wait for the same half minute
    let spread =
        "SELECT count(DISTINCT round(extract(epoch FROM next_attempt_at - last_attempt_at))) FROM enrichment_queue";
    let waits = base.one::<i64>(spread);
    assert!(waits >= 6, "{waits} different waits of 20 keys");
}

#[test]
fn a_failing_provider_that_names_a_time_is_not_asked_for_the_key_before_it() {
    let base = base("named");
    let fails = |key: &str, headers| {
        base.sandbox.fault(
            json!({"service": "dshield", "key": key, "kind": "body", "status": 503, "body": "{}", "headers": headers}),
        );
    };
    fails(&address(1), json!({"retry-after": "7200"}));
    fails(&address(2), json!({}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 2)));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts = 1", 2i64);
    let wait = |n| base.one::<f64>(&format!("{WAITS}'{}'", address(n)));
    assert!((7_100.0..=7_200.0).contains(&wait(1)), "{}", wait(1));
    assert!(wait(2) < 60.0, "{}", wait(2));
    // the other keys are asked for
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_lane WHERE paused_until > now()"), 0);
}

#[test]
fn a_provider_that_leads_to_a_page_for_a_while_loses_no_key() {
    let base = base("maintenance");
    let key = &base.known("dshield", 1)[0];
    base.sandbox
        .fault(json!({"service": "dshield", "kind": "redirect", "to": "https://127.0.0.1:1/maintenance", "count": 1}));
    base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
    base.wait_for("SELECT state || ' ' || attempts FROM enrichment_queue", "waiting 1".to_string());
    base.run("UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_wake()");
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE payload ? 'ip'", 1i64);
}

#[test]
fn answers_that_are_nested_too_deep_rest_at_once_and_open_no_breaker() {
    let base = base("too_deep");
    base.run("UPDATE enrichment_service SET max_in_flight = 1 WHERE name = 'dshield'");
    let deep = format!(r#"{{"ip": {}1{}}}"#, "[".repeat(600), "]".repeat(600));
    base.sandbox.fault(json!({"service": "dshield", "kind": "body", "status": 200, "body": deep}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 12)));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE state = 'dead' AND attempts = 1", 12i64);
    let breaker = "SELECT state || ' ' || failures FROM enrichment_breaker WHERE service = 'dshield'";
    assert_eq!(base.one::<String>(breaker), "closed 0");
    let counted = "SELECT outcome || ' ' || cause || ' ' || attempts FROM enrichment_attempt_stats";
    assert_eq!(base.one::<String>(counted), "invalid too_deep 12");
}
