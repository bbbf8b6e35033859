//! Answers into all rows of a table that was just attached, against a client that goes row by row, and against one bare
//! UPDATE that writes the same JSON. Then the whole way, with providers that have no limits.

use crate::bed::{Bed, SOURCES};
use crate::data::main_load::copy_answers;
use crate::measure::rounds::{in_turns, Variant};
use crate::measure::session::Session;
use crate::report::findings::{Findings, Target};
use crate::report::numbers::{bytes, grouped};
use crate::report::table::Table;
use crate::{screen, Result};
use postgres::types::ToSql;
use std::time::{Duration, Instant};
use testbed::Sandbox;

const OURS: &str = "attached, until all rows are written";
const BARE: &str = "one UPDATE ... FROM with the same JSON made before";
const CLIENT: &str = "a client, row by row";
const BETTER_CLIENT: &str = "a client, row by row, one look-up for all services";

const SERVICES: [&str; 3] = ["dshield", "urlhaus", "spur"];
const SESSIONS: u64 = 1_680_000;
const ADDRESSES: u64 = 300_000;
/// The client is so slow that it does a part of the rows.
const CLIENT_PART: u64 = 40;
const COMMIT_EVERY: usize = 100;
const LOOK: Duration = Duration::from_millis(200);
const STUCK: Duration = Duration::from_secs(120);

/// What is left to do for the attached table.
const LEFT: &str = "SELECT (SELECT count(*) FROM enrichment_source WHERE swept_at IS NULL)
    + (SELECT count(*) FROM enrichment_arrival) + (SELECT count(*) FROM enrichment_indicator WHERE dirty)
    + (SELECT count(*) FROM enrichment_queue WHERE state <> 'dead')";
const UNFILLED: &str = "SELECT count(*) FROM bench.sessions
    WHERE NOT coalesce(enrichment::jsonb -> '_meta' ?& '{dshield,urlhaus,spur}', false) OR enrichment_at IS NULL";

pub fn measure(bed: &mut Bed) -> Result<Findings> {
    let (sessions, addresses) = (bed.settings.rows(SESSIONS), bed.settings.rows(ADDRESSES));
    let mut session = bed.create_database(SOURCES)?;
    prepare(&mut session, sessions, addresses)?;
    let mut context = Context { session, sessions, spent: Vec::new() };
    let variants = vec![
        Variant::new(OURS, |context: &mut Context| context.ours()),
        Variant::new(BARE, |context: &mut Context| context.bare()),
        Variant::new(CLIENT, |context: &mut Context| context.client(CLIENT)),
        Variant::new(BETTER_CLIENT, |context: &mut Context| context.client(BETTER_CLIENT)),
    ];
    let measured = in_turns(bed, "write-back", &mut context, variants)?;

    let mut findings = Findings::default();
    findings.say(format!(
        "{} sessions over {} addresses (heavy tail), a `json` column that is empty, indexes on session_id and source_ip; all answers of \
         dshield, urlhaus and spur are cached. Ours is timed from `enrich_attach` on: the table is searched, its keys are judged, the answers merged and \
         written by the worker, by default 500 rows a transaction. The bare UPDATE takes the same documents from a table made before, in one \
         transaction, and searches nothing. The client does what cowrieprocessor does (enrich_session in enrichment/handlers.py, one look-up a service, as in \
         enrichment/db_cache.py), without Python and SQLAlchemy, and commits every {COMMIT_EVERY} rows, where that commits each: it reads the cached answers of a row's address, merges them into what stands there and updates the row, \
         with prepared statements over the socket; it does a part of the rows. The other client reads the answers of all services with one statement, as \
         somebody might who writes it anew.",
        grouped(sessions as f64),
        grouped(addresses as f64)
    ));
    findings.table(Table::of("", "rows a second", &measured, &[("× bare UPDATE", BARE), ("× client", CLIENT)]));
    findings.table(context.spent());
    findings.target(Target::at_least(
        "writing back, × rate of a client that goes row by row",
        20.0,
        measured.ratio(OURS, CLIENT),
    ));
    findings.target(Target::at_least(
        "writing back, × rate of one bare UPDATE of the same JSON",
        0.6,
        measured.ratio(OURS, BARE),
    ));
    let whole = context.whole(bed)?;
    findings.table(whole);
    Ok(findings)
}

fn prepare(session: &mut Session, sessions: u64, addresses: u64) -> Result<()> {
    copy_answers(session, 0..addresses, 0..0)?;
    session.run(&format!(
        "ANALYZE enrichment_cache;
         CREATE TABLE bench.address AS
            SELECT row_number() OVER (ORDER BY cache_key_hash) - 1 AS n, cache_key AS ip FROM enrichment_cache WHERE service = 'dshield';
         CREATE UNIQUE INDEX ON bench.address (n);
         ANALYZE bench.address;
         SELECT setseed(0.5);
         CREATE TABLE bench.plain AS
            SELECT 's' || s.n AS session_id, a.ip AS source_ip, s.n
            FROM (SELECT n, floor({addresses} * power(random(), 3))::bigint AS at FROM generate_series(1, {sessions}) n) s
            JOIN bench.address a ON a.n = s.at ORDER BY s.n;
         CREATE TABLE bench.documents AS
            SELECT d.cache_key AS ip, (jsonb_build_object('dshield', d.payload, 'spur', p.payload, 'urlhaus', u.payload, '_meta',
                (SELECT jsonb_object_agg(c.service, jsonb_build_object('status', c.response_status,
                    'fetched_at', to_char(c.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                    'expires_at', to_char(c.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))
                 FROM enrichment_cache c WHERE c.service = ANY ('{{dshield,spur,urlhaus}}') AND c.cache_key = d.cache_key)))::json AS document,
                coalesce((d.payload #>> '{{ip,count}}')::bigint, 0) > 0 AS flagged
            FROM enrichment_cache d JOIN enrichment_cache p ON p.cache_key = d.cache_key AND p.service = 'spur'
            JOIN enrichment_cache u ON u.cache_key = d.cache_key AND u.service = 'urlhaus' WHERE d.service = 'dshield'"
    ))?;
    session.run("VACUUM ANALYZE bench.documents")
}

struct Context {
    session: Session,
    sessions: u64,
    /// Of each way, per row: bytes of WAL, and of the table afterwards.
    spent: Vec<(&'static str, f64, f64)>,
}

impl Context {
    fn fresh_table(&mut self) -> Result<()> {
        self.session.run(
            "DROP TABLE IF EXISTS bench.sessions;
             CREATE TABLE bench.sessions (session_id varchar(64) PRIMARY KEY, source_ip varchar(45), last_event_at timestamptz,
                command_count int NOT NULL DEFAULT 0, dshield_flagged bool NOT NULL DEFAULT false, enrichment json, enrichment_at timestamptz);
             INSERT INTO bench.sessions (session_id, source_ip, last_event_at)
                SELECT session_id, source_ip, timestamptz '2026-01-01' + n * interval '1 s' FROM bench.plain;
             CREATE INDEX ON bench.sessions (source_ip);
             UPDATE enrichment_service SET enabled = false",
        )?;
        self.session.run("VACUUM ANALYZE bench.sessions")?;
        self.session.run("CHECKPOINT")
    }

    /// Rows a second of some work on a fresh table; notes what it wrote.
    fn timed(&mut self, name: &'static str, rows: u64, work: impl FnOnce(&mut Session) -> Result<()>) -> Result<f64> {
        self.fresh_table()?;
        let before: String = self.session.one("SELECT pg_current_wal_insert_lsn()::text")?;
        let began = Instant::now();
        work(&mut self.session)?;
        let took = began.elapsed();
        let wal: f64 =
            self.session.one(&format!("SELECT (pg_current_wal_insert_lsn() - '{before}'::pg_lsn)::float8"))?;
        let size: f64 = self.session.one("SELECT pg_table_size('bench.sessions')::float8")?;
        self.spent.retain(|(known, _, _)| *known != name);
        self.spent.push((name, wal / rows as f64, size / self.sessions as f64));
        Ok(rows as f64 / took.as_secs_f64())
    }

    fn ours(&mut self) -> Result<f64> {
        let rate = self.timed(OURS, self.sessions, |session| {
            session
                .run("SELECT enrich_attach('bench.sessions', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment')")?;
            until_done(session)
        })?;
        check(&mut self.session)?;
        self.session.run("SELECT enrich_detach('bench.sessions')")?;
        Ok(rate)
    }

    fn bare(&mut self) -> Result<f64> {
        let rate = self.timed(BARE, self.sessions, |session| {
            session.run(
                "UPDATE bench.sessions s SET enrichment = d.document, dshield_flagged = d.flagged, enrichment_at = now()
                 FROM bench.documents d WHERE d.ip = s.source_ip",
            )
        })?;
        check(&mut self.session)?;
        Ok(rate)
    }

    fn client(&mut self, name: &'static str) -> Result<f64> {
        let rows = (self.sessions / CLIENT_PART).max(1);
        self.timed(name, rows, |session| row_by_row(session, rows, name == CLIENT))
    }

    fn spent(&self) -> Table {
        let mut table = Table::new("Per row, bytes:", &["", "WAL written", "table afterwards"]);
        for (name, wal, size) in self.spent.iter().filter(|(name, _, _)| *name == OURS || *name == BARE) {
            table.row(&[name, &bytes(*wal), &bytes(*size)]);
        }
        table
    }

    /// From an empty cache, asked of providers without limits on the same machine.
    fn whole(&mut self, bed: &Bed) -> Result<Table> {
        screen::note("the whole way, with providers");
        let sandbox = Sandbox::try_start(&["--limits", "none", "--spur-balance", "1000000000"])?;
        let mut client = bed.client(SOURCES)?;
        sandbox.try_point_services(&mut client, "public")?;
        drop(client);
        self.session.run("TRUNCATE enrichment_cache, enrichment_history, enrichment_queue")?;
        self.fresh_table()?;
        self.session.run(
            "UPDATE enrichment_service SET enabled = true, limits = '[]', max_in_flight = 64 WHERE name IN ('dshield', 'urlhaus', 'spur')",
        )?;
        for setting in ["enabled = on", "allow_private_hosts = on", "concurrency = 64"] {
            self.session.run(&format!("ALTER SYSTEM SET enrichment_cache.{setting}"))?;
        }
        let before: String = self.session.one("SELECT pg_current_wal_insert_lsn()::text")?;
        self.session.run("SELECT pg_reload_conf()")?;
        let began = Instant::now();
        self.session
            .run("SELECT enrich_attach('bench.sessions', 'source_ip', '{dshield,urlhaus,spur}', 'enrichment')")?;
        until_done(&mut self.session)?;
        let took = began.elapsed().as_secs_f64();
        check(&mut self.session)?;
        let wal: f64 =
            self.session.one(&format!("SELECT (pg_current_wal_insert_lsn() - '{before}'::pg_lsn)::float8"))?;
        let size: f64 = self.session.one("SELECT pg_table_size('bench.sessions')::float8")?;
        self.session.run("VACUUM FULL bench.sessions")?;
        let least: f64 = self.session.one("SELECT pg_table_size('bench.sessions')::float8")?;
        let keys: i64 = self.session.one("SELECT count(*) FROM enrichment_indicator")?;
        self.session.run("ALTER SYSTEM RESET ALL")?;
        self.session.run("SELECT pg_reload_conf()")?;
        let mut table = Table::new(
            "The whole way, once: three services asked about every address, answers stored and written into every row:",
            &["seconds", "keys a second", "calls a second", "rows a second", "WAL", "table, × its size when packed"],
        );
        table.row(&[
            &grouped(took),
            &grouped(keys as f64 / took),
            &grouped(3.0 * keys as f64 / took),
            &grouped(self.sessions as f64 / took),
            &bytes(wal),
            &format!("{:.2}", size / least),
        ]);
        Ok(table)
    }
}

/// Waits until nothing is left; an error when nothing has moved for a long time.
fn until_done(session: &mut Session) -> Result<()> {
    let (mut least, mut moved) = (i64::MAX, Instant::now());
    loop {
        std::thread::sleep(LOOK);
        let left = session.one::<i64>(LEFT)?;
        if left == 0 {
            return Ok(());
        }
        if left != least {
            (least, moved) = (left, Instant::now());
        }
        if moved.elapsed() > STUCK {
            let why: String = session.one(
                "SELECT coalesce((SELECT enrich_explain(service, cache_key) FROM enrichment_queue LIMIT 1), 'nothing is queued')",
            )?;
            return Err(format!("nothing moves, {left} keys are left: {why}").into());
        }
    }
}

fn check(session: &mut Session) -> Result<()> {
    match session.one::<i64>(UNFILLED)? {
        0 => Ok(()),
        left => Err(format!("{left} rows are not filled").into()),
    }
}

/// As the scripts do it that this replaces, with their statements prepared; a look-up for `each` service, or one for all.
fn row_by_row(session: &mut Session, rows: u64, each: bool) -> Result<()> {
    let all = SERVICES.as_slice();
    let look_ups: Vec<&(dyn ToSql + Sync)> = match each {
        true => SERVICES.iter().map(|service| service as &(dyn ToSql + Sync)).collect(),
        false => vec![&all],
    };
    let asked = if each { "$2" } else { "ANY ($2)" };
    let cached = session.prepare(&format!(
        "SELECT service, payload::text, response_status, to_char(fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
            to_char(expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')
         FROM enrichment_cache WHERE service = {asked} AND cache_key = $1"
    ))?;
    let update = session.prepare(
        "UPDATE bench.sessions SET enrichment = $2::text::json, dshield_flagged = $3, enrichment_at = now() WHERE session_id = $1",
    )?;
    let work = session.rows(&format!(
        "SELECT session_id::text, source_ip::text, coalesce(enrichment::text, '{{}}') FROM bench.sessions ORDER BY session_id LIMIT {rows}"
    ))?;
    for some in work.chunks(COMMIT_EVERY) {
        session.run("BEGIN")?;
        for row in some {
            let (id, ip, old): (String, String, String) = (row.get(0), row.get(1), row.get(2));
            let mut document: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&old)?;
            let mut meta = serde_json::Map::new();
            let mut flagged = false;
            let mut answers = Vec::new();
            for services in &look_ups {
                answers.extend(session.execute(&cached, &[&ip, *services])?);
            }
            for answer in answers {
                let (service, payload): (String, Option<String>) = (answer.get(0), answer.get(1));
                let (status, fetched, expires): (String, String, String) =
                    (answer.get(2), answer.get(3), answer.get(4));
                if let Some(payload) = payload {
                    let payload: serde_json::Value = serde_json::from_str(&payload)?;
                    if service == "dshield" {
                        flagged = payload["ip"]["count"].as_i64().unwrap_or(0) > 0;
                    }
                    document.insert(service.clone(), payload);
                }
                meta.insert(
                    service,
                    serde_json::json!({"status": status, "fetched_at": fetched, "expires_at": expires}),
                );
            }
            document.insert("_meta".to_string(), meta.into());
            let document = serde_json::to_string(&document)?;
            session.execute(&update, &[&id, &document, &flagged])?;
        }
        session.run("COMMIT")?;
    }
    Ok(())
}
