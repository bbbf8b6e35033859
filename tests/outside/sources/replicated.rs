//! Rows that logical replication applies, which fires no statement trigger: new ones, ones that are replaced, ones that
//! change their key, ones that go.

use crate::sources_support::{make_sessions, sweeping_cluster, wait_filled, wait_quiet, ATTACH_SESSIONS};
use crate::support::{one, run, Base};
use testbed::Cluster;

const COLUMNS: &str = "session_id, source_ip, first_event_at, vt_flagged, dshield_flagged";

/// A server whose sessions others can subscribe to; its own column for answers is empty.
fn publisher(columns: &str) -> Cluster {
    let publisher =
        Cluster::builder("publisher").setting("wal_level", "logical").start().unwrap_or_else(|why| panic!("{why}"));
    run(
        &mut publisher.client("postgres"),
        &format!(
            "CREATE TABLE session_summaries (session_id text PRIMARY KEY, source_ip varchar(45),
                first_event_at timestamptz, vt_flagged bool NOT NULL DEFAULT false,
                dshield_flagged bool NOT NULL DEFAULT false, enrichment jsonb, enrichment_at timestamptz);
             CREATE PUBLICATION sessions FOR TABLE session_summaries {columns}"
        ),
    );
    publisher
}

fn subscribe(base: &Base, publisher: &Cluster, name: &str) {
    let from = publisher.dsn("postgres").replace('\'', "''");
    base.run(&format!("CREATE SUBSCRIPTION {name} CONNECTION '{from}' PUBLICATION sessions"));
}

fn insert(publisher: &Cluster, from: i32, keys: &[String]) {
    let sql = "INSERT INTO session_summaries (session_id, source_ip, first_event_at)
        SELECT 's' || ($2 + n - 1), ip, timestamptz '2026-01-01' FROM unnest($1::text[]) WITH ORDINALITY AS u (ip, n)";
    let inserted = publisher.client("postgres").execute(sql, &[&keys, &i64::from(from)]);
    inserted.unwrap_or_else(|why| panic!("{why}"));
}

/// Applied and filled with the answer for the address that the row has at its publisher.
fn wait_as_published(base: &Base, publisher: &Cluster) {
    let rows = "SELECT coalesce(string_agg(session_id || ' ' || source_ip, ', ' ORDER BY session_id), '') FROM session_summaries";
    let published: String = one(&mut publisher.client("postgres"), rows);
    base.wait_for(rows, published);
    wait_filled(base, "{dshield,urlhaus,spur}");
    wait_quiet(base);
    base.wait_for(
        "SELECT count(*) FROM session_summaries WHERE enrichment #>> '{dshield,ip,number}' IS DISTINCT FROM source_ip",
        0i64,
    );
}

#[test]
fn rows_that_logical_replication_applies_are_filled_and_followed() {
    let base = Base::in_cluster(&sweeping_cluster(), "subscriber", &["--limits", "none"]);
    let publisher = publisher(&format!("({COLUMNS})"));
    let keys = base.known("dshield", 8);
    insert(&publisher, 1, &keys[..2]);
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_SESSIONS);
    wait_quiet(&base);

    // the first copy of the table
    subscribe(&base, &publisher, "followed");
    wait_as_published(&base, &publisher);

    // what is applied, also for a key that is answered already
    insert(&publisher, 3, &[keys[2].clone(), keys[0].clone()]);
    wait_as_published(&base, &publisher);

    // another address for a row, one that is answered for another row, and a row that goes with its key
    let gone = &keys[1];
    run(
        &mut publisher.client("postgres"),
        &format!(
            "UPDATE session_summaries SET source_ip = '{}' WHERE session_id = 's1';
             UPDATE session_summaries SET source_ip = '{}' WHERE session_id = 's4';
             DELETE FROM session_summaries WHERE session_id = 's2'",
            keys[3], keys[2]
        ),
    );
    wait_as_published(&base, &publisher);
    base.wait_for(&format!("SELECT count(*) FROM enrichment_indicator WHERE raw_key = '{gone}'"), 0i64);

    // a column that is not published stays as it was filled
    let filled: String =
        base.one("SELECT string_agg(enrichment::text, ' ' ORDER BY session_id) FROM session_summaries");
    run(&mut publisher.client("postgres"), "UPDATE session_summaries SET first_event_at = '2026-02-02'");
    base.wait_for("SELECT count(*) FROM session_summaries WHERE first_event_at <> '2026-02-02'", 0i64);
    let still: String = base.one("SELECT string_agg(enrichment::text, ' ' ORDER BY session_id) FROM session_summaries");
    assert_eq!(still, filled);

    run(&mut publisher.client("postgres"), "TRUNCATE session_summaries");
    base.wait_for("SELECT count(*) FROM enrichment_indicator", 0i64);
    for key in &keys[..4] {
        assert_eq!(base.asked_for("dshield", key), 1, "{key}");
    }
    base.run("DROP SUBSCRIPTION followed");
}

#[test]
fn what_a_publisher_overwrites_is_filled_again() {
    let base = Base::in_cluster(&sweeping_cluster(), "overwritten", &["--limits", "none"]);
    let publisher = publisher("");
    let keys = base.known("dshield", 3);
    insert(&publisher, 1, &keys);
    make_sessions(&base, "jsonb", &[]);
    base.run(ATTACH_SESSIONS);
    subscribe(&base, &publisher, "overwritten");
    wait_as_published(&base, &publisher);

    // the whole row as the publisher has it, with its empty column
    run(&mut publisher.client("postgres"), "UPDATE session_summaries SET first_event_at = '2026-02-02'");
    base.wait_for("SELECT count(*) FROM session_summaries WHERE first_event_at <> '2026-02-02'", 0i64);
    wait_as_published(&base, &publisher);
    for key in &keys {
        assert_eq!(base.asked_for("dshield", key), 1, "{key}");
    }
    base.run("DROP SUBSCRIPTION overwritten");
}
