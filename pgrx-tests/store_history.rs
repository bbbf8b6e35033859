//! What a new observation does to the one that stands: order in time, failures, history.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, run, text};
    use pgrx::prelude::*;

    fn row(key: &str) -> String {
        text(&format!(
            "SELECT concat_ws('|', coalesce(payload::text, '-'), response_status, version, coalesce(error_message, '-'))
            FROM enrichment_cache WHERE service = 'dshield' AND cache_key = '{key}'"
        ))
    }

    #[pg_test]
    fn store_history_an_older_observation_does_not_replace_a_newer_one() {
        run("SELECT enrich_store('dshield', '9.3.0.1', '{\"new\": 1}', '1 day')");
        let version = text("SELECT enrich_store('dshield', '9.3.0.1', '{\"old\": 1}', '90 days', fetched_at => now() - interval '1 hour')");
        assert_eq!(version, "1");
        assert_eq!(row("9.3.0.1"), r#"{"new": 1}|success|1|-"#);
        holds("(SELECT fetched_at = now() AND expires_at = now() + interval '1 day' FROM enrichment_cache WHERE cache_key = '9.3.0.1')");
        assert_eq!(count("SELECT count(*) FROM enrichment_history WHERE cache_key = '9.3.0.1'"), 0);
    }

    #[pg_test]
    fn store_history_a_failure_does_not_replace_an_answer() {
        run(
            "SELECT enrich_store('dshield', '9.3.0.2', '{\"a\": 1}', '1 hour', fetched_at => now() - interval '1 day')",
        );
        for status in ["error", "rate_limited", "unauthorized", "invalid"] {
            run(&format!(
                "SELECT enrich_store('dshield', '9.3.0.2', NULL, response_status => '{status}',
                api_response_code => 503, error_message => 'down')"
            ));
        }
        assert_eq!(row("9.3.0.2"), r#"{"a": 1}|success|5|down"#);
        holds("(SELECT fetched_at = now() - interval '1 day' AND expires_at = now() - interval '23 hours' AND api_response_code = 503
            FROM enrichment_cache WHERE cache_key = '9.3.0.2')");
        assert_eq!(text("SELECT state || payload::text FROM enrich_lookup('dshield', '9.3.0.2')"), r#"stale{"a": 1}"#);
        holds("enrich_get('dshield', '9.3.0.2', '1 day') IS NOT NULL");
        assert_eq!(count("SELECT count(*) FROM enrichment_history WHERE cache_key = '9.3.0.2'"), 0);
    }

    #[pg_test]
    fn store_history_a_failure_does_not_replace_a_known_not_found() {
        run("SELECT enrich_store('dshield', '9.3.0.3', NULL, '1 day', 'not_found')");
        run("SELECT enrich_store('dshield', '9.3.0.3', NULL, NULL, 'error', error_message => 'down')");
        assert_eq!(row("9.3.0.3"), "-|not_found|2|down");
        assert_eq!(text("SELECT state FROM enrich_lookup('dshield', '9.3.0.3')"), "not_found");
    }

    #[pg_test]
    fn store_history_an_answer_replaces_a_failure() {
        run("SELECT enrich_store('dshield', '9.3.0.4', NULL, NULL, 'error', 500, 9, 'down')");
        run("SELECT enrich_store('dshield', '9.3.0.4', '{\"a\": 1}')");
        assert_eq!(row("9.3.0.4"), r#"{"a": 1}|success|2|-"#);
        holds("enrich_get('dshield', '9.3.0.4') IS NOT NULL");
    }

    #[pg_test]
    fn store_history_an_answer_that_is_gone_is_not_served_and_is_kept_in_the_history() {
        run("SELECT enrich_store('dshield', '9.3.0.5', '{\"a\": 1}', fetched_at => now() - interval '1 day')");
        run("SELECT enrich_store('dshield', '9.3.0.5', NULL, response_status => 'not_found')");
        assert_eq!(row("9.3.0.5"), "-|not_found|2|-");
        holds("enrich_get('dshield', '9.3.0.5', '1 year') IS NULL");
        assert_eq!(
            list(
                "SELECT payload::text || ' ' || version || ' ' || (fetched_at = now() - interval '1 day')::text
                FROM enrichment_history WHERE cache_key = '9.3.0.5'"
            ),
            [r#"{"a": 1} 1 true"#]
        );
    }

    #[pg_test]
    fn store_history_earlier_payloads_are_kept_only_when_they_differ() {
        for payload in [r#"{"n": 1}"#, r#"{"n": 1}"#, r#"{"n":1.0}"#, r#"{"n": 2}"#, r#"{"n": 2}"#, r#"{"n": 3}"#] {
            run(&format!("SELECT enrich_store('dshield', '9.3.0.6', '{payload}')"));
        }
        assert_eq!(
            list("SELECT payload ->> 'n' || ' of ' || version FROM enrichment_history WHERE cache_key = '9.3.0.6' ORDER BY id"),
            ["1.0 of 3", "2 of 5"]
        );
        assert_eq!(row("9.3.0.6"), r#"{"n": 3}|success|6|-"#);
    }
}
