//! Statements of an import: the run, keys that may own a file named by a digest, answers on their way into the cache.
//!
//! Rows of the cache are locked in the order of their keys by the first statement of a batch, as every other writer does.

pub mod adopted;
pub mod chain;
pub mod compared;
pub mod invalidated;
pub mod orphans;

use crate::core::disk::item::Answer;
use crate::core::disk::report::Report;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::{to_micros, to_timestamp, RawJsonb};
use crate::pg::pending;
use crate::pg::ranges;
use crate::pg::spi::{self, Arg, Mode, Row, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

/// A run as its row says.
pub struct Run {
    pub directory: String,
    pub services: Option<Vec<String>>,
    pub batch_size: i32,
    pub keep_expired: bool,
    pub position: Option<Vec<u8>>,
    pub report: Report,
    pub batches: i64,
}

static OPEN: Statement = Statement {
    sql: "SELECT directory, services, batch_size, keep_expired, position, report::pg_catalog.text, batches
        FROM @extschema@.enrichment_migration
        WHERE id = $1 AND (kind = 'disk') = $2 AND state = 'running' AND pid = pg_catalog.pg_backend_pid() FOR UPDATE",
    args: &[INT8OID, BOOLOID],
};

/// Locks the row of a run of this session: of a directory, or of rows.
pub fn open(id: i64, directory: bool) -> Result<Option<Run>, Error> {
    let mut run = None;
    spi::run(&OPEN, &[Arg::of(id), Arg::of(directory)], Mode::Write, |row| run = read_run(row))?;
    Ok(run)
}

static LOOK: Statement = Statement {
    sql:
        "SELECT directory, services, batch_size, keep_expired, position, report::pg_catalog.text, batches
        FROM @extschema@.enrichment_migration WHERE id OPERATOR(pg_catalog.=) $1 AND kind OPERATOR(pg_catalog.=) 'disk'",
    args: &[INT8OID],
};

/// A run of a directory, as it stands.
pub fn look(id: i64) -> Result<Option<Run>, Error> {
    let mut run = None;
    spi::run(&LOOK, &[Arg::of(id)], Mode::Read, |row| run = read_run(row))?;
    Ok(run)
}

fn read_run(row: &Row) -> Option<Run> {
    Some(Run {
        directory: row.text(1)?,
        services: row.get(2),
        batch_size: row.get(3)?,
        keep_expired: row.get(4)?,
        position: row.get(5),
        report: Report::parse(row.text(6).as_deref())?,
        batches: row.get(7)?,
    })
}

static ADVANCE: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_migration SET position = coalesce($2, position), report = $3::pg_catalog.jsonb,
            batches = batches + 1, total_files = coalesce($4, total_files), updated_at = pg_catalog.clock_timestamp(),
            state = CASE WHEN $5 THEN 'finished' ELSE state END,
            finished_at = CASE WHEN $5 THEN pg_catalog.clock_timestamp() END
        WHERE id = $1",
    args: &[INT8OID, BYTEAOID, TEXTOID, INT8OID, BOOLOID],
};

/// Notes how far a run has come.
pub fn advance(id: i64, to: Option<&[u8]>, report: &Report, total: Option<i64>, finished: bool) -> Result<(), Error> {
    let args = [Arg::of(id), Arg::of(to), Arg::of(report.to_json()), Arg::of(total), Arg::of(finished)];
    spi::run(&ADVANCE, &args, Mode::Write, |_| {})?;
    Ok(())
}

static INDICATORS: Statement = Statement {
    sql: "SELECT source, raw_key, cache_key FROM @extschema@.enrichment_indicator
        WHERE (source, raw_key) OPERATOR(pg_catalog.>) ($1, $2) ORDER BY source, raw_key LIMIT $3",
    args: &[TEXTOID, TEXTOID, INT8OID],
};

static QUEUED: Statement = Statement {
    sql: "SELECT service, cache_key, NULL FROM @extschema@.enrichment_queue
        WHERE (service, cache_key) OPERATOR(pg_catalog.>) ($1, $2) ORDER BY service, cache_key LIMIT $3",
    args: &[TEXTOID, TEXTOID, INT8OID],
};

static CACHED: Statement = Statement {
    sql: "SELECT service, cache_key, NULL FROM @extschema@.enrichment_cache
        WHERE (service, cache_key) OPERATOR(pg_catalog.>) ($1, $2) ORDER BY service, cache_key LIMIT $3",
    args: &[TEXTOID, TEXTOID, INT8OID],
};

/// Hands over every key that the attached tables, the queue and the cache hold, as it was written and in normal form, until
/// `each` says that it is enough. A page at a time, so that no more than that is in memory.
pub fn known_keys(mut each: impl FnMut(&str) -> bool) -> Result<(), Error> {
    const PAGE: i64 = 20_000;
    for statement in [&INDICATORS, &QUEUED, &CACHED] {
        let mut from = (String::new(), String::new());
        loop {
            pgrx::check_for_interrupts!();
            let mut enough = false;
            let args = [Arg::of(from.0.as_str()), Arg::of(from.1.as_str()), Arg::of(PAGE)];
            let rows = spi::run(statement, &args, Mode::Read, |row| {
                let (Some(group), Some(key)) = (row.text(1), row.text(2)) else { return };
                let normal = row.text(3);
                enough |= !each(&key) || normal.is_some_and(|normal| normal != key && !each(&normal));
                from = (group, key);
            })?;
            if enough {
                return Ok(());
            }
            if rows < PAGE as u64 {
                break;
            }
        }
    }
    Ok(())
}

/// A payload as a text, and as the `jsonb` of it where that was made already.
#[derive(Clone, Copy)]
pub struct Payload<'a> {
    pub text: &'a str,
    pub jsonb: Option<&'a [u8]>,
}

impl<'a> Payload<'a> {
    pub fn of(answer: &'a Answer) -> Option<Self> {
        answer.body.payload.as_deref().map(|text| Payload { text, jsonb: answer.jsonb.as_deref() })
    }

    fn datum(&self) -> RawJsonb {
        RawJsonb(self.jsonb.map_or_else(|| ranges::jsonb(self.text), ranges::built))
    }
}

/// Answers of one service, keys in order and each once.
pub struct Batch<'a> {
    pub service: &'a str,
    pub keys: Vec<&'a str>,
    pub payloads: Vec<Option<Payload<'a>>>,
    pub ranges: Vec<Option<&'a [u8]>>,
    pub fetched_at: Vec<Micros>,
    pub expires_at: Vec<Micros>,
    pub altered: Vec<bool>,
}

impl<'a> Batch<'a> {
    pub fn of(service: &'a str) -> Self {
        Batch {
            service,
            keys: Vec::new(),
            payloads: Vec::new(),
            ranges: Vec::new(),
            fetched_at: Vec::new(),
            expires_at: Vec::new(),
            altered: Vec::new(),
        }
    }

    pub fn args(&self) -> [Arg; 7] {
        let stamps = |at: &[Micros]| at.iter().map(|at| to_timestamp(*at)).collect::<Vec<TimestampWithTimeZone>>();
        [
            Arg::of(self.service),
            Arg::of(self.keys.clone()),
            Arg::of(self.payloads.iter().map(|payload| payload.as_ref().map(Payload::datum)).collect::<Vec<_>>()),
            if self.ranges.iter().any(Option::is_some) { Arg::of(self.ranges.clone()) } else { Arg::raw(None) },
            Arg::of(stamps(&self.fetched_at)),
            Arg::of(stamps(&self.expires_at)),
            Arg::of(self.altered.clone()),
        ]
    }
}

const BATCH_ARGS: &[pgrx::pg_sys::BuiltinOid] = &[
    TEXTOID,
    TEXTARRAYOID,
    JSONBARRAYOID,
    BYTEAARRAYOID,
    TIMESTAMPTZARRAYOID,
    TIMESTAMPTZARRAYOID,
    BOOLARRAYOID,
    INT8OID,
];

/// The columns of a batch as rows `u`: keys of this type, payload, ranges, fetched_at, expires_at, altered.
macro_rules! batch_sql {
    ($keys:literal) => {
        concat!(
            "(SELECT unnest($2::",
            $keys,
            ") AS k, unnest($3::jsonb[]) AS p, unnest($4::bytea[]) AS r, unnest($5::timestamptz[]) AS f,
                unnest($6::timestamptz[]) AS e, unnest($7::boolean[]) AS a) u"
        )
    };
}
use batch_sql;

// A row that is there is locked, in its turn, and left as it is: what becomes of it is decided next.
static INSERT: Statement = Statement {
    sql: concat!(
        "WITH new AS (
            INSERT INTO @extschema@.enrichment_cache AS c
                (service, cache_key, payload, ranges, response_status, fetched_at, expires_at, altered)
            SELECT $1, u.k, u.p, u.r, CASE WHEN u.p IS NULL THEN 'not_found' ELSE 'success' END, u.f, u.e, u.a FROM ",
        batch_sql!("text[]"),
        " ON CONFLICT (service, cache_key) DO UPDATE SET version = c.version WHERE false
            RETURNING c.id, c.cache_key, c.fetched_at),
        brought AS (
            INSERT INTO @extschema@.enrichment_migration_row (migration, cache_id, fetched_at)
            SELECT $8, n.id, n.fetched_at FROM new n)
        SELECT n.cache_key FROM new n"
    ),
    args: BATCH_ARGS,
};

/// Stores those whose keys are new and hands each over; the rows of the others are locked.
pub fn insert(run: i64, batch: &Batch, mut each: impl FnMut(String)) -> Result<(), Error> {
    let [a, b, c, d, e, f, g] = batch.args();
    spi::run(&INSERT, &[a, b, c, d, e, f, g, Arg::of(run)], Mode::Write, |row| {
        row.text(1).into_iter().for_each(&mut each)
    })?;
    Ok(())
}

/// What stands in the cache under a key.
pub struct Standing {
    pub key: String,
    pub fetched_at: Micros,
    /// An answer of the provider ("knows nothing" is one), not a failed attempt.
    pub answer: bool,
    /// The run that asks has brought an answer for the key, whether or not that still stands.
    pub ours: bool,
}

static STANDING: Statement = Statement {
    sql: "SELECT c.cache_key, c.fetched_at, c.response_status IN ('success', 'not_found'),
            EXISTS (SELECT FROM @extschema@.enrichment_migration_row r
                WHERE r.migration = $3 AND r.cache_id = c.id)
        FROM @extschema@.enrichment_cache c WHERE c.service = $1 AND c.cache_key = ANY ($2)",
    args: &[TEXTOID, TEXTARRAYOID, INT8OID],
};

/// What stands under these keys; no run for one that only tries.
pub fn standing(run: Option<i64>, service: &str, keys: Vec<&str>) -> Result<Vec<Standing>, Error> {
    let mut found = Vec::new();
    let mode = if run.is_some() { Mode::Write } else { Mode::Read };
    spi::run(&STANDING, &[Arg::of(service), Arg::of(keys), Arg::of(run)], mode, |row| {
        let at: Option<TimestampWithTimeZone> = row.get(2);
        if let (Some(key), Some(at), Some(answer)) = (row.text(1), at, row.get(3)) {
            found.push(Standing { key, fetched_at: to_micros(at), answer, ours: row.get(4).unwrap_or(false) });
        }
    })?;
    Ok(found)
}

static KEEP_OLD: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_migration_row (migration, cache_id, fetched_at, replaced, old_version, old_payload,
            old_ranges, old_status, old_fetched_at, old_expires_at, old_code, old_latency_ms, old_error, old_altered, old_etag,
            old_last_modified)
        SELECT $3, c.id, u.f, true, c.version, c.payload, c.ranges, c.response_status, c.fetched_at, c.expires_at,
            c.api_response_code, c.api_latency_ms, c.error_message, c.altered, c.etag, c.last_modified
        FROM (SELECT unnest($2::text[]) AS k, unnest($4::timestamptz[]) AS f) u
        JOIN @extschema@.enrichment_cache c ON c.service = $1 AND c.cache_key = u.k
        ON CONFLICT (migration, cache_id) DO UPDATE SET fetched_at = EXCLUDED.fetched_at",
    args: &[TEXTOID, TEXTARRAYOID, INT8OID, TIMESTAMPTZARRAYOID],
};

static REPLACE: Statement = Statement {
    sql: concat!(
        "UPDATE @extschema@.enrichment_cache c SET payload = u.p, ranges = u.r, fetched_at = u.f, expires_at = u.e,
            response_status = CASE WHEN u.p IS NULL THEN 'not_found' ELSE 'success' END,
            api_response_code = NULL, api_latency_ms = NULL, error_message = NULL, altered = u.a, etag = NULL,
            last_modified = NULL, version = c.version + 1
        FROM ",
        batch_sql!("text[]"),
        " WHERE c.service = $1 AND c.cache_key = u.k"
    ),
    args: BATCH_ARGS.split_at(7).0,
};

/// Replaces rows that are locked, and keeps what stood there for the way back.
pub fn replace(run: i64, batch: &Batch) -> Result<(), Error> {
    let runs = vec![Some(run); batch.keys.len()];
    chain::step_aside(batch.service, batch.keys.clone(), runs, batch.fetched_at.iter().copied(), |_| {})?;
    let [service, keys, _, _, fetched_at, ..] = batch.args();
    spi::run(&KEEP_OLD, &[service, keys, Arg::of(run), fetched_at], Mode::Write, |_| {})?;
    spi::run(&REPLACE, &batch.args(), Mode::Write, |_| {})?;
    Ok(())
}

static SETTLE: Statement = Statement { sql: "SELECT @extschema@.enrichment_payload_settle()", args: &[] };

/// Takes into the index of payloads what stands on its list of pending entries.
pub fn settle() -> Result<(), Error> {
    spi::run(&SETTLE, &[], Mode::Write, |_| {})?;
    Ok(())
}

static PAYLOAD_INDEXES: Statement = Statement {
    sql: "SELECT i.indexrelid FROM pg_catalog.pg_index i WHERE i.indrelid = '@extschema@.enrichment_cache'::pg_catalog.regclass",
    args: &[],
};

/// Bytes on that list.
pub fn unsettled() -> Result<i64, Error> {
    let mut bytes = 0;
    spi::run(&PAYLOAD_INDEXES, &[], Mode::Read, |row| bytes += row.get(1).map_or(0, pending::bytes))?;
    Ok(bytes)
}

static PROBLEMS: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_migration_problem (migration, path, outcome, reason)
        SELECT $1, u.p, u.o, u.r FROM unnest($2::text[], $3::text[], $4::text[]) AS u (p, o, r)",
    args: &[INT8OID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID],
};

/// Lists files that could not be taken: path, outcome, reason.
pub fn problems(run: i64, problems: &[(String, &'static str, String)]) -> Result<(), Error> {
    let args = [
        Arg::of(run),
        Arg::of(problems.iter().map(|(path, _, _)| path.as_str()).collect::<Vec<_>>()),
        Arg::of(problems.iter().map(|(_, outcome, _)| *outcome).collect::<Vec<_>>()),
        Arg::of(problems.iter().map(|(_, _, reason)| reason.as_str()).collect::<Vec<_>>()),
    ];
    spi::run(&PROBLEMS, &args, Mode::Write, |_| {})?;
    Ok(())
}

// What was asked for and came with the import is not asked; what is being asked right now is left to its answer.
static ANSWERED: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_queue q WHERE q.id IN (
            SELECT w.id FROM @extschema@.enrichment_queue w
            WHERE w.service = $1 AND w.cache_key = ANY ($2) AND w.state <> 'in_flight' FOR UPDATE SKIP LOCKED)",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Takes requests off the list that fresh answers have made needless; returns how many.
pub fn answered(service: &str, keys: Vec<&str>) -> Result<u64, Error> {
    spi::run(&ANSWERED, &[Arg::of(service), Arg::of(keys)], Mode::Write, |_| {})
}

static MARK: Statement = Statement {
    sql: "WITH wanted AS MATERIALIZED (
            SELECT i.source, i.raw_key FROM @extschema@.enrichment_indicator i
            JOIN @extschema@.enrichment_source s ON s.name = i.source
            WHERE i.cache_key = ANY ($2) AND NOT i.dirty AND s.services && $1
            ORDER BY i.source, i.raw_key FOR UPDATE OF i)
        UPDATE @extschema@.enrichment_indicator i SET dirty = true FROM wanted w
        WHERE i.source = w.source AND i.raw_key = w.raw_key",
    args: &[TEXTARRAYOID, TEXTARRAYOID],
};

/// Marks the rows of users' tables that wait for these keys for writing, locked in one order.
pub fn mark(services: Vec<String>, keys: Vec<&str>) -> Result<u64, Error> {
    spi::run(&MARK, &[Arg::of(services), Arg::of(keys)], Mode::Write, |_| {})
}
