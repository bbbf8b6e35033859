//! A worker or a whole server killed in the middle of a refresh: nothing is lost, and little is asked twice.

use crate::sources_support::{make_sessions, wait_filled, ATTACH_SESSIONS};
use crate::support::{address, own_cluster, wait_served, Base, SOON};
use std::sync::Arc;
use testbed::wait_until;

const KEYS: u32 = 300;
const SERVICES: [&str; 3] = ["dshield", "urlhaus", "spur"];

/// Begins a refresh, has the server harmed in its middle, and looks at the end of another refresh.
fn survives(name: &'static str, harm: impl FnOnce(&Base)) {
    let base = Base::in_cluster(&Arc::new(own_cluster(name)), name, &["--limits", "none", "--latency-ms", "6"]);
    make_sessions(&base, "jsonb", &(1..=KEYS).map(address).collect::<Vec<_>>());
    base.run("UPDATE enrichment_service SET max_in_flight = 8");
    base.run(ATTACH_SESSIONS);
    std::thread::scope(|threads| {
        let refreshing = threads.spawn(|| base.client().batch_execute("CALL enrich_refresh()"));
        wait_until("the middle of the refresh", SOON, || Ok((base.asked("dshield") >= 80).then_some(())));
        harm(&base);
        refreshing.join().expect("a session").expect_err("a refresh whose server was harmed");
    });
    let asked_before: i64 = SERVICES.iter().map(|service| base.asked(service)).sum();
    assert!(asked_before < i64::from(KEYS) * 3, "the refresh was over before the harm");
    wait_served(&base.cluster, name);
    base.run("CALL enrich_refresh()");
    wait_filled(&base, "{dshield,urlhaus,spur}");
    let stats = base.sandbox.stats();
    for service in SERVICES {
        let by_key = stats[service]["by_key"].as_object().expect("keys");
        assert_eq!(by_key.len(), KEYS as usize, "{service}");
        let often: Vec<_> = by_key.iter().filter(|(_, times)| times.as_i64() > Some(2)).collect();
        assert!(often.is_empty(), "{service} was asked more than twice: {often:?}");
    }
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_queue"), 0);
    assert_eq!(
        base.one::<i64>("SELECT count(*) FROM enrichment_cache WHERE version > 1"),
        0,
        "an answer was stored twice"
    );
    assert_eq!(base.one::<i64>("SELECT count(*) FROM enrichment_cache"), i64::from(KEYS) * 3);
}

#[test]
fn a_worker_killed_in_the_middle_of_a_refresh_loses_nothing() {
    survives("kill_worker", |base| base.cluster.kill_9(base.worker()));
}

#[test]
fn a_server_killed_in_the_middle_of_a_refresh_loses_nothing() {
    survives("kill_server", |base| {
        base.cluster.kill_postmaster_9();
        base.cluster.start_again().unwrap_or_else(|why| panic!("{why}"));
    });
}
