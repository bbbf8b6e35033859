//! Statements on `enrichment_arrival`: keys that triggers, sweeps and refreshes have seen, some thousands in a row.

use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

/// How many keys stand in one row at most.
pub const KEYS_A_ROW: usize = 2000;

/// A distinct key of a source, and what its rows say of its worth.
pub struct Seen {
    pub raw_key: String,
    pub rows: i64,
    pub weight: f64,
    pub latest: Option<TimestampWithTimeZone>,
    /// Whether one of its rows stands unfilled.
    pub unfilled: bool,
}

/// Keys as the parallel arrays that statements take.
pub fn columns(keys: Vec<Seen>) -> [Arg; 4] {
    let n = keys.len();
    let (mut raw, mut rows, mut weights, mut latest) =
        (Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n), Vec::with_capacity(n));
    for key in keys {
        raw.push(key.raw_key);
        rows.push(key.rows);
        weights.push(key.weight);
        latest.push(key.latest);
    }
    [Arg::of(raw), Arg::of(rows), Arg::of(weights), Arg::of(latest)]
}

static NOTE: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_arrival (source, raw_keys, row_counts, weights, latest, urgent, moved)
        VALUES ($1, $2, $3, $4, $5, $6, $7)",
    args: &[TEXTOID, TEXTARRAYOID, INT8ARRAYOID, FLOAT8ARRAYOID, TIMESTAMPTZARRAYOID, BOOLOID, BOOLOID],
};

/// Why keys are put on the list.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Rows came, or are to be written again.
    New,
    /// Somebody waits for them: they are asked before others.
    Urgent,
    /// Rows had another key before, and may hold what is known of that.
    Moved,
}

/// Puts keys of a source on the list, as one row. No key at all asks for a sweep of the table.
pub fn note(source: &str, keys: Vec<Seen>, why: Why) -> Result<(), Error> {
    let [raw, rows, weights, latest] = columns(keys);
    let (urgent, moved) = (Arg::of(why == Why::Urgent), Arg::of(why == Why::Moved));
    spi::run(&NOTE, &[Arg::of(source), raw, rows, weights, latest, urgent, moved], Mode::Write, |_| {})?;
    Ok(())
}

// Only appends, as triggers do: a writer that keeps its transaction open must not keep the worker from the keys of others.
static NOTE_ANSWERED: Statement = Statement {
    sql: "WITH known AS (
            SELECT i.source, i.raw_key,
                (pg_catalog.row_number() OVER (PARTITION BY i.source ORDER BY i.raw_key) - 1) / $3 AS part
            FROM @extschema@.enrichment_indicator i JOIN @extschema@.enrichment_source s ON s.name = i.source
            WHERE i.cache_key = ANY ($2) AND $1 = ANY (s.services) AND s.shape <> 'none')
        INSERT INTO @extschema@.enrichment_arrival (source, raw_keys, row_counts, weights, latest)
        SELECT k.source, pg_catalog.array_agg(k.raw_key), pg_catalog.array_agg(0::int8), pg_catalog.array_agg(0::float8),
            pg_catalog.array_agg(NULL::timestamptz)
        FROM known k GROUP BY k.source, k.part",
    args: &[TEXTOID, TEXTARRAYOID, INT8OID],
};

/// Puts the keys of attached tables for which an answer of this service was stored on the list, so that it is written into their
/// rows; says whether there are any.
pub fn note_answered(service: &str, keys: Vec<String>) -> Result<bool, Error> {
    let args = [Arg::of(service), Arg::of(keys), Arg::of(KEYS_A_ROW as i64)];
    Ok(spi::run(&NOTE_ANSWERED, &args, Mode::Write, |_| {})? > 0)
}

/// What was taken off the list for one key of a source, or for a source alone.
pub struct Arrival {
    pub source: String,
    /// None: the table is to be swept.
    pub key: Option<Seen>,
    pub urgent: bool,
    /// Whether one of its rows had another key before.
    pub moved: bool,
}

static TAKE: Statement = Statement {
    sql: "WITH next AS MATERIALIZED (
            SELECT a.id, a.key_count FROM @extschema@.enrichment_arrival a ORDER BY a.id LIMIT 2000 FOR UPDATE SKIP LOCKED),
        few AS (
            SELECT s.id FROM (SELECT n.id, pg_catalog.sum(n.key_count) OVER (ORDER BY n.id) - n.key_count AS before FROM next n) s
            WHERE s.before < $1),
        taken AS (
            DELETE FROM @extschema@.enrichment_arrival a WHERE a.id IN (SELECT f.id FROM few f)
            RETURNING a.source, a.raw_keys, a.row_counts, a.weights, a.latest, a.urgent, a.moved)
        SELECT t.source, u.raw_key, t.urgent, pg_catalog.sum(u.row_count)::int8, pg_catalog.sum(u.weight),
            pg_catalog.max(u.latest), pg_catalog.bool_or(t.moved)
        FROM taken t
        LEFT JOIN LATERAL ROWS FROM (pg_catalog.unnest(t.raw_keys), pg_catalog.unnest(t.row_counts),
            pg_catalog.unnest(t.weights), pg_catalog.unnest(t.latest)) AS u (raw_key, row_count, weight, latest) ON true
        GROUP BY t.source, u.raw_key, t.urgent",
    args: &[INT8OID],
};

/// Takes rows off the list until they hold `n` keys; repeats come once.
pub fn take(n: i64) -> Result<Vec<Arrival>, Error> {
    let mut arrivals = Vec::new();
    spi::run(&TAKE, &[Arg::of(n)], Mode::Write, |row| {
        let Some(source) = row.text(1) else { return };
        let key = row.text(2).map(|raw_key| Seen {
            raw_key,
            rows: row.get(4).unwrap_or(0),
            weight: row.get(5).unwrap_or(0.0),
            latest: row.get(6),
            unfilled: false,
        });
        arrivals.push(Arrival { source, key, urgent: row.get(3).unwrap_or(false), moved: row.get(7).unwrap_or(false) });
    })?;
    Ok(arrivals)
}
