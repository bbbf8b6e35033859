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
