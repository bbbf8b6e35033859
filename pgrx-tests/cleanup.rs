//! enrich_cleanup: what is past expiry and the grace of its service goes, in the number asked for.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, list, refused, run, text};
    use pgrx::prelude::*;

    fn aged(service: &str, key: &str, age: &str) {
        run(&format!(
            "SELECT enrich_store('{service}', '{key}', '{{}}', '1 day', fetched_at => now() - interval '{age}')"
        ));
    }

    #[pg_test]
    fn cleanup_waits_for_the_grace_of_each_service() {
        // stale_ttl: dshield 90 days, urlhaus 60 days
        aged("dshield", "9.9.0.1", "92 days");
        aged("dshield", "9.9.0.2", "90 days");
        aged("urlhaus", "9.9.0.3", "62 days");
        aged("urlhaus", "9.9.0.4", "60 days");
        aged("dshield", "9.9.0.5", "62 days");
        aged("dshield", "9.9.0.6", "0 days");
        assert_eq!(text("SELECT enrich_cleanup()"), "2");
        assert_eq!(
            list("SELECT cache_key FROM enrichment_cache WHERE cache_key LIKE '9.9.0.%' ORDER BY 1"),
            ["9.9.0.2", "9.9.0.4", "9.9.0.5", "9.9.0.6"]
        );
    }

    #[pg_test]
    fn cleanup_removes_no_more_than_it_is_told_the_oldest_first() {
        for (key, age) in [("9.9.1.1", "200 days"), ("9.9.1.2", "300 days"), ("9.9.1.3", "250 days")] {
            aged("dshield", key, age);
        }
        assert_eq!(text("SELECT enrich_cleanup(0)"), "0");
        assert_eq!(text("SELECT enrich_cleanup(max_rows => 2)"), "2");
        assert_eq!(list("SELECT cache_key FROM enrichment_cache WHERE cache_key LIKE '9.9.1.%'"), ["9.9.1.1"]);
        assert_eq!(text("SELECT enrich_cleanup(10)"), "1");
    }

    #[pg_test]
    fn cleanup_removes_more_than_one_batch() {
        run("INSERT INTO enrichment_cache (service, cache_key, payload, fetched_at, expires_at)
            SELECT 'spur', '9.' || 100 + i / 250 || '.0.' || i % 250, '{}', now() - interval '2 years', now() - interval '1 year'
            FROM generate_series(1, 2500) i");
        assert_eq!(text("SELECT enrich_cleanup()"), "2500");
        assert_eq!(
            count("SELECT count(*) FROM enrichment_cache WHERE service = 'spur' AND cache_key LIKE '9.10%.0.%'"),
            0
        );
    }

    #[pg_test]
    fn cleanup_removes_answers_of_unknown_keys_that_are_as_old() {
        let unknown = |digits: &str, expired: &str| {
            run(&format!(
                "INSERT INTO enrichment_orphan (service, digest, payload, response_status, fetched_at, expires_at)
                VALUES ('urlhaus', decode(repeat('{digits}', 32), 'hex'), '{{}}', 'success', now() - interval '1 year', now() - interval '{expired}')"
            ));
        };
        for (digits, expired) in [("01", "59 days"), ("02", "61 days"), ("03", "70 days"), ("04", "80 days")] {
            unknown(digits, expired);
        }
        aged("urlhaus", "9.9.2.1", "90 days");
        assert_eq!(text("SELECT enrich_cleanup(3)"), "3");
        let left = "SELECT left(encode(digest, 'hex'), 2) FROM enrichment_orphan ORDER BY 1";
        assert_eq!(list(left), ["01", "02"], "the oldest first, and what stands under keys before");
        assert_eq!(text("SELECT enrich_cleanup()"), "1");
        assert_eq!(list(left), ["01"]);
    }

    #[pg_test]
    fn cleanup_of_a_negative_number_is_refused() {
        refused("SELECT enrich_cleanup(-1)").says("22023", "max_rows must not be negative: -1", "or NULL for all");
    }
}
