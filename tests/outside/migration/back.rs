//! Comparing an import with its files, and taking it back.

use super::tree::{by_digest, cached, database, hold, parts, report, wait_held, Tree, GO_ON};
use crate::support::{ask, one, own_cluster, refused, run, said, same, SOON};
use postgres::Client;
use std::sync::Arc;
use testbed::{wait_until, Cluster};

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
        SELECT enrich_store('hibp', 'ABCDE', '{"0123456789ABCDEF0123456789ABCDEF012": 5}', fetched_at => now() - interval '20 hours');
        UPDATE enrichment_cache SET created_at = now() - interval '30 days', hit_count = 5;
        UPDATE enrichment_cache SET altered = true, etag = '"x"', last_modified = 'Wed, 21 Oct 2015 07:28:00 GMT',
            expires_at = now() + interval '100 days', api_response_code = 203, api_latency_ms = 17, error_message = 'old'
        WHERE cache_key IN ('8.8.8.1', 'ABCDE')"#,
    );
    let before = cached(&mut client);
    for field in
        ["\"hit_count\": 5", "\"api_response_code\": 203", "\"ranges\": \"\\\\x", "\"error_message\": \"down\""]
    {
        assert!(before.contains(field), "{field} in {before}");
    }
    let (first, second) = (Tree::new(), Tree::new());
    for n in [1, 2, 3, 4, 9] {
        first.dshield(&format!("8.8.8.{n}"), n, 10);
    }
    for n in [1, 3, 5] {
        second.dshield(&format!("8.8.8.{n}"), 100 + n, 5);
    }
    first.file("hibp/AB/CD/E/ABCDE.json", r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#, 10);
    second.file("hibp/AB/CD/E/ABCDE.json", r#"{"0123456789ABCDEF0123456789ABCDEF012":9}"#, 5);
    first.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 5);
    assert_eq!(parts(&report(&mut client, &first.import(", batch_size => 2"))), "files 7, imported 6, unknown_key 1");
    // a provider that is asked whether this has changed would speak of another answer
    let left = "SELECT count(*) FROM enrichment_cache WHERE altered OR etag IS NOT NULL OR last_modified IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, left), 0);
    assert_eq!(parts(&report(&mut client, &second.import(""))), "files 4, imported 4");
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
    assert_eq!(parts(&report(&mut client, &first.import(""))), "files 7, imported 5, older_than_row 1, unknown_key 1");
    refused(&mut client, "CALL enrich_migration_rollback(99)", "22023", "enrichment_migration");
}

#[test]
fn three_runs_taken_back_in_any_order_leave_what_stood_before() {
    let (_cluster, mut client) = database("back_three");
    run(
        &mut client,
        r#"SELECT enrich_store('dshield', '8.8.8.' || n, '{"ip": {"number": "before"}}', fetched_at => now() - interval '30 hours')
            FROM generate_series(1, 4) n;
        UPDATE enrichment_cache SET api_latency_ms = 17, expires_at = expires_at + interval '1 hour'"#,
    );
    let before = cached(&mut client);
    // each key is in another set of runs, with an answer from before or without
    let trees = [20, 15, 10].map(|hours| (hours, Tree::new()));
    for (bit, (hours, tree)) in trees.iter().enumerate() {
        for n in (1..=7).filter(|n| n >> bit & 1 == 1) {
            tree.dshield(&format!("8.8.8.{}", n % 4 + 1), 10 * n + bit as u32, *hours);
            tree.dshield(&format!("8.8.9.{n}"), 10 * n + bit as u32, *hours);
        }
    }
    let mut last = 0;
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        for (_, tree) in &trees {
            report(&mut client, &tree.import(", batch_size => 2"));
        }
        // 8.8.9.7 is in all three
        let newest = |client: &mut Client| -> Option<String> {
            one(client, "SELECT (SELECT payload #>> '{ip,attacks}' FROM enrichment_cache WHERE cache_key = '8.8.9.7')")
        };
        assert_eq!(newest(&mut client).as_deref(), Some("72"));
        let mut left = vec![0, 1, 2];
        for run_of in order {
            run(&mut client, &format!("CALL enrich_migration_rollback({})", last + run_of + 1));
            left.retain(|other| *other != run_of);
            let expected = left.iter().max().map(|bit| format!("7{bit}"));
            assert_eq!(newest(&mut client), expected, "{order:?}: the newest of the runs that are left");
        }
        nothing_is_left(&mut client, &before);
        last += 3;
    }
}

/// Calls for a rollback in a session of its own, calls `harm` when it waits for a lock, and gives the error it ended with.
fn harmed_rollback(cluster: &Cluster, database: &str, harm: impl FnOnce(i32)) -> postgres::Error {
    let mut client = cluster.client(database);
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let call = threads.spawn(move || {
            client.simple_query("CALL enrich_migration_rollback(1)").expect_err("a rollback that is harmed")
        });
        let mut watch = cluster.client(database);
        let waits = format!("SELECT coalesce(wait_event_type = 'Lock', false) FROM pg_stat_activity WHERE pid = {pid}");
        wait_until("the rollback to wait", SOON, || same(ask::<bool>(&mut watch, &waits)?, &true));
        harm(pid);
        call.join().expect("a session")
    })
}

#[test]
fn a_rollback_of_thousands_that_is_cancelled_and_killed_goes_on_to_its_end() {
    const FILES: u32 = 2600;
    let cluster = own_cluster("rollback_harmed");
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        r#"CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET enabled = false;
        SELECT count(enrich_store('dshield', '8.8.0.' || n, '{"ip": {"number": "before"}}', fetched_at => now() - interval '30 hours'))
            FROM generate_series(1, 200) n;
        UPDATE enrichment_cache SET api_latency_ms = 17, hit_count = 3"#,
    );
    let before = cached(&mut client);
    let tree = Tree::new();
    for n in 0..FILES {
        tree.dshield(&format!("8.8.{}.{}", n / 250, n % 250), n + 1, 1);
    }
    tree.file(&by_digest("spur", "9.9.9.9"), r#"{"spur_data":["ORG"]}"#, 1);
    assert_eq!(
        parts(&report(&mut client, &tree.import(""))),
        format!("files {}, imported {FILES}, unknown_key 1", FILES + 1)
    );
    // two portions of a thousand can go, the last one cannot
    let block =
        "SELECT FROM enrichment_cache WHERE id = (SELECT max(cache_id) FROM enrichment_migration_row) FOR UPDATE";
    let left = "SELECT count(*) FROM enrichment_migration_row";
    let mut blocking = cluster.client("postgres");
    run(&mut blocking, &format!("BEGIN; {block}"));
    let error = harmed_rollback(&cluster, "postgres", |pid| {
        run(&mut cluster.client("postgres"), &format!("SELECT pg_cancel_backend({pid})"));
    });
    assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{}", said(&error));
    assert_eq!(one::<i64>(&mut client, left), i64::from(FILES) - 2000);
    assert_ne!(cached(&mut client), before);
    harmed_rollback(&cluster, "postgres", |_| cluster.kill_postmaster_9());
    cluster.start_again().unwrap_or_else(|why| panic!("{why}"));
    let mut client = cluster.client("postgres");
    assert_eq!(one::<i64>(&mut client, left), i64::from(FILES) - 2000);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    nothing_is_left(&mut client, &before);
}

#[test]
fn a_run_that_was_interrupted_and_one_that_is_under_way_can_be_taken_back() {
    let (cluster, mut client) = database("back_unfinished");
    run(
        &mut client,
        r#"SELECT enrich_store('dshield', '8.8.8.1', '{"ip": {"number": "before"}}', fetched_at => now() - interval '30 hours')"#,
    );
    let before = cached(&mut client);
    let tree = Tree::new();
    for n in 1..=30 {
        tree.dshield(&format!("8.8.8.{n}"), n, 1);
    }
    let call = tree.import(", batch_size => 5");
    hold(&mut client, "(report ->> 'files')::int >= 10 AND state = 'running'");
    for interrupted in [true, false] {
        let mut importing = cluster.client("back_unfinished");
        let pid: i32 = one(&mut importing, "SELECT pg_backend_pid()");
        std::thread::scope(|threads| {
            let import = threads.spawn(|| importing.simple_query(&call));
            wait_held(&mut client, 1);
            assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration_row"), 10);
            let id: i64 = one(&mut client, "SELECT max(id) FROM enrichment_migration");
            let rollback = format!("CALL enrich_migration_rollback({id})");
            if interrupted {
                run(&mut client, &format!("SELECT pg_cancel_backend({pid})"));
                import.join().expect("a session").expect_err("a cancelled import");
                run(&mut client, &rollback);
            } else {
                let mut other = cluster.client("back_unfinished");
                let back = threads.spawn(move || run(&mut other, &rollback));
                let waits = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CALL enrich_migration_rollback%' AND wait_event_type = 'Lock'";
                wait_until("the rollback to wait for the batch", SOON, || same(ask::<i64>(&mut client, waits)?, &1));
                run(&mut client, GO_ON);
                back.join().expect("a rollback");
                // whether it had come to its end before is chance; what it brought is gone
                let _ended = import.join().expect("a session");
            }
        });
        nothing_is_left(&mut client, &before);
    }
    assert_eq!(parts(&report(&mut client, &call)), "files 30, imported 30", "a new run begins at the beginning");
    assert_eq!(one::<i64>(&mut client, "SELECT max(id) FROM enrichment_migration"), 3);
}

#[test]
fn a_run_that_is_deleted_takes_with_it_what_it_noted_and_no_answer() {
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
    assert_eq!(one::<String>(&mut client, noted), "4 2 1");
    tree.file(&by_digest("spur", "8.8.9.8"), r#"{"spur_data":["ORG"]}"#, 5);
    report(&mut client, &tree.import(""));
    assert_eq!(one::<String>(&mut client, noted), "4 3 2");
    run(&mut client, "DELETE FROM enrichment_migration WHERE id = 1");
    assert_eq!(one::<String>(&mut client, noted), "1 2 2");
    let runs = "SELECT string_agg(coalesce(migration::text, 'none'), ' ' ORDER BY migration) FROM enrichment_orphan";
    assert_eq!(one::<String>(&mut client, runs), "3 none");
    run(&mut client, "TRUNCATE enrichment_migration CASCADE");
    assert_eq!(one::<String>(&mut client, noted), "0 0 2");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 4);
    let read = "SELECT count(enrich_get('spur', key)) FROM unnest('{8.8.9.8,8.8.9.9}'::text[]) key";
    assert_eq!(one::<i64>(&mut client, read), 2);
    run(&mut client, "SELECT enrich_request_many('spur', '{8.8.9.8,8.8.9.9}')");
    assert_eq!(one::<String>(&mut client, noted), "0 0 0");
    assert_eq!(one::<i64>(&mut client, read), 2, "they are taken over without a run");
}

#[test]
fn a_run_that_meets_a_key_again_after_a_provider_has_answered_gives_the_providers_answer_back() {
    let (_cluster, mut client) = database("met_again");
    let tree = Tree::new();
    tree.dshield("8.8.8.1", 1, 10);
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() - 3600;
    let body = format!("{{\"timestamp\":{at},\"data\":{}}}", super::tree::dshield("8.8.8.1", 3));
    tree.file("dshield_8.8.8.1.json", body, 1);
    // the answer of a provider, between the two files of the key
    run(
        &mut client,
        r#"CREATE FUNCTION answered() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE public.enrichment_cache SET payload = '{"ip": {"number": "asked"}}', fetched_at = now() - interval '5 h',
                version = version + 1 WHERE id = NEW.id;
            RETURN NULL;
        END $$;
        CREATE TRIGGER answered AFTER INSERT ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION answered()"#,
    );
    let done = report(&mut client, &tree.import(", batch_size => 1"));
    assert_eq!(parts(&done), "files 2, imported 1, duplicate 1", "one key was brought");
    let attacks = "SELECT coalesce(attacks::text, cache_key) FROM enrichment_dshield";
    assert_eq!(one::<String>(&mut client, attacks), "3", "the later file");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    let all = cached(&mut client);
    assert!(all.contains("asked") && !all.contains("attacks"), "{all}");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_history"), 0);
}
