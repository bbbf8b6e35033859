//! A standby that takes over goes on where the primary's ledger ends; before that it asks nobody.

use crate::support::{self, address, one, run, said, wait_served, Base, SOON};
use std::sync::Arc;
use std::time::Duration;
use testbed::{wait_until, Cluster};

const ANSWERED: &str =
    "SELECT count(*) FROM enrichment_cache WHERE service = 'spur' AND response_status IN ('success', 'not_found')";

fn builder(name: &str) -> testbed::ClusterBuilder {
    Cluster::builder(name).preload(true).setting("autovacuum", "off").setting("max_worker_processes", "20")
}

#[test]
fn a_promoted_standby_spends_only_what_the_primary_left_of_the_day() {
    let primary = Arc::new(builder("failing").start().unwrap_or_else(|why| panic!("{why}")));
    let base = Base::in_cluster(&primary, "failover", &["--limits", "none"]);
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 7, "per": "day"}]' WHERE name = 'spur'"#);
    let keys: Vec<String> = (1..=12).map(address).collect();
    let some = &keys[..4];
    base.run(&format!("SELECT enrich_request_many('spur', '{{{}}}')", some.join(",")));
    base.wait_for(ANSWERED, 4i64);

    let standby = builder("taking_over").standby_of(&primary).start().unwrap_or_else(|why| panic!("{why}"));
    base.run(&format!("SELECT enrich_request_many('spur', '{{{}}}')", keys.join(",")));
    base.wait_for(ANSWERED, 7i64);
    support::let_the_worker_look(&base);
    standby.wait_replayed(&primary);

    // while it follows, it serves what is cached and asks nobody
    let mut client = standby.client("failover");
    let cached = format!("SELECT enrich_fetch('spur', '{}') IS NOT NULL", base.known("spur", 1)[0]);
    assert!(one::<bool>(&mut client, &cached) || !keys.contains(&base.known("spur", 1)[0]));
    let began = std::time::Instant::now();
    let refused = format!("SELECT enrich_fetch('spur', '{}', '60 s')", address(77));
    let message = support::refused(&mut client, &refused, "55000", "primary");
    assert!(message.contains("recovery"), "{message}");
    assert!(began.elapsed() < Duration::from_secs(10));

    primary.kill_postmaster_9();
    standby.promote();
    wait_served(&standby, "failover");
    // another lane's answer shows that calls are being started
    let key = address(99);
    run(&mut client, &format!("SELECT enrich_request('dshield', '{key}')"));
    wait_until("an answer on the new primary", SOON, || {
        let sql = format!("SELECT count(*) FROM enrichment_cache WHERE service = 'dshield' AND cache_key = '{key}'");
        let row = client.query_one(&sql, &[]).map_err(|why| said(&why))?;
        support::same(row.get::<_, i64>(0), &1)
    });
    assert_eq!(base.asked("spur"), 7, "the day's allowance, and no call more");
    assert_eq!(one::<i64>(&mut client, ANSWERED), 7);
    let held = "SELECT count(*) FROM enrichment_queue WHERE service = 'spur' AND state = 'waiting' AND attempts = 0";
    assert_eq!(one::<i64>(&mut client, held), 5, "the others wait");
    // a day with more calls has more left
    run(&mut client, r#"UPDATE enrichment_service SET limits = '[{"max": 9, "per": "day"}]' WHERE name = 'spur'"#);
    wait_until("two more answers", SOON, || {
        let row = client.query_one(ANSWERED, &[]).map_err(|why| said(&why))?;
        support::same(row.get::<_, i64>(0), &9)
    });
    assert_eq!(base.asked("spur"), 9);
}
