//! Much at once: nothing is lost, no snapshot is held meanwhile, and no session waits for another.

use crate::support::{address, ask, let_the_worker_look, one, own_cluster, run, same, Base, SOON};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{misfortune, wait_until, Cluster};

fn base(name: &'static str) -> Base {
    Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none"])
}

/// The same with 100,000 requests is part of `make bench`.
#[test]
fn of_twenty_thousand_requests_none_is_lost_when_one_call_in_twenty_fails() {
    let base = base("misfortune");
    base.run("UPDATE enrichment_service SET max_in_flight = 1000 WHERE name = 'dshield'");
    let survived = misfortune::survive(&mut base.client(), &base.sandbox, 20_000).unwrap_or_else(|why| panic!("{why}"));
    assert!((700..1_400).contains(&survived.failed), "{survived:?}");
}

#[test]
fn the_worker_holds_no_snapshot_while_a_provider_takes_five_seconds() {
    let base = base("horizon");
    base.sandbox.fault(json!({"service": "dshield", "kind": "slow", "ms": 5_000, "count": 1}));
    base.run(&format!("SELECT enrich_request('dshield', '{}')", address(1)));
    let mut client = base.client();
    wait_until("a call under way", SOON, || same(base.sandbox.stats()["dshield"]["in_flight"].as_i64(), &Some(1)));
    let_the_worker_look(&base);
    // new rows that die at once can be removed while the call is under way: nothing holds the horizon back
    run(
        &mut client,
        "CREATE TABLE dying (n int) WITH (autovacuum_enabled = off); INSERT INTO dying VALUES (1); DELETE FROM dying",
    );
    let holds = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'enrichment_cache worker'
        AND datname = current_database() AND (backend_xmin IS NOT NULL OR backend_xid IS NOT NULL OR xact_start IS NOT NULL)";
    let mut looks = 0;
    let answered = wait_until("the answer", SOON, || {
        let held = ask::<i64>(&mut client, holds)?;
        // looked at after it: an answer that is there may be just being stored
        let in_flight = base.sandbox.stats()["dshield"]["in_flight"].as_i64() == Some(1);
        if in_flight {
            looks += 1;
            assert_eq!(held, 0, "look {looks}");
            return Ok(None);
        }
        Ok(Some(looks))
    });
    assert!(answered >= 5, "{answered} looks");
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service = 'dshield'", 1i64);
}

#[test]
fn two_hundred_sessions_that_miss_one_key_cause_one_call() {
    let cluster = Cluster::builder("crowd")
        .preload(true)
        .setting("autovacuum", "off")
        .setting("max_connections", "240")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), "crowd", &["--limits", "none"]);
    let key = &base.known("dshield", 1)[0];
    let mut clients: Vec<_> = (0..200).map(|_| base.client()).collect();
    // no answer before all of them wait
    base.sandbox.set_latency("dshield", 3_000);
    let sql = format!("SELECT enrich_fetch('dshield', '{key}', '60 s') -> 'ip' ->> 'number'");
    let answers: Vec<Option<String>> = std::thread::scope(|threads| {
        let asking: Vec<_> = clients.iter_mut().map(|client| threads.spawn(|| one(client, &sql))).collect();
        asking.into_iter().map(|thread| thread.join().expect("an answer")).collect()
    });
    assert_eq!(answers.len(), 200);
    assert!(answers.iter().all(|answer| answer.as_ref() == Some(key)));
    assert_eq!((base.asked_for("dshield", key), base.asked("dshield")), (1, 1));
}

#[test]
fn a_statement_may_fetch_a_thousand_keys_one_after_the_other() {
    let base = base("thousand");
    let sql = "SELECT count(*) FROM generate_series(1, 1000) n WHERE enrich_fetch('dshield', host('8.8.0.0'::inet + n), '60 s') IS NULL";
    let began = Instant::now();
    // the statement's own snapshot sees none of the answers, which are returned all the same
    let mut client = base.client();
    let nulls: i64 = one(&mut client, sql);
    let not_found = "SELECT count(*) FROM enrichment_cache WHERE response_status = 'not_found'";
    assert_eq!(nulls, base.one::<i64>(not_found), "only what the provider does not know is NULL");
    assert_eq!((base.asked("dshield"), base.one::<i64>("SELECT count(*) FROM enrichment_cache")), (1000, 1000));
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn a_terminated_session_gives_its_place_to_the_next() {
    let base = base("terminated");
    base.sandbox.fault(json!({"service": "dshield", "kind": "hang"}));
    let mut other = base.client();
    for n in 0..4 {
        let mut client = base.client();
        let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
        std::thread::scope(|threads| {
            let sql = format!("SELECT enrich_fetch('dshield', '{}', '600 s')", address(n));
            let waiting = threads.spawn(move || client.batch_execute(&sql));
            let waits = format!("SELECT wait_event_type IS NOT DISTINCT FROM 'Extension' AND state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
            wait_until("the session to wait", SOON, || same(ask::<bool>(&mut other, &waits)?, &true));
            let began = Instant::now();
            assert!(one::<bool>(&mut other, &format!("SELECT pg_terminate_backend({pid})")));
            waiting.join().expect("a thread").expect_err("a terminated session");
            assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        });
    }
    base.sandbox.clear_faults();
    let key = &base.known("dshield", 9)[8];
    assert!(base.one::<bool>(&format!("SELECT enrich_fetch('dshield', '{key}', '60 s') IS NOT NULL")));
}
