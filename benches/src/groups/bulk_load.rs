//! A bulk load with and without the triggers of an attached table.

use crate::bed::{Bed, SOURCES};
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::grouped;
use crate::report::table::Table;
use crate::Result;

const ATTACHED: &str = "attached: INSERT ... SELECT";
const PLAIN: &str = "not attached: INSERT ... SELECT";
const ATTACHED_ONE: &str = "attached: 100 rows a statement";
const PLAIN_ONE: &str = "not attached: 100 rows a statement";

const ROWS: u64 = 1_000_000;
const KEYS: u64 = 200_000;
const SMALL_STATEMENTS: u64 = 1000;

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let (rows, keys) = (bed.settings.rows(ROWS), bed.settings.rows(KEYS));
    let mut session = match bed.session(SOURCES) {
        Ok(session) => session,
        Err(_) => bed.create_database(SOURCES)?,
    };
    session.run(&format!(
        "CREATE TABLE bench.load AS SELECT 'l' || n AS session_id,
            host(inet '45.0.0.0' + floor({keys} * power(random(), 3))::bigint) AS source_ip, n
         FROM generate_series(1, {rows}) n;
         UPDATE enrichment_service SET enabled = false"
    ))?;
    session.run("VACUUM ANALYZE bench.load")?;
    let variants = vec![
        variant(ATTACHED, true, rows, bulk),
        variant(PLAIN, false, rows, bulk),
        variant(ATTACHED_ONE, true, SMALL_STATEMENTS * 100, small),
        variant(PLAIN_ONE, false, SMALL_STATEMENTS * 100, small),
    ];
    let measured = in_turns(bed, "bulk-load", &mut session, variants)?;
    let mut findings = Findings::default();
    findings.say(format!(
        "{} rows over {} keys (heavy tail) go into a table of sessions with indexes on session_id and source_ip; \
         and {} statements of 100 rows each, each committed. The worker is about its work meanwhile.",
        grouped(rows as f64),
        grouped(keys as f64),
        grouped(SMALL_STATEMENTS as f64)
    ));
    let bases = [("× not attached", PLAIN), ("× not attached, small", PLAIN_ONE)];
    findings.table(Table::of("", "µs a row", &measured, &bases));
    findings.target(Target::at_most(
        "a bulk load into an attached table, × its time without",
        1.25,
        measured.ratio(ATTACHED, PLAIN),
    ));
    Ok(findings)
}

fn bulk(session: &mut Session) -> Result<()> {
    session.run(
        "INSERT INTO bench.loaded (session_id, source_ip, last_event_at)
         SELECT session_id, source_ip, timestamptz '2026-01-01' + n * interval '1 s' FROM bench.load",
    )
}

fn small(session: &mut Session) -> Result<()> {
    for statement in 0..SMALL_STATEMENTS {
        session.run(&format!(
            "INSERT INTO bench.loaded (session_id, source_ip, last_event_at)
             SELECT 'l' || n, host(inet '45.0.0.0' + n % 7919), timestamptz '2026-01-01' + n * interval '1 s'
             FROM generate_series({0} * 100 + 1, {0} * 100 + 100) n",
            statement
        ))?;
    }
    Ok(())
}

fn variant(
    name: &'static str,
    attached: bool,
    rows: u64,
    load: fn(&mut Session) -> Result<()>,
) -> Variant<'static, Session> {
    Variant::new(name, move |session: &mut Session| {
        session.run(
            "DROP TABLE IF EXISTS bench.loaded;
             CREATE TABLE bench.loaded (session_id varchar(64) PRIMARY KEY, source_ip varchar(45), last_event_at timestamptz,
                command_count int NOT NULL DEFAULT 0, dshield_flagged bool NOT NULL DEFAULT false, enrichment json, enrichment_at timestamptz);
             CREATE INDEX ON bench.loaded (source_ip)",
        )?;
        if attached {
            session.run("SELECT enrich_attach('bench.loaded', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment')")?;
        }
        session.run("CHECKPOINT")?;
        let began = std::time::Instant::now();
        load(session)?;
        let took = began.elapsed();
        let loaded: i64 = session.one("SELECT count(*) FROM bench.loaded")?;
        if loaded != rows as i64 {
            return Err(format!("{loaded} of {rows} rows were loaded").into());
        }
        if attached {
            session.run("SELECT enrich_detach('bench.loaded')")?;
        }
        Ok(took.as_micros() as f64 / rows as f64)
    })
}
