//! New rows are picked up by themselves, however they come.

use crate::sources_support::{
    insert_sessions, make_sessions, sweeping_cluster, wait_filled, wait_quiet, ATTACH_SESSIONS,
};
use crate::support::{address, run, Base};
use std::io::Write;

const ATTACH: &str = "SELECT enrich_attach('session_summaries', 'source_ip', '{dshield}', 'enrichment')";

fn filled(session: &str) -> String {
    format!(
        "SELECT enrichment #>> '{{dshield,ip,number}}' IS NOT DISTINCT FROM source_ip
        FROM session_summaries WHERE session_id = '{session}'"
    )
}

#[test]
fn rows_that_come_by_insert_copy_and_update_are_picked_up() {
    let base = Base::new("sources", "picked_up");
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH);
    wait_quiet(&base);
    let keys = base.known("dshield", 5);
    // from here on the sweep is minutes away: only the triggers can tell
    insert_sessions(&base, &keys[..1]);
    base.wait_for(&filled("s1"), true);

    let mut client = base.client();
    let mut copy = client.copy_in("COPY session_summaries (session_id, source_ip) FROM STDIN").expect("COPY");
    write!(copy, "copied\t{}\nwithout\t\\N\n", keys[1]).and_then(|()| copy.flush()).expect("rows");
    copy.finish().expect("two rows");
    base.wait_for(&filled("copied"), true);

    base.run(&format!("UPDATE session_summaries SET source_ip = '{}' WHERE session_id = 'without'", keys[2]));
    base.wait_for(&filled("without"), true);
    base.run(&format!("UPDATE session_summaries SET source_ip = '{}' WHERE session_id = 's1'", keys[3]));
    base.wait_for(&filled("s1"), true);

    // a key that is known already, in another row
    base.run(&format!("INSERT INTO session_summaries (session_id, source_ip) VALUES ('again', '{}')", keys[3]));
    base.wait_for(&filled("again"), true);
    // by INSERT ... ON CONFLICT DO UPDATE, as loaders write
    base.run(&format!(
        "INSERT INTO session_summaries (session_id, source_ip) VALUES ('again', '{}')
         ON CONFLICT (session_id) DO UPDATE SET source_ip = excluded.source_ip",
        keys[4]
    ));
    base.wait_for(&filled("again"), true);
    for key in &keys {
        assert_eq!(base.asked_for("dshield", key), 1, "{key}");
    }
}

#[test]
fn rows_of_a_transaction_that_rolls_back_are_not_asked_for() {
    let base = Base::new("sources", "rolled_back");
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH);
    wait_quiet(&base);
    let keys = base.known("dshield", 2);
    let mut client = base.client();
    run(&mut client, "BEGIN");
    run(&mut client, &format!("INSERT INTO session_summaries (session_id, source_ip) VALUES ('no', '{}')", keys[0]));
    run(&mut client, "ROLLBACK");
    insert_sessions(&base, &keys[1..]);
    base.wait_for(&filled("s1"), true);
    wait_quiet(&base);
    assert_eq!(base.asked_for("dshield", &keys[0]), 0);
}

#[test]
fn rows_no_trigger_saw_are_found_by_the_sweep() {
    let base = Base::in_cluster(&sweeping_cluster(), "swept", &["--limits", "none"]);
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_SESSIONS);
    wait_quiet(&base);
    let keys = base.known("dshield", 2);
    let mut client = base.client();
    run(&mut client, "SET session_replication_role = replica");
    run(&mut client, &format!("INSERT INTO session_summaries (session_id, source_ip) VALUES ('s1', '{}')", keys[0]));
    base.wait_for(&filled("s1"), true);
    // another row of a key that is answered already
    run(&mut client, &format!("INSERT INTO session_summaries (session_id, source_ip) VALUES ('s2', '{}')", keys[0]));
    base.wait_for(&filled("s2"), true);
    wait_filled(&base, "{dshield,urlhaus,spur}");
    assert_eq!(base.asked_for("dshield", &keys[0]), 1);
}

#[test]
fn a_column_emptied_by_a_loader_is_filled_again() {
    let base = Base::in_cluster(&sweeping_cluster(), "emptied", &["--limits", "none"]);
    make_sessions(&base, "jsonb", &base.known("dshield", 3));
    base.run(ATTACH_SESSIONS);
    wait_filled(&base, "{dshield,urlhaus,spur}");
    base.run("UPDATE session_summaries SET enrichment = '{\"password_stats\": {\"total_attempts\": 3}}'");
    wait_filled(&base, "{dshield,urlhaus,spur}");
    base.wait_for(
        "SELECT bool_and(enrichment #>> '{password_stats,total_attempts}' = '3') FROM session_summaries",
        true,
    );
    assert_eq!(base.asked("dshield"), 3);
}

/// Without it, and until autovacuum comes by, a batch of rows to be written would read all keys there are.
#[test]
fn the_planner_is_told_of_many_new_keys() {
    let base = Base::new("sources", "told");
    base.run("UPDATE enrichment_service SET enabled = false");
    let addresses: Vec<String> = (1..=5000).map(address).collect();
    make_sessions(&base, "jsonb", &addresses);
    base.run(ATTACH);
    base.wait_for("SELECT count(*) FROM enrichment_indicator", 5000i64);
    base.wait_for("SELECT reltuples >= 4000 FROM pg_class WHERE oid = 'enrichment_indicator'::regclass", true);
}
