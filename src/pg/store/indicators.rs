//! Statements on `enrichment_arrival` and `enrichment_indicator`: each key of a user's table once, however many rows
//! wait for it, and whether its rows are to be written again.

use crate::core::error::Error;
use crate::pg::backlog;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

/// A distinct key a trigger or a sweep has seen.
pub struct Arrival {
    pub source: String,
    pub raw_key: String,
    pub urgent: bool,
}

static TAKE: Statement = Statement {
    sql: "WITH taken AS (
            DELETE FROM @extschema@.enrichment_arrival a
            WHERE a.id IN (SELECT b.id FROM @extschema@.enrichment_arrival b ORDER BY b.id LIMIT $1 FOR UPDATE SKIP LOCKED)
            RETURNING a.source, a.raw_key, a.urgent)
        SELECT t.source, t.raw_key, pg_catalog.bool_or(t.urgent) FROM taken t GROUP BY t.source, t.raw_key",
    args: &[INT8OID],
};

/// Takes at most `n` arrivals off the list; repeats come once.
pub fn take_arrivals(n: i64) -> Result<Vec<Arrival>, Error> {
    let mut arrivals = Vec::new();
    spi::run(&TAKE, &[Arg::of(n)], Mode::Write, |row| {
        if let (Some(source), Some(raw_key)) = (row.text(1), row.text(2)) {
            arrivals.push(Arrival { source, raw_key, urgent: row.get(3).unwrap_or(false) });
        }
    })?;
    Ok(arrivals)
}

/// A key of a source, judged.
pub struct Judged {
    pub raw_key: String,
    pub cache_key: Option<String>,
    pub problem: Option<String>,
}

static FOLD: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_indicator AS i (source, raw_key, cache_key, problem, dirty)
        SELECT $1, u.raw_key, u.cache_key, u.problem, u.problem IS NULL
        FROM unnest($2::text[], $3::text[], $4::text[]) AS u (raw_key, cache_key, problem)
        ORDER BY u.raw_key
        ON CONFLICT (source, raw_key) DO UPDATE SET dirty = true
        WHERE NOT i.dirty AND i.cache_key IS NOT NULL",
    args: &[TEXTOID, TEXTARRAYOID, TEXTARRAYOID, TEXTARRAYOID],
};

/// Adds keys to a source; one that is known already has new rows, so its rows are written again.
pub fn fold(source: &str, judged: &[Judged]) -> Result<(), Error> {
    let args = [
        Arg::of(source),
        Arg::of(judged.iter().map(|key| key.raw_key.clone()).collect::<Vec<_>>()),
        Arg::of(judged.iter().map(|key| key.cache_key.clone()).collect::<Vec<_>>()),
        Arg::of(judged.iter().map(|key| key.problem.clone()).collect::<Vec<_>>()),
    ];
    spi::run(&FOLD, &args, Mode::Write, |_| {})?;
    Ok(())
}

static ANSWERED: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_indicator i SET dirty = true
        FROM @extschema@.enrichment_source s
        WHERE i.cache_key = ANY ($2) AND NOT i.dirty AND s.name = i.source AND $1 = ANY (s.services)",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Marks the rows of newly answered keys for writing, in every source that asks this service.
pub fn answered(service: &str, keys: Vec<String>) -> Result<(), Error> {
    spi::run(&ANSWERED, &[Arg::of(service), Arg::of(keys)], Mode::Write, |_| {})?;
    Ok(())
}

static ASK_MISSING: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_queue (service, cache_key)
        SELECT DISTINCT s.name, i.cache_key
        FROM @extschema@.enrichment_indicator i
        JOIN @extschema@.enrichment_service s ON s.name = ANY ($2)
        WHERE i.source = $1 AND i.cache_key IS NOT NULL AND s.enabled
          AND NOT EXISTS (SELECT FROM @extschema@.enrichment_cache c
            WHERE c.service = s.name AND c.cache_key = i.cache_key AND c.expires_at > pg_catalog.now()
              AND c.response_status IN ('success', 'not_found'))
          AND NOT EXISTS (SELECT FROM @extschema@.enrichment_queue q
            WHERE q.service = s.name AND q.cache_key = i.cache_key)
        LIMIT $3
        ON CONFLICT (service, cache_key) DO NOTHING",
    args: &[TEXTOID, TEXTARRAYOID, INT8OID],
};

/// Requests the keys of a source that have no fresh answer and no request yet, at most so many; returns how many.
pub fn ask_missing(source: &str, services: &[String], most: i64) -> Result<u64, Error> {
    let args = [Arg::of(source), Arg::of(services.to_vec()), Arg::of(most)];
    let asked = spi::run(&ASK_MISSING, &args, Mode::Write, |_| {})?;
    backlog::note(asked as i64);
    Ok(asked)
}

static DIRTY: Statement = Statement {
    sql: "SELECT i.raw_key FROM @extschema@.enrichment_indicator i
        WHERE i.source = $1 AND i.dirty AND i.raw_key <> ALL ($3)
        ORDER BY i.raw_key LIMIT $2 FOR UPDATE SKIP LOCKED",
    args: &[TEXTOID, INT8OID, TEXTARRAYOID],
};

/// Locks at most `n` keys of a source whose rows are to be written, `resting` ones left out.
pub fn dirty(source: &str, n: i64, resting: Vec<String>) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    spi::run(&DIRTY, &[Arg::of(source), Arg::of(n), Arg::of(resting)], Mode::Write, |row| keys.extend(row.text(1)))?;
    Ok(keys)
}

static WRITTEN: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_indicator SET dirty = false, written_at = pg_catalog.now()
        WHERE source = $1 AND raw_key = ANY ($2)",
    args: &[TEXTOID, TEXTARRAYOID],
};

pub fn written(source: &str, raw_keys: Vec<String>) -> Result<(), Error> {
    spi::run(&WRITTEN, &[Arg::of(source), Arg::of(raw_keys)], Mode::Write, |_| {})?;
    Ok(())
}
