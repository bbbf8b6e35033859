//! Tables whose answers go into columns: files and passwords.

use crate::sources_support::{load, rows, wait_quiet, SMALL};
use crate::support::{one, run, Base};
use sha1::{Digest, Sha1};
use testbed::honeypot::{Shape, COMMON_PASSWORDS};

#[test]
fn files_get_the_columns_virustotal_answers_for() {
    let base = Base::new("sources", "files");
    load(&base, &Shape::default(), &SMALL);
    let mut client = base.client();
    run(&mut client, "CREATE TABLE expected (shasum text, outcome text)");
    for hash in rows(&mut client, "SELECT DISTINCT shasum FROM files") {
        let outcome = base.sandbox.expect("virustotal", &hash)["outcome"].as_str().map(str::to_string);
        client.execute("INSERT INTO expected VALUES ($1, $2)", &[&hash, &outcome]).expect("a row");
    }
    for outcome in ["success", "not_found"] {
        let sql = format!("SELECT count(*) > 0 FROM expected WHERE outcome = '{outcome}'");
        assert!(one::<bool>(&mut client, &sql), "the data lacks a file that is {outcome}");
    }
    assert!(
        one::<bool>(&mut client, "SELECT count(*) > count(DISTINCT shasum) FROM files"),
        "no hash stands in two rows"
    );
    run(&mut client, "SELECT enrich_attach('files', 'shasum', '{virustotal}')");
    base.wait_for("SELECT count(*) FROM files WHERE enrichment_status = 'pending'", 0i64);
    wait_quiet(&base);
    let wrong = "SELECT coalesce(string_agg(to_jsonb(f)::text, E'\\n'), '') FROM files f JOIN expected e USING (shasum)
        LEFT JOIN enrichment_cache c ON c.service = 'virustotal' AND c.cache_key = f.shasum
        CROSS JOIN LATERAL (SELECT c.payload #> '{data,attributes}' AS a) a
        CROSS JOIN LATERAL (SELECT (a #>> '{last_analysis_stats,malicious}')::int AS malicious) m
        WHERE CASE e.outcome WHEN 'success' THEN (
            f.enrichment_status, f.vt_malicious, f.vt_positives, f.vt_total, f.vt_description, f.vt_classification,
            f.vt_first_seen, f.vt_last_analysis, f.vt_scan_date) IS DISTINCT FROM ('enriched', m.malicious > 0, m.malicious,
            (SELECT sum(s.value::int)::int FROM jsonb_each_text(a -> 'last_analysis_stats') s), a ->> 'type_description',
            left(a #>> '{popular_threat_classification,suggested_threat_label}', 128),
            to_timestamp((a ->> 'first_submission_date')::float8), to_timestamp((a ->> 'last_analysis_date')::float8),
            to_timestamp((a ->> 'last_analysis_date')::float8))
        ELSE (f.enrichment_status, f.vt_malicious, f.vt_positives, f.vt_total, f.vt_description, f.vt_scan_date)
            IS DISTINCT FROM ('not_found', false, NULL::int, NULL::int, NULL::text, NULL::timestamptz) END";
    assert_eq!(one::<String>(&mut client, wrong), "");
    assert!(one::<bool>(&mut client, "SELECT bool_or(vt_malicious) FROM files"), "no file is malicious");
}

/// What an answer does not say, or an answer that says nothing at all, leaves what stood in the columns before.
#[test]
fn columns_of_files_keep_what_an_answer_does_not_give() {
    let base = Base::new("tables", "files_kept");
    base.run(
        r#"UPDATE enrichment_service SET enabled = false;
        CREATE TABLE files (id serial, session_id varchar(64), shasum varchar(64), vt_classification text, vt_description text,
            vt_malicious bool NOT NULL DEFAULT false, vt_first_seen timestamptz, vt_last_analysis timestamptz, vt_positives int, vt_total int,
            vt_scan_date timestamptz, enrichment_status varchar(16) NOT NULL DEFAULT 'pending');
        INSERT INTO files (shasum, vt_classification, vt_description, vt_malicious, vt_first_seen, vt_positives, vt_total, enrichment_status)
            SELECT repeat(x, 64), 'worm', 'ELF', true, '2025-01-01 UTC', 7, 60, 'failed' FROM unnest('{a,b,c}'::text[]) x;
        SELECT enrich_store('virustotal', repeat('a', 64), '{"data": {"attributes": {"last_analysis_stats": {"malicious": 3, "harmless": 9}}}}'),
            enrich_store('virustotal', repeat('b', 64), NULL, response_status => 'not_found');
        SELECT enrich_attach('files', 'shasum', '{virustotal}')"#,
    );
    base.wait_for("SELECT count(*) FROM files WHERE enrichment_status IN ('enriched', 'not_found')", 2i64);
    wait_quiet(&base);
    let row = |letter: char| -> String {
        base.one(&format!(
            "SELECT concat_ws(' ', vt_classification, vt_description, vt_malicious, vt_first_seen = '2025-01-01 UTC', vt_positives, vt_total,
                vt_scan_date, enrichment_status) FROM files WHERE shasum = repeat('{letter}', 64)"
        ))
    };
    assert_eq!(row('a'), "worm ELF t t 3 12 enriched");
    assert_eq!(row('b'), "worm ELF t t 7 60 not_found");
    assert_eq!(row('c'), "worm ELF t t 7 60 failed", "nothing is known of it");
}

#[test]
fn passwords_get_what_hibp_knows_of_them_and_only_their_prefix_leaves() {
    let base = Base::new("sources", "passwords");
    load(&base, &Shape::default(), &SMALL);
    let mut client = base.client();
    let passwords = rows(&mut client, "SELECT password_text FROM password_tracking");
    let digest = |password: &String| -> String {
        Sha1::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
    };
    run(&mut client, "CREATE TABLE expected (password text, seen bigint, prefix text)");
    for password in &passwords {
        let digest = digest(password);
        let seen = base.sandbox.expect("hibp", &digest)["prevalence"].as_i64();
        client.execute("INSERT INTO expected VALUES ($1, $2, $3)", &[password, &seen, &&digest[..5]]).expect("a row");
    }
    let known: i64 = one(&mut client, "SELECT count(*) FROM expected WHERE seen > 0");
    assert!(known >= COMMON_PASSWORDS.len() as i64 && known < passwords.len() as i64, "{known} of {}", passwords.len());
    run(&mut client, "SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')");
    base.wait_for("SELECT count(*) FROM password_tracking WHERE last_hibp_check IS NULL", 0i64);
    wait_quiet(&base);
    let wrong = "SELECT coalesce(string_agg(password_text, ' '), '') FROM password_tracking t
        JOIN expected e ON e.password = t.password_text
        JOIN enrichment_cache c ON c.service = 'hibp' AND c.cache_key = e.prefix
        WHERE (breached, breach_prevalence, last_hibp_check) IS DISTINCT FROM (seen > 0, least(seen, 2147483647)::int, c.fetched_at)";
    assert_eq!(one::<String>(&mut client, wrong), "");
    assert!(base.sandbox.stats()["hibp"]["by_key"].as_object().expect("keys").keys().all(|key| key.len() == 5));
    let kept = "SELECT count(*) FROM enrichment_indicator i JOIN expected e ON i.raw_key = e.password AND e.password <> e.prefix";
    assert_eq!(one::<i64>(&mut client, kept), 0, "a password stands in the extension's tables");
}

#[test]
fn passwords_are_judged_from_ranges_that_stand_there_as_plain_objects_too() {
    let base = Base::new("sources", "plain_ranges");
    base.run(
        "CREATE TABLE password_tracking (password_text text, breached bool, breach_prevalence int);
        INSERT INTO password_tracking VALUES ('one'), ('two'), ('three');
        INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
        SELECT 'hibp', enrich_hibp_prefix(p), jsonb_build_object(enrich_hibp_suffix(p), seen, repeat('A', 35), others), now() + interval '1 day'
        FROM (VALUES ('one', 7, 0), ('two', 0, 3)) v (p, seen, others);
        SELECT enrich_store('hibp', enrich_hibp_prefix('three'), jsonb_build_object(enrich_hibp_suffix('three'), 9));
        SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')",
    );
    let written = "SELECT string_agg(concat_ws(' ', password_text, breached, breach_prevalence), ', '
        ORDER BY password_text) FROM password_tracking";
    base.wait_for(written, "one t 7, three t 9, two f 0".to_string());
    assert_eq!(base.asked("hibp"), 0);
}

#[test]
fn ranges_are_written_into_json_columns_as_objects() {
    let base = Base::new("sources", "range_objects");
    base.run(
        "INSERT INTO enrichment_service (name, key_kind, url, response_format)
        SELECT 'mirror', key_kind, url, response_format FROM enrichment_service WHERE name = 'hibp';
        CREATE TABLE prefixes (prefix text PRIMARY KEY, enrichment jsonb);
        INSERT INTO prefixes VALUES ('5baa6'), ('00000');
        SELECT enrich_attach('prefixes', 'prefix', '{mirror}', 'enrichment')",
    );
    let written = "SELECT count(*) FROM prefixes p JOIN enrichment_cache c ON c.cache_key = upper(p.prefix)
        WHERE p.enrichment -> 'mirror' = enrich_get('mirror', p.prefix)
          AND (SELECT count(*) FROM jsonb_object_keys(p.enrichment -> 'mirror')) = octet_length(c.ranges) / 22";
    base.wait_for(written, 2i64);
}
