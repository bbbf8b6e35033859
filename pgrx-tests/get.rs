//! enrich_get in its three forms, enrich_get_many: what is fresh, what is not, and that a read only reads.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, refused, run, text, value};
    use pgrx::prelude::*;

    fn stored(key: &str, observed: &str, ttl: &str) {
        run(&format!(
            "SELECT enrich_store('dshield', '{key}', '{{\"ip\": {{\"as\": 15169}}}}', '{ttl}', fetched_at => {observed})"
        ));
    }

    #[pg_test]
    fn get_serves_a_fresh_answer_in_all_three_forms() {
        stored("9.1.0.1", "now()", "1 day");
        for form in ["'9.1.0.1'", "'9.1.0.1'::inet", "'9.1.0.1', interval '0'", "' ::ffff:9.1.0.1 '", "'9.1.0.1/32'"] {
            assert_eq!(text(&format!("SELECT enrich_get('dshield', {form})")), r#"{"ip": {"as": 15169}}"#, "{form}");
        }
        holds("enrich_get('dshield', '::ffff:9.1.0.1'::inet) IS NOT NULL");
        holds("enrich_get('spur', '9.1.0.1') IS NULL");
        holds("enrich_get('dshield', '9.1.0.2') IS NULL");
    }

    #[pg_test]
    fn get_takes_an_ipv6_address_however_it_is_written() {
        stored("2606:4700::11", "now()", "1 day");
        for key in ["2606:4700:0:0:0:0:0:0011", "2606:4700::0011", "2606:4700::11%eth0", "2606:4700::11/128"] {
            holds(&format!("enrich_get('dshield', '{key}') IS NOT NULL"));
        }
        holds("enrich_get('dshield', '2606:4700::11'::inet) IS NOT NULL");
    }

    #[pg_test]
    fn get_an_expired_answer_is_null_and_max_stale_serves_it_that_long() {
        stored("9.1.0.3", "now() - interval '2 days'", "1 day");
        holds("enrich_get('dshield', '9.1.0.3') IS NULL");
        holds("enrich_get('dshield', '9.1.0.3'::inet) IS NULL");
        holds("enrich_get('dshield', '9.1.0.3', '0') IS NULL");
        holds("enrich_get('dshield', '9.1.0.3', '1 day') IS NULL");
        holds("enrich_get('dshield', '9.1.0.3', '1 day 1 second') IS NOT NULL");
        holds("enrich_get('dshield', '9.1.0.3', '1 month') IS NOT NULL");
        refused("SELECT enrich_get('dshield', '9.1.0.3', '-1 hour')").says(
            "22023",
            "ttl must not be negative: -3600 s",
            "",
        );
    }

    #[pg_test]
    fn get_what_expires_at_this_moment_is_expired() {
        stored("9.1.0.4", "now()", "0");
        stored("9.1.0.5", "now()", "1 microsecond");
        holds("enrich_get('dshield', '9.1.0.4') IS NULL");
        holds("enrich_get('dshield', '9.1.0.5') IS NOT NULL");
    }

    #[pg_test]
    fn get_a_dirty_key_is_null_and_no_error() {
        for key in ["", " ", "unknown", "999.1.1.1", "01.2.3.4", "10.0.0.0/8", "9.1.0.1; DROP TABLE x", "\u{1f600}"] {
            let key = crate::in_database::ask::quoted(key);
            for call in
                ["enrich_get('dshield', KEY)", "enrich_get('dshield', KEY, '1 day')", "enrich_get_text('dshield', KEY)"]
            {
                holds(&format!("{} IS NULL", call.replace("KEY", &key)));
            }
        }
        holds("enrich_get('dshield', NULL::text) IS NULL");
        holds("enrich_get('dshield', NULL::inet) IS NULL");
        holds("enrich_get('dshield', '9.1.0.0/24'::inet) IS NULL");
        holds("enrich_get('hibp', 'not hexadecimal') IS NULL");
        holds(&format!("enrich_get('dshield', '{}') IS NULL", "1".repeat(100_000)));
    }

    #[pg_test]
    fn get_an_unknown_service_is_an_error_with_a_hint_everywhere() {
        for call in [
            "enrich_get('dsheild', '9.1.0.1')",
            "enrich_get('dsheild', '9.1.0.1'::inet)",
            "enrich_get('dsheild', '9.1.0.1', '1 day')",
            "enrich_get('dsheild', 'no address')",
            "enrich_get_text('dsheild', '9.1.0.1')",
            "enrich_get_many('dsheild', '{9.1.0.1}')",
            "enrich_lookup('dsheild', '9.1.0.1')",
            "enrich_store('dsheild', '9.1.0.1', '{}')",
            "enrich_store_many('dsheild', '{9.1.0.1}', '{null}')",
            "enrich_store_text('dsheild', '9.1.0.1', 'x')",
            "enrich_compare_and_store('dsheild', '9.1.0.1', 0, '{}')",
            "enrich_invalidate('dsheild')",
            "enrich_request('dsheild', '9.1.0.1')",
            "enrich_request_many('dsheild', '{9.1.0.1}')",
            "enrich_fetch('dsheild', '9.1.0.1')",
            "enrich_explain('dsheild', '9.1.0.1')",
            "enrich_set_secret('dsheild', 'x')",
        ] {
            let refusal = refused(&format!("SELECT {call}"));
            refusal.says("42704", "unknown service \"dsheild\"", "Perhaps you meant \"dshield\".");
            assert!(refusal.hint.contains("dshield, hibp, spur, urlhaus, virustotal"), "{call}: {refusal:?}");
        }
    }

    #[pg_test]
    fn get_works_in_a_read_only_transaction_and_writes_do_not() {
        stored("9.1.0.6", "now()", "1 day");
        refused("SELECT enrich_store('dshield', 'x', '{}')");
        run("SET LOCAL transaction_read_only = on");
        holds("enrich_get('dshield', '9.1.0.6') IS NOT NULL");
        holds("enrich_get('dshield', '9.1.0.6'::inet) IS NOT NULL");
        holds("enrich_get('dshield', '9.1.0.6', '1 day') IS NOT NULL");
        assert_eq!(list("SELECT cache_key FROM enrich_get_many('dshield', '{9.1.0.6}')"), ["9.1.0.6"]);
        assert_eq!(list("SELECT state FROM enrich_lookup('dshield', '9.1.0.6')"), ["hit"]);
        assert_eq!(refused("SELECT enrich_store('dshield', '9.1.0.6', '{}')").sqlstate, "25006");
        assert_eq!(refused("SELECT enrich_request('dshield', '9.1.0.7')").sqlstate, "25006");
    }

    #[pg_test]
    fn get_a_read_takes_no_transaction_id() {
        // select() alone: pgrx's writing calls take an id themselves
        let assigned = Spi::connect(|client| {
            let ask = |sql: &str| client.select(sql, None, &[]).and_then(|rows| rows.first().get_one::<bool>());
            ask("SELECT enrich_get('dshield', '9.1.0.8') IS NULL AND enrich_get('dshield', '9.1.0.8', '1 day') IS NULL
                AND (SELECT state FROM enrich_lookup('dshield', '9.1.0.8')) = 'miss'
                AND NOT EXISTS (SELECT FROM enrich_get_many('dshield', '{9.1.0.8}'))")
            .and_then(|answer| {
                assert_eq!(answer, Some(true));
                ask("SELECT pg_current_xact_id_if_assigned() IS NOT NULL")
            })
        });
        assert_eq!(assigned, Ok(Some(false)));
    }

    #[pg_test]
    fn get_functions_that_read_are_stable_and_parallel_safe() {
        let marks = list(
            "SELECT p.oid::regprocedure || ' ' || p.provolatile::text || p.proparallel::text FROM pg_proc p
            WHERE p.proname IN ('enrich_get', 'enrich_get_many', 'enrich_get_text', 'enrich_lookup')
            ORDER BY p.oid::regprocedure::text COLLATE \"C\"",
        );
        assert_eq!(
            marks,
            [
                "enrich_get(text,inet) ss",
                "enrich_get(text,text) ss",
                "enrich_get(text,text,interval) ss",
                "enrich_get_many(text,text[]) ss",
                "enrich_get_text(text,text) ss",
                "enrich_lookup(text,text) ss",
            ]
        );
    }

    #[pg_test]
    fn get_works_in_a_parallel_worker() {
        run("SELECT enrich_store_many('dshield', array_agg('9.1.1.' || i), array_agg('{\"ip\": {}}'::jsonb))
            FROM generate_series(1, 50) i");
        run("CREATE TABLE get_events AS SELECT ('9.1.1.' || i)::inet AS address FROM generate_series(1, 50) i");
        // the setting's name changed in PostgreSQL 16
        run("SELECT set_config(name, 'on', true) FROM pg_settings
            WHERE name IN ('force_parallel_mode', 'debug_parallel_query')");
        let query = "SELECT address, enrich_get('dshield', address) AS payload FROM get_events";
        let plan = Spi::explain(query).map(|plan| plan.0.to_string()).unwrap_or_default();
        assert!(plan.contains("\"Gather\""), "{plan}");
        run(&format!("CREATE TABLE get_answers AS {query}"));
        assert_eq!(count("SELECT count(payload) FROM get_answers"), 50);
    }

    #[pg_test]
    fn get_many_gives_each_fresh_key_once_in_order() {
        for (key, ttl) in [("9.1.2.3", "1 day"), ("9.1.2.1", "1 day"), ("9.1.2.2", "0")] {
            stored(key, "now()", ttl);
        }
        run("SELECT enrich_store('dshield', '9.1.2.4', NULL, response_status => 'not_found')");
        let keys = "{9.1.2.3,9.1.2.1,9.1.2.2,9.1.2.4,9.1.2.9,::ffff:9.1.2.1,dirt,NULL}";
        assert_eq!(
            list(&format!("SELECT cache_key FROM enrich_get_many('dshield', '{keys}')")),
            ["9.1.2.1", "9.1.2.3"]
        );
        assert_eq!(value("SELECT count(*) FROM enrich_get_many('dshield', '{}')").as_deref(), Some("0"));
    }
}
