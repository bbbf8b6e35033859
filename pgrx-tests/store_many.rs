//! enrich_store_many: repeats, lengths, and nothing half done.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, refused, run, service, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn store_many_writes_each_key_with_its_payload() {
        let written = text(
            "SELECT enrich_store_many('dshield', '{9.4.0.1,9.4.0.2,2606:4700::4}',
            ARRAY['{\"n\": 1}', '{\"n\": 2}', '[]']::jsonb[], '1 day')",
        );
        assert_eq!(written, "3");
        assert_eq!(
            list("SELECT cache_key || ' ' || payload || ' ' || version FROM enrichment_cache
                WHERE service = 'dshield' AND (cache_key LIKE '9.4.0.%' OR cache_key = '2606:4700::4') ORDER BY cache_key"),
            ["2606:4700::4 [] 1", r#"9.4.0.1 {"n": 1} 1"#, r#"9.4.0.2 {"n": 2} 1"#]
        );
        holds("(SELECT bool_and(expires_at = now() + interval '1 day') FROM enrichment_cache WHERE cache_key LIKE '9.4.0.%')");
    }

    #[pg_test]
    fn store_many_of_a_key_that_repeats_the_last_payload_counts() {
        let written = text(
            "SELECT enrich_store_many('dshield', '{9.4.1.1,9.4.1.2,::ffff:9.4.1.1,9.4.1.1/32}',
            ARRAY['{\"n\": 1}', '{\"n\": 2}', '{\"n\": 3}', '{\"n\": 4}']::jsonb[])",
        );
        assert_eq!(written, "2");
        holds("enrich_get('dshield', '9.4.1.1') = '{\"n\": 4}'");
        holds("enrich_get('dshield', '9.4.1.2') = '{\"n\": 2}'");
    }

    #[pg_test]
    fn store_many_of_nothing_is_nothing() {
        assert_eq!(text("SELECT enrich_store_many('dshield', '{}', '{}')"), "0");
    }

    #[pg_test]
    fn store_many_with_fewer_payloads_than_keys_is_refused() {
        refused("SELECT enrich_store_many('dshield', '{9.4.2.1,9.4.2.2}', ARRAY['{}']::jsonb[])").says(
            "22023",
            "2 keys but 1 payloads",
            "Give one payload for each key.",
        );
        assert_eq!(count("SELECT count(*) FROM enrichment_cache WHERE cache_key LIKE '9.4.2.%'"), 0);
    }

    #[pg_test]
    fn store_many_one_bad_entry_leaves_nothing_stored() {
        service("storemany", "ip");
        run("UPDATE enrichment_service SET max_bytes = 1024 WHERE name = 'storemany'");
        for (keys, payloads, sqlstate) in [
            ("{9.4.3.1,dirt}", "ARRAY['{}', '{}']", "22023"),
            ("{9.4.3.1,NULL}", "ARRAY['{}', '{}']", "22023"),
            ("{9.4.3.1,9.4.3.2}", "ARRAY['{}', NULL]", "22023"),
            ("{9.4.3.1,9.4.3.2}", "ARRAY['{}', to_jsonb(repeat('x', 2000))::text]", "54000"),
        ] {
            let refusal = refused(&format!("SELECT enrich_store_many('storemany', '{keys}', {payloads}::jsonb[])"));
            assert_eq!(refusal.sqlstate, sqlstate, "{refusal:?}");
            assert_eq!(count("SELECT count(*) FROM enrichment_cache WHERE cache_key LIKE '9.4.3.%'"), 0, "{payloads}");
        }
        refused("SELECT enrich_store_many('storemany', '{9.4.3.1}', ARRAY['{}']::jsonb[], '-1 day')").says(
            "22023",
            "ttl must not be negative: -86400 s",
            "interval of zero or more",
        );
    }

    #[pg_test]
    fn store_many_keeps_the_history_of_each_key() {
        run("SELECT enrich_store_many('dshield', '{9.4.4.1,9.4.4.2}', ARRAY['1', '2']::jsonb[])");
        run("SELECT enrich_store_many('dshield', '{9.4.4.2,9.4.4.1,9.4.4.3}', ARRAY['2', '5', '6']::jsonb[])");
        assert_eq!(
            list("SELECT cache_key || '=' || payload FROM enrichment_history WHERE cache_key LIKE '9.4.4.%'"),
            ["9.4.4.1=1"]
        );
    }

    #[pg_test]
    fn store_many_takes_thousands_at_once() {
        let written = text("SELECT enrich_store_many('dshield', array_agg('9.5.' || i / 250 || '.' || i % 250), array_agg(to_jsonb(i)))
            FROM generate_series(1, 5000) i");
        assert_eq!(written, "5000");
        holds("enrich_get('dshield', '9.5.10.7') = '2507'");
    }
}
