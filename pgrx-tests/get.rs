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
    fn get_a_month_of_max_stale_is_thirty_days_by_sql_as_well() {
        // a calendar year has five days more than twelve such months
        stored("9.1.0.13", "now() - interval '360 days' + interval '1 hour'", "0");
        stored("9.1.0.14", "now() - interval '362 days'", "0");
        for way in ["DISABLE", "ENABLE"] {
            run(&format!("ALTER TABLE enrichment_cache {way} ROW LEVEL SECURITY"));
            holds("enrich_get('dshield', '9.1.0.13', '12 months') IS NOT NULL");
            holds("enrich_get('dshield', '9.1.0.14', '12 months') IS NULL");
            holds("enrich_get('dshield', '9.1.0.14', '12 months 3 days') IS NOT NULL");
        }
    }

    #[pg_test]
    fn get_with_max_stale_goes_to_the_index_once_whatever_it_finds() {
        stored("9.1.0.15", "now()", "1 day");
        stored("9.1.0.16", "now() - interval '2 days'", "1 day");
        let probes = "SELECT pg_stat_get_xact_numscans('enrichment_cache_service_key'::regclass)";
        for (key, what) in [("9.1.0.15", "fresh"), ("9.1.0.16", "expired"), ("9.1.0.17", "missing")] {
            let before = count(probes);
            run(&format!("SELECT enrich_get('dshield', '{key}', '7 days')"));
            assert_eq!(count(probes) - before, 1, "{what}");
        }
    }

    #[pg_test]
    fn get_of_an_address_is_get_of_its_text_for_every_kind_of_key() {
        run("INSERT INTO enrichment_service (name, key_kind, url)
            SELECT 'of_' || kind, kind, 'https://example.net/{key}'
            FROM unnest('{ip,file_hash,file_hash_or_ip,network_indicator,hash_prefix,host,text}'::text[]) kind");
        run("CREATE TEMP TABLE address AS SELECT a::inet AS address FROM unnest(
            '{9.1.1.1,9.1.1.1/32,9.1.1.1/31,9.0.0.0/8,0.0.0.0/0,::ffff:9.1.1.1,::ffff:9.1.1.1/128,::ffff:9.1.1.1/96,::9.1.1.1,
              2606:4700::11,2606:4700::11/128,2606:4700::/32,::1,::,255.255.255.255,fe80::1}'::text[]) a");
        run("INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT s.name, k.key, to_jsonb(s.name || k.key), now() + interval '1 day'
            FROM enrichment_service s, LATERAL (SELECT DISTINCT enrich_normalize_key('ip', a.address::text) AS key FROM address a) k
            WHERE starts_with(s.name, 'of_') AND s.key_kind IN ('ip', 'file_hash_or_ip', 'network_indicator', 'text') AND k.key IS NOT NULL");
        let asked = "SELECT count(*) FILTER (WHERE q.got IS NOT NULL) AS found, count(*) FILTER (WHERE q.got IS DISTINCT FROM q.want) AS wrong
            FROM (SELECT enrich_get(s.name, a.address) AS got,
                    CASE WHEN masklen(a.address) = CASE family(a.address) WHEN 4 THEN 32 ELSE 128 END
                        THEN enrich_get(s.name, enrich_normalize_key('ip', a.address::text)) END AS want
                FROM enrichment_service s, address a, generate_series(1, 2) WHERE starts_with(s.name, 'of_')) q";
        // eleven single addresses of sixteen, of four kinds of seven
        assert_eq!(count(&format!("SELECT found FROM ({asked}) a")), 2 * 11 * 4);
        assert_eq!(count(&format!("SELECT wrong FROM ({asked}) a")), 0);
    }

    #[pg_test]
    fn get_is_not_null_reads_nothing_that_is_stored_out_of_line() {
        run("INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', '9.1.2.' || k, jsonb_build_object('big',
                (SELECT string_agg(md5((k * 1000 + i)::text), '') FROM generate_series(1, 1000) i)), now() + interval '1 day'
            FROM generate_series(1, 9) k");
        let read = "SELECT pg_stat_get_xact_numscans(i.indexrelid) FROM pg_class c JOIN pg_index i ON i.indrelid = c.reltoastrelid
            WHERE c.oid = 'enrichment_cache'::regclass";
        // each key twice: looked up, and remembered
        let keys = "FROM generate_series(1, 9) k, generate_series(1, 2)";
        let before = count(read);
        for key in ["'9.1.2.' || k", "('9.1.2.' || k)::inet", "'9.1.2.' || k, '1 day'"] {
            let found = format!("SELECT count(*) {keys} WHERE enrich_get('dshield', {key}) IS NOT NULL");
            assert_eq!(count(&found), 18, "{key}");
        }
        assert_eq!(count(read), before);
        assert_eq!(count(&format!("SELECT count(enrich_get('dshield', '9.1.2.' || k) -> 'big') {keys}")), 18);
        assert!(count(read) > before);
    }

    #[pg_test]
    fn get_costs_what_makes_the_planner_ask_it_last_and_share_it_out() {
        let costs = "SELECT proname || ' ' || procost FROM pg_proc WHERE proname IN ('enrich_get', 'enrich_get_text', 'enrich_lookup',
            'enrich_get_many') ORDER BY 1";
        let expected = [
            "enrich_get 100",
            "enrich_get 100",
            "enrich_get 100",
            "enrich_get_many 1000",
            "enrich_get_text 100",
            "enrich_lookup 200",
        ];
        assert_eq!(list(costs), expected);
        run("CREATE TABLE visits AS SELECT n, '9.1.' || n % 200 || '.' || n % 100 AS ip, ('9.1.0.' || n % 100)::inet AS address,
            repeat('x', 60) AS more FROM generate_series(1, 100000) n");
        run("ANALYZE visits");
        run("CREATE FUNCTION pg_temp.plan(query text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE line text; whole text := ''; BEGIN
            FOR line IN EXECUTE 'EXPLAIN ' || query LOOP whole := whole || line || chr(10); END LOOP; RETURN whole; END $$");
        let plan = |query: &str| text(&format!("SELECT pg_temp.plan($query${query}$query$)"));
        for key in ["ip", "address", "ip, '1 day'"] {
            let call = format!("enrich_get('dshield', {key})");
            let filter =
                plan(&format!("SELECT n FROM visits WHERE {call} IS NOT NULL AND n % 7 = 0 AND more LIKE 'y%'"));
            let condition = filter.lines().find(|line| line.contains("Filter:")).unwrap_or_default();
            let at = |what: &str| condition.find(what).unwrap_or_else(|| panic!("no {what} in {filter}"));
            assert!(at("enrich_get") > at("% 7") && at("enrich_get") > at("~~"), "{condition}");
            // by the settings a server comes with
            let shared = plan(&format!("SELECT count({call}) FROM visits"));
            assert!(shared.contains("Workers Planned") && shared.contains("Partial Aggregate"), "{shared}");
        }
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

    #[pg_test]
    fn get_many_gives_many_runs_of_keys_in_the_order_of_their_bytes() {
        run("SELECT enrich_store('dshield', '9.' || 20 + i % 7 || '.' || i / 250 || '.' || i % 250, '{}') FROM generate_series(1, 1000) i");
        // asked for in another order, each twice
        let asked =
            "(SELECT array_agg(cache_key ORDER BY md5(cache_key || n)) FROM enrichment_cache, generate_series(1, 2) n
            WHERE service = 'dshield' AND cache_key ~ '^9[.]2[0-6][.]')";
        holds(&format!(
            "(SELECT count(*) = 1000 AND array_agg(m.cache_key ORDER BY m.ordinality) = array_agg(m.cache_key ORDER BY m.cache_key COLLATE \"C\")
            FROM enrich_get_many('dshield', {asked}) WITH ORDINALITY m)"
        ));
    }
}
