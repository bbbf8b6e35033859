//! enrich_lookup: the state that says why a value is what it is.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{holds, run, text};
    use pgrx::prelude::*;

    fn state(key: &str) -> String {
        text(&format!("SELECT state FROM enrich_lookup('dshield', '{key}')"))
    }

    #[pg_test]
    fn lookup_a_hit_shows_everything_known() {
        run("SELECT enrich_store('dshield', '9.20.0.1', '{\"a\": 1}', '1 day', fetched_at => now() - interval '1 hour')");
        assert_eq!(
            text(
                "SELECT concat_ws('|', cache_key, state, response_status, payload, age, hit_count, version,
                expires_at - fetched_at, coalesce(error_message, '-'), coalesce(next_attempt_at::text, '-'))
                FROM enrich_lookup('dshield', '::ffff:9.20.0.1')"
            ),
            r#"9.20.0.1|hit|success|{"a": 1}|01:00:00|0|1|1 day|-|-"#
        );
    }

    #[pg_test]
    fn lookup_tells_the_seven_states_apart() {
        run("SELECT enrich_store('dshield', '9.20.1.1', '{}')");
        run("SELECT enrich_store('dshield', '9.20.1.2', '{}', '0')");
        run("SELECT enrich_store('dshield', '9.20.1.3', NULL, response_status => 'not_found')");
        run("SELECT enrich_store('dshield', '9.20.1.4', NULL, response_status => 'unauthorized', error_message => 'wrong key')");
        run("SELECT enrich_request('dshield', '9.20.1.5')");
        assert_eq!(state("9.20.1.1"), "hit");
        assert_eq!(state("9.20.1.2"), "stale");
        assert_eq!(state("9.20.1.3"), "not_found");
        assert_eq!(state("9.20.1.4"), "error");
        assert_eq!(state("9.20.1.5"), "queued");
        assert_eq!(state("9.20.1.6"), "miss");
        assert_eq!(state("192.168.1.1"), "ineligible");
    }

    #[pg_test]
    fn lookup_of_a_key_that_cannot_be_one_is_ineligible() {
        assert_eq!(state("dirt"), "ineligible");
        assert_eq!(state(""), "ineligible");
        holds("(SELECT payload IS NULL AND response_status IS NULL FROM enrich_lookup('dshield', 'dirt'))");
    }

    #[pg_test]
    fn lookup_a_stored_answer_about_a_private_address_is_a_hit() {
        run("SELECT enrich_store('dshield', '10.20.0.1', '{}')");
        assert_eq!(state("10.20.0.1"), "hit");
    }

    #[pg_test]
    fn lookup_a_request_that_failed_is_an_error_with_its_reason_and_its_next_attempt() {
        run("SELECT enrich_request('dshield', '9.20.2.1')");
        run("UPDATE enrichment_queue SET attempts = 1, last_outcome = 'error', last_error = 'HTTP 500',
            next_attempt_at = now() + interval '1 hour' WHERE cache_key = '9.20.2.1'");
        assert_eq!(
            text("SELECT concat_ws('|', state, error_message, next_attempt_at - now()) FROM enrich_lookup('dshield', '9.20.2.1')"),
            "error|HTTP 500|01:00:00"
        );
        run("UPDATE enrichment_queue SET state = 'dead' WHERE cache_key = '9.20.2.1'");
        holds("(SELECT state = 'error' AND next_attempt_at IS NULL FROM enrich_lookup('dshield', '9.20.2.1'))");
    }

    #[pg_test]
    fn lookup_a_stale_answer_whose_refresh_fails_stays_stale_with_the_reason() {
        run("SELECT enrich_store('dshield', '9.20.3.1', '{\"a\": 1}', '0')");
        run("SELECT enrich_request('dshield', '9.20.3.1')");
        run("UPDATE enrichment_queue SET last_outcome = 'rate_limited', last_error = 'HTTP 429' WHERE cache_key = '9.20.3.1'");
        assert_eq!(
            text("SELECT concat_ws('|', state, payload, error_message) FROM enrich_lookup('dshield', '9.20.3.1')"),
            r#"stale|{"a": 1}|HTTP 429"#
        );
    }

    #[pg_test]
    fn lookup_a_not_found_that_expired_and_waits_is_queued() {
        run("SELECT enrich_store('dshield', '9.20.4.1', NULL, '0', 'not_found')");
        assert_eq!(state("9.20.4.1"), "miss");
        run("SELECT enrich_request('dshield', '9.20.4.1')");
        assert_eq!(state("9.20.4.1"), "queued");
    }

    #[pg_test]
    fn lookup_is_explained_in_one_sentence() {
        run("SELECT enrich_store('dshield', '9.20.5.1', '{}')");
        run("SELECT enrich_store('dshield', '9.20.5.2', NULL, response_status => 'not_found')");
        run("SELECT enrich_request('dshield', '9.20.5.3')");
        for (key, part) in [
            ("9.20.5.1", "dshield answered for 9.20.5.1 at "),
            ("9.20.5.2", "knows nothing"),
            ("9.20.5.3", "has not answered for 9.20.5.3 yet"),
            ("9.20.5.4", "was never asked about 9.20.5.4"),
            ("10.20.5.5", "10.20.5.5 is never sent to dshield: a private address."),
        ] {
            let said = text(&format!("SELECT enrich_explain('dshield', '{key}')"));
            assert!(said.contains(part) && said.ends_with('.'), "{said}");
        }
    }
}
