//! The order of the queue: priority and waiting add up, and no key blocks the head.

use super::{base, set_rules};
use crate::support::address;
use serde_json::json;

#[test]
fn an_hour_of_waiting_is_worth_a_point_of_priority() {
    let base = base("ageing");
    base.run("UPDATE enrichment_service SET enabled = false, max_in_flight = 1 WHERE name = 'dshield'");
    // key, priority, hours it has waited: 31 points, 25, 20, 0.5, -90
    for (n, priority, hours) in [(4, 0, 0.5), (1, 1, 30.0), (5, -100, 10.0), (3, 20, 0.0), (2, 0, 25.0)] {
        base.run(&format!(
            "INSERT INTO enrichment_queue (service, cache_key, priority, next_attempt_at)
             VALUES ('dshield', '{}', {priority}, now() - interval '1 hour' * {hours})",
            address(n)
        ));
    }
    base.run("UPDATE enrichment_service SET enabled = true WHERE name = 'dshield'");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let order: String = base.one("SELECT string_agg(cache_key, ' ' ORDER BY fetched_at, id) FROM enrichment_cache");
    let wanted: Vec<String> = (1..=5).map(address).collect();
    assert_eq!(order, wanted.join(" "));
}

#[test]
fn the_rank_of_a_request_is_read_from_an_index_and_not_computed_for_all() {
    let base = base("rank_index");
    base.run("UPDATE enrichment_service SET enabled = false");
    base.run(
        "INSERT INTO enrichment_queue (service, cache_key, priority)
         SELECT 'hibp', lpad(to_hex(g), 5, '0'), g % 7 FROM generate_series(1, 20000) g; ANALYZE enrichment_queue",
    );
    let mut client = base.client();
    let rows = client
        .query(
            "EXPLAIN SELECT id FROM enrichment_queue WHERE service = 'hibp' AND state = 'waiting' AND next_attempt_at <= now()
             ORDER BY rank DESC, next_attempt_at, id LIMIT 8",
            &[],
        )
        .expect("a plan");
    let plan: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let plan = plan.join("\n");
    assert!(plan.contains("enrichment_queue_due") && !plan.contains("Sort"), "{plan}");
}

#[test]
fn keys_that_fail_go_behind_those_that_were_not_tried() {
    let base = base("head");
    set_rules(&base, "dshield", r#"{"breaker": {"failures": 0}}"#);
    base.run("UPDATE enrichment_service SET enabled = false, max_in_flight = 1 WHERE name = 'dshield'");
    base.sandbox.fault(json!({"service": "dshield", "key": address(1), "kind": "not_json"}));
    base.run(&format!("UPDATE enrichment_service SET enabled = true WHERE name = 'hibp'; INSERT INTO enrichment_queue (service, cache_key, priority)
        VALUES ('dshield', '{}', 50)", address(1)));
    base.run("UPDATE enrichment_service SET enabled = true WHERE name = 'dshield'");
    base.wait_for("SELECT attempts FROM enrichment_queue", 1);
    assert_eq!(base.one::<i32>("SELECT priority FROM enrichment_queue"), 0, "a failed attempt takes it");
    // due again at once, and still behind a request that is new
    base.run(&format!(
        "BEGIN;
         UPDATE enrichment_service SET enabled = false WHERE name = 'dshield';
         UPDATE enrichment_queue SET next_attempt_at = now();
         INSERT INTO enrichment_queue (service, cache_key, priority) VALUES ('dshield', '{}', 1);
         UPDATE enrichment_service SET enabled = true WHERE name = 'dshield';
         COMMIT; SELECT enrich_wake()",
        address(2)
    ));
    base.wait_for("SELECT attempts FROM enrichment_queue", 2);
    let first =
        "SELECT c.fetched_at < q.last_attempt_at FROM enrichment_cache c, enrichment_queue q WHERE c.cache_key = ";
    assert!(base.one::<bool>(&format!("{first}'{}'", address(2))));
}

#[test]
fn what_waits_for_a_limit_says_until_when() {
    let base = base("until_when");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 2, "per": "day"}]', max_in_flight = 1 WHERE name = 'hibp'"#,
    );
    base.run("SELECT enrich_request_many('hibp', '{00001,00002,00003}')");
    base.wait_for("SELECT count(*) FROM enrichment_cache", 2i64);
    let waits = "SELECT l.state || ' ' || (l.next_attempt_at = date_trunc('day', now() AT TIME ZONE 'UTC' + interval '1 day') AT TIME ZONE 'UTC')
        FROM enrichment_queue q, enrich_lookup('hibp', q.cache_key) l";
    base.wait_for(waits, "queued true".to_string());
    assert_eq!(base.one::<i32>("SELECT attempts FROM enrichment_queue"), 0);
}
