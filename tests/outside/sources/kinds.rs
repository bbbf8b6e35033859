//! Further ways for rows to come, and tables that change while they are attached.

use crate::sources_support::{load, make_sessions, wait_filled, wait_quiet, ATTACH_SESSIONS, SMALL};
use crate::support::{address, own_cluster, refused, run, said, Base};
use serde_json::json;
use std::io::Write;
use std::sync::Arc;
use testbed::honeypot::Shape;
use testbed::Cluster;

#[test]
fn rows_with_cidr_keys_are_picked_up_by_the_trigger() {
    let base = Base::new("sources", "cidr_keys");
    let keys = base.known("dshield", 2);
    base.run("CREATE TABLE nets (id int, ip cidr, answers jsonb); SELECT enrich_attach('nets', 'ip', '{dshield}', 'answers')");
    wait_quiet(&base);
    base.run(&format!("INSERT INTO nets VALUES (1, '{}'), (2, NULL)", keys[0]));
    let filled = "SELECT count(*) FROM nets WHERE answers #>> '{dshield,ip,number}' = host(ip)";
    base.wait_for(filled, 1i64);
    base.run(&format!("UPDATE nets SET ip = '{}' WHERE id = 2", keys[1]));
    base.wait_for(filled, 2i64);
}

#[test]
fn a_foreign_table_is_refused_with_a_hint() {
    let base = Base::new("sources", "foreign");
    base.run(
        "CREATE FOREIGN DATA WRAPPER elsewhere; CREATE SERVER far FOREIGN DATA WRAPPER elsewhere;
         CREATE FOREIGN TABLE visits (ip text, answers jsonb) SERVER far",
    );
    let attach = "SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')";
    let message = refused(&mut base.client(), attach, "42809", "Attach the table that the rows stand in");
    assert_eq!(message, "\"visits\" is not a table");
}

#[test]
fn rows_that_are_copied_into_a_partitioned_table_are_picked_up() {
    let base = Base::new("sources", "copied_parts");
    let keys = base.known("dshield", 4);
    base.run(
        "CREATE TABLE visits (day int, ip inet, answers jsonb) PARTITION BY LIST (day);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES IN (1);
         CREATE TABLE visits_2 PARTITION OF visits FOR VALUES IN (2);
         SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')",
    );
    wait_quiet(&base);
    let mut client = base.client();
    let mut copy = client.copy_in("COPY visits (day, ip) FROM STDIN").expect("COPY");
    for (n, key) in keys.iter().enumerate() {
        writeln!(copy, "{}\t{key}", n % 2 + 1).expect("a row");
    }
    copy.finish().expect("four rows");
    base.wait_for("SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip,number}' = host(ip)", 4i64);
}

#[test]
fn a_table_that_is_renamed_and_goes_to_another_schema_is_filled_on() {
    let base = Base::new("sources", "renamed_table");
    let keys = base.known("dshield", 4);
    make_sessions(&base, "jsonb", &keys[..1]);
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    let steps = [
        ("session_summaries", "SELECT 1"),
        ("visits", "ALTER TABLE session_summaries RENAME TO visits"),
        ("archive.visits", "CREATE SCHEMA archive; ALTER TABLE visits SET SCHEMA archive"),
        ("\"Old\".visits", "ALTER SCHEMA archive RENAME TO \"Old\""),
    ];
    for (n, (table, change)) in steps.iter().enumerate() {
        base.run(change);
        if n > 0 {
            base.run(&format!("INSERT INTO {table} (session_id, source_ip) VALUES ('later{n}', '{}')", keys[n]));
        }
        let filled = format!("SELECT count(*) FROM {table} WHERE enrichment #>> '{{dshield,ip,number}}' = source_ip");
        base.wait_for(&filled, n as i64 + 1);
        wait_quiet(&base);
    }
    let said = "SELECT coalesce(string_agg(detail, '; '), '') FROM enrich_health() WHERE severity = 'error'";
    assert_eq!(base.one::<String>(said), "");
}

#[test]
fn times_without_a_zone_are_written_as_utc_wherever_the_server_stands() {
    let cluster = Cluster::builder("kiritimati")
        .preload(true)
        .setting("timezone", "Pacific/Kiritimati")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), "kiritimati", &["--limits", "none"]);
    assert_eq!(base.one::<String>("SELECT current_setting('timezone')"), "Pacific/Kiritimati");
    let keys = base.known("dshield", 3);
    base.run(
        "CREATE TABLE session_summaries (session_id text PRIMARY KEY, source_ip text, first_event_at timestamp, enrichment jsonb, enrichment_at timestamp);
         CREATE TABLE password_tracking (id int, password_text text, breached bool, last_hibp_check timestamp);
         CREATE TABLE files (id int, shasum text, vt_first_seen timestamp, enrichment_status text);
         INSERT INTO password_tracking VALUES (1, 'password');
         INSERT INTO files VALUES (1, repeat('a', 64));
         SELECT enrich_store('virustotal', repeat('a', 64), '{\"data\": {\"attributes\": {\"first_submission_date\": 1700000000}}}')",
    );
    let sql = "INSERT INTO session_summaries SELECT ip, ip, '2026-01-01' FROM unnest($1::text[]) ip";
    base.client().execute(sql, &[&keys]).expect("rows");
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment'), enrich_attach('files', 'shasum', '{virustotal}'),
        enrich_attach('password_tracking', 'password_text', '{hibp}')");
    base.wait_for(
        "SELECT count(*) FROM session_summaries WHERE abs(extract(epoch FROM enrichment_at - (now() AT TIME ZONE 'UTC'))) < 3600",
        3i64,
    );
    base.wait_for(
        "SELECT count(*) FROM password_tracking WHERE abs(extract(epoch FROM last_hibp_check - (now() AT TIME ZONE 'UTC'))) < 3600",
        1i64,
    );
    base.wait_for("SELECT vt_first_seen::text FROM files", Some("2023-11-14 22:13:20".to_string()));
    let meta = "SELECT bool_and(abs(extract(epoch FROM now() - (enrichment #>> '{_meta,dshield,fetched_at}')::timestamptz)) < 3600) FROM session_summaries";
    assert!(base.one::<bool>(meta));
    // the worth of a key is that of its row's time in UTC
    assert_eq!(base.one::<String>("SELECT DISTINCT (latest AT TIME ZONE 'UTC')::text FROM enrichment_indicator WHERE source = 'session_summaries'"), "2026-01-01 00:00:00");
}

#[test]
fn a_prevalence_that_changed_upstream_is_written_when_the_answer_expires_and_comes_anew() {
    let base = Base::in_cluster(&crate::sources_support::sweeping_cluster(), "expired_range", &["--limits", "none"]);
    base.run(
        "CREATE TABLE password_tracking (id int PRIMARY KEY, password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz);
         INSERT INTO password_tracking VALUES (1, 'password');
         UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'",
    );
    // what HIBP said two months ago
    base.run(
        "SELECT enrich_store('hibp', enrich_hibp_prefix('password'), jsonb_build_object(enrich_hibp_suffix('password'), 5),
            ttl => interval '1 second', fetched_at => now());
         SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')",
    );
    base.wait_for("SELECT breach_prevalence FROM password_tracking", Some(5));
    base.wait_for("SELECT expires_at < now() FROM enrichment_cache WHERE service = 'hibp'", true);
    base.run("UPDATE enrichment_service SET enabled = true WHERE name = 'hibp'");
    let (hash, prefix) = ("5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8", "5BAA6");
    let seen = base.sandbox.expect("hibp", hash)["prevalence"].as_i64().expect("a number");
    assert_ne!(seen, 5);
    base.wait_for("SELECT breach_prevalence::int8 FROM password_tracking", Some(seen));
    assert_eq!(base.asked_for("hibp", prefix), 1);
    assert!(base.one::<bool>("SELECT last_hibp_check = fetched_at FROM password_tracking, enrichment_cache"));
}

/// Loaders that insert, upsert, and read whole columns, change them and write them back, all while a refresh runs.
#[test]
fn loaders_of_every_kind_beside_a_refresh_lose_nothing() {
    let base = Base::new("sources", "loaders");
    let addresses: Vec<String> = (1..=200).map(address).collect();
    make_sessions(&base, "jsonb", &addresses);
    base.sandbox.set_latency("*", 5);
    base.run(ATTACH_SESSIONS);
    let rounds = 60;
    std::thread::scope(|threads| {
        threads.spawn(|| base.run("CALL enrich_refresh()"));
        threads.spawn(|| {
            let mut client = base.client();
            for n in 0..rounds {
                let sql = format!("INSERT INTO session_summaries (session_id, source_ip) SELECT 'new{n}-' || i, host('8.8.0.1'::inet + ({n} * 7 + i) % 400)
                    FROM generate_series(1, 5) i");
                client.batch_execute(&sql).unwrap_or_else(|why| panic!("{}", said(&why)));
            }
        });
        threads.spawn(|| {
            let mut client = base.client();
            for n in 0..rounds {
                let sql = format!("INSERT INTO session_summaries (session_id, source_ip, vt_flagged) SELECT 's' || i, host('8.8.0.1'::inet + (i + {n}) % 250), true
                    FROM generate_series({n} + 1, {n} + 3) i
                    ON CONFLICT (session_id) DO UPDATE SET source_ip = EXCLUDED.source_ip, vt_flagged = true");
                client.batch_execute(&sql).unwrap_or_else(|why| panic!("{}", said(&why)));
            }
        });
        threads.spawn(|| {
            let mut client = base.client();
            for n in 0..rounds {
                let mut transaction = client.transaction().expect("a transaction");
                let session = format!("s{}", n % 40 + 100);
                let row = transaction
                    .query_one("SELECT coalesce(enrichment, '{}')::text FROM session_summaries WHERE session_id = $1 FOR UPDATE", &[&session])
                    .unwrap_or_else(|why| panic!("{}", said(&why)));
                let mut whole: serde_json::Value = serde_json::from_str(row.get(0)).expect("JSON");
                let counted = whole["password_stats"].as_i64().unwrap_or(0) + 1;
                whole["password_stats"] = json!(counted);
                transaction
                    .execute("UPDATE session_summaries SET enrichment = $2::text::jsonb WHERE session_id = $1", &[&session, &whole.to_string()])
                    .unwrap_or_else(|why| panic!("{}", said(&why)));
                transaction.commit().expect("a commit");
            }
        });
    });
    wait_filled(&base, "{dshield,urlhaus,spur}");
    wait_quiet(&base);
    let stray = "SELECT count(*) FROM session_summaries s CROSS JOIN LATERAL jsonb_each(s.enrichment) m
        LEFT JOIN enrichment_cache c ON c.service = m.key AND c.cache_key = s.source_ip
        WHERE m.key IN ('dshield', 'urlhaus', 'spur') AND m.value IS DISTINCT FROM c.payload";
    assert_eq!(base.one::<i64>(stray), 0, "a row holds another address's answer");
    assert_eq!(
        base.one::<i64>("SELECT sum((enrichment ->> 'password_stats')::int)::int8 FROM session_summaries"),
        i64::from(rounds)
    );
    assert_eq!(base.one::<i64>("SELECT count(*) FROM session_summaries"), 200 + i64::from(rounds) * 5);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM session_summaries WHERE vt_flagged"), i64::from(rounds) + 2);
}

#[test]
fn a_column_that_nobody_named_can_be_dropped_and_the_source_goes_on() {
    let base = Base::in_cluster(&Arc::new(own_cluster("optional")), "optional", &["--limits", "none"]);
    load(&base, &Shape::default(), &SMALL);
    base.run("SELECT enrich_attach('session_summaries'), enrich_attach('password_tracking')");
    wait_filled(&base, "{dshield,urlhaus,spur}");
    wait_quiet(&base);
    base.run(
        "ALTER TABLE session_summaries DROP last_event_at, DROP command_count, DROP file_downloads, DROP dshield_flagged, DROP enrichment_at;
         ALTER TABLE password_tracking DROP times_seen, DROP last_seen, DROP breach_prevalence",
    );
    let mut client = base.client();
    run(&mut client, "INSERT INTO session_summaries (session_id, source_ip) VALUES ('after', '9.9.9.33')");
    run(
        &mut client,
        "INSERT INTO password_tracking (password_hash, password_text) VALUES ('h', 'one that comes later')",
    );
    base.wait_for("SELECT count(*) FROM session_summaries WHERE session_id = 'after' AND enrichment::jsonb -> '_meta' ?& '{dshield,urlhaus,spur}'", 1i64);
    base.wait_for(
        "SELECT count(*) FROM password_tracking WHERE password_hash = 'h' AND last_hibp_check IS NOT NULL",
        1i64,
    );
    run(&mut client, "CALL enrich_refresh()");
    let said = "SELECT coalesce(string_agg(detail, '; '), '') FROM enrich_health() WHERE severity = 'error'";
    assert_eq!(base.one::<String>(said), "");
}
