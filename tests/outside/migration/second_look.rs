//! Files named by a digest that come before the key is named: the run finds them before it ends.

use super::tree::{adds_up, by_digest, cached, database, dshield, parts, report, slow_down, Tree};
use crate::support::{one, run, SOON};
use testbed::wait_until;

/// A key that is named by the last file only; one that nobody names.
fn tree() -> Tree {
    let tree = Tree::new();
    tree.file(&by_digest("spur", "8.8.8.8"), r#"{"spur_data":["ORG","","","VPN"]}"#, 5);
    tree.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 5);
    tree.file("uh_8.8.8.8", r#"{"query_status":"ok","urls":[{"tags":null}],"n":1}"#, 5);
    tree.file(&by_digest("urlhaus", "8.8.8.8"), r#"{"tags":"newer"}"#, 4);
    tree
}

const EXPECTED: &str = "files 4, imported 2, duplicate 1, unknown_key 1";

#[test]
fn a_key_that_a_later_file_names_is_found_before_the_run_ends() {
    let (_cluster, mut client) = database("second_look");
    let tree = tree();
    run(&mut client, "SET default_transaction_read_only = on");
    let tried = report(&mut client, &tree.import(", dry_run => true"));
    run(&mut client, "SET default_transaction_read_only = off");
    let done = report(&mut client, &tree.import(", batch_size => 1"));
    adds_up(&done);
    assert_eq!((parts(&done), parts(&tried)), (EXPECTED.to_string(), EXPECTED.to_string()));
    assert_eq!(done["services"], tried["services"]);
    assert_eq!(
        (&done["services"]["spur"]["imported"], &done["services"]["urlhaus"]["duplicate"]),
        (&1.into(), &1.into())
    );
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 1);
    let newer = "SELECT payload ->> 'tags' FROM enrichment_cache WHERE service = 'urlhaus'";
    assert_eq!(one::<String>(&mut client, newer), "newer", "of two files of a key the newer");
    let same = "SELECT files FROM enrich_migration_verify(1) WHERE path IS NULL AND finding = 'same'";
    assert_eq!(one::<i64>(&mut client, same), 3);
    // it stands there as if its key had been known from the beginning
    let stands = "SELECT concat_ws(' ', fetched_at, expires_at, payload) FROM enrichment_cache WHERE service = 'spur'";
    let late: String = one(&mut client, stands);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(cached(&mut client), "");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_orphan"), 0);
    run(&mut client, "SELECT enrich_store('dshield', '8.8.8.8', '{\"ip\":{\"number\":\"x\"}}')");
    report(&mut client, &tree.import(""));
    assert_eq!(one::<String>(&mut client, stands), late);
}

#[test]
fn files_that_a_client_sends_are_looked_at_again_too() {
    let (_cluster, mut client) = database("second_look_sent");
    let tree = tree();
    let mut paths = vec!["uh_8.8.8.8".to_string()];
    paths.extend(["8.8.8.8", "8.8.9.9"].map(|key| by_digest("spur", key)));
    paths.push(by_digest("urlhaus", "8.8.8.8"));
    paths.sort();
    for path in paths {
        let file = tree.path(&path);
        let at = std::fs::metadata(&file).unwrap().modified().unwrap().duration_since(std::time::UNIX_EPOCH).unwrap();
        let body = std::fs::read_to_string(&file).unwrap();
        let sql = "INSERT INTO enrichment_import (path, mtime, body) VALUES ($1, ($2::text)::numeric, encode($3::text::bytea, 'base64'))";
        client.execute(sql, &[&path, &at.as_secs_f64().to_string(), &body]).unwrap();
    }
    let tried = report(&mut client, "CALL enrich_migrate_sent(dry_run => true)");
    let done = report(&mut client, "CALL enrich_migrate_sent(batch_size => 1)");
    assert_eq!((parts(&done), parts(&tried)), (EXPECTED.to_string(), EXPECTED.to_string()));
    let state = "SELECT state || ' ' || (report ->> 'unknown_key') FROM enrichment_migration";
    assert_eq!(one::<String>(&mut client, state), "finished 1");
}

#[test]
fn a_key_that_is_asked_for_while_the_run_goes_on_is_found_too() {
    let (_cluster, mut client) = database("second_look_asked");
    let tree = tree();
    tree.file("dshield/8/8/8/1.json", dshield("8.8.8.1", 1), 5);
    run(
        &mut client,
        "CREATE FUNCTION asked() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN INSERT INTO public.enrichment_queue (service, cache_key) VALUES (''spur'', ''8.8.9.9''); RETURN NULL; END';
        CREATE TRIGGER asked AFTER INSERT ON enrichment_cache FOR EACH ROW WHEN (NEW.cache_key = '8.8.8.1') EXECUTE FUNCTION asked()",
    );
    assert_eq!(parts(&report(&mut client, &tree.import(", batch_size => 1"))), "files 5, imported 4, duplicate 1");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue"), 0, "it is answered");
}

const KEYS: u32 = 150;

#[test]
fn an_import_that_is_cancelled_in_its_second_look_goes_on_with_it() {
    let (cluster, mut client) = database("second_look_cancelled");
    let tree = Tree::new();
    for n in 1..=KEYS {
        tree.file(&by_digest("spur", &format!("8.8.8.{n}")), r#"{"spur_data":["ORG"]}"#, 5);
        tree.file(&format!("uh_8.8.8.{n}"), r#"{"query_status":"ok","urls":[{"tags":null}]}"#, 5);
    }
    tree.file(&by_digest("spur", "8.8.9.9"), r#"{"spur_data":["ORG"]}"#, 5);
    let call = tree.import(", batch_size => 10");
    let tried = report(&mut client, &tree.import(", dry_run => true"));
    slow_down(&mut client, "ROW", 0.02);
    for harm in ["pg_cancel_backend", "pg_terminate_backend"] {
        let mut importer = cluster.client("second_look_cancelled");
        let pid: i32 = one(&mut importer, "SELECT pg_backend_pid()");
        let named =
            "SELECT coalesce(max((report #>> '{services,spur,imported}')::bigint), 0) FROM enrichment_migration";
        let before: i64 = one(&mut client, named);
        let call = call.clone();
        let importing = std::thread::spawn(move || importer.simple_query(&call).map(drop));
        wait_until("some answers to be named", SOON, || match one::<i64>(&mut client, named) {
            n if n > before => Ok(Some(())),
            n => Err(n.to_string()),
        });
        run(&mut client, &format!("SELECT {harm}({pid})"));
        importing.join().unwrap().expect_err("an import that is harmed");
        let left: i64 = one(&mut client, "SELECT count(*) FROM enrichment_orphan");
        assert!((2..i64::from(KEYS)).contains(&left), "in the middle: {left}");
        let counted: i64 = one(&mut client, "SELECT (report ->> 'unknown_key')::bigint FROM enrichment_migration");
        assert_eq!(counted, left, "what is committed adds up");
    }
    let done = report(&mut client, &call);
    adds_up(&done);
    assert_eq!(parts(&done), format!("files {}, imported {}, unknown_key 1", 2 * KEYS + 1, 2 * KEYS));
    assert_eq!((parts(&tried), &tried["services"]), (parts(&done), &done["services"]));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration"), 1);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 0);
}
