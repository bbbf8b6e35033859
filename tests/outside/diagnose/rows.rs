//! What stands in the rows themselves: answers that did not get there, and a table that stopped growing.

use super::{answer, base, diagnosis, wait_quiet_but_for_the_queue, DSHIELD, SESSIONS, SOMETHING};
use crate::support::Base;

fn rows_of(base: &Base, service: &str, key: &str) -> String {
    let said: String = base.one(&format!("SELECT enrich_explain('{service}', '{key}')"));
    said.lines().find_map(|line| line.strip_prefix("Rows: ")).unwrap_or("-").to_string()
}

/// A trigger that refuses updates of some rows.
fn refuse(base: &Base, table: &str, when: &str) {
    base.run(&format!(
        "CREATE FUNCTION {table}_refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nobody changes this'; END $$;
        CREATE TRIGGER refuses BEFORE UPDATE ON {table} FOR EACH ROW WHEN ({when}) EXECUTE FUNCTION {table}_refuses()"
    ));
}

#[test]
fn answers_that_rows_refuse_are_told_with_their_share() {
    let base = base("refused");
    base.run(SESSIONS);
    // of 8.8.0.8 one row holds what is not ours, and a trigger guards those of 8.8.0.7
    base.run("UPDATE session_summaries SET enrichment = '[1]' WHERE session_id = 's8-0'");
    refuse(&base, "session_summaries", "OLD.source_ip = '8.8.0.7'");
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,expiring}', 'enrichment')");
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "dshield", 1, 100, DSHIELD, "1 minute", "7 days");
    base.wait_for(
        "SELECT count(*) FROM session_summaries WHERE enrichment -> '_meta' ->> 'dshield' IS NOT NULL",
        989i64,
    );
    wait_quiet_but_for_the_queue(&base);
    let found = diagnosis(&base);
    let (severity, affected, share, example, hint) = &found["not_written dshield"];
    assert_eq!(
        (severity.as_str(), *affected, share.as_str(), example.as_str()),
        ("error", Some(11), "0.011", "8.8.0.7")
    );
    assert!(hint.contains("8.8.0.7 for one: ") && hint.contains("nobody changes this"), "{hint}");
    assert!(!found.contains_key("not_written expiring"), "it has not answered: {found:#?}");
    let said = rows_of(&base, "dshield", "8.8.0.7");
    let set_aside = "session_summaries (10): 10 without the answer that is there (1 of ";
    assert!(said.starts_with(set_aside) && said.contains("nobody changes this"), "{said}");
    assert!(
        rows_of(&base, "dshield", "8.8.0.8").starts_with("session_summaries (10): 1 without the answer that is there")
    );
    assert_eq!(rows_of(&base, "dshield", "8.8.0.9"), "session_summaries (10): written.");
    assert_eq!(rows_of(&base, "expiring", "8.8.0.9"), "session_summaries (10): no answer to write yet.");
    assert_eq!(base.one::<i64>("SELECT rows_to_write FROM enrichment_coverage WHERE service = 'dshield'"), 0);

    // mended: the next sweep has them written, but for what is not ours to write
    let sweep = "UPDATE enrichment_source SET swept_at = NULL; SELECT enrich_wake()";
    let written = "SELECT count(*) FROM session_summaries WHERE enrichment -> '_meta' ->> 'dshield' IS NOT NULL";
    base.run("DROP TRIGGER refuses ON session_summaries");
    base.run(sweep);
    base.wait_for(written, 999i64);
    wait_quiet_but_for_the_queue(&base);
    base.wait_for("SELECT count(last_error) FROM enrichment_source", 0i64);
    let found = diagnosis(&base);
    let (_, affected, _, example, hint) = &found["not_written dshield"];
    assert_eq!((*affected, example.as_str()), (Some(1), "8.8.0.8"));
    assert!(hint.contains("A value that is no JSON object is left alone"), "{hint}");
    base.run("UPDATE session_summaries SET enrichment = NULL WHERE session_id = 's8-0'");
    base.run(sweep);
    base.wait_for(written, 1000i64);
    wait_quiet_but_for_the_queue(&base);
    assert!(!diagnosis(&base).contains_key("not_written dshield"));
}

#[test]
fn a_table_that_refuses_whatever_is_written_is_told() {
    let base = base("stubborn");
    base.run("CREATE TABLE visits (ip text, extra jsonb); INSERT INTO visits SELECT '8.8.0.' || k FROM generate_series(1, 20) k, generate_series(1, 3)");
    refuse(&base, "visits", "true");
    base.run(
        "CREATE TABLE files (shasum text, vt_total int, enrichment_status varchar(32) DEFAULT 'pending');
        INSERT INTO files SELECT encode(sha256(i::text::bytea), 'hex') FROM generate_series(1, 4) i",
    );
    refuse(&base, "files", &format!("OLD.shasum = encode(sha256('{}'), 'hex')", 1));
    base.run("SELECT enrich_attach('visits', 'ip', '{partly}', 'extra'), enrich_attach('files')");
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "partly", 1, 20, SOMETHING, "1 minute", "7 days");
    base.run("SELECT enrich_store('virustotal', shasum, '{\"data\": {\"attributes\": {\"last_analysis_stats\": {\"malicious\": 1}}}}') FROM files");
    base.wait_for("SELECT count(last_error) FROM enrichment_source", 2i64);
    base.wait_for("SELECT count(*) FROM files WHERE enrichment_status = 'enriched'", 3i64);
    base.wait_for("SELECT count(*) FROM enrichment_indicator WHERE source = 'files' AND dirty", 0i64);
    let found = diagnosis(&base);
    for (cause, affected, share) in [("not_written partly", 60, "1"), ("not_written virustotal", 1, "0.25")] {
        let (severity, rows, part, _, hint) = &found[cause];
        assert_eq!((severity.as_str(), *rows, part.as_str()), ("error", Some(affected), share), "{cause}");
        assert!(hint.contains("nobody changes this"), "{hint}");
    }
    // they stay marked, so that they are written as soon as the table lets them
    let to_write = "SELECT string_agg(service || ' ' || rows_to_write, ', ' ORDER BY service) FROM enrichment_coverage";
    assert_eq!(base.one::<String>(to_write), "partly 60, virustotal 0");
    let said = rows_of(&base, "partly", "8.8.0.5");
    assert!(said.starts_with("visits (3): still to be written (") && said.contains("nobody changes this"), "{said}");
}

#[test]
fn a_table_that_stopped_growing_is_told_with_the_day() {
    let base = base("stopped");
    base.run("CREATE TABLE visits (ip text, created_at timestamptz, extra jsonb);
        INSERT INTO visits SELECT '8.8.0.' || d, (date_trunc('day', now() AT TIME ZONE 'UTC') - interval '1 hour' - d * interval '1 day') AT TIME ZONE 'UTC'
        FROM generate_series(10, 29) d;
        INSERT INTO visits VALUES ('8.8.0.9', '-infinity');
        SELECT enrich_attach('visits', 'ip', '{partly}', 'extra')");
    wait_quiet_but_for_the_queue(&base);
    let found = diagnosis(&base);
    let newest: String = base.one("SELECT max((created_at AT TIME ZONE 'UTC')::date)::text FROM visits");
    let (severity, affected, _, example, _) = &found["no_new_rows"];
    let expected = format!("visits: the newest row is of {newest}");
    assert_eq!((severity.as_str(), *affected, example.as_str()), ("warning", None, expected.as_str()));
    base.run("INSERT INTO visits VALUES ('8.8.0.8', now())");
    assert!(!diagnosis(&base).contains_key("no_new_rows"));
}

#[test]
fn flags_that_something_has_cleared_are_told_with_the_statement_that_sets_them() {
    let base = base("cleared");
    base.run(SESSIONS);
    base.run(
        "ALTER TABLE session_summaries ADD \"Found by dshield\" boolean;
        SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,expiring}', 'enrichment',
            eligible => 'source_ip IS NOT NULL', flag_columns => '{\"Found by dshield\": \"dshield\"}')",
    );
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "dshield", 1, 50, DSHIELD, "1 minute", "7 days");
    answer(&base, "dshield", 51, 100, r#"'{"ip": {"ascountry": "DE", "count": 0}}'"#, "1 minute", "7 days");
    let flagged = "SELECT count(*) FROM session_summaries WHERE \"Found by dshield\"";
    base.wait_for(flagged, 500i64);
    wait_quiet_but_for_the_queue(&base);
    assert!(!diagnosis(&base).contains_key("flag_cleared dshield"));

    // of ten rows with fault and ten without
    base.run(
        "UPDATE session_summaries SET \"Found by dshield\" = CASE source_ip WHEN '8.8.0.8' THEN NULL ELSE false END
        WHERE source_ip IN ('8.8.0.7', '8.8.0.8', '8.8.0.77')",
    );
    let found = diagnosis(&base);
    let (severity, affected, share, example, hint) = &found["flag_cleared dshield"];
    assert_eq!(
        (severity.as_str(), *affected, share.as_str(), example.as_str()),
        ("warning", Some(20), "0.02", "8.8.0.7")
    );
    let (said, statement) = hint.split_once(" To set it now: ").unwrap_or_else(|| panic!("{hint}"));
    assert!(said.contains("\"Found by dshield\" is not true"), "{said}");
    let set = base.client().execute(statement.trim_end_matches(';'), &[]).unwrap_or_else(|why| panic!("{why:?}"));
    assert_eq!((set, base.one::<i64>(flagged)), (20, 500), "rows set, and no others written");
    assert!(!diagnosis(&base).contains_key("flag_cleared dshield"));
}

/// Of two flags the one that was cleared is named; a statement that would have to make the keys is not written.
#[test]
fn a_flag_behind_an_expression_that_was_cleared_is_told_without_a_statement() {
    let base = base("cleared_expression");
    base.run(
        r#"CREATE TABLE events (payload jsonb, answers jsonb, suspicious boolean, listed boolean);
        INSERT INTO events SELECT jsonb_build_object('ip', '8.8.0.' || k) FROM generate_series(1, 10) k;
        SELECT enrich_attach('events', NULL, '{dshield}', 'answers', key_expression => $$payload ->> 'ip'$$,
            flag_columns => '{"suspicious": "dshield", "listed": "dshield"}')"#,
    );
    wait_quiet_but_for_the_queue(&base);
    answer(&base, "dshield", 1, 10, DSHIELD, "1 minute", "7 days");
    base.wait_for("SELECT count(*) FROM events WHERE suspicious AND listed", 10i64);
    wait_quiet_but_for_the_queue(&base);
    base.run("UPDATE events SET listed = false WHERE payload ->> 'ip' IN ('8.8.0.3', '8.8.0.4')");
    let found = diagnosis(&base);
    let (_, affected, share, _, hint) = &found["flag_cleared dshield"];
    assert_eq!((*affected, share.as_str()), (Some(2), "0.2"));
    assert!(hint.contains("events, and listed is not true") && hint.ends_with("answer of the key."), "{hint}");
}

#[test]
fn passwords_that_padding_made_breached_are_told() {
    let base = base("padding");
    base.run(
        "CREATE TABLE password_tracking (password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz);
        INSERT INTO password_tracking SELECT 'word ' || i, i <= 10, CASE WHEN i <= 4 THEN 0 WHEN i <= 10 THEN i END, now()
        FROM generate_series(1, 20) i;
        SELECT enrich_attach('password_tracking', 'password_text', '{hibp}')",
    );
    wait_quiet_but_for_the_queue(&base);
    let found = diagnosis(&base);
    let (severity, affected, share, _, hint) = &found["unfounded_breached hibp"];
    assert_eq!((severity.as_str(), *affected, share.as_str()), ("warning", Some(4), "0.2"));
    assert!(hint.contains("a row of padding was taken for an answer"), "{hint}");
    assert_eq!(found["unfounded_not_breached hibp"].1, Some(10));
    base.run("UPDATE password_tracking SET breached = NULL, last_hibp_check = NULL WHERE breach_prevalence = 0");
    assert!(!diagnosis(&base).contains_key("unfounded_breached hibp"));
}

#[test]
fn of_a_large_table_a_part_is_read_and_the_numbers_are_scaled_up() {
    let base = base("large");
    // a tenth of the rows without an answer, all through the table
    base.run(
        "CREATE TABLE visits (ip text, extra jsonb);
        INSERT INTO visits SELECT '8.8.' || i % 50 || '.' || i / 50 % 20, NULL FROM generate_series(1, 300000) i;
        ANALYZE visits;
        UPDATE enrichment_service SET enabled = false WHERE name = 'partly';
        SELECT enrich_store('dshield', '8.8.' || a || '.' || b, '{\"ip\": {\"count\": 0, \"ascountry\": \"DE\"}}')
            FROM generate_series(0, 49) a, generate_series(0, 17) b;
        SELECT enrich_attach('visits', 'ip', '{dshield}')",
    );
    wait_quiet_but_for_the_queue(&base);
    base.run("DELETE FROM enrichment_queue");
    let found = diagnosis(&base);
    let (_, affected, share, _, _) = &found["not_asked dshield"];
    let affected = affected.unwrap_or(0);
    assert!((27_000..33_000).contains(&affected), "{affected} of 30,000 rows");
    let share: f64 = share.parse().expect("a share");
    assert!((0.09..0.11).contains(&share), "{share}");
    let part: f64 = base.one("SELECT enrichment_sample_percent('visits', 100000)");
    assert!((20.0..50.0).contains(&part), "{part} % were read");
}
