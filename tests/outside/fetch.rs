//! enrich_fetch: read-through by waiting sessions.

mod encrypted;
mod places;
mod snapshots;

use crate::support::{self, address, ask, one, run, same, Base, SOON};
use serde_json::{json, Value};
use std::time::{Duration, Instant};
use testbed::wait_until;

/// Far below any time-out in these tests, far above what ending a wait takes.
const AT_ONCE: Duration = Duration::from_secs(5);

fn base(name: &str) -> Base {
    Base::new("fetch", name)
}

fn fetch(base: &Base, key: &str, timeout: &str) -> Option<Value> {
    let sql = format!("SELECT enrich_fetch('dshield', '{key}', '{timeout}')::text");
    base.one::<Option<String>>(&sql).map(|text| serde_json::from_str(&text).expect("JSON"))
}

/// An expired answer for a key.
fn store_stale(base: &Base, key: &str) {
    base.run(&format!(
        "SELECT enrich_store('dshield', '{key}', '{{\"ip\": {{\"stored\": 1}}}}', '1 hour', fetched_at => now() - interval '2 hours')"
    ));
}

#[test]
fn fetch_returns_the_providers_answer_and_the_next_one_asks_nobody() {
    let base = base("returns");
    let key = &base.known("dshield", 1)[0];
    let answer = fetch(&base, key, "10 s").expect("an answer");
    assert_eq!(answer["ip"]["number"], json!(key));
    assert_eq!(fetch(&base, &format!("::ffff:{key}"), "10 s"), Some(answer.clone()), "another way to write the key");
    assert_eq!(base.one::<String>(&format!("SELECT enrich_get('dshield', '{key}')::text")), {
        let sql =
            format!("SELECT payload::text FROM enrichment_cache WHERE service = 'dshield' AND cache_key = '{key}'");
        base.one::<String>(&sql)
    });
    assert_eq!(base.asked_for("dshield", key), 1);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 0);
}

#[test]
fn fetch_needs_no_commit_in_any_kind_of_transaction() {
    let base = base("blocks");
    let keys = base.known("dshield", 5);
    let kinds =
        ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "REPEATABLE READ READ ONLY", "SERIALIZABLE READ ONLY"];
    let kinds = kinds.iter().zip(&keys).enumerate();
    for (n, (kind, key)) in kinds {
        let mut client = base.client();
        run(&mut client, &format!("BEGIN ISOLATION LEVEL {kind}"));
        // the snapshot of the block is taken before the answer is there
        let before: i64 = one(&mut client, "SELECT count(*) FROM enrichment_cache");
        assert_eq!(before, n as i64);
        let sql = format!("SELECT enrich_fetch('dshield', '{key}') -> 'ip' ->> 'number'");
        assert_eq!(one::<Option<String>>(&mut client, &sql).as_deref(), Some(key.as_str()), "{kind}");
        run(&mut client, "ROLLBACK");
        assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache"), n as i64 + 1, "kept after the rollback");
    }
}

#[test]
fn when_time_runs_out_the_value_is_null_or_the_stale_answer() {
    let base = base("runs_out");
    let keys = base.known("dshield", 2);
    store_stale(&base, &keys[1]);
    base.sandbox.fault(json!({ "service": "dshield", "kind": "hang" }));
    for (key, answer) in [(&keys[0], None), (&keys[1], Some(json!({ "ip": { "stored": 1 } })))] {
        let began = Instant::now();
        assert_eq!(fetch(&base, key, "400 ms"), answer);
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(400) && took < AT_ONCE, "{took:?}");
        assert_eq!(base.asked_for("dshield", key), 1, "it was asked for all the same");
    }
    let state = |key| base.one::<String>(&format!("SELECT state FROM enrich_lookup('dshield', '{key}')"));
    assert_eq!([state(&keys[0]), state(&keys[1])], ["queued", "stale"]);
}

#[test]
fn a_provider_that_is_down_ends_the_wait_without_an_answer() {
    let base = base("down");
    let keys = base.known("dshield", 2);
    store_stale(&base, &keys[1]);
    base.sandbox.fault(json!({ "service": "dshield", "kind": "status", "status": 503 }));
    let began = Instant::now();
    assert_eq!(fetch(&base, &keys[0], "60 s"), None);
    assert_eq!(fetch(&base, &keys[1], "60 s"), Some(json!({ "ip": { "stored": 1 } })));
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let state = |key| base.one::<String>(&format!("SELECT state FROM enrich_lookup('dshield', '{key}')"));
    assert_eq!([state(&keys[0]), state(&keys[1])], ["error", "stale"]);

    // nobody listens at all
    base.run("UPDATE enrichment_service SET url = 'http://127.0.0.1:9/{key}' WHERE name = 'dshield'");
    assert_eq!(fetch(&base, &address(7), "60 s"), None);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let why: String = base.one(&format!(
        "SELECT error_message FROM enrichment_cache WHERE service = 'dshield' AND cache_key = '{}'",
        address(7)
    ));
    assert!(why.contains("no connection to 127.0.0.1"), "{why}");
}

#[test]
fn a_statement_timeout_and_a_cancel_end_the_wait_at_once() {
    let base = base("cancel");
    base.sandbox.fault(json!({ "service": "dshield", "kind": "hang" }));
    let mut client = base.client();
    let began = Instant::now();
    run(&mut client, "SET statement_timeout = '300 ms'");
    let sql = format!("SELECT enrich_fetch('dshield', '{}', '60 s')", address(1));
    support::refused(&mut client, &sql, "57014", "");
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());

    run(&mut client, "RESET statement_timeout");
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    let waits = "SELECT wait_event_type FROM pg_stat_activity WHERE state = 'active' AND pid = ";
    let mut other = base.client();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| support::refused(&mut client, &sql, "57014", ""));
        wait_until("the session to wait", SOON, || {
            same(ask::<Option<String>>(&mut other, &format!("{waits}{pid}"))?, &Some("Extension".to_string()))
        });
        let began = Instant::now();
        assert!(one::<bool>(&mut other, &format!("SELECT pg_cancel_backend({pid})")));
        waiting.join().expect("a cancelled statement");
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    });
    // its place among the waiting is free and the session goes on
    base.sandbox.clear_faults();
    let key = &base.known("dshield", 3)[2];
    assert!(one::<bool>(&mut client, &format!("SELECT enrich_fetch('dshield', '{key}') IS NOT NULL")));
}

#[test]
fn what_the_provider_does_not_know_is_null_at_once_and_stays_known_as_such() {
    let base = base("unknown");
    let unknown = |n: &u32| base.sandbox.expect("dshield", &address(*n))["outcome"] == "not_found";
    let key = (1..).find(unknown).map(address).expect("an address without reports");
    let began = Instant::now();
    assert_eq!(fetch(&base, &key, "60 s"), None);
    assert_eq!(fetch(&base, &key, "60 s"), None);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(base.asked_for("dshield", &key), 1);
    assert_eq!(base.one::<String>(&format!("SELECT state FROM enrich_lookup('dshield', '{key}')")), "not_found");
}

#[test]
fn what_is_never_asked_is_not_waited_for() {
    let base = base("never");
    base.run(
        "UPDATE enrichment_service SET enabled = false WHERE name = 'spur'; SELECT enrich_set_secret('urlhaus', NULL)",
    );
    let began = Instant::now();
    for (service, key) in [("dshield", "10.1.2.3"), ("spur", "8.8.8.8"), ("urlhaus", "8.8.8.8")] {
        let sql = format!("SELECT enrich_fetch('{service}', '{key}', '60 s') IS NULL");
        assert!(base.one::<bool>(&sql), "{service}");
        assert_eq!(base.asked(service), 0);
    }
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let mut client = base.client();
    support::refused(&mut client, "SELECT enrich_fetch('dsheild', '8.8.8.8')", "42704", "dshield");
    support::refused(&mut client, "SELECT enrich_fetch('dshield', 'nonsense')", "22023", "");
    support::refused(&mut client, "SELECT enrich_fetch('dshield', '8.8.8.8', '-1 s')", "22023", "");
}

#[test]
fn an_open_transaction_that_asked_for_a_key_holds_up_no_fetch() {
    let base = base("open");
    let keys = base.known("dshield", 2);
    let mut open = base.client();
    run(&mut open, "BEGIN");
    assert_eq!(one::<String>(&mut open, &format!("SELECT enrich_request('dshield', '{}')", keys[0])), "queued");
    std::thread::scope(|threads| {
        let same_key = threads.spawn(|| fetch(&base, &keys[0], "8 s"));
        let began = Instant::now();
        assert!(fetch(&base, &keys[1], "60 s").is_some());
        assert!(began.elapsed() < Duration::from_secs(3), "another key waited {:?}", began.elapsed());
        run(&mut open, "COMMIT");
        assert!(same_key.join().expect("an answer").is_some());
    });
    assert_eq!(base.asked_for("dshield", &keys[0]), 1);
}

#[test]
fn a_transaction_may_fetch_what_it_has_requested_itself() {
    let base = base("itself");
    let key = &base.known("dshield", 1)[0];
    let mut client = base.client();
    run(&mut client, &format!("BEGIN; SELECT enrich_request('dshield', '{key}')"));
    let began = Instant::now();
    let sql = format!("SELECT enrich_fetch('dshield', '{key}', '1 s') IS NOT NULL");
    let _ = one::<bool>(&mut client, &sql);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    run(&mut client, "COMMIT");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    assert_eq!(base.asked_for("dshield", key), 1);
    assert!(base.one::<bool>(&sql));
}
