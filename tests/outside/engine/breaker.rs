//! The breaker: a service that fails is left alone, its requests wait and lose no attempt, the others go on.

use super::{addresses, base, set_rules};
use crate::support::{self, address, own_cluster, Base, SOON};
use serde_json::json;
use std::sync::Arc;
use testbed::{wait_until, StopMode};

const STATE: &str = "SELECT state FROM enrichment_breaker WHERE service = 'dshield'";
const OPENINGS: &str = "SELECT openings FROM enrichment_breaker WHERE service = 'dshield'";

/// One call at a time, three failures in a row open the breaker, and it stays open for longer than any test.
fn failing(base: &Base) {
    set_rules(base, "dshield", r#"{"breaker": {"failures": 3, "open_seconds": 3600, "max_open_seconds": 86400}}"#);
    base.run("UPDATE enrichment_service SET max_in_flight = 1 WHERE name = 'dshield'");
    base.sandbox.fault(json!({"service": "dshield", "kind": "status", "status": 503}));
}

#[test]
fn a_service_that_fails_is_left_alone_until_one_call_succeeds() {
    let base = base("breaker");
    failing(&base);
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 10)));
    base.wait_for(STATE, "open".to_string());
    assert_eq!(base.asked("dshield"), 3, "the rest of the queue is not spent on it");
    let untouched =
        "SELECT count(*) FROM enrichment_queue WHERE attempts = 0 AND last_outcome IS NULL AND state = 'waiting'";
    assert_eq!(base.one::<i64>(untouched), 7);

    // what waits says until when, and why
    let waits = "SELECT bool_and(l.next_attempt_at > now() + interval '40 minutes' AND l.next_attempt_at < now() + interval '80 minutes')
        FROM enrichment_queue q, enrich_lookup(q.service, q.cache_key) l";
    assert!(base.one::<bool>(waits));
    let explained: String = base.one(&format!("SELECT enrich_explain('dshield', '{}')", address(10)));
    assert!(explained.contains("it waits until") && explained.contains("3 calls in a row failed"), "{explained}");
    let health: String = base.one("SELECT detail FROM enrich_health() WHERE check_name = 'service dshield'");
    assert!(health.contains("breaker") && health.contains("HTML page"), "{health}");
    let shown =
        "SELECT failures = 3 AND openings = 1 AND since < now() AND next_probe_at > now() AND reason ~ 'HTTP 503'
        FROM enrichment_breaker WHERE service = 'dshield'";
    assert!(base.one::<bool>(shown));

    // nobody else waits
    base.run("SELECT enrich_request('hibp', '00001')");
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service = 'hibp' AND payload IS NOT NULL", 1i64);
    assert_eq!(base.one::<String>("SELECT state FROM enrichment_breaker WHERE service = 'hibp'"), "closed");

    // one call tries, and its failure makes the next pause longer
    base.run("SELECT enrich_retry('dshield')");
    base.wait_for(OPENINGS, 2);
    assert_eq!((base.asked("dshield"), base.one::<String>(STATE)), (4, "open".to_string()));
    assert!(base.one::<bool>(
        "SELECT next_probe_at > now() + interval '85 minutes' FROM enrichment_breaker WHERE service = 'dshield'"
    ));
    assert_eq!(base.one::<i64>(untouched), 6, "the probe is a call like any other, and another key than before");

    base.sandbox.clear_faults();
    base.run("UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_retry('dshield')");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!((base.one::<String>(STATE), base.one::<i32>(OPENINGS)), ("closed".to_string(), 0));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_lane WHERE paused_until IS NOT NULL"), 0);
    assert_eq!(base.asked("dshield"), 14);
}

#[test]
fn one_call_tries_however_many_may_be_under_way() {
    let base = base("one_probe");
    set_rules(&base, "dshield", r#"{"breaker": {"failures": 3, "open_seconds": 3600, "max_open_seconds": 86400}}"#);
    base.run("UPDATE enrichment_service SET max_in_flight = 20 WHERE name = 'dshield'");
    base.sandbox.set_latency("dshield", 300);
    base.sandbox.fault(json!({"service": "dshield", "kind": "status", "status": 503}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 100)));
    base.wait_for(STATE, "open".to_string());
    wait_until("the calls of before to end", SOON, || {
        support::same(base.sandbox.stats()["dshield"]["in_flight"].as_i64(), &Some(0))
    });
    support::let_the_worker_look(&base);
    for opening in 2..5 {
        let (asked, before) = (base.asked("dshield"), base.one::<i32>(OPENINGS));
        base.run("UPDATE enrichment_queue SET next_attempt_at = now() WHERE state = 'waiting'; SELECT enrich_retry('dshield')");
        base.wait_for(OPENINGS, before + 1);
        support::let_the_worker_look(&base);
        assert_eq!(base.asked("dshield"), asked + 1, "opening {opening}");
    }
}

#[test]
fn it_tries_again_by_itself_when_its_time_has_come() {
    let base = base("half_open");
    failing(&base);
    set_rules(&base, "dshield", r#"{"breaker": {"failures": 3, "open_seconds": 1, "max_open_seconds": 2}}"#);
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 20)));
    base.wait_for("SELECT openings >= 3 FROM enrichment_breaker WHERE service = 'dshield'", true);
    let (asked, openings) = (base.asked("dshield"), base.one::<i32>(OPENINGS));
    assert!((5..=i64::from(openings) + 3).contains(&asked), "{asked} calls, opened {openings} times");
    base.sandbox.clear_faults();
    let never_tried = "SELECT count(*) FROM enrichment_queue WHERE attempts = 0";
    base.wait_for(never_tried, 0i64);
    assert_eq!(base.one::<String>(STATE), "closed");
    // those that failed have their own back-off, which is nobody else's
    let answered = "SELECT count(*) FROM enrichment_cache WHERE payload IS NOT NULL OR response_status = 'not_found'";
    assert!(base.one::<i64>(answered) >= 10);
}

#[test]
fn an_outage_costs_calls_that_are_under_way_one_attempt_at_most() {
    let base = base("under_way");
    failing(&base);
    base.run("UPDATE enrichment_service SET max_in_flight = 20 WHERE name = 'dshield'");
    base.sandbox.set_latency("dshield", 300);
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 20)));
    base.wait_for(STATE, "open".to_string());
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE state = 'in_flight'", 0i64);
    // as many as went out together had to fail; whatever ends after that is nobody's failed attempt
    assert_eq!(base.one::<i32>("SELECT max(attempts) FROM enrichment_queue"), 1);
    assert_eq!(base.asked("dshield"), 20, "none went out after them");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE state = 'waiting'"), 20);
}

#[test]
fn one_poisonous_key_leaves_its_service_alone() {
    let base = base("one_key");
    failing(&base);
    base.sandbox.clear_faults();
    let key = &base.known("dshield", 1)[0];
    base.sandbox.fault(json!({"service": "dshield", "key": key, "kind": "not_json"}));
    base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
    for attempt in 1..=8 {
        base.wait_for("SELECT attempts FROM enrichment_queue", attempt);
        base.run("UPDATE enrichment_queue SET next_attempt_at = now() WHERE state = 'waiting'; SELECT enrich_wake()");
    }
    assert_eq!(base.one::<String>("SELECT state FROM enrichment_queue"), "dead");
    assert_eq!(base.one::<String>(STATE), "closed");
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(500, 20)));
    base.wait_for("SELECT count(*) FROM enrichment_queue", 1i64);
}

#[test]
fn it_is_open_after_a_restart_and_after_a_crash() {
    let cluster = Arc::new(own_cluster("breaker_restart"));
    let base = Base::in_cluster(&cluster, "breaker_restart", &["--limits", "none"]);
    failing(&base);
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 10)));
    base.wait_for(STATE, "open".to_string());
    let row =
        "SELECT (breaker, breaker_since, breaker_until, breaker_failures, breaker_openings, paused_until, cause)::text
        FROM enrichment_lane WHERE service = 'dshield'";
    let before: String = base.one(row);
    for (n, mode) in [StopMode::Fast, StopMode::Immediate].into_iter().enumerate() {
        cluster.stop(mode).expect("a stop");
        cluster.start_again().expect("a start");
        base.worker();
        // another lane's answer shows that calls are being started
        base.run(&format!("SELECT enrich_request('hibp', '0000{n}')"));
        base.wait_for(&format!("SELECT count(*) FROM enrichment_cache WHERE cache_key = '0000{n}'"), 1i64);
        support::let_the_worker_look(&base);
        assert_eq!(base.asked("dshield"), 3, "{mode:?}");
        assert_eq!(base.one::<String>(row), before, "{mode:?}");
    }
}

/// A refused connection and a short error page end before the answers of the calls beside them do.
#[test]
fn failures_that_are_quicker_than_the_answers_beside_them_do_not_open_it() {
    let base = base("quicker");
    base.run("UPDATE enrichment_service SET max_in_flight = 20 WHERE name = 'dshield'");
    set_rules(&base, "dshield", r#"{"breaker": {"failures": 3}}"#);
    // a third of the keys fails at once, the others are answered after a while
    for n in 0..60 {
        let key = address(1 + n);
        base.sandbox.fault(match n % 3 {
            0 => json!({"service": "dshield", "key": key, "kind": "reset", "count": 1}),
            _ => json!({"service": "dshield", "key": key, "kind": "slow", "ms": 300}),
        });
    }
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 60)));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts = 0", 0i64);
    let opened = "SELECT count(*) FROM enrichment_lane WHERE breaker_since IS NOT NULL";
    assert_eq!(base.one::<i64>(opened), 0, "it has never been open");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE last_outcome = 'error'"), 20);
}

/// Calls that time out take longer than those that are answered. When nothing else is to be asked they are the last to end, all in a
/// row; but calls that began after them have worked.
#[test]
fn failures_that_are_slower_than_the_answers_beside_them_do_not_open_it() {
    let base = base("slower");
    base.run("UPDATE enrichment_service SET max_in_flight = 20, timeout_ms = 1000 WHERE name = 'dshield'");
    set_rules(&base, "dshield", r#"{"breaker": {"failures": 3}}"#);
    for n in 0..6 {
        base.sandbox
            .fault(json!({"service": "dshield", "key": address(1 + n), "kind": "slow", "ms": 5_000, "count": 1}));
    }
    base.run(&format!("SELECT enrich_request_many('dshield', {}, 5)", addresses(1, 6)));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(7, 60)));
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts = 0", 0i64);
    let opened = "SELECT count(*) FROM enrichment_lane WHERE breaker_since IS NOT NULL";
    assert_eq!(base.one::<i64>(opened), 0, "it has never been open");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE last_outcome = 'error'"), 6);
}
