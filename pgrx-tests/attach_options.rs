//! The options of enrich_attach: what is refused, what follows from a table's name, and what the trigger makes of them.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, list, refused, run, text};
    use pgrx::prelude::*;

    fn events(name: &str) {
        run(&format!("CREATE TABLE {name} (id int, payload jsonb, answers jsonb, seen timestamptz, bad bool)"));
    }

    #[pg_test]
    fn options_tables_known_by_name_need_nothing_else() {
        run("CREATE TABLE session_summaries (session_id text, source_ip text, command_count int, vt_flagged bool, enrichment json,
                last_event_at timestamptz);
            CREATE TABLE files (shasum text, vt_malicious bool, first_seen timestamptz);
            CREATE TABLE password_tracking (password_text text, breached bool, times_seen int)");
        run("SELECT enrich_attach('session_summaries'), enrich_attach('files'), enrich_attach('password_tracking')");
        assert_eq!(
            list("SELECT concat_ws('|', name, key_column, services, into_column, shape, time_column) FROM enrichment_source ORDER BY name"),
            [
                "files|shasum|{virustotal}|files|first_seen",
                "password_tracking|password_text|{hibp}|passwords",
                "session_summaries|source_ip|{dshield,urlhaus,spur}|enrichment|cowrieprocessor|last_event_at",
            ]
        );
        assert_eq!(
            text("SELECT weight FROM enrichment_source WHERE name = 'session_summaries'"),
            "1 + least(greatest(coalesce(command_count, 0), 0), 50) + CASE WHEN vt_flagged THEN 20 ELSE 0 END"
        );
        // who says what is to be written gets that
        run("SELECT enrich_attach('session_summaries', shape => 'raw', source_name => 'as received'),
            enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment', source_name => 'by hand')");
        assert_eq!(
            list("SELECT shape FROM enrichment_source WHERE name IN ('as received', 'by hand')"),
            ["raw", "raw"]
        );
        events("options_unknown");
        refused("SELECT enrich_attach('options_unknown')").says(
            "22023",
            "relation, key_column and services must be given",
            "For example",
        );
    }

    #[pg_test]
    fn options_what_is_not_one_expression_is_refused() {
        events("options_expressions");
        let attach = |more: &str| {
            refused(&format!("SELECT enrich_attach('options_expressions', NULL, '{{dshield}}', 'answers', {more})"))
        };
        for text in [
            "payload ->> ''a''), (1",
            "1) FROM pg_class --",
            "1) UNION SELECT (2",
            "''a'') WHERE (true",
            "''a'') AS x --",
        ] {
            let refusal = attach(&format!("key_expression => '{text}'"));
            assert!(["22023", "42601"].contains(&refusal.sqlstate.as_str()), "{text}: {refusal:?}");
        }
        attach("key_expression => 'id'").says(
            "42804",
            "an expression of type integer cannot give keys",
            "Cast it to text",
        );
        assert_eq!(attach("key_expression => 'payload ->> ''ip''', eligible => 'id + 1'").sqlstate, "42804");
        assert_eq!(attach("key_expression => 'nowhere'").sqlstate, "42703");
        assert_eq!(attach("key_expression => 'ctid::text'").sqlstate, "42703");
        assert_eq!(attach("key_expression => 'payload ->> ''ip''', weight => 'count(*)'").sqlstate, "42803");
        assert_eq!(count("SELECT count(*) FROM enrichment_source"), 0);
    }

    #[pg_test]
    fn options_that_do_not_go_together_are_refused_with_a_hint() {
        events("options_together");
        let attach =
            |more: &str| refused(&format!("SELECT enrich_attach('options_together', NULL, '{{dshield}}', {more})"));
        let key = "key_expression => 'payload ->> ''ip'''";
        attach(&format!("'answers', {key}, shape => 'flat'")).says(
            "22023",
            "shape \"flat\" does not fit",
            "cowrieprocessor",
        );
        attach(&format!("NULL, {key}, shape => 'raw'")).says("22023", "shape \"raw\" does not fit", "leave it out");
        attach(&format!("'answers', {key}, flag_columns => '{{\"bad\": \"spur\"}}'")).says(
            "22023",
            "flag column \"bad\" of service \"spur\" does not fit",
            "boolean",
        );
        attach(&format!("'answers', {key}, flag_columns => '{{\"id\": \"dshield\"}}'")).says(
            "22023",
            "flag column \"id\" of service \"dshield\" does not fit",
            "boolean",
        );
        attach(&format!("'answers', {key}, time_column => 'bad'")).says(
            "42804",
            "column \"bad\" of type boolean cannot tell when a row came",
            "timestamptz",
        );
        attach(&format!("'answers', {key}, commit_interval => 0")).says(
            "22023",
            "commit_interval must lie between 1 and 100000",
            "500 is usual",
        );
        refused(&format!("SELECT enrich_attach('options_together', 'id', '{{dshield}}', {key})")).says(
            "22023",
            "key_column and key_expression cannot both be given",
            "NULL for it",
        );
        run("CREATE TABLE options_parted (ip text) PARTITION BY LIST (ip); CREATE TABLE options_part PARTITION OF options_parted DEFAULT");
        refused("SELECT enrich_attach('options_part', 'ip', '{dshield}')").says(
            "42809",
            "\"options_part\" is a partition",
            "Attach public.options_parted",
        );
    }

    #[pg_test]
    fn options_the_trigger_notes_eligible_keys_with_their_rows_weight_and_time() {
        events("options_noted");
        run("SELECT enrich_attach('options_noted', NULL, '{dshield}', 'answers', key_expression => 'payload ->> ''ip'' -- who',
            eligible => 'id < 100', weight => 'id', time_column => 'seen')");
        run(
            r#"INSERT INTO options_noted (id, payload, seen) VALUES (1, '{"ip": "9.61.0.1"}', '2026-01-01'), (5, '{"ip": "9.61.0.1"}', '2026-01-03'),
            (2, '{"ip": "9.61.0.2"}', NULL), (100, '{"ip": "9.61.0.3"}', now()), (3, '{}', now())"#,
        );
        let noted = "SELECT concat_ws(' ', k, r, w, to_char(l AT TIME ZONE 'UTC', 'YYYY-MM-DD')) FROM enrichment_arrival,
            ROWS FROM (unnest(raw_keys), unnest(row_counts), unnest(weights), unnest(latest)) AS u (k, r, w, l) ORDER BY k";
        assert_eq!(list(noted), ["9.61.0.1 2 6 2026-01-03", "9.61.0.2 1 2"]);
        assert_eq!(count("SELECT count(*) FROM enrichment_arrival"), 1, "more than one row for a statement");
        run("DELETE FROM enrichment_arrival; UPDATE options_noted SET bad = true WHERE id < 100");
        assert_eq!(count("SELECT count(*) FROM enrichment_arrival"), 0);
        run("UPDATE options_noted SET id = 9 WHERE id = 100");
        assert_eq!(list(noted).len(), 1);
        run("DELETE FROM enrichment_arrival; TRUNCATE options_noted");
        assert_eq!(list("SELECT raw_keys FROM enrichment_arrival"), ["{}"]);
    }
}
