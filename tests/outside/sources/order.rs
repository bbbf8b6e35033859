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

/// A session of which more is known than its address is asked about before one of which there is nothing else.
#[test]
fn sessions_with_commands_downloads_and_flags_are_asked_about_before_plain_ones() {
    let base = Base::new("tables", "preset_worth");
    base.run(
        r#"UPDATE enrichment_service SET limits = '[{"max": 1, "per": "day"}]';
        CREATE TABLE session_summaries (session_id varchar(64) PRIMARY KEY, source_ip varchar(45), first_event_at timestamptz,
            command_count int NOT NULL DEFAULT 0, file_downloads int NOT NULL DEFAULT 0, vt_flagged bool NOT NULL DEFAULT false,
            dshield_flagged bool NOT NULL DEFAULT false, enrichment jsonb);
        INSERT INTO session_summaries (session_id, source_ip, first_event_at, command_count, file_downloads, vt_flagged, dshield_flagged) VALUES
            ('plain', '9.9.8.1', '2026-01-01', 0, 0, false, false), ('commands', '9.9.8.2', '2026-01-01', 45, 0, false, false),
            ('downloads', '9.9.8.3', '2026-01-01', 0, 3, false, false), ('malware', '9.9.8.4', '2026-01-01', 0, 0, true, false),
            ('reported', '9.9.8.5', '2026-01-01', 0, 0, false, true), ('all', '9.9.8.6', '2026-01-01', 45, 3, true, true);
        SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')"#,
    );
    base.wait_for("SELECT count(*) FROM enrichment_queue", 5i64);
    let order = "SELECT string_agg(s.session_id, ' ' ORDER BY q.priority DESC) FROM enrichment_queue q
        JOIN session_summaries s ON s.source_ip = q.cache_key";
    assert_eq!(base.one::<String>(order), "commands downloads malware reported plain");
    assert_eq!(base.sandbox.calls("dshield").into_iter().map(|(_, key)| key).collect::<Vec<_>>(), ["9.9.8.6"]);
}
