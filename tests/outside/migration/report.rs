//! A tree with every layout and every kind of bad file, and the exact report of its import.

use super::tree::{adds_up, by_digest, cached, database, dshield, parts, report, Tree};
use crate::support::{one, refused, run};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

const SHA: &str = "ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34ab12cd34";
const PREFIX_BODY: &str = r#"{"0123456789ABCDEF0123456789ABCDEF012":7,"ABCDEF0123456789ABCDEF0123456789ABC":0}"#;
const SPUR: &str =
    r#"{"spur_data":["ORG","","","DATACENTER","","","","","","","","","","City, State, NL","","","",""]}"#;

fn every_layout(tree: &Tree) {
    tree.dshield("8.8.8.1", 1, 1);
    tree.file("dshield/8.8.8.2/8.8.8.2.json", dshield("8.8.8.2", 2), 1);
    tree.file("dshield_8.8.8.3.json", format!("{{\"timestamp\":1,\"data\":{}}}", dshield("8.8.8.3", 3)), 1); // expired
    tree.file(&by_digest("dshield", "2600::1"), dshield("2600::1", 4), 1); // the body names the key
    tree.file("hibp/AB/CD/E/ABCDE.json", PREFIX_BODY, 1);
    tree.file("hibp/AB/ABCDF.json", PREFIX_BODY, 1);
    tree.file(&by_digest("hibp", "ABCD0"), PREFIX_BODY, 1); // there are only a million
    tree.file(&format!("virustotal/ab/12/cd/34/{SHA}.json"), r#"{"last_analysis_stats":{"malicious":3}}"#, 1);
    tree.file(&format!("vt_{SHA}.json"), r#"{"last_analysis_stats":{"malicious":2}}"#, 2); // a duplicate
    tree.file(&format!("virustotal/{}/{}.json", "cd", "cd".repeat(20)), r#"{"data":{"attributes":{"a":1}}}"#, 1);
    tree.file(&format!("virustotal_unknown/ef/ef/ef/ef/{}.json", "ef".repeat(32)), "{\"response_code\":0}", 1);
    tree.file(&by_digest("spur", "8.8.8.1"), SPUR, 1); // dshield's file names the key
    tree.file(&by_digest("urlhaus", "8.8.8.1"), r#"{"tags":"elf, mirai"}"#, 1);
    tree.file(&by_digest("urlhaus", "8.8.8.2"), r#"{"tags":""}"#, 1); // asked and unknown
    tree.file(&by_digest("urlhaus", "9.9.9.9"), r#"{"tags":"elf"}"#, 1); // nobody knows the key
    tree.file("uh_8.8.4.4", r#"{"query_status":"ok","urls":[{"tags":null}]}"#, 1);
    tree.file("spur_2600__1.json", r#"{"ip":"2600::1","infrastructure":"VPN"}"#, 1);
}

fn every_bad_file(tree: &Tree) {
    tree.file("dshield/8/8/9/1.json", "", 1);
    tree.file("dshield/8/8/9/2.json", "{\"ip\": {", 1);
    tree.file("dshield/8/8/9/3.json", r#"{"ip":{"asname":"","ascountry":""}}"#, 1);
    tree.file("dshield/8/8/9/4.json.tmp", "x", 1);
    tree.file("dshield/8/8/9/999.json", "{}", 1);
    tree.file("dshield/8/8/9/5.json", vec![b'x'; 2 << 20], 1);
    tree.file("greynoise/ab/x.json", "{}", 1);
    tree.file("README", "hello", 1);
    let odd = tree.path("odd");
    std::fs::create_dir_all(&odd).unwrap();
    std::fs::write(odd.join(std::ffi::OsStr::from_bytes(b"\xff\n'.json")), "{}").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", tree.path("dshield/8/8/9/6.json")).unwrap();
    std::os::unix::fs::symlink("/etc", tree.path("spur/ff")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(tree.path("dshield/8/8/9/7.json")).status().unwrap();
    assert!(made.success());
    let secret = tree.dshield("8.8.9.8", 1, 1);
    std::fs::set_permissions(secret, std::fs::Permissions::from_mode(0o000)).unwrap();
    let future = tree.dshield("8.8.9.9", 1, 1);
    let at = std::time::SystemTime::now() + std::time::Duration::from_secs(86_400);
    std::fs::File::options().write(true).open(future).unwrap().set_modified(at).unwrap();
    let sparse = tree.file("virustotal/ab/12/cd/34/sparse.json", "", 1);
    std::fs::File::options().write(true).open(sparse).unwrap().set_len(10 << 30).unwrap();
    tree.file("dshield/closed/8/8/1.json", "{}", 1);
    std::fs::set_permissions(tree.path("dshield/closed"), std::fs::Permissions::from_mode(0o000)).unwrap();
}

/// A device that ends nobody who reads it; says whether there is one.
fn a_device(tree: &Tree) -> bool {
    let made =
        std::process::Command::new("mknod").arg(tree.path("dshield/8/8/9/10.json")).args(["c", "1", "5"]).output();
    let made = made.is_ok_and(|output| output.status.success());
    let root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    if !made {
        assert!(!root, "root could not make a device");
        eprintln!("NOT TESTED: a device in the tree, as only root may make one");
    }
    made
}

fn expected(device: bool) -> String {
    let n = i64::from(device);
    format!("files {}, imported 14, expired 1, duplicate 1, malformed 10, unreadable {}, unknown_key 1", 33 + n, 6 + n)
}

#[test]
fn every_layout_is_imported_and_every_bad_file_is_listed_with_its_reason() {
    let (_cluster, mut client) = database("every_layout");
    let tree = Tree::new();
    every_layout(&tree);
    every_bad_file(&tree);
    let device = a_device(&tree);
    let expected = expected(device);
    // a try writes nothing: it works where nothing can be written
    run(&mut client, "SET default_transaction_read_only = on");
    let tried = report(&mut client, &tree.import(", dry_run => true"));
    run(&mut client, "SET default_transaction_read_only = off");
    let written: i64 = one(
        &mut client,
        "SELECT (SELECT count(*) FROM enrichment_cache) + (SELECT count(*) FROM enrichment_migration)
            + (SELECT count(*) FROM enrichment_orphan) + (SELECT count(*) FROM enrichment_migration_problem)",
    );
    assert_eq!(written, 0);
    let done = report(&mut client, &tree.import(", batch_size => 3"));
    adds_up(&done);
    assert_eq!(parts(&done), expected, "{:?}", problems(&mut client));
    assert_eq!(parts(&tried), expected);
    assert_eq!(tried["services"], done["services"]);
    assert_eq!(report_of(&mut client), done);

    let problems = problems(&mut client);
    for (path, words) in [
        ("dshield/8/8/9/1.json", "malformed: the file is empty"),
        ("dshield/8/8/9/2.json", "malformed: the file is not json"),
        ("dshield/8/8/9/3.json", "malformed: the file holds an empty value"),
        ("dshield/8/8/9/4.json.tmp", "malformed: the file is a temporary or hidden one"),
        ("dshield/8/8/9/5.json", "malformed: the file has 2097152 bytes"),
        ("dshield/8/8/9/6.json", "unreadable: the file is a symbolic link"),
        ("dshield/8/8/9/7.json", "unreadable: the file is a FIFO"),
        ("dshield/8/8/9/8.json", "unreadable: the file may not be read by the server"),
        ("dshield/8/8/9/9.json", "malformed: the file was changed at a time that is still to come"),
        ("dshield/8/8/9/999.json", "malformed: the file"),
        ("greynoise/ab/x.json", "malformed: the file stands in no layout"),
        ("README", "malformed: the file stands in no layout"),
        ("odd/\u{fffd}\u{fffd}'.json", "malformed: the file has a name that is not UTF-8"),
        ("spur/ff", "unreadable: the file is a symbolic link"),
        ("virustotal/ab/12/cd/34/sparse.json", "unreadable: the file has 10737418240 bytes, more than"),
        ("dshield/closed", "unreadable: the file may not be read by the server"),
        ("dshield/8/8/9/10.json", "unreadable: the file is a device"),
    ] {
        if words.ends_with("a device") && !device {
            continue;
        }
        let line = problems.iter().find(|line| line.starts_with(&format!("{path} ")));
        assert!(line.is_some_and(|line| line.contains(words)), "{path}: {words}, in {problems:#?}");
    }
    assert_eq!(problems.len(), 16 + usize::from(device));
    // so that the tree can be removed
    std::fs::set_permissions(tree.path("dshield/closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
}

fn problems(client: &mut postgres::Client) -> Vec<String> {
    let sql = "SELECT format('%s %s: %s', path, outcome, reason) FROM enrichment_migration_problem ORDER BY path";
    client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect()
}

fn report_of(client: &mut postgres::Client) -> serde_json::Value {
    let text: String = one(client, "SELECT report::text FROM enrichment_migration WHERE state = 'finished'");
    serde_json::from_str(&text).unwrap()
}

#[test]
fn old_shapes_are_kept_and_read_by_the_typed_views_with_their_true_age() {
    let (_cluster, mut client) = database("old_shapes");
    let tree = Tree::new();
    every_layout(&tree);
    report(&mut client, &tree.import(", keep_expired => true"));
    for (sql, expected) in [
        ("SELECT infrastructure || ' ' || flagged FROM enrichment_spur WHERE cache_key = '8.8.8.1'", "DATACENTER true"),
        ("SELECT infrastructure FROM enrichment_spur WHERE cache_key = '2600::1'", "VPN"),
        ("SELECT tags::text FROM enrichment_urlhaus WHERE cache_key = '8.8.8.1'", "{elf,mirai}"),
        ("SELECT response_status FROM enrichment_cache WHERE service = 'urlhaus' AND cache_key = '8.8.8.2'", "not_found"),
        ("SELECT attacks::text FROM enrichment_dshield WHERE cache_key = '2600::1'", "4"),
        ("SELECT fetched_at::text FROM enrichment_cache WHERE cache_key = '8.8.8.3'", "1970-01-01 00:00:01+00"),
        ("SELECT state || ' ' || (payload -> 'ip' ->> 'attacks') FROM enrich_lookup('dshield', '8.8.8.3')", "stale 3"),
        ("SELECT coalesce(enrich_get('dshield', '8.8.8.3')::text, 'not fresh')", "not fresh"),
        ("SELECT enrich_get('hibp', 'ABCD0')::text", r#"{"0123456789ABCDEF0123456789ABCDEF012": 7}"#),
        ("SELECT (age(now(), fetched_at) BETWEEN '59 min' AND '61 min')::text FROM enrichment_cache WHERE cache_key = '8.8.8.1' AND service = 'dshield'", "true"),
        ("SELECT (expires_at - fetched_at BETWEEN '6 days' AND '8 days')::text FROM enrichment_cache WHERE cache_key = '8.8.8.1' AND service = 'dshield'", "true"),
    ] {
        run(&mut client, "SET timezone = 'UTC'");
        assert_eq!(one::<String>(&mut client, sql), expected, "{sql}");
    }
    let malicious = format!("SELECT malicious::text FROM enrichment_virustotal WHERE cache_key = '{SHA}'");
    assert_eq!(one::<String>(&mut client, &malicious), "3", "the newer of two files of a key");
}

#[test]
fn a_newer_row_is_never_overwritten_and_a_second_import_changes_nothing() {
    let (_cluster, mut client) = database("newer_row");
    let tree = Tree::new();
    tree.dshield("8.8.8.1", 1, 5);
    tree.dshield("8.8.8.2", 2, 5);
    tree.dshield("8.8.8.3", 3, 5);
    run(
        &mut client,
        r#"SELECT enrich_store('dshield', '8.8.8.1', '{"ip": {"number": "now"}}');
        SELECT enrich_store('dshield', '8.8.8.2', '{"ip": {"number": "old"}}', fetched_at => now() - interval '9 hours');
        SELECT enrich_store('dshield', '8.8.8.3', NULL, response_status => 'error', error_message => 'down')"#,
    );
    let first = report(&mut client, &tree.import(""));
    assert_eq!(parts(&first), "files 3, imported 2, older_than_row 1");
    let all = cached(&mut client);
    assert!(all.contains("\"now\"") && !all.contains("\"old\""), "{all}");
    let second = report(&mut client, &tree.import(""));
    assert_eq!(parts(&second), "files 3, older_than_row 1, duplicate 2");
    assert_eq!(cached(&mut client), all);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration"), 2);
}

#[test]
fn only_the_services_asked_for_are_read() {
    let (_cluster, mut client) = database("some_services");
    let tree = Tree::new();
    every_layout(&tree);
    let some = report(&mut client, &tree.import(", services => '{hibp,virustotal}'"));
    assert_eq!(parts(&some), "files 7, imported 6, duplicate 1");
    let others: i64 =
        one(&mut client, "SELECT count(*) FROM enrichment_cache WHERE service NOT IN ('hibp', 'virustotal')");
    assert_eq!(others, 0);
}

#[test]
fn a_service_of_the_users_own_is_imported_like_the_built_in_ones() {
    let (_cluster, mut client) = database("own_service");
    run(
        &mut client,
        "INSERT INTO enrichment_service (name, enabled, key_kind, url, ttl, limits)
        VALUES ('greynoise', false, 'ip', 'https://api.greynoise.io/v3/community/{key}', '7 days', '[]')",
    );
    let tree = Tree::new();
    tree.dshield("8.8.8.1", 1, 1);
    // named by dshield's file, by its own body, and by nobody
    tree.file(&by_digest("greynoise", "8.8.8.1"), r#"{"noise": true}"#, 1);
    tree.file(&by_digest("greynoise", "8.8.8.2"), r#"{"ip": "8.8.8.2", "noise": false}"#, 1);
    tree.file(&by_digest("greynoise", "8.8.8.3"), r#"{"noise": true}"#, 1);
    tree.file("greynoise/ab/x.json", "{}", 1);
    let done = report(&mut client, &tree.import(""));
    assert_eq!(parts(&done), "files 5, imported 3, malformed 1, unknown_key 1");
    let got = "SELECT string_agg(payload ->> 'noise', ',' ORDER BY cache_key) FROM enrichment_cache
        WHERE service = 'greynoise' AND expires_at - fetched_at BETWEEN '6 days' AND '8 days'";
    assert_eq!(one::<String>(&mut client, got), "true,false");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    // without dshield's file nobody names the first key
    let own = report(&mut client, &tree.import(", services => '{greynoise}'"));
    assert_eq!(parts(&own), "files 4, imported 1, malformed 1, unknown_key 2");
}

#[test]
fn one_file_that_the_database_refuses_is_listed_and_the_others_of_its_batch_are_in() {
    let (_cluster, mut client) = database("refuses_one");
    let tree = Tree::new();
    for n in 1..=9 {
        tree.dshield(&format!("8.8.8.{n}"), n, 1);
    }
    // one that is new, and one that replaces a row
    run(
        &mut client,
        r#"SELECT enrich_store('dshield', '8.8.8.5', '{"ip": {"number": "before"}}', fetched_at => now() - interval '9 hours');
        CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
            IF NEW.cache_key IN (''8.8.8.4'', ''8.8.8.5'') THEN RAISE EXCEPTION ''not this one'' USING ERRCODE = ''check_violation''; END IF;
            RETURN NEW; END';
        CREATE TRIGGER refused BEFORE INSERT OR UPDATE ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION refused()"#,
    );
    let done = report(&mut client, &tree.import(""));
    adds_up(&done);
    assert_eq!(parts(&done), "files 9, imported 7, malformed 2");
    assert_eq!(
        problems(&mut client),
        [4, 5].map(|n| format!("dshield/8/8/8/{n}.json malformed: the file cannot be stored: not this one"))
    );
    let row = "SELECT payload -> 'ip' ->> 'number' FROM enrichment_cache WHERE cache_key = '8.8.8.5'";
    assert_eq!(one::<String>(&mut client, row), "before");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration_row"), 7);
    // what is wrong with the database and not with a file is no reason to pass files over
    run(&mut client, "CALL enrich_migration_rollback(1)");
    run(
        &mut client,
        "CREATE OR REPLACE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
            RAISE EXCEPTION ''no room'' USING ERRCODE = ''disk_full''; END'",
    );
    refused(&mut client, &tree.import(""), "53100", "");
}

#[test]
fn an_import_leaves_nothing_for_the_next_search_by_payload_to_take_in_and_no_setting_behind() {
    let (_cluster, mut client) = database("settled");
    run(&mut client, "CREATE EXTENSION pgstattuple; SET work_mem = '5MB'");
    let tree = Tree::new();
    for n in 1..=30 {
        tree.dshield(&format!("8.8.8.{n}"), n, 1);
    }
    let pending = "SELECT pending_tuples FROM pgstatginindex('enrichment_cache_payload')";
    let settings = "SELECT current_setting('work_mem') || ' ' || current_setting('gin_pending_list_limit')";
    for call in [tree.import(", batch_size => 10"), "CALL enrich_migrate_table('older', batch_size => 10)".to_string()]
    {
        run(
            &mut client,
            "DROP TABLE IF EXISTS older; CREATE TABLE older (service text, cache_key text, cache_value jsonb, created_at timestamptz);
            INSERT INTO older SELECT 'dshield', '8.8.9.' || n, format('{\"ip\":{\"number\":\"%s\",\"count\":1}}', n)::jsonb, now()
                FROM generate_series(1, 30) n;
            SELECT enrich_store('dshield', '8.8.7.1', '{\"ip\": {\"number\": \"x\"}}')",
        );
        assert!(one::<i64>(&mut client, pending) > 0, "a store leaves it to others");
        assert_eq!(parts(&report(&mut client, &call)), "files 30, imported 30", "{call}");
        assert_eq!(one::<i64>(&mut client, pending), 0, "{call}");
        assert_eq!(one::<String>(&mut client, settings), "5MB 4MB", "{call}");
    }
}
