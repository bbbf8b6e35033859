//! enrich_invalidate: soft makes stale, hard deletes.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, refused, run, text};
    use pgrx::prelude::*;

    fn two_of_spur_one_of_dshield() {
        run("SELECT enrich_store(s, k, '{}') FROM (VALUES ('spur', '9.8.0.1'), ('spur', '9.8.0.2'), ('dshield', '9.8.0.1')) v (s, k)");
    }

    #[pg_test]
    fn invalidate_softly_expires_now_and_keeps_the_answer() {
        two_of_spur_one_of_dshield();
        assert_eq!(text("SELECT enrich_invalidate('spur', '::ffff:9.8.0.1')"), "1");
        holds("enrich_get('spur', '9.8.0.1') IS NULL");
        holds("enrich_get('spur', '9.8.0.1', '1 minute') = '{}'");
        holds("enrich_get('spur', '9.8.0.2') = '{}'");
        holds("enrich_get('dshield', '9.8.0.1') = '{}'");
        assert_eq!(text("SELECT state FROM enrich_lookup('spur', '9.8.0.1')"), "stale");
        // what is expired already does not change again
        assert_eq!(text("SELECT enrich_invalidate('spur', '9.8.0.1')"), "0");
    }

    #[pg_test]
    fn invalidate_hard_deletes() {
        two_of_spur_one_of_dshield();
        assert_eq!(text("SELECT enrich_invalidate('spur', '9.8.0.1', true)"), "1");
        holds("enrich_get('spur', '9.8.0.1', '1 year') IS NULL");
        assert_eq!(count("SELECT count(*) FROM enrichment_cache WHERE cache_key LIKE '9.8.0.%'"), 2);
        assert_eq!(text("SELECT enrich_invalidate('spur', '9.8.0.1', hard => true)"), "0");
    }

    #[pg_test]
    fn invalidate_without_a_key_takes_the_whole_service_and_no_other() {
        two_of_spur_one_of_dshield();
        assert_eq!(text("SELECT enrich_invalidate('spur')"), "2");
        holds("enrich_get('dshield', '9.8.0.1') = '{}'");
        assert_eq!(text("SELECT enrich_invalidate('spur', hard => true)"), "2");
        assert_eq!(count("SELECT count(*) FROM enrichment_cache WHERE cache_key LIKE '9.8.0.%'"), 1);
    }

    #[pg_test]
    fn invalidate_a_key_that_cannot_be_one_is_refused() {
        refused("SELECT enrich_invalidate('spur', '10.0.0.0/8')").says(
            "22023",
            "key \"10.0.0.0/8\" is not a valid IP address for service \"spur\"",
            "Give one IPv4 or IPv6 address",
        );
    }
}
