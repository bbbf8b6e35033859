//! In which order the keys of tables are asked about where a limit binds.

use crate::sources_support::{sweeping_cluster, wait_quiet};
use crate::support::{ask, run, Base, SOON};
use serde_json::json;
use testbed::wait_until;

#[test]
fn keys_that_fail_are_not_tried_again_before_all_others_were_tried_however_many_rows_they_have() {
    let base = Base::new("sources", "behind");
    let keys = base.known("dshield", 11);
    let (failing, good) = keys.split_at(3);
    base.run(
        r#"UPDATE enrichment_service SET enabled = false, max_in_flight = 1,
            limits = '[{"max": 4, "per": "second"}]', rules = rules || '{"breaker": {"failures": 0}}'"#,
    );
    base.run("CREATE TABLE visits (ip text, answers jsonb)");
    for key in failing {
        base.sandbox.fault(json!({"service": "dshield", "key": key, "kind": "not_json"}));
        base.run(&format!("INSERT INTO visits SELECT '{key}' FROM generate_series(1, 200)"));
    }
    for key in good {
        base.run(&format!("INSERT INTO visits VALUES ('{key}')"));
    }
    base.run("SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers')");
    wait_quiet(&base);
    base.run("UPDATE enrichment_service SET enabled = true; INSERT INTO visits SELECT ip FROM visits");
    let mut client = base.client();
    let answered = "SELECT count(*) FROM enrichment_cache WHERE payload IS NOT NULL";
    wait_until("all good keys", SOON, || {
        // what failed is due again at once, and more rows of it come
        run(
            &mut client,
            "UPDATE enrichment_queue SET next_attempt_at = now() WHERE state = 'waiting' AND attempts > 0",
        );
        run(&mut client, &format!("INSERT INTO visits VALUES ('{}')", failing[0]));
        ask::<i64>(&mut client, answered).map(|n| (n == good.len() as i64).then_some(()))
    });
    let asked: Vec<String> = base.sandbox.calls("dshield").into_iter().map(|(_, key)| key).collect();
    assert!(asked[..3].iter().all(|key| failing.contains(key)), "those of most rows come first: {asked:?}");
    let mut seen = std::collections::BTreeSet::new();
    let first: Vec<&String> = asked.iter().take_while(|key| seen.insert(key.to_string())).collect();
    assert_eq!(first.len(), keys.len(), "one was asked a second time before others were asked at all: {asked:?}");
}

#[test]
fn a_key_that_waits_rises_with_rows_that_only_the_sweep_finds_and_falls_behind_after_a_failure() {
    let base = Base::in_cluster(&sweeping_cluster(), "risen", &["--limits", "none"]);
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 1, "per": "day"}]';
        CREATE TABLE visits (ip text, seen timestamptz, answers jsonb);
        INSERT INTO visits SELECT '9.9.7.1', '2026-01-01' FROM generate_series(1, 100);
        INSERT INTO visits VALUES ('9.9.7.2', '2026-01-01'), ('9.9.7.3', '2026-01-01');
        SELECT enrich_attach('visits', 'ip', '{dshield}', 'answers', time_column => 'seen')"#,
    );
    let priority = |key: &str| format!("SELECT priority FROM enrichment_queue WHERE cache_key = '{key}'");
    base.wait_for(&priority("9.9.7.2"), -965);
    base.wait_for(&priority("9.9.7.3"), -965);
    base.run("SET session_replication_role = replica; INSERT INTO visits SELECT '9.9.7.2', '2026-01-01' FROM generate_series(1, 1022)");
    // what a thousand rows are worth; a point of it may be rounded
    base.wait_for(&format!("SELECT ({}) BETWEEN -648 AND -646", priority("9.9.7.2")), true);
    assert_eq!(base.one::<i32>(&priority("9.9.7.3")), -965);
    // a sweep leaves what failed behind
    base.run("UPDATE enrichment_queue SET attempts = 2, priority = priority - 2000 WHERE cache_key = '9.9.7.2'");
    base.run("SET session_replication_role = replica; INSERT INTO visits SELECT '9.9.7.3', '2026-01-01' FROM generate_series(1, 1022)");
    base.wait_for(&format!("SELECT ({}) BETWEEN -648 AND -646", priority("9.9.7.3")), true);
    assert!((-2648..=-2646).contains(&base.one::<i32>(&priority("9.9.7.2"))));
}
