//! The provider registry: built-in services as data, one's own by INSERT, and rows that make no sense refused.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{holds, list, quoted, refused, run, service, text};
    use pgrx::prelude::*;

    #[pg_test]
    fn registry_holds_the_five_services_of_the_contract() {
        assert_eq!(
            list("SELECT concat_ws('|', name, enabled, key_kind, method, url, coalesce(secret_name, '-'), secret_required,
                response_format, ttl, not_found_ttl, builtin) FROM enrichment_service ORDER BY name"),
            [
                "dshield|t|ip|GET|https://isc.sans.edu/api/ip/{key}?json|-|f|json|7 days|7 days|t",
                "hibp|t|hash_prefix|GET|https://api.pwnedpasswords.com/range/{key}|-|f|hibp_range|60 days|60 days|t",
                "spur|t|ip|GET|https://api.spur.us/v2/context/{key}|SPUR_API_KEY|t|json|14 days|14 days|t",
                "urlhaus|t|network_indicator|POST|https://urlhaus-api.abuse.ch/v1/{route}/|URLHAUS_API_KEY|t|json|3 days|3 days|t",
                "virustotal|t|file_hash_or_ip|GET|https://www.virustotal.com/api/v3/{route}/{key}|VT_API_KEY|t|json|30 days|12:00:00|t",
            ]
        );
    }

    #[pg_test]
    fn registry_holds_the_limits_of_the_contract() {
        assert_eq!(
            list(
                "SELECT name || ' ' || string_agg(l ->> 'max' || '/' || (l ->> 'per'), ' ' ORDER BY (l ->> 'max')::int)
                FROM enrichment_service, jsonb_array_elements(limits) l GROUP BY name ORDER BY name"
            ),
            [
                "dshield 1/second",
                "hibp 10/second",
                "spur 1/second",
                "urlhaus 2/second",
                "virustotal 4/minute 500/day 15500/month",
            ]
        );
    }

    #[pg_test]
    fn registry_rules_are_those_the_pure_tests_judge_with() {
        let rules = quoted(include_str!("../src/core/builtin_rules.json"));
        assert_eq!(
            list(&format!(
                "SELECT name FROM enrichment_service FULL JOIN jsonb_each({rules}::jsonb) j ON j.key = name
                WHERE rules IS DISTINCT FROM j.value"
            )),
            Vec::<String>::new()
        );
    }

    #[pg_test]
    fn registry_a_service_of_ones_own_works_at_once() {
        refused("SELECT enrich_get('greynoise', '9.50.0.1')").says(
            "42704",
            "unknown service \"greynoise\"",
            "Known services",
        );
        run("INSERT INTO enrichment_service (name, key_kind, url, headers, secret_name, limits, rules) VALUES
            ('greynoise', 'ip', 'https://greynoise.example/v3/community/{key}', '{\"key\": \"{secret}\"}', 'GREYNOISE_KEY',
             '[{\"max\": 50, \"per\": \"day\"}]', '{\"outcomes\": [{\"status\": [404], \"outcome\": \"not_found\"}], \"require\": [\"ip\"]}')");
        holds("enrich_get('greynoise', '9.50.0.1') IS NULL");
        run("SELECT enrich_store('greynoise', '::ffff:9.50.0.1', '{\"noise\": true}')");
        holds("enrich_get('greynoise', '9.50.0.1') = '{\"noise\": true}'");
        assert_eq!(text("SELECT enrich_request('greynoise', '9.50.0.2')"), "queued");
        holds("NOT (SELECT builtin FROM enrichment_service WHERE name = 'greynoise')");
        run("DELETE FROM enrichment_service WHERE name = 'greynoise'");
        assert_eq!(refused("SELECT enrich_get('greynoise', '9.50.0.1')").sqlstate, "42704");
    }

    #[pg_test]
    fn registry_a_change_holds_for_the_next_call_of_the_same_session() {
        service("registrychange", "ip");
        holds("enrich_get('registrychange', 'some text') IS NULL");
        run("UPDATE enrichment_service SET key_kind = 'text' WHERE name = 'registrychange'");
        run("SELECT enrich_store('registrychange', 'some text', '{}')");
        holds("enrich_get('registrychange', 'some text') = '{}'");
    }

    #[pg_test]
    fn registry_a_change_makes_a_built_in_row_the_administrators_own() {
        holds("(SELECT builtin FROM enrichment_service WHERE name = 'spur')");
        run("UPDATE enrichment_service SET ttl = '1 day' WHERE name = 'spur'");
        holds("(SELECT NOT builtin FROM enrichment_service WHERE name = 'spur')");
        holds("(SELECT bool_and(builtin) FROM enrichment_service WHERE name <> 'spur')");
    }

    #[pg_test]
    fn registry_a_row_restored_from_a_dump_replaces_the_untouched_built_in_one() {
        run("CREATE TEMP TABLE dumped AS SELECT * FROM enrichment_service WHERE name = 'dshield'");
        run("UPDATE dumped SET ttl = '2 days', builtin = false");
        run("INSERT INTO enrichment_service SELECT * FROM dumped");
        holds("(SELECT count(*) = 1 AND bool_and(ttl = '2 days' AND NOT builtin) FROM enrichment_service WHERE name = 'dshield')");
        assert_eq!(refused("INSERT INTO enrichment_service SELECT * FROM dumped").sqlstate, "23505");
    }

    #[pg_test]
    fn registry_a_row_that_makes_no_sense_is_refused_and_the_column_is_named() {
        for (column, bad, why) in [
            ("limits", r#"'[{"max": 0, "per": "day"}]'"#, "invalid limits for service \"registrybad\""),
            ("limits", r#"'[{"max": 5, "per": "fortnight"}]'"#, "invalid limits for service \"registrybad\""),
            ("limits", "'{}'", "invalid limits for service \"registrybad\""),
            ("rules", r#"'{"outcme": []}'"#, "invalid rules for service \"registrybad\""),
            ("rules", r#"'{"outcomes": [{"outcome": "not_found"}]}'"#, "invalid rules for service \"registrybad\""),
            ("rules", "'[]'", "invalid rules for service \"registrybad\""),
            ("url", "'ftp://x.example/{key}'", "invalid url"),
            ("url", "'https://{key}.example/'", "invalid url"),
            ("url", "'https://user:pw@x.example/{key}'", "invalid url"),
            ("url", "'https://x.example/'", "invalid url"),
            ("url", "'https://x.example/{secret}/{key}'", "invalid url"),
            ("url", "'https://x.example/{nonsense}/{key}'", "invalid url"),
            ("headers", "'[]'", "invalid headers"),
            ("headers", r#"'{"host": "elsewhere.example"}'"#, "headers"),
            ("key_kind", "'ipv4'", "unknown key kind \"ipv4\""),
            ("method", "'DELETE'", "invalid method"),
        ] {
            let mut row = vec![("name", "'registrybad'"), ("key_kind", "'ip'"), ("url", "'https://x.example/{key}'")];
            match row.iter().position(|(name, _)| *name == column) {
                Some(place) => row[place].1 = bad,
                None => row.push((column, bad)),
            }
            let (names, values): (Vec<_>, Vec<_>) = row.into_iter().unzip();
            let refusal = refused(&format!(
                "INSERT INTO enrichment_service ({}) VALUES ({})",
                names.join(", "),
                values.join(", ")
            ));
            assert_eq!(refusal.sqlstate, "22023", "{column} {bad}: {refusal:?}");
            assert!(refusal.message.contains(why), "{column} {bad}: {refusal:?}");
            assert!(!refusal.hint.is_empty(), "{column} {bad}: {refusal:?}");
        }
        holds("NOT EXISTS (SELECT FROM enrichment_service WHERE name = 'registrybad')");
    }

    #[pg_test]
    fn registry_an_update_is_checked_as_an_insert_is() {
        let refusal =
            refused("UPDATE enrichment_service SET limits = '[{\"max\": -1, \"per\": \"day\"}]' WHERE name = 'hibp'");
        assert!(refusal.message.starts_with("invalid limits for service \"hibp\""), "{refusal:?}");
        assert_eq!(refusal.hint, "Correct the column limits of this row of enrichment_service.");
        for (column, value) in
            [("ttl", "'0'"), ("max_bytes", "10"), ("timeout_ms", "0"), ("max_in_flight", "0"), ("name", "'No Name'")]
        {
            let refusal = refused(&format!("UPDATE enrichment_service SET {column} = {value} WHERE name = 'hibp'"));
            assert_eq!(refusal.sqlstate, "23514", "{column}: {refusal:?}");
            assert!(refusal.message.contains(column), "{refusal:?}");
        }
    }
}
