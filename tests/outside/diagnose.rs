//! enrich_diagnose: each cause, planted in a known share of the rows, is found with that share; where all is well it is silent.

mod nobody;
mod readers;
mod rows;

use crate::support::{one, run, Base};
use std::collections::BTreeMap;
use std::sync::Arc;
use testbed::Cluster;

/// Ten rows for each of a hundred addresses, the newest of today.
const SESSIONS: &str = "CREATE TABLE session_summaries (session_id text PRIMARY KEY, source_ip varchar(45), last_event_at timestamptz, enrichment json);
    INSERT INTO session_summaries SELECT 's' || k || '-' || r, '8.8.0.' || k, now() - r * interval '1 day' FROM generate_series(1, 100) k, generate_series(0, 9) r";

/// A database whose worker takes in rows and calls nobody.
fn base(name: &str) -> Base {
    base_with(name, "enrichment_cache")
}

/// The same, with these libraries preloaded.
fn base_with(name: &str, libraries: &str) -> Base {
    let cluster = Cluster::builder(&format!("diagnose-{name}"))
        .preload(true)
        .setting("shared_preload_libraries", libraries)
        .setting("autovacuum", "off")
        .setting("enrichment_cache.enabled", "off")
        .setting("enrichment_cache.sweep_interval", "0")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), name, &[]);
    base.run(
        "INSERT INTO enrichment_service (name, key_kind, url)
        SELECT s, 'ip', 'https://' || s || '.example/{key}' FROM unnest('{expiring,unasked,hollow,partly}'::text[]) s",
    );
    base
}

/// Answers of a service for the addresses from..=to, as a worker would have stored them.
fn answer(base: &Base, service: &str, from: u32, to: u32, payload: &str, age: &str, ttl: &str) {
    base.run(&format!(
        "SELECT enrich_store('{service}', '8.8.0.' || k, {payload}, ttl => '{ttl}', fetched_at => now() - interval '{age}', api_response_code => 200)
         FROM generate_series({from}, {to}) k; DELETE FROM enrichment_queue WHERE service = '{service}' AND EXISTS (
            SELECT FROM enrichment_cache c WHERE c.service = '{service}' AND c.cache_key = enrichment_queue.cache_key)"
    ));
}

/// A setting of the whole cluster, as this database's sessions know it then.
fn set(base: &Base, name: &str, value: &str) {
    base.run(&format!("ALTER SYSTEM SET {name} = '{value}'"));
    base.run("SELECT pg_reload_conf()");
    base.wait_for(&format!("SELECT current_setting('{name}')"), value.to_string());
}

/// What waits is not asked today, whoever asks.
fn put_off(base: &Base) {
    base.run("UPDATE enrichment_queue SET next_attempt_at = now() + interval '1 day'");
}

/// When the last answer of a service came, as the diagnosis writes it.
fn last_answer(base: &Base, service: &str) -> String {
    base.one(&format!(
        "SELECT to_char(max(fetched_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"') FROM enrichment_cache WHERE service = '{service}'"
    ))
}

const DSHIELD: &str = r#"jsonb_build_object('ip', jsonb_build_object('number', '8.8.0.' || k, 'as', 64512, 'asname', 'EXAMPLE', 'ascountry', 'DE', 'count', 3))"#;
const SOMETHING: &str = r#"'{"known": true}'"#;

/// severity, rows behind it, share, example and hint of each cause, by cause and service. Whoever asks lives where it is tomorrow
/// before anywhere else: at 23:00 UTC it always is.
fn diagnosis(base: &Base) -> BTreeMap<String, (String, Option<i64>, String, String, String)> {
    let mut client = base.client();
    run(&mut client, "SET timezone = 'Pacific/Kiritimati'");
    let rows = client
        .query("SELECT concat_ws(' ', cause, service, CASE cause WHEN 'wrong_json_path' THEN example END), severity, affected,
            coalesce(share::float8::text, '-'), coalesce(example, '-'), coalesce(hint, '-') FROM enrich_diagnose()", &[])
        .unwrap_or_else(|why| panic!("{why:?}"));
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2), row.get(3), row.get(4), row.get(5)))).collect()
}

#[test]
fn each_root_cause_is_found_with_its_share_of_the_rows() {
    let base = base("planted");
    base.run(SESSIONS);
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,urlhaus,spur,expiring,unasked,hollow}', 'enrichment')");
    base.run(
        "CREATE TABLE files (shasum varchar(64), vt_total int, enrichment_status varchar(32));
        INSERT INTO files SELECT encode(sha256(i::text::bytea), 'hex') FROM generate_series(1, 20) i;
        SELECT enrich_attach('files', 'shasum', '{virustotal}');
        CREATE TABLE password_tracking (password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz, first_seen timestamptz);
        INSERT INTO password_tracking SELECT 'word ' || i, CASE WHEN i <= 5 THEN false END, NULL, CASE WHEN i <= 5 THEN now() END, now() FROM generate_series(1, 20) i;
        SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')",
    );
    // a table whose keys stopped coming 3 of 10 days ago, an address that stands in for missing ones, zero characters, empties
    base.run(
        r#"CREATE TABLE events (address text, first_seen timestamptz, extra json);
        INSERT INTO events SELECT CASE WHEN d >= 3 THEN CASE WHEN r <= 4 THEN '192.168.1.1' ELSE '8.8.0.' || r END END,
            (date_trunc('day', now() AT TIME ZONE 'UTC') - interval '1 hour' - d * interval '1 day') AT TIME ZONE 'UTC',
            CASE WHEN d = 2 THEN '{"note": "a\u0000b"}' WHEN d = 8 AND r <= 10 THEN '{"partly": null}' ELSE '{"note": "a\\u0000b"}' END::json
        FROM generate_series(0, 9) d, generate_series(1, 20) r;
        SELECT enrich_attach('events', 'address', '{partly}', 'extra')"#,
    );
    wait_quiet_but_for_the_queue(&base);
    // dshield knows 80 of 100, and says of 20 that it knows nothing
    answer(&base, "dshield", 1, 80, DSHIELD, "1 hour", "7 days");
    base.run("SELECT enrich_store('dshield', '8.8.0.' || k, NULL, response_status => 'not_found') FROM generate_series(81, 100) k");
    answer(&base, "urlhaus", 1, 70, SOMETHING, "2 days", "30 days");
    answer(&base, "spur", 1, 40, SOMETHING, "3 hours", "14 days");
    answer(&base, "expiring", 1, 25, SOMETHING, "30 days", "7 days");
    answer(&base, "expiring", 26, 100, SOMETHING, "1 hour", "7 days");
    // 15 empty values, of five kinds
    answer(
        &base,
        "hollow",
        1,
        15,
        "(ARRAY['{}', '[]', '\"\"', '{\"ip\": {\"asname\": \"\", \"ascountry\": \"\"}}', 'null'])[1 + k % 5]::jsonb",
        "1 hour",
        "7 days",
    );
    answer(&base, "hollow", 16, 100, SOMETHING, "1 hour", "7 days");
    answer(&base, "partly", 1, 100, SOMETHING, "1 hour", "7 days");
    wait_quiet_but_for_the_queue(&base);
    // nothing asks for what has expired, or was never asked
    base.run("DELETE FROM enrichment_queue WHERE service NOT IN ('urlhaus', 'spur', 'virustotal')");
    // urlhaus has been down for two days; spur has refused its key since 40 were answered
    base.run("UPDATE enrichment_queue SET attempts = 4, last_outcome = 'error', last_error = 'HTTP 503' WHERE service = 'urlhaus';
        INSERT INTO enrichment_lane (service, breaker, breaker_since, breaker_until, breaker_failures, breaker_reason)
            VALUES ('urlhaus', 'open', now(), now() + interval '1 hour', 5, 'HTTP 503') ON CONFLICT (service) DO UPDATE SET breaker = 'open';
        INSERT INTO enrichment_lane (service, paused_until, cause, reason) VALUES ('spur', 'infinity', 'unauthorized', 'HTTP 401'),
            ('virustotal', 'infinity', 'no_credential', 'no secret') ON CONFLICT (service) DO UPDATE SET paused_until = 'infinity', cause = EXCLUDED.cause, reason = EXCLUDED.reason");
    // readers of paths that are not there, and of one that is
    base.run(
        "CREATE VIEW by_country AS SELECT (enrichment::jsonb -> 'dshield') ->> 'country' AS country, enrichment::jsonb #>> '{dshield,ip,ascountry}' AS right_one FROM session_summaries;
        CREATE MATERIALIZED VIEW by_asn AS SELECT d.dshield -> 'ip' ->> 'asn' AS asn FROM (SELECT enrichment::jsonb -> 'dshield' AS dshield FROM session_summaries) d;
        CREATE FUNCTION owner_of(ip text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
            RETURN (SELECT payload #>> '{ip,owner}' FROM enrichment_cache WHERE service = 'dshield' AND cache_key = ip); END $$",
    );
    base.run("CREATE TABLE session_ssh_keys (session_id text, ssh_key_id int, timestamp timestamptz);
        INSERT INTO session_ssh_keys SELECT 's', k, now() FROM (SELECT i FROM generate_series(1, 4) i UNION ALL SELECT 1) v (k)");

    let found = diagnosis(&base);
    let down = format!("No answer since {}. And nobody tries again", last_answer(&base, "urlhaus"));
    let expected = [
        ("bad_key spur", "error", Some(600), "0.6", "Give the right one: SELECT enrich_set_secret('spur'"),
        ("no_credential virustotal", "error", Some(20), "1", "SELECT enrich_set_secret('virustotal'"),
        ("service_down urlhaus", "error", Some(300), "0.3", down.as_str()),
        ("refresh_never_ran unasked", "error", Some(1000), "1", "CALL enrich_refresh()"),
        ("refresh_never_ran hibp", "error", Some(20), "1", "CALL enrich_refresh()"),
        ("expired expiring", "warning", Some(250), "0.25", "sweep_interval"),
        ("empty_answer hollow", "warning", Some(150), "0.15", "enrich_invalidate"),
        ("ingestion_gap", "error", Some(60), "0.3", "Look at the loader"),
        (
            "wrong_json_path dshield view public.by_country reads country",
            "error",
            Some(800),
            "0.8",
            "Payloads have ip.ascountry",
        ),
        (
            "wrong_json_path dshield materialized view public.by_asn reads ip.asn",
            "error",
            Some(800),
            "0.8",
            "ip.asname",
        ),
        (
            "wrong_json_path dshield function public.owner_of(text) reads ip.owner",
            "error",
            Some(800),
            "0.8",
            "No payload of dshield has this path",
        ),
        ("stand_in_key", "warning", Some(28), "0.14", "NULL is what it should write"),
        ("zero_character", "warning", Some(20), "0.1", "enrich_safe_jsonb"),
        ("unfounded_not_breached hibp", "warning", Some(5), "0.25", "no answer says so"),
        ("doubled_links", "warning", Some(1), "0.2", "enrich_ssh_backfill"),
    ];
    for (cause, severity, affected, share, hint) in expected {
        let (got_severity, got_affected, got_share, example, got_hint) =
            found.get(cause).unwrap_or_else(|| panic!("{cause} is not in {found:#?}"));
        assert_eq!((got_severity.as_str(), *got_affected, got_share.as_str()), (severity, affected, share), "{cause}");
        assert!(got_hint.contains(hint), "{cause}: {got_hint}");
        assert_ne!(example, "-", "{cause} has no example");
    }
    let known: Vec<&str> = expected.iter().map(|one| one.0).collect();
    let more: Vec<&String> =
        found.keys().filter(|cause| !known.contains(&cause.as_str()) && !cause.starts_with("empty_values")).collect();
    assert!(more.is_empty(), "found besides: {more:?}");
    assert!(found["stand_in_key"].3.contains("192.168.1.1"));
    let first_missed: String =
        base.one("SELECT min((first_seen AT TIME ZONE 'UTC')::date)::text FROM events WHERE address IS NULL");
    assert_eq!(found["ingestion_gap"].3, format!("events: no row since {first_missed} has a key that was picked up"));
    // who may not read the table is not shown its keys
    let mut client = base.client();
    run(&mut client, "CREATE ROLE diagnose_reader; SELECT enrich_grant('diagnose_reader', 'reader'); SET SESSION AUTHORIZATION diagnose_reader");
    assert_eq!(
        one::<i64>(
            &mut client,
            "SELECT count(*) FROM enrich_diagnose() WHERE cause = 'bad_key' AND share = 0.6 AND example IS NULL"
        ),
        1
    );
    run(&mut client, "RESET SESSION AUTHORIZATION; DROP OWNED BY diagnose_reader; DROP ROLE diagnose_reader");
}

/// Rows are taken in; what they ask for waits, as nobody is called.
fn wait_quiet_but_for_the_queue(base: &Base) {
    base.wait_for(
        "SELECT (SELECT count(*) FROM enrichment_arrival) + (SELECT count(*) FROM enrichment_source WHERE swept_at IS NULL)
            + (SELECT count(*) FROM enrichment_indicator WHERE dirty)",
        0i64,
    );
}

#[test]
fn values_of_other_clients_that_hold_nothing_are_told() {
    let base = base("hollow");
    base.run(SESSIONS);
    // at the top and as the loader nests them, and Spur's eighteen texts
    base.run(
        r#"UPDATE session_summaries SET enrichment = CASE right(session_id, 1) WHEN '0' THEN '{}' WHEN '1' THEN '{"dshield": null}'
            WHEN '2' THEN '{"dshield": {"ip": {"asname": "", "ascountry": ""}}, "urlhaus": ""}'
            WHEN '3' THEN format('{"session": {"%s": {"dshield": null, "urlhaus": "a,b"}}}', source_ip)
            WHEN '4' THEN format('{"spur": %s}', to_json(array_fill(''::text, ARRAY[18])))
            WHEN '5' THEN '{"session": {"8.8.99.99": {"dshield": null}}}'
            ELSE '{"password_stats": {"n": 1}}' END::json"#,
    );
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment')");
    wait_quiet_but_for_the_queue(&base);
    let found = diagnosis(&base);
    for (service, rows, share) in [("dshield", 400, "0.4"), ("urlhaus", 200, "0.2"), ("spur", 200, "0.2")] {
        let (_, affected, found_share, ..) = &found[&format!("empty_values {service}")];
        assert_eq!((*affected, found_share.as_str()), (Some(rows), share), "{service}: {found:#?}");
    }
}

#[test]
fn gaps_behind_an_expression_are_found_and_rows_outside_its_condition_are_none() {
    let base = base("expression");
    // of ten days twenty log-ins each; in the last three the loader wrote no address. The 300 others are not asked about.
    base.run(
        r#"CREATE TABLE events (payload jsonb, kind text, happened timestamp, created_at timestamptz DEFAULT '2020-01-01', answers json);
        INSERT INTO events (payload, kind, happened, answers) SELECT CASE WHEN d >= 3 THEN jsonb_build_object('ip', CASE WHEN r <= 4 THEN '192.168.1.1' ELSE '8.8.0.' || r END) ELSE '{}' END,
            'login', now() - d * interval '1 day', CASE WHEN d = 9 AND r > 14 THEN '{"partly": null}' END::json
        FROM generate_series(0, 9) d, generate_series(1, 20) r;
        INSERT INTO events SELECT '{"ip": "192.168.7.7"}', CASE WHEN i % 2 = 0 THEN 'other' END, now() - interval '1 day', now(), '{"partly": null}'
        FROM generate_series(1, 300) i;
        SELECT enrich_attach('events', NULL, '{partly}', 'answers', key_expression => $$payload ->> 'ip'$$, eligible => $$kind = 'login'$$,
            time_column => 'happened')"#,
    );
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "partly", 5, 14, SOMETHING, "1 hour", "7 days");
    base.run("UPDATE enrichment_queue SET state = 'dead', last_outcome = 'unauthorized'");
    wait_quiet_but_for_the_queue(&base);
    let found: BTreeMap<String, (Option<i64>, String)> =
        diagnosis(&base).into_iter().map(|(cause, found)| (cause, (found.1, found.2))).collect();
    let expected = [
        // 42 of the 112 rows whose key may be asked about
        ("bad_key partly", 42, "0.375"),
        ("empty_values partly", 6, "0.03"),
        ("ingestion_gap", 60, "0.3"),
        ("stand_in_key", 28, "0.14"),
    ];
    let expected = expected.map(|(cause, rows, share)| (cause.to_string(), (Some(rows), share.to_string())));
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(
        base.one::<String>("SELECT concat_ws(' ', rows, rows_eligible, rows_answered) FROM enrichment_coverage"),
        "500 112 70"
    );
}

#[test]
fn where_all_is_well_the_diagnosis_is_silent() {
    let base = base("healthy");
    base.run(SESSIONS);
    base.run("INSERT INTO session_summaries SELECT 'private' || i, '10.0.0.' || i, now() FROM generate_series(1, 30) i;
        SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,expiring}', 'enrichment');
        CREATE VIEW right_path AS SELECT enrichment::jsonb #>> '{dshield,ip,ascountry}' AS country FROM session_summaries");
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "dshield", 1, 100, DSHIELD, "1 hour", "7 days");
    answer(&base, "expiring", 1, 60, SOMETHING, "1 hour", "7 days");
    answer(&base, "expiring", 61, 80, SOMETHING, "30 days", "7 days");
    base.run("SELECT enrich_store('expiring', '8.8.0.' || k, NULL, response_status => 'not_found') FROM generate_series(81, 90) k;
        DELETE FROM enrichment_queue WHERE service = 'expiring' AND cache_key IN (SELECT '8.8.0.' || k FROM generate_series(81, 90) k)");
    wait_quiet_but_for_the_queue(&base);
    put_off(&base);
    set(&base, "enrichment_cache.enabled", "on");
    // ten wait for their turn, and twenty to be asked again: no fault
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 30);
    assert_eq!(diagnosis(&base), BTreeMap::new());
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'expiring'");
    let found = diagnosis(&base);
    assert_eq!(found.keys().collect::<Vec<_>>(), ["service_disabled expiring"]);
    assert_eq!(
        (found["service_disabled expiring"].1, found["service_disabled expiring"].2.as_str()),
        (Some(300), "0.3")
    );
}
