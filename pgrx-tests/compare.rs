//! enrich_compare_and_store: only the one who saw the current version writes.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{holds, refused, run, value};
    use pgrx::prelude::*;

    fn attempt(key: &str, expected: i64, payload: &str) -> Option<String> {
        value(&format!("SELECT enrich_compare_and_store('dshield', '{key}', {expected}, '{payload}')"))
    }

    #[pg_test]
    fn compare_zero_means_that_there_is_no_row_yet() {
        assert_eq!(attempt("9.7.0.1", 1, "{}"), None);
        holds("NOT EXISTS (SELECT FROM enrichment_cache WHERE cache_key = '9.7.0.1')");
        assert_eq!(attempt("9.7.0.1", 0, "1").as_deref(), Some("1"));
        assert_eq!(attempt("9.7.0.1", 0, "2"), None);
        holds("enrich_get('dshield', '9.7.0.1') = '1'");
    }

    #[pg_test]
    fn compare_only_the_version_that_stands_is_replaced() {
        run("SELECT enrich_store('dshield', '9.7.0.2', '1'), enrich_store('dshield', '9.7.0.2', '2')");
        assert_eq!(attempt("9.7.0.2", 1, "3"), None);
        assert_eq!(attempt("9.7.0.2", 3, "3"), None);
        assert_eq!(attempt("9.7.0.2", -1, "3"), None);
        holds("enrich_get('dshield', '9.7.0.2') = '2'");
        assert_eq!(attempt("::ffff:9.7.0.2", 2, "3").as_deref(), Some("3"));
        holds("enrich_get('dshield', '9.7.0.2') = '3'");
        holds("(SELECT count(*) = 2 FROM enrichment_history WHERE cache_key = '9.7.0.2')");
    }

    #[pg_test]
    fn compare_an_explicit_ttl_is_exact() {
        run("SELECT enrich_compare_and_store('dshield', '9.7.0.3', 0, '1', '1 hour')");
        holds("(SELECT expires_at = now() + interval '1 hour' FROM enrichment_cache WHERE cache_key = '9.7.0.3')");
    }

    #[pg_test]
    fn compare_refuses_what_store_refuses() {
        assert_eq!(refused("SELECT enrich_compare_and_store('dshield', 'dirt', 0, '{}')").sqlstate, "22023");
        assert_eq!(
            refused("SELECT enrich_compare_and_store('dshield', '9.7.0.4', 0, '{}', '-1 day')").sqlstate,
            "22023"
        );
    }
}
