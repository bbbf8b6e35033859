//! The helper of a long import: it is there while it is needed, and gone however the import ends.

use super::tree::{database, parts, report, slow_down, Tree};
use crate::support::{ask, one, run, same, wait_served, SOON};
use testbed::{wait_until, Cluster};

const FILES: u32 = 8000;
const HELPERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'enrichment_cache import helper'";

fn tree() -> Tree {
    let tree = Tree::new();
    for n in 0..FILES {
        tree.dshield(&format!("8.{}.{}.{}", n / 62500, n / 250 % 250, n % 250), n + 1, 1);
    }
    tree
}

#[test]
fn a_long_import_has_a_helper_until_it_ends_and_a_short_one_has_none() {
    let (cluster, mut client) = database("helped");
    slow_down(&mut client, "STATEMENT", 0.3);
    let long = tree();
    let mut watch = cluster.client("helped");
    let call = long.import("");
    let mut importing = cluster.client("helped");
    let done = std::thread::scope(|threads| {
        let import = threads.spawn(|| report(&mut importing, &call));
        wait_until("the helper", SOON, || same(ask::<i64>(&mut watch, HELPERS)?, &1));
        import.join().expect("a session")
    });
    assert_eq!(parts(&done), format!("files {FILES}, imported {FILES}"));
    wait_until("the helper to go", SOON, || same(ask::<i64>(&mut watch, HELPERS)?, &0));
    // nothing is left on the list of pending entries, and what was imported is found by its payload
    let pending =
        "SELECT sum(gin_clean_pending_list(i.indexrelid)) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
        JOIN pg_am a ON a.oid = c.relam AND a.amname = 'gin' WHERE i.indrelid = 'enrichment_cache'::regclass";
    assert_eq!(one::<String>(&mut watch, &format!("SELECT ({pending})::text")), "0");
    run(&mut watch, "SET enable_seqscan = off");
    let found =
        "SELECT count(*) FROM enrichment_cache WHERE payload @> '{\"ip\": {\"count\": 77}}' AND service <> 'hibp'";
    assert_eq!(one::<i64>(&mut watch, found), 1);

    let short = Tree::new();
    for n in 0..3000 {
        short.dshield(&format!("9.8.{}.{}", n / 250, n % 250), n + 1, 1);
    }
    let call = short.import("");
    std::thread::scope(|threads| {
        let import = threads.spawn(|| report(&mut importing, &call));
        while !import.is_finished() {
            assert_eq!(one::<i64>(&mut watch, HELPERS), 0, "a helper for a few files");
        }
    });
}

/// Pages on the list of pending entries of the index on payloads.
const PENDING: &str = "SELECT n_pending_pages::int FROM gin_metapage_info(get_raw_page('enrichment_cache_payload', 0))";

#[test]
fn what_stands_on_the_list_is_taken_in_while_the_session_does_something_else() {
    const BEFORE: u32 = 6000;
    let (cluster, mut client) = database("merged");
    run(
        &mut client,
        &format!(
            "CREATE EXTENSION pageinspect;
             CREATE FUNCTION stop() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                IF (SELECT count(*) FROM public.enrichment_cache) >= {BEFORE} THEN PERFORM pg_catalog.pg_advisory_xact_lock(1); END IF;
                RETURN NULL; END $$;
             CREATE TRIGGER stop BEFORE INSERT ON enrichment_cache FOR EACH STATEMENT EXECUTE FUNCTION stop();
             SELECT pg_advisory_lock(1)"
        ),
    );
    // 400 values each, other ones in each file: with these the list is longer than a portion of the helper's
    let tree = Tree::new();
    for n in 0..BEFORE + 500 {
        let address = format!("8.{}.{}.{}", n / 62500, n / 250 % 250, n % 250);
        let values: Vec<u32> = (0..400).map(|i| n * 400 + i).collect();
        let body = format!(r#"{{"ip":{{"number":"{address}","count":1,"attacks":1}},"values":{values:?}}}"#);
        tree.file(&format!("dshield/{}.json", address.replace('.', "/")), body, 1);
    }
    let call = tree.import("");
    let mut importing = cluster.client("merged");
    let mut watch = cluster.client("merged");
    let done = std::thread::scope(|threads| {
        let import = threads.spawn(|| report(&mut importing, &call));
        let waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        wait_until("the session to stand still", SOON, || same(ask::<i64>(&mut watch, waits)?, &1));
        wait_until("the list to be taken in", SOON, || {
            ask::<i32>(&mut watch, PENDING).map(|pages| (pages < 1000).then_some(()))
        });
        run(&mut client, "SELECT pg_advisory_unlock(1)");
        import.join().expect("a session")
    });
    assert_eq!(parts(&done), format!("files {}, imported {}", BEFORE + 500, BEFORE + 500));
    assert_eq!(one::<i32>(&mut watch, PENDING), 0);
}

#[test]
fn the_helper_ends_with_an_import_that_is_cancelled_and_with_a_session_that_is_ended() {
    let (cluster, mut client) = database("left_alone");
    slow_down(&mut client, "STATEMENT", 0.3);
    let tree = tree();
    let call = tree.import("");
    let mut watch = cluster.client("left_alone");
    for end in ["pg_cancel_backend", "pg_terminate_backend"] {
        let mut importing = cluster.client("left_alone");
        let pid: i32 = one(&mut importing, "SELECT pg_backend_pid()");
        std::thread::scope(|threads| {
            let import = threads.spawn(|| importing.simple_query(&call).expect_err("an import that is ended"));
            wait_until("the helper", SOON, || same(ask::<i64>(&mut watch, HELPERS)?, &1));
            run(&mut watch, &format!("SELECT {end}({pid})"));
            import.join().expect("a session");
        });
        wait_until("the helper to go", SOON, || same(ask::<i64>(&mut watch, HELPERS)?, &0));
        // the next one begins anew
        run(&mut watch, "DELETE FROM enrichment_migration; TRUNCATE enrichment_cache");
    }
}

#[test]
fn an_import_goes_on_without_its_helper() {
    let (cluster, mut client) = database("bereft");
    slow_down(&mut client, "STATEMENT", 0.3);
    let tree = tree();
    let call = tree.import("");
    let mut watch = cluster.client("bereft");
    let mut importing = cluster.client("bereft");
    let done = std::thread::scope(|threads| {
        let import = threads.spawn(|| report(&mut importing, &call));
        wait_until("the helper", SOON, || same(ask::<i64>(&mut watch, HELPERS)?, &1));
        run(&mut watch, &HELPERS.replace("count(*)", "pg_terminate_backend(pid)"));
        import.join().expect("a session")
    });
    assert_eq!(parts(&done), format!("files {FILES}, imported {FILES}"));
}

/// The launchers, PostgreSQL's and ours, and one worker take all slots.
#[test]
fn an_import_needs_no_helper_where_no_slot_is_free() {
    let cluster = Cluster::builder("slotless")
        .preload(true)
        .setting("max_worker_processes", "3")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let mut client = cluster.client("postgres");
    run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET enabled = false");
    wait_served(&cluster, "postgres");
    let tree = tree();
    let done = report(&mut client, &tree.import(""));
    assert_eq!(parts(&done), format!("files {FILES}, imported {FILES}"));
}
