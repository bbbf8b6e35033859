//! Pauses that a provider's "too many requests" brings: how long, and how they end.

use crate::support::{self, address, Base};
use serde_json::json;

const ALL_AT_ONCE: u32 = 20;

fn ask(base: &Base, service: &str, keys: std::ops::Range<u32>) {
    let keys: Vec<String> = keys.map(address).collect();
    base.run(&format!("SELECT enrich_request_many('{service}', '{{{}}}')", keys.join(",")));
}

/// Ends a service's pause, as time would.
fn end_pause(base: &Base, service: &str) {
    base.run(&format!(
        "UPDATE enrichment_lane SET paused_until = now() WHERE service = '{service}';
         UPDATE enrichment_queue SET next_attempt_at = now() WHERE service = '{service}'; SELECT enrich_wake()"
    ));
}

/// Waits for the so many-th pause in a row, and until nothing is under way; its length in seconds.
fn pause(base: &Base, service: &str, n: i32) -> i64 {
    base.wait_for(&format!("SELECT failures FROM enrichment_lane WHERE service = '{service}'"), n);
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE state = 'in_flight'", 0i64);
    support::let_the_worker_look(base);
    let length =
        "SELECT round(extract(epoch FROM paused_until - changed_at))::bigint FROM enrichment_lane WHERE service = ";
    base.one(&format!("{length}'{service}'"))
}

#[test]
fn after_a_pause_one_call_finds_out_whether_the_limit_still_holds_and_each_pause_is_longer() {
    let base = Base::new("limits", "probed");
    base.run(&format!("UPDATE enrichment_service SET max_in_flight = {ALL_AT_ONCE} WHERE name = 'dshield'"));
    base.sandbox.fault(json!({"service": "dshield", "kind": "429_plain"}));
    ask(&base, "dshield", 1..61);
    // DShield's five minutes, and twice as long each time
    let mut pauses = vec![pause(&base, "dshield", 1)];
    let first = base.asked("dshield");
    assert!(first <= i64::from(ALL_AT_ONCE), "{first} calls before the first answer");
    for n in 1..=2 {
        end_pause(&base, "dshield");
        pauses.push(pause(&base, "dshield", n + 1));
        assert_eq!(base.asked("dshield"), first + i64::from(n), "one call for each pause");
    }
    for (pause, longest) in pauses.iter().zip([300, 600, 1200]) {
        assert!((longest - 10..=longest).contains(pause), "{pauses:?}");
    }
    let untouched = "SELECT count(*) FROM enrichment_queue WHERE attempts = 0 AND state = 'waiting'";
    assert_eq!(base.one::<i64>(untouched), 60);

    // one that is answered lets all the others go at once
    base.sandbox.reset();
    base.sandbox.set_latency("dshield", 300);
    end_pause(&base, "dshield");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let stats = base.sandbox.stats()["dshield"].clone();
    assert_eq!(stats["requests"], 60, "{stats}");
    assert!(stats["max_in_flight"].as_i64() >= Some(10), "{stats}");
    let forgotten =
        "SELECT count(*) FROM enrichment_lane WHERE service = 'dshield' AND (failures > 0 OR cause IS NOT NULL)";
    assert_eq!(base.one::<i64>(forgotten), 0);
}

#[test]
fn what_the_provider_asks_for_is_obeyed_as_it_is_however_often_it_was_asked_for() {
    let base = Base::new("limits", "obeyed");
    base.run("UPDATE enrichment_service SET max_in_flight = 1 WHERE name = 'dshield'");
    base.sandbox.fault(json!({"service": "dshield", "kind": "retry_after_seconds", "n": 40}));
    ask(&base, "dshield", 1..4);
    for n in 1..=3 {
        let pause = pause(&base, "dshield", n);
        assert!((30..=40).contains(&pause), "pause {n}: {pause}");
        end_pause(&base, "dshield");
    }
}

#[test]
fn a_used_up_quota_is_left_alone_longer_than_a_short_limit_of_the_same_provider() {
    for (name, code, cause, length) in [
        ("quota_used_up", "QuotaExceededError", "used_up", 300),
        ("quota_short", "TooManyRequestsError", "rate_limited", 60),
    ] {
        let base = Base::new("limits", name);
        let body = format!(r#"{{"error": {{"code": "{code}"}}}}"#);
        base.sandbox.fault(json!({"service": "virustotal", "kind": "body", "status": 429, "body": body}));
        ask(&base, "virustotal", 1..2);
        let pause = pause(&base, "virustotal", 1);
        assert!((length - 10..=length).contains(&pause), "{code}: {pause}");
        let noted = base.one::<String>("SELECT cause FROM enrichment_lane WHERE service = 'virustotal'");
        assert_eq!(noted, cause, "{code}");
    }
}

#[test]
fn a_balance_that_was_bought_while_the_service_is_paused_is_noticed() {
    // one request waits for the end of the pause, or also some that are due
    for keys in [1, 5] {
        noticed(&Base::new("limits", &format!("bought_{keys}")), keys);
    }
}

fn noticed(base: &Base, keys: u32) {
    base.run(
        "UPDATE enrichment_service SET max_in_flight = 1,
             rules = jsonb_set(rules, '{usage,every_seconds}', '1') WHERE name = 'spur'",
    );
    base.sandbox.set_spur_balance(0);
    ask(base, "spur", 1..keys + 1);
    base.wait_for("SELECT cause FROM enrichment_lane WHERE service = 'spur'", "used_up".to_string());
    // for an hour, in which no key is asked for
    let refused = base.sandbox.stats()["spur"]["limited"].clone();
    base.sandbox.set_spur_balance(100);
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE service = 'spur'", 0i64);
    assert_eq!(base.sandbox.stats()["spur"]["limited"], refused, "no call was needed to find out");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_lane WHERE paused_until IS NOT NULL"), 0);
}

#[test]
fn a_balance_that_was_told_before_it_was_used_up_ends_no_pause() {
    let base = Base::new("limits", "told_before");
    base.sandbox.fault(json!({"service": "spur", "key": "status", "kind": "slow", "ms": 8_000, "count": 1}));
    base.sandbox.fault(json!({"service": "spur", "key": address(1), "kind": "body", "status": 429,
        "body": r#"{"error": "insufficient queries"}"#}));
    ask(&base, "spur", 1..2);
    base.wait_for("SELECT cause FROM enrichment_lane WHERE service = 'spur'", "used_up".to_string());
    let told = "SELECT count(*) FROM enrichment_quota_status WHERE service = 'spur' AND provider_remaining > 0";
    assert_eq!(base.one::<i64>(told), 0, "what the status says comes later");
    base.wait_for(told, 1i64);
    support::let_the_worker_look(&base);
    let paused = "SELECT count(*) FROM enrichment_lane WHERE service = 'spur' AND paused_until > now() + '30 minutes'";
    assert_eq!(base.one::<i64>(paused), 1);
    assert_eq!(base.sandbox.stats()["spur"]["requests"].as_i64(), Some(1), "asked once");
}
