//! Refreshes that ask only whether an answer has changed.

use crate::support::{self, one, Base, SOON};
use testbed::wait_until;

const KEY: &str = "ABCDE";

fn base(name: &str) -> Base {
    let base = Base::new("conditional", name);
    base.run(&format!("SELECT enrich_request('hibp', '{KEY}')"));
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE payload IS NOT NULL", 1i64);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    base
}

fn refresh(base: &Base) {
    base.run(&format!("SELECT enrich_invalidate('hibp', '{KEY}')"));
    base.run(&format!("SELECT enrich_request('hibp', '{KEY}')"));
}

#[test]
fn a_304_renews_the_row_without_a_new_payload() {
    let base = base("renewed");
    let kept = "SELECT (md5(ranges), payload, etag, last_modified, created_at)::text FROM enrichment_cache";
    let (before, fetched): (String, String) =
        (base.one(kept), base.one("SELECT fetched_at::text FROM enrichment_cache"));
    assert!(before.contains("0x8D") && before.contains("01 Jul 2026"), "{before}");
    refresh(&base);
    base.wait_for("SELECT api_response_code FROM enrichment_cache", 304);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!(base.one::<String>(kept), before);
    let fresh = format!(
        "SELECT fetched_at > '{fetched}' AND expires_at BETWEEN fetched_at + interval '56 days' AND fetched_at + interval '64 days'
            AND error_message IS NULL AND response_status = 'success' AND version = 3 FROM enrichment_cache"
    );
    assert!(base.one::<bool>(&fresh), "{}", base.one::<String>("SELECT enrichment_cache::text FROM enrichment_cache"));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_history"), 0);
    assert_eq!(base.asked_for("hibp", KEY), 2);
    let counted = "SELECT api_calls || ' ' || cache_stores || ' ' || api_failures FROM enrichment_cache_stats WHERE service = 'hibp'";
    assert_eq!(base.one::<String>(counted), "2 1 0", "a renewal is a call");
    assert!(base.one::<bool>(&format!("SELECT enrich_get('hibp', '{KEY}') IS NOT NULL")));
}

#[test]
fn a_304_for_a_row_that_has_vanished_is_asked_again_without_the_condition() {
    let base = base("vanished");
    base.sandbox.set_latency("hibp", 1500);
    refresh(&base);
    wait_until("the call to be under way", SOON, || {
        support::same(base.sandbox.stats()["hibp"]["in_flight"].as_i64(), &Some(1))
    });
    base.run(&format!("SELECT enrich_invalidate('hibp', '{KEY}', hard => true)"));
    let mut waiting = base.client();
    // the session waits for the answer, not for the word that nothing has changed
    let got: bool = one(&mut waiting, &format!("SELECT enrich_fetch('hibp', '{KEY}', '25 s') IS NOT NULL"));
    assert!(got);
    assert_eq!(base.asked_for("hibp", KEY), 3);
    assert_eq!(base.one::<i32>("SELECT api_response_code FROM enrichment_cache"), 200);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
}

#[test]
fn a_failed_refresh_keeps_what_names_the_version_and_another_answer_forgets_it() {
    let base = base("kept");
    let named = "SELECT etag IS NOT NULL AND last_modified IS NOT NULL FROM enrichment_cache";
    base.sandbox.fault(serde_json::json!({"service": "hibp", "kind": "status", "status": 503, "count": 1}));
    refresh(&base);
    base.wait_for("SELECT api_response_code FROM enrichment_cache", 503);
    assert!(base.one::<bool>(named), "a failure replaces nothing");
    base.run("UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_wake()");
    base.wait_for("SELECT api_response_code FROM enrichment_cache", 304);
    base.run(&format!("SELECT enrich_store('hibp', '{KEY}', '{{}}')"));
    assert!(!base.one::<bool>(named), "what SQL stores has no version of the provider's");
    refresh(&base);
    base.wait_for("SELECT api_response_code FROM enrichment_cache", 200);
}
