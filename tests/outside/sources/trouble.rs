//! A table that changed or went away is reported, and the others go on.

use crate::sources_support::{
    insert_sessions, make_sessions, rows, sweeping_cluster, wait_filled, wait_quiet, ATTACH_SESSIONS,
};
use crate::support::{one, run, Base};

const BROKEN: &str = "SELECT coalesce(string_agg(check_name || ': ' || detail, '; ' ORDER BY check_name), '')
    FROM enrich_health() WHERE severity = 'error'";

/// A table that stays well, and another of this name.
fn two_sources(name: &str, other: &str) -> Base {
    let base = Base::in_cluster(&sweeping_cluster(), name, &["--limits", "none"]);
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_SESSIONS);
    base.run(&format!("CREATE TABLE {other} (id int PRIMARY KEY, ip text, answers jsonb)"));
    base.run(&format!("SELECT enrich_attach('{other}', 'ip', '{{dshield}}', 'answers')"));
    wait_quiet(&base);
    base
}

/// The table that stays well is still served.
fn others_go_on(base: &Base) {
    insert_sessions(base, &base.known("dshield", 2));
    wait_filled(base, "{dshield,urlhaus,spur}");
}

#[test]
fn a_dropped_table_is_reported_and_the_others_go_on() {
    let base = two_sources("dropped", "doomed");
    base.run("DROP TABLE doomed");
    base.wait_for(BROKEN, "source doomed: the table is gone".to_string());
    others_go_on(&base);
    base.run("SELECT enrich_detach('doomed')");
    base.wait_for(BROKEN, String::new());
}

#[test]
fn a_renamed_column_is_reported_until_it_has_its_name_back() {
    let base = two_sources("renamed", "visits");
    let keys = base.known("dshield", 3);
    base.run("ALTER TABLE visits RENAME ip TO address");
    base.wait_for(BROKEN, "source visits: column \"ip\" is gone".to_string());
    // the user's own work is not disturbed
    base.run(&format!("INSERT INTO visits (id, address) VALUES (1, '{}')", keys[2]));
    others_go_on(&base);
    base.run("ALTER TABLE visits RENAME address TO ip");
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", 1i64);
    base.wait_for(BROKEN, String::new());

    base.run("ALTER TABLE visits RENAME answers TO old_answers");
    base.wait_for(BROKEN, "source visits: column \"answers\" is gone".to_string());
    base.run("ALTER TABLE visits ADD answers text");
    base.wait_for(BROKEN, "source visits: column \"answers\" is now of type text".to_string());
    base.run("ALTER TABLE visits DROP answers, ADD answers json");
    base.wait_for("SELECT count(*) FROM visits WHERE answers ->> 'dshield' IS NOT NULL", 1i64);
    base.wait_for(BROKEN, String::new());
}

#[test]
fn a_row_that_refuses_its_answer_stops_no_other_row() {
    let base = two_sources("refusing", "strict");
    let keys = base.known("dshield", 20);
    base.run(
        "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN IF NEW.id = 7 THEN RAISE EXCEPTION 'seven stays as it is'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER picky BEFORE UPDATE ON strict FOR EACH ROW EXECUTE FUNCTION picky()",
    );
    let mut client = base.client();
    let sql = "INSERT INTO strict SELECT n, ip FROM unnest($1::text[]) WITH ORDINALITY AS u (ip, n)";
    client.execute(sql, &[&keys]).expect("rows");
    base.wait_for("SELECT count(*) FROM strict WHERE answers ? 'dshield'", 19i64);
    base.wait_for(&format!("SELECT ({BROKEN}) LIKE 'source strict: %{}%seven stays as it is%'", keys[6]), true);
    others_go_on(&base);
    run(&mut client, "DROP TRIGGER picky ON strict");
    base.wait_for("SELECT count(*) FROM strict WHERE answers ? 'dshield'", 20i64);
    base.wait_for(BROKEN, String::new());
}

#[test]
fn a_second_refresh_writes_nothing() {
    let base = Base::new("sources", "second");
    crate::sources_support::load(&base, &Default::default(), &crate::sources_support::SMALL);
    let mut client = base.client();
    run(&mut client, ATTACH_SESSIONS);
    run(
        &mut client,
        "SELECT enrich_attach('files', 'shasum', '{virustotal}'),
        enrich_attach('password_tracking', 'password_text', '{hibp}')",
    );
    run(&mut client, "CALL enrich_refresh()");
    let mut versions = || -> Vec<String> {
        ["session_summaries", "files", "password_tracking"]
            .iter()
            .flat_map(|table| {
                rows(&mut client, &format!("SELECT concat_ws(' ', '{table}', ctid, xmin) FROM {table} ORDER BY 1"))
            })
            .collect()
    };
    let first = versions();
    assert!(first.len() > 600, "{}", first.len());
    let asked = base.sandbox.stats();
    base.run("CALL enrich_refresh()");
    assert_eq!(versions(), first);
    assert_eq!(base.sandbox.stats(), asked, "what is fresh was asked for again");
    assert_eq!(one::<i64>(&mut base.client(), "SELECT count(*) FROM enrichment_indicator WHERE dirty"), 0);
    // also where every key is written once more
    base.run("UPDATE enrichment_indicator SET dirty = true; SELECT enrich_wake()");
    wait_quiet(&base);
    assert_eq!(versions(), first, "rows were written again that had not changed");
    // and where a key gets one more row, only that is
    base.run(
        "INSERT INTO session_summaries (session_id, source_ip, first_event_at) SELECT 'one more', source_ip, now() FROM session_summaries
            WHERE enrichment IS NOT NULL GROUP BY source_ip ORDER BY count(*) DESC LIMIT 1",
    );
    base.wait_for(
        "SELECT count(*) FROM session_summaries WHERE session_id = 'one more' AND enrichment IS NOT NULL",
        1i64,
    );
    wait_quiet(&base);
    let now = versions();
    assert!(first.iter().all(|row| now.contains(row)), "older rows of the key were written again");
    assert_eq!(now.len(), first.len() + 1);
}

#[test]
fn a_raw_column_is_not_written_again_either() {
    let base = Base::new("sources", "raw_again");
    base.run("CREATE TABLE visits (ip text, answers jsonb, flagged boolean); INSERT INTO visits SELECT '8.8.0.' || i % 20 FROM generate_series(1, 60) i");
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', shape => 'raw', flag_columns => '{\"flagged\": \"dshield\"}')");
    base.wait_for("SELECT count(*) FROM visits WHERE answers IS NULL", 0i64);
    wait_quiet(&base);
    let versions = "SELECT string_agg(concat_ws(' ', ctid, xmin), ',' ORDER BY ctid) FROM visits";
    let first = base.one::<String>(versions);
    base.run("UPDATE enrichment_indicator SET dirty = true; SELECT enrich_wake()");
    wait_quiet(&base);
    assert_eq!(base.one::<String>(versions), first);
}

#[test]
fn a_flag_column_and_a_column_of_an_expression_that_go_are_reported() {
    let base = two_sources("altered", "visits");
    base.run("CREATE TABLE events (payload jsonb, kind text, answers jsonb, flagged boolean)");
    base.run("SELECT enrich_attach('events', NULL, '{dshield}', 'answers', key_expression => $$payload ->> 'ip'$$, eligible => $$kind = 'login'$$,
        flag_columns => '{\"flagged\": \"dshield\"}')");
    wait_quiet(&base);
    base.run("ALTER TABLE events RENAME flagged TO suspicious");
    base.wait_for(BROKEN, "source events: column \"flagged\" is gone".to_string());
    base.run("ALTER TABLE events RENAME suspicious TO flagged");
    base.wait_for(BROKEN, String::new());
    base.run("ALTER TABLE events RENAME kind TO sort");
    base.wait_for(&format!("SELECT ({BROKEN}) LIKE 'source events: %kind%'"), true);
    others_go_on(&base);
    base.run("ALTER TABLE events RENAME sort TO kind");
    base.wait_for(BROKEN, String::new());
    let key = base.known("dshield", 3)[2].clone();
    base.run(&format!("INSERT INTO events (payload, kind) VALUES ('{{\"ip\": \"{key}\"}}', 'login')"));
    base.wait_for("SELECT count(*) FROM events WHERE answers ? 'dshield'", 1i64);
    base.run("ALTER TABLE visits ALTER ip TYPE bytea USING ip::bytea");
    base.wait_for(BROKEN, "source visits: column \"ip\" is now of type bytea".to_string());
}

#[test]
fn health_says_when_rows_cannot_be_found_by_an_index_or_seen_by_a_trigger() {
    let base = Base::new("sources", "advice");
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run("CREATE TABLE visits (ip text, note text, answers jsonb); INSERT INTO visits SELECT NULL, repeat('x', 1000) FROM generate_series(1, 10000)");
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')");
    let said = "SELECT coalesce(string_agg(hint, '; ' ORDER BY hint), '') FROM enrich_health() WHERE check_name = 'source visits'";
    assert_eq!(base.one::<String>(said), "CREATE INDEX CONCURRENTLY ON public.visits (ip);");
    base.run("CREATE INDEX ON visits (ip)");
    assert_eq!(base.one::<String>(said), "");
    base.run("ALTER TABLE visits DISABLE TRIGGER USER");
    assert!(base.one::<String>(said).contains("ENABLE TRIGGER USER"));
}
