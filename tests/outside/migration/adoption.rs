//! Answers under the digest of a key that nobody had named (failure 14 of the older programs).

use super::tree::{by_digest, cached, database, parts, report, Tree};
use crate::support::{one, run, wait_served, SOON};
use testbed::wait_until;

fn unknown(name: &str) -> (std::sync::Arc<testbed::Cluster>, postgres::Client, Tree) {
    let (cluster, mut client) = database(name);
    let tree = Tree::new();
    for key in ["8.8.8.1", "8.8.8.2", "8.8.8.3"] {
        tree.file(&by_digest("urlhaus", key), format!("{{\"tags\":\"of {key}\"}}"), 5);
    }
    assert_eq!(parts(&report(&mut client, &tree.import(""))), "files 3, unknown_key 3");
    (cluster, client, tree)
}

const TAGS: &str = "SELECT enrich_get('urlhaus', '8.8.8.1') ->> 'tags'";

#[test]
fn failure_14_a_key_that_is_asked_for_gets_the_answer_that_lay_under_its_digest() {
    let (_cluster, mut client, _tree) = unknown("asked_for");
    run(&mut client, "UPDATE enrichment_service SET enabled = true; SELECT enrich_set_secret('urlhaus', 'x')");
    assert_eq!(one::<String>(&mut client, "SELECT enrich_request('urlhaus', '8.8.8.1')"), "fresh");
    assert_eq!(one::<String>(&mut client, TAGS), "of 8.8.8.1");
    let age: bool = one(
        &mut client,
        "SELECT age(now(), fetched_at) BETWEEN '4 h' AND '6 h' FROM enrichment_cache WHERE cache_key = '8.8.8.1'",
    );
    assert!(age, "its age is that of the file");
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_request_many('urlhaus', '{8.8.8.2,8.8.8.3}')"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue"), 0);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 0, "the run brought them");
}

#[test]
fn a_key_that_is_read_has_the_answer_at_once_and_the_worker_takes_it_over() {
    let (cluster, mut client) = database("read_at_once");
    let mut before = cluster.client("read_at_once");
    assert_eq!(one::<Option<String>>(&mut before, TAGS), None, "this session has read the registry");
    let tree = Tree::new();
    for n in 1..=9 {
        tree.file(&by_digest("urlhaus", &format!("8.8.8.{n}")), format!("{{\"tags\":\"of 8.8.8.{n}\"}}"), 5);
    }
    tree.file(&by_digest("urlhaus", "8.8.9.1"), "{\"tags\":\"old\"}", 50);
    run(&mut client, "UPDATE enrichment_service SET ttl = '10 hours', stale_ttl = '10 days' WHERE name = 'urlhaus'");
    assert_eq!(parts(&report(&mut client, &tree.import(", keep_expired => true"))), "files 10, unknown_key 10");
    run(&mut before, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY");
    assert_eq!(one::<String>(&mut before, TAGS), "of 8.8.8.1");
    let sure = |client: &mut postgres::Client| {
        for (sql, expected) in [
            ("SELECT enrich_get('urlhaus', '::ffff:8.8.8.1'::inet) ->> 'tags'", "of 8.8.8.1"),
            ("SELECT string_agg(payload ->> 'tags', ',' ORDER BY cache_key) FROM enrich_get_many('urlhaus', '{8.8.8.3,8.8.8.2,8.8.7.1}')",
                "of 8.8.8.2,of 8.8.8.3"),
            ("SELECT concat_ws(' ', state, payload ->> 'tags', age(now(), fetched_at) BETWEEN '4 h' AND '6 h') FROM enrich_lookup('urlhaus', '8.8.8.4')",
                "hit of 8.8.8.4 t"),
            ("SELECT count(enrich_get('urlhaus', '8.8.8.' || n % 10))::text FROM generate_series(0, 99) n", "90"),
            ("SELECT coalesce(enrich_get('urlhaus', '8.8.9.1') ->> 'tags', 'expired')", "expired"),
            ("SELECT enrich_get('urlhaus', '8.8.9.1', '5 days') ->> 'tags'", "old"),
        ] {
            assert_eq!(one::<String>(client, sql), expected, "{sql}");
        }
    };
    sure(&mut before);
    run(
        &mut client,
        "CREATE ROLE orphan_reader; SELECT enrich_grant('orphan_reader', 'reader'); SET ROLE orphan_reader",
    );
    sure(&mut client);
    run(&mut client, "RESET ROLE");
    wait_served(&cluster, "read_at_once");
    wait_until("the worker to take over what was read", SOON, || {
        sure(&mut client);
        match one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan") {
            0 => Ok(Some(())),
            left => Err(format!("{left} left")),
        }
    });
    sure(&mut client);
    // the older snapshot still finds them where they lay for it
    sure(&mut before);
    let rows = "SELECT count(*) FROM enrichment_cache c JOIN enrichment_migration_row r ON r.cache_id = c.id WHERE service = 'urlhaus'";
    assert_eq!(one::<i64>(&mut client, rows), 10, "they belong to the run");
}

#[test]
fn of_an_adopted_and_a_stored_answer_the_newer_one_stays_and_the_way_back_restores_the_other() {
    let (_cluster, mut client, _tree) = unknown("newer_stays");
    run(&mut client, "UPDATE enrichment_service SET enabled = true; SELECT enrich_set_secret('urlhaus', 'x')");
    // observed before the file, which is five hours old, and after it
    run(
        &mut client,
        r#"SELECT enrich_store('urlhaus', '8.8.8.1', '{"tags":"before"}', fetched_at => now() - interval '9 hours');
        SELECT enrich_store('urlhaus', '8.8.8.2', '{"tags":"after"}', fetched_at => now() - interval '1 hour');
        UPDATE enrichment_cache SET etag = '"x"', altered = true"#,
    );
    let before = cached(&mut client);
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_request_many('urlhaus', '{8.8.8.1,8.8.8.2,8.8.8.3}')"), 0);
    let all = "SELECT string_agg(concat_ws(' ', payload ->> 'tags', etag, altered), ', ' ORDER BY cache_key) FROM enrichment_cache";
    assert_eq!(one::<String>(&mut client, all), "of 8.8.8.1 f, after \"x\" t, of 8.8.8.3 f");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(cached(&mut client), before);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_history"), 0);
}

#[test]
fn a_miss_looks_for_imported_answers_only_while_the_service_has_some() {
    let (cluster, mut client, tree) = unknown("looks_only_while");
    run(&mut client, "UPDATE enrichment_service SET enabled = true; SELECT enrich_set_secret('urlhaus', 'x')");
    let looks = |service: &str| -> i64 {
        let mut session = cluster.client("looks_only_while");
        run(&mut session, &format!("BEGIN; SELECT enrich_get('{service}', '8.8.7.7')"));
        // reading the registry asks once for each service, in the same transaction
        let scans =
            "SELECT (seq_scan + idx_scan)::bigint FROM pg_stat_xact_user_tables WHERE relname = 'enrichment_orphan'";
        let first: i64 = one(&mut session, scans);
        run(&mut session, &format!("SELECT enrich_get('{service}', '8.8.7.8')"));
        one::<i64>(&mut session, scans) - first
    };
    assert_eq!((looks("urlhaus"), looks("spur")), (1, 0));
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(looks("urlhaus"), 0, "the run was taken back");
    report(&mut client, &tree.import(""));
    assert_eq!(looks("urlhaus"), 1, "and made again");
    run(&mut client, "SELECT enrich_request_many('urlhaus', '{8.8.8.1,8.8.8.2,8.8.8.3}')");
    assert_eq!(looks("urlhaus"), 0, "all are taken over");
}

#[test]
fn a_key_that_appears_in_an_attached_table_gets_the_answer_too() {
    let (cluster, mut client, _tree) = unknown("appears");
    run(&mut client, "UPDATE enrichment_service SET enabled = true");
    run(
        &mut client,
        "CREATE TABLE session_summaries (session_id text PRIMARY KEY, source_ip text, enrichment jsonb);
        INSERT INTO session_summaries VALUES ('a', '8.8.8.1');
        SELECT enrich_attach('session_summaries', 'source_ip', '{urlhaus}', 'enrichment')",
    );
    wait_served(&cluster, "appears");
    let filled = |session: &str| {
        let mut client = cluster.client("appears");
        let sql = format!(
            "SELECT coalesce(enrichment #>> '{{urlhaus,tags}}', enrichment ->> 'urlhaus', '') FROM session_summaries WHERE session_id = '{session}'"
        );
        wait_until(&sql, SOON, || {
            let tags: String = one(&mut client, &sql);
            if tags.contains("of 8.8.8") {
                Ok(Some(()))
            } else {
                Err(tags)
            }
        });
    };
    filled("a");
    run(&mut client, "INSERT INTO session_summaries VALUES ('b', '8.8.8.2')");
    filled("b");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 1);
}

#[test]
fn keys_that_tables_queue_and_cache_hold_are_found_by_hashing_them() {
    let (_cluster, mut client) = database("by_hashing");
    let tree = Tree::new();
    for key in ["8.8.8.1", "8.8.8.2", "8.8.8.3", "8.8.8.4"] {
        tree.file(&by_digest("spur", key), r#"{"spur_data":["ORG","","","VPN"]}"#, 5);
    }
    run(
        &mut client,
        "INSERT INTO enrichment_source (name, relation, key_column, key_type, services, shape)
        VALUES ('s', 'pg_class', 'relname', 'text', '{spur}', 'none');
        INSERT INTO enrichment_indicator (source, raw_key, cache_key) VALUES ('s', '8.8.8.1', '8.8.8.1');
        INSERT INTO enrichment_queue (service, cache_key) VALUES ('spur', '8.8.8.2');
        SELECT enrich_store('urlhaus', '8.8.8.3', '{\"tags\": \"x\"}')",
    );
    assert_eq!(parts(&report(&mut client, &tree.import(""))), "files 4, imported 3, unknown_key 1");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue"), 0, "it is answered");
}

/// More than are looked for at a time.
const WRITTEN_OTHERWISE: u32 = 1100;

#[test]
fn keys_that_a_table_writes_otherwise_than_in_normal_form_get_the_answers_that_lie_under_the_digests_of_what_it_writes()
{
    let (cluster, mut client) = database("written_otherwise");
    let tree = Tree::new();
    for n in 1..=WRITTEN_OTHERWISE {
        tree.file(&by_digest("urlhaus", &format!("2600:ABCD::{n:X}")), format!("{{\"tags\":\"of {n}\"}}"), 5);
    }
    assert_eq!(parts(&report(&mut client, &tree.import(""))), "files 1100, unknown_key 1100");
    run(
        &mut client,
        "UPDATE enrichment_service SET enabled = true;
        CREATE TABLE session_summaries (session_id int PRIMARY KEY, source_ip text, enrichment jsonb);
        INSERT INTO session_summaries SELECT n, '2600:ABCD::' || upper(to_hex(n)) FROM generate_series(1, 1100) n;
        SELECT enrich_attach('session_summaries', 'source_ip', '{urlhaus}', 'enrichment')",
    );
    wait_served(&cluster, "written_otherwise");
    let until = |client: &mut postgres::Client, sql: &str, wanted: u32| {
        wait_until(sql, SOON, || match one::<i64>(client, sql) {
            found if found == i64::from(wanted) => Ok(Some(())),
            found => Err(found.to_string()),
        });
    };
    until(&mut client, "SELECT count(*) FROM enrichment_orphan", 0);
    let theirs = "SELECT count(*) FROM enrichment_cache
        WHERE cache_key = '2600:abcd::' || to_hex(regexp_replace(payload ->> 'tags', '.* ', '')::int) AND payload ->> 'tags' LIKE ";
    until(&mut client, &format!("{theirs} 'of %'"), WRITTEN_OTHERWISE);
    let filled = "SELECT count(*) FROM session_summaries WHERE enrichment ->> 'urlhaus' LIKE '%of %'";
    until(&mut client, filled, WRITTEN_OTHERWISE);
    // what waits for keys that are known long since is found when the table is searched
    run(
        &mut client,
        "INSERT INTO enrichment_orphan (service, digest, payload, response_status, fetched_at, expires_at)
        SELECT 'urlhaus', sha256(convert_to(source_ip, 'UTF8')), jsonb_build_object('tags', 'new ' || session_id), 'success', now(),
            now() + interval '1 day' FROM session_summaries;
        UPDATE enrichment_source SET swept_at = NULL; INSERT INTO session_summaries VALUES (0, 'wakes it')",
    );
    until(&mut client, "SELECT count(*) FROM enrichment_orphan", 0);
    until(&mut client, &format!("{theirs} 'new %'"), WRITTEN_OTHERWISE);
}
