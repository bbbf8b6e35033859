//! Hash ranges: kept packed, given back as they came, looked into without being unpacked.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, quoted, refused, run, text, value};
    use pgrx::prelude::*;

    // SHA-1 of "password" is 5BAA6 1E4C9B93F3F0682250B6CF8331B7EE68FD8
    const SUFFIX: &str = "1E4C9B93F3F0682250B6CF8331B7EE68FD8";

    /// A table `range_of` of suffixes as evenly spread as those of SHA-1, and of counts of each length.
    fn range_of(n: u32) {
        run(&format!(
            "CREATE TEMP TABLE range_of ON COMMIT DROP AS
            SELECT substr(upper(encode(sha256(i::text::bytea), 'hex')), 6, 35) AS suffix,
                CASE i % 5 WHEN 0 THEN i WHEN 1 THEN 10000 WHEN 2 THEN 10000 * i WHEN 3 THEN 68719476735 - i
                    ELSE 100000000 END::bigint AS seen
            FROM generate_series(1, {n}) i"
        ));
    }

    const OBJECT: &str = "(SELECT jsonb_object_agg(suffix, seen) FROM range_of)";

    fn kept(key: &str, column: &str) -> Option<String> {
        value(&format!("SELECT {column} FROM enrichment_cache WHERE service = 'hibp' AND cache_key = '{key}'"))
    }

    #[pg_test]
    fn hibp_ranges_are_kept_in_22_bytes_a_suffix_beside_a_summary() {
        range_of(2000);
        run(&format!("SELECT enrich_store('hibp', '5baa6', {OBJECT})"));
        assert_eq!(kept("5BAA6", "payload").as_deref(), Some(r#"{"suffixes": 2000, "most_seen": 68719476732}"#));
        assert_eq!(
            kept("5BAA6", "octet_length(ranges) || ' ' || pg_column_size(ranges)").as_deref(),
            Some("44000 44000")
        );
        assert_eq!(text("SELECT suffixes || ' ' || most_seen FROM enrichment_hibp"), "2000 68719476732");
    }

    #[pg_test]
    fn hibp_ranges_are_read_as_they_were_stored() {
        range_of(100);
        run(&format!("CREATE TEMP TABLE given ON COMMIT DROP AS SELECT {OBJECT} AS range"));
        for store in [
            "enrich_store('hibp', '5baa6', range)",
            "enrich_store_many('hibp', '{ABCDE,5baa6}', ARRAY['{}', range])",
            "enrich_store_many('hibp', '{5baa6,5BAA6}', ARRAY['{}', range])",
            "enrich_compare_and_store('hibp', '5baa6', 0, range)",
        ] {
            run("DELETE FROM enrichment_cache");
            run(&format!("SELECT {store} FROM given"));
            assert_eq!(kept("5BAA6", "octet_length(ranges)").as_deref(), Some("2200"), "{store}");
            for read in [
                "enrich_get('hibp', '5baa6')",
                "enrich_get('hibp', '5baa6', '1 day')",
                "(SELECT payload FROM enrich_get_many('hibp', '{5baa6,00000}') WHERE cache_key = '5BAA6')",
                "(SELECT payload FROM enrich_lookup('hibp', '5baa6'))",
                "enrich_get_text('hibp', '5baa6')::jsonb",
                "enrich_fetch('hibp', '5baa6', '0')",
            ] {
                holds(&format!("{read} = range FROM given"));
            }
        }
        assert_eq!(text("SELECT state || ' ' || response_status FROM enrich_lookup('hibp', '5baa6')"), "hit success");
    }

    #[pg_test]
    fn hibp_ranges_come_back_as_the_very_bytes_that_jsonb_has_for_them() {
        for n in [0, 1, 15, 16, 17, 31, 32, 33, 64, 700] {
            range_of(n);
            run(&format!("SELECT enrich_store('hibp', '5baa6', coalesce({OBJECT}, '{{}}'))"));
            // *= compares images, not meanings
            holds(&format!(
                "ROW (enrich_hibp_range(ranges))::record *= ROW (coalesce({OBJECT}, '{{}}'))::record
                FROM enrichment_cache WHERE octet_length(ranges) = 22 * {n}"
            ));
            run("DROP TABLE range_of");
        }
    }

    #[pg_test]
    fn hibp_suffixes_are_found_wherever_the_range_stands() {
        range_of(1500);
        run(&format!(
            "SELECT enrich_store('hibp', '5baa6', {OBJECT}), enrich_store('hibp', '00000', '{{\"{SUFFIX}\": 7}}')"
        ));
        let wrong = |ranges: &str| {
            count(&format!(
                "SELECT count(*) FROM {ranges}, (
                    SELECT suffix, seen FROM range_of UNION ALL SELECT lower(suffix), seen FROM range_of UNION ALL
                    SELECT reverse(suffix), 0 FROM range_of UNION ALL
                    SELECT repeat(digit, 35), 0 FROM unnest('{{0,1,7,8,F}}'::text[]) digit) AS w (suffix, seen)
                WHERE enrich_hibp_count(r.ranges, w.suffix) IS DISTINCT FROM w.seen"
            ))
        };
        // out of line in chunks, then whole in memory
        assert_eq!(wrong("(SELECT ranges FROM enrichment_hibp WHERE prefix = '5BAA6') r"), 0);
        assert_eq!(wrong("(SELECT ranges || ''::bytea AS ranges FROM enrichment_hibp WHERE prefix = '5BAA6') r"), 0);
        // in the row
        holds("pg_column_size(ranges) = 23 FROM enrichment_hibp WHERE prefix = '00000'");
        holds(&format!("enrich_hibp_count(ranges, '{SUFFIX}') = 7 FROM enrichment_hibp WHERE prefix = '00000'"));
        // compressed, as a table that somebody else has made may hold it
        run("CREATE TEMP TABLE compressed (ranges bytea) ON COMMIT DROP");
        run("INSERT INTO compressed SELECT string_agg(decode(lpad(to_hex(i), 10, '0') || repeat('0', 25)
            || lpad(to_hex(i), 9, '0'), 'hex'), '' ORDER BY i) FROM generate_series(1, 20000) i");
        holds("pg_column_size(ranges) < octet_length(ranges) / 2 AND pg_column_size(ranges) > 2000 FROM compressed");
        holds(
            "bool_and(enrich_hibp_count(ranges, lpad(to_hex(i), 10, '0') || repeat('0', 25)) = i)
            FROM compressed, generate_series(1, 20000, 999) i",
        );
    }

    #[pg_test]
    fn hibp_look_ups_read_a_part_of_a_stored_range() {
        range_of(2000);
        run(&format!("SELECT enrich_store('hibp', '5baa6', {OBJECT})"));
        let blocks = |work: &str| -> i64 {
            let plan: pgrx::Json = Spi::get_one(&format!(
                "EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json)
                SELECT {work} FROM enrichment_cache, range_of WHERE service = 'hibp' AND range_of.seen < 100"
            ))
            .expect("a plan")
            .expect("one value");
            plan.0[0]["Plan"]["Shared Hit Blocks"].as_i64().expect("a number")
        };
        let warm = blocks("enrich_hibp_count(ranges, suffix)");
        let (part, whole) =
            (blocks("enrich_hibp_count(ranges, suffix)"), blocks("enrich_hibp_count(ranges || ''::bytea, suffix)"));
        assert!(part > 0 && part * 2 < whole, "{part} blocks (first {warm}) in place of {whole}");
    }

    #[pg_test]
    fn hibp_objects_that_would_not_come_back_the_same_stay_as_they_are() {
        let a = "A".repeat(35);
        for object in [
            format!(r#"{{"{a}": 68719476736}}"#),
            format!(r#"{{"{a}": -1}}"#),
            format!(r#"{{"{a}": 1.0}}"#),
            format!(r#"{{"{a}": 0.5}}"#),
            format!(r#"{{"{a}": 1e40}}"#),
            format!(r#"{{"{a}": "7"}}"#),
            format!(r#"{{"{a}": null}}"#),
            format!(r#"{{"{a}": {{"{a}": 7}}}}"#),
            format!(r#"{{"{}": 7}}"#, a.to_lowercase()),
            format!(r#"{{"{}": 7}}"#, "A".repeat(27)),
            format!(r#"{{"{}": 7, "{a}": 7}}"#, "A".repeat(36)),
            r#"{"suffixes": 1, "most_seen": 2}"#.to_owned(),
            r#"[["A", 1]]"#.to_owned(),
            "\"text\"".to_owned(),
            "7".to_owned(),
            "null".to_owned(),
        ] {
            run(&format!("SELECT enrich_store('hibp', '5baa6', {})", quoted(&object)));
            assert_eq!(kept("5BAA6", "ranges IS NULL").as_deref(), Some("true"), "{object}");
            holds(&format!("enrich_get('hibp', '5baa6')::text = {}::jsonb::text", quoted(&object)));
            run("SELECT * FROM enrichment_hibp");
        }
        run("SELECT enrich_store_text('hibp', '5baa6', '{\"suffixes\": 1}')");
        assert_eq!(text("SELECT enrich_get_text('hibp', '5baa6')"), "{\"suffixes\": 1}");
    }

    #[pg_test]
    fn hibp_counts_of_zero_come_back_and_are_no_breach() {
        let range = format!(r#"{{"{SUFFIX}": 0, "{}": 10000}}"#, "B".repeat(35));
        run(&format!("SELECT enrich_store('hibp', '5baa6', '{range}')"));
        assert_eq!(kept("5BAA6", "payload").as_deref(), Some(r#"{"suffixes": 1, "most_seen": 10000}"#));
        holds(&format!("enrich_get('hibp', '5baa6') = '{range}'"));
        holds("enrich_hibp_count(ranges, enrich_hibp_suffix('password')) = 0 FROM enrichment_hibp");
        holds("NOT breached FROM enrich_password('password')");
    }

    #[pg_test]
    fn hibp_is_not_the_only_service_of_ranges() {
        run("INSERT INTO enrichment_service (name, key_kind, url, response_format) VALUES
            ('hibp_mirror', 'hash_prefix', 'https://mirror.example/{key}', 'hibp_range'),
            ('hibp_likeness', 'hash_prefix', 'https://likeness.example/{key}', 'json')");
        let range = format!(r#"{{"{SUFFIX}": 7}}"#);
        run(&format!(
            "SELECT enrich_store('hibp_mirror', '5baa6', '{range}'), enrich_store('hibp_likeness', '5baa6', '{range}')"
        ));
        assert_eq!(
            list("SELECT service || ' ' || coalesce(octet_length(ranges)::text, '-') FROM enrichment_cache ORDER BY 1"),
            ["hibp_likeness -", "hibp_mirror 22"]
        );
        holds(&format!(
            "enrich_get('hibp_mirror', '5baa6') = '{range}' AND enrich_get('hibp_likeness', '5baa6') = '{range}'"
        ));
    }

    fn store(range: &str, more: &str) {
        run(&format!("SELECT enrich_store('hibp', '5baa6', {range}{more})"));
    }

    #[pg_test]
    fn hibp_changes_are_kept_packed_and_shown_as_they_were() {
        let range = |count: u32| format!(r#"{{"{SUFFIX}": {count}, "{}": 9}}"#, "B".repeat(35));
        let given = |count: u32| quoted(&range(count));
        store(&given(1), "");
        store(&given(1), "");
        assert_eq!(count("SELECT count(*) FROM enrichment_history"), 0);
        // the same summary, another range
        store(&given(2), "");
        store("NULL", ", response_status => 'error'");
        store(&given(4), ", fetched_at => now() - interval '1 day'");
        assert_eq!(
            text("SELECT string_agg(octet_length(ranges) || ' ' || payload::text, ', ') FROM enrichment_history"),
            r#"44 {"suffixes": 2, "most_seen": 9}"#
        );
        holds(&format!("enrich_get('hibp', '5baa6') = '{}'", range(2)));
        store("NULL", ", response_status => 'not_found'");
        assert_eq!(kept("5BAA6", "ranges IS NULL AND payload IS NULL").as_deref(), Some("true"));
        let shown = |column: &str| {
            list(&format!("SELECT {column} ->> '{SUFFIX}' FROM enrichment_changes ORDER BY from_version"))
        };
        assert_eq!(
            (shown("old_payload"), shown("new_payload")),
            (vec!["1".into(), "2".into()], vec!["2".into(), "NULL".into()])
        );
        store(&given(3), "");
        assert_eq!(shown("new_payload"), ["2", "3"]);
    }

    #[pg_test]
    fn hibp_ranges_inserted_as_plain_objects_work_everywhere() {
        run(&format!(
            "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            VALUES ('hibp', '5BAA6', '{{\"{SUFFIX}\": 7, \"{}\": 0}}', now() + interval '1 day')",
            "B".repeat(35)
        ));
        holds(&format!("enrich_get('hibp', '5baa6') ->> '{SUFFIX}' = '7'"));
        assert_eq!(text("SELECT breached || ' ' || prevalence FROM enrich_password('password')"), "true 7");
        assert_eq!(
            text("SELECT concat_ws(' ', prefix, suffixes, most_seen, ranges IS NULL) FROM enrichment_hibp"),
            "5BAA6 1 7 t"
        );
        holds("enrich_hibp_count(ranges, 'x') IS NULL FROM enrichment_hibp");
    }

    #[pg_test]
    fn hibp_bytes_that_are_no_range_raise_nothing() {
        let refusal = refused(
            "INSERT INTO enrichment_cache (service, cache_key, ranges, response_status, expires_at)
            VALUES ('hibp', '00000', '', 'not_found', now())",
        );
        assert_eq!(refusal.sqlstate, "23514");
        for (ranges, payload) in [
            ("''", "[]"),
            ("'\\x00'", "null"),
            ("decode(repeat('aa', 70), 'hex')", "\"text\""),
            ("decode(repeat('00', 22 * 500), 'hex')", r#"{"suffixes": "many", "most_seen": {}}"#),
            ("(SELECT string_agg(sha256(i::text::bytea), '') FROM generate_series(1, 200) i)", r#"{"suffixes": 1e30}"#),
        ] {
            run(&format!(
                "DELETE FROM enrichment_cache;
                INSERT INTO enrichment_cache (service, cache_key, payload, ranges, expires_at)
                VALUES ('hibp', '5BAA6', '{payload}', {ranges}, now() + interval '1 day')"
            ));
            run("SELECT * FROM enrichment_hibp");
            holds("jsonb_typeof(enrich_get('hibp', '5baa6')) = 'object'");
            for suffix in ["", "x", SUFFIX, "A", &"A".repeat(36), &"g".repeat(35), &"\u{e4}".repeat(18)] {
                holds(&format!("enrich_hibp_count(ranges, '{suffix}') = 0 FROM enrichment_hibp"));
            }
        }
        holds("enrich_hibp_count(NULL, 'x') IS NULL AND enrich_hibp_range(NULL) IS NULL");
    }

    #[pg_test]
    fn hibp_a_table_of_passwords_is_checked_in_one_statement() {
        run(&format!("SELECT enrich_store('hibp', '5baa6', '{{\"{SUFFIX}\": 7}}')"));
        let missing = text("SELECT enrich_hibp_prefix('not breached')");
        run(&format!("SELECT enrich_store('hibp', '{missing}', '{{\"{SUFFIX}\": 7}}')"));
        assert_eq!(
            list(
                "SELECT concat(p.password, ' ', enrich_hibp_count(h.ranges, enrich_hibp_suffix(p.password)))
                FROM unnest('{password,not breached,never asked}'::text[]) p (password)
                LEFT JOIN enrichment_hibp h ON h.prefix = enrich_hibp_prefix(p.password) ORDER BY 1"
            ),
            ["never asked ", "not breached 0", "password 7"]
        );
    }
}
