//! Where much is to be written, further processes write beside the worker.

use crate::sources_support::wait_quiet;
use crate::support::{ask, own_cluster, run, same, Base, SOON};
use std::sync::Arc;
use testbed::wait_until;

const WRITERS: &str = "SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'enrichment_cache writer'";
const KEYS: usize = 600;
const ROWS: i64 = 2 * KEYS as i64;
const ATTACH: &str = "SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', commit_interval => 20)";
const FILLED: &str = "SELECT count(*) FROM visits WHERE answers ? 'dshield'";

/// A table whose answers are all there, and which takes two milliseconds for each row that is written.
fn slow_table(base: &Base) {
    let keys = base.known("dshield", KEYS).join("', '");
    base.run(&format!(
        "CREATE TABLE visits (id int, ip text, answers jsonb);
         INSERT INTO visits SELECT n, k.ip FROM unnest(ARRAY['{keys}']) k (ip), generate_series(1, 2) n;
         CREATE INDEX ON visits (ip);
         CREATE TABLE writes (pid int, ip text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN PERFORM pg_sleep(0.002); INSERT INTO public.writes VALUES (pg_backend_pid(), NEW.ip); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION note()"
    ));
}

#[test]
fn two_processes_write_what_is_much_each_its_keys_and_one_where_that_is_set() {
    let base = Base::in_cluster(&Arc::new(own_cluster("writers")), "writers", &["--limits", "none"]);
    slow_table(&base);
    for (processes, workers) in [(2i64, "2"), (1, "1"), (3, "3")] {
        base.cluster.set("enrichment_cache.write_back_workers", workers);
        base.wait_for("SELECT current_setting('enrichment_cache.write_back_workers')", workers.to_string());
        base.run(ATTACH);
        base.wait_for(FILLED, ROWS);
        wait_quiet(&base);
        base.wait_for(WRITERS, 0i64);
        assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), ROWS, "a row was written twice");
        assert_eq!(base.one::<i64>("SELECT count(DISTINCT pid) FROM writes"), processes, "processes");
        let shared = "SELECT count(*) FROM (SELECT FROM writes GROUP BY ip HAVING count(DISTINCT pid) > 1) k";
        assert_eq!(base.one::<i64>(shared), 0, "keys that two processes wrote");
        base.run("SELECT enrich_detach('visits'); UPDATE visits SET answers = NULL; TRUNCATE writes");
    }
}

#[test]
fn what_a_helper_leaves_the_worker_writes() {
    let base = Base::new("sources", "left_by_a_writer");
    slow_table(&base);
    base.run(ATTACH);
    base.wait_for(WRITERS, 1i64);
    base.run(&WRITERS.replace("count(*)", "pg_terminate_backend(pid)"));
    base.wait_for(FILLED, ROWS);
    wait_quiet(&base);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), ROWS, "a row was written twice");
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrich_health() WHERE check_name ~ 'source'"), 0);
}

#[test]
fn a_helper_that_is_killed_loses_nothing() {
    let base = Base::in_cluster(&Arc::new(own_cluster("writer_killed")), "writer_killed", &["--limits", "none"]);
    slow_table(&base);
    base.run(ATTACH);
    base.wait_for(WRITERS, 1i64);
    base.cluster.kill_9(base.one(&WRITERS.replace("count(*)", "pid")));
    // the server ends all sessions and recovers
    wait_until("all rows", SOON, || {
        let mut client = base.cluster.try_client(&base.name).map_err(|why| why.to_string())?;
        same(ask::<i64>(&mut client, FILLED)?, &ROWS)
    });
    wait_quiet(&base);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), ROWS, "a row was written twice");
}

#[test]
fn helpers_are_gone_with_the_attachment_the_extension_and_the_database() {
    let base = Base::new("sources", "writers_leave");
    slow_table(&base);
    base.run(ATTACH);
    base.wait_for(WRITERS, 1i64);
    base.run("SELECT enrich_detach('visits')");
    base.wait_for(WRITERS, 0i64);
    assert!(base.one::<i64>(FILLED) < ROWS, "all was written before");

    // the next helpers come five seconds after the last ones at the earliest; for the worker alone this is more
    let empty = "ALTER TABLE visits DISABLE TRIGGER note; UPDATE visits SET answers = NULL; ALTER TABLE visits ENABLE TRIGGER note";
    base.run("CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$");
    base.run(empty);
    base.run(ATTACH);
    base.wait_for(WRITERS, 1i64);
    base.run("DROP EXTENSION enrichment_cache CASCADE");
    base.wait_for(WRITERS, 0i64);

    base.run("CREATE EXTENSION enrichment_cache");
    base.run(empty);
    base.run(
        "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
        SELECT DISTINCT 'dshield', ip, '{\"a\": 1}'::jsonb, now() + interval '1 day' FROM visits",
    );
    base.run(ATTACH);
    base.wait_for(WRITERS, 1i64);
    let mut elsewhere = base.cluster.client("postgres");
    run(&mut elsewhere, "DROP DATABASE writers_leave");
}

/// A helper has read what is known of a key, and a trigger of the table keeps it; the worker stores a newer answer meanwhile.
#[test]
fn an_answer_that_comes_while_a_helper_writes_its_key_is_written_too() {
    let base = Base::new("sources", "late_answer");
    slow_table(&base);
    base.run(
        "CREATE TABLE gate ();
         CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF (SELECT backend_type FROM pg_stat_activity WHERE pid = pg_backend_pid()) = 'enrichment_cache writer' THEN
                 PERFORM set_config('lock_timeout', '60s', true);
                 PERFORM pg_advisory_xact_lock(42, hashtext(NEW.ip));
                 LOCK TABLE public.gate IN ACCESS SHARE MODE;
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER wait BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION wait()",
    );
    let mut holder = base.client();
    run(&mut holder, "BEGIN; LOCK TABLE gate IN ACCESS EXCLUSIVE MODE");
    base.run(ATTACH);
    const KEPT: &str = "SELECT DISTINCT v.ip FROM pg_locks l JOIN visits v ON l.objid = (hashtext(v.ip)::int8 & 4294967295)::oid
        WHERE l.locktype = 'advisory' AND l.classid = 42 AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    base.wait_for(&format!("SELECT count(*) FROM ({KEPT}) k"), 1i64);
    let key: String = base.one(KEPT);
    base.run(&format!("SELECT enrich_invalidate('dshield', '{key}'); SELECT enrich_request('dshield', '{key}')"));
    // it cannot tell of the answer before the helper is done with the key
    base.wait_for(
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'enrichment_cache worker'
            AND datname = current_database() AND wait_event_type = 'Lock'",
        1i64,
    );
    assert_eq!(base.asked_for("dshield", &key), 2);
    run(&mut holder, "COMMIT");
    base.wait_for(FILLED, ROWS);
    wait_quiet(&base);
    let same = "SELECT bool_and(v.answers #>> '{_meta,dshield,fetched_at}'
            = to_char(c.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'))
        FROM visits v JOIN enrichment_cache c ON c.cache_key = v.ip AND c.service = 'dshield'";
    assert!(base.one::<bool>(same), "a row has an earlier answer");
}

/// Two sources go through the rows of one table in orders of their own.
#[test]
fn two_sources_on_one_table_fill_it_and_wait_for_each_other_in_no_circle() {
    let base = Base::new("sources", "crossing");
    base.run(
        r#"CREATE TABLE visits (id int PRIMARY KEY, client text, server text, of_client jsonb, of_server jsonb);
        INSERT INTO visits SELECT i, '9.7.' || i % 50 || '.1', '9.8.' || i * 7 % 40 || '.1' FROM generate_series(1, 6000) i;
        CREATE INDEX ON visits (client); CREATE INDEX ON visits (server);
        UPDATE enrichment_service SET enabled = false;
        SELECT enrich_store('dshield', '9.' || a || '.' || b || '.1', '{"ip": {"count": 1}}') FROM generate_series(7, 8) a, generate_series(0, 49) b;
        SELECT enrich_attach('visits', 'client', '{dshield}', 'of_client', source_name => 'clients'),
            enrich_attach('visits', 'server', '{dshield}', 'of_server', source_name => 'servers')"#,
    );
    base.wait_for("SELECT count(*) FROM visits WHERE of_client ? 'dshield' AND of_server ? 'dshield'", 6000i64);
    wait_quiet(&base);
    assert_eq!(base.one::<i64>("SELECT count(last_error) FROM enrichment_source"), 0);
    assert_eq!(base.one::<i64>("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"), 0);
}
