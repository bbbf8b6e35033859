//! Tables of passwords: what HIBP says of each, what it does not say, and where no hash may be.

mod load;

use crate::sources_support::wait_quiet;
use crate::support::{one, refused, run, same, Base, SOON};
use sha1::{Digest, Sha1};
use testbed::wait_until;

const TABLES: &str = "CREATE TABLE password_tracking (id int PRIMARY KEY, password_hash varchar(64) UNIQUE, password_text text, breached bool,
        breach_prevalence int, last_hibp_check timestamptz, first_seen timestamptz DEFAULT now(), last_seen timestamptz DEFAULT now(),
        times_seen int DEFAULT 1, unique_sessions int DEFAULT 1);
    CREATE TABLE password_session_usage (id int GENERATED ALWAYS AS IDENTITY, password_id int, session_id varchar(64), username varchar(256),
        success bool, timestamp timestamptz);
    CREATE TABLE session_summaries (session_id varchar(64) PRIMARY KEY, source_ip varchar(45), enrichment json)";
const ATTACH: &str = "SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')";

fn base(name: &str) -> Base {
    let base = Base::new("passwords", name);
    base.run(TABLES);
    base
}

/// Rows with the ids 1, 2, ... for these passwords.
fn insert(base: &Base, passwords: &[&str]) {
    let sql = "INSERT INTO password_tracking (id, password_hash, password_text)
        SELECT n, encode(sha256(p::bytea), 'hex'), p FROM unnest($1::text[]) WITH ORDINALITY AS u (p, n)";
    base.client().execute(sql, &[&passwords]).expect("rows");
}

fn sha1_hex(password: &str) -> String {
    Sha1::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
}

fn shown(base: &Base) -> String {
    base.one("SELECT string_agg(concat_ws(':', id, coalesce(breached::text, '-'), coalesce(breach_prevalence::text, '-')), ' ' ORDER BY id) FROM password_tracking")
}

#[test]
fn a_change_of_prevalence_is_written_where_breached_stays_the_same() {
    let base = base("prevalence");
    insert(&base, &["password", "surely novel"]);
    base.run(ATTACH);
    base.run("CALL enrich_refresh()");
    let seen: i64 = base.one("SELECT breach_prevalence::int8 FROM password_tracking WHERE id = 1");
    assert!(seen > 1);
    base.run(&format!(
        "SELECT enrich_store('hibp', enrich_hibp_prefix('password'), jsonb_build_object(enrich_hibp_suffix('password'), {}))",
        seen + 5
    ));
    // a store by hand tells nobody; a row that changes does
    base.run("UPDATE enrichment_indicator SET dirty = true; SELECT enrich_wake()");
    base.wait_for("SELECT breach_prevalence::int8 FROM password_tracking WHERE id = 1", seen + 5);
    assert!(base.one::<bool>("SELECT breached FROM password_tracking WHERE id = 1"));
}

#[test]
fn a_range_of_nothing_but_padding_says_nothing_of_a_password() {
    let base = base("padding");
    insert(&base, &["password", "surely novel"]);
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'");
    for (password, range) in [("password", "'{}'"), ("surely novel", "jsonb_build_object(repeat('A', 35), 0)")] {
        base.run(&format!("SELECT enrich_store('hibp', enrich_hibp_prefix('{password}'), {range})"));
    }
    base.run(ATTACH);
    wait_quiet(&base);
    assert_eq!(shown(&base), "1:-:- 2:-:-");
    assert_eq!(base.one::<i64>("SELECT count(last_hibp_check) FROM password_tracking"), 0);
    // with a row of somebody else's it is an answer
    base.run(
        "SELECT enrich_store('hibp', enrich_hibp_prefix('surely novel'), jsonb_build_object(repeat('A', 35), 3));
        UPDATE enrichment_indicator SET dirty = true; SELECT enrich_wake()",
    );
    base.wait_for("SELECT breached FROM password_tracking WHERE id = 2", Some(false));
    assert_eq!(shown(&base), "1:-:- 2:false:0");
}

#[test]
fn many_prefixes_are_written_with_one_look_at_the_table() {
    let base = base("many");
    base.run("INSERT INTO password_tracking (id, password_hash, password_text) SELECT i, 'h' || i, 'word ' || i FROM generate_series(1, 3000) i");
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'");
    base.run("DO $$ DECLARE keys text[]; BEGIN
        SELECT array_agg(DISTINCT enrich_hibp_prefix('word ' || i)) INTO keys FROM generate_series(1, 3000) i;
        PERFORM enrich_store_many('hibp', keys, array_fill(jsonb_build_object(repeat('A', 35), 3), ARRAY[cardinality(keys)]));
        END $$");
    base.run(ATTACH);
    wait_quiet(&base);
    // 3,000 keys at 100 a batch would be 30 scans of it
    let scans: i64 = base.one("SELECT seq_scan::int8 FROM pg_stat_user_tables WHERE relname = 'password_tracking'");
    assert!(scans <= 12, "{scans} scans of the table");
    assert_eq!(
        base.one::<i64>("SELECT count(*) FROM password_tracking WHERE NOT breached AND last_hibp_check IS NOT NULL"),
        3000
    );
}

#[test]
fn no_whole_hash_is_in_any_table_of_ours_or_in_the_log() {
    let base = base("no_hash");
    // all that the server and the worker can be made to say
    base.run(&format!("ALTER DATABASE {} SET log_min_messages = 'debug5'", base.name));
    let worker = base.worker();
    base.run(&format!("SELECT pg_terminate_backend({worker})"));
    wait_until("another worker", SOON, || same(base.worker() == worker, &false));
    let passwords = ["correct horse battery staple", "password"];
    insert(&base, &passwords);
    base.run(ATTACH);
    base.run("CALL enrich_refresh()");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM password_tracking WHERE last_hibp_check IS NOT NULL"), 2);
    // failures are logged and kept too
    base.sandbox.fault(serde_json::json!({ "service": "hibp", "kind": "status", "status": 503 }));
    base.run("INSERT INTO password_tracking (id, password_text) VALUES (9, 'another one')");
    base.run("SELECT * FROM enrich_password('and one more')");
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts > 0", 2i64);
    let mut client = base.client();
    let tables: Vec<String> = client
        .query(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
             JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'enrichment_cache' WHERE c.relkind = 'r'",
            &[],
        )
        .expect("tables")
        .iter()
        .map(|row| row.get(0))
        .collect();
    assert!(tables.len() >= 12, "{tables:?}");
    let log = base.cluster.log();
    let debug = format!("[{}]", base.worker());
    assert!(
        log.lines().any(|line| line.contains(&debug) && line.contains("DEBUG:")),
        "the worker says nothing at that level"
    );
    for password in passwords.iter().chain(&["another one", "and one more"]) {
        let hash = sha1_hex(password);
        for table in &tables {
            // a range holds the suffixes of all, so the whole hash and the password itself are looked for
            let sql = format!(
                "SELECT count(*) FROM {table} t WHERE t::text ILIKE '%{password}%' AND '{password}' <> 'password' OR t::text ILIKE '%{hash}%'"
            );
            assert_eq!(one::<i64>(&mut client, &sql), 0, "{table} holds {password} or its hash");
        }
        // also without the five digits that are sent
        assert!(!log.to_uppercase().contains(&hash[5..]), "the log holds a hash");
    }
    let asked = base.sandbox.stats()["hibp"]["by_key"].clone();
    let asked: Vec<&String> = asked.as_object().expect("keys").keys().collect();
    assert!(asked.len() >= 3 && asked.iter().all(|key| key.len() == 5), "{asked:?}");
}

#[test]
fn sessions_say_what_is_known_of_their_passwords_and_keep_what_others_wrote() {
    let base = base("stats");
    insert(&base, &["password", "surely novel", "never checked"]);
    base.run(
        r#"UPDATE password_tracking SET breached = id = 1, breach_prevalence = CASE id WHEN 1 THEN 7 ELSE 0 END, last_hibp_check = now() WHERE id < 3;
        INSERT INTO session_summaries VALUES ('a', '8.8.8.8', '{"dshield": {"ip": {"count": 3}}, "note": "\u0000"}'), ('b', NULL, NULL), ('c', NULL, '[1]'), ('d', NULL, '{}');
        INSERT INTO password_session_usage (password_id, session_id, username, success, timestamp) VALUES
            (1, 'a', 'root', false, '2026-01-01 00:00:00+00'), (2, 'a', 'root', true, '2026-01-01 00:00:01+00'), (1, 'a', NULL, false, '2026-01-01 00:00:02+00'),
            (3, 'b', 'pi', false, '2026-01-02 00:00:00+00'), (1, 'c', 'x', false, '2026-01-02 00:00:00+00')"#,
    );
    base.run("CALL enrich_password_stats(batch_size => 1)");
    let mut client = base.client();
    let (sha_1, sha_2, sha_3): (String, String, String) = {
        let sha =
            |id| one(&mut base.client(), &format!("SELECT password_hash::text FROM password_tracking WHERE id = {id}"));
        (sha(1), sha(2), sha(3))
    };
    let expected = format!(
        r#"{{"total_attempts": 3, "unique_passwords": 2, "breached_passwords": 1, "breach_prevalence_max": 7, "novel_password_hashes": ["{sha_2}"],
        "password_details": [
            {{"username": "root", "password_sha256": "{sha_1}", "breached": true, "prevalence": 7, "success": false, "timestamp": "2026-01-01T00:00:00+00:00"}},
            {{"username": "root", "password_sha256": "{sha_2}", "breached": false, "prevalence": 0, "success": true, "timestamp": "2026-01-01T00:00:01+00:00"}},
            {{"username": null, "password_sha256": "{sha_1}", "breached": true, "prevalence": 7, "success": false, "timestamp": "2026-01-01T00:00:02+00:00"}}]}}"#
    );
    let merged = format!("SELECT (enrichment::jsonb -> 'password_stats') = '{expected}' AND enrichment::jsonb #>> '{{dshield,ip,count}}' = '3' FROM session_summaries WHERE session_id = 'a'");
    assert!(
        one::<bool>(&mut client, &merged),
        "{}",
        one::<String>(&mut client, "SELECT enrichment::text FROM session_summaries WHERE session_id = 'a'")
    );
    // what was never checked is neither breached nor novel
    let unknown = format!(
        r#"SELECT (enrichment::jsonb -> 'password_stats') = '{{"total_attempts": 1, "unique_passwords": 1, "breached_passwords": 0, "breach_prevalence_max": 0,
        "novel_password_hashes": [], "password_details": [{{"username": "pi", "password_sha256": "{sha_3}", "breached": null, "prevalence": null,
        "success": false, "timestamp": "2026-01-02T00:00:00+00:00"}}]}}' FROM session_summaries WHERE session_id = 'b'"#
    );
    assert!(
        one::<bool>(&mut client, &unknown),
        "{}",
        one::<String>(&mut client, "SELECT enrichment::text FROM session_summaries WHERE session_id = 'b'")
    );
    let others = "SELECT string_agg(enrichment::text, ' ' ORDER BY session_id) FROM session_summaries WHERE session_id IN ('c', 'd')";
    assert_eq!(one::<String>(&mut client, others), "[1] {}");
    // again: nothing changes, so nothing is written
    let rows = "SELECT string_agg(xmin::text, ' ' ORDER BY session_id) FROM session_summaries";
    let written: String = one(&mut client, rows);
    run(&mut client, "CALL enrich_password_stats()");
    assert_eq!(one::<String>(&mut client, rows), written);
}

#[test]
fn top_new_and_old_passwords_are_found_and_old_ones_go() {
    let base = base("lists");
    insert(&base, &["root", "admin", "old", "new"]);
    base.run(
        "UPDATE password_tracking SET first_seen = now() - interval '300 days', last_seen = now() - CASE id WHEN 3 THEN interval '200 days' ELSE interval '1 day' END WHERE id <> 4;
        UPDATE password_tracking SET breached = true, breach_prevalence = 9, last_hibp_check = now() WHERE id = 1;
        UPDATE password_tracking SET breached = false WHERE id = 2;
        INSERT INTO password_session_usage (password_id, session_id, timestamp)
            SELECT p, 's' || i % 2, now() - a FROM (VALUES (1, 2, interval '1 day'), (2, 4, '1 day'), (3, 9, '200 days'), (1, 30, '60 days')) v (p, n, a), generate_series(1, v.n) i",
    );
    let mut client = base.client();
    let list = |client: &mut postgres::Client, call: &str| -> String {
        one(client, &format!("SELECT coalesce(string_agg(concat_ws(' ', password_text, attempts, sessions, breached, prevalence), ', '), '') FROM {call}"))
    };
    assert_eq!(list(&mut client, "enrich_top_passwords()"), "admin 4 2, root 2 2 t 9");
    assert_eq!(list(&mut client, "enrich_top_passwords(days => NULL, max_rows => 2)"), "root 32 2 t 9, old 9 2");
    assert_eq!(list(&mut client, "enrich_new_passwords()"), "new 1 1");
    assert_eq!(list(&mut client, "enrich_new_passwords(now() - interval '1 year', 2)"), "new 1 1, root 1 1 t 9");
    let pruned = "SELECT pruned || ' ' || pruned_uses FROM enrich_prune_passwords(";
    assert_eq!(one::<String>(&mut client, &format!("{pruned}dry_run => true)")), "1 9");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM password_tracking"), 4);
    assert_eq!(one::<String>(&mut client, &format!("{pruned})")), "1 9");
    assert_eq!(one::<String>(&mut client, &format!("{pruned})")), "0 0");
    let left = "SELECT string_agg(password_text, ' ' ORDER BY id) || ' ' || (SELECT count(*) FROM password_session_usage) FROM password_tracking";
    assert_eq!(one::<String>(&mut client, left), "root admin new 36");
    refused(&mut client, "SELECT enrich_prune_passwords('-1 day')", "22023", "180 days");
    refused(
        &mut client,
        "SELECT * FROM enrich_top_passwords(passwords => 'session_summaries')",
        "42703",
        "password_tracking",
    );
    run(&mut client, "SET search_path = pg_catalog");
    refused(&mut client, "SELECT * FROM public.enrich_top_passwords()", "42P01", "Name it");
}
