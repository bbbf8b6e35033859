//! The order of the queue: priority and waiting add up, and no key blocks the head.

use super::{addresses, base, set_rules};
use crate::support::{address, same, Base, SOON};
use serde_json::json;
use testbed::wait_until;

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

/// Of one claim those of the highest rank are called first, wherever they lie in the table; only every fifth goes by age.
#[test]
fn what_is_claimed_together_is_called_in_the_order_of_rank() {
    let base = base("order_of_claims");
    base.run("UPDATE enrichment_service SET enabled = false, max_in_flight = 1 WHERE name = 'dshield'");
    base.run(
        "INSERT INTO enrichment_queue (service, cache_key, priority)
         SELECT 'dshield', host('8.8.0.0'::inet + n), n FROM generate_series(1, 1000) n",
    );
    base.run("UPDATE enrichment_service SET enabled = true WHERE name = 'dshield'");
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    let called: Vec<u32> = base
        .sandbox
        .calls("dshield")
        .iter()
        .map(|(_, key)| u32::from(key.parse::<std::net::Ipv4Addr>().expect("an address")))
        .collect();
    assert_eq!(called.len(), 1000);
    let upwards = called.windows(2).filter(|pair| pair[0] < pair[1]).count();
    assert!(upwards < 400, "{upwards} of 1,000 calls follow one for a request of lower rank");
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

/// What the queue's status says of a service: when the next call is, and how many are due.
const NEXT: &str = "SELECT next_attempt_at, due FROM enrichment_queue_status WHERE service = 'dshield'";

#[test]
fn the_status_of_a_queue_that_is_held_up_says_until_when_and_calls_nothing_due() {
    let base = base("held_up");
    let held = |until: &str| format!("SELECT n.due || ' ' || (n.next_attempt_at = ({until})) FROM ({NEXT}) n");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 2, "per": "day"}]', max_in_flight = 1 WHERE name = 'dshield'"#,
    );
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 5)));
    // a limit
    let midnight = "date_trunc('day', now() AT TIME ZONE 'UTC' + interval '1 day') AT TIME ZONE 'UTC'";
    base.wait_for(&held(midnight), "0 true".to_string());
    // a pause that lasts longer, and one that is over sooner
    base.run(
        "INSERT INTO enrichment_lane (service, paused_until, cause) VALUES ('dshield', '2100-01-01', 'rate_limited')",
    );
    assert_eq!(base.one::<String>(&held("timestamptz '2100-01-01'")), "0 true");
    base.run("UPDATE enrichment_lane SET paused_until = now() + interval '1 second'");
    assert_eq!(base.one::<String>(&held(midnight)), "0 true");
    // a breaker
    base.run("UPDATE enrichment_lane SET breaker = 'open', breaker_until = '2099-01-01'");
    assert_eq!(base.one::<String>(&held("timestamptz '2099-01-01'")), "0 true");
    // a request that is due later still
    base.run("UPDATE enrichment_queue SET next_attempt_at = '2101-01-01'");
    assert_eq!(base.one::<String>(&held("timestamptz '2101-01-01'")), "0 true");
    // and where nothing holds it up, what is due is due
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'hibp'; SELECT enrich_wake()");
    base.run("INSERT INTO enrichment_queue (service, cache_key) VALUES ('hibp', '00001')");
    let free = "SELECT due || ' ' || (next_attempt_at <= now()) FROM enrichment_queue_status WHERE service = 'hibp'";
    assert_eq!(base.one::<String>(free), "1 true");
}

/// Hash ranges as an array of SQL.
fn ranges(numbers: std::ops::Range<u32>) -> String {
    let keys: Vec<String> = numbers.map(|n| format!("{n:05X}")).collect();
    format!("'{{{}}}'", keys.join(","))
}

/// The number of the call that asked for a key, from 0.
fn call(base: &Base, key: &str) -> Option<usize> {
    base.sandbox.calls("hibp").iter().position(|(_, asked)| asked == key)
}

#[test]
fn a_request_without_priority_is_answered_however_many_urgent_ones_come_without_end() {
    const BEFORE: u32 = 10;
    let base = base("starved");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 5, "per": "second"}]', max_in_flight = 4 WHERE name = 'hibp'"#,
    );
    let urgent = |numbers| format!("SELECT enrich_request_many('hibp', {}, 2147483647)", ranges(numbers));
    base.run(&urgent(0..BEFORE));
    base.run("SELECT enrich_request('hibp', 'FFFFF', 0)");
    let (mut client, mut next) = (base.client(), BEFORE);
    wait_until("the request without priority to be called for", SOON, || {
        // there are always more than are called for
        if u64::from(next) < base.asked("hibp") as u64 + 60 {
            client.batch_execute(&urgent(next..next + 60)).map_err(|why| why.to_string())?;
            next += 60;
        }
        same(call(&base, "FFFFF").is_some(), &true)
    });
    let (called, bound) = (call(&base, "FFFFF"), BEFORE as usize + 5 + 4);
    assert!(called <= Some(bound), "{called:?} calls before it, {BEFORE} of which were requested earlier");
}

#[test]
fn what_a_session_waits_for_goes_before_any_backlog() {
    let base = base("waited_for");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 5, "per": "second"}]', max_in_flight = 2 WHERE name = 'hibp'"#,
    );
    base.run(&format!("SELECT enrich_request_many('hibp', {}, 2147483647)", ranges(0..300)));
    base.wait_for("SELECT count(*) > 2 FROM enrichment_cache", true);
    let before = base.asked("hibp") as usize;
    assert!(base.one::<bool>("SELECT enrich_fetch('hibp', 'ABCDE', '1 minute') IS NOT NULL"));
    let called = call(&base, "ABCDE");
    assert!(called <= Some(before + 20), "{called:?} calls before it, {before} of them before it was wanted");
}

#[test]
fn the_calls_under_way_are_shown_while_they_are() {
    let base = base("under_way");
    base.sandbox.fault(json!({"service": "dshield", "kind": "hang"}));
    base.run(&format!("SELECT enrich_request_many('dshield', {})", addresses(1, 3)));
    let shown = format!(
        "SELECT in_flight || ' ' || state || ' ' || (pid = {}) FROM enrichment_worker WHERE database = '{}'",
        base.worker(),
        base.name
    );
    base.wait_for(&shown, "3 serving true".to_string());
    base.run("UPDATE enrichment_service SET enabled = false WHERE name = 'dshield'");
    base.run(&format!("SELECT pg_terminate_backend({})", base.worker()));
    let shown = format!("SELECT in_flight || ' ' || state FROM enrichment_worker WHERE database = '{}'", base.name);
    base.wait_for(&shown, "0 serving".to_string());
}
