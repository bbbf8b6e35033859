//! Look-ups are counted without being written: in shared memory first, then by the worker.

use crate::support::{one, own_cluster, run, same, wait_served, Base, SOON};
use std::sync::Arc;
use testbed::wait_until;

const COUNTED: &str = "SELECT cache_hits || ' hits, ' || cache_misses || ' misses, ' || touches_dropped || ' dropped'
    FROM enrichment_stat WHERE service = 'dshield'";
const FOLDED: &str =
    "SELECT coalesce(sum(cache_hits), 0)::bigint FROM enrichment_cache_stats WHERE service = 'dshield'";
const HITS_OF_ROWS: &str = "SELECT sum(hit_count)::bigint FROM enrichment_cache";

/// A database with that many answers; its worker writes down what was counted when it is asked to, not before: the
/// default interval is longer than any test.
fn base(name: &str, entries: u32) -> Base {
    let base = Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none"]);
    base.run(&format!(
        "SELECT enrich_store_many('dshield', array_agg(key), array_agg(jsonb_build_object('ip', repeat('x', 500))))
            FROM (SELECT '9.' || g / 65536 || '.' || g / 256 % 256 || '.' || g % 256 AS key FROM generate_series(0, {entries} - 1) g) k;
        CREATE TABLE asked AS SELECT cache_key AS key FROM enrichment_cache;
        CREATE TABLE moments AS SELECT clock_timestamp() AS began, NULL::timestamptz AS ended"
    ));
    base.run("VACUUM ANALYZE enrichment_cache");
    base
}

/// Has everything written down that was counted: the worker does so when it ends, and the next one when it begins.
fn fold(base: &Base) {
    let former = base.worker();
    base.run(&format!("SELECT pg_terminate_backend({former})"));
    wait_until("another worker", SOON, || {
        let pid = wait_served(&base.cluster, &base.name);
        same(pid != former, &true)
    });
}

#[test]
fn hits_and_misses_are_counted_exactly_and_written_down_by_the_worker() {
    let base = base("counted", 100);
    let mut client = base.client();
    run(&mut client, "SELECT enrich_get('dshield', key) FROM asked, generate_series(1, 50)");
    run(&mut client, "SELECT enrich_get('dshield', '8.8.' || g || '.1') FROM generate_series(1, 30) g");
    // two that are known to be unknown: an answer from the cache too
    run(&mut client, "SELECT enrich_store('dshield', '8.8.8.8', NULL, response_status => 'not_found')");
    run(&mut client, "SELECT enrich_get('dshield', '8.8.8.8'), enrich_get('dshield', '8.8.8.8'::inet)");
    // what cannot be a key is no look-up
    run(&mut client, "SELECT enrich_get('dshield', 'no address') FROM generate_series(1, 10)");
    run(&mut client, "BEGIN READ ONLY; SELECT enrich_get('dshield', '9.0.0.1'); ROLLBACK");
    run(&mut client, "SELECT * FROM enrich_get_many('dshield', '{9.0.0.1,9.0.0.2,8.8.9.9}')");
    assert_eq!(one::<String>(&mut client, COUNTED), "5005 hits, 31 misses, 0 dropped");
    assert_eq!(one::<i64>(&mut client, FOLDED), 0);
    run(&mut client, "UPDATE moments SET ended = clock_timestamp()");
    fold(&base);
    base.wait_for::<i64>(FOLDED, 5005);
    base.wait_for::<i64>(HITS_OF_ROWS, 5005);
    // what is written down is not counted a second time
    assert_eq!(base.one::<String>(COUNTED), "5005 hits, 31 misses, 0 dropped");
    assert_eq!(base.one::<i64>("SELECT hit_count FROM enrichment_cache WHERE cache_key = '9.0.0.1'"), 52);
    assert_eq!(base.one::<i64>(ACCESSED), 100, "rows with the time of their look-up, and not of its writing down");
}

const ACCESSED: &str =
    "SELECT count(*) FROM enrichment_cache, moments WHERE cache_key LIKE '9.%' AND accessed_at BETWEEN began AND ended";

/// Not only when it ends.
#[test]
fn a_worker_that_goes_on_writes_down_hits_misses_and_when_rows_were_read() {
    let base = base("goes_on", 100);
    let mut client = base.client();
    run(&mut client, "SELECT enrich_get('dshield', key) FROM asked");
    run(&mut client, "SELECT enrich_get('dshield', '8.8.' || g || '.1') FROM generate_series(1, 30) g");
    run(&mut client, "UPDATE moments SET ended = clock_timestamp()");
    let worker = base.worker();
    run(&mut client, "ALTER SYSTEM SET enrichment_cache.stats_interval = '1 s'");
    run(&mut client, "SELECT pg_reload_conf()");
    let day = "SELECT coalesce(sum(cache_hits) || ' ' || sum(cache_misses), '') FROM enrichment_cache_stats WHERE service = 'dshield'";
    base.wait_for(day, "100 30".to_string());
    base.wait_for::<i64>(HITS_OF_ROWS, 100);
    assert_eq!(base.one::<i64>(ACCESSED), 100);
    assert_eq!(one::<String>(&mut client, COUNTED), "100 hits, 30 misses, 0 dropped");
    assert_eq!(base.worker(), worker);
}

/// Citus lists the cache: each look-up is planned then. What is known to be unknown is an answer all the same.
#[test]
fn a_look_up_by_a_plan_counts_as_one_that_needs_none() {
    let base = base("planned", 2);
    let mut client = base.client();
    run(&mut client, "SELECT enrich_store('dshield', '8.8.8.8', NULL, response_status => 'not_found')");
    let looks = "SELECT enrich_get('dshield', key) FROM unnest('{9.0.0.0,9.0.0.1,8.8.8.8,8.8.9.9}'::text[]) key;
        SELECT * FROM enrich_get_many('dshield', '{9.0.0.0,9.0.0.1,8.8.8.8,8.8.9.9}')";
    run(&mut client, looks);
    assert_eq!(one::<String>(&mut client, COUNTED), "6 hits, 2 misses, 0 dropped");
    run(
        &mut client,
        "SET allow_system_table_mods = on;
        CREATE TABLE pg_catalog.pg_dist_partition (logicalrelid regclass NOT NULL, partmethod \"char\" NOT NULL, partkey text,
            colocationid int NOT NULL DEFAULT 0, repmodel \"char\" NOT NULL DEFAULT 's');
        INSERT INTO pg_catalog.pg_dist_partition (logicalrelid, partmethod) VALUES ('enrichment_cache', 'h');
        ALTER TABLE enrichment_cache SET (autovacuum_enabled = off)",
    );
    run(&mut client, looks);
    assert_eq!(one::<String>(&mut client, COUNTED), "12 hits, 4 misses, 0 dropped");
}

#[test]
fn parallel_workers_count_too() {
    let base = base("parallel", 1000);
    let mut client = base.client();
    run(
        &mut client,
        "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
        SET max_parallel_workers_per_gather = 2; SET parallel_leader_participation = off",
    );
    let plan: String = client
        .query("EXPLAIN (ANALYZE, COSTS OFF) SELECT count(enrich_get('dshield', key)) FROM asked", &[])
        .expect("a plan")
        .iter()
        .map(|row| row.get::<_, String>(0) + "\n")
        .collect();
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    assert_eq!(one::<String>(&mut client, COUNTED), "1000 hits, 0 misses, 0 dropped");
    fold(&base);
    base.wait_for::<i64>(HITS_OF_ROWS, 1000);
    let each = "SELECT min(hit_count) || ' to ' || max(hit_count) FROM enrichment_cache";
    assert_eq!(base.one::<String>(each), "1 to 1", "hits of a row");
}

#[test]
fn rows_are_touched_by_updates_that_need_no_new_index_entries() {
    let base = base("touched", 300);
    // a snapshot from before: what it sees cannot be removed from the pages
    let mut reader = base.client();
    run(&mut reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1");
    run(&mut base.client(), "SELECT enrich_get('dshield', key) FROM asked, generate_series(1, 3)");
    run(&mut base.client(), "ALTER SYSTEM SET enrichment_cache.stats_interval = '1 s'");
    run(&mut base.client(), "SELECT pg_reload_conf()");
    base.wait_for::<bool>(&format!("SELECT ({HITS_OF_ROWS}) > 0"), true);
    let updates = "SELECT n_tup_upd || ' updates, ' || n_tup_hot_upd || ' of them HOT'
        FROM pg_stat_user_tables WHERE relname = 'enrichment_cache'";
    // each page had room for one row's next version; the others wait until the snapshot is gone
    assert!(one::<i64>(&mut base.client(), HITS_OF_ROWS) < 900);
    run(&mut reader, "ROLLBACK");
    base.wait_for::<i64>(HITS_OF_ROWS, 900);
    base.wait_for::<String>(updates, "300 updates, 300 of them HOT".to_string());
}

#[test]
fn when_too_many_rows_are_looked_up_at_once_touches_are_dropped_and_counted_but_no_hit() {
    let base = base("dropped", 20_000);
    let worker = base.worker();
    let signal = |signal: &str| {
        let done = std::process::Command::new("kill").args([signal, &worker.to_string()]).status();
        assert!(done.is_ok_and(|status| status.success()));
    };
    signal("-STOP");
    let mut client = base.client();
    // each key twice in a row: keys that do not come again soon are not remembered, and told of at each look-up
    run(&mut client, "SELECT enrich_get('dshield', key) FROM asked, LATERAL generate_series(1, 2 + 0 * length(key))");
    let counted = one::<String>(&mut client, COUNTED);
    // told of one by one; what a transaction has not told at its end it tells then
    run(&mut client, "SET enrichment_cache.memo_size = 0");
    run(&mut client, "SELECT enrich_get('dshield', key) FROM (SELECT key FROM asked LIMIT 1500) few");
    let more = one::<String>(&mut base.client(), COUNTED);
    signal("-CONT");
    // each row is told of once, but for the first look-up of all, which is told of by itself
    assert_eq!(counted, format!("40000 hits, 0 misses, {} dropped", 20_001 - 8192));
    assert_eq!(more, format!("41500 hits, 0 misses, {} dropped", 21_501 - 8192));
    fold(&base);
    base.wait_for::<i64>(FOLDED, 41_500);
    base.wait_for::<bool>(&format!("SELECT ({HITS_OF_ROWS}) BETWEEN 8192 AND 2 * 8192"), true);
    // what was dropped stays counted, also in the day's figures
    assert_eq!(base.one::<String>(COUNTED), more);
    let of_the_day = "SELECT sum(touches_dropped)::bigint FROM enrichment_cache_stats WHERE service = 'dshield'";
    assert_eq!(base.one::<i64>(of_the_day), 21_501 - 8192);
}

/// 1,024 pairs of database and service are counted apart; services that come later have one place for their database.
#[test]
fn with_more_services_than_are_counted_apart_no_look_up_is_lost_or_counted_for_another_database() {
    let first = base("many_services", 1);
    let second = Base::in_cluster(&first.cluster, "many_services_too", &["--limits", "none"]);
    first.run(
        "INSERT INTO enrichment_service (name, key_kind, url, enabled)
            SELECT 'many_' || n, 'ip', 'https://many.example/{key}', false FROM generate_series(1, 1100) n",
    );
    first.run("SELECT enrich_get('many_' || n, '8.8.8.8') FROM generate_series(1, 1100) n");
    second.run("SELECT enrich_get('dshield', '8.8.8.8') FROM generate_series(1, 7)");
    let counted = |base: &Base, from: &str| {
        base.one::<String>(&format!(
            "SELECT coalesce(sum(cache_misses) FILTER (WHERE service <> '(other services)'), 0) || ' apart, '
                || coalesce(sum(cache_misses) FILTER (WHERE service = '(other services)'), 0) || ' together' FROM {from}"
        ))
    };
    for from in ["enrichment_stat", "enrichment_cache_stats"] {
        assert_eq!(counted(&first, from), "1024 apart, 76 together", "{from}");
        assert_eq!(counted(&second, from), "0 apart, 7 together", "{from}");
        fold(&first);
        fold(&second);
    }
    assert_eq!(counted(&first, "enrichment_stat"), "1024 apart, 76 together");
    assert_eq!(first.one::<i64>("SELECT count(*) FROM enrich_live_lookups() WHERE cache_misses > 0"), 0);
}

#[test]
fn a_restart_of_the_server_loses_no_count() {
    let base = base("restarted", 50);
    run(&mut base.client(), "SELECT enrich_get('dshield', key) FROM asked");
    assert_eq!(base.one::<i64>(FOLDED), 0);
    base.cluster.restart().unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(base.one::<i64>(FOLDED), 50);
    assert_eq!(base.one::<i64>(HITS_OF_ROWS), 50);
}

#[test]
fn nothing_is_counted_when_look_ups_are_not_tracked() {
    let base = base("untracked", 50);
    let mut client = base.client();
    run(&mut client, "SET enrichment_cache.track_lookups = off");
    run(&mut client, "SELECT enrich_get('dshield', key) FROM asked");
    run(&mut client, "SELECT enrich_get('dshield', '9.0.0.1')");
    assert_eq!(one::<String>(&mut client, COUNTED), "0 hits, 0 misses, 0 dropped");
    run(&mut client, "RESET enrichment_cache.track_lookups");
    run(&mut client, "SELECT enrich_get('dshield', '9.0.0.1')");
    assert_eq!(one::<String>(&mut client, COUNTED), "1 hits, 0 misses, 0 dropped");
}
