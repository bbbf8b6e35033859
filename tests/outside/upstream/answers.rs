//! Failures of reading answers: 3, 4, 5, 15 (padding).

use crate::sources_support::{make_sessions, rows, wait_quiet, ATTACH_SESSIONS};
use crate::support::{address, one, run, Base};
use serde_json::Value;
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;

fn base(name: &str) -> Base {
    Base::new("upstream", name)
}

fn payload(base: &Base, service: &str, key: &str) -> Value {
    let sql = format!("SELECT payload::text FROM enrichment_cache WHERE service = '{service}' AND cache_key = '{key}'");
    serde_json::from_str(&base.one::<String>(&sql)).expect("JSON")
}

#[test]
fn failure_03_a_zero_character_in_an_answer_or_a_row_stops_no_batch() {
    let base = base("f03");
    let known = |n: &String| base.sandbox.expect("virustotal", n)["outcome"] == "success";
    let hashes: Vec<String> = (1..).map(|n: u32| format!("{n:064x}")).filter(known).take(60).collect();
    base.run("CREATE TABLE files (shasum varchar(64), vt_total int, enrichment_status varchar(32) DEFAULT 'pending')");
    let mut client = base.client();
    client.execute("INSERT INTO files (shasum) SELECT unnest($1::text[])", &[&hashes]).expect("rows");
    run(&mut client, "SELECT enrich_attach('files', 'shasum', '{virustotal}')");
    run(&mut client, "CALL enrich_refresh()");
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(*) FROM files WHERE enrichment_status = 'enriched' AND vt_total > 0"),
        60
    );
    let marked = "SELECT count(*) FROM enrichment_cache WHERE payload::text LIKE '%\u{fffd}%'";
    assert!(one::<i64>(&mut client, marked) > 0, "none of these answers held a zero character");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache WHERE payload::text LIKE '%\\u0000%' AND payload::text NOT LIKE '%\\\\\\\\u0000%'"), 0);

    // and in the user's own JSON, which every query over it used to stumble on
    make_sessions(&base, "json", &base.known("dshield", 30));
    run(
        &mut client,
        r#"UPDATE session_summaries SET enrichment = '{"password_stats": {"password": "a\u0000b"}}' WHERE session_id = 's3'"#,
    );
    run(&mut client, ATTACH_SESSIONS);
    run(&mut client, "CALL enrich_refresh()");
    assert_eq!(
        one::<i64>(&mut client, "SELECT count(enrichment::jsonb #>> '{dshield,ip,number}') FROM session_summaries"),
        30
    );
}

#[test]
fn failure_04_the_views_read_the_keys_the_providers_send() {
    let base = base("f04");
    make_sessions(&base, "jsonb", &base.known("dshield", 25));
    base.run(ATTACH_SESSIONS);
    base.run("CALL enrich_refresh()");
    let mut client = base.client();
    let all = "SELECT count(*) FROM session_summaries s JOIN enrichment_dshield d ON d.cache_key = s.source_ip";
    assert_eq!(one::<i64>(&mut client, all), 25);
    for column in ["asn", "as_name", "country", "attacks"] {
        let named = format!("{all} WHERE d.{column} IS NOT NULL");
        assert!(one::<i64>(&mut client, &named) > 10, "{column} is empty");
    }
    let wrong = "SELECT count(*) FROM enrichment_dshield d JOIN enrichment_cache c USING (cache_key)
        WHERE c.service = 'dshield' AND (d.asn::text, d.country) IS DISTINCT FROM
            (nullif(c.payload #>> '{ip,as}', ''), nullif(c.payload #>> '{ip,ascountry}', ''))";
    assert_eq!(one::<i64>(&mut client, wrong), 0);
    let spur = "SELECT count(*) FROM enrichment_spur p JOIN enrichment_cache c USING (cache_key)
        WHERE c.service = 'spur' AND (p.asn::text, p.infrastructure) IS DISTINCT FROM (c.payload #>> '{as,number}', c.payload ->> 'infrastructure')";
    assert_eq!(one::<i64>(&mut client, spur), 0);
}

#[test]
fn failure_05_null_tags_of_urlhaus_are_read_and_kept() {
    let base = base("f05");
    let found = |ip: &String| base.sandbox.expect("urlhaus", ip)["outcome"] == "success";
    let keys: Vec<String> = (1..).map(address).filter(found).take(12).collect();
    make_sessions(&base, "jsonb", &keys);
    base.run(ATTACH_SESSIONS);
    base.run("CALL enrich_refresh()");
    let null_tags = |key: &&String| {
        let body = payload(&base, "urlhaus", key);
        body["urls"].as_array().is_some_and(|urls| urls.iter().any(|url| url["tags"].is_null()))
    };
    assert!(keys.iter().any(|key| null_tags(&key)), "no answer has null tags");
    let kept = "SELECT count(*) FROM session_summaries s JOIN enrichment_cache c ON c.service = 'urlhaus' AND c.cache_key = s.source_ip
        WHERE s.enrichment -> 'urlhaus' = c.payload AND jsonb_array_length(s.enrichment #> '{urlhaus,urls}') > 0";
    assert_eq!(base.one::<i64>(kept), 12);
    let mut client = base.client();
    let tags =
        rows(&mut client, "SELECT array_to_string(tags, ',', 'NULL') FROM enrichment_urlhaus WHERE tags IS NOT NULL");
    assert!(!tags.is_empty() && tags.iter().all(|tags| !tags.contains("NULL")), "{tags:?}");
}

#[test]
fn failure_15_padding_of_hibp_is_no_breach() {
    let base = base("f15");
    base.run(r#"UPDATE enrichment_service SET headers = headers || '{"add-padding": "true"}' WHERE name = 'hibp'"#);
    let digest = |password: &str| -> String {
        Sha1::digest(password.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect()
    };
    let novel = |n: u32| format!("surely novel {n}");
    let passwords: Vec<String> = (0..20).map(novel).chain(["password".to_string(), "123456".to_string()]).collect();
    base.run("CREATE TABLE password_tracking (password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz)");
    let mut client = base.client();
    client.execute("INSERT INTO password_tracking SELECT unnest($1::text[])", &[&passwords]).expect("rows");
    run(&mut client, "SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')");
    run(&mut client, "CALL enrich_refresh()");
    for password in &passwords {
        let seen = base.sandbox.expect("hibp", &digest(password))["prevalence"].as_i64().expect("a number");
        let row = client.query_one(
            "SELECT t.breached, t.breach_prevalence, p.breached, p.prevalence, p.status
             FROM password_tracking t, enrich_password(t.password_text) p WHERE password_text = $1",
            &[password],
        );
        let row = row.expect("a row");
        let read: (bool, i32, bool, i64, String) = (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
        assert_eq!(read, (seen > 0, seen as i32, seen > 0, seen, "fresh".to_string()), "{password}");
    }
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM password_tracking WHERE breached"), 2);
    // padding has the count 0; asked for, it must not be kept as a member either, and all the others as they came
    let prefix = &digest("password")[..5];
    let body = base.one::<String>(&format!("SELECT enrich_get('hibp', '{prefix}')::text"));
    let body: BTreeMap<String, i64> = serde_json::from_str(&body).expect("suffixes and counts");
    assert!(body.len() > 100 && body.values().all(|&count| count > 0), "padding was stored");
    for (suffix, count) in &body {
        assert_eq!(base.sandbox.expect("hibp", &format!("{prefix}{suffix}"))["prevalence"], *count, "{suffix}");
    }
    let packed = format!("SELECT octet_length(ranges)::int8 FROM enrichment_cache WHERE cache_key = '{prefix}'");
    assert_eq!(base.one::<i64>(&packed), 22 * body.len() as i64, "a fetched range is packed");
    wait_quiet(&base);
}
