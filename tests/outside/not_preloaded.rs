//! Without shared_preload_libraries: the core works, what needs a worker says what is missing.

use crate::support::{self, one, run};
use std::sync::{Arc, Mutex};
use testbed::Cluster;

const HINT: &str = "Add enrichment_cache to shared_preload_libraries and restart the server.";

fn cluster() -> Cluster {
    let cluster = Cluster::builder("not-preloaded").start().unwrap_or_else(|why| panic!("{why}"));
    run(&mut cluster.client("postgres"), "CREATE EXTENSION enrichment_cache");
    cluster
}

#[test]
fn without_preloading_the_core_works_and_the_rest_says_what_is_missing() {
    let cluster = cluster();
    storing_and_reading_work(&cluster);
    what_waits_for_a_worker_is_refused(&cluster);
    a_request_is_kept_and_warned_of(&cluster);
    health_says_it(&cluster);
    diagnosis_and_explain_say_it(&cluster);
    the_settings_are_there(&cluster);
    a_memo_and_workers_answer_and_count_nothing(&cluster);
    nothing_runs(&cluster);
}

fn storing_and_reading_work(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    let sql = "SELECT enrich_store('dshield', '8.8.8.8', '{\"ip\": {\"count\": 3}}')";
    assert_eq!(one::<i64>(&mut client, sql), 1);
    for key in ["'8.8.8.8'", "'::ffff:8.8.8.8'", "'8.8.8.8/32'::inet"] {
        let sql = format!("SELECT (enrich_get('dshield', {key}) -> 'ip' ->> 'count')::int");
        assert_eq!(one::<Option<i32>>(&mut client, &sql), Some(3), "{key}");
    }
    assert_eq!(one::<String>(&mut client, "SELECT state FROM enrich_lookup('dshield', '8.8.8.8')"), "hit");
    // what is fresh needs no worker
    assert!(one::<bool>(&mut client, "SELECT enrich_fetch('dshield', '8.8.8.8') IS NOT NULL"));
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_invalidate('dshield', '8.8.8.8')"), 1);
    assert!(one::<bool>(&mut client, "SELECT enrich_get('dshield', '8.8.8.8') IS NULL"));
    run(
        &mut client,
        "SELECT enrich_store('dshield', '9.9.9.9', '{}', '1 s', fetched_at => now() - interval '2 years')",
    );
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_cleanup()"), 1);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_cache"), 1);
}

fn what_waits_for_a_worker_is_refused(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    support::refused(&mut client, "SELECT enrich_fetch('dshield', '1.1.1.1')", "55000", HINT);
    support::refused(&mut client, "CALL enrich_refresh()", "55000", HINT);
}

fn a_request_is_kept_and_warned_of(cluster: &Cluster) {
    let heard: Arc<Mutex<Vec<(String, String)>>> = Arc::default();
    let hears = heard.clone();
    let mut config: postgres::Config = cluster.dsn("postgres").parse().expect("a DSN");
    config.notice_callback(move |notice| {
        let hint = notice.hint().unwrap_or("").to_string();
        hears.lock().expect("no panic").push((notice.severity().to_string(), hint));
    });
    let mut client = config.connect(postgres::NoTls).expect("a connection");
    assert_eq!(one::<String>(&mut client, "SELECT enrich_request('dshield', '1.1.1.1')"), "queued");
    assert_eq!(one::<String>(&mut client, "SELECT enrich_request('dshield', '1.1.1.1')"), "already_queued");
    assert_eq!(one::<i64>(&mut client, "SELECT enrich_request_many('dshield', '{1.0.0.1,1.1.1.1,10.0.0.1}')"), 1);
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue"), 2);
    let heard = heard.lock().expect("no panic");
    assert_eq!(*heard, [("WARNING".to_string(), HINT.to_string())], "once in a session");
}

fn health_says_it(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    let row = client
        .query_one("SELECT severity, hint FROM enrich_health() WHERE check_name = 'preloaded'", &[])
        .expect("a finding");
    assert_eq!((row.get::<_, &str>(0), row.get::<_, &str>(1)), ("error", HINT));
}

fn diagnosis_and_explain_say_it(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "CREATE TABLE visits (ip text); SELECT enrich_attach('visits', 'ip', '{dshield}');
        INSERT INTO visits VALUES ('1.1.1.1'), ('1.0.0.1'), ('9.9.9.1'), (NULL)",
    );
    let found = "SELECT concat_ws(' ', severity, cause, service, affected, share, hint) FROM enrich_diagnose()";
    assert_eq!(
        one::<String>(&mut client, found),
        format!("error no_worker dshield 3 1.0000 Nobody asks: the library is not in shared_preload_libraries, so no worker runs. {HINT}")
    );
    let said: String = one(&mut client, "SELECT enrich_explain('dshield', '1.1.1.1')");
    assert!(
        said.contains("\nNext: it waits and nobody asks, because the library is not in shared_preload_libraries"),
        "{said}"
    );
    run(&mut client, "SELECT enrich_detach('visits'); DROP TABLE visits");
}

/// A session that has loaded the library knows the settings; one that steers egress is not the user's.
fn the_settings_are_there(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    let sql = "SELECT enrich_preloaded()::text || ' ' || current_setting('enrichment_cache.allow_private_hosts')";
    assert_eq!(one::<String>(&mut client, sql), "false off");
    support::refused(&mut client, "SET enrichment_cache.allow_private_hosts = on", "55P02", "");
    support::refused(&mut client, "SET enrichment_cache.no_such_setting = 1", "42602", "");
}

fn a_memo_and_workers_answer_and_count_nothing(cluster: &Cluster) {
    let mut client = cluster.client("postgres");
    run(
        &mut client,
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', '9.9.1.' || n, to_jsonb(n), 'infinity' FROM generate_series(0, 99) n;
        CREATE TABLE events AS SELECT '9.9.1.' || n % 200 AS ip FROM generate_series(1, 20000) n;
        CREATE FUNCTION process() RETURNS int LANGUAGE internal STABLE STRICT PARALLEL SAFE AS 'pg_backend_pid';
        ANALYZE events",
    );
    let answers =
        "SELECT count(q.got) || CASE WHEN bool_or(q.asked_by <> pg_backend_pid()) THEN ' by workers' ELSE '' END
        FROM (SELECT enrich_get('dshield', ip) AS got, process() AS asked_by FROM events OFFSET 0) q";
    assert_eq!(one::<String>(&mut client, answers), "10000");
    crate::reads::force_workers(&mut client);
    assert_eq!(one::<String>(&mut client, answers), "10000 by workers");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrich_live_lookups()"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT sum(cache_hits + cache_misses)::int8 FROM enrichment_stat"), 0);
    assert_eq!(one::<i64>(&mut client, "SELECT sum(hit_count)::int8 FROM enrichment_cache"), 0);
}

fn nothing_runs(cluster: &Cluster) {
    assert!(cluster.backend_pids("enrichment_cache launcher").is_empty());
    assert!(cluster.backend_pids("enrichment_cache worker").is_empty());
    let mut client = cluster.client("postgres");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM enrichment_queue WHERE state = 'waiting'"), 2);
}

#[test]
fn what_was_asked_before_preloading_is_fetched_after_it() {
    let base = testbed::Sandbox::start(&["--limits", "none"]);
    let cluster = cluster();
    let mut client = cluster.client("postgres");
    base.point_services(&mut client, "public");
    run(&mut client, "SELECT enrich_request('hibp', '00000')");
    drop(client);
    for (name, value) in
        [("shared_preload_libraries", "enrichment_cache"), ("enrichment_cache.allow_private_hosts", "on")]
    {
        let file = cluster.data_dir().join("testbed.conf");
        let text = std::fs::read_to_string(&file).expect("the settings");
        std::fs::write(&file, format!("{text}{name} = '{value}'\n")).expect("a setting");
    }
    cluster.restart().unwrap_or_else(|why| panic!("{why}"));
    let mut client = cluster.client("postgres");
    testbed::wait_until("the answer", support::SOON, || {
        let sql = "SELECT count(*) FROM enrichment_cache WHERE response_status = 'success'";
        support::same(support::ask::<i64>(&mut client, sql)?, &1)
    });
    assert_eq!(base.stats()["hibp"]["by_key"]["00000"], 1);
}
