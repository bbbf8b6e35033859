//! The bound on the queue: the writer that would pass it is told so, the worker's own searches wait, and a session that
//! waits for an answer gets it all the same.

use super::addresses;
use crate::sources_support::{make_sessions, ATTACH_SESSIONS};
use crate::support::{address, one, own_cluster, refused, run, wait_served, Base, SOON};
use std::sync::Arc;
use testbed::wait_until;

const LENGTH: &str = "SELECT requests FROM enrich_queue_length()";

/// A queue of at most 50, which nothing leaves as long as the service is disabled by the kill switch.
fn bounded(name: &str) -> Base {
    let base = Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none"]);
    base.run("ALTER SYSTEM SET enrichment_cache.max_queue = 50");
    base.run("ALTER SYSTEM SET enrichment_cache.enabled = off");
    base.run("SELECT pg_reload_conf()");
    base.wait_for(
        "SELECT current_setting('enrichment_cache.max_queue') || current_setting('enrichment_cache.enabled')",
        "50off".to_string(),
    );
    base.wait_for("SELECT NOT estimated FROM enrich_queue_length()", true);
    base
}

fn switch_on(base: &Base) {
    base.run("ALTER SYSTEM SET enrichment_cache.enabled = on");
    base.run("SELECT pg_reload_conf()");
}

#[test]
fn the_writer_that_would_pass_the_bound_is_refused_with_the_numbers() {
    let base = bounded("bound");
    let mut client = base.client();
    let ask = |from, n| format!("SELECT enrich_request_many('dshield', {})", addresses(from, n));
    assert_eq!(one::<i64>(&mut client, &ask(1, 48)), 48);
    let error = client.simple_query(&ask(40, 20)).expect_err("59 requests");
    let error = error.as_db_error().expect("an error of the server").clone();
    assert_eq!(
        (error.code().code(), error.message()),
        ("53400", "the queue has no room for requests to service \"dshield\"")
    );
    assert_eq!(
        error.detail(),
        Some("It holds 48 requests and may hold 50 (enrichment_cache.max_queue); 11 more were asked for.")
    );
    assert!(error.hint().is_some_and(|hint| hint.contains("raise enrichment_cache.max_queue")));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue"), 48, "nothing of it was queued");
    assert_eq!(one::<i64>(&mut client, LENGTH), 48);

    // what is there already takes no room
    assert_eq!(one::<String>(&mut client, &format!("SELECT enrich_request('dshield', '{}')", address(49))), "queued");
    assert_eq!(one::<String>(&mut client, &format!("SELECT enrich_request('dshield', '{}')", address(50))), "queued");
    assert_eq!(
        one::<String>(&mut client, &format!("SELECT enrich_request('dshield', '{}')", address(50))),
        "already_queued"
    );
    refused(
        &mut client,
        &format!("SELECT enrich_request('dshield', '{}')", address(51)),
        "53400",
        "Wait until the worker",
    );
    let health: String = one(&mut client, "SELECT detail FROM enrich_health() WHERE check_name = 'queue length'");
    assert_eq!(health, "50 of at most 50 requests");
    // a password is looked up without being asked for
    assert_eq!(one::<String>(&mut client, "SELECT status FROM enrich_password('hunter2')"), "miss");

    // with the worker there is room again
    switch_on(&base);
    base.wait_for(LENGTH, 0i64);
    assert_eq!(one::<i64>(&mut client, &ask(100, 50)), 50);
    base.wait_for("SELECT count(*) FROM enrichment_cache", 100i64);
}

#[test]
fn what_a_transaction_takes_back_takes_no_room() {
    let base = bounded("taken_back");
    let mut client = base.client();
    let ask = |from, n| format!("SELECT enrich_request_many('dshield', {})", addresses(from, n));
    run(&mut client, &format!("BEGIN; {}; ROLLBACK", ask(1, 50)));
    assert_eq!(one::<i64>(&mut client, LENGTH), 0);
    run(&mut client, &format!("BEGIN; {}; COMMIT", ask(1, 50)));
    assert_eq!(one::<i64>(&mut client, LENGTH), 50);
    // refused in a subtransaction that somebody catches
    run(
        &mut client,
        &format!(
            "DO $$ BEGIN PERFORM enrich_request_many('dshield', {}); EXCEPTION WHEN configuration_limit_exceeded THEN NULL; END $$",
            addresses(60, 5)
        ),
    );
    assert_eq!(one::<i64>(&mut client, LENGTH), 50);
    // what is deleted behind its back is known after the next count: the next worker's first
    run(&mut client, "DELETE FROM enrichment_queue");
    let former = base.worker();
    run(&mut client, &format!("SELECT pg_terminate_backend({former})"));
    wait_until("another worker", SOON, || {
        let pid = wait_served(&base.cluster, &base.name);
        crate::support::same(pid != former, &true)
    });
    base.wait_for(LENGTH, 0i64);
}

#[test]
fn attached_tables_wait_for_room_and_a_waiting_session_does_not() {
    let base = bounded("waits");
    let keys: Vec<String> = (1..=2_100).map(address).collect();
    make_sessions(&base, "jsonb", &keys);
    base.run(ATTACH_SESSIONS);
    base.wait_for("SELECT requests >= 50 FROM enrich_queue_length()", true);
    crate::support::let_the_worker_look(&base);
    // a row of arrivals, up to 2,000 keys, is taken whole and asks three services for each; the next row waits
    let length = base.one::<i64>(LENGTH);
    assert!((50..=6_000).contains(&length), "{length}");
    refused(&mut base.client(), &format!("SELECT enrich_request('dshield', '{}')", address(9_000)), "53400", "");

    // the three wait for their limits, and the queue stays as it is
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 1, "per": "month"}]' WHERE name IN ('dshield', 'urlhaus', 'spur')"#,
    );
    switch_on(&base);
    assert!(base.one::<bool>("SELECT enrich_fetch('hibp', '0018A', '30 s') IS NOT NULL"), "in spite of the full queue");
    assert!(base.one::<i64>(LENGTH) >= 50);
    base.run("UPDATE enrichment_service SET limits = '[]'; SELECT enrich_wake()");
    // and in the end everything was asked
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE service <> 'hibp'", 6_300i64);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
}
