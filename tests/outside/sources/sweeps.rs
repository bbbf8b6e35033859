//! What no trigger of the table can see is found by the sweep, and what is gone is forgotten.

use crate::sources_support::{
    insert_sessions, make_sessions, sweeping_cluster, wait_filled, wait_quiet, ATTACH_SESSIONS,
};
use crate::support::Base;

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
