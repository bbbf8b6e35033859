//! What a provider says of its limits itself is read, shown beside the ledger, and wins.

use crate::support::{self, address, Base};
use serde_json::json;

fn ask(base: &Base, service: &str, keys: std::ops::RangeInclusive<u32>) {
    let keys: Vec<String> = keys.map(address).collect();
    base.run(&format!("SELECT enrich_request_many('{service}', '{{{}}}')", keys.join(",")));
}

fn answered(service: &str) -> String {
    format!("SELECT count(*) FROM enrichment_cache WHERE service = '{service}' AND response_status IN ('success', 'not_found')")
}

#[test]
fn a_balance_in_a_header_stops_the_calls_before_the_provider_does_and_its_status_starts_them_again() {
    let base = Base::new("limits", "balance");
    base.sandbox.set_spur_balance(4);
    // one call at a time: the first answer says what is left
    base.run(
        "UPDATE enrichment_service SET max_in_flight = 1,
             rules = jsonb_set(rules, '{usage,every_seconds}', '1') WHERE name = 'spur'",
    );
    ask(&base, "spur", 1..=9);
    base.wait_for(&answered("spur"), 4i64);
    support::let_the_worker_look(&base);
    let stats = base.sandbox.stats()["spur"].clone();
    assert_eq!((stats["requests"].as_i64(), stats["limited"].as_i64()), (Some(4), Some(0)), "{stats}");
    let balance = "SELECT remaining || ' left, ' || provider_remaining FROM enrichment_quota_status WHERE service = 'spur' AND per = 'balance'";
    assert_eq!(base.one::<String>(balance), "0 left, 0");
    let told = "SELECT coalesce(string_agg(detail, ';'), '') LIKE 'the balance at the provider is used up, the next call is tried at 20%UTC'
        FROM enrich_health() WHERE severity = 'warning' AND check_name = 'service spur'";
    assert!(base.one::<bool>(told));
    let waiting =
        "SELECT count(*) FROM enrichment_queue WHERE state = 'waiting' AND attempts = 0 AND last_outcome IS NULL";
    assert_eq!(base.one::<i64>(waiting), 5);
    // bought: the status endpoint tells, no call is needed to find out
    base.sandbox.set_spur_balance(100);
    base.wait_for(&answered("spur"), 9i64);
    assert_eq!(base.sandbox.stats()["spur"]["limited"].as_i64(), Some(0));
}

#[test]
fn a_quota_endpoint_that_allows_less_than_the_limits_wins() {
    let base = Base::new("limits", "quotas");
    base.sandbox.set_limit("virustotal", 5, "day");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 500, "per": "day"}]', max_in_flight = 8,
             rules = jsonb_set(jsonb_set(rules, '{usage,every_seconds}', '1'), '{variables,default,account}', '"me"')
           WHERE name = 'virustotal'"#,
    );
    ask(&base, "virustotal", 1..=1);
    base.wait_for(
        "SELECT provider_max FROM enrichment_quota_status WHERE service = 'virustotal' AND per = 'day'",
        Some(5i64),
    );
    base.wait_for(&answered("virustotal"), 1i64);
    ask(&base, "virustotal", 2..=20);
    base.wait_for(&answered("virustotal"), 5i64);
    support::let_the_worker_look(&base);
    let stats = base.sandbox.stats()["virustotal"].clone();
    assert_eq!(stats["limited"].as_i64(), Some(0), "{stats}");
    let shown = "SELECT max || ' ' || spent || ' ' || remaining || ' ' || provider_max FROM enrichment_quota_status
        WHERE service = 'virustotal' AND per = 'day'";
    assert_eq!(base.one::<String>(shown), "5 5 0 5");
    // what only the provider counts is shown too
    let windows = "SELECT string_agg(per, ' ' ORDER BY per) FROM enrichment_quota_status WHERE service = 'virustotal'";
    assert_eq!(base.one::<String>(windows), "day hour month");
}

/// The numbers of the quota endpoint are of the moment when it was asked; calls that end before its answer comes may not be in them.
#[test]
fn calls_that_end_while_the_quota_endpoint_is_asked_count_beside_its_numbers() {
    let base = Base::new("limits", "slow_quotas");
    base.sandbox.set_limit("virustotal", 5, "day");
    base.sandbox.fault(json!({"service": "virustotal", "key": "status", "count": 1, "kind": "slow", "ms": 1500}));
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 500, "per": "day"}]', max_in_flight = 8,
             rules = jsonb_set(jsonb_set(rules, '{usage,every_seconds}', '3600'), '{variables,default,account}', '"me"')
           WHERE name = 'virustotal'"#,
    );
    // the question goes out with the first of these, and is under way until all are answered
    ask(&base, "virustotal", 1..=1);
    base.wait_for(&answered("virustotal"), 1i64);
    ask(&base, "virustotal", 2..=3);
    base.wait_for(&answered("virustotal"), 3i64);
    let allowed = "SELECT provider_max FROM enrichment_quota_status WHERE service = 'virustotal' AND per = 'day'";
    assert_eq!(base.one::<Option<i64>>(allowed), None, "the quota endpoint was quicker than three calls");
    base.wait_for(allowed, Some(5i64));
    ask(&base, "virustotal", 4..=20);
    // five, or four where the numbers held the first of them
    base.wait_for(&answered("virustotal").replace("count(*)", "count(*) >= 4"), true);
    support::let_the_worker_look(&base);
    let stats = base.sandbox.stats()["virustotal"].clone();
    assert_eq!(stats["limited"].as_i64(), Some(0), "{stats}");
}

#[test]
fn without_an_account_the_quota_endpoint_is_not_asked() {
    let base = Base::new("limits", "no_account");
    ask(&base, "virustotal", 1..=3);
    base.wait_for(&answered("virustotal"), 3i64);
    support::let_the_worker_look(&base);
    let said = "SELECT count(provider_said_at) FROM enrichment_quota_status WHERE service = 'virustotal'";
    assert_eq!(base.one::<i64>(said), 0);
}

/// A base whose provider keeps a limit that only it knows, and says in each answer what is left of it.
fn telling(name: &str, per: &str) -> Base {
    let base = Base::new("limits", name);
    base.sandbox.set_limit("dshield", 5, per);
    base.sandbox.tell_limits("dshield");
    base.run(&format!(
        r#"UPDATE enrichment_service SET max_in_flight = 1, rules = rules || '{{"usage": {{"headers": [{{"per": "{per}",
             "allowed": "x-ratelimit-limit", "remaining": "x-ratelimit-remaining", "reset": "x-ratelimit-reset"}}]}}}}'
           WHERE name = 'dshield'"#
    ));
    base
}

#[test]
fn a_header_that_says_nothing_is_left_stops_the_calls_until_its_reset() {
    let base = telling("told_minute", "minute");
    ask(&base, "dshield", 1..=9);
    base.wait_for(&answered("dshield"), 5i64);
    support::let_the_worker_look(&base);
    let stats = base.sandbox.stats()["dshield"].clone();
    assert_eq!((stats["requests"].as_i64(), stats["limited"].as_i64()), (Some(5), Some(0)), "{stats}");
    let waits = "SELECT q.due || ' ' || (q.next_attempt_at = s.provider_resets_at) || ' ' || s.provider_remaining || ' ' || s.provider_max
        FROM enrichment_queue_status q JOIN enrichment_quota_status s USING (service) WHERE service = 'dshield' AND per = 'minute'";
    assert_eq!(base.one::<String>(waits), "0 true 0 5");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_lane WHERE paused_until IS NOT NULL"), 0);
}

#[test]
fn the_reset_of_a_header_lets_the_calls_go_on() {
    let base = telling("told_second", "second");
    ask(&base, "dshield", 1..=17);
    base.wait_for(&answered("dshield"), 17i64);
    let stats = base.sandbox.stats()["dshield"].clone();
    assert_eq!((stats["requests"].as_i64(), stats["limited"].as_i64()), (Some(17), Some(0)), "{stats}");
}

#[test]
fn a_balance_told_by_calls_side_by_side_is_spent_to_the_last_query_and_no_further() {
    let base = Base::new("limits", "side_by_side");
    base.sandbox.set_spur_balance(100);
    // from headers alone, and in another order than the queries were counted in
    base.run("UPDATE enrichment_service SET max_in_flight = 8, rules = rules #- '{usage,url}' #- '{usage,body}' WHERE name = 'spur'");
    base.sandbox.fault(json!({"service": "spur", "kind": "slow", "ms": 30, "share": 0.3}));
    ask(&base, "spur", 1..=150);
    base.wait_for(&answered("spur"), 100i64);
    support::let_the_worker_look(&base);
    let stats = base.sandbox.stats()["spur"].clone();
    assert_eq!((stats["requests"].as_i64(), stats["limited"].as_i64()), (Some(100), Some(0)), "{stats}");
}
