//! Tables that are read whole for a batch are written in transactions of the interval as well.

use crate::sources_support::wait_quiet;
use crate::support::{run, Base};

/// Notes which transaction writes which row.
const NOTE: &str = "CREATE TABLE writes (transaction xid8, id int);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN INSERT INTO public.writes VALUES (pg_current_xact_id(), NEW.id); RETURN NEW; END $$";

/// Every row was written once, no transaction wrote more than the interval, and few transactions wrote much less.
fn in_slices(base: &Base, rows: i64, interval: i64) {
    let of = |what: &str| {
        base.one::<i64>(&format!("SELECT {what}::int8 FROM (SELECT count(*) AS n FROM writes GROUP BY transaction) t"))
    };
    assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), rows, "a row was written twice, or not");
    assert_eq!(base.one::<i64>("SELECT count(DISTINCT id) FROM writes"), rows);
    assert!(of("max(n)") <= interval, "{} rows in one transaction", of("max(n)"));
    assert!(of("count(*)") <= 2 * (rows / interval + 1), "{} transactions", of("count(*)"));
}

#[test]
fn passwords_are_written_in_transactions_of_the_interval() {
    let base = Base::new("sources", "slices_passwords");
    base.run(NOTE);
    base.run(
        "CREATE TABLE password_tracking (id int PRIMARY KEY, password_text text, breached bool, breach_prevalence int, last_hibp_check timestamptz);
         INSERT INTO password_tracking SELECT i, 'word ' || i FROM generate_series(1, 1000) i;
         CREATE TRIGGER note BEFORE UPDATE ON password_tracking FOR EACH ROW EXECUTE FUNCTION note();
         UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'",
    );
    base.run(
        "DO $$ DECLARE keys text[]; BEGIN
        SELECT array_agg(DISTINCT enrich_hibp_prefix('word ' || i)) INTO keys FROM generate_series(1, 1000) i;
        PERFORM enrich_store_many('hibp', keys, array_fill(jsonb_build_object(repeat('A', 35), 3), ARRAY[cardinality(keys)]));
        END $$",
    );
    base.run("SELECT enrich_attach('password_tracking', 'password_text', '{hibp}', commit_interval => 30)");
    base.wait_for("SELECT count(*) FROM password_tracking WHERE last_hibp_check IS NOT NULL AND NOT breached", 1000i64);
    wait_quiet(&base);
    in_slices(&base, 1000, 30);
}

/// A table of more than a thousand blocks without an index on its key.
fn wide(base: &Base, columns: &str, keys: &str) {
    base.run(NOTE);
    base.run(&format!(
        "CREATE TABLE visits (id int, ip text, note text, {columns});
         INSERT INTO visits (id, ip, note) SELECT n, {keys}, repeat('x', 1000) FROM generate_series(1, 10000) n;
         CREATE TRIGGER note BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION note();
         UPDATE enrichment_service SET enabled = false;
         ANALYZE visits"
    ));
    assert!(base.one::<bool>("SELECT relpages > 1000 FROM pg_class WHERE relname = 'visits'"));
}

const SCANS: &str = "SELECT seq_scan::int8 FROM pg_stat_user_tables WHERE relname = 'visits'";

#[test]
fn a_large_table_without_an_index_is_written_in_transactions_of_the_interval() {
    let base = Base::new("sources", "slices_visits");
    // one key of 90 rows among 400 of one or two
    wide(
        &base,
        "answers jsonb",
        "CASE WHEN n <= 90 THEN '9.9.5.0' WHEN n <= 690 THEN '9.9.' || 6 + n % 400 / 200 || '.' || n % 200 END",
    );
    base.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
         SELECT DISTINCT 'dshield', ip, jsonb_build_object('ip', ip), now() + interval '1 day' FROM visits WHERE ip IS NOT NULL",
    );
    let before: i64 = base.one(SCANS);
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', commit_interval => 40)");
    base.wait_for("SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip}' = ip", 690i64);
    wait_quiet(&base);
    in_slices(&base, 690, 40);
    assert!(base.one::<i64>(SCANS) - before <= 15, "{} scans", base.one::<i64>(SCANS) - before);
}

#[test]
fn a_large_table_of_files_without_an_index_is_written_in_transactions_of_the_interval() {
    let base = Base::new("sources", "slices_files");
    wide(
        &base,
        "vt_malicious bool, enrichment_status text",
        "CASE WHEN n <= 500 THEN encode(sha256(n::text::bytea), 'hex') END",
    );
    base.run(
        "DO $$ DECLARE keys text[]; BEGIN
        SELECT array_agg(ip) INTO keys FROM visits WHERE ip IS NOT NULL;
        PERFORM enrich_store_many('virustotal', keys, array_fill('{\"data\": {\"attributes\": {\"last_analysis_stats\": {\"malicious\": 2}}}}'::jsonb,
            ARRAY[cardinality(keys)]));
        END $$",
    );
    base.run("SELECT enrich_attach('visits', 'ip', '{virustotal}', commit_interval => 40)");
    base.wait_for("SELECT count(*) FROM visits WHERE vt_malicious AND enrichment_status = 'enriched'", 500i64);
    wait_quiet(&base);
    in_slices(&base, 500, 40);
}

#[test]
fn rows_that_are_locked_or_move_between_the_reading_and_the_writing_are_written_too() {
    let base = Base::new("sources", "slices_moved");
    wide(&base, "answers jsonb", "CASE WHEN n <= 500 THEN '9.9.8.' || n % 100 END");
    base.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
         SELECT DISTINCT 'dshield', ip, jsonb_build_object('ip', ip), now() + interval '1 day' FROM visits WHERE ip IS NOT NULL",
    );
    // the rows of one key stay locked, and those of others change their place meanwhile
    let mut holder = base.client();
    run(&mut holder, "BEGIN; SELECT FROM visits WHERE ip = '9.9.8.50' FOR UPDATE");
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', commit_interval => 10)");
    base.wait_for("SELECT count(*) > 0 FROM visits WHERE answers IS NOT NULL", true);
    for _ in 0..20 {
        base.run("UPDATE visits SET note = 'moved' WHERE ip BETWEEN '9.9.8.60' AND '9.9.8.99'");
    }
    let filled = "SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip}' = ip";
    base.wait_for(filled, 495i64);
    run(&mut holder, "COMMIT");
    base.wait_for(filled, 500i64);
    assert_eq!(base.one::<Option<String>>("SELECT last_error FROM enrichment_source"), None);
}
