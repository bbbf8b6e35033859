//! Coverage and forecasts against tables computed by hand.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, run, service, text};
    use pgrx::prelude::*;

    /// Nineteen rows of ten values: seven keys, one of them written in two ways, a private address, none at all, and one that
    /// was not picked up yet. Of dshield each key has another fate, of spur all but one have none.
    fn planted() {
        run("CREATE TABLE coverage_rows (ip text, sensor text, last_event_at timestamptz);
            INSERT INTO coverage_rows SELECT ip, CASE WHEN ip LIKE '%9.90.0.1' THEN 'north' ELSE 'south' END,
                CASE WHEN ip LIKE '%9.90.0.1' THEN timestamptz '2026-11-08 23:59:59+00' ELSE timestamptz '2026-11-09 00:00:00+00' END
            FROM (VALUES ('9.90.0.1', 3), (' 9.90.0.1', 1), ('9.90.0.2', 2), ('9.90.0.3', 1), ('9.90.0.4', 4), ('9.90.0.5', 1), ('9.90.0.6', 2),
                ('9.90.0.7', 1), ('10.0.0.1', 2), ('9.90.0.99', 1)) v (ip, n), generate_series(1, v.n);
            INSERT INTO coverage_rows VALUES (NULL, NULL, NULL)");
        run("SELECT enrich_attach('coverage_rows', 'ip', '{dshield,spur}')");
        run("INSERT INTO enrichment_indicator (source, raw_key, cache_key, problem)
            SELECT DISTINCT 'coverage_rows', ip, CASE WHEN ip <> '10.0.0.1' THEN btrim(ip) END, CASE WHEN ip = '10.0.0.1' THEN 'ineligible: a private address' END
            FROM coverage_rows WHERE ip <> '9.90.0.99'");
        run("SELECT enrich_store('dshield', '9.90.0.1', '{\"ip\": {\"number\": \"9.90.0.1\", \"count\": null}}'),
            enrich_store('dshield', '9.90.0.2', NULL, response_status => 'not_found'),
            enrich_store('dshield', '9.90.0.3', '{\"ip\": {\"asname\": \"\", \"ascountry\": \"\"}}'),
            enrich_store('dshield', '9.90.0.4', NULL, response_status => 'error'),
            enrich_store('spur', '9.90.0.1', NULL, response_status => 'invalid')");
        run("INSERT INTO enrichment_queue (service, cache_key, state, last_outcome) VALUES
            ('dshield', '9.90.0.5', 'dead', 'unauthorized'), ('dshield', '9.90.0.6', 'waiting', NULL)");
    }

    const COUNTS: &str = "answered, success, not_found, empty, failed, queued, never_asked, ineligible, percent";

    #[pg_test]
    fn coverage_counts_keys_and_rows_as_a_hand_does() {
        planted();
        let row = |service: &str, columns: &str| {
            text(&format!("SELECT concat_ws(' ', {columns}) FROM enrichment_coverage WHERE service = '{service}'"))
        };
        assert_eq!(row("dshield", &format!("total, eligible, {COUNTS}")), "8 7 2 1 1 1 2 1 1 1 28.57");
        assert_eq!(
            row("dshield", "failed_by_cause, rows, rows_eligible, rows_answered, rows_percent"),
            r#"{"error": 1, "unauthorized": 1} 19 16 6 37.50"#
        );
        assert_eq!(row("spur", &format!("total, eligible, {COUNTS}")), "8 7 0 0 0 0 1 0 6 1 0.00");
        assert_eq!(
            row("spur", "failed_by_cause, rows, rows_eligible, rows_answered, rows_percent"),
            r#"{"invalid": 1} 19 16 0 0.00"#
        );
        // of what is answered, and marked for writing: four spellings; nothing is written where a table is only joined
        let to_write = || (row("dshield", "rows_to_write"), row("spur", "rows_to_write"));
        assert_eq!(to_write(), ("0".into(), "0".into()));
        run("UPDATE enrichment_source SET shape = 'raw'; UPDATE enrichment_indicator SET row_count = 7");
        assert_eq!(to_write(), ("28".into(), "0".into()));
        run("UPDATE enrichment_indicator SET dirty = false WHERE raw_key = '9.90.0.2'");
        assert_eq!(to_write(), ("21".into(), "0".into()));
    }

    #[pg_test]
    fn coverage_takes_a_large_payload_that_holds_nothing_for_no_answer() {
        planted();
        let large = "(SELECT jsonb_object_agg(md5(i::text), (ARRAY['\"\"', '{}', '[]', 'null', '{\"a\": \"\"}'])[1 + i % 5]::jsonb) FROM generate_series(1, 60) i)";
        let store = |payload: &str| run(&format!("SELECT enrich_store('spur', '9.90.0.2', {payload})"));
        let counted = || {
            text(
                "SELECT concat_ws(' ', empty, answered, rows_answered) FROM enrichment_coverage WHERE service = 'spur'",
            )
        };
        let told = || {
            list("SELECT concat_ws(' ', affected, share) FROM enrich_diagnose() WHERE cause = 'empty_answer' AND service = 'spur'")
        };
        store(large);
        holds("octet_length(payload::text) > 2048 AND pg_column_size(payload) > 2000 FROM enrichment_cache WHERE service = 'spur' AND cache_key = '9.90.0.2'");
        assert_eq!((counted(), told()), ("1 0 0".into(), vec!["2 0.1250".to_string()]));
        // a failure leaves what stands there as it is
        run("SELECT enrich_store('spur', '9.90.0.2', NULL, response_status => 'error')");
        assert_eq!(counted(), "1 0 0");
        store(&format!("{large} || '{{\"last\": [[0]]}}'"));
        assert_eq!((counted(), told()), ("0 1 2".into(), Vec::new()));
        // one so large that it lies out of line, and hash ranges of nothing but padding
        store("(SELECT jsonb_object_agg(md5(i::text), '') FROM generate_series(1, 9000) i)");
        assert_eq!(counted(), "1 0 0");
        for (count, hollow) in [(0, true), (3, false)] {
            run(&format!("SELECT enrich_store('hibp', 'ABCDE', jsonb_build_object(repeat('A', 35), {count}))"));
            holds(&format!("hollow = {hollow} FROM enrichment_cache WHERE service = 'hibp' AND cache_key = 'ABCDE'"));
        }
    }

    #[pg_test]
    fn coverage_by_week_and_by_sensor_counts_rows() {
        planted();
        run("SET LOCAL timezone = 'America/Los_Angeles'");
        assert_eq!(
            list(&format!(
                "SELECT concat_ws(' ', coalesce(week::text, '-'), rows, eligible, {COUNTS}) FROM enrichment_coverage_weekly
                WHERE service = 'dshield' ORDER BY week"
            )),
            ["2026-11-02 4 4 4 4 0 0 0 0 0 0 100.00", "2026-11-09 14 12 2 0 2 1 5 2 2 2 16.66", "- 1 0 0 0 0 0 0 0 0 1"]
        );
        assert_eq!(
            list(&format!(
                "SELECT concat_ws(' ', coalesce(sensor, '-'), rows, eligible, {COUNTS}) FROM enrichment_coverage_by_sensor
                WHERE service = 'spur' ORDER BY sensor"
            )),
            ["north 4 4 0 0 0 0 4 0 0 0 0.00", "south 14 12 0 0 0 0 0 0 12 2 0.00", "- 1 0 0 0 0 0 0 0 0 1"]
        );
        assert_eq!(
            list("SELECT concat_ws(' ', coalesce(week::text, '-'), failed_by_cause) FROM enrichment_coverage_weekly WHERE service = 'dshield' ORDER BY week"),
            ["2026-11-02 {}", r#"2026-11-09 {"error": 4, "unauthorized": 1}"#, "- {}"]
        );
        assert_eq!(
            list("SELECT concat_ws(' ', service, sensor, failed_by_cause) FROM enrichment_coverage_by_sensor WHERE failed > 0 ORDER BY 1"),
            [r#"dshield south {"error": 4, "unauthorized": 1}"#, r#"spur north {"invalid": 4}"#]
        );
        run("ALTER TABLE coverage_rows DROP COLUMN sensor, DROP COLUMN last_event_at");
        assert_eq!(count("SELECT (SELECT count(*) FROM enrichment_coverage_weekly) + (SELECT count(*) FROM enrichment_coverage_by_sensor)"), 0);
    }

    /// Thirteen rows whose key an expression makes, six of them eligible: of two weeks, by a time column of their own. Only
    /// the owner of the table sees the condition true.
    fn planted_with_an_expression() {
        run("CREATE ROLE coverage_owner;
            CREATE TABLE coverage_events (payload jsonb, kind text, sensor text, happened timestamp, created_at timestamptz DEFAULT '2020-01-01 00:00:00+00');
            ALTER TABLE coverage_events OWNER TO coverage_owner;
            INSERT INTO coverage_events SELECT jsonb_build_object('ip', v.ip), v.kind, CASE WHEN v.kind = 'login' THEN 'north' ELSE 'south' END,
                CASE v.week WHEN 1 THEN timestamp '2026-11-08 23:59:59' ELSE timestamp '2026-11-09 00:00:00' END
            FROM (VALUES ('9.92.0.1', 'login', 1, 3), ('9.92.0.2', 'login', 2, 2), ('9.92.0.9', 'login', 2, 1), ('10.0.0.1', 'login', 2, 1),
                (NULL, 'login', 2, 1), ('9.92.0.1', 'other', 2, 4), ('9.92.0.2', NULL, 1, 1)) v (ip, kind, week, n), generate_series(1, v.n)");
        run("SELECT enrich_attach('coverage_events', NULL, '{dshield}', key_expression => $$payload ->> 'ip' -- the attacker$$,
                eligible => $$kind = 'login' AND current_user = 'coverage_owner'$$, time_column => 'happened');
            INSERT INTO enrichment_indicator (source, raw_key, cache_key, problem, row_count) VALUES ('coverage_events', '9.92.0.1', '9.92.0.1', NULL, 3),
                ('coverage_events', '9.92.0.2', '9.92.0.2', NULL, 2), ('coverage_events', '10.0.0.1', NULL, 'ineligible: a private address', 1);
            INSERT INTO enrichment_queue (service, cache_key, state, last_outcome) VALUES ('dshield', '9.92.0.2', 'dead', 'unauthorized');
            SELECT enrich_store('dshield', '9.92.0.1', '{\"ip\": {\"count\": 1}}')");
    }

    #[pg_test]
    fn coverage_of_an_expression_counts_what_its_owner_finds_eligible_whoever_looks() {
        planted_with_an_expression();
        run("SET LOCAL timezone = 'America/Los_Angeles'");
        for role in ["none", "pg_monitor"] {
            run(&format!("SET LOCAL ROLE {role}"));
            assert_eq!(
                text(&format!("SELECT concat_ws(' ', total, eligible, {COUNTS}, rows, rows_eligible, rows_answered, rows_percent) FROM enrichment_coverage")),
                "3 2 1 1 0 0 1 0 0 1 50.00 13 6 3 50.00"
            );
            assert_eq!(
                list(&format!("SELECT concat_ws(' ', week, rows, eligible, {COUNTS}) FROM enrichment_coverage_weekly ORDER BY week")),
                ["2026-11-02 4 3 3 3 0 0 0 0 0 1 100.00", "2026-11-09 9 3 0 0 0 0 2 0 1 6 0.00"]
            );
            assert_eq!(
                list(&format!("SELECT concat_ws(' ', sensor, rows, eligible, {COUNTS}) FROM enrichment_coverage_by_sensor ORDER BY sensor")),
                ["north 8 6 3 3 0 0 2 0 1 2 50.00", "south 5 0 0 0 0 0 0 0 0 5"]
            );
            assert_eq!(
                list("SELECT failed_by_cause FROM enrichment_coverage_weekly ORDER BY week"),
                ["{}", r#"{"unauthorized": 2}"#]
            );
            // the forecast takes the rows that were counted: nobody evaluates anything
            assert_eq!(
                text("SELECT concat_ws(' ', rows, rows_covered, eta_50 = now(), eta_90) FROM enrichment_eta WHERE service = 'dshield'"),
                "5 3 t"
            );
        }
        run("RESET ROLE");
        // a column of ordinary keys may have a condition too
        run("CREATE TABLE coverage_some (ip text); INSERT INTO coverage_some VALUES ('9.92.0.1'), ('9.92.0.1'), ('9.93.0.1');
            SELECT enrich_attach('coverage_some', 'ip', '{dshield}', eligible => $$ip LIKE '9.92.%'$$);
            INSERT INTO enrichment_indicator (source, raw_key, cache_key) VALUES ('coverage_some', '9.92.0.1', '9.92.0.1')");
        let some = "SELECT concat_ws(' ', rows, rows_eligible, rows_answered) FROM enrichment_coverage WHERE source = 'coverage_some'";
        assert_eq!(text(some), "3 2 2");
        holds("count(*) = 0 FROM enrich_diagnose() WHERE cause = 'not_asked' AND affected <> 1");
    }

    #[pg_test]
    fn coverage_of_an_expression_that_fails_stands_in_no_ones_way() {
        planted();
        planted_with_an_expression();
        run("UPDATE enrichment_source SET eligible = $$1 / (length(kind) - 5) = 1$$ WHERE name = 'coverage_events'");
        assert_eq!(
            list(
                "SELECT concat_ws(' ', source, service, coalesce(rows::text, '-')) FROM enrichment_coverage ORDER BY 1"
            ),
            ["coverage_events dshield -", "coverage_rows dshield 19", "coverage_rows spur 19"]
        );
        run("SELECT * FROM enrichment_coverage_weekly, enrichment_coverage_by_sensor, enrichment_eta, enrich_diagnose()");
        holds("count(*) = 2 FROM (SELECT DISTINCT source FROM enrichment_coverage) s");
    }

    #[pg_test]
    fn coverage_of_a_table_that_is_gone_stands_in_no_ones_way() {
        planted();
        run("CREATE TABLE coverage_gone (ip text); SELECT enrich_attach('coverage_gone', 'ip', '{dshield}'); DROP TABLE coverage_gone");
        assert_eq!(
            list(
                "SELECT concat_ws(' ', source, service, coalesce(rows::text, '-')) FROM enrichment_coverage ORDER BY 1"
            ),
            ["coverage_gone dshield -", "coverage_rows dshield 19", "coverage_rows spur 19"]
        );
        run("SELECT * FROM enrichment_coverage_weekly, enrichment_eta, enrich_diagnose()");
    }

    #[pg_test]
    fn coverage_takes_nothing_for_an_answer_that_holds_nothing() {
        for (payload, empty) in [
            ("{}", true),
            ("[]", true),
            ("\"\"", true),
            ("null", true),
            (r#"{"dshield": null}"#, true),
            (r#"{"ip": {"asname": "", "ascountry": ""}}"#, true),
            (r#"["","","","","","","","","","","","","","","","","",""]"#, true),
            (r#"{"tags": "", "urls": [{}, [], null]}"#, true),
            (r#"{"ip": {"count": null, "number": "9.9.9.9"}}"#, false),
            ("0", false),
            ("false", false),
            (r#"["", "", {"a": [[0]]}]"#, false),
        ] {
            holds(&format!("enrich_is_empty('{payload}') = {empty}"));
        }
        holds("enrich_is_empty(NULL) IS NULL");
    }

    #[pg_test]
    fn coverage_columns_about_rows_cost_nothing_where_nobody_asks_for_them() {
        planted();
        run("CREATE FUNCTION pg_temp.reads(query text) RETURNS bigint LANGUAGE plpgsql AS $$ DECLARE plan json; BEGIN
            EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) ' || query INTO plan; RETURN (plan #>> '{0,Plan,Shared Hit Blocks}')::bigint; END $$");
        run("INSERT INTO coverage_rows SELECT '9.90.0.' || i % 8 FROM generate_series(1, 30000) i");
        let blocks = count("SELECT pg_relation_size('coverage_rows') / 8192");
        let reads = |columns: &str| {
            let query = format!("SELECT pg_temp.reads('SELECT {columns}')");
            count(&query);
            count(&query)
        };
        for (cheap, dear) in [
            ("source, service, percent FROM enrichment_coverage", "rows FROM enrichment_coverage"),
            ("pending, eta FROM enrichment_eta", "eta_90 FROM enrichment_eta"),
        ] {
            let (cheap, dear) = (reads(cheap), reads(dear));
            assert!(cheap < blocks && dear >= blocks, "{cheap} and {dear} of {blocks} blocks");
        }
    }

    #[pg_test]
    fn coverage_is_forecast_for_half_most_and_all_of_the_rows() {
        service("coverageeta", "ip");
        run("UPDATE enrichment_service SET limits = '[{\"max\": 2, \"per\": \"day\"}, {\"max\": 1, \"per\": \"second\"}]' WHERE name = 'coverageeta'");
        run("CREATE TABLE coverage_ahead (ip text);
            INSERT INTO coverage_ahead SELECT '9.91.0.' || k FROM (VALUES (1, 50), (2, 30), (3, 15), (4, 5)) v (k, n), generate_series(1, v.n);
            INSERT INTO coverage_ahead VALUES ('10.0.0.1'), (NULL);
            SELECT enrich_attach('coverage_ahead', 'ip', '{coverageeta}');
            INSERT INTO enrichment_indicator (source, raw_key, cache_key) SELECT DISTINCT 'coverage_ahead', ip, ip FROM coverage_ahead WHERE ip LIKE '9%';
            INSERT INTO enrichment_indicator (source, raw_key, problem) VALUES ('coverage_ahead', '10.0.0.1', 'ineligible: a private address');
            INSERT INTO enrichment_queue (service, cache_key) SELECT 'coverageeta', cache_key FROM enrichment_indicator WHERE source = 'coverage_ahead' AND cache_key IS NOT NULL");
        let calls = || {
            text("SELECT concat_ws(' ', rows, covered, calls_50, calls_90, calls_100) FROM enrichment_rows_ahead() WHERE service = 'coverageeta'")
        };
        assert_eq!(calls(), "100 0 1 3 4");
        // two today, two tomorrow
        let eta = |column: &str| {
            text(&format!("SELECT ceil(extract(epoch FROM {column} - date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC') / 86400.0)
            FROM enrichment_eta WHERE service = 'coverageeta'"))
        };
        assert_eq!(
            (eta("eta_50"), eta("eta_90"), eta("eta_100"), eta("eta")),
            ("1".into(), "1".into(), "1".into(), "1".into())
        );
        holds("eta_50 <= now() + interval '2 s' AND eta_90 = eta_100 AND eta_100 = (date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day') AT TIME ZONE 'UTC'
            AND binding_limit = '2/day' FROM enrichment_eta WHERE service = 'coverageeta'");
        // what the queue does first comes first
        run("UPDATE enrichment_queue SET priority = 10 WHERE cache_key = '9.91.0.4'");
        assert_eq!(calls(), "100 0 2 4 4");
        // half of it is there: now; and a key that nobody asks for is never
        run("SELECT enrich_store('coverageeta', '9.91.0.1', '{\"a\": 1}'); DELETE FROM enrichment_queue WHERE cache_key IN ('9.91.0.1', '9.91.0.2')");
        assert_eq!(calls(), "100 50 0");
        holds("eta_50 = now() AND eta_90 IS NULL AND eta_100 IS NULL AND rows = 100 AND rows_covered = 50 FROM enrichment_eta WHERE service = 'coverageeta'");
    }
}
