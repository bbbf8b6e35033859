//! What is read stays fresh: asked for again ahead of its end, or soon after it, within a share of the day's calls;
//! what nobody reads is left to expire.

use super::set_rules;
use crate::support::{address, own_cluster, run, Base};
use std::sync::Arc;

/// A worker that looks each second at what was read.
fn base(name: &str) -> Base {
    let base = Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none"]);
    base.run("ALTER SYSTEM SET enrichment_cache.stats_interval = '1s'");
    base.run("SELECT pg_reload_conf()");
    base.wait_for("SELECT current_setting('enrichment_cache.stats_interval')", "1s".to_string());
    base
}

/// An answer in this part of its life of a hundred hours; above 1 it has expired.
fn store(base: &Base, service: &str, key: &str, part: f64) {
    base.run(&format!(
        "SELECT enrich_store('{service}', '{key}', '{{\"ip\": {{\"stored\": 1}}}}', '100 hours', fetched_at => now() - interval '100 hours' * {part})"
    ));
}

fn look_at_each(base: &Base) {
    let mut client = base.client();
    run(&mut client, "SELECT enrich_get('dshield', key) FROM read_keys");
}

#[test]
fn an_answer_that_is_read_is_asked_for_again_before_it_expires_and_no_other_is() {
    let base = base("ahead");
    let keys = base.known("dshield", 4);
    for (key, part) in keys.iter().zip([0.92, 0.92, 0.5, 0.92]) {
        store(&base, "dshield", key, part);
    }
    // the first is read, the third is read and young, the others are not read
    base.run(&format!("CREATE TABLE read_keys AS SELECT unnest('{{{},{}}}'::text[]) AS key", keys[0], keys[2]));
    look_at_each(&base);
    let renewed =
        "SELECT string_agg(cache_key, ' ') FROM enrichment_cache WHERE fetched_at > now() - interval '1 hour'";
    base.wait_for(renewed, Some(keys[0].clone()));
    // a look later, nothing more was asked: of those that are read none is near its end
    look_at_each(&base);
    base.wait_for("SELECT min(hit_count) FROM enrichment_cache JOIN read_keys ON cache_key = key", 2i64);
    assert_eq!(base.asked("dshield"), 1);
    assert_eq!(base.one::<i64>("SELECT refreshed_ahead FROM enrichment_cache_stats WHERE service = 'dshield'"), 1);
    assert_eq!(base.one::<i64>("SELECT version FROM enrichment_cache ORDER BY fetched_at DESC LIMIT 1"), 2);
}

#[test]
fn an_expired_answer_that_is_served_is_asked_for_again_in_the_background() {
    let base = base("stale");
    let keys = base.known("dshield", 3);
    keys.iter().for_each(|key| store(&base, "dshield", key, 1.2));
    store(&base, "spur", &keys[0], 1.2);
    store(&base, "dshield", "10.1.2.3", 1.2);
    set_rules(&base, "spur", r#"{"refresh_stale": false}"#);
    let mut client = base.client();
    let stale = |service: &str, key: &str| format!("SELECT enrich_get('{service}', '{key}', interval '30 days')");
    let given: bool = crate::support::one(&mut client, &format!("SELECT ({}) IS NOT NULL", stale("dshield", &keys[0])));
    assert!(given, "it is served meanwhile");
    run(&mut client, &stale("spur", &keys[0]));
    run(&mut client, &stale("dshield", "10.1.2.3"));
    base.wait_for(
        &format!("SELECT fetched_at > now() - interval '1 hour' FROM enrichment_cache WHERE service = 'dshield' AND cache_key = '{}'", keys[0]),
        true,
    );
    base.wait_for("SELECT count(*) FROM enrichment_cache WHERE hit_count > 0", 3i64);
    crate::support::let_the_worker_look(&base);
    assert_eq!((base.asked("dshield"), base.asked("spur")), (1, 0));
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 0, "a private address is sent nowhere");
}

#[test]
fn no_more_than_a_share_of_the_day_is_asked_ahead() {
    let base = base("share");
    let keys: Vec<String> = (1..=20).map(address).collect();
    keys.iter().for_each(|key| store(&base, "dshield", key, 0.93));
    base.run(r#"UPDATE enrichment_service SET limits = '[{"max": 20, "per": "day"}]' WHERE name = 'dshield'"#);
    base.run("CREATE TABLE read_keys AS SELECT cache_key AS key FROM enrichment_cache");
    look_at_each(&base);
    // a quarter of twenty
    base.wait_for("SELECT refreshed_ahead FROM enrichment_cache_stats WHERE service = 'dshield'", 5i64);
    base.wait_for("SELECT count(*) FROM enrichment_queue", 0i64);
    look_at_each(&base);
    base.wait_for("SELECT min(hit_count) FROM enrichment_cache JOIN read_keys ON cache_key = key", 2i64);
    crate::support::let_the_worker_look(&base);
    assert_eq!(base.asked("dshield"), 5);
    set_rules(&base, "dshield", r#"{"refresh_ahead_share": 0.4}"#);
    look_at_each(&base);
    base.wait_for("SELECT refreshed_ahead FROM enrichment_cache_stats WHERE service = 'dshield'", 8i64);
}
