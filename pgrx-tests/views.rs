//! The typed views: what they show of whatever was cached, and how the planner takes them.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, holds, list, quoted, run, text};
    use crate::in_database::odd::{self, Chance};
    use pgrx::prelude::*;

    const VIEWS: [&str; 4] = ["dshield", "urlhaus", "spur", "virustotal"];

    /// Caches payloads under the keys `view-0`, `view-1` and so on, past all checks.
    fn cached(service: &str, payloads: &[String]) {
        for (batch, payloads) in payloads.chunks(500).enumerate() {
            let rows: Vec<String> = payloads
                .iter()
                .enumerate()
                .map(|(at, payload)| {
                    format!("('{service}', 'view-{}', {}::jsonb, now())", batch * 500 + at, quoted(payload))
                })
                .collect();
            run(&format!(
                "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at) VALUES {}",
                rows.join(", ")
            ));
        }
    }

    fn plan(sql: &str) -> String {
        Spi::connect(|client| {
            let rows = client.select(&format!("EXPLAIN (VERBOSE, COSTS off) {sql}"), None, &[]).expect("a plan");
            rows.map(|row| row.get::<String>(1).expect("a line").unwrap_or_default()).collect::<Vec<_>>().join("\n")
        })
    }

    #[pg_test]
    fn views_show_of_every_odd_answer_what_the_same_view_by_sql_shows() {
        run(include_str!("views_by_sql.sql"));
        let mut chance = Chance::from(11);
        for service in VIEWS {
            let payloads: Vec<String> = (0..1500).map(|_| odd::answer(service, &mut chance)).collect();
            cached(service, &payloads);
            run(&format!(
                "INSERT INTO enrichment_cache (service, cache_key, response_status, expires_at)
                VALUES ('{service}', 'nothing', 'not_found', now())"
            ));
            let differ = list(&format!(
                "SELECT left(format('%s: %s', a.cache_key, (SELECT string_agg(format('%s is %s, by SQL %s', x.key, x.value, y.value), '; ')
                    FROM jsonb_each_text(to_jsonb(a)) x JOIN jsonb_each_text(to_jsonb(b)) y USING (key)
                    WHERE x.value IS DISTINCT FROM y.value)), 400)
                FROM enrichment_{service} a FULL JOIN by_sql.enrichment_{service} b USING (cache_key)
                WHERE to_jsonb(a) IS DISTINCT FROM to_jsonb(b) LIMIT 10"
            ));
            assert_eq!(differ, Vec::<String>::new(), "{service}");
            // each column is there for some rows and missing for others
            let empty = list(&format!(
                "SELECT c.key FROM enrichment_{service} v, jsonb_each_text(to_jsonb(v)) c
                GROUP BY c.key HAVING count(c.value) < 5 OR (c.key <> ALL ('{{cache_key,response_status,fetched_at,expires_at}}')
                    AND count(*) = count(c.value))"
            ));
            assert_eq!(empty, Vec::<String>::new(), "{service}");
        }
    }

    #[pg_test]
    fn views_a_spur_list_is_shown_as_the_answer_that_is_made_of_it() {
        let mut chance = Chance::from(13);
        let payloads: Vec<String> = (0..800).map(|_| odd::answer("spur", &mut chance)).collect();
        cached("spur", &payloads);
        run("CREATE TEMP TABLE views_before AS SELECT * FROM enrichment_spur");
        run("UPDATE enrichment_cache SET payload = coalesce(enrich_spur_answer(payload), 'null') WHERE service = 'spur'");
        let differ = "SELECT a.cache_key FROM enrichment_spur a JOIN views_before b USING (cache_key) WHERE to_jsonb(a) IS DISTINCT FROM to_jsonb(b)";
        assert_eq!(list(differ), Vec::<String>::new());
        holds("(SELECT count(*) > 100 FROM views_before WHERE flagged)");
    }

    /// Sessions over cached addresses of two services, with statistics.
    fn sessions() {
        run("INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT s, '9.' || n / 200 || '.0.' || n % 200, jsonb_build_object('ip', jsonb_build_object('as', n, 'ascountry', 'C' || n % 9), 'fill', repeat('x', 300)), now()
            FROM generate_series(1, 4000) n, (VALUES ('dshield'), ('spur'), ('urlhaus')) v (s)");
        run("CREATE TABLE views_sessions (id int PRIMARY KEY, source_ip text)");
        run("INSERT INTO views_sessions SELECT n, '9.' || n % 5000 / 200 || '.0.' || n % 5000 % 200 FROM generate_series(1, 30000) n");
        run("ANALYZE enrichment_cache; ANALYZE views_sessions");
    }

    #[pg_test]
    fn views_a_large_join_is_a_hash_join_that_carries_columns_and_no_payloads() {
        sessions();
        for kind in ["JOIN", "LEFT JOIN"] {
            let plan = plan(&format!(
                "SELECT s.id, d.asn, d.country FROM views_sessions s {kind} enrichment_dshield d ON d.cache_key = s.source_ip"
            ));
            assert!(plan.contains("Hash Cond") && !plan.contains("SubPlan") && !plan.contains("Subquery"), "{plan}");
            assert_eq!(plan.matches("enrichment_cache c").count(), 1, "{plan}");
            // computed where the table is read: everywhere else the values stand in brackets, as what comes from below
            let outputs: Vec<&str> = plan.lines().filter_map(|line| line.trim().strip_prefix("Output: ")).collect();
            let computing = outputs
                .iter()
                .filter(|output| output.replace("(enrich_", "").replace("(public.enrich_", "").contains("enrich_asn"));
            assert!(!outputs.iter().any(|output| output.split(", ").any(|column| column == "c.payload")), "{plan}");
            assert_eq!(computing.count(), 1, "{plan}");
        }
    }

    #[pg_test]
    fn views_a_column_that_is_not_asked_for_is_not_computed() {
        sessions();
        let all =
            plan("SELECT s.id, d.country FROM views_sessions s JOIN enrichment_dshield d ON d.cache_key = s.source_ip");
        assert!(all.contains("enrich_text") && !all.contains("enrich_asn") && !all.contains("enrich_names"), "{all}");
        let none = plan("SELECT count(*) FROM views_sessions s JOIN enrichment_spur p ON p.cache_key = s.source_ip");
        assert!(!none.contains("enrich_spur"), "{none}");
        let unused =
            plan("SELECT s.id FROM views_sessions s LEFT JOIN enrichment_dshield d ON d.cache_key = s.source_ip");
        assert!(!unused.contains("enrichment_cache"), "{unused}");
    }

    #[pg_test]
    fn views_a_selective_join_uses_an_index_of_the_cache() {
        sessions();
        for (kind, some) in
            [("JOIN", "s.id = 7"), ("JOIN", "s.id BETWEEN 100 AND 149"), ("LEFT JOIN", "s.id BETWEEN 100 AND 149")]
        {
            for view in ["dshield", "spur"] {
                let plan = plan(&format!(
                    "SELECT s.id, v.* FROM views_sessions s {kind} enrichment_{view} v ON v.cache_key = s.source_ip WHERE {some}"
                ));
                let cache: Vec<&str> = plan.lines().filter(|line| line.contains("enrichment_cache c")).collect();
                assert!(cache.len() == 1 && cache[0].contains("Index Scan"), "{plan}");
                assert!(plan.contains("c.cache_key = ") && !plan.contains("Seq Scan"), "{plan}");
            }
        }
    }

    #[pg_test]
    fn views_join_like_tables_in_every_kind_of_join() {
        sessions();
        run("CREATE TEMP TABLE views_plain AS SELECT * FROM enrichment_dshield; DELETE FROM views_sessions WHERE id % 7 > 0");
        for query in [
            "SELECT s.id, d.asn, d.country FROM views_sessions s JOIN @ d ON d.cache_key = s.source_ip",
            "SELECT s.id, d.asn, d.country FROM views_sessions s LEFT JOIN @ d ON d.cache_key = s.source_ip",
            "SELECT s.id, d.asn, d.country FROM views_sessions s RIGHT JOIN @ d ON d.cache_key = s.source_ip",
            "SELECT s.id, d.asn, d.country FROM views_sessions s FULL JOIN @ d ON d.cache_key = s.source_ip",
            "SELECT s.id, d.asn, NULL FROM views_sessions s LEFT JOIN @ d ON d.cache_key = s.source_ip AND d.country = 'C3'",
            "SELECT s.id, d.asn, d.country FROM views_sessions s LEFT JOIN @ d ON d.cache_key = s.source_ip WHERE d.cache_key IS NULL",
            "SELECT s.id, d.asn, d.country FROM views_sessions s LEFT JOIN @ d ON d.cache_key = s.source_ip WHERE d.country IS NULL OR d.asn < 50",
            "SELECT s.id, 0, d.country FROM views_sessions s LEFT JOIN (SELECT * FROM @ WHERE asn > 3000) d ON d.cache_key = s.source_ip",
            "SELECT s.id, 0, '' FROM views_sessions s WHERE NOT EXISTS (SELECT FROM @ d WHERE d.cache_key = s.source_ip AND d.asn % 2 = 0)",
            "SELECT s.id, 0, '' FROM views_sessions s WHERE s.source_ip IN (SELECT cache_key FROM @ WHERE country = 'C1')",
            "SELECT a.asn, b.asn, a.country FROM @ a JOIN @ b ON a.asn = b.asn + 9 AND a.country = b.country",
            "SELECT count(*), max(asn), country FROM @ GROUP BY country",
            "SELECT s.id, l.asn, l.country FROM views_sessions s LEFT JOIN LATERAL (SELECT * FROM @ d WHERE d.cache_key = s.source_ip OFFSET 0) l ON true",
            "SELECT 1, asn, country FROM @ UNION ALL SELECT 2, asn, country FROM @ WHERE asn < 100",
            "SELECT n, d.asn, d.country FROM generate_series(1, 2) n LEFT JOIN @ d ON d.asn = n",
        ] {
            let rows = |source: &str| text(&format!("SELECT md5(string_agg(q::text, ';' ORDER BY q::text)) FROM ({}) AS q", query.replace('@', source)));
            assert_eq!(rows("enrichment_dshield"), rows("views_plain"), "{query}");
        }
        assert_eq!(count("SELECT count(*) FROM enrichment_dshield"), 4000);
    }

    #[pg_test]
    fn views_large_answers_side_by_side_are_not_mixed_up() {
        let large = |n: usize| {
            format!(
                r#"{{"data": {{"attributes": {{"size": {n}, "names": ["n{n}"], "sha256": "s{n}", "fill": "{}"}}}}}}"#,
                (0..1200).map(|i| format!("{:x}", (n * 7919 + i) * 104_729)).collect::<String>()
            )
        };
        cached("virustotal", &(0..30).map(large).collect::<Vec<_>>());
        let wrong = |seen: &str| {
            count(&format!("SELECT count(*) FROM ({seen}) q WHERE (size, names[1], sha256) IS DISTINCT FROM (n, 'n' || n, 's' || n)"))
        };
        let number = "substring(cache_key, 6)::bigint";
        assert_eq!(wrong(&format!("SELECT *, {number} AS n FROM enrichment_virustotal")), 0);
        // two answers in one row, column by column in turn
        assert_eq!(
            count("SELECT count(*) FROM enrichment_virustotal a, enrichment_virustotal b WHERE 'n' || a.size = a.names[1] AND 'n' || b.size = b.names[1]
                AND 's' || a.size = a.sha256 AND 's' || b.size = b.sha256"),
            900
        );
        // changed, taken back and changed again within one transaction, read before and after
        let size = |n: i64| {
            assert_eq!(count("SELECT size FROM enrichment_virustotal WHERE cache_key = 'view-3'"), n);
            assert_eq!(count("SELECT substring(sha256, 2) FROM enrichment_virustotal WHERE cache_key = 'view-3'"), n);
        };
        let change = |n: usize| {
            run(&format!(
                "UPDATE enrichment_cache SET payload = {}::jsonb WHERE service = 'virustotal' AND cache_key = 'view-3'",
                quoted(&large(n))
            ))
        };
        size(3);
        change(103);
        size(103);
        run("DO $$ BEGIN
                UPDATE enrichment_cache SET payload = jsonb_set(jsonb_set(payload, '{data,attributes,size}', '203'), '{data,attributes,sha256}', '\"s203\"')
                WHERE service = 'virustotal' AND cache_key = 'view-3';
                ASSERT (SELECT size = 203 AND sha256 = 's203' FROM enrichment_virustotal WHERE cache_key = 'view-3');
                RAISE EXCEPTION 'back';
            EXCEPTION WHEN raise_exception THEN NULL; END $$");
        size(103);
        change(303);
        size(303);
    }
}
