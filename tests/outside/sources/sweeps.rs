//! What no trigger of the table can see is found by the sweep, and what is gone is forgotten.

use crate::sources_support::{
    insert_sessions, make_sessions, sweeping_cluster, wait_filled, wait_quiet, ATTACH_SESSIONS,
};
use crate::support::{one, run, Base};

fn base(name: &str) -> Base {
    Base::in_cluster(&sweeping_cluster(), name, &["--limits", "none"])
}

#[test]
fn rows_that_come_with_a_partition_or_go_into_one_directly_are_filled() {
    let base = base("late_partition");
    let keys = base.known("dshield", 3);
    base.run(&format!(
        "CREATE TABLE visits (day date, ip cidr, answers json) PARTITION BY RANGE (day);
         CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
         SELECT enrich_attach('visits', 'ip', '{{dshield}}', 'answers');
         CREATE TABLE visits_2 (LIKE visits);
         INSERT INTO visits_2 VALUES ('2026-02-05', '{}');
         ALTER TABLE visits ATTACH PARTITION visits_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
         INSERT INTO visits_1 VALUES ('2026-01-05', '{}');
         INSERT INTO visits VALUES ('2026-02-06', '{}')",
        keys[0], keys[1], keys[2]
    ));
    base.wait_for("SELECT count(*) FROM visits WHERE answers #>> '{dshield,ip,number}' = host(ip)", 3i64);
}

#[test]
fn rows_of_a_disabled_trigger_are_filled() {
    let base = base("disabled_trigger");
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_SESSIONS);
    wait_quiet(&base);
    base.run("ALTER TABLE session_summaries DISABLE TRIGGER USER");
    insert_sessions(&base, &base.known("dshield", 2));
    wait_filled(&base, "{dshield,urlhaus,spur}");
}

#[test]
fn the_keys_of_rows_that_are_gone_are_forgotten_and_not_asked_any_more() {
    let base = base("gone");
    make_sessions(&base, "jsonb", &["9.9.4.1", "9.9.4.2", "9.9.4.3"].map(str::to_string));
    base.run("UPDATE enrichment_service SET limits = '[{\"max\": 1, \"per\": \"day\"}]'");
    base.run("SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')");
    let waiting = "SELECT count(*) FROM enrichment_queue WHERE service = 'dshield'";
    base.wait_for(waiting, 2i64);
    base.run("DELETE FROM session_summaries WHERE source_ip = '9.9.4.3'");
    base.wait_for(
        "SELECT string_agg(raw_key, ' ' ORDER BY raw_key) FROM enrichment_indicator",
        "9.9.4.1 9.9.4.2".to_string(),
    );
    base.run("TRUNCATE session_summaries");
    base.wait_for("SELECT count(*) FROM enrichment_indicator", 0i64);
    base.wait_for(waiting, 0i64);
}

#[test]
fn truncate_is_noticed_without_waiting_for_the_sweep() {
    let base = Base::new("sources", "truncated");
    make_sessions(&base, "jsonb", &base.known("dshield", 2));
    base.run(ATTACH_SESSIONS);
    wait_filled(&base, "{dshield,urlhaus,spur}");
    base.run("TRUNCATE session_summaries");
    base.wait_for("SELECT count(*) FROM enrichment_indicator", 0i64);
}

#[test]
fn an_answer_that_is_stored_by_hand_is_written_without_waiting_for_the_sweep() {
    let base = Base::new("sources", "by_hand");
    let keys = base.known("dshield", 4);
    make_sessions(&base, "jsonb", &keys);
    base.run("UPDATE enrichment_service SET enabled = name = 'dshield'");
    // this session has stored something before there was a table
    let mut client = base.client();
    run(&mut client, "SELECT enrich_store('hibp', '00000', '{}')");
    base.run(ATTACH_SESSIONS);
    wait_filled(&base, "{dshield}");
    wait_quiet(&base);
    let arrivals = "SELECT count(*) FROM enrichment_arrival";
    // observed long before the row was written with another service's answer
    let store = |way: &str| format!("SELECT {way}; SELECT count(*) FROM enrichment_cache");
    for (n, (service, way)) in [
        ("spur", format!("enrich_store('spur', '{}', '{{\"infrastructure\": \"VPN\"}}', '30 days', fetched_at => now() - interval '3 days')", keys[0])),
        ("urlhaus", format!("enrich_store('urlhaus', '{}', NULL, response_status => 'not_found', fetched_at => now() - interval '1 hour')", keys[1])),
        ("urlhaus", format!("enrich_compare_and_store('urlhaus', '{}', 0, '{{\"tags\": \"a\"}}')", keys[2])),
        ("spur", format!("enrich_store_many('spur', '{{{},9.9.8.8,{}}}', '{{\"{{}}\",1,2}}')", keys[3], keys[2])),
    ]
    .into_iter()
    .enumerate()
    {
        run(&mut client, &store(&way));
        let written = format!("SELECT enrichment -> '_meta' ? '{service}' FROM session_summaries WHERE session_id = 's{}'", n + 1);
        base.wait_for(&written, true);
    }
    base.wait_for("SELECT count(*) FROM session_summaries WHERE session_id = 's3' AND enrichment -> 'spur' = '2' AND enrichment #>> '{urlhaus,tags}' = 'a'", 1i64);
    wait_quiet(&base);
    // nothing is told of a failure, of an older observation, of a key that no row has, or once the table is detached
    let mut other = base.client();
    run(&mut other, "BEGIN");
    for way in [
        format!("enrich_store('spur', '{}', NULL, response_status => 'error')", keys[0]),
        format!("enrich_store('urlhaus', '{}', '{{}}', fetched_at => now() - interval '9 days')", keys[2]),
        "enrich_store('spur', '9.9.7.7', '1')".to_string(),
    ] {
        run(&mut other, &store(&way));
        assert_eq!(one::<i64>(&mut other, arrivals), 0, "{way}");
    }
    run(&mut other, &store(&format!("enrich_store('spur', '{}', '3')", keys[0])));
    assert_eq!(one::<i64>(&mut other, arrivals), 1);
    run(
        &mut other,
        &format!(
            "ROLLBACK; SELECT enrich_detach('session_summaries'); BEGIN; SELECT enrich_store('spur', '{}', '4')",
            keys[0]
        ),
    );
    assert_eq!(one::<i64>(&mut other, arrivals), 0);
}
