//! A row that gets another key gets what is known of that, and keeps nothing of the one it had. No sweep comes to help here.

use crate::sources_support::{make_sessions, wait_quiet, ATTACH_SESSIONS};
use crate::support::{let_the_worker_look, Base};
use serde_json::json;

const ALL: &str = "SELECT count(*) FROM session_summaries WHERE enrichment -> '_meta' ?& '{dshield,urlhaus,spur}'";
/// Rows whose answers are not those to their address.
const STRAY: &str = "SELECT count(*) FROM session_summaries s CROSS JOIN LATERAL jsonb_each(s.enrichment) m
    LEFT JOIN enrichment_cache c ON c.service = m.key AND c.cache_key = s.source_ip
    WHERE m.key IN ('dshield', 'urlhaus', 'spur') AND m.value IS DISTINCT FROM c.payload
       OR m.key = '_meta' AND EXISTS (SELECT FROM jsonb_object_keys(m.value) k WHERE NOT EXISTS (SELECT FROM enrichment_cache a
            WHERE a.service = k AND a.cache_key = s.source_ip AND a.response_status IN ('success', 'not_found')))";

fn filled(name: &str, keys: usize) -> (Base, Vec<String>) {
    let base = Base::new("sources", name);
    let keys = base.known("dshield", keys);
    make_sessions(&base, "jsonb", &keys);
    base.run(ATTACH_SESSIONS);
    base.wait_for(ALL, keys.len() as i64);
    wait_quiet(&base);
    assert_eq!(base.one::<i64>(STRAY), 0);
    (base, keys)
}

fn of(session: &str, what: &str) -> String {
    format!("SELECT ({what})::text FROM session_summaries WHERE session_id = '{session}'")
}

#[test]
fn rows_that_swap_their_addresses_swap_their_answers() {
    let (base, keys) = filled("swapped", 2);
    base.run(&format!(
        "UPDATE session_summaries SET source_ip = CASE source_ip WHEN '{}' THEN '{}' ELSE '{0}' END",
        keys[0], keys[1]
    ));
    base.wait_for(&of("s1", "enrichment #>> '{dshield,ip,number}'"), keys[1].clone());
    base.wait_for(&of("s2", "enrichment #>> '{dshield,ip,number}'"), keys[0].clone());
    wait_quiet(&base);
    assert_eq!((base.one::<i64>(ALL), base.one::<i64>(STRAY)), (2, 0));
}

#[test]
fn an_upsert_that_brings_a_key_to_another_row_that_had_none_of_it_is_noticed() {
    let (base, keys) = filled("upserted", 3);
    // s1 keeps its address, s2 gets that of s1
    base.run(&format!(
        "INSERT INTO session_summaries (session_id, source_ip) VALUES ('s1', '{0}'), ('s2', '{0}')
        ON CONFLICT (session_id) DO UPDATE SET source_ip = EXCLUDED.source_ip",
        keys[0]
    ));
    base.wait_for(&of("s2", "enrichment #>> '{dshield,ip,number}'"), keys[0].clone());
    // the same by MERGE, which also inserts
    base.run(&format!(
        "MERGE INTO session_summaries s USING (VALUES ('s2', '{0}'), ('s3', '{0}'), ('s4', '{1}')) n (id, ip) ON s.session_id = n.id
        WHEN MATCHED THEN UPDATE SET source_ip = n.ip
        WHEN NOT MATCHED THEN INSERT (session_id, source_ip) VALUES (n.id, n.ip)",
        keys[0], keys[2]
    ));
    base.wait_for(&of("s3", "enrichment #>> '{dshield,ip,number}'"), keys[0].clone());
    base.wait_for(&of("s4", "enrichment #>> '{dshield,ip,number}'"), keys[2].clone());
    wait_quiet(&base);
    assert_eq!((base.one::<i64>(ALL), base.one::<i64>(STRAY)), (4, 0));
}

#[test]
fn rows_that_change_partition_and_key_at_once_are_told_apart() {
    let base = Base::new("sources", "moved_parts");
    let keys = base.known("dshield", 2);
    base.run(&format!(
        "CREATE TABLE visits (id int, day int, ip inet, answers jsonb) PARTITION BY LIST (day);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES IN (1);
         CREATE TABLE visits_2 PARTITION OF visits FOR VALUES IN (2);
         INSERT INTO visits VALUES (1, 1, '{0}'), (2, 2, '{1}'), (3, 1, '{1}'), (4, 2, '{0}');
         SELECT enrich_attach('visits', 'ip', '{{dshield}}', 'answers')",
        keys[0], keys[1]
    ));
    let right = "SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip,number}' = host(ip)";
    base.wait_for(right, 4i64);
    wait_quiet(&base);
    // rows 1 and 4 go to the other partition and change their address, 2 and 3 only the latter
    base.run(&format!(
        "UPDATE visits SET ip = CASE ip WHEN '{0}' THEN inet '{1}' ELSE '{0}' END, day = CASE WHEN id IN (1, 4) THEN 3 - day ELSE day END",
        keys[0], keys[1]
    ));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM visits_1 WHERE id IN (3, 4)"), 2);
    base.wait_for(right, 4i64);
    wait_quiet(&base);
    // a trigger of the other partition keeps some out, so that nobody can say which row became which
    base.run(
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
         CREATE TRIGGER keep_out BEFORE INSERT ON visits_2 FOR EACH ROW EXECUTE FUNCTION keep_out()",
    );
    base.run(&format!(
        "UPDATE visits SET ip = CASE ip WHEN '{0}' THEN inet '{1}' ELSE '{0}' END, day = CASE WHEN id = 3 THEN 2 ELSE day END",
        keys[0], keys[1]
    ));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM visits"), 3);
    base.wait_for(right, 3i64);
}

#[test]
fn a_row_whose_key_is_never_asked_about_any_more_keeps_only_what_others_wrote() {
    let (base, keys) = filled("closed", 4);
    base.run(
        "UPDATE session_summaries SET enrichment = enrichment || '{\"password_stats\": {\"total_attempts\": 3}}',
            dshield_flagged = true, vt_flagged = true",
    );
    let bare = "enrichment = '{\"password_stats\": {\"total_attempts\": 3}}' AND NOT dshield_flagged AND vt_flagged AND enrichment_at IS NULL";
    for (session, value) in [("s1", "'10.0.0.1'"), ("s2", "NULL"), ("s3", "''")] {
        base.run(&format!("UPDATE session_summaries SET source_ip = {value} WHERE session_id = '{session}'"));
        base.wait_for(&of(session, bare), "true".to_string());
    }
    wait_quiet(&base);
    assert_eq!(base.one::<String>(&of("s4", "enrichment #>> '{dshield,ip,number}'")), keys[3]);
    // many at once: in transactions of the interval
    base.run(
        "INSERT INTO session_summaries (session_id, source_ip, enrichment) SELECT 'many' || n, source_ip, enrichment
            FROM session_summaries, generate_series(1, 1200) n WHERE session_id = 's4';
         UPDATE session_summaries SET source_ip = NULL WHERE session_id LIKE 'many%'",
    );
    base.wait_for("SELECT count(*) FROM session_summaries WHERE source_ip IS NULL AND enrichment ? '_meta'", 0i64);
    wait_quiet(&base);
    // what is no key's and not ours is left alone
    base.run("UPDATE session_summaries SET enrichment = '{\"dshield\": 1}', dshield_flagged = true, source_ip = '10.0.0.2' WHERE session_id = 's4'");
    let_the_worker_look(&base);
    wait_quiet(&base);
    assert_eq!(base.one::<String>(&of("s4", "enrichment = '{\"dshield\": 1}' AND dshield_flagged")), "true");
}

#[test]
fn a_row_whose_new_key_a_service_fails_for_has_only_the_answers_of_the_others() {
    let (base, keys) = filled("failing_key", 2);
    let next = base.known("dshield", 3).pop().expect("an address");
    base.run("UPDATE session_summaries SET dshield_flagged = true");
    base.sandbox.fault(json!({"service": "dshield", "key": next, "kind": "status", "status": 503}));
    base.run(&format!("UPDATE session_summaries SET source_ip = '{next}' WHERE session_id = 's1'"));
    base.wait_for(
        &of("s1", "enrichment -> '_meta' ?& '{urlhaus,spur}' AND NOT enrichment -> '_meta' ? 'dshield'"),
        "true".to_string(),
    );
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts = 1", 1i64);
    base.wait_for("SELECT count(*) FROM enrichment_indicator WHERE dirty OR moved", 0i64);
    assert_eq!(base.one::<String>(&of("s1", "NOT enrichment ? 'dshield' AND NOT dshield_flagged")), "true");
    assert_eq!(base.one::<i64>(STRAY), 0);
    // a row that always had the key keeps what it has, also where the answer is gone meanwhile
    base.run(&format!("DELETE FROM enrichment_cache WHERE service = 'spur' AND cache_key = '{}'", keys[1]));
    base.run(&format!("UPDATE session_summaries SET vt_flagged = true WHERE source_ip = '{}'", keys[1]));
    base.run(&format!("SELECT enrich_invalidate('dshield', '{0}'); SELECT enrich_request('dshield', '{0}')", keys[1]));
    wait_answered_again(&base, &keys[1]);
    assert_eq!(base.one::<String>(&of("s2", "enrichment ? 'spur' AND dshield_flagged IS NOT NULL")), "true");
}

fn wait_answered_again(base: &Base, key: &str) {
    base.wait_for(
        &format!("SELECT count(*) FROM enrichment_cache c JOIN session_summaries s ON s.source_ip = c.cache_key
            WHERE c.service = 'dshield' AND c.cache_key = '{key}' AND c.version > 1 AND s.enrichment #>> '{{_meta,dshield,fetched_at}}'
                = to_char(c.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"),
        1i64,
    );
}

#[test]
fn a_file_that_gets_another_hash_keeps_nothing_of_the_one_it_had() {
    let base = Base::new("sources", "moved_file");
    base.run("UPDATE enrichment_service SET enabled = false");
    let answer = r#"{"data": {"attributes": {"type_description": "ELF", "last_analysis_stats": {"malicious": 4, "harmless": 9},
        "first_submission_date": 1700000000, "last_analysis_date": 1700000001,
        "popular_threat_classification": {"suggested_threat_label": "trojan.mirai"}}}}"#;
    base.run(&format!(
        "CREATE TABLE files (id int PRIMARY KEY, shasum varchar(64), vt_classification varchar(128), vt_description text,
            vt_malicious bool NOT NULL DEFAULT false, vt_first_seen timestamptz, vt_scan_date timestamptz, vt_positives int, vt_total int,
            enrichment_status varchar(32) NOT NULL DEFAULT 'pending');
         INSERT INTO files (id, shasum) SELECT n, repeat('a', 64) FROM generate_series(1, 4) n;
         SELECT enrich_store('virustotal', repeat('a', 64), '{answer}'),
            enrich_store('virustotal', repeat('b', 64), NULL, response_status => 'not_found');
         SELECT enrich_attach('files', 'shasum', '{{virustotal}}')"
    ));
    base.wait_for("SELECT count(*) FROM files WHERE vt_malicious AND vt_classification = 'trojan.mirai'", 4i64);
    wait_quiet(&base);
    base.run("UPDATE files SET shasum = repeat(CASE id WHEN 2 THEN 'b' WHEN 3 THEN 'c' END, 64) WHERE id IN (2, 3, 4)");
    base.wait_for(
        "SELECT string_agg(concat_ws(' ', id, enrichment_status, vt_malicious, vt_classification, vt_description, vt_first_seen, vt_scan_date,
            vt_positives, vt_total), ', ' ORDER BY id) FROM files WHERE id > 1",
        "2 not_found f, 3 pending f, 4 pending f".to_string(),
    );
    assert_eq!(base.one::<i64>("SELECT vt_positives::int8 FROM files WHERE id = 1"), 4);
}
