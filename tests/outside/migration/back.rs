//! Comparing an import with its files, and taking it back.

use super::tree::{by_digest, cached, database, parts, report, Tree};
use crate::support::{one, refused, run};
use postgres::Client;
use std::sync::Arc;
use testbed::Cluster;

fn findings(client: &mut Client, id: i64) -> Vec<String> {
    let sql = format!(
        "SELECT format('%s %s', coalesce(path, 'all'), CASE WHEN path IS NULL THEN files || ' ' ELSE '' END || finding)
        FROM enrich_migration_verify({id}) ORDER BY 1"
    );
    client.query(&sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

#[test]
fn every_file_is_compared_with_its_row() {
    let (_cluster, mut client) = database("verify");
    let tree = Tree::new();
    for n in 1..=6 {
        tree.dshield(&format!("8.8.8.{n}"), n, 5);
    }
    tree.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 5);
    tree.file("hibp/AB/CD/E/ABCDE.json", r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#, 5);
    tree.file("README", "x", 5);
    tree.dshield("8.8.8.7", 7, 5000);
    report(&mut client, &tree.import(""));
    assert_eq!(findings(&mut client, 1), ["all 1 expired", "all 1 malformed or unreadable", "all 8 same"]);
    run(
        &mut client,
        r#"UPDATE enrichment_cache SET payload = '{"ip": {}}' WHERE cache_key = '8.8.8.1';
        DELETE FROM enrichment_cache WHERE cache_key = '8.8.8.2';
        UPDATE enrichment_cache SET fetched_at = fetched_at - interval '1 hour' WHERE cache_key = '8.8.8.3';
        UPDATE enrichment_cache SET ranges = '\x00' WHERE cache_key = 'ABCDE';
        UPDATE enrichment_orphan SET payload = '{}';
        SELECT enrich_store('dshield', '8.8.8.4', '{"ip": {"number": "new"}}')"#,
    );
    let orphan = by_digest("spur", "8.8.9.9");
    let mut expected = vec![
        "all 1 expired".to_string(),
        "all 1 malformed or unreadable".into(),
        "all 1 missing in the cache".into(),
        "all 1 newer in the cache".into(),
        "all 1 older in the cache".into(),
        "all 2 same".into(),
        "all 3 differs".into(),
        "dshield/8/8/8/1.json differs".into(),
        "dshield/8/8/8/2.json missing in the cache".into(),
        "dshield/8/8/8/3.json older in the cache".into(),
        "hibp/AB/CD/E/ABCDE.json differs".into(),
        format!("{orphan} differs"),
    ];
    expected.sort();
    let mut found = findings(&mut client, 1);
    found.sort();
    assert_eq!(found, expected);
    refused(&mut client, "SELECT * FROM enrich_migration_verify(99)", "22023", "enrichment_migration");
}

/// Three answers that stood before; two trees over them, the second newer.
fn two_runs(name: &str) -> (Arc<Cluster>, Client, String, Tree, Tree) {
    let (cluster, mut client) = database(name);
    run(
        &mut client,
        r#"SELECT enrich_store('dshield', '8.8.8.1', '{"ip": {"number": "one"}}', fetched_at => now() - interval '20 hours');
        SELECT enrich_store('dshield', '8.8.8.2', '{"ip": {"number": "two"}}', fetched_at => now() - interval '20 hours');
        SELECT enrich_store('dshield', '8.8.8.9', NULL, response_status => 'error', error_message => 'down');
        UPDATE enrichment_cache SET altered = true, etag = '"x"', last_modified = 'Wed, 21 Oct 2015 07:28:00 GMT' WHERE cache_key = '8.8.8.1'"#,
    );
    let before = cached(&mut client);
    let (first, second) = (Tree::new(), Tree::new());
    for n in [1, 2, 3, 4, 9] {
        first.dshield(&format!("8.8.8.{n}"), n, 10);
    }
    for n in [1, 3, 5] {
        second.dshield(&format!("8.8.8.{n}"), 100 + n, 5);
    }
    first.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 5);
    assert_eq!(parts(&report(&mut client, &first.import(", batch_size => 2"))), "files 6, imported 5, unknown_key 1");
    // a provider that is asked whether this has changed would speak of another answer
    let left = "SELECT count(*) FROM enrichment_cache WHERE altered OR etag IS NOT NULL OR last_modified IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, left), 0);
    assert_eq!(parts(&report(&mut client, &second.import(""))), "files 3, imported 3");
    (cluster, client, before, first, second)
}

fn nothing_is_left(client: &mut Client, before: &str) {
    assert_eq!(cached(client), before);
    let rests: i64 = one(
        client,
        "SELECT (SELECT count(*) FROM enrichment_migration_row) + (SELECT count(*) FROM enrichment_orphan)
            + (SELECT count(*) FROM enrichment_history)",
    );
    assert_eq!(rests, 0);
    let states: String = one(client, "SELECT string_agg(DISTINCT state, ',') FROM enrichment_migration");
    assert_eq!(states, "rolled_back");
}

#[test]
fn the_last_run_taken_back_first_leaves_what_stood_before() {
    let (_cluster, mut client, before, _first, _second) = two_runs("back_last_first");
    run(&mut client, "CALL enrich_migration_rollback(2)");
    let first_again: i64 = one(&mut client, "SELECT attacks FROM enrichment_dshield WHERE cache_key = '8.8.8.1'");
    assert_eq!(first_again, 1, "the first run's answer");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    nothing_is_left(&mut client, &before);
}

#[test]
fn the_first_run_taken_back_first_leaves_the_same() {
    let (_cluster, mut client, before, _first, _second) = two_runs("back_first_first");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    let second_still: i64 = one(&mut client, "SELECT attacks FROM enrichment_dshield WHERE cache_key = '8.8.8.1'");
    assert_eq!(second_still, 101, "the second run's answer stays");
    run(&mut client, "CALL enrich_migration_rollback(2)");
    nothing_is_left(&mut client, &before);
}

#[test]
fn what_was_fetched_since_stays_and_a_run_can_be_repeated() {
    let (_cluster, mut client, _before, first, _second) = two_runs("back_and_again");
    run(&mut client, r#"SELECT enrich_store('dshield', '8.8.8.4', '{"ip": {"number": "fetched"}}')"#);
    run(
        &mut client,
        "SELECT enrich_store('dshield', '8.8.8.3', NULL, response_status => 'error', error_message => 'x')",
    );
    run(&mut client, "CALL enrich_migration_rollback(2); ");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    let all = cached(&mut client);
    assert!(all.contains("fetched") && !all.contains("8.8.8.5"), "{all}");
    assert!(!all.contains("8.8.8.3"), "a refresh that failed leaves a row the run's: {all}");
    assert_eq!(parts(&report(&mut client, &first.import(""))), "files 6, imported 4, older_than_row 1, unknown_key 1");
    refused(&mut client, "CALL enrich_migration_rollback(99)", "22023", "enrichment_migration");
}

#[test]
fn a_run_that_is_deleted_takes_with_it_what_it_noted() {
    let (_cluster, mut client) = database("forgotten");
    let tree = Tree::new();
    for n in 1..=3 {
        tree.dshield(&format!("8.8.8.{n}"), n, 5);
    }
    tree.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 5);
    tree.file("README", "x", 5);
    report(&mut client, &tree.import(""));
    tree.dshield("8.8.8.4", 4, 5);
    report(&mut client, &tree.import(""));
    let noted = "SELECT concat_ws(' ', (SELECT count(*) FROM enrichment_migration_row),
        (SELECT count(*) FROM enrichment_migration_problem), (SELECT count(*) FROM enrichment_orphan))";
    assert_eq!(one::<String>(&mut client, noted), "4 2 2");
    run(&mut client, "DELETE FROM enrichment_migration WHERE id = 1");
    assert_eq!(one::<String>(&mut client, noted), "1 1 1");
    run(&mut client, "TRUNCATE enrichment_migration CASCADE");
    assert_eq!(one::<String>(&mut client, noted), "0 0 0");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 4);
}
