//! Beginnings and ends of the worker: stops, kills, the kill switch, and rest.

use crate::support::{self, ask, let_the_worker_look, one, own_cluster, run, same, Base, SOON};
use serde_json::{json, Value};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use testbed::{wait_until, Cluster, Sandbox, StopMode};

const ANSWERED: &str = "SELECT count(*) FROM enrichment_cache WHERE response_status IN ('success', 'not_found')";
const QUEUED: &str = "SELECT count(*) FROM enrichment_queue";

fn own(name: &'static str) -> Base {
    Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none"])
}

/// Requests `n` password ranges.
fn request(base: &Base, n: u32) {
    let keys: Vec<String> = (0..n).map(|n| format!("{n:05X}")).collect();
    base.run(&format!("SELECT enrich_request_many('hibp', '{{{}}}')", keys.join(",")));
}

fn wait_in_flight(base: &Base, service: &str, n: i64) {
    wait_until("calls under way", SOON, || same(base.sandbox.stats()[service]["in_flight"].as_i64(), &Some(n)));
}

/// The most that one key of a service was asked for.
fn most_asked(sandbox: &Sandbox, service: &str) -> u64 {
    let stats = sandbox.stats();
    let by_key = stats[service]["by_key"].as_object().cloned().unwrap_or_default();
    by_key.values().filter_map(Value::as_u64).max().unwrap_or(0)
}

#[test]
fn a_fast_stop_ends_in_seconds_stores_what_finished_and_releases_the_rest() {
    let base = own("stopped");
    base.sandbox.set_latency("hibp", 1000);
    base.sandbox.fault(json!({"service": "dshield", "kind": "hang"}));
    base.run("SELECT enrich_request_many('dshield', '{8.8.0.1,8.8.0.2,8.8.0.3,8.8.0.4,8.8.0.5}')");
    wait_in_flight(&base, "dshield", 4);
    request(&base, 6);
    wait_in_flight(&base, "hibp", 6);
    // read at the next start: no worker comes to tidy up what this one leaves
    run(&mut base.cluster.client("postgres"), "ALTER SYSTEM SET enrichment_cache.databases = 'postgres'");
    let began = Instant::now();
    base.cluster.stop(StopMode::Fast).expect("a stop");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    base.cluster.start_again().expect("a start");
    assert_eq!(base.one::<i64>(ANSWERED), 6);
    let left =
        "SELECT count(*) || ' ' || count(*) FILTER (WHERE state = 'waiting' AND leased_by IS NULL AND attempts = 0)
        FROM enrichment_queue";
    assert_eq!(base.one::<String>(left), "5 5");

    base.sandbox.clear_faults();
    base.cluster.set("enrichment_cache.databases", "*");
    base.wait_for(QUEUED, 0i64);
    assert_eq!((most_asked(&base.sandbox, "hibp"), most_asked(&base.sandbox, "dshield")), (1, 2));
}

#[test]
fn a_killed_worker_is_replaced_and_each_key_is_asked_at_most_once_more() {
    let base = own("killed");
    base.sandbox.set_latency("hibp", 50);
    // what a limit makes dear is on disk at once (docs/adr/0020)
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 100000, "per": "day"}]' WHERE name = 'hibp'"#);
    request(&base, 120);
    let mut client = base.client();
    wait_until("some answers", SOON, || same(ask::<i64>(&mut client, ANSWERED)? >= 20, &true));
    let worker = base.worker();
    base.cluster.kill_9(worker);
    let answered: i64 = wait_until("all answers", SOON, || {
        let mut client = base.cluster.try_client(&base.name).map_err(|why| why.to_string())?;
        match ask::<i64>(&mut client, QUEUED)? {
            0 => ask(&mut client, ANSWERED).map(Some),
            left => Err(format!("{left} to go")),
        }
    });
    assert_eq!(answered, 120);
    assert_ne!(base.worker(), worker);
    assert!(most_asked(&base.sandbox, "hibp") <= 2);
    // no more than were under way, and as many whose answers were gathering
    let asked = base.asked("hibp");
    assert!((120..=136).contains(&asked), "{asked}");
}

#[test]
fn terminated_workers_and_launchers_come_back() {
    let base = Base::new("lifecycle", "terminated");
    let launcher = |cluster: &Cluster| cluster.backend_pids("enrichment_cache launcher");
    for _ in 0..2 {
        let before = (launcher(&base.cluster), base.worker());
        assert_eq!(before.0.len(), 1);
        run(
            &mut base.cluster.client("postgres"),
            &format!("SELECT pg_terminate_backend({}), pg_terminate_backend({})", before.0[0], before.1),
        );
        wait_until("another launcher and another worker", SOON, || {
            let after = (launcher(&base.cluster), support::worker_of(&mut base.client(), &base.name)?);
            let both = after.0.len() == 1 && after.0 != before.0 && after.1.is_some_and(|pid| pid != before.1);
            both.then_some(Some(())).ok_or(format!("{after:?}"))
        });
    }
    request(&base, 3);
    base.wait_for(ANSWERED, 3i64);
}

#[test]
fn a_terminated_worker_leaves_its_calls_to_the_next_one() {
    let base = Base::new("lifecycle", "handed_over");
    base.sandbox.fault(json!({"service": "hibp", "kind": "hang", "count": 8}));
    request(&base, 20);
    wait_in_flight(&base, "hibp", 8);
    let worker = base.worker();
    let began = Instant::now();
    run(&mut base.client(), &format!("SELECT pg_terminate_backend({worker})"));
    base.wait_for(ANSWERED, 20i64);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!((base.asked("hibp"), most_asked(&base.sandbox, "hibp")), (28, 2));
    assert_eq!(base.one::<i64>(QUEUED), 0);
}

#[test]
fn the_kill_switch_stops_calls_by_reload() {
    let base = own("switched");
    base.sandbox.set_latency("hibp", 300);
    request(&base, 30);
    wait_in_flight(&base, "hibp", 8);
    base.cluster.set("enrichment_cache.enabled", "off");
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE state = 'in_flight'", 0i64);
    let_the_worker_look(&base);
    let asked = base.asked("hibp");
    assert!(asked < 30, "{asked}");
    assert_eq!(base.one::<i64>(ANSWERED), asked, "what was under way is kept");
    base.run("SELECT enrich_request('dshield', '8.8.8.8')");
    let_the_worker_look(&base);
    assert_eq!((base.asked("hibp"), base.asked("dshield")), (asked, 0));
    assert!(base.one::<bool>("SELECT enrich_fetch('dshield', '8.8.8.8', '300 ms') IS NULL"));

    base.cluster.set("enrichment_cache.enabled", "on");
    base.wait_for(QUEUED, 0i64);
    assert_eq!((base.asked("hibp"), base.asked("dshield")), (30, 1));
}

#[test]
fn pg_stat_activity_shows_who_is_who() {
    let base = Base::new("lifecycle", "shown");
    let_the_worker_look(&base);
    let sql = "SELECT string_agg(concat_ws('|', backend_type, datname, wait_event_type), ' ' ORDER BY backend_type)
        FROM pg_stat_activity WHERE pid IN (SELECT pid FROM enrichment_worker WHERE database = current_database())
        OR backend_type = 'enrichment_cache launcher'";
    let shown = "enrichment_cache launcher|Extension enrichment_cache worker|shown|Extension";
    base.wait_for(sql, shown.to_string());
}

/// Transactions of a database, asked for in another one.
const TRANSACTIONS: &str = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = 'rested'";

#[test]
fn an_idle_worker_runs_no_statements() {
    let base = own("rested");
    for (name, value) in [("enrichment_cache.stats_interval", "1 d"), ("enrichment_cache.cleanup_interval", "0")] {
        base.cluster.set(name, value);
    }
    // answers, a failure that waits for its next attempt, a lane that is paused
    base.sandbox.fault(json!({"service": "dshield", "kind": "429_plain"}));
    base.sandbox.fault(json!({"service": "spur", "kind": "status", "status": 500}));
    base.run("SELECT enrich_request('dshield', '8.8.0.1'), enrich_request('spur', '8.8.0.1')");
    request(&base, 10);
    base.wait_for("SELECT count(*) FROM enrichment_cache", 12i64);
    let_the_worker_look(&base);

    let mut client = base.cluster.client("postgres");
    let alone =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'rested' AND backend_type <> 'enrichment_cache worker'";
    wait_until("our own sessions to leave", SOON, || same(ask::<i64>(&mut client, alone)?, &0));
    let settled = "SELECT state_change < clock_timestamp() - interval '1 s' FROM pg_stat_activity
        WHERE datname = 'rested' AND state = 'idle'";
    wait_until("a second of rest", SOON, || same(ask::<bool>(&mut client, settled)?, &true));
    let before: i64 = one(&mut client, TRANSACTIONS);
    let since: SystemTime = one(&mut client, "SELECT state_change FROM pg_stat_activity WHERE datname = 'rested'");
    let rests = "SELECT clock_timestamp() > backend_rest + interval '7 s' FROM
        (SELECT max(state_change) AS backend_rest FROM pg_stat_activity WHERE datname = 'rested') a";
    wait_until("seven seconds of rest", SOON, || same(ask::<bool>(&mut client, rests)?, &true));
    assert_eq!(one::<i64>(&mut client, TRANSACTIONS), before);
    let still: SystemTime = one(&mut client, "SELECT state_change FROM pg_stat_activity WHERE datname = 'rested'");
    assert_eq!(still, since, "it has not even woken");
}

/// Of three failures of one kind one is logged, the number of the others a minute later.
#[test]
fn a_log_line_that_is_due_wakes_nobody() {
    let base = own("hushed");
    for (name, value) in [("enrichment_cache.stats_interval", "1 d"), ("enrichment_cache.cleanup_interval", "0")] {
        base.cluster.set(name, value);
    }
    base.sandbox.fault(json!({"service": "hibp", "kind": "status", "status": 500}));
    request(&base, 3);
    base.wait_for("SELECT count(*) FROM enrichment_queue WHERE attempts = 1", 3i64);
    // nothing is left to be tried again
    base.run("DELETE FROM enrichment_queue; SELECT enrich_wake()");
    let_the_worker_look(&base);
    let mut client = base.cluster.client("postgres");
    let left =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'hushed' AND backend_type <> 'enrichment_cache worker'";
    wait_until("our own sessions to leave", SOON, || same(ask::<i64>(&mut client, left)?, &0));
    let transactions = TRANSACTIONS.replace("rested", "hushed");
    let before: i64 = one(&mut client, &transactions);
    assert!(!base.cluster.log().contains("more of these"), "it is not due yet");
    wait_until("the line that is due after a minute", Duration::from_secs(90), || {
        match base.cluster.log().contains("(2 more of these since the last such line)") {
            true => Ok(Some(())),
            false => Err("no such line".to_string()),
        }
    });
    assert_eq!(one::<i64>(&mut client, &transactions), before);
}

#[test]
fn private_addresses_are_refused_unless_they_are_allowed() {
    let base = own("guarded");
    let here = base.sandbox.base_url().trim_start_matches("http://").to_string();
    base.cluster.set("enrichment_cache.allow_private_hosts", "off");
    let cases = [
        (format!("http://{here}/hibp/range/{{key}}"), "plain http is not allowed"),
        (
            format!("https://{here}/hibp/range/{{key}}"),
            "127.0.0.1 is a loopback address and private hosts are not allowed",
        ),
        ("https://10.0.0.1/range/{key}".to_string(), "10.0.0.1 is a private address"),
        ("https://169.254.169.254/latest/{key}".to_string(), "169.254.169.254 is a link-local address"),
        ("https://localhost/range/{key}".to_string(), "private hosts are not allowed"),
    ];
    for (n, (url, why)) in cases.into_iter().enumerate() {
        base.run(&format!(
            "UPDATE enrichment_service SET url = '{url}' WHERE name = 'hibp'; SELECT enrich_request('hibp', '0000{n}')"
        ));
        let sql = format!("SELECT coalesce(max(error_message), '') FROM enrichment_cache WHERE cache_key = '0000{n}'");
        let mut client = base.client();
        wait_until(&format!("the refusal of {url}"), SOON, || {
            let message: String = ask(&mut client, &sql)?;
            if message.contains(why) {
                Ok(Some(()))
            } else {
                Err(message)
            }
        });
    }
    let asked_again = "SELECT count(*) FROM enrichment_queue WHERE state <> 'dead'";
    assert_eq!(base.one::<i64>(asked_again), 0, "to try again would be of no use");
    assert_eq!(base.asked("hibp"), 0);

    base.cluster.set("enrichment_cache.allow_private_hosts", "on");
    base.run(&format!(
        "UPDATE enrichment_service SET url = 'http://{here}/hibp/range/{{key}}' WHERE name = 'hibp';
         SELECT enrich_retry('hibp', '00000')"
    ));
    // five refusals in a row have opened the breaker; the retry lets the next call try at once
    base.wait_for(ANSWERED, 1i64);
}

#[test]
fn settings_of_a_database_do_not_reach_its_worker() {
    let base = Base::new("lifecycle", "set");
    run(
        &mut base.cluster.client("postgres"),
        "ALTER DATABASE set SET default_transaction_read_only = on; ALTER DATABASE set SET search_path = 'nowhere';
         ALTER DATABASE set SET default_transaction_isolation = 'serializable'; ALTER DATABASE set SET \"DateStyle\" = 'SQL, DMY'",
    );
    let worker = base.worker();
    run(&mut base.cluster.client("postgres"), &format!("SELECT pg_terminate_backend({worker})"));
    wait_until("another worker", SOON, || same(base.worker() != worker, &true));
    let mut client = base.client();
    run(&mut client, "SET default_transaction_read_only = off");
    run(&mut client, "SELECT public.enrich_request('hibp', '00000')");
    base.wait_for("SELECT count(*) FROM public.enrichment_cache WHERE payload IS NOT NULL", 1i64);
}
