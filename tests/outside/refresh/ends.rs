//! A refresh ends when nothing more can come by itself, and says what is left and why.

use super::{base, listening};
use crate::sources_support::{make_sessions, wait_filled, wait_quiet, ATTACH_SESSIONS};
use crate::support::{address, one, own_cluster, run, said, wait_served, wait_unserved, Base, SOON};
use serde_json::json;
use std::sync::Arc;
use testbed::{wait_until, Cluster};

const ATTACH: &str = "SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')";

/// Calls it, and returns what it warned of. It has to come to its end by itself.
fn warned(base: &Base) -> String {
    let (mut client, told) = listening(base);
    run(&mut client, "SET statement_timeout = '60s'");
    run(&mut client, "CALL enrich_refresh()");
    drop(client);
    let warnings: Vec<String> = told.iter().filter(|line| line.starts_with("WARNING: enrich_refresh: ")).collect();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    warnings.concat()
}

#[test]
fn a_service_whose_breaker_stays_open_ends_a_refresh_with_a_warning() {
    let base = base("breaker_open");
    make_sessions(&base, "jsonb", &(1..=10).map(address).collect::<Vec<_>>());
    base.run(
        r#"UPDATE enrichment_service SET max_in_flight = 1,
        rules = rules || '{"breaker": {"failures": 2, "open_seconds": 1, "max_open_seconds": 3600}}' WHERE name = 'dshield'"#,
    );
    base.sandbox.fault(json!({"service": "dshield", "kind": "status", "status": 503}));
    base.run(ATTACH_SESSIONS);
    let warning = warned(&base);
    assert!(warning.contains("dshield: 10 to go, paused: "), "{warning}");
    // the others were waited for
    let others = "SELECT count(*) FROM session_summaries WHERE enrichment -> '_meta' ?& '{urlhaus,spur}'";
    assert_eq!(base.one::<i64>(others), 10);
    // nothing is lost
    base.sandbox.clear_faults();
    base.run("UPDATE enrichment_queue SET next_attempt_at = now(); SELECT enrich_retry('dshield')");
    wait_filled(&base, "{dshield,urlhaus,spur}");
}

#[test]
fn calls_that_are_switched_off_end_a_refresh_with_a_warning() {
    let cluster = Cluster::builder("calls_off")
        .preload(true)
        .setting("enrichment_cache.enabled", "off")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let base = Base::in_cluster(&Arc::new(cluster), "calls_off", &["--limits", "none"]);
    let keys: Vec<String> = (1..=3).map(address).collect();
    make_sessions(&base, "jsonb", &keys);
    base.run(&format!("SELECT enrich_store('dshield', '{}', '{{\"a\": 1}}')", keys[0]));
    base.run(ATTACH);
    let warning = warned(&base);
    assert!(warning.contains("calls are switched off (enrichment_cache.enabled); dshield: 2 to go"), "{warning}");
    // what was known is written
    assert_eq!(base.one::<i64>("SELECT count(*) FROM session_summaries WHERE enrichment ? 'dshield'"), 1);
    assert_eq!(base.asked("dshield"), 0);
}

#[test]
fn a_database_without_a_worker_ends_a_refresh_with_a_warning() {
    let base = Base::in_cluster(&Arc::new(own_cluster("unserved")), "unserved", &["--limits", "none"]);
    make_sessions(&base, "jsonb", &(1..=3).map(address).collect::<Vec<_>>());
    base.run("ALTER SYSTEM SET enrichment_cache.databases = 'elsewhere'");
    base.run("SELECT pg_reload_conf()");
    wait_unserved(&base.cluster, "unserved");
    base.run(ATTACH);
    let warning = warned(&base);
    assert!(warning.contains("no worker serves this database: "), "{warning}");
    base.run("ALTER SYSTEM RESET enrichment_cache.databases");
    base.run("SELECT pg_reload_conf()");
    wait_served(&base.cluster, "unserved");
    wait_filled(&base, "{dshield}");
}

#[test]
fn a_table_that_refuses_every_row_ends_a_refresh_with_a_warning() {
    let base = base("refused_rows");
    make_sessions(&base, "jsonb", &(1..=15).map(address).collect::<Vec<_>>());
    base.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT 'dshield', source_ip, '{\"a\": 1}', now() + interval '1 day' FROM session_summaries;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'nobody writes here'; END $$;
        CREATE TRIGGER refuse BEFORE UPDATE ON session_summaries FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    base.run(ATTACH);
    let warning = warned(&base);
    assert!(
        warning.contains("15 keys to be written; session_summaries: ") && warning.contains("nobody writes here"),
        "{warning}"
    );
    base.run("DROP TRIGGER refuse ON session_summaries");
    wait_filled(&base, "{dshield}");
}

/// Begins a refresh, and cancels it when it is in this phase.
fn cancelled_while(base: &Base, phase: &str) {
    let mut client = base.client();
    run(&mut client, "SET application_name = 'asker'");
    let pid: i32 = one(&mut client, "SELECT pg_backend_pid()");
    std::thread::scope(|threads| {
        let calling = threads.spawn(move || client.batch_execute("CALL enrich_refresh()").map_err(|why| said(&why)));
        base.wait_for(
            &format!("SELECT count(*) FROM enrichment_refresh_progress WHERE pid = {pid} AND phase = '{phase}'"),
            1i64,
        );
        assert!(base.one::<bool>(&format!("SELECT pg_cancel_backend({pid})")));
        let ended = calling.join().expect("a session").expect_err("a cancelled statement");
        assert!(ended.contains("57014"), "{ended}");
    });
}

#[test]
fn a_refresh_cancelled_while_it_lists_the_keys_loses_nothing() {
    let base = base("cancelled_asking");
    let keys = base.known("dshield", 30);
    base.run(
        "CREATE TABLE visits (ip text, answers jsonb);
         CREATE FUNCTION slow(ip text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
            IF current_setting('application_name') = 'asker' THEN PERFORM pg_catalog.pg_advisory_xact_lock_shared(7); END IF;
            RETURN ip; END $$",
    );
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run("SELECT enrich_attach('visits', NULL, '{dshield}', 'answers', key_expression => 'public.slow(ip)')");
    base.client().execute("INSERT INTO visits SELECT unnest($1::text[])", &[&keys]).expect("rows");
    wait_quiet(&base);
    base.run("UPDATE enrichment_service SET enabled = true");
    let mut holder = base.client();
    run(&mut holder, "SELECT pg_advisory_lock(7)");
    cancelled_while(&base, "asking");
    run(&mut holder, "SELECT pg_advisory_unlock(7)");
    base.run("CALL enrich_refresh()");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip,number}' = ip"), 30);
    assert!(keys.iter().all(|key| base.asked_for("dshield", key) == 1), "{:?}", base.sandbox.stats());
}

#[test]
fn a_refresh_cancelled_while_rows_are_written_loses_nothing() {
    let base = base("cancelled_writing");
    let keys = base.known("dshield", 30);
    make_sessions(&base, "jsonb", &keys);
    base.run(ATTACH);
    let mut holder = base.client();
    run(&mut holder, "BEGIN; SELECT FROM session_summaries FOR UPDATE");
    cancelled_while(&base, "writing");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM session_summaries WHERE enrichment IS NOT NULL"), 0);
    run(&mut holder, "COMMIT");
    // nobody has to ask again
    wait_filled(&base, "{dshield}");
    wait_quiet(&base);
    assert!(keys.iter().all(|key| base.asked_for("dshield", key) == 1), "{:?}", base.sandbox.stats());
}

#[test]
fn a_refresh_leaves_the_interval_of_a_source_as_it_is() {
    let base = base("kept_interval");
    let addresses: Vec<String> = (1..=60).map(address).collect();
    make_sessions(&base, "jsonb", &addresses);
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run(
        "SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment', commit_interval => 25)",
    );
    wait_quiet(&base);
    base.run(
        "CREATE TABLE writes (transaction xid8, session_id text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO public.writes VALUES (pg_current_xact_id(), NEW.session_id); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE UPDATE ON session_summaries FOR EACH ROW EXECUTE FUNCTION note();
         UPDATE enrichment_service SET enabled = true, max_in_flight = 32",
    );
    let most = "SELECT max(n) FROM (SELECT count(*) AS n FROM writes GROUP BY transaction) t";
    let mut holder = base.client();
    let mut refreshed = |call: &str, interval: i64| {
        // answers are written with their time to the second: one of the same second changes nothing
        base.wait_for(
            "SELECT count(*) FROM enrichment_cache WHERE fetched_at >= date_trunc('second', clock_timestamp())",
            0i64,
        );
        base.run("TRUNCATE writes; SELECT enrich_invalidate('dshield')");
        // all answers are there before the first is written
        run(&mut holder, "BEGIN; LOCK TABLE session_summaries IN EXCLUSIVE MODE");
        std::thread::scope(|threads| {
            threads.spawn(|| base.run(call));
            wait_until("the answers", SOON, || {
                let left =
                    "SELECT count(*) FROM enrichment_queue q FULL JOIN enrichment_cache c USING (service, cache_key)
                    WHERE q.id IS NOT NULL OR c.expires_at < now()";
                Ok((base.one::<i64>(left) == 0 && base.one::<i64>("SELECT count(*) FROM enrichment_cache") == 60)
                    .then_some(()))
            });
            run(&mut holder, "COMMIT");
        });
        assert_eq!(base.one::<i64>("SELECT count(DISTINCT session_id) FROM writes"), 60);
        assert!(base.one::<i64>(most) <= interval, "{call}: {} rows in one transaction", base.one::<i64>(most));
        assert_eq!(base.one::<i32>("SELECT commit_interval FROM enrichment_source"), 25);
        base.one::<i64>(most)
    };
    refreshed("CALL enrich_refresh(commit_interval => 7)", 7);
    assert!(refreshed("CALL enrich_refresh()", 25) > 7, "the interval of the other call is still in force");
}

#[test]
fn a_dry_run_counts_a_key_that_stands_in_two_tables_once() {
    let base = base("dry_run_twice");
    base.run("UPDATE enrichment_service SET enabled = false");
    make_sessions(&base, "jsonb", &(1..=40).map(address).collect::<Vec<_>>());
    base.run("CREATE TABLE visits (ip text, answers jsonb)");
    let others: Vec<String> = (31..=50).map(address).collect();
    base.client().execute("INSERT INTO visits SELECT unnest($1::text[])", &[&others]).expect("rows");
    base.run(ATTACH);
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield,urlhaus}', 'answers')");
    base.run(&format!("SELECT enrich_store('dshield', '{}', '{{}}')", address(35)));
    let (mut client, told) = listening(&base);
    run(&mut client, "CALL enrich_refresh(dry_run => true)");
    drop(client);
    let told: Vec<String> = told.iter().collect();
    let says = |line: &str| assert!(told.iter().any(|told| told == line), "{line}: {told:?}");
    says("NOTICE: enrich_refresh: session_summaries: 39 of 40 keys need a call to dshield");
    says("NOTICE: enrich_refresh: visits: 19 of 20 keys need a call to dshield");
    says("NOTICE: enrich_refresh: visits: 20 of 20 keys need a call to urlhaus");
    // 49 addresses at DShield, 20 at URLhaus
    assert!(told.last().is_some_and(|line| line.starts_with("NOTICE: enrich_refresh: dry run: 69 calls")), "{told:?}");
}
