//! The triggers of attached tables: each distinct key once, new ones only, and nothing of a password but its prefix.

#[pgrx::pg_schema]
mod tests {
    use crate::in_database::ask::{count, list, relations, run, text};
    use pgrx::prelude::*;

    fn arrivals(source: &str) -> Vec<String> {
        list(&format!("SELECT k FROM enrichment_arrival, unnest(raw_keys) k WHERE source = '{source}' ORDER BY k"))
    }

    fn forget() {
        run("DELETE FROM enrichment_arrival");
    }

    fn sessions(name: &str, key_type: &str) {
        run(&format!("CREATE TABLE {name} (id int PRIMARY KEY, source_ip {key_type}, score int, enrichment jsonb)"));
        run(&format!("SELECT enrich_attach('{name}', 'source_ip', '{{dshield}}', 'enrichment')"));
    }

    #[pg_test]
    fn triggers_note_each_distinct_key_of_a_statement_once() {
        sessions("triggers_distinct", "varchar(45)");
        run("INSERT INTO triggers_distinct SELECT i, CASE WHEN i % 3 < 2 THEN '9.70.0.' || i % 3 END FROM generate_series(1, 900) i");
        assert_eq!(arrivals("triggers_distinct"), ["9.70.0.0", "9.70.0.1"]);
    }

    #[pg_test]
    fn triggers_note_keys_as_they_stand_however_dirty() {
        sessions("triggers_dirty", "text");
        run("INSERT INTO triggers_dirty VALUES (1, 'unknown'), (2, ''), (3, '10.0.0.1'), (4, NULL), (5, '::ffff:9.70.1.1')");
        assert_eq!(arrivals("triggers_dirty"), ["", "10.0.0.1", "::ffff:9.70.1.1", "unknown"]);
    }

    #[pg_test]
    fn triggers_do_not_mind_an_update_that_leaves_the_key() {
        sessions("triggers_update", "inet");
        run("INSERT INTO triggers_update VALUES (1, '9.70.2.1'), (2, '9.70.2.2')");
        forget();
        run("UPDATE triggers_update SET score = 5, enrichment = '{}'");
        run("UPDATE triggers_update SET source_ip = source_ip");
        assert_eq!(arrivals("triggers_update"), Vec::<String>::new());
        run("UPDATE triggers_update SET source_ip = '9.70.2.3' WHERE id = 2");
        assert_eq!(arrivals("triggers_update"), ["9.70.2.3/32"]);
        forget();
        run("DELETE FROM triggers_update");
        assert_eq!(arrivals("triggers_update"), Vec::<String>::new());
    }

    #[pg_test]
    fn triggers_see_an_upsert_of_both_kinds() {
        sessions("triggers_upsert", "text");
        run("INSERT INTO triggers_upsert VALUES (1, '9.70.3.1')");
        forget();
        run("INSERT INTO triggers_upsert VALUES (1, '9.70.3.2'), (2, '9.70.3.3')
            ON CONFLICT (id) DO UPDATE SET source_ip = EXCLUDED.source_ip");
        assert_eq!(arrivals("triggers_upsert"), ["9.70.3.2", "9.70.3.3"]);
    }

    #[pg_test]
    fn triggers_see_a_merge_of_both_kinds() {
        sessions("triggers_merge", "text");
        run("INSERT INTO triggers_merge VALUES (1, '9.70.7.1'), (2, '9.70.7.2'), (3, '9.70.7.3')");
        forget();
        // 1 gets the key of 2, 2 keeps its own, 3 goes, 4 comes
        run("MERGE INTO triggers_merge t USING (VALUES (1, '9.70.7.2'), (2, '9.70.7.2'), (3, NULL), (4, '9.70.7.4')) n (id, ip) ON t.id = n.id
            WHEN MATCHED AND n.ip IS NULL THEN DELETE
            WHEN MATCHED THEN UPDATE SET source_ip = n.ip
            WHEN NOT MATCHED THEN INSERT (id, source_ip) VALUES (n.id, n.ip)");
        assert_eq!(arrivals("triggers_merge"), ["9.70.7.2", "9.70.7.4"]);
        assert_eq!(list("SELECT concat_ws(' ', u.k, u.n, a.moved) FROM enrichment_arrival a, unnest(raw_keys, row_counts) u (k, n) ORDER BY 1"), [
            "9.70.7.2 1 t",
            "9.70.7.4 1 f"
        ]);
    }

    #[pg_test]
    fn triggers_note_the_rows_that_got_another_key_and_no_others() {
        sessions("triggers_pairs", "text");
        run("INSERT INTO triggers_pairs SELECT i, '9.70.8.' || i % 2 FROM generate_series(1, 3000) i");
        forget();
        run("UPDATE triggers_pairs SET score = 1, source_ip = '9.70.8.' || CASE WHEN id <= 10 THEN 1 - id % 2 ELSE id % 2 END");
        let noted = "SELECT concat_ws(' ', u.k, u.n) FROM enrichment_arrival a, unnest(raw_keys, row_counts) u (k, n) ORDER BY 1";
        assert_eq!(list(noted), ["9.70.8.0 5", "9.70.8.1 5"]);
        // a key that goes is noted as an empty text, of those that had one
        forget();
        run("UPDATE triggers_pairs SET source_ip = NULL WHERE id <= 3; UPDATE triggers_pairs SET score = 2 WHERE source_ip IS NULL");
        assert_eq!(list(noted), [" 3"]);
        // keys too long for a page are compared whole
        forget();
        run("UPDATE triggers_pairs SET source_ip = repeat('long', 100000) || id WHERE id <= 2");
        assert_eq!(count("SELECT sum(key_count)::int8 FROM enrichment_arrival"), 2);
        forget();
        run("UPDATE triggers_pairs SET source_ip = source_ip || '' WHERE id <= 2");
        assert_eq!(count("SELECT count(*) FROM enrichment_arrival"), 0);
    }

    #[pg_test]
    fn triggers_see_the_rows_of_a_partitioned_table() {
        run("CREATE TABLE triggers_parted (id int, source_ip text, enrichment json) PARTITION BY RANGE (id);
            CREATE TABLE triggers_part_1 PARTITION OF triggers_parted FOR VALUES FROM (0) TO (10);
            CREATE TABLE triggers_part_2 PARTITION OF triggers_parted FOR VALUES FROM (10) TO (20)");
        run("SELECT enrich_attach('triggers_parted', 'source_ip', '{dshield}', 'enrichment')");
        run("INSERT INTO triggers_parted VALUES (1, '9.70.4.1'), (11, '9.70.4.2'), (12, '9.70.4.1')");
        assert_eq!(arrivals("triggers_parted"), ["9.70.4.1", "9.70.4.2"]);
    }

    #[pg_test]
    fn triggers_follow_a_column_that_is_renamed() {
        sessions("triggers_renamed", "text");
        run("ALTER TABLE triggers_renamed RENAME COLUMN source_ip TO \"source Ip\"");
        run("INSERT INTO triggers_renamed VALUES (1, '9.70.5.1')");
        assert_eq!(arrivals("triggers_renamed"), ["9.70.5.1"]);
    }

    #[pg_test]
    fn triggers_never_make_the_users_own_statement_fail() {
        sessions("triggers_broken", "text");
        run("ALTER TABLE triggers_broken DROP COLUMN source_ip");
        run("INSERT INTO triggers_broken (id) VALUES (1)");
        assert_eq!(count("SELECT count(*) FROM triggers_broken"), 1);
        assert_eq!(arrivals("triggers_broken"), Vec::<String>::new());
    }

    #[pg_test]
    fn triggers_two_sources_of_one_table_note_their_own_keys() {
        run("CREATE TABLE triggers_two (source_ip text, shasum text, enrichment json)");
        run("SELECT enrich_attach('triggers_two', 'source_ip', '{dshield}', 'enrichment', 'two addresses'),
            enrich_attach('triggers_two', 'shasum', '{virustotal}', source_name => 'two hashes')");
        run("INSERT INTO triggers_two VALUES ('9.70.6.1', repeat('a', 64))");
        assert_eq!(arrivals("two addresses"), ["9.70.6.1"]);
        assert_eq!(arrivals("two hashes"), ["a".repeat(64)]);
    }

    #[pg_test]
    fn triggers_write_only_the_prefix_of_a_password() {
        run("CREATE TABLE triggers_passwords (id int, password_text text, breached bool)");
        run("SELECT enrich_attach('triggers_passwords', 'password_text', '{hibp}')");
        let secrets = ["hunter2 hunter2", "correct horse battery"];
        run(&format!("INSERT INTO triggers_passwords VALUES (1, '{}'), (2, '{}'), (3, NULL)", secrets[0], secrets[0]));
        run(&format!("UPDATE triggers_passwords SET password_text = '{}' WHERE id = 2", secrets[1]));
        let mut prefixes: Vec<String> =
            secrets.iter().map(|secret| text(&format!("SELECT enrich_hibp_prefix('{secret}')"))).collect();
        prefixes.sort();
        assert_eq!(arrivals("triggers_passwords"), prefixes);
        for secret in secrets {
            let hash = text(&format!("SELECT enrich_hibp_prefix('{secret}') || enrich_hibp_suffix('{secret}')"));
            for table in relations("r") {
                let found = count(&format!(
                    "SELECT count(*) FROM {table} t WHERE t::text ILIKE '%{secret}%'
                    OR t::text ILIKE '%{hash}%' OR t::text ILIKE '%{}%'",
                    &hash[5..]
                ));
                assert_eq!(found, 0, "{table} holds {secret:?}");
            }
        }
    }
}
