//! The text pair: what goes in comes out, byte for byte.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{holds, quoted, run, text, value};
    use pgrx::prelude::*;

    #[pg_test]
    fn text_comes_back_byte_for_byte() {
        let long = "é\\".repeat(20_000);
        for raw in [
            "",
            " ",
            "plain",
            "\"quoted\"",
            "it's",
            "back\\slash \\u0000 \\\\u0000 \\ud800",
            "line\nbreak\r\ntab\tend\n",
            "\u{1}\u{7f}\u{80}\u{fffd}\u{feff}",
            "na\u{ef}ve \u{43f}\u{430}\u{440}\u{43e}\u{43b}\u{44c} \u{1f512} e\u{301}",
            "{\"json\": [1, 2.50, 1e400, \"\\u0000\"], \"json\": 2}",
            "00D4F6E8FA6EECAD2A3AA415EEC418D38EC:2\r\n011053FD0102E94D6AE2F8B83D76FAF94F6:1",
            long.as_str(),
        ] {
            run(&format!("SELECT enrich_store_text('dshield', '9.6.0.1', {})", quoted(raw)));
            assert_eq!(value("SELECT enrich_get_text('dshield', '9.6.0.1')").as_deref(), Some(raw));
            holds(&format!(
                "convert_to(enrich_get_text('dshield', '9.6.0.1'), 'UTF8') = convert_to({}, 'UTF8')",
                quoted(raw)
            ));
        }
    }

    #[pg_test]
    fn text_follows_the_rules_of_every_answer() {
        assert_eq!(text("SELECT enrich_store_text('dshield', '::ffff:9.6.0.2', 'one', '1 day')"), "1");
        assert_eq!(text("SELECT enrich_store_text('dshield', '9.6.0.2', 'two', '0')"), "2");
        holds("enrich_get_text('dshield', '9.6.0.2') IS NULL");
        holds("enrich_get('dshield', '9.6.0.2', '1 second') = '\"two\"'");
        holds("(SELECT payload = '\"one\"' FROM enrichment_history WHERE cache_key = '9.6.0.2')");
    }

    #[pg_test]
    fn text_of_an_answer_that_is_json_is_its_json() {
        run("SELECT enrich_store('dshield', '9.6.0.3', '{\"a\": [1, null]}')");
        holds("enrich_get_text('dshield', '9.6.0.3')::jsonb = '{\"a\": [1, null]}'");
    }

    #[pg_test]
    fn text_of_an_answer_with_a_number_keeps_every_digit() {
        let number = "123456789012345678901234567890.123456789";
        run(&format!("SELECT enrich_store('dshield', '9.6.0.4', '{{\"n\": {number}}}')"));
        let got = text("SELECT enrich_get_text('dshield', '9.6.0.4')");
        assert!(got.contains(number), "{got}");
    }
}
