//! The accessors: each says of every value what the same thing written in SQL says (`views_by_sql.sql`), and never raises.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{holds, list, quoted, run, text, value};
    use crate::in_database::odd::{self, Chance};
    use pgrx::prelude::*;

    const ACCESSORS: [&str; 7] = ["text", "bigint", "asn", "boolean", "timestamp", "date", "text_array"];

    fn by_sql() {
        run(include_str!("views_by_sql.sql"));
    }

    fn table(values: &[String]) {
        let rows: Vec<String> = values.iter().map(|value| format!("({}::jsonb)", quoted(value))).collect();
        run(&format!("CREATE TEMP TABLE typed_values AS SELECT * FROM (VALUES {}) AS v (value)", rows.join(", ")));
    }

    /// Where an accessor and its twin in SQL differ.
    fn differences(accessor: &str, given: &str, twin: &str, from: &str) -> Vec<String> {
        list(&format!(
            "SELECT left(format('{accessor} is %s, by SQL %s: %s', a, b, both_of), 300) FROM (
                SELECT *, enrich_{accessor}({given})::text AS a, by_sql.enrich_{accessor}({twin})::text AS b
                FROM {from}) AS both_of
            WHERE a IS DISTINCT FROM b LIMIT 20"
        ))
    }

    #[pg_test]
    fn typed_accessors_read_every_odd_value_as_sql_does() {
        by_sql();
        table(&odd::VALUES.map(str::to_owned));
        for accessor in ACCESSORS {
            assert_eq!(differences(accessor, "value", "value", "typed_values"), Vec::<String>::new());
        }
        // the table does hold values that can be read, and such that cannot
        for accessor in ACCESSORS {
            holds(&format!("(SELECT count(enrich_{accessor}(value)) BETWEEN 8 AND 90 FROM typed_values)"));
        }
    }

    #[pg_test]
    fn typed_accessors_read_texts_that_are_nearly_something_as_sql_does() {
        by_sql();
        let mut chance = Chance::from(20_260_303);
        table(&(0..6000).map(|_| odd::text(&mut chance)).collect::<Vec<_>>());
        for accessor in ACCESSORS {
            assert_eq!(differences(accessor, "value", "value", "typed_values"), Vec::<String>::new());
            holds(&format!("(SELECT count(enrich_{accessor}(value)) BETWEEN 100 AND 6000 FROM typed_values)"));
        }
    }

    #[pg_test]
    fn typed_paths_lead_where_those_of_postgresql_lead() {
        by_sql();
        let mut chance = Chance::from(7);
        let documents: Vec<String> = ["dshield", "urlhaus", "virustotal", "spur", "other"]
            .iter()
            .flat_map(|service| (0..120).map(|_| odd::answer(service, &mut chance)).collect::<Vec<_>>())
            .chain([r#"{"é": {"\ud83d\ude80": ["ü", "x"]}, "": {"": 5}, "0": 6, "a\"b": {"c\\d": 7}}"#.to_owned()])
            .collect();
        table(&documents);
        run(r#"CREATE TEMP TABLE typed_paths (path text[]); INSERT INTO typed_paths VALUES
            ('{}'), ('{ip}'), ('{ip,as}'), ('{ip,threatfeeds,b}'), ('{urls,0}'), ('{urls,-1,tags}'), ('{urls,+1,tags,0}'), ('{urls," 0",tags}'),
            ('{urls,"0 ",tags}'), ('{urls,1x}'), ('{urls,2147483648}'), ('{urls,-2147483648}'), ('{urls,""}'), ('{urls,NULL}'), ('{NULL}'),
            ('{data,attributes,names,0}'), ('{{data,attributes},{size,0}}'), ('{spur_data,13}'), ('{13}'), ('{-1}'), ('{0,0,0,0,0}'),
            ('{é,🚀,0}'), ('{é,🚀,-1}'), ('{"",""}'), ('{0}'), ('{"a\"b","c\\d"}'), ('{ip,as,x}'), ('{client,types,0}'), ('[0:1]={ip,as}'),
            (array_remove('{ip,NULL,as}', NULL)), (array_fill('0'::text, '{300}'))"#);
        for accessor in ACCESSORS {
            let (given, twin) = ("value, VARIADIC path", "jsonb_extract_path(value, VARIADIC path)");
            assert_eq!(differences(accessor, given, twin, "typed_values, typed_paths"), Vec::<String>::new());
        }
        holds("(SELECT count(enrich_text(value, VARIADIC path)) > 500 FROM typed_values, typed_paths)");
    }

    #[pg_test]
    fn typed_accessors_give_null_for_a_null_argument() {
        for accessor in ACCESSORS.iter().chain(&["names"]) {
            let call = format!("enrich_{accessor}");
            if *accessor != "names" {
                holds(&format!("{call}(NULL) IS NULL"));
            }
            holds(&format!("{call}(NULL, 'a') IS NULL"));
            holds(&format!("{call}('\"1\"', VARIADIC NULL) IS NULL"));
            holds(&format!("{call}('{{\"a\": \"1\"}}', NULL) IS NULL"));
            holds(&format!("{call}('{{\"a\": \"1\"}}', 'a', NULL) IS NULL"));
        }
        for call in ["enrich_sum(NULL)", "enrich_virustotal_value(NULL, 'a')", "enrich_spur_value(NULL, 'a')"] {
            holds(&format!("{call} IS NULL"));
        }
    }

    #[pg_test]
    fn typed_accessors_may_stand_in_an_index_and_in_a_parallel_plan() {
        holds(
            "(SELECT bool_and(provolatile = 'i' AND proparallel = 's') FROM pg_proc
              WHERE proname ~ '^enrich_(text|bigint|asn|boolean|timestamp|date|text_array|names|sum)$'
                AND proargtypes[0] = 'jsonb'::regtype)",
        );
        run("CREATE TEMP TABLE typed_indexed (payload jsonb); CREATE INDEX ON typed_indexed (enrich_asn(payload, 'ip', 'as'))");
        run("INSERT INTO typed_indexed SELECT jsonb_build_object('ip', jsonb_build_object('as', n)) FROM generate_series(1, 2000) n; ANALYZE typed_indexed");
        let plan = list("SELECT 1 WHERE false").join("")
            + &explain("SELECT * FROM typed_indexed WHERE enrich_asn(payload, 'ip', 'as') = 77");
        assert!(plan.contains("Index Cond"), "{plan}");
        assert_eq!(
            text("SELECT payload FROM typed_indexed WHERE enrich_asn(payload, 'ip', 'as') = 77"),
            r#"{"ip": {"as": 77}}"#
        );
    }

    fn explain(sql: &str) -> String {
        Spi::connect(|client| {
            let rows = client.select(&format!("EXPLAIN (COSTS off) {sql}"), None, &[]).expect("a plan");
            rows.map(|row| row.get::<String>(1).expect("a line").unwrap_or_default()).collect::<Vec<_>>().join("\n")
        })
    }

    #[pg_test]
    fn typed_white_space_around_commas_is_that_of_ascii_in_every_locale() {
        assert_eq!(text(r#"SELECT enrich_text_array('"a ,\tb,\u2003c"')::text"#), "{a,b,\u{2003}c}");
    }

    #[pg_test]
    fn typed_values_of_any_storage_are_read() {
        run("CREATE TEMP TABLE typed_stored (how text, payload jsonb)");
        run("ALTER TABLE typed_stored ALTER payload SET STORAGE EXTENDED");
        // in the row (short and plain), compressed in the row, out of line and compressed, out of line as it is, above what is kept
        run(r#"INSERT INTO typed_stored VALUES
            ('short', '{"n": 1}'), ('plain', jsonb_build_object('n', 2, 'fill', repeat('x', 200))),
            ('compressed', jsonb_build_object('n', 3, 'fill', repeat('x', 3000))),
            ('out of line', jsonb_build_object('n', 4, 'fill', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i))),
            ('large', jsonb_build_object('n', 6, 'fill', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 300000) i)))"#);
        run("ALTER TABLE typed_stored ALTER payload SET STORAGE EXTERNAL");
        run(
            r#"INSERT INTO typed_stored VALUES ('as it is', jsonb_build_object('n', 5, 'fill', (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 3000) i)))"#,
        );
        holds("(SELECT pg_column_size(payload) < 200 FROM typed_stored WHERE how = 'compressed')");
        holds("(SELECT pg_relation_size(reltoastrelid) > 5000000 FROM pg_class WHERE oid = 'typed_stored'::regclass)");
        let read = "SELECT how || enrich_bigint(payload, 'n') || coalesce(enrich_text(payload, 'm'), '') || enrich_bigint(payload -> 'n')
            || length(enrich_text(payload, 'fill')) FROM typed_stored ORDER BY enrich_asn(payload, 'n')";
        let expected = "SELECT how || (payload ->> 'n') || (payload ->> 'n') || length(payload ->> 'fill') FROM typed_stored ORDER BY (payload ->> 'n')::int";
        assert_eq!(list(read), list(expected));
        assert_eq!(
            value("SELECT count(*) FROM typed_stored WHERE enrich_bigint(payload, 'n') > 0").as_deref(),
            Some("6")
        );
    }
}
