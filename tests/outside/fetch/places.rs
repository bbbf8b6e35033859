//! The places of waiting sessions: given back whatever ends a session, and how it waits in one.

use super::base;
use crate::support::{self, address, ask, one, same, Base, SOON};
use serde_json::json;
use std::fs;
use std::sync::Arc;
use testbed::{wait_until, Cluster};

/// As many as there are (`src/pg/shmem.rs`).
const PLACES: usize = 512;
const WAITING: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE query LIKE 'SELECT enrich_fetch%' AND wait_event_type = 'Extension' AND backend_type = 'client backend'";

#[test]
fn places_whose_sessions_were_all_terminated_are_free_again() {
    let cluster = Cluster::builder("all_places")
        .preload(true)
        .setting("autovacuum", "off")
        .setting("max_connections", "560")
        .setting("max_worker_processes", "16")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), "all_places", &["--limits", "none"]);
    base.sandbox.fault(json!({"service": "dshield", "key": address(1), "kind": "hang"}));
    let waits = format!("SELECT enrich_fetch('dshield', '{}', '1 hour')", address(1));
    let mut other = base.client();
    std::thread::scope(|threads| {
        let sessions: Vec<_> = (0..PLACES)
            .map(|_| {
                let thread = std::thread::Builder::new().stack_size(256 << 10);
                let session = || {
                    base.cluster
                        .try_client(&base.name)
                        .map_err(|why| why.to_string())?
                        .batch_execute(&waits)
                        .map_err(|why| support::said(&why))
                };
                thread.spawn_scoped(threads, session).expect("a thread")
            })
            .collect();
        wait_until("all places to be taken", SOON * 4, || same(ask::<i64>(&mut other, WAITING)?, &(PLACES as i64)));
        let sql = format!("SELECT enrich_fetch('dshield', '{}')", address(2));
        support::refused(&mut other, &sql, "53400", "");
        let terminate = WAITING.replace("count(*)", "count(pg_terminate_backend(pid))");
        assert_eq!(one::<i64>(&mut other, &terminate), PLACES as i64);
        for session in sessions {
            let why = session.join().expect("a session").expect_err("its end");
            assert!(why.contains("57P01") || why.contains("closed"), "{why}");
        }
    });
    assert_eq!(base.asked_for("dshield", &address(1)), 1, "all of them waited for one call");
    let mut keys = base.known("dshield", 20);
    // that call is still under way
    keys.retain(|key| *key != address(1));
    std::thread::scope(|threads| {
        for key in &keys {
            let sql = format!("SELECT enrich_fetch('dshield', '{key}', '1 minute') IS NOT NULL");
            let base = &base;
            threads.spawn(move || assert!(base.one::<bool>(&sql), "{key}"));
        }
    });
}

/// How often a process has given the processor away to wait for something.
fn waits_of(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process");
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
    line.and_then(|number| number.trim().parse().ok()).expect("a number")
}

#[test]
fn a_session_that_waits_sleeps_while_the_worker_answers_others() {
    let base = base("asleep");
    base.sandbox.fault(json!({"service": "dshield", "key": address(1), "kind": "hang"}));
    let (mut session, mut other) = (base.client(), base.client());
    let pid: i32 = one(&mut session, "SELECT pg_backend_pid()");
    let waits = format!("SELECT enrich_fetch('dshield', '{}', '1 hour')", address(1));
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| session.batch_execute(&waits).is_err());
        wait_until("the session to wait, and the provider to be asked", SOON, || {
            same(ask::<i64>(&mut other, &format!("{WAITING} AND pid = {pid}"))?, &1)?;
            same(base.asked_for("dshield", &address(1)), &1)
        });
        let before = waits_of(pid);
        for round in 1..=10 {
            let keys: Vec<String> = (0..50).map(|n| address(100 * round + n)).collect();
            support::run(&mut other, &format!("SELECT enrich_request_many('dshield', '{{{}}}')", keys.join(",")));
            wait_until("the others' answers", SOON, || {
                let answered =
                    "SELECT count(*) FROM enrichment_cache WHERE response_status IN ('success', 'not_found')";
                same(ask::<i64>(&mut other, answered)?, &i64::from(50 * round))
            });
        }
        let woken = waits_of(pid) - before;
        assert!(woken <= 10, "it woke {woken} times while 500 others were answered");
        assert!(one::<bool>(&mut other, &format!("SELECT pg_cancel_backend({pid})")));
        assert!(waiting.join().expect("an end"));
    });
}
