//! Several databases in one cluster: which are served, and what may be done to one that is.

use crate::support::{
    self, ask, create_database, one, own_cluster, run, same, shared_cluster, wait_served, wait_unserved, worker_of,
    Base, SOON,
};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};
use testbed::{try_wait_until, wait_until, Cluster, Sandbox};

/// Below every interval at which the launcher looks by itself for what no signal told.
const NOTICED: Duration = Duration::from_secs(8);

fn base(name: &str) -> Base {
    Base::new("databases", name)
}

/// Requests of a base that its provider never answers; returns once it has been asked.
fn keep_busy(base: &Base) {
    base.sandbox.fault(json!({"service": "dshield", "kind": "hang"}));
    base.run("SELECT enrich_request_many('dshield', '{8.8.0.1,8.8.0.2,8.8.0.3,8.8.0.4,8.8.0.5}')");
    wait_until("calls under way", SOON, || {
        let in_flight = base.sandbox.stats()["dshield"]["in_flight"].as_i64();
        same(in_flight, &Some(4))
    });
}

/// One answer through a database's worker, asked for in a schema.
fn answers(cluster: &Cluster, sandbox: &Sandbox, database: &str, schema: &str, key: &str) {
    let mut client = cluster.client(database);
    let asked = one::<String>(&mut client, &format!("SELECT {schema}.enrich_request('hibp', '{key}')"));
    assert_eq!(asked, "queued");
    let sql = format!("SELECT response_status FROM {schema}.enrichment_cache WHERE cache_key = '{key}'");
    wait_until(&format!("an answer in {database}"), SOON, || {
        same(ask::<String>(&mut client, &sql)?, &"success".to_string())
    });
    assert!(sandbox.stats()["hibp"]["by_key"][key].as_i64() > Some(0));
}

#[test]
fn two_databases_are_served_at_once_and_do_not_meet() {
    let (one, two) = (base("one"), base("two"));
    assert_ne!(one.worker(), two.worker());
    for (base, key) in [(&one, "11111"), (&two, "22222")] {
        base.sandbox.set_latency("hibp", 300);
        base.run(&format!("SELECT enrich_request('hibp', '{key}')"));
    }
    for (base, key) in [(&one, "11111"), (&two, "22222")] {
        base.wait_for("SELECT coalesce(string_agg(cache_key, ','), '') FROM enrichment_cache", key.to_string());
        assert_eq!((base.asked("hibp"), base.asked_for("hibp", key)), (1, 1));
    }
    let mut client = one.client();
    let states = "SELECT count(*) FROM enrichment_worker WHERE database IN ('one', 'two') AND state = 'serving' AND pid IS NOT NULL";
    assert_eq!(support::one::<i64>(&mut client, states), 2);
}

#[test]
fn create_extension_after_start_is_noticed_at_its_commit() {
    let watcher = base("watcher");
    let cluster = &watcher.cluster;
    create_database(cluster, "late");
    // the launcher has looked and found nothing, so that only a signal can tell it soon
    watcher.wait_for(
        "SELECT coalesce((SELECT state FROM enrichment_worker WHERE database = 'late'), 'unknown')",
        "absent".to_string(),
    );
    let mut client = cluster.client("late");
    run(&mut client, "BEGIN; CREATE EXTENSION enrichment_cache; ROLLBACK; BEGIN; CREATE EXTENSION enrichment_cache");
    assert_eq!(worker_of(&mut cluster.client("postgres"), "late"), Ok(None), "before the commit");
    run(&mut client, "COMMIT");
    let began = Instant::now();
    wait_served(cluster, "late");
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    watcher.sandbox.point_services(&mut client, "public");
    answers(cluster, &watcher.sandbox, "late", "public", "0AAAA");
}

#[test]
fn drop_extension_stops_the_worker_and_create_extension_in_another_schema_starts_one() {
    let base = base("again");
    keep_busy(&base);
    let mut client = base.client();
    let began = Instant::now();
    run(&mut client, "DROP EXTENSION enrichment_cache");
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    wait_unserved(&base.cluster, "again");
    let left = "SELECT count(*) FROM pg_class WHERE relname LIKE 'enrichment%'";
    assert_eq!(one::<i64>(&mut client, left), 0);

    run(&mut client, "CREATE SCHEMA \"Threat Intel\"; CREATE EXTENSION enrichment_cache SCHEMA \"Threat Intel\"");
    base.sandbox.point_services(&mut client, "Threat Intel");
    wait_served(&base.cluster, "again");
    // the session that has called functions of the former extension
    answers(&base.cluster, &base.sandbox, "again", "\"Threat Intel\"", "0BBBB");
    let sql = "SELECT \"Threat Intel\".enrich_fetch('hibp', '0CCCC') IS NOT NULL";
    assert!(one::<bool>(&mut client, sql));
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM pg_class WHERE relname = 'enrichment_cache'"), 1);
}

#[test]
fn drop_and_create_extension_in_one_transaction_is_one_served_extension() {
    let base = base("swap");
    run(&mut base.client(), "BEGIN; DROP EXTENSION enrichment_cache; CREATE EXTENSION enrichment_cache; COMMIT");
    let mut client = base.client();
    base.sandbox.point_services(&mut client, "public");
    answers(&base.cluster, &base.sandbox, "swap", "public", "0DDDD");
}

/// A worker that starts is not among the server's processes yet when it first looks at its place.
#[test]
fn however_often_the_launcher_is_woken_one_worker_serves_a_database() {
    let base = base("woken");
    let workers =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'woken' AND backend_type = 'enrichment_cache worker'";
    let mut watching = base.client();
    for round in 0..10 {
        let former = base.worker();
        run(&mut watching, &format!("SELECT pg_terminate_backend({former})"));
        let done = AtomicBool::new(false);
        std::thread::scope(|threads| {
            for _ in 0..2 {
                threads.spawn(|| {
                    let mut waking = base.client();
                    while !done.load(Ordering::Relaxed) {
                        run(&mut waking, "SELECT enrich_wake_launcher()");
                    }
                });
            }
            let served = try_wait_until("another worker", SOON, || {
                let pid = worker_of(&mut watching, "woken").unwrap_or_default();
                Ok(pid.filter(|pid| *pid != former))
            });
            done.store(true, Ordering::Relaxed);
            served.unwrap_or_else(|why| panic!("round {round}: {why}"));
        });
        // those that were started in vain have left
        wait_until("one worker", SOON, || same(ask::<i64>(&mut watching, workers)?, &1));
    }
}

/// It holds one table and waits for another, which the session holds that then wants the first.
#[test]
fn a_session_and_the_worker_that_wait_for_each_other_are_no_deadlock_for_the_session() {
    let cluster = Arc::new(own_cluster("yielding"));
    cluster.set("enrichment_cache.stats_interval", "1");
    let base = Base::in_cluster(&cluster, "yielding", &["--limits", "none"]);
    let (mut session, mut watching) = (base.client(), base.client());
    // the worker runs already
    cluster.set("deadlock_timeout", "150ms");
    wait_until("the setting to be read", SOON, || {
        same(ask::<String>(&mut session, "SHOW deadlock_timeout")?, &"150ms".to_string())
    });
    let holds = format!(
        "SELECT coalesce(bool_or(NOT granted AND relation = 'enrichment_queue'::regclass), false)
            AND coalesce(bool_or(granted AND relation = 'enrichment_attempt_stats'::regclass), false)
         FROM pg_locks WHERE pid = {}",
        base.worker()
    );
    run(&mut session, "BEGIN; LOCK TABLE enrichment_queue");
    wait_until("the worker to wait", SOON, || same(ask::<bool>(&mut watching, &holds)?, &true));
    run(&mut session, "LOCK TABLE enrichment_attempt_stats; COMMIT");
    answers(&base.cluster, &base.sandbox, "yielding", "public", "0EEEE");
}

/// The look-up waits for the new registry with a snapshot from before there was one.
#[test]
fn a_look_up_that_meets_the_extension_being_made_anew_finds_the_new_registry() {
    let base = base("anew");
    let (mut making, mut watching) = (base.client(), base.client());
    for round in 0..3 {
        let mut looking = base.client();
        let pid: i32 = one(&mut looking, "SELECT pg_backend_pid()");
        run(&mut making, "BEGIN; DROP EXTENSION enrichment_cache; CREATE EXTENSION enrichment_cache");
        let found = std::thread::scope(|threads| {
            let look = threads.spawn(|| looking.simple_query("SELECT enrich_get('dshield', '8.8.8.8')"));
            let waits =
                format!("SELECT wait_event_type IS NOT DISTINCT FROM 'Lock' FROM pg_stat_activity WHERE pid = {pid}");
            wait_until("the look-up to wait", SOON, || same(ask::<bool>(&mut watching, &waits)?, &true));
            run(&mut making, "COMMIT");
            look.join().expect("a session")
        });
        assert!(found.is_ok(), "round {round}: {}", support::said(&found.expect_err("an error")));
    }
}

#[test]
fn a_database_is_dropped_while_its_worker_is_busy() {
    for (name, command) in [("dropped", "DROP DATABASE dropped"), ("forced", "DROP DATABASE forced WITH (FORCE)")] {
        let base = base(name);
        keep_busy(&base);
        let began = Instant::now();
        run(&mut base.cluster.client("postgres"), command);
        assert!(began.elapsed() < Duration::from_secs(10), "{command}: {:?}", began.elapsed());
        wait_unserved(&base.cluster, name);
        // a database of the same name is another one
        create_database(&base.cluster, name);
        let mut client = base.client();
        run(&mut client, "CREATE EXTENSION enrichment_cache");
        base.sandbox.clear_faults();
        base.sandbox.point_services(&mut client, "public");
        wait_served(&base.cluster, name);
        answers(&base.cluster, &base.sandbox, name, "public", "0EEEE");
    }
}

#[test]
fn a_refused_drop_leaves_the_database_served() {
    let base = base("kept");
    let _session = base.client();
    support::refused(&mut base.cluster.client("postgres"), "DROP DATABASE kept", "55006", "");
    wait_served(&base.cluster, "kept");
    answers(&base.cluster, &base.sandbox, "kept", "public", "0FFFF");
}

#[test]
fn a_served_database_is_a_template_and_its_copy_is_served_too() {
    let base = base("original");
    keep_busy(&base);
    base.sandbox.clear_faults();
    run(&mut base.cluster.client("postgres"), "CREATE DATABASE copy TEMPLATE original");
    for database in ["original", "copy"] {
        wait_served(&base.cluster, database);
        let mut client = base.cluster.client(database);
        wait_until(&format!("the requests of {database}"), SOON, || {
            let sql =
                "SELECT count(*) FILTER (WHERE response_status IN ('success', 'not_found')) FROM enrichment_cache";
            same(ask::<i64>(&mut client, sql)?, &5)
        });
    }
}

#[test]
fn a_served_database_takes_another_name() {
    let base = base("before");
    keep_busy(&base);
    base.sandbox.clear_faults();
    run(&mut base.cluster.client("postgres"), "ALTER DATABASE before RENAME TO \"after wards\"");
    wait_served(&base.cluster, "after wards");
    answers(&base.cluster, &base.sandbox, "after wards", "public", "1AAAA");
    let mut client = base.cluster.client("after wards");
    let known = "SELECT count(*) FROM enrichment_worker WHERE database = current_database() AND pid IS NOT NULL";
    assert_eq!(one::<i64>(&mut client, known), 1);
}

#[test]
fn the_setting_databases_narrows_by_reload() {
    let cluster = Arc::new(own_cluster("narrowed"));
    let sandbox = ["--limits", "none"];
    let (inside, outside) =
        (Base::in_cluster(&cluster, "inside", &sandbox), Base::in_cluster(&cluster, "outside", &sandbox));
    let worker = inside.worker();
    cluster.set("enrichment_cache.databases", "postgres, inside");
    wait_unserved(&cluster, "outside");
    assert_eq!(inside.worker(), worker, "the other one goes on");
    let mut client = outside.client();
    outside.wait_for(
        "SELECT coalesce((SELECT state FROM enrichment_worker WHERE database = 'outside'), '')",
        "excluded".to_string(),
    );
    support::refused(&mut client, "SELECT enrich_fetch('hibp', '00000')", "55000", "");
    let found = "SELECT severity || ': ' || detail FROM enrich_health() WHERE check_name = 'worker'";
    let found: String = one(&mut client, found);
    assert!(found.starts_with("error: no worker serves this database") && found.contains("excluded"), "{found}");
    assert_eq!(one::<String>(&mut client, "SELECT enrich_request('hibp', '00000')"), "queued");

    cluster.set("enrichment_cache.databases", "*");
    let began = Instant::now();
    wait_served(&cluster, "outside");
    assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());
    outside.wait_for("SELECT count(*) FROM enrichment_cache WHERE payload IS NOT NULL", 1i64);
}

#[test]
fn an_older_table_of_our_name_is_kept_and_the_extension_stands_beside_it() {
    let cluster = shared_cluster("databases");
    create_database(&cluster, "older");
    let mut client = cluster.client("older");
    run(
        &mut client,
        "CREATE TABLE enrichment_cache (service varchar(64), cache_key varchar(256), cache_value json,
            created_at timestamp, expires_at timestamp, UNIQUE (service, cache_key));
         INSERT INTO enrichment_cache VALUES ('hibp', '00000', '{\"older\": true}')",
    );
    let message = support::refused(&mut client, "CREATE EXTENSION enrichment_cache", "42P07", "SCHEMA");
    assert!(message.contains("enrichment_cache"), "{message}");
    assert_eq!(one::<i64>(&mut client, "SELECT count(*) FROM pg_proc WHERE proname LIKE 'enrich%'"), 0);

    run(&mut client, "CREATE SCHEMA enrichment; CREATE EXTENSION enrichment_cache SCHEMA enrichment");
    let sandbox = Sandbox::start(&["--limits", "none"]);
    sandbox.point_services(&mut client, "enrichment");
    wait_served(&cluster, "older");
    // with either table first in the search path
    answers(&cluster, &sandbox, "older", "enrichment", "00000");
    for path in ["public", "public, enrichment", "enrichment, public"] {
        run(&mut client, &format!("SET search_path = {path}"));
        let get = "SELECT enrichment.enrich_get('hibp', '00000') IS NOT NULL";
        assert!(one::<bool>(&mut client, get), "{path}");
        let store = "SELECT enrichment.enrich_store('dshield', '8.8.8.8', '{}') > 0";
        assert!(one::<bool>(&mut client, store), "{path}");
        let many = "SELECT count(*) FROM enrichment.enrich_get_many('hibp', '{00000,FFFFF}')";
        assert_eq!(one::<i64>(&mut client, many), 1, "{path}");
        run(&mut client, "SELECT * FROM enrichment.enrich_health(); SELECT enrichment.enrich_explain('hibp', '00000')");
    }
    let older = "SELECT cache_value::text FROM public.enrichment_cache";
    assert_eq!(one::<String>(&mut client, older), "{\"older\": true}");
    run(&mut client, "DROP EXTENSION enrichment_cache");
    assert_eq!(one::<String>(&mut client, older), "{\"older\": true}");
}
