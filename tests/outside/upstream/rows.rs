//! Failures of which rows were chosen and what became of them: 1, 2, 10, 11, 12, 13.

use crate::sources_support::{
    insert_sessions, make_sessions, rows, sweeping_cluster, unfilled, wait_filled, wait_quiet, ATTACH_SESSIONS,
};
use crate::support::{address, one, run, Base};
use std::sync::Arc;
use testbed::Cluster;

fn base(name: &str) -> Base {
    Base::new("upstream", name)
}

fn sweeping(name: &str) -> Base {
    let cluster: Arc<Cluster> = sweeping_cluster();
    Base::in_cluster(&cluster, name, &["--limits", "none"])
}

/// Attached with every service off, so that nothing is asked.
fn attached_unasked(base: &Base) {
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run(ATTACH_SESSIONS);
    wait_quiet(base);
}

fn coverage(base: &Base, what: &str) -> String {
    base.one(&format!("SELECT string_agg({what}::text, ' ' ORDER BY service) FROM enrichment_coverage"))
}

#[test]
fn failure_01_an_empty_object_is_not_enriched() {
    let base = base("f01");
    let keys = base.known("dshield", 5);
    make_sessions(&base, "jsonb", &keys);
    base.run(r#"UPDATE session_summaries s SET enrichment = e.text::jsonb FROM (VALUES
        ('s1', '{}'), ('s2', '{"dshield": null}'), ('s3', '{"dshield": {"ip": {"asname": "", "ascountry": ""}}, "urlhaus": ""}'),
        ('s4', '{"spur": ["","","","","","","","","","","","","","","","","",""]}'), ('s5', 'null')) e (id, text)
        WHERE s.session_id = e.id"#);
    attached_unasked(&base);
    assert_eq!(coverage(&base, "percent"), "0.00 0.00 0.00", "an empty value counts as an answer");
    assert_eq!(coverage(&base, "never_asked"), "5 5 5");
    base.run("UPDATE enrichment_service SET enabled = true");
    base.run("CALL enrich_refresh()");
    wait_filled(&base, "{dshield,urlhaus,spur}");
    assert_eq!(coverage(&base, "percent"), "100.00 100.00 100.00");
    let empty =
        "SELECT count(*) FROM session_summaries WHERE enrichment #>> '{dshield,ip,number}' IS DISTINCT FROM source_ip
        OR jsonb_typeof(enrichment -> 'spur') = 'array' OR enrichment -> 'urlhaus' = '\"\"'";
    assert_eq!(base.one::<i64>(empty), 0);
}

#[test]
fn failure_02_another_modules_key_does_not_hide_a_row() {
    let base = base("f02");
    make_sessions(&base, "json", &base.known("dshield", 20));
    base.run(r#"UPDATE session_summaries SET enrichment = '{"password_stats": {"total_attempts": 3}}'"#);
    base.run(ATTACH_SESSIONS);
    base.run("CALL enrich_refresh()");
    assert_eq!(base.one::<i64>(&unfilled("{dshield,urlhaus,spur}")), 0);
    let kept = "SELECT count(*) FROM session_summaries WHERE enrichment #>> '{password_stats,total_attempts}' = '3'";
    assert_eq!(base.one::<i64>(kept), 20);
}

#[test]
fn failure_10_a_hash_virustotal_does_not_know_is_asked_once_and_blocks_nobody() {
    let base = base("f10");
    let hash = |n: u32| format!("{n:064x}");
    let with = |outcome: &str, n: usize| -> Vec<String> {
        (1..).map(hash).filter(|hash| base.sandbox.expect("virustotal", hash)["outcome"] == outcome).take(n).collect()
    };
    let (unknown, known) = (with("not_found", 6), with("success", 3));
    base.run(
        "CREATE TABLE files (id int, shasum varchar(64), vt_positives int,
        enrichment_status varchar(32) DEFAULT 'pending', first_seen timestamptz);
        UPDATE enrichment_service SET max_in_flight = 1 WHERE name = 'virustotal'",
    );
    let mut client = base.client();
    // the unknown ones are the oldest, and of one age the first
    let sql = "INSERT INTO files (id, shasum, first_seen) SELECT n, h, timestamptz '2026-01-01' + n * interval '1 hour'
        FROM unnest($1::text[]) WITH ORDINALITY AS u (h, n)";
    let all: Vec<String> = unknown.iter().chain(&known).cloned().collect();
    client.execute(sql, &[&all]).expect("rows");
    run(&mut client, "SELECT enrich_attach('files', 'shasum', '{virustotal}')");
    for _ in 0..3 {
        run(&mut client, "CALL enrich_refresh()");
    }
    let status = "SELECT string_agg(enrichment_status, ' ' ORDER BY id) FROM files";
    let wanted = "not_found not_found not_found not_found not_found not_found enriched enriched enriched";
    assert_eq!(one::<String>(&mut client, status), wanted);
    for hash in &all {
        assert_eq!(base.asked_for("virustotal", hash), 1, "{hash}");
    }
    let state: String = one(&mut client, &format!("SELECT state FROM enrich_lookup('virustotal', '{}')", unknown[0]));
    assert_eq!(state, "not_found");
}

#[test]
fn failure_11_flags_and_keys_of_others_survive_and_what_a_loader_drops_comes_back() {
    let base = sweeping("f11");
    let unflagged = |ip: &String| base.sandbox.expect("dshield", ip)["flagged"] == false;
    let quiet: Vec<String> = (1..).map(address).filter(unflagged).take(4).collect();
    make_sessions(&base, "jsonb", &quiet);
    base.run(r#"UPDATE session_summaries SET vt_flagged = true, enrichment = '{"password_stats": {"n": 1}, "virustotal": {"x": 1}}'"#);
    base.run(ATTACH_SESSIONS);
    base.run("CALL enrich_refresh()");
    let kept = r#"SELECT count(*) FROM session_summaries
        WHERE vt_flagged AND enrichment @> '{"password_stats": {"n": 1}, "virustotal": {"x": 1}}'"#;
    assert_eq!(base.one::<i64>(kept), 4);
    base.run(
        "CREATE TABLE password_tracking (id int, password_hash text, password_text text, breached bool, breach_prevalence int,
            last_hibp_check timestamptz, first_seen timestamptz, last_seen timestamptz, times_seen int, unique_sessions int);
        CREATE TABLE password_session_usage (password_id int, session_id text, username text, success bool, timestamp timestamptz);
        INSERT INTO password_tracking VALUES (1, 'digest', 'secret', true, 7, now(), now(), now(), 2, 1);
        INSERT INTO password_session_usage VALUES (1, 's1', 'root', true, '2026-03-01'), (1, 's1', 'admin', false, '2026-03-02')",
    );
    base.run("CALL enrich_password_stats()");
    let stats =
        "SELECT coalesce(enrichment ->> 'password_stats', 'dropped') FROM session_summaries WHERE session_id = 's1'";
    let made: String = base.one(stats);
    assert!(made.contains(r#""total_attempts": 2"#) && made.contains(r#""breach_prevalence_max": 7"#), "{made}");
    // a loader's upsert replaces the whole column
    base.run(&format!(
        r#"INSERT INTO session_summaries (session_id, source_ip, enrichment) VALUES ('s1', '{}', '{{"loader": true}}')
           ON CONFLICT (session_id) DO UPDATE SET enrichment = excluded.enrichment"#,
        quiet[0]
    ));
    wait_filled(&base, "{dshield,urlhaus,spur}");
    assert!(
        base.one::<bool>("SELECT enrichment ? 'loader' AND vt_flagged FROM session_summaries WHERE session_id = 's1'")
    );
    assert_eq!(base.asked_for("dshield", &quiet[0]), 1);
    // what was made of the passwords is made again from the same rows
    assert_eq!(base.one::<String>(stats), "dropped");
    base.run("CALL enrich_password_stats()");
    assert_eq!(base.one::<String>(stats), made);
    assert!(base.one::<bool>(
        "SELECT enrichment ?& '{loader,dshield,_meta}' AND vt_flagged FROM session_summaries WHERE session_id = 's1'"
    ));
}

#[test]
fn failure_12_no_address_stands_in_for_a_missing_or_private_one() {
    let base = base("f12");
    let keys = base.known("dshield", 2);
    make_sessions(&base, "jsonb", &keys);
    base.run(
        "INSERT INTO session_summaries (session_id, source_ip) VALUES ('null', NULL), ('empty', ''), ('private', '192.168.1.1'),
            ('loopback', '127.0.0.1'), ('mapped', '::ffff:10.0.0.1'), ('documentation', '2001:db8::1'), ('dirt', 'unknown'),
            ('unspecified', '0.0.0.0'), ('multicast', '224.0.0.1'), ('hex', '0x7f000001')",
    );
    base.run(ATTACH_SESSIONS);
    base.run("CALL enrich_refresh()");
    let touched = "SELECT count(*) FROM session_summaries
        WHERE session_id NOT LIKE 's_' AND (enrichment IS NOT NULL OR enrichment_at IS NOT NULL OR dshield_flagged)";
    assert_eq!(base.one::<i64>(touched), 0);
    let stats = base.sandbox.stats();
    for service in ["dshield", "urlhaus", "spur"] {
        let mut asked: Vec<_> = stats[service]["by_key"].as_object().expect("keys").keys().cloned().collect();
        asked.sort();
        let mut wanted = keys.clone();
        wanted.sort();
        assert_eq!(asked, wanted, "{service}");
    }
    let mut client = base.client();
    let why = rows(
        &mut client,
        "SELECT raw_key || ': ' || problem FROM enrichment_indicator WHERE problem IS NOT NULL ORDER BY 1",
    );
    assert_eq!(why.len(), 9, "{why:?}");
    assert!(why.contains(&"192.168.1.1: ineligible: a private address".to_string()), "{why:?}");
}

#[test]
fn failure_13_the_age_of_an_answer_is_kept_and_reading_an_expired_one_deletes_nothing() {
    let base = base("f13");
    let keys = base.known("dshield", 2);
    let mut client = base.client();
    for (key, age) in [(&keys[0], "6 days 21 hours"), (&keys[1], "8 days")] {
        run(
            &mut client,
            &format!(
                "SELECT enrich_store('dshield', '{key}', '{{\"ip\": {{\"number\": \"{key}\", \"count\": 4}}}}',
            fetched_at => now() - interval '{age}', ttl => interval '7 days')"
            ),
        );
    }
    let left: bool =
        one(&mut client, "SELECT bool_and(expires_at < now() + interval '13 hours') FROM enrichment_cache");
    assert!(left, "an old answer became fresh again");
    make_sessions(&base, "jsonb", &[]);
    base.sandbox.fault(serde_json::json!({ "service": "dshield", "kind": "status", "status": 503 }));
    run(&mut client, "SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    insert_sessions(&base, &keys);
    base.wait_for("SELECT count(*) FROM session_summaries WHERE enrichment ? 'dshield'", 2i64);
    // the way into the user's row does not make it younger
    let age = "SELECT bool_and((s.enrichment #>> '{_meta,dshield,fetched_at}')::timestamptz = date_trunc('second', c.fetched_at)
            AND c.fetched_at < now() - interval '6 days')
        FROM session_summaries s JOIN enrichment_cache c ON c.cache_key = s.source_ip";
    assert!(one::<bool>(&mut client, age));
    let expired = &keys[1];
    base.wait_for(&format!("SELECT state FROM enrich_lookup('dshield', '{expired}')"), "stale".to_string());
    for _ in 0..3 {
        assert!(one::<bool>(&mut client, &format!("SELECT enrich_get('dshield', '{expired}') IS NULL")));
    }
    base.wait_for(&format!("SELECT attempts > 0 FROM enrichment_queue WHERE cache_key = '{expired}'"), true);
    let stale = format!("SELECT enrich_get('dshield', '{expired}', '30 days') #>> '{{ip,count}}'");
    assert_eq!(
        one::<Option<String>>(&mut client, &stale).as_deref(),
        Some("4"),
        "nothing is left while the provider is down"
    );
    assert!(one::<bool>(&mut client, age), "a failed refresh changed the time of observation");
}
