//! Importing from the older database table.

use super::tree::{adds_up, cached, database, dshield, parts, report};
use crate::support::{one, own_cluster, refused, run, SOON};
use postgres::Client;

const OLDER: &str = "CREATE TABLE older (service varchar(64) , cache_key varchar(256), cache_value json,
    created_at timestamptz, expires_at timestamptz, UNIQUE (service, cache_key));";

fn older(client: &mut Client, service: &str, key: &str, value: &str, hours: u32) {
    let value = value.replace('\'', "''");
    let sql = format!(
        "INSERT INTO older VALUES ('{service}', '{key}', '{value}', date_trunc('hour', now()) - interval '{hours} h', now())"
    );
    run(client, &sql);
}

/// One row of every shape, and every kind of row that is no answer.
fn fill(client: &mut Client) {
    run(client, OLDER);
    older(client, "dshield", "8.8.8.1", &dshield("8.8.8.1", 1), 3);
    older(client, "dshield", "8.8.8.2", &dshield("8.8.8.2", 2), 9_000); // expired by our ttl
    older(client, "dshield", "8.8.8.3", r#"{"ip":{"asname":"","ascountry":""}}"#, 1);
    older(client, "urlhaus", "8.8.8.1", r#"{"tags":"elf, mirai"}"#, 1);
    older(client, "urlhaus", "8.8.8.2", r#"{"tags":""}"#, 1);
    older(
        client,
        "spur",
        "8.8.8.1",
        r#"{"spur_data":["ORG","","","DATACENTER","","","","","","","","","","","","","",""]}"#,
        1,
    );
    older(client, "virustotal", &"ab".repeat(32), r#"{"data":{"attributes":{"a":"x\u0000y"}}}"#, 1);
    older(client, "virustotal_unknown", &"cd".repeat(32), r#"{"response_code":0}"#, 1);
    older(client, "hibp", "abcde", r#"{"0123456789ABCDEF0123456789ABCDEF012":7}"#, 1);
    older(client, "greynoise", "8.8.8.1", r#"{"a":1}"#, 1);
    older(client, "dshield", "no address", &dshield("8.8.8.9", 1), 1);
    older(client, "dshield", "8.8.7.1", &dshield("8.8.7.1", 1), 1);
    run(
        client,
        r#"INSERT INTO older VALUES ('dshield', '8.8.7.2', '{"ip":{"number":"x"}}', NULL, NULL), ('dshield', '8.8.7.3', NULL, now(), NULL),
            ('dshield', '8.8.7.4', '{"ip":{"number":"x"}}', 'infinity', NULL), (NULL, '8.8.7.5', '{}', now(), NULL), ('dshield', NULL, '{}', now(), NULL);
        SELECT enrich_store('dshield', '8.8.7.1', '{"ip": {"number": "newer"}}')"#,
    );
}

const EXPECTED: &str = "files 17, imported 7, older_than_row 1, expired 1, malformed 8";

#[test]
fn every_row_of_the_older_table_is_imported_with_its_age_or_listed_with_the_reason() {
    let (_cluster, mut client) = database("older_table");
    fill(&mut client);
    run(&mut client, "SET default_transaction_read_only = on");
    let tried = report(&mut client, "CALL enrich_migrate_table('older', dry_run => true)");
    run(&mut client, "SET default_transaction_read_only = off");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 1, "a try stores nothing");
    let done = report(&mut client, "CALL enrich_migrate_table('older', batch_size => 2)");
    adds_up(&done);
    let sql = "SELECT format('%s: %s', path, reason) FROM enrichment_migration_problem ORDER BY path COLLATE \"C\"";
    let problems: Vec<String> = client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    assert_eq!(parts(&done), EXPECTED, "{problems:#?}");
    assert_eq!((parts(&tried), &tried["services"]), (EXPECTED.to_string(), &done["services"]));
    for words in [
        "2 rows have no service or no cache_key",
        "dshield/8.8.7.2: the row has no created_at",
        "dshield/8.8.7.3: the row has no cache_value",
        "dshield/8.8.7.4: the row has no created_at that is a moment",
        "dshield/8.8.8.3: the row holds an empty value",
        "dshield/no address: the row has a cache_key that",
        "greynoise/8.8.8.1: the row is of a service that is not registered",
    ] {
        assert!(problems.iter().any(|line| line.contains(words)), "{words} in {problems:#?}");
    }
    for (sql, expected) in [
        ("SELECT tags::text FROM enrichment_urlhaus WHERE cache_key = '8.8.8.1'", "{elf,mirai}"),
        ("SELECT response_status FROM enrichment_cache WHERE service = 'urlhaus' AND cache_key = '8.8.8.2'", "not_found"),
        ("SELECT response_status FROM enrichment_cache WHERE cache_key LIKE 'cdcd%'", "not_found"),
        ("SELECT infrastructure FROM enrichment_spur WHERE cache_key = '8.8.8.1'", "DATACENTER"),
        ("SELECT enrich_get('hibp', 'ABCDE')::text", r#"{"0123456789ABCDEF0123456789ABCDEF012": 7}"#),
        ("SELECT enrich_get('dshield', '8.8.7.1') -> 'ip' ->> 'number'", "newer"),
        ("SELECT (c.fetched_at = o.created_at AND c.expires_at - c.fetched_at > interval '6 days')::text FROM enrichment_cache c
            JOIN older o USING (service, cache_key) WHERE service = 'dshield' AND cache_key = '8.8.8.1'", "true"),
        ("SELECT format('%s %s %s', kind, directory, state) FROM enrichment_migration", "table public.older finished"),
    ] {
        assert_eq!(one::<String>(&mut client, sql), expected, "{sql}");
    }
    let again = report(&mut client, "CALL enrich_migrate_table('older', services => '{virustotal}')");
    assert_eq!(parts(&again), "files 2, duplicate 2", "the services that are named, and what they do not know");
}

#[test]
fn a_table_is_compared_and_taken_back_as_a_directory_is() {
    let (_cluster, mut client) = database("older_back");
    fill(&mut client);
    let before = cached(&mut client);
    report(&mut client, "CALL enrich_migrate_table('older')");
    run(
        &mut client,
        r#"UPDATE enrichment_cache SET payload = '{"ip": {}}' WHERE cache_key = '8.8.8.1' AND service = 'dshield'"#,
    );
    let sql = "SELECT format('%s %s %s', path, finding, files) FROM enrich_migration_verify(1) ORDER BY path NULLS FIRST, finding COLLATE \"C\"";
    let found: Vec<String> = client.query(sql, &[]).unwrap().iter().map(|row| row.get(0)).collect();
    let expected = [
        " differs 1",
        " expired 1",
        " malformed or unreadable 6",
        " newer in the cache 1",
        " same 6",
        "dshield/8.8.8.1 differs 1",
    ];
    assert_eq!(found, expected);
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(cached(&mut client), before);
}

#[test]
fn an_import_of_a_table_that_was_cancelled_goes_on_where_it_was() {
    let (cluster, mut client) = database("older_cancel");
    run(&mut client, OLDER);
    run(
        &mut client,
        r#"INSERT INTO older SELECT 'dshield', format('8.%s.%s.%s', n >> 16, (n >> 8) & 255, n & 255),
            format('{"ip":{"number":"%s","count":1}}', n)::json, now() - interval '1 hour', now() FROM generate_series(1, 20000) n"#,
    );
    let mut other = cluster.client("older_cancel");
    let call = std::thread::spawn(move || {
        let said = client.batch_execute("CALL enrich_migrate_table('older', batch_size => 20)");
        (client, said)
    });
    testbed::wait_until("two batches", crate::support::SOON, || {
        let sql = "SELECT coalesce(max(batches), 0) > 1 FROM enrichment_migration";
        crate::support::same(crate::support::ask::<bool>(&mut other, sql)?, &true)
    });
    run(
        &mut other,
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL enrich_migrate_table%'",
    );
    let (mut client, said) = call.join().expect("a thread");
    assert_eq!(said.expect_err("it was cancelled").code().map(|code| code.code()), Some("57014"));
    let stored: i64 = one(&mut other, "SELECT count(*) FROM enrichment_cache");
    assert!((1..20_000).contains(&stored), "{stored}");
    let done = report(&mut client, "CALL enrich_migrate_table('older')");
    assert_eq!(parts(&done), "files 20000, imported 20000", "one run, no row twice");
    assert_eq!(one::<i64>(&mut other, "SELECT count(*) FROM enrichment_migration"), 1);
}

/// A server that is killed in the middle of an import of rows, again and again: what was taken is taken once.
fn killed(name: &str, fill: &str, call: &str) {
    const ROWS: i64 = 1200;
    let cluster = own_cluster(name);
    let mut client = cluster.client("postgres");
    run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET enabled = false");
    run(&mut client, OLDER);
    run(&mut client, fill);
    run(
        &mut client,
        "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_catalog.pg_sleep(0.002); RETURN NEW; END';
        CREATE TRIGGER slowly BEFORE INSERT ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION slowly()",
    );
    for round in 1..=5 {
        let mut client = cluster.client("postgres");
        let sql = call.to_string();
        let importing = std::thread::spawn(move || client.batch_execute(&sql));
        let mut watch = cluster.client("postgres");
        testbed::wait_until("the middle of the import", SOON, || {
            let sql = "SELECT coalesce(max(files), 0) FROM enrichment_migration_progress WHERE state = 'running'";
            let files: i64 = one(&mut watch, sql);
            (files >= ROWS * round / 6).then_some(Some(())).ok_or_else(|| files.to_string())
        });
        cluster.kill_postmaster_9();
        importing.join().expect("a thread").expect_err("an import whose server is killed");
        cluster.start_again().unwrap_or_else(|why| panic!("round {round}: {why}"));
    }
    let mut client = cluster.client("postgres");
    let done = report(&mut client, call);
    adds_up(&done);
    assert_eq!(parts(&done), format!("files {ROWS}, imported {ROWS}"));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), ROWS);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration"), 1, "it went on as the same run");
}

#[test]
fn an_import_of_a_table_whose_server_is_killed_goes_on_where_it_was() {
    killed(
        "older_killed",
        r#"INSERT INTO older SELECT 'dshield', format('8.1.%s.%s', n >> 8, n & 255),
            format('{"ip":{"number":"%s","count":1}}', n)::json, now() - interval '1 hour', now() FROM generate_series(1, 1200) n"#,
        "CALL enrich_migrate_table('older', batch_size => 10)",
    );
}

#[test]
fn an_import_of_files_that_were_sent_goes_on_after_a_kill_too() {
    killed(
        "sent_killed",
        r#"INSERT INTO enrichment_import (path, mtime, body) SELECT format('dshield/8/1/%s/%s.json', n >> 8, n & 255),
            extract(epoch FROM now()) - 3600, encode(format('{"ip":{"number":"%s","count":1}}', n)::bytea, 'base64') FROM generate_series(1, 1200) n"#,
        "CALL enrich_migrate_sent(batch_size => 10)",
    );
}

#[test]
fn large_rows_and_rows_of_one_key_are_each_taken_once() {
    let (_cluster, mut client) = database("older_large");
    run(
        &mut client,
        r#"CREATE TABLE older (service text, cache_key text, cache_value jsonb, created_at timestamp);
        INSERT INTO older SELECT 'dshield', format('8.8.8.%s', n % 3), '{"ip":{"number":"x"}}', now()::timestamp(0) - n * interval '1 minute'
            FROM generate_series(1, 12) n;
        INSERT INTO older SELECT 'virustotal', encode(sha256(n::text::bytea), 'hex'),
            jsonb_build_object('data', jsonb_build_object('attributes', jsonb_build_object('a', repeat('x', 900000)))), now()::timestamp(0)
            FROM generate_series(1, 40) n"#,
    );
    let done = report(&mut client, "CALL enrich_migrate_table('older', batch_size => 2)");
    assert_eq!(parts(&done), "files 52, imported 43, duplicate 9");
    run(&mut client, "CALL enrich_migration_rollback(1)");
    assert_eq!(parts(&report(&mut client, "CALL enrich_migrate_table('older')")), "files 52, imported 43, duplicate 9");
    // 36 MB do not come in one batch; the last one is empty
    assert_eq!(one::<i64>(&mut client, "SELECT batches FROM enrichment_migration WHERE id = 2"), 4);
    let newest = "SELECT (o.newest = c.fetched_at)::text FROM enrichment_cache c, (SELECT max(created_at)::timestamptz AS newest FROM older
        WHERE cache_key = '8.8.8.1') o WHERE c.cache_key = '8.8.8.1'";
    assert_eq!(one::<String>(&mut client, newest), "true");
}

#[test]
fn a_table_is_read_with_the_rights_of_the_caller_and_a_wrong_one_is_refused_with_the_columns_wanted() {
    let (_cluster, mut client) = database("older_rights");
    run(&mut client, OLDER);
    older(&mut client, "dshield", "8.8.8.1", &dshield("8.8.8.1", 1), 1);
    run(
        &mut client,
        "CREATE ROLE older_admin; SELECT enrich_grant('older_admin', 'admin'); CREATE ROLE older_reader; SELECT enrich_grant('older_reader', 'reader');
        CREATE VIEW older_view AS SELECT * FROM older; CREATE TABLE wrong (service text, cache_key int, cache_value json)",
    );
    refused(&mut client, "CALL enrich_migrate_table('wrong')", "42703", "created_at");
    refused(&mut client, "CALL enrich_migrate_table('enrichment_cache')", "42703", "cache_value");
    refused(&mut client, "CALL enrich_migrate_table('older_view')", "42809", "cache_value");
    refused(&mut client, "CALL enrich_migrate_table(NULL)", "22023", "cache_value");
    refused(&mut client, "CALL enrich_migrate_table('older', batch_size => 0)", "22023", "rows");
    refused(&mut client, "CALL enrich_migrate_table('older', services => '{dsheild}')", "42704", "dshield");
    run(&mut client, "SET ROLE older_reader");
    refused(&mut client, "CALL enrich_migrate_table('older')", "42501", "");
    run(&mut client, "SET ROLE older_admin");
    refused(&mut client, "CALL enrich_migrate_table('older')", "42501", "");
    run(&mut client, "RESET ROLE; GRANT SELECT ON older TO older_admin; SET ROLE older_admin");
    assert_eq!(parts(&report(&mut client, "CALL enrich_migrate_table('older')")), "files 1, imported 1");
    run(&mut client, "RESET ROLE");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_migration"), 1, "who was refused left no run");
}
