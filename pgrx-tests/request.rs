//! enrich_request and enrich_request_many: what is queued, what is not, and why.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, refused, run, service, text};
    use pgrx::prelude::*;

    fn ask(service: &str, key: &str) -> String {
        text(&format!("SELECT enrich_request('{service}', '{key}')"))
    }

    #[pg_test]
    fn request_is_queued_once_however_often_it_is_asked() {
        assert_eq!(ask("dshield", "9.30.0.1"), "queued");
        assert_eq!(ask("dshield", "::ffff:9.30.0.1"), "already_queued");
        assert_eq!(ask("dshield", "9.30.0.1"), "already_queued");
        assert_eq!(
            list("SELECT concat_ws('|', service, cache_key, priority, state, attempts) FROM enrichment_queue WHERE cache_key = '9.30.0.1'"),
            ["dshield|9.30.0.1|0|waiting|0"]
        );
    }

    #[pg_test]
    fn request_of_what_is_known_is_fresh_and_of_what_expired_is_queued() {
        run("SELECT enrich_store('dshield', '9.30.1.1', '{}')");
        run("SELECT enrich_store('dshield', '9.30.1.2', NULL, response_status => 'not_found')");
        run("SELECT enrich_store('dshield', '9.30.1.3', '{}', '0')");
        run("SELECT enrich_store('dshield', '9.30.1.4', NULL, '1 day', response_status => 'error')");
        assert_eq!(ask("dshield", "9.30.1.1"), "fresh");
        assert_eq!(ask("dshield", "9.30.1.2"), "fresh");
        assert_eq!(ask("dshield", "9.30.1.3"), "queued");
        assert_eq!(ask("dshield", "9.30.1.4"), "queued");
        assert_eq!(count("SELECT count(*) FROM enrichment_queue WHERE cache_key LIKE '9.30.1.%'"), 2);
    }

    #[pg_test]
    fn request_for_an_address_no_provider_can_know_is_ineligible() {
        for key in [
            "10.0.0.1",
            "127.0.0.1",
            "169.254.1.1",
            "192.168.1.1",
            "203.0.113.5",
            "0.0.0.0",
            "224.0.0.1",
            "::1",
            "fe80::1%eth0",
            "fd00::1",
            "2001:db8::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(ask("dshield", key), "ineligible", "{key}");
        }
        assert_eq!(ask("urlhaus", "localhost"), ask("virustotal", "10.0.0.1"));
        assert_eq!(count("SELECT count(*) FROM enrichment_queue"), 0);
    }

    #[pg_test]
    fn request_to_a_disabled_service_says_so() {
        service("requestoff", "ip");
        run("UPDATE enrichment_service SET enabled = false WHERE name = 'requestoff'");
        assert_eq!(ask("requestoff", "9.30.2.1"), "disabled");
        run("UPDATE enrichment_service SET enabled = true WHERE name = 'requestoff'");
        assert_eq!(ask("requestoff", "9.30.2.1"), "queued");
    }

    #[pg_test]
    fn request_without_the_secret_a_service_needs_is_no_credential() {
        service("requestsecret", "ip");
        run("UPDATE enrichment_service SET secret_name = 'REQUEST_TEST_KEY', secret_required = true WHERE name = 'requestsecret'");
        assert_eq!(ask("requestsecret", "9.30.3.1"), "no_credential");
        assert_eq!(text("SELECT enrich_request_many('requestsecret', '{9.30.3.1}')"), "0");
        run("SELECT enrich_set_secret('requestsecret', 'a key')");
        assert_eq!(ask("requestsecret", "9.30.3.1"), "queued");
        run("SELECT enrich_set_secret('requestsecret', NULL)");
        assert_eq!(ask("requestsecret", "9.30.3.2"), "no_credential");
        run("UPDATE enrichment_service SET secret_required = false WHERE name = 'requestsecret'");
        assert_eq!(ask("requestsecret", "9.30.3.2"), "queued");
    }

    #[pg_test]
    fn request_takes_the_higher_priority_and_never_the_lower() {
        run("SELECT enrich_request('dshield', '9.30.4.1', 5)");
        let priority = || count("SELECT priority FROM enrichment_queue WHERE cache_key = '9.30.4.1'");
        run("SELECT enrich_request('dshield', '9.30.4.1', 9)");
        assert_eq!(priority(), 9);
        run("SELECT enrich_request('dshield', '9.30.4.1', 1)");
        assert_eq!(priority(), 9);
    }

    #[pg_test]
    fn request_revives_what_rests_after_its_last_attempt() {
        run("SELECT enrich_request('dshield', '9.30.5.1')");
        run("UPDATE enrichment_queue SET state = 'dead', attempts = 8, next_attempt_at = now() + interval '1 day' WHERE cache_key = '9.30.5.1'");
        run("SELECT enrich_request('dshield', '9.30.5.1')");
        holds("(SELECT state = 'waiting' AND attempts = 0 AND next_attempt_at = now() FROM enrichment_queue WHERE cache_key = '9.30.5.1')");
    }

    #[pg_test]
    fn request_with_a_key_that_cannot_be_one_is_refused() {
        refused("SELECT enrich_request('dshield', 'dirt')").says(
            "22023",
            "key \"dirt\" is not a valid IP address for service \"dshield\"",
            "Give one IPv4 or IPv6 address",
        );
        assert_eq!(
            refused("SELECT enrich_request('hibp', '5BAA61E4C9B93F3F0682250B6CF8331B7EE68FD8')").sqlstate,
            "22023"
        );
    }

    #[pg_test]
    fn request_many_counts_what_is_new_in_the_queue() {
        run("SELECT enrich_store('dshield', '9.30.6.1', '{}'), enrich_request('dshield', '9.30.6.2')");
        let keys = "{9.30.6.1,9.30.6.2,9.30.6.3,::ffff:9.30.6.3,9.30.6.4,10.0.0.1,NULL}";
        assert_eq!(text(&format!("SELECT enrich_request_many('dshield', '{keys}', 3)")), "2");
        assert_eq!(
            list(
                "SELECT cache_key || ' ' || priority FROM enrichment_queue WHERE cache_key LIKE '9.30.6.%' ORDER BY 1"
            ),
            ["9.30.6.2 3", "9.30.6.3 3", "9.30.6.4 3"]
        );
        assert_eq!(text(&format!("SELECT enrich_request_many('dshield', '{keys}')")), "0");
        assert_eq!(text("SELECT enrich_request_many('dshield', '{}')"), "0");
    }

    #[pg_test]
    fn request_many_with_one_bad_key_queues_nothing() {
        let refusal = refused("SELECT enrich_request_many('dshield', '{9.30.7.1,dirt,9.30.7.2}')");
        assert_eq!(refusal.sqlstate, "22023");
        assert_eq!(count("SELECT count(*) FROM enrichment_queue WHERE cache_key LIKE '9.30.7.%'"), 0);
    }
}
