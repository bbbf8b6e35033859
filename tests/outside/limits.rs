//! Limits mean waiting: they hold against the provider's own, across restarts, and delay nobody else.

mod failover;
mod pauses;
mod reported;
mod shared;
mod simulated;

use crate::support::{self, address, ask, own_cluster, same, Base, SOON};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{wait_until, StopMode};

/// A base whose provider keeps this limit itself, and so do we.
fn limited(name: &str, max: u32, per: &str) -> Base {
    let base = Base::new("limits", name);
    set_limit(&base, max, per);
    base
}

fn set_limit(base: &Base, max: u32, per: &str) {
    base.sandbox.set_limit("hibp", max, per);
    let limits = format!(r#"[{{"max": {max}, "per": "{per}"}}]"#);
    base.run(&format!("UPDATE enrichment_service SET limits = '{limits}', max_in_flight = 8 WHERE name = 'hibp'"));
}

fn request(base: &Base, from: u32, n: u32) {
    let keys: Vec<String> = (from..from + n).map(|n| format!("{n:05X}")).collect();
    base.run(&format!("SELECT enrich_request_many('hibp', '{{{}}}')", keys.join(",")));
}

const ANSWERED: &str = "SELECT count(*) FROM enrichment_cache WHERE service = 'hibp' AND response_status = 'success'";

/// Nobody was told to wait, nothing has failed, no key was asked twice.
#[track_caller]
fn nothing_went_wrong(base: &Base, asked: i64) {
    let stats = base.sandbox.stats()["hibp"].clone();
    assert_eq!((stats["limited"].as_i64(), stats["requests"].as_i64()), (Some(0), Some(asked)), "{stats}");
    assert_eq!(
        base.one::<i64>("SELECT count(*) FROM enrichment_queue WHERE attempts > 0 OR last_outcome IS NOT NULL"),
        0
    );
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_lane WHERE paused_until IS NOT NULL"), 0);
}

#[test]
fn a_limit_per_second_holds_and_is_used() {
    for (max, n) in [(1, 4), (5, 21)] {
        let base = limited(&format!("second_{max}"), max, "second");
        let began = Instant::now();
        request(&base, 0, n);
        base.wait_for(ANSWERED, i64::from(n));
        let (took, least) = (began.elapsed(), Duration::from_secs(u64::from((n - 1) / max)));
        assert!(took >= least && took < least * 2 + Duration::from_secs(3), "{n} at {max}/s took {took:?}");
        nothing_went_wrong(&base, i64::from(n));
    }
}

#[test]
fn a_limit_per_minute_makes_the_rest_wait_until_the_limit_is_changed() {
    let base = limited("minute", 12, "minute");
    request(&base, 0, 30);
    base.wait_for(ANSWERED, 12i64);
    support::let_the_worker_look(&base);
    nothing_went_wrong(&base, 12);
    let spent = "SELECT sum(spent)::bigint FROM enrichment_quota WHERE service = 'hibp' AND per = 'minute'";
    assert_eq!(base.one::<i64>(spent), 12);
    let waiting = "SELECT count(*) FROM enrichment_queue WHERE state = 'waiting'";
    assert_eq!(base.one::<i64>(waiting), 18);
    assert_eq!(base.one::<String>("SELECT state FROM enrich_lookup('hibp', '0001D')"), "queued");

    // what was spent stays spent under the new limit
    base.sandbox.lift_limit("hibp");
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 20, "per": "minute"}]' WHERE name = 'hibp'"#);
    base.wait_for(ANSWERED, 20i64);
    support::let_the_worker_look(&base);
    nothing_went_wrong(&base, 20);
    let began = Instant::now();
    base.run("UPDATE enrichment_service SET limits = '[]' WHERE name = 'hibp'");
    base.wait_for(ANSWERED, 30i64);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    nothing_went_wrong(&base, 30);
}

#[test]
fn the_tightest_of_several_windows_binds() {
    let base = limited("several", 6, "minute");
    base.run(
        r#"UPDATE enrichment_service SET limits =
           '[{"max": 3, "per": "second"}, {"max": 6, "per": "minute"}, {"max": 100, "per": "hour"}]' WHERE name = 'hibp'"#,
    );
    let began = Instant::now();
    request(&base, 0, 10);
    base.wait_for(ANSWERED, 6i64);
    assert!(began.elapsed() >= Duration::from_secs(1));
    support::let_the_worker_look(&base);
    nothing_went_wrong(&base, 6);
    let spent = "SELECT string_agg(per || '=' || n, ' ' ORDER BY per) FROM
        (SELECT per, sum(spent) AS n FROM enrichment_quota WHERE service = 'hibp' GROUP BY per) s";
    assert_eq!(base.one::<String>(spent), "hour=6 minute=6 second=6");
}

#[test]
fn no_call_is_made_whose_spend_is_not_recorded() {
    let base = limited("recorded", 10, "minute");
    let mut holder = base.client();
    support::run(&mut holder, "BEGIN; LOCK TABLE enrichment_quota IN EXCLUSIVE MODE");
    request(&base, 0, 4);
    wait_until("the worker to try in vain", SOON, || {
        match base.cluster.log().contains("enrichment_cache: start of calls failed") {
            true => Ok(Some(())),
            false => Err(format!("{} calls", base.asked("hibp"))),
        }
    });
    assert_eq!(base.asked("hibp"), 0);
    support::run(&mut holder, "COMMIT");
    base.wait_for(ANSWERED, 4i64);
    nothing_went_wrong(&base, 4);
    assert_eq!(base.one::<i64>("SELECT sum(spent)::bigint FROM enrichment_quota WHERE service = 'hibp'"), 4);
}

/// Also when the server crashes the moment it is under way: what is spent is on disk before the call goes out.
#[test]
fn a_call_that_brings_no_answer_is_spent_all_the_same() {
    let cluster = Arc::new(own_cluster("spent"));
    let base = Base::in_cluster(&cluster, "spent", &["--limits", "none"]);
    // nothing else brings a commit to disk
    for set in ["synchronous_commit = off", "wal_writer_delay = '10 s'", "wal_writer_flush_after = '1 GB'"] {
        base.run(&format!("ALTER SYSTEM SET {set}"));
    }
    base.run("SELECT pg_reload_conf()");
    set_limit(&base, 3, "day");
    base.sandbox.fault(json!({"service": "hibp", "kind": "hang"}));
    base.run("CHECKPOINT");
    request(&base, 0, 9);
    wait_until("calls under way", SOON, || {
        let in_flight = base.sandbox.stats()["hibp"]["in_flight"].as_i64();
        same(in_flight, &Some(3))
    });
    cluster.stop(StopMode::Immediate).expect("a stop");
    cluster.start_again().expect("a start");
    let spent = "SELECT sum(spent)::bigint FROM enrichment_quota WHERE service = 'hibp'";
    assert_eq!(base.one::<i64>(spent), 3);
    base.worker();
    base.run(&format!("SELECT enrich_request('dshield', '{}')", address(1)));
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service = 'dshield'", 1i64);
    support::let_the_worker_look(&base);
    assert_eq!((base.asked("hibp"), base.one::<i64>(spent)), (3, 3));
}

#[test]
fn neither_a_restart_nor_a_crash_makes_a_window_new() {
    let cluster = Arc::new(own_cluster("windows"));
    let base = Base::in_cluster(&cluster, "windows", &["--limits", "none"]);
    set_limit(&base, 5, "minute");
    request(&base, 0, 9);
    base.wait_for(ANSWERED, 5i64);
    for mode in [StopMode::Fast, StopMode::Immediate] {
        cluster.stop(mode).expect("a stop");
        cluster.start_again().expect("a start");
        base.worker();
        // another lane's answer shows that calls are being started
        let key = if mode == StopMode::Fast { address(1) } else { address(2) };
        base.run(&format!("SELECT enrich_request('dshield', '{key}')"));
        base.wait_for(&format!("SELECT count(*) FROM enrichment_cache WHERE cache_key = '{key}'"), 1i64);
        support::let_the_worker_look(&base);
        nothing_went_wrong(&base, 5);
    }
}

#[test]
fn the_trouble_of_one_service_delays_no_other() {
    let base = Base::new("limits", "trouble");
    // more calls than there are threads, none of which ends
    base.run("UPDATE enrichment_service SET max_in_flight = 1000, timeout_ms = 600000 WHERE name = 'dshield'");
    base.sandbox.fault(json!({"service": "dshield", "kind": "hang"}));
    base.sandbox.fault(json!({"service": "spur", "kind": "status", "status": 503}));
    base.sandbox.fault(json!({"service": "urlhaus", "kind": "retry_after_seconds", "n": 600}));
    let keys = (1..=100).map(address).collect::<Vec<_>>().join(",");
    let ask_all = |service| base.run(&format!("SELECT enrich_request_many('{service}', '{{{keys}}}')"));
    ["dshield", "spur", "urlhaus"].into_iter().for_each(ask_all);
    let mut client = base.client();
    wait_until("the troubles", SOON, || {
        let sql = "SELECT count(DISTINCT service) FROM enrichment_cache WHERE service IN ('spur', 'urlhaus')";
        same(ask::<i64>(&mut client, sql)?, &2)?;
        same(base.asked("dshield") >= 20, &true)
    });
    let began = Instant::now();
    request(&base, 0, 100);
    base.wait_for(ANSWERED, 100i64);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
