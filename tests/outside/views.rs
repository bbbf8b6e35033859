//! The typed views seen from several sessions, in parallel plans, and with the statistics of a real table.

use crate::support::{one, run, Base};
use postgres::Client;

fn base(name: &str) -> Base {
    Base::new("views", name)
}

fn plan(client: &mut Client, sql: &str) -> String {
    let lines = client.query(&format!("EXPLAIN {sql}"), &[]).unwrap_or_else(|why| panic!("{sql}: {why}"));
    lines.iter().map(|line| line.get::<_, String>(0)).collect::<Vec<_>>().join("\n")
}

/// Stores a report that is too large for the row, with `n` in three places.
fn report(client: &mut Client, n: i64) {
    run(
        client,
        &format!(
            "SELECT enrich_store('virustotal', repeat('a', 64), jsonb_build_object('data', jsonb_build_object('attributes',
                jsonb_build_object('size', {n}, 'reputation', {n}, 'last_analysis_stats', jsonb_build_object('malicious', {n}),
                    'fill', (SELECT string_agg(md5(({n} * 1000 + i)::text), '') FROM generate_series(1, 1000) i)))))"
        ),
    );
}

const SHOWN: &str =
    "SELECT CASE WHEN size = malicious AND size = reputation THEN size ELSE -1 END FROM enrichment_virustotal";

#[test]
fn a_large_answer_is_shown_as_each_snapshot_sees_it() {
    let base = base("snapshots");
    let (mut reader, mut writer) = (base.client(), base.client());
    let replace = |writer: &mut Client, n: i64| {
        report(writer, n);
        // what no snapshot sees goes at once, with its place out of line
        run(writer, "DELETE FROM enrichment_history");
        run(writer, "VACUUM enrichment_cache, enrichment_history");
    };
    replace(&mut writer, 1);

    // each statement sees what was committed before it
    run(&mut reader, "BEGIN");
    assert_eq!(one::<i64>(&mut reader, SHOWN), 1);
    replace(&mut writer, 2);
    assert_eq!(one::<i64>(&mut reader, SHOWN), 2);
    // a cursor keeps its snapshot, between statements that have later ones
    run(&mut reader, &format!("DECLARE old CURSOR FOR {SHOWN} CROSS JOIN generate_series(1, 3)"));
    for n in 3..6 {
        replace(&mut writer, n);
        assert_eq!(one::<i64>(&mut reader, SHOWN), n);
        assert_eq!(one::<i64>(&mut reader, "FETCH old"), 2);
        assert_eq!(one::<i64>(&mut reader, SHOWN), n);
    }
    run(&mut reader, "COMMIT");

    run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ");
    assert_eq!(one::<i64>(&mut reader, SHOWN), 5);
    replace(&mut writer, 6);
    assert_eq!(one::<i64>(&mut reader, SHOWN), 5);
    run(&mut reader, "COMMIT");
    assert_eq!(one::<i64>(&mut reader, SHOWN), 6);

    // written, read and taken back by the reader itself
    run(&mut reader, "BEGIN; SAVEPOINT s");
    report(&mut reader, 7);
    assert_eq!(one::<i64>(&mut reader, SHOWN), 7);
    run(&mut reader, "ROLLBACK TO s");
    assert_eq!(one::<i64>(&mut reader, SHOWN), 6);
    report(&mut reader, 8);
    assert_eq!(one::<i64>(&mut reader, SHOWN), 8);
    run(&mut reader, "ROLLBACK");
    assert_eq!(one::<i64>(&mut reader, SHOWN), 6);
    run(&mut reader, "CREATE EXTENSION amcheck");
    assert!(!one::<bool>(
        &mut reader,
        "SELECT EXISTS (SELECT FROM verify_heapam('enrichment_cache', check_toast => true))"
    ));
}

#[test]
fn a_parallel_plan_shows_what_a_serial_one_shows() {
    let base = base("parallel");
    let mut client = base.client();
    run(
        &mut client,
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'virustotal', md5(n::text), jsonb_build_object('attributes', jsonb_build_object('size', n, 'names', jsonb_build_array(n, 'x'),
                'first_submission_date', n, 'fill', (SELECT string_agg(md5((n * 1000 + i)::text), '') FROM generate_series(1, n % 200) i))), now()
            FROM generate_series(1, 4000) n",
    );
    run(&mut client, "ANALYZE enrichment_cache; SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0");
    let all = "SELECT md5(string_agg(v::text, ';' ORDER BY cache_key)) FROM enrichment_virustotal v";
    run(&mut client, "SET max_parallel_workers_per_gather = 0");
    let serial: String = one(&mut client, all);
    run(&mut client, "SET max_parallel_workers_per_gather = 2");
    let plan = plan(&mut client, all);
    assert!(plan.contains("Gather"), "{plan}");
    assert_eq!(one::<String>(&mut client, all), serial);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_virustotal WHERE size::text = names[1] AND extract(epoch FROM first_seen) = size"), 4000);
}

#[test]
fn a_join_of_all_sessions_is_a_hash_join_and_one_of_few_goes_by_the_index() {
    let base = base("hashed");
    let mut client = base.client();
    run(
        &mut client,
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT s, CASE s WHEN 'hibp' THEN upper(lpad(to_hex(n), 5, '0')) ELSE '9.' || n / 200 || '.0.' || n % 200 END,
                jsonb_build_object('ip', jsonb_build_object('as', n), 'fill', repeat('x', 500)), now()
            FROM generate_series(1, 10000) n, (VALUES ('dshield'), ('spur'), ('urlhaus'), ('virustotal'), ('hibp')) v (s);
        CREATE TABLE sessions AS SELECT n AS id, '9.' || n % 10000 / 200 || '.0.' || n % 200 AS source_ip,
            upper(lpad(to_hex(n % 10000), 5, '0')) AS prefix FROM generate_series(1, 60000) n;
        -- as ANALYZE finds where a few addresses have most of a million sessions
        ALTER TABLE sessions ALTER source_ip SET (n_distinct = 1700), ALTER prefix SET (n_distinct = 1700);
        ALTER TABLE sessions ADD PRIMARY KEY (id)",
    );
    run(&mut client, "VACUUM ANALYZE enrichment_cache");
    run(&mut client, "ANALYZE sessions; SET work_mem = '256MB'; SET max_parallel_workers_per_gather = 0");
    for (view, column, on) in [
        ("dshield", "asn", "v.cache_key = s.source_ip"),
        ("spur", "asn", "v.cache_key = s.source_ip"),
        ("urlhaus", "url_count", "v.cache_key = s.source_ip"),
        ("virustotal", "malicious", "v.cache_key = s.source_ip"),
        ("hibp", "suffixes", "v.prefix = s.prefix"),
    ] {
        for kind in ["JOIN", "LEFT JOIN"] {
            let join = format!("SELECT s.id, v.{column} FROM sessions s {kind} enrichment_{view} v ON {on}");
            let plan = plan(&mut client, &join);
            assert!(plan.contains("Hash Cond") && !plan.contains("Memoize"), "{plan}");
        }
        // few sessions go by the index
        for few in ["s.id = 17", "s.id <= 50"] {
            let join = format!("SELECT v.{column} FROM sessions s JOIN enrichment_{view} v ON {on} WHERE {few}");
            let plan = plan(&mut client, &join);
            assert!(plan.contains("Index Scan using enrichment_cache_service_key"), "{plan}");
            assert!(!plan.contains("Seq Scan on enrichment_cache"), "{plan}");
        }
    }
    // the condition that keeps Memoize out changes hardly any estimate of rows
    let rows = |client: &mut Client, from: &str| -> f64 {
        let plan = plan(client, &format!("SELECT cache_key FROM {from}"));
        let rows = plan.split("rows=").nth(1).and_then(|rest| rest.split(' ').next());
        rows.and_then(|rows| rows.parse().ok()).unwrap_or(f64::NAN)
    };
    let (plain, view) =
        (rows(&mut client, "enrichment_cache WHERE service = 'dshield'"), rows(&mut client, "enrichment_dshield"));
    assert!((view / plain - 1.0).abs() < 0.01, "{view} rows of the view, {plain} of the table");
}
