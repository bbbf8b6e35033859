//! Texts of providers against the server's own `jsonb`: what was made safe is taken.

#[pgrx::pg_schema]
mod tests {
    use crate::core::json_text::{corpus, make_safe};
    use crate::core::jsonb;
    use crate::in_database::ask::{holds, refused, run, text};
    use crate::pg::ranges;
    use pgrx::prelude::*;

    /// Casts texts to `jsonb` and back, in one statement.
    fn cast(texts: Vec<String>) -> i64 {
        let sql = "SELECT count(t::jsonb::text) FROM unnest($1::text[]) AS t";
        Spi::get_one_with_args(sql, &[texts.into()]).unwrap().unwrap()
    }

    #[pg_test]
    fn json_text_every_safe_text_is_taken_by_jsonb() {
        let bodies = corpus::kept().into_iter().chain((0..8000).map(corpus::made));
        let safe: Vec<String> = bodies.filter_map(|body| make_safe(&body).ok()).map(|safe| safe.text).collect();
        assert!(safe.len() > 6000, "{}: most are to be JSON", safe.len());
        for some in safe.chunks(500) {
            assert_eq!(cast(some.to_vec()), some.len() as i64);
        }
    }

    #[pg_test]
    fn json_text_what_is_built_beside_the_session_is_what_jsonb_in_makes() {
        let bodies = corpus::kept().into_iter().chain((0..8000).map(corpus::made));
        let (mut built, mut left) = (0, 0);
        for text in bodies.filter_map(|body| make_safe(&body).ok()).map(|safe| safe.text) {
            let Some(bytes) = jsonb::build(&text) else {
                left += 1;
                continue;
            };
            built += 1;
            ranges::with_bytes(ranges::jsonb(&text), |own| assert!(own == bytes, "{text}"));
        }
        assert!(built > 2 * left, "{built} were built, {left} left to the server");
    }

    #[pg_test]
    fn json_text_numbers_at_the_border_of_numeric_stay_numbers() {
        for (number, kind) in [
            ("1e131071", "number"),
            ("1e131072", "string"),
            ("1e-16383", "number"),
            ("1e-16384", "string"),
            ("1e400000", "string"),
        ] {
            let safe = make_safe(number.as_bytes()).unwrap();
            assert_eq!(
                (text(&format!("SELECT jsonb_typeof('{}')", safe.text)).as_str(), safe.altered),
                (kind, kind == "string")
            );
            if kind == "string" {
                // and without that it is refused
                refused(&format!("SELECT '{number}'::jsonb"));
            }
        }
    }

    #[pg_test]
    fn json_text_a_repeated_name_is_what_jsonb_leaves_out() {
        let bodies = [(r#"{"a":1,"\u0061":2}"#, 1), (r#"{"a":1,"A":2}"#, 2), (r#"{"\u0000":1,"\ufffd":2}"#, 1)];
        for (body, left) in bodies {
            let safe = make_safe(body.as_bytes()).unwrap();
            holds(&format!("(SELECT count(*) = {left} FROM jsonb_object_keys('{}'))", safe.text));
            assert_eq!(safe.altered, left == 1, "{body}");
        }
    }

    #[pg_test]
    fn json_text_what_a_store_says_of_its_payload_is_kept_with_it() {
        run("INSERT INTO enrichment_cache (service, cache_key, payload, expires_at, altered, etag)
            VALUES ('dshield', '9.8.0.1', '{\"a\": 1}', now(), true, '\"x\"')");
        run("SELECT enrich_store('dshield', '9.8.0.1', NULL, response_status => 'error')");
        holds("(SELECT altered AND etag IS NOT NULL FROM enrichment_cache WHERE cache_key = '9.8.0.1')");
        run("SELECT enrich_store('dshield', '9.8.0.1', '{\"a\": 2}')");
        holds("(SELECT NOT altered AND etag IS NULL FROM enrichment_cache WHERE cache_key = '9.8.0.1')");
        holds("(SELECT altered FROM enrichment_history WHERE cache_key = '9.8.0.1')");
    }
}
