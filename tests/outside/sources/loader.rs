//! A loader writes the same rows at the same time: nothing of it is lost, and it is never held up or chosen as victim.

use crate::sources_support::{make_sessions, note_expected, wait_filled, wait_quiet, ATTACH_SESSIONS};
use crate::support::{address, one, run, said, Base};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

/// How long loaders and refreshes go on together; there is no pause between their transactions.
const LOADED_FOR: Duration = Duration::from_secs(60);
const ADDRESSES: u32 = 300;
const LOADERS: u32 = 3;
/// Rows a loader's transaction changes, in an order of its own.
const ROWS: u32 = 12;

/// Changes rows in transactions of several until told to end; returns how many rows it changed.
fn load(base: &Base, number: u32, rows: u32, enough: &AtomicBool, done: &AtomicI64) {
    let mut client = base.client();
    let sql = "UPDATE session_summaries SET
            enrichment = jsonb_set(coalesce(enrichment, '{}'), '{password_stats}',
                to_jsonb(coalesce((enrichment ->> 'password_stats')::int, 0) + 1)),
            login_attempts = login_attempts + 1
        WHERE session_id = $1";
    let update = client.prepare(sql).expect("a statement");
    let mut at = number * 37;
    while !enough.load(Ordering::Relaxed) {
        // loaders do not meet each other: each has its residue class, walked in steps that jump about
        let picked: Vec<u32> = (0..ROWS).map(|n| (at + n * 89) % (rows / LOADERS) * LOADERS + number + 1).collect();
        at += 7;
        let mut transaction = client.transaction().expect("a transaction");
        for row in &picked {
            let session = format!("s{row}");
            if let Err(why) = transaction.execute(&update, &[&session]) {
                panic!("the loader was stopped: {}", said(&why));
            }
        }
        transaction.commit().expect("a commit");
        done.fetch_add(i64::from(ROWS), Ordering::Relaxed);
    }
}

#[test]
fn a_loader_that_writes_the_same_rows_loses_nothing_and_meets_no_deadlock() {
    let base = Base::new("sources", "loader");
    let addresses: Vec<String> = (1..=ADDRESSES).map(address).collect();
    make_sessions(&base, "jsonb", &addresses);
    base.run(
        "ALTER TABLE session_summaries ADD login_attempts int NOT NULL DEFAULT 0;
        UPDATE enrichment_service SET max_in_flight = 16",
    );
    note_expected(&base, &["dshield"]);
    base.sandbox.set_latency("*", 4);
    let (enough, changed, refreshes) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    std::thread::scope(|threads| {
        for number in 0..LOADERS {
            let (base, enough, changed) = (&base, &enough, &changed);
            threads.spawn(move || load(base, number, ADDRESSES, enough, changed));
        }
        let watched = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            base.run(ATTACH_SESSIONS);
            wait_filled(&base, "{dshield,urlhaus,spur}");
            // every answer anew, and every row with it, as often as it goes
            let began = Instant::now();
            while began.elapsed() < LOADED_FOR {
                base.run(
                    "SELECT enrich_invalidate('dshield'), enrich_invalidate('urlhaus'), enrich_invalidate('spur')",
                );
                base.run("CALL enrich_refresh()");
                refreshes.fetch_add(1, Ordering::Relaxed);
            }
        }));
        enough.store(true, Ordering::Relaxed);
        if let Err(why) = watched {
            std::panic::resume_unwind(why);
        }
    });
    wait_quiet(&base);
    let mut client = base.client();
    let changed = changed.into_inner();
    assert!(refreshes.into_inner() > 0, "no refresh came to its end beside the loaders");
    assert!(changed > 300, "the loaders changed only {changed} rows");
    let sum = "SELECT sum((enrichment ->> 'password_stats')::int) = sum(login_attempts) AND sum(login_attempts) = ";
    assert!(one::<bool>(&mut client, &format!("{sum}{changed} FROM session_summaries")), "an update was lost");
    wait_filled(&base, "{dshield,urlhaus,spur}");
    let wrong = "SELECT count(*) FROM session_summaries s JOIN expected e ON e.ip = s.source_ip
        WHERE s.dshield_flagged <> e.flagged OR (s.enrichment ? 'dshield') <> (e.outcome = 'success')";
    assert_eq!(one::<i64>(&mut client, wrong), 0);
    run(&mut client, "SELECT pg_stat_clear_snapshot()");
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(one::<i64>(&mut client, deadlocks), 0);
}

#[test]
fn rows_a_loader_keeps_locked_hold_up_no_others() {
    let base = Base::new("sources", "locked");
    let keys = base.known("dshield", 40);
    make_sessions(&base, "jsonb", &keys);
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run(ATTACH_SESSIONS);
    wait_quiet(&base);
    let mut loader = base.client();
    run(&mut loader, "BEGIN; UPDATE session_summaries SET vt_flagged = true WHERE session_id IN ('s1', 's7')");
    base.run(
        "UPDATE enrichment_service SET enabled = true;
        SELECT enrich_request_many(name, (SELECT array_agg(source_ip::text) FROM session_summaries))
        FROM enrichment_service WHERE name IN ('dshield', 'urlhaus', 'spur')",
    );
    let filled = "SELECT count(*) FROM session_summaries WHERE enrichment -> '_meta' ?& '{dshield,urlhaus,spur}'";
    base.wait_for(filled, 38i64);
    // the worker holds no lock that the loader could have to wait for
    run(&mut loader, "SET LOCAL lock_timeout = '2s'; UPDATE session_summaries SET vt_flagged = true; COMMIT");
    base.wait_for(filled, 40i64);
    assert!(base.one::<bool>("SELECT bool_and(vt_flagged) FROM session_summaries"));
    assert_eq!(base.one::<Option<String>>("SELECT last_error FROM enrichment_source"), None);
}
