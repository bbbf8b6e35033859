//! The pool: threads, wake-ups, panics, signals, shutdown.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::pool::Performed;
use super::test_server::{get, json, key, loopback, service, Reply, Server};
use super::{Client, Done, Job, Pool};
use crate::core::classify::{Cause, Outcome};

const PATIENCE: Duration = Duration::from_secs(20);

fn job(id: i64, url: String, timeout_ms: u32) -> Job {
    Job { id, service: Arc::new(service(timeout_ms)), key: key(&format!("k{id}")), request: get(url), usage: false }
}

/// Drains until there are `wanted` results.
fn collect(pool: &Pool, wanted: usize) -> Vec<Done> {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Vec::new();
    while all.len() < wanted {
        assert!(Instant::now() < deadline, "{} of {wanted} results came", all.len());
        all.extend(pool.results_within(100));
    }
    all
}

fn message(done: &Done) -> &str {
    match &done.outcome {
        Outcome::Error { message, .. } => message,
        other => panic!("not an error: {other:?}"),
    }
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn two_hundred_jobs_on_sixteen_threads_reuse_their_connections() {
    let server = Server::start(|_| json("{\"verdict\":1}"));
    let pool = Pool::start(16, loopback()).unwrap();
    (0..200).for_each(|id| pool.submit(job(id, server.url("/"), 20_000)));
    let results = collect(&pool, 200);
    assert_eq!(results.iter().map(|done| done.id).collect::<HashSet<_>>().len(), 200);
    for done in &results {
        assert_eq!(
            done.outcome,
            Outcome::Success { payload: "{\"verdict\":1}".into(), ranges: None, altered: false, validators: None }
        );
        assert_eq!((done.status_code, done.key.text.as_str()), (Some(200), format!("k{}", done.id).as_str()));
        assert!(done.finished_at > 1_577_836_800_000_000);
    }
    assert!((1..=16).contains(&server.connections()), "{} connections", server.connections());
    assert!((1..=16).contains(&pool.threads()));
    wait_until("no job is in flight", || pool.in_flight() == 0);
}

#[test]
fn a_failure_becomes_a_judged_outcome_without_a_status_code() {
    let server = Server::start(|_| Reply::Raw(vec![]));
    let pool = Pool::start(1, loopback()).unwrap();
    pool.submit(job(1, server.url("/"), 20_000));
    let done = collect(&pool, 1).remove(0);
    assert_eq!((message(&done), done.status_code), ("127.0.0.1 closed the connection before its answer", None));
}

fn panics_on_odd_ids(job: &Job, _: &Client) -> Performed {
    assert!(job.id % 2 == 0, "odd: {}", job.request.headers[0].1);
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    Performed {
        outcome: Outcome::Invalid { message: name, retry: true },
        cause: Cause::Malformed,
        status_code: None,
        failed_at: None,
        latency_ms: 0,
        retry_after: None,
        reports: Vec::new(),
    }
}

#[test]
fn a_panic_ends_its_job_only_and_the_thread_lives_on() {
    let pool = Pool::start_with(1, loopback(), panics_on_odd_ids).unwrap();
    for id in 0..4 {
        let mut job = job(id, String::new(), 1);
        job.request.headers.push(("X-Key".into(), "hunter2".into()));
        pool.submit(job);
    }
    let results = collect(&pool, 4);
    assert_eq!(results.iter().map(|done| done.id).collect::<Vec<_>>(), [0, 1, 2, 3]);
    for done in &results {
        match done.id % 2 {
            0 => assert_eq!(done.outcome, Outcome::Invalid { message: "enrich-http-0".into(), retry: true }),
            _ => assert_eq!(message(done), "internal fault in the call: odd: ***"),
        }
    }
    assert_eq!(pool.threads(), 1);
}

fn tells_blocked_signals(_: &Job, _: &Client) -> Performed {
    let mask = SigSet::thread_get_mask().unwrap();
    // the two that cannot be blocked
    let open: Vec<_> = Signal::iterator()
        .filter(|signal| ![Signal::SIGKILL, Signal::SIGSTOP].contains(signal) && !mask.contains(*signal))
        .collect();
    Performed {
        outcome: Outcome::Invalid { message: format!("{open:?}"), retry: true },
        cause: Cause::Malformed,
        status_code: None,
        failed_at: None,
        latency_ms: 0,
        retry_after: None,
        reports: Vec::new(),
    }
}

#[test]
fn no_signal_reaches_a_thread_of_the_pool_and_the_callers_mask_is_untouched() {
    let before = SigSet::thread_get_mask().unwrap();
    let pool = Pool::start_with(1, loopback(), tells_blocked_signals).unwrap();
    pool.submit(job(1, String::new(), 1));
    assert_eq!(SigSet::thread_get_mask().unwrap(), before);
    assert_eq!(collect(&pool, 1)[0].outcome, Outcome::Invalid { message: "[]".into(), retry: true });
}

#[test]
fn the_wake_descriptor_is_readable_from_a_result_to_the_drain() {
    let server = Server::start(|_| json("{}"));
    let pool = Pool::start(4, loopback()).unwrap();
    assert!(!pool.has_result() && pool.wake_fd() >= 0);
    (0..8).for_each(|id| pool.submit(job(id, server.url("/"), 20_000)));
    wait_until("a result waits", || pool.has_result());
    wait_until("all are finished", || pool.in_flight() == 0);
    assert!(pool.has_result());
    assert_eq!(pool.drain().len(), 8);
    assert!(!pool.has_result());
}

#[test]
fn shutdown_returns_what_finished_drops_what_waits_and_interrupts_the_rest() {
    let server = Server::start(|seen| match seen.head.starts_with("GET /slow") {
        true => Reply::Hang,
        false => json("{}"),
    });
    let pool = Pool::start(2, loopback()).unwrap();
    pool.submit(job(1, server.url("/slow"), 600_000));
    pool.submit(job(2, server.url("/fast"), 20_000));
    wait_until("the fast one is finished", || pool.has_result());
    pool.submit(job(3, server.url("/slow"), 600_000));
    pool.submit(job(4, server.url("/fast"), 20_000));
    let lifeline = pool.lifeline();
    let started = Instant::now();
    let finished = pool.shutdown(Duration::from_millis(50));
    assert_eq!(finished.iter().map(|done| done.id).collect::<Vec<_>>(), [2]);
    assert!(started.elapsed() < Duration::from_secs(5));
    wait_until("no thread is left", || lifeline.strong_count() == 0);
}

#[test]
fn shutdown_waits_within_its_grace_for_a_call_that_runs() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let (arrived, arrival) = std::sync::mpsc::channel();
    let server = Server::start(move |_| {
        arrived.send(()).unwrap();
        let _ = released.lock().unwrap().recv();
        json("{}")
    });
    let pool = Pool::start(2, loopback()).unwrap();
    pool.submit(job(7, server.url("/"), 20_000));
    arrival.recv().unwrap();
    let closing = std::thread::spawn(move || pool.shutdown(PATIENCE));
    assert!(!closing.is_finished());
    release.send(()).unwrap();
    assert_eq!(closing.join().unwrap().iter().map(|done| done.id).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_dropped_pool_leaves_no_thread_behind() {
    let pool = Pool::start_with(3, loopback(), tells_blocked_signals).unwrap();
    (0..3).for_each(|id| pool.submit(job(id, String::new(), 1)));
    collect(&pool, 3);
    let lifeline = pool.lifeline();
    drop(pool);
    wait_until("no thread is left", || lifeline.strong_count() == 0);
}

#[test]
fn new_settings_hold_for_later_jobs_and_invalid_ones_change_nothing() {
    let server = Server::start(|seen| json(&format!("{:?}", seen.head.contains("test-agent/2"))));
    let pool = Pool::start(4, loopback()).unwrap();
    let mut config = loopback();
    config.user_agent = "test-agent/2".into();
    let mut wrong = config.clone();
    wrong.ca_file = Some("/no/such/file.pem".into());
    assert!(pool.reconfigure(1, wrong).is_err());
    let fd = pool.wake_fd();
    for (id, payload) in [(1, "false"), (2, "true")] {
        pool.submit(job(id, server.url("/"), 20_000));
        let done = collect(&pool, 1).remove(0);
        assert_eq!(
            done.outcome,
            Outcome::Success { payload: payload.into(), ranges: None, altered: false, validators: None }
        );
        pool.reconfigure(1, config.clone()).unwrap();
    }
    assert_eq!(pool.wake_fd(), fd);
    wait_until("the threads too many are gone", || pool.threads() == 1);
}

#[test]
fn more_threads_take_jobs_that_wait_already() {
    let server = Server::start(|seen| match seen.head.starts_with("GET /slow") {
        true => Reply::Hang,
        false => json("{}"),
    });
    let pool = Pool::start(1, loopback()).unwrap();
    pool.submit(job(1, server.url("/slow"), 600_000));
    pool.submit(job(2, server.url("/fast"), 20_000));
    pool.reconfigure(2, loopback()).unwrap();
    assert_eq!(collect(&pool, 1)[0].id, 2);
}
