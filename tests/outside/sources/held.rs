//! Answers to calls that go out together are written together; what only waits for its turn holds nothing up.

use crate::support::{self, address, ask, own_cluster, same, Base, SOON};
use std::sync::Arc;
use testbed::wait_until;

const KEYS: u32 = 20;
const FILLED: &str = "SELECT count(*) FROM visits WHERE answers ?& '{dshield,spur}'";
const CACHED: &str = "SELECT count(*) FROM enrichment_cache WHERE service = 'dshield'";

/// A table whose writes are counted.
fn attached(base: &Base) {
    let keys: Vec<String> = (1..=KEYS).map(address).collect();
    base.run(&format!(
        "CREATE TABLE visits (ip text PRIMARY KEY, answers jsonb);
         INSERT INTO visits SELECT unnest(ARRAY['{}']);
         CREATE TABLE writes (ip text);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN INSERT INTO public.writes VALUES (NEW.ip); RETURN NEW; END $$;
         CREATE TRIGGER note BEFORE UPDATE ON visits FOR EACH ROW EXECUTE FUNCTION note();
         UPDATE enrichment_service SET max_in_flight = {KEYS} WHERE name IN ('dshield', 'spur')",
        keys.join("', '")
    ));
}

#[test]
fn a_row_waits_for_the_calls_that_are_under_way_for_its_key_and_is_written_once() {
    let base = Base::in_cluster(&Arc::new(own_cluster("held")), "held", &["--limits", "none"]);
    base.cluster.set("enrichment_cache.concurrency", "64");
    base.sandbox.set_latency("spur", 4_000);
    attached(&base);
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield,spur}', 'answers')");
    base.wait_for(CACHED, i64::from(KEYS));
    support::let_the_worker_look(&base);
    let open: i64 = base.one("SELECT count(*) FROM enrichment_queue WHERE service = 'spur' AND state = 'in_flight'");
    let written: i64 = base.one("SELECT count(*) FROM writes");
    assert_eq!((open, written), (i64::from(KEYS), 0), "what is under way at spur, and rows written meanwhile");
    base.wait_for(FILLED, i64::from(KEYS));
    support::let_the_worker_look(&base);
    assert_eq!(base.one::<i64>("SELECT count(*) FROM writes"), i64::from(KEYS), "a row was written twice");
}

#[test]
fn requests_that_wait_for_a_limit_hold_no_row_up() {
    let base = Base::new("sources", "held_by_nothing");
    attached(&base);
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 1, "per": "day"}]' WHERE name = 'spur'"#);
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield,spur}', 'answers')");
    base.wait_for("SELECT count(*) FROM visits WHERE answers ? 'dshield'", i64::from(KEYS));
    let waiting = "SELECT count(*) FROM enrichment_queue WHERE service = 'spur' AND state = 'waiting'";
    assert_eq!(base.one::<i64>(waiting), i64::from(KEYS - 1));
}

#[test]
fn a_server_that_is_killed_with_calls_under_way_leaves_no_row_waiting_for_them() {
    let base = Base::in_cluster(&Arc::new(own_cluster("held_killed")), "held_killed", &["--limits", "none"]);
    base.cluster.set("enrichment_cache.concurrency", "64");
    // longer than the test takes
    base.sandbox.set_latency("spur", 600_000);
    attached(&base);
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield,spur}', 'answers')");
    base.wait_for(CACHED, i64::from(KEYS));
    let open = "SELECT count(*) FROM enrichment_queue WHERE service = 'spur' AND state = 'in_flight'";
    base.wait_for(open, i64::from(KEYS));
    // so that what is given back is not asked for again
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'spur'");
    let worker = base.worker();
    let killed = std::process::Command::new("kill").args(["-9", &worker.to_string()]).status();
    assert!(killed.is_ok_and(|status| status.success()));
    wait_until("the rows to be written after the restart", SOON, || {
        let mut client = base.cluster.try_client(&base.name).map_err(|why| why.to_string())?;
        same(ask::<i64>(&mut client, "SELECT count(*) FROM visits WHERE answers ? 'dshield'")?, &i64::from(KEYS))
    });
    assert_eq!(base.one::<i64>(open), 0);
}
