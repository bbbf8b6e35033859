//! enrich_store: versions, statuses, lives, sizes, and what it refuses.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, refused, run, service, text};
    use pgrx::prelude::*;

    const REFUSED: &str = "SELECT enrich_store('dshield', '9.2.0.9', ";

    #[pg_test]
    fn store_counts_versions_and_keeps_what_it_was_given() {
        let store = |payload: &str| {
            text(&format!(
                "SELECT enrich_store('dshield', '::ffff:9.2.0.1', '{payload}', '1 day',
            api_response_code => 200, api_latency_ms => 31)"
            ))
        };
        assert_eq!(store(r#"{"a": 1}"#), "1");
        assert_eq!(store(r#"{"a": 2}"#), "2");
        assert_eq!(store(r#"{"a": 2}"#), "3");
        assert_eq!(
            text(
                "SELECT concat_ws('|', service, cache_key, payload, response_status, api_response_code, api_latency_ms,
                hit_count, version) FROM enrichment_cache WHERE cache_key = '9.2.0.1'"
            ),
            r#"dshield|9.2.0.1|{"a": 2}|success|200|31|0|3"#
        );
    }

    #[pg_test]
    fn store_one_row_per_service_and_key_whatever_way_the_key_was_written() {
        for key in [
            "44D88612FEA8A8F36DE82E1278ABB02F",
            "44d88612fea8a8f36de82e1278abb02f",
            " 44d88612FEA8A8F36DE82E1278ABB02F\t",
        ] {
            run(&format!("SELECT enrich_store('virustotal', '{key}', '{{}}')"));
        }
        assert_eq!(count("SELECT count(*) FROM enrichment_cache WHERE cache_key ILIKE '%44d88612fea8%'"), 1);
    }

    #[pg_test]
    fn store_every_outcome_without_a_payload_is_told_apart() {
        for (place, status) in ["not_found", "error", "rate_limited", "unauthorized", "invalid"].into_iter().enumerate()
        {
            let key = format!("9.2.1.{place}");
            run(&format!(
                "SELECT enrich_store('spur', '{key}', NULL, response_status => '{status}', error_message => 'why')"
            ));
            holds(&format!(
                "(SELECT response_status || error_message FROM enrichment_cache
                WHERE service = 'spur' AND cache_key = '{key}' AND payload IS NULL) = '{status}why'"
            ));
            refused(&format!("SELECT enrich_store('spur', '9.2.2.1', '{{}}', response_status => '{status}')")).says(
                "22023",
                &format!("a response of status \"{status}\" has no payload"),
                "Leave the payload NULL",
            );
        }
        refused(&format!("{REFUSED} NULL)")).says(
            "22023",
            "a response of status \"success\" needs a payload",
            "not_found",
        );
    }

    #[pg_test]
    fn store_an_unknown_status_is_refused_with_the_known_ones() {
        refused(&format!("{REFUSED} NULL, response_status => 'ok')")).says(
            "22023",
            "invalid response status \"ok\"",
            "Use one of: success, not_found, error, rate_limited, unauthorized, invalid.",
        );
    }

    #[pg_test]
    fn store_a_key_that_cannot_be_one_is_refused_with_its_reason() {
        let refusal = refused("SELECT enrich_store('dshield', '10.0.0.0/8', '{}')");
        refusal.says(
            "22023",
            "key \"10.0.0.0/8\" is not a valid IP address for service \"dshield\"",
            "Give one IPv4 or IPv6 address",
        );
        assert_eq!(refusal.detail, "The key is a network, not one address.");
        refused("SELECT enrich_store('hibp', 'ABCDEF', '{}')").says(
            "22023",
            "key \"ABCDEF\" is not a valid hash prefix for service \"hibp\"",
            "Give the first five hexadecimal digits",
        );
        let long = refused(&format!("SELECT enrich_store('dshield', '{}', '{{}}')", "1".repeat(5000)));
        assert!(long.message.len() < 200 && long.sqlstate == "22023", "{long:?}");
    }

    #[pg_test]
    fn store_an_answer_about_a_private_address_is_taken() {
        run("SELECT enrich_store('dshield', '10.1.2.3', '{\"in house\": true}')");
        holds("enrich_get('dshield', '10.1.2.3') IS NOT NULL");
    }

    #[pg_test]
    fn store_without_a_ttl_lives_as_the_service_says_give_or_take_five_percent() {
        run("SELECT enrich_store('dshield', '9.2.3.' || i, '{}') FROM generate_series(1, 60) i");
        run("SELECT enrich_store('virustotal', '9.2.3.' || i, NULL, response_status => 'not_found') FROM generate_series(1, 60) i");
        for (service, ttl) in [("dshield", "7 days"), ("virustotal", "12 hours")] {
            holds(&format!(
                "(SELECT bool_and(abs(extract(epoch FROM expires_at - fetched_at - interval '{ttl}'))
                    <= 0.05 * extract(epoch FROM interval '{ttl}'))
                AND count(DISTINCT expires_at) BETWEEN 40 AND 50
                AND bool_and(mod(extract(epoch FROM expires_at - fetched_at)::numeric * 1000, extract(epoch FROM interval '{ttl}')) = 0)
                AND max(expires_at) - min(expires_at) > 0.05 * interval '{ttl}'
                FROM enrichment_cache WHERE service = '{service}' AND cache_key LIKE '9.2.3.%')"
            ));
        }
    }

    #[pg_test]
    fn store_the_spread_of_a_key_is_always_the_same() {
        run("SELECT enrich_store('dshield', '9.2.4.1', '{}')");
        let first = text("SELECT expires_at FROM enrichment_cache WHERE cache_key = '9.2.4.1'");
        run("SELECT enrich_store('dshield', '9.2.4.1', '{\"other\": 1}')");
        assert_eq!(text("SELECT expires_at FROM enrichment_cache WHERE cache_key = '9.2.4.1'"), first);
    }

    #[pg_test]
    fn store_an_explicit_ttl_is_exact_and_counts_from_the_observation() {
        run("SELECT enrich_store('dshield', '9.2.5.1', '{}', '90 minutes', fetched_at => now() - interval '1 hour')");
        holds(
            "(SELECT fetched_at = now() - interval '1 hour' AND expires_at = now() + interval '30 minutes'
            AND created_at = now() FROM enrichment_cache WHERE cache_key = '9.2.5.1')",
        );
        run("SELECT enrich_store('dshield', '9.2.5.2', '{}', fetched_at => now() - interval '6 days 23 hours')");
        holds("(SELECT expires_at < now() + interval '10 hours' FROM enrichment_cache WHERE cache_key = '9.2.5.2')");
    }

    #[pg_test]
    fn store_a_negative_ttl_is_refused() {
        refused(&format!("{REFUSED} '{{}}', '-1 second')")).says(
            "22023",
            "ttl must not be negative: -1 s",
            "Give an interval of zero or more, or NULL",
        );
        assert_eq!(refused(&format!("{REFUSED} '{{}}', '1 month -40 days')")).sqlstate, "22023");
        holds("NOT EXISTS (SELECT FROM enrichment_cache WHERE cache_key = '9.2.0.9')");
    }

    #[pg_test]
    fn store_a_huge_ttl_is_a_row_that_does_not_expire() {
        run("SELECT enrich_store('dshield', '9.2.5.3', '{}', '200000000 days')");
        holds("enrich_get('dshield', '9.2.5.3') IS NOT NULL");
    }

    #[pg_test]
    fn store_a_payload_over_the_limit_of_its_service_is_refused() {
        service("storesmall", "ip");
        run("UPDATE enrichment_service SET max_bytes = 1024 WHERE name = 'storesmall'");
        let payload = |length: usize| {
            format!("SELECT enrich_store('storesmall', '9.2.6.1', jsonb_build_object('a', repeat('x', {length})))")
        };
        run(&payload(900));
        let refusal = refused(&payload(1100));
        assert!(
            refusal.message.starts_with("payload of 1") && refusal.message.ends_with("exceeds the limit of 1024 bytes"),
            "{refusal:?}"
        );
        assert_eq!(refusal.sqlstate, "54000");
        assert!(refusal.hint.contains("max_bytes"), "{refusal:?}");
        // what compresses well is as large as it is unpacked
        assert_eq!(refused(&payload(1_000_000)).sqlstate, "54000");
        assert_eq!(refused("SELECT enrich_store_text('storesmall', '9.2.6.1', repeat('x', 1025))").sqlstate, "54000");
        holds("length(enrich_get('storesmall', '9.2.6.1') ->> 'a') = 900");
    }

    #[pg_test]
    fn store_an_observation_in_the_future_is_refused() {
        for moment in ["now() + interval '10 minutes'", "'infinity'"] {
            refused(&format!("{REFUSED} '{{}}', fetched_at => {moment})")).says(
                "22023",
                "fetched_at lies in the future",
                "Give the moment the answer was observed",
            );
        }
        // clocks differ a little
        run("SELECT enrich_store('dshield', '9.2.7.1', '{}', fetched_at => now() + interval '1 minute')");
    }

    #[pg_test]
    fn store_a_null_where_a_value_must_be_is_refused_and_not_an_internal_error() {
        for (call, argument) in [
            ("enrich_store(NULL, '9.2.0.9', '{}')", "service"),
            ("enrich_store('dshield', NULL, '{}')", "key"),
            ("enrich_store('dshield', '9.2.0.9', '{}', response_status => NULL)", "response_status"),
            ("enrich_store('dshield', '9.2.0.9', '{}', fetched_at => NULL)", "fetched_at"),
            ("enrich_store_many(NULL, '{}', '{}')", "service"),
            ("enrich_store_many('dshield', NULL, '{}')", "keys"),
            ("enrich_store_many('dshield', '{}', NULL)", "payloads"),
            ("enrich_store_text('dshield', '9.2.0.9', NULL)", "payload"),
            ("enrich_compare_and_store('dshield', '9.2.0.9', NULL, '{}')", "expected_version"),
            ("enrich_compare_and_store('dshield', '9.2.0.9', 0, NULL)", "payload"),
            ("enrich_invalidate(NULL)", "service"),
            ("enrich_invalidate('dshield', hard => NULL)", "hard"),
            ("enrich_set_secret(NULL, 'x')", "service"),
        ] {
            refused(&format!("SELECT {call}")).says(
                "22023",
                &format!("{argument} must not be null"),
                &format!("Give a value for the argument {argument}."),
            );
        }
    }
}
