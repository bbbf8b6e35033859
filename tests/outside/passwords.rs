//! Tables of passwords: what HIBP says of each, what it does not say, and where no hash may be.

use crate::sources_support::wait_quiet;
use crate::support::{one, refused, run, Base};
use sha1::{Digest, Sha1};
use std::path::{Path, PathBuf};

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
    for password in passwords.iter().chain(&["another one", "and one more"]) {
        let hash = sha1_hex(password);
        for table in &tables {
            // a range holds the suffixes of all, so the whole hash and the password itself are looked for
            let sql = format!(
                "SELECT count(*) FROM {table} t WHERE t::text ILIKE '%{password}%' AND '{password}' <> 'password' OR t::text ILIKE '%{hash}%'"
            );
            assert_eq!(one::<i64>(&mut client, &sql), 0, "{table} holds {password} or its hash");
        }
        assert!(!log.to_uppercase().contains(&hash), "the log holds a hash");
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

/// A directory the server can read, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let place = std::env::temp_dir().join(format!("enrichment-hibp-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place).expect("a directory");
        Place(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// 400 rows of a range, one of them this password's.
fn rows_of(prefix: &str, password: &str, count: u32) -> Vec<(String, u32)> {
    let mut rows: Vec<(String, u32)> =
        (0..400u32).map(|n| (format!("{:040X}", u128::from(n) * 7919)[5..].to_string(), n + 1)).collect();
    let hash = sha1_hex(password);
    if hash.starts_with(prefix) {
        rows.push((hash[5..].to_string(), count));
    }
    rows.sort();
    rows
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("a file");
}

#[test]
fn a_downloaded_corpus_answers_without_a_call() {
    let base = base("corpus");
    let place = Place::new("corpus");
    insert(&base, &["password", "surely novel", "in no range"]);
    let (known, novel) = (sha1_hex("password")[..5].to_string(), sha1_hex("surely novel")[..5].to_string());
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'");
    base.run(ATTACH);
    wait_quiet(&base);
    base.run(&format!(
        "INSERT INTO enrichment_queue (service, cache_key) VALUES ('hibp', '{known}'), ('hibp', '00000')"
    ));
    // the single file, with padding, a spoiled range and CRLF
    let mut ranges: Vec<String> = vec![known.clone(), novel.clone(), "00010".into(), "FFFFF".into()];
    ranges.sort();
    let text: String = ranges
        .iter()
        .flat_map(|prefix| {
            rows_of(prefix, "password", 77)
                .into_iter()
                .map(move |(suffix, count)| format!("{prefix}{suffix}:{count}\r\n"))
        })
        .collect();
    let spoiled = format!("00010{}:x\r\n", "B".repeat(35));
    let padding = format!("{novel}{}:0\r\n", "F".repeat(35));
    let at = text.find(&format!("{novel}0")).expect("the range");
    let file = place.path("pwned-passwords-sha1-ordered-by-hash.txt");
    write(&file, &format!("{spoiled}{}{padding}{}", &text[..at], &text[at..]));
    let mut client = base.client();
    let load = format!("CALL enrich_hibp_load('{}', fetched_at => now() - interval '2 days')", file.display());
    run(&mut client, &load);
    base.wait_for("SELECT count(last_hibp_check) FROM password_tracking", 2i64);
    assert_eq!(shown(&base), "1:true:77 2:false:0 3:-:-");
    assert_eq!(base.asked("hibp"), 0, "HIBP was asked");
    let kept = "SELECT string_agg(concat_ws(' ', cache_key, octet_length(ranges) / 22, payload ->> 'suffixes'), ', ' ORDER BY cache_key) FROM enrichment_cache";
    let mut expected: Vec<String> = [(&known, 401), (&novel, 400), (&"FFFFF".to_string(), 400)]
        .iter()
        .map(|(prefix, n)| format!("{prefix} {n} {n}"))
        .collect();
    expected.sort();
    assert_eq!(one::<String>(&mut client, kept), expected.join(", "));
    assert!(one::<bool>(&mut client, "SELECT bool_and(fetched_at::date = (now() - interval '2 days')::date AND expires_at > now() + interval '340 days') FROM enrichment_cache"));
    assert_eq!(one::<String>(&mut client, "SELECT string_agg(cache_key, ' ') FROM enrichment_queue"), "00000");
    let told = "SELECT concat_ws(' ', ranges, hashes, padding, left_out, problems[1], finished_at IS NOT NULL) FROM enrichment_hibp_load";
    assert_eq!(one::<String>(&mut client, told), "3 1201 1 1 00010: a line is not HASH:COUNT t");
    // an older corpus replaces nothing, a newer one does
    run(&mut client, &load.replace("2 days", "9 days"));
    assert!(one::<bool>(&mut client, "SELECT bool_and(fetched_at > now() - interval '3 days') FROM enrichment_cache"));

    // the same as a directory of ranges, whose files say when they are of
    let directory = place.path("ranges");
    std::fs::create_dir(&directory).expect("a directory");
    let body: String =
        rows_of(&known, "password", 99).iter().map(|(suffix, count)| format!("{suffix}:{count}\n")).collect();
    write(&directory.join(format!("{known}.txt")), &body);
    write(&directory.join("0ABCD.txt"), "<html>502 Bad Gateway</html>");
    run(&mut client, &format!("CALL enrich_hibp_load('{}')", directory.display()));
    base.wait_for("SELECT breach_prevalence FROM password_tracking WHERE id = 1", Some(99));
    let told = "SELECT concat_ws(' ', ranges, left_out, problems[1]) FROM enrichment_hibp_load WHERE directory";
    assert_eq!(one::<String>(&mut client, told), "1 1 0ABCD: a page in place of a hash range");
    assert_eq!(base.asked("hibp"), 0, "HIBP was asked");
}

#[test]
fn a_load_that_was_cancelled_goes_on_where_it_ended() {
    let base = base("resumed");
    let place = Place::new("resumed");
    let file = place.path("corpus.txt");
    // 1,200 ranges of some 18 kB are more than one step reads
    let text: String = (0..1200u32)
        .map(|n| if n == 1199 { 0xFFFFF } else { n })
        .flat_map(|n| rows_of("", "", 0).into_iter().map(move |(suffix, count)| format!("{n:05X}{suffix}:{count}\n")))
        .collect();
    write(&file, &text);
    let mut client = base.client();
    let path = file.display();
    // one step and no more, as of a call that was cancelled after it
    run(&mut client, &format!("SELECT enrichment_hibp_load_next('{path}', NULL, NULL, false)"));
    let first: i64 = one(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NULL");
    assert!(first > 0 && first < 1200, "{first}");
    run(&mut client, "UPDATE enrichment_cache SET hit_count = 7");
    run(&mut client, &format!("CALL enrich_hibp_load('{path}')"));
    assert_eq!(one::<i64>(&mut client, "SELECT ranges FROM enrichment_hibp_load WHERE finished_at IS NOT NULL"), 1200);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 1200);
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache WHERE version > 1"),
        0,
        "read from the beginning"
    );
    // another file under the same path is another corpus
    write(&file, &text[..text.len() / 3]);
    run(&mut client, &format!("CALL enrich_hibp_load('{path}')"));
    let told: String = one(&mut client, "SELECT left_out || problems[1] FROM enrichment_hibp_load");
    assert!(told.starts_with('1') && told.ends_with("the file ends here, so this range may not be whole"), "{told}");
}

#[test]
fn only_who_may_read_files_of_the_server_loads_a_corpus() {
    let base = base("rights");
    let mut client = base.client();
    run(&mut client, "CREATE ROLE passwords_loader; SELECT enrich_grant('passwords_loader', 'admin')");
    run(&mut client, "SET SESSION AUTHORIZATION passwords_loader");
    refused(&mut client, "CALL enrich_hibp_load('/etc/passwd')", "42501", "pg_read_server_files");
    run(&mut client, "RESET SESSION AUTHORIZATION; GRANT pg_read_server_files TO passwords_loader; SET SESSION AUTHORIZATION passwords_loader");
    let said = refused(&mut client, "CALL enrich_hibp_load('/etc/passwd')", "22P04", "HASH:COUNT");
    assert!(!said.contains("root:"), "{said}");
    refused(&mut client, "CALL enrich_hibp_load('/nowhere/at/all')", "58P01", "HASH:COUNT");
    refused(&mut client, "CALL enrich_hibp_load('etc/passwd')", "22023", "slash");
    refused(&mut client, "CALL enrich_hibp_load(NULL)", "22023", "path");
    run(&mut client, "RESET SESSION AUTHORIZATION; DROP OWNED BY passwords_loader; DROP ROLE passwords_loader");
}
