//! What the cache's table does by itself: earlier payloads go to the history whoever writes, rows have numbers that lie
//! apart, the index on payloads finds what a scan finds.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, list, run, text};
    use pgrx::prelude::*;

    fn store(first: u32, last: u32, value: &str) {
        run(&format!(
            "SELECT enrich_store_many('dshield', array_agg('9.90.' || i / 250 || '.' || i % 250),
                array_agg(jsonb_build_object('n', i, 'v', {value}))) FROM generate_series({first}, {last}) i"
        ));
    }

    fn plan(sql: &str) -> String {
        let plan: Option<pgrx::Json> =
            Spi::get_one(&format!("EXPLAIN (FORMAT json) {sql}")).unwrap_or_else(|error| panic!("{sql}: {error}"));
        plan.map_or(String::new(), |plan| plan.0.to_string())
    }

    #[pg_test]
    fn table_each_row_of_a_large_batch_leaves_its_earlier_payload() {
        store(0, 1399, "1");
        store(200, 1399, "2");
        store(200, 1399, "2");
        store(1000, 1399, "repeat('x', 3000)");
        assert_eq!(
            list(
                "SELECT concat_ws(' ', version, payload ->> 'v', count(*), count(DISTINCT cache_key),
                    count(*) FILTER (WHERE cache_key = '9.90.' || (payload ->> 'n')::int / 250 || '.' || (payload ->> 'n')::int % 250))
                FROM enrichment_history WHERE cache_key LIKE '9.90.%' GROUP BY version, payload ->> 'v' ORDER BY 1"
            ),
            ["1 1 1200 1200 1200", "3 2 400 400 400"]
        );
        store(1000, 1399, "4");
        assert_eq!(count("SELECT count(*) FROM enrichment_history WHERE length(payload ->> 'v') = 3000"), 400);
    }

    #[pg_test]
    fn table_an_update_by_hand_keeps_what_it_replaces_too() {
        store(0, 9, "1");
        run("UPDATE enrichment_cache SET payload = payload || '{\"v\": 2}' WHERE cache_key LIKE '9.90.0.%' AND (payload ->> 'n')::int < 6");
        run("UPDATE enrichment_cache SET payload = payload, hit_count = 9 WHERE cache_key LIKE '9.90.0.%'");
        run("UPDATE enrichment_cache SET payload = NULL, response_status = 'not_found' WHERE cache_key = '9.90.0.7'");
        assert_eq!(
            list(
                "SELECT cache_key || payload::text FROM enrichment_history WHERE cache_key LIKE '9.90.0.%' ORDER BY id"
            ),
            [0, 1, 2, 3, 4, 5, 7].map(|n| format!(r#"9.90.0.{n}{{"n": {n}, "v": 1}}"#))
        );
    }

    #[pg_test]
    fn table_a_batch_that_fails_leaves_nothing_in_the_history_and_nothing_for_the_next() {
        store(0, 799, "1");
        run("CREATE FUNCTION table_refuses() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN IF NEW.cache_key = ''9.90.3.49'' THEN RAISE EXCEPTION ''not this one''; END IF; RETURN NULL; END';
            CREATE TRIGGER zz_refuses AFTER UPDATE ON enrichment_cache FOR EACH ROW EXECUTE FUNCTION table_refuses();
            DO $$ BEGIN
                PERFORM enrich_store_many('dshield', array_agg('9.90.' || i / 250 || '.' || i % 250), array_agg('{}'::jsonb))
                FROM generate_series(0, 799) i;
                RAISE EXCEPTION 'it was stored';
            EXCEPTION WHEN raise_exception THEN
                IF SQLERRM <> 'not this one' THEN RAISE; END IF;
            END $$;
            DROP TRIGGER zz_refuses ON enrichment_cache");
        assert_eq!(count("SELECT count(*) FROM enrichment_history WHERE cache_key LIKE '9.90.%'"), 0);
        store(0, 0, "2");
        assert_eq!(count("SELECT count(*) FROM enrichment_history WHERE cache_key LIKE '9.90.%'"), 1);
    }

    #[pg_test]
    fn table_a_store_within_a_store_keeps_both() {
        store(0, 3, "1");
        run("CREATE FUNCTION table_again() RETURNS trigger LANGUAGE plpgsql SET search_path FROM CURRENT AS
                'BEGIN PERFORM enrich_store_many(''dshield'', ''{9.90.0.3}'', ARRAY[''{\"v\": 3}''::jsonb]); RETURN NULL; END';
            CREATE TRIGGER aa_again AFTER UPDATE ON enrichment_cache FOR EACH ROW WHEN (NEW.cache_key = '9.90.0.1')
                EXECUTE FUNCTION table_again()");
        store(0, 2, "2");
        assert_eq!(
            list("SELECT cache_key FROM enrichment_history WHERE cache_key LIKE '9.90.%' ORDER BY 1"),
            ["9.90.0.0", "9.90.0.1", "9.90.0.2", "9.90.0.3"]
        );
    }

    #[pg_test]
    fn table_rows_that_come_together_have_numbers_that_lie_apart() {
        store(0, 999, "1");
        let row = "SELECT count(DISTINCT id) || ' ' || (max(id) - min(id) > 200000000000000) || ' ' || (min(id) > 0)
            FROM enrichment_cache WHERE cache_key LIKE '9.90.%'";
        assert_eq!(text(row), "1000 true true");
    }

    #[pg_test]
    fn table_the_index_on_payloads_finds_what_a_scan_finds() {
        store(0, 1999, "i % 7");
        run("SELECT enrich_store_many('urlhaus', '{9.90.9.1,9.90.9.2}', ARRAY['{\"tags\": [\"elf\", \"mirai\"], \"n\": {\"deep\": [1, {\"v\": true}]}}', '{}']::jsonb[])");
        for condition in [
            "payload @> '{\"v\": 3}'",
            "payload @> '{\"n\": 77, \"v\": 0}'",
            "payload @> '{\"n\": 77777}'",
            "payload @> '{\"tags\": [\"mirai\"]}'",
            "payload @> '{\"n\": {\"deep\": [{\"v\": true}]}}'",
            "payload @> '{}'",
            "payload @? '$.tags[*] ? (@ == \"elf\")'",
            "payload @@ '$.v == 5 && $.n == 75'",
        ] {
            let rows = || {
                text(&format!(
                    "SELECT count(*) || ' ' || coalesce(md5(string_agg(cache_key, ',' ORDER BY cache_key)), '-')
                    FROM enrichment_cache WHERE service <> 'hibp' AND {condition}"
                ))
            };
            run("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off; SET LOCAL enable_bitmapscan = on");
            let plan = plan(&format!("SELECT 1 FROM enrichment_cache WHERE service <> 'hibp' AND {condition}"));
            assert!(plan.contains("enrichment_cache_payload"), "{condition}: {plan}");
            let by_index = rows();
            run("SET LOCAL enable_seqscan = on; SET LOCAL enable_bitmapscan = off");
            assert_eq!(by_index, rows(), "{condition}");
        }
    }
}
