//! What the tests on users' tables share: honeypot tables in a database of their own, what each row should hold by
//! the sandbox's word, and waiting until it does.

use crate::support::{ask, run, same, Base, SOON};
use postgres::Client;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use testbed::honeypot::{self, Loaded, Shape, Size};
use testbed::{wait_until, Cluster};

/// Small enough to be answered in a second or two, with every kind of row in it.
pub const SMALL: Size = Size { sessions: 400, addresses: 120, files: 30, passwords: 220, seed: 11 };

pub const ATTACH_SESSIONS: &str =
    "SELECT enrich_attach('session_summaries', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment')";

/// True for the rows nobody may be asked about, of the ranges the generator takes them from.
pub const CLOSED: &str = "(source_ip::text::inet <<= ANY ('{10.0.0.0/8,192.168.0.0/16,172.16.0.0/12,198.51.100.0/24,\
    127.0.0.0/8,169.254.0.0/16,2001:db8::/32,fd00::/8}'::inet[]))";

/// A cluster that looks every second for rows no trigger reported.
pub fn sweeping_cluster() -> Arc<Cluster> {
    static RUNNING: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = running.upgrade() {
        return cluster;
    }
    let cluster = Cluster::builder("sweeping")
        .preload(true)
        .setting("max_worker_processes", "40")
        .setting("autovacuum", "off")
        .setting("enrichment_cache.sweep_interval", "1s")
        .start()
        .unwrap_or_else(|why| panic!("{why}"));
    let cluster = Arc::new(cluster);
    *running = Arc::downgrade(&cluster);
    cluster
}

/// Honeypot tables with rows.
#[track_caller]
pub fn load(base: &Base, shape: &Shape, size: &Size) -> Loaded {
    let mut client = base.client();
    honeypot::create_tables(&mut client, shape).unwrap_or_else(|why| panic!("{why}"));
    honeypot::load(&mut client, shape, size).unwrap_or_else(|why| panic!("{why}"))
}

/// A table of sessions with a jsonb column and these addresses, one row each, s1 the oldest.
#[track_caller]
pub fn make_sessions(base: &Base, json: &str, addresses: &[String]) {
    base.run(&format!(
        "CREATE TABLE session_summaries (session_id text PRIMARY KEY, source_ip varchar(45),
            first_event_at timestamptz, vt_flagged bool NOT NULL DEFAULT false,
            dshield_flagged bool NOT NULL DEFAULT false, enrichment {json}, enrichment_at timestamptz)"
    ));
    insert_sessions(base, addresses);
}

/// One row for each address.
#[track_caller]
pub fn insert_sessions(base: &Base, addresses: &[String]) {
    let sql = "INSERT INTO session_summaries (session_id, source_ip, first_event_at)
        SELECT 's' || n, ip, timestamptz '2026-01-01' + n * interval '1 minute'
        FROM unnest($1::text[]) WITH ORDINALITY AS u (ip, n)";
    base.client().execute(sql, &[&addresses]).unwrap_or_else(|why| panic!("{why}"));
}

/// What the sandbox would answer for each public address, as table `expected (service, ip, outcome, flagged)`.
#[track_caller]
pub fn note_expected(base: &Base, services: &[&str]) {
    let mut client = base.client();
    run(&mut client, "CREATE TABLE expected (service text, ip text, outcome text, flagged bool)");
    let open = format!(
        "SELECT DISTINCT host(source_ip::text::inet) FROM session_summaries
        WHERE source_ip IS NOT NULL AND NOT {CLOSED}"
    );
    let addresses: Vec<String> = rows(&mut client, &open);
    let insert = client.prepare("INSERT INTO expected VALUES ($1, $2, $3, $4)").unwrap_or_else(|why| panic!("{why}"));
    for service in services {
        for ip in &addresses {
            let expect = base.sandbox.expect(service, ip);
            let (outcome, flagged) = (expect["outcome"].as_str(), expect["flagged"].as_bool());
            client.execute(&insert, &[service, ip, &outcome, &flagged]).unwrap_or_else(|why| panic!("{why}"));
        }
    }
}

/// The first column of every row.
#[track_caller]
pub fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    let rows = client.query(sql, &[]).unwrap_or_else(|why| panic!("{sql}: {why}"));
    rows.iter().map(|row| row.get(0)).collect()
}

/// Rows that may be filled and are not, for these services.
pub fn unfilled(services: &str) -> String {
    format!(
        "SELECT count(*) FROM session_summaries WHERE source_ip IS NOT NULL AND NOT {CLOSED}
            AND coalesce(enrichment::text, '') NOT LIKE '%\"_meta\"%'
         OR source_ip IS NOT NULL AND NOT {CLOSED} AND NOT (
            regexp_replace(enrichment::text, '\\\\+u0000', '', 'g')::jsonb -> '_meta' ?& '{services}')"
    )
}

/// Waits until every row that may be filled is.
#[track_caller]
pub fn wait_filled(base: &Base, services: &str) {
    base.wait_for(&unfilled(services), 0i64);
}

/// Waits until nothing is on its way to or from this database's tables any more.
#[track_caller]
pub fn wait_quiet(base: &Base) {
    let sql = "SELECT (SELECT count(*) FROM enrichment_arrival)
        + (SELECT count(*) FROM enrichment_queue WHERE state <> 'dead')
        + (SELECT count(*) FROM enrichment_indicator WHERE dirty)
        + (SELECT count(*) FROM enrichment_source WHERE swept_at IS NULL)";
    let mut client = base.client();
    wait_until("rest", SOON, || ask::<i64>(&mut client, sql).and_then(|left| same(left, &0)));
}
