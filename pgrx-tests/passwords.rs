//! Passwords: split inside, judged from stored ranges, and only five digits of their hash written anywhere.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, relations, run, text};
    use pgrx::prelude::*;

    // SHA-1 of "password" is 5BAA6 1E4C9B93F3F0682250B6CF8331B7EE68FD8
    const SUFFIX: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    fn asked(password: &str) -> String {
        text(&format!(
            "SELECT concat_ws('|', coalesce(breached::text, '-'), coalesce(prevalence::text, '-'), status)
            FROM enrich_password('{password}')"
        ))
    }

    fn range(body: &str, ttl: &str) {
        run(&format!("SELECT enrich_store('hibp', '5baa6', '{body}', '{ttl}')"));
    }

    #[pg_test]
    fn passwords_are_split_into_five_digits_and_the_rest() {
        assert_eq!(text("SELECT enrich_hibp_prefix('password')"), "5BAA6");
        assert_eq!(text("SELECT enrich_hibp_suffix('password')"), SUFFIX);
        // of the bytes of the text, not of anything else: SHA-1("") and SHA-1("pässwörd")
        assert_eq!(
            text("SELECT enrich_hibp_prefix('') || enrich_hibp_suffix('')"),
            "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709"
        );
        assert_eq!(
            text("SELECT enrich_hibp_prefix('p\u{e4}ssw\u{f6}rd') || enrich_hibp_suffix('p\u{e4}ssw\u{f6}rd')"),
            SHA1_UMLAUTS
        );
    }

    const SHA1_UMLAUTS: &str = "F517DDF1D32A112FF1AD55C66D1B12CB38E7E8F7";

    #[pg_test]
    fn passwords_nobody_asked_about_are_queued_and_not_called_safe() {
        assert_eq!(asked("password"), "-|-|queued");
        assert_eq!(
            text("SELECT service || ' ' || cache_key FROM enrichment_queue WHERE cache_key = '5BAA6'"),
            "hibp 5BAA6"
        );
        assert_eq!(asked("password"), "-|-|queued");
    }

    #[pg_test]
    fn passwords_are_judged_from_the_stored_range() {
        range(&format!(r#"{{"{SUFFIX}": 10434004, "{}": 3}}"#, "0".repeat(35)), "1 day");
        assert_eq!(asked("password"), "true|10434004|fresh");
        holds("NOT EXISTS (SELECT FROM enrichment_queue WHERE cache_key = '5BAA6')");
    }

    #[pg_test]
    fn passwords_that_the_range_does_not_hold_are_not_breached() {
        range(&format!(r#"{{"{}": 3}}"#, "0".repeat(35)), "1 day");
        assert_eq!(asked("password"), "false|0|fresh");
    }

    #[pg_test]
    fn passwords_a_padding_row_of_count_zero_is_not_a_breach() {
        range(&format!(r#"{{"{SUFFIX}": 0, "{}": 3}}"#, "0".repeat(35)), "1 day");
        assert_eq!(asked("password"), "false|0|fresh");
        // and padding alone is no answer
        for range_of_padding in [format!(r#"{{"{SUFFIX}": 0}}"#), "{}".to_owned(), r#"{"x": 0}"#.to_owned()] {
            range(&range_of_padding, "1 day");
            assert_eq!(asked("password"), "-|-|empty", "{range_of_padding}");
        }
    }

    #[pg_test]
    fn passwords_of_an_expired_range_are_stale_and_asked_again() {
        range(&format!(r#"{{"{SUFFIX}": 7}}"#), "0");
        assert_eq!(asked("password"), "true|7|stale");
        holds("EXISTS (SELECT FROM enrichment_queue WHERE service = 'hibp' AND cache_key = '5BAA6')");
    }

    #[pg_test]
    fn passwords_are_not_called_safe_when_the_provider_is_down() {
        run("SELECT enrich_store('hibp', '5BAA6', NULL, response_status => 'error', error_message => 'HTTP 503')");
        assert_eq!(asked("password"), "-|-|queued");
        run("UPDATE enrichment_queue SET state = 'dead', last_outcome = 'error' WHERE cache_key = '5BAA6'");
        assert_eq!(asked("password"), "-|-|error");
        range(&format!(r#"{{"{SUFFIX}": 7}}"#), "0");
        run("SELECT enrich_store('hibp', '5BAA6', NULL, response_status => 'error', error_message => 'HTTP 503')");
        assert_eq!(asked("password"), "true|7|stale");
    }

    #[pg_test]
    fn passwords_with_the_service_disabled_say_so() {
        run("UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'");
        assert_eq!(asked("password"), "-|-|disabled");
        range(&format!(r#"{{"{SUFFIX}": 7}}"#), "1 day");
        assert_eq!(asked("password"), "true|7|fresh");
    }

    #[pg_test]
    fn passwords_can_be_judged_where_nothing_may_be_written() {
        range(&format!(r#"{{"{SUFFIX}": 7}}"#), "1 day");
        run("SET LOCAL transaction_read_only = on");
        assert_eq!(asked("password"), "true|7|fresh");
        assert_eq!(asked("another"), "-|-|miss");
    }

    #[pg_test]
    fn passwords_leave_neither_themselves_nor_their_hash_in_any_table() {
        let hash =
            text("SELECT enrich_hibp_prefix('correct horse battery') || enrich_hibp_suffix('correct horse battery')");
        assert_eq!(asked("correct horse battery"), "-|-|queued");
        for table in relations("r") {
            let found = count(&format!(
                "SELECT count(*) FROM {table} t WHERE t::text ILIKE '%correct horse%'
                OR t::text ILIKE '%{hash}%' OR t::text ILIKE '%{}%'",
                &hash[5..]
            ));
            assert_eq!(found, 0, "{table}");
        }
    }
}
