//! Secrets: set, replaced and removed, read by nobody, dumped never.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, refused, refused_to, relations, run, value};
    use pgrx::prelude::*;

    const SECRET: &str = "s3cret-value-of-a-test";

    #[pg_test]
    fn secrets_are_set_replaced_and_removed() {
        run("SELECT enrich_set_secret('virustotal', 'first')");
        run(&format!("SELECT enrich_set_secret('virustotal', '  {SECRET}\n')"));
        assert_eq!(
            value("SELECT secret FROM enrichment_secret WHERE secret_name = 'VT_API_KEY'").as_deref(),
            Some(SECRET)
        );
        run("SELECT enrich_set_secret('virustotal', NULL)");
        assert_eq!(count("SELECT count(*) FROM enrichment_secret"), 0);
    }

    #[pg_test]
    fn secrets_that_are_empty_or_have_no_place_are_refused_without_showing_them() {
        refused("SELECT enrich_set_secret('virustotal', ' ')").says(
            "22023",
            "the secret of service \"virustotal\" is empty",
            "Give the provider's key, or NULL to remove the one that is kept.",
        );
        let refusal = refused(&format!("SELECT enrich_set_secret('dshield', '{SECRET}')"));
        refusal.says("22023", "service \"dshield\" takes no secret", "Give the service a secret_name");
        let refusal = refused(&format!("SELECT enrich_set_secret('virustotl', '{SECRET}')"));
        assert!(refusal.sqlstate == "42704" && !format!("{refusal:?}").contains(SECRET), "{refusal:?}");
    }

    #[pg_test]
    fn secrets_cannot_be_read_by_any_level() {
        run(&format!("SELECT enrich_set_secret('virustotal', '{SECRET}')"));
        for level in ["reader", "writer", "admin"] {
            let role = format!("secrets_{level}");
            run(&format!("CREATE ROLE {role}; SELECT enrich_grant('{role}', '{level}')"));
            for sql in [
                "SELECT * FROM enrichment_secret",
                "SELECT secret_name FROM enrichment_secret",
                "SELECT count(*) FROM enrichment_secret",
                "CREATE TEMP TABLE stolen AS TABLE enrichment_secret",
                "UPDATE enrichment_secret SET secret_name = 'SPUR_API_KEY' RETURNING secret",
                "INSERT INTO enrichment_secret VALUES ('SPUR_API_KEY', 'x')",
                "DELETE FROM enrichment_secret",
            ] {
                let refusal = refused_to(&role, sql);
                assert_eq!(refusal.sqlstate, "42501", "{role}: {sql}: {refusal:?}");
            }
        }
    }

    #[pg_test]
    fn secrets_stand_in_no_other_table_and_in_no_view() {
        run(&format!("SELECT enrich_set_secret('virustotal', '{SECRET}')"));
        run("SELECT enrich_request('virustotal', repeat('a', 64))");
        let mut looked_at = 0;
        for relation in relations("r").into_iter().chain(relations("v")).filter(|name| name != "enrichment_secret") {
            assert_eq!(
                count(&format!("SELECT count(*) FROM {relation} t WHERE t::text LIKE '%{SECRET}%'")),
                0,
                "{relation}"
            );
            looked_at += 1;
        }
        assert!(looked_at >= 20, "{looked_at}");
        let shown = format!(
            "{:?} {:?} {:?}",
            value("SELECT enrich_explain('virustotal', repeat('a', 64))"),
            value("SELECT string_agg(h::text, ' ') FROM enrich_health() h"),
            value("SELECT string_agg(l::text, ' ') FROM enrich_lookup('virustotal', repeat('a', 64)) l")
        );
        assert!(!shown.contains(SECRET), "{shown}");
    }

    #[pg_test]
    fn secrets_are_never_dumped_and_what_a_user_made_is() {
        holds("NOT 'enrichment_secret'::regclass = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'enrichment_cache')::oid[])");
        for table in ["service", "cache", "history", "queue", "quota", "source", "indicator", "arrival", "cache_stats"]
        {
            holds(&format!("'enrichment_{table}'::regclass = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'enrichment_cache')::oid[])"));
        }
        holds(
            "(SELECT extcondition[array_position(extconfig, 'enrichment_service'::regclass::oid)] LIKE '%NOT builtin%'
            FROM pg_extension WHERE extname = 'enrichment_cache')",
        );
    }

    #[pg_test]
    fn secrets_a_new_one_ends_the_pause_for_want_of_it_and_no_other() {
        run("INSERT INTO enrichment_lane (service, paused_until, cause) VALUES
            ('virustotal', now() + interval '1 day', 'no_credential'), ('spur', now() + interval '1 day', 'limited')");
        run("INSERT INTO enrichment_queue (service, cache_key, next_attempt_at, last_outcome) VALUES
            ('virustotal', repeat('b', 64), now() + interval '1 day', 'unauthorized'),
            ('virustotal', repeat('c', 64), now() + interval '1 day', 'error')");
        run(&format!("SELECT enrich_set_secret('virustotal', '{SECRET}'), enrich_set_secret('spur', '{SECRET}')"));
        assert_eq!(
            value("SELECT string_agg(service, ' ') FROM enrichment_lane WHERE paused_until > now()").as_deref(),
            Some("spur")
        );
        assert_eq!(
            value("SELECT string_agg(left(cache_key, 1), '') FROM enrichment_queue WHERE next_attempt_at <= now()")
                .as_deref(),
            Some("b")
        );
    }
}
