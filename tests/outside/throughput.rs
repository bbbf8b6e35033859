//! Much at once: nothing is lost, no snapshot is held meanwhile, and no session waits for another.

use crate::support::{address, ask, let_the_worker_look, one, own_cluster, refused, run, same, Base, SOON};
use serde_json::json;
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{misfortune, wait_until, Cluster};

fn base(name: &'static str) -> Base {
    Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none"])
}

/// With room for so many sessions.
fn crowd(name: &'static str, connections: &str) -> Base {
    let cluster =
        Cluster::builder(name).preload(true).setting("autovacuum", "off").setting("max_connections", connections);
    let cluster = cluster.start().unwrap_or_else(|why| panic!("{why}"));
    Base::in_cluster(&Arc::new(cluster), name, &["--limits", "none"])
}

#[test]
fn of_a_hundred_thousand_requests_none_is_lost_when_one_call_in_twenty_fails() {
    let base = base("misfortune");
    base.run("UPDATE enrichment_service SET max_in_flight = 1000 WHERE name = 'dshield'");
    let survived =
        misfortune::survive(&mut base.client(), &base.sandbox, 100_000).unwrap_or_else(|why| panic!("{why}"));
    assert!((4_500..6_200).contains(&survived.failed), "{survived:?}");
}

/// Each request comes at another moment of the worker's falling asleep, most of them as it ends to wait for more answers to store
/// together (40 ms): none is overlooked until the worker looks by itself.
#[test]
fn of_requests_that_come_one_by_one_none_waits_for_the_worker_to_look_by_itself() {
    const REQUESTS: u32 = 800;
    let base = base("one_by_one");
    let mut client = base.client();
    let answered = client.prepare("SELECT count(*) FROM enrichment_cache").expect("a statement");
    for n in 1..=REQUESTS {
        // not a wait for anything: when the next request comes
        std::thread::sleep(Duration::from_micros(32_000 + u64::from(n) * 7 % 10_000));
        run(&mut client, &format!("SELECT enrich_request('dshield', '{}')", address(n)));
        wait_until(&format!("the answer to request {n}"), SOON, || {
            let answers: i64 = client.query_one(&answered, &[]).map_err(|why| why.to_string())?.get(0);
            same(answers, &i64::from(n))
        });
    }
    assert_eq!(base.asked("dshield"), i64::from(REQUESTS));
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
    let base = crowd("crowd", "240");
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
fn the_session_that_finds_no_place_to_wait_in_is_told_so_and_the_places_come_back() {
    const PLACES: usize = 512;
    let base = crowd("places", "540");
    base.sandbox.fault(json!({"service": "dshield", "kind": "hang"}));
    let mut other = base.client();
    let clients: Vec<_> = (0..PLACES).map(|_| base.client()).collect();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'
        AND wait_event_type = 'Extension' AND query LIKE 'SELECT enrich_fetch%'";
    std::thread::scope(|threads| {
        let asking: Vec<_> = clients
            .into_iter()
            .enumerate()
            .map(|(n, mut client)| {
                let sql = format!("SELECT enrich_fetch('dshield', '{}', '600 s')", address(n as u32));
                threads.spawn(move || client.batch_execute(&sql))
            })
            .collect();
        wait_until("all of them to wait", SOON, || same(ask::<i64>(&mut other, waiting)?, &(PLACES as i64)));
        let one_more = format!("SELECT enrich_fetch('dshield', '{}', '600 s')", address(PLACES as u32));
        let said = refused(&mut base.client(), &one_more, "53400", "Use enrich_request");
        assert_eq!(said, "more than 512 sessions wait for answers of providers");
        run(
            &mut other,
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT enrich_fetch%' AND state = 'active'",
        );
        for thread in asking {
            let error = thread.join().expect("a thread").expect_err("a cancelled statement");
            assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
        }
    });
    base.sandbox.clear_faults();
    let key = &base.known("dshield", 600)[599];
    assert!(base.one::<bool>(&format!("SELECT enrich_fetch('dshield', '{key}', '60 s') IS NOT NULL")));
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
