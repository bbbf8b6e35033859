//! Statements on `enrichment_indicator`: each key of a user's table once, however many rows wait for it, and whether its
//! rows are to be written again.

use super::arrivals::{self, Seen};
use crate::core::error::Error;
use crate::pg::backlog;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::HashSet;

/// A key of a source, judged: its normal form, or why it has none.
pub struct Judged {
    pub seen: Seen,
    pub verdict: Result<String, String>,
    /// Whether one of its rows had another key before.
    pub moved: bool,
}

// A key that is never asked about is written once too, when a row with answers came to it: they are another key's.
static FOLD: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_indicator AS i
            (source, raw_key, cache_key, problem, dirty, moved, row_count, weight, latest)
        SELECT $1, u.raw_key, u.cache_key, u.problem, u.problem IS NULL OR u.moved, u.moved, u.row_count, u.weight, u.latest
        FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
            pg_catalog.unnest($6), pg_catalog.unnest($7), pg_catalog.unnest($8))
            AS u (raw_key, row_count, weight, latest, cache_key, problem, moved)
        ORDER BY u.raw_key
        ON CONFLICT (source, raw_key) DO UPDATE SET
            dirty = i.cache_key IS NOT NULL OR i.moved OR EXCLUDED.moved, moved = i.moved OR EXCLUDED.moved,
            row_count = CASE WHEN $9 THEN greatest(i.row_count, EXCLUDED.row_count) ELSE i.row_count + EXCLUDED.row_count END,
            weight = CASE WHEN $9 THEN greatest(i.weight, EXCLUDED.weight) ELSE i.weight + EXCLUDED.weight END,
            latest = greatest(i.latest, EXCLUDED.latest)",
    args: &[
        TEXTOID,
        TEXTARRAYOID,
        INT8ARRAYOID,
        FLOAT8ARRAYOID,
        TIMESTAMPTZARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        BOOLARRAYOID,
        BOOLOID,
    ],
};

/// Adds keys to a source; the rows of one that is known are written again. These rows are new ones, or (`again`) some
/// that may have been counted before.
pub fn fold(source: &str, judged: Vec<Judged>, again: bool) -> Result<(), Error> {
    let cache_keys: Vec<Option<String>> = judged.iter().map(|key| key.verdict.clone().ok()).collect();
    let problems: Vec<Option<String>> = judged.iter().map(|key| key.verdict.clone().err()).collect();
    let moved: Vec<bool> = judged.iter().map(|key| key.moved).collect();
    let [raw, rows, weights, latest] = arrivals::columns(judged.into_iter().map(|key| key.seen).collect());
    let (cache_keys, problems, moved) = (Arg::of(cache_keys), Arg::of(problems), Arg::of(moved));
    let args = [Arg::of(source), raw, rows, weights, latest, cache_keys, problems, moved, Arg::of(again)];
    spi::run(&FOLD, &args, Mode::Write, |_| {})?;
    Ok(())
}

static ANALYSE: Statement =
    Statement { sql: "ANALYZE @extschema@.enrichment_indicator (source, raw_key, cache_key, dirty)", args: &[] };

/// Tells the planner what the table holds now.
pub fn analyse() -> Result<(), Error> {
    spi::run(&ANALYSE, &[], Mode::Write, |_| {})?;
    Ok(())
}

static ANSWERED: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_indicator i SET dirty = true
        FROM @extschema@.enrichment_source s
        WHERE i.cache_key = ANY ($2) AND s.name = i.source AND $1 = ANY (s.services)",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Marks the rows of newly answered keys for writing, in every source that asks this service. Marked ones too: somebody may be
/// writing what was known before, and has taken the mark off in a transaction that goes on; this waits for it.
pub fn answered(service: &str, keys: Vec<String>) -> Result<(), Error> {
    spi::run(&ANSWERED, &[Arg::of(service), Arg::of(keys)], Mode::Write, |_| {})?;
    Ok(())
}

// OFFSET 0 keeps both inner queries as they are: a join would read the queue whole.
static DIRTY: Statement = Statement {
    sql: "SELECT d.raw_key, d.row_count FROM (
            SELECT i.raw_key, i.row_count, i.cache_key FROM @extschema@.enrichment_indicator i
            WHERE i.source = $1 AND i.dirty AND i.raw_key >= $6 AND i.raw_key <> ALL ($3)
            ORDER BY i.raw_key OFFSET 0) d
        WHERE ($4 = 1 OR (pg_catalog.hashtext(d.raw_key) & 2147483647) % $4 = ANY ($5))
            AND NOT EXISTS (SELECT FROM @extschema@.enrichment_queue q
                WHERE q.service = ANY ($7) AND q.cache_key = d.cache_key AND q.state = 'in_flight' OFFSET 0)
        LIMIT $2",
    args: &[TEXTOID, INT8OID, TEXTARRAYOID, INT4OID, INT4ARRAYOID, TEXTOID, TEXTARRAYOID],
};

/// Which keys a process writes: those whose hash, modulo `of`, is one of `mine`.
#[derive(Clone, PartialEq, Eq)]
pub struct Share {
    pub of: i32,
    pub mine: Vec<i32>,
}

impl Default for Share {
    /// All of them.
    fn default() -> Self {
        Share { of: 1, mine: vec![0] }
    }
}

/// Keys of a source whose rows are to be written, until they have `rows` rows together (at least one key), `most` keys at
/// most, from the key `from` on; `resting` ones are left out, and those about which one of the services is being asked just
/// now: its answer goes into the same rows.
pub fn dirty(
    (source, services): (&str, &[String]),
    (rows, most): (i64, usize),
    from: &str,
    resting: Vec<String>,
    share: &Share,
) -> Result<Vec<(String, i64)>, Error> {
    let (mut keys, mut sum) = (Vec::new(), 0i64);
    let most = i64::try_from(most).map_or(rows, |most| most.clamp(1, rows.max(1)));
    let (of, mine) = (Arg::of(share.of), Arg::of(share.mine.clone()));
    let services = Arg::of(services.to_vec());
    let args = [Arg::of(source), Arg::of(most), Arg::of(resting), of, mine, Arg::of(from), services];
    spi::without_sorting(|| {
        spi::run(&DIRTY, &args, Mode::Write, |row| {
            let count = row.get::<i64>(2).unwrap_or(1).max(1);
            if let Some(key) = row.text(1).filter(|_| keys.is_empty() || sum.saturating_add(count) <= rows) {
                sum = sum.saturating_add(count);
                keys.push((key, count));
            } else {
                sum = i64::MAX;
            }
        })
    })?;
    Ok(keys)
}

static WRITTEN: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_indicator SET dirty = false, written_at = pg_catalog.now()
        WHERE source = $1 AND raw_key = ANY ($2) RETURNING raw_key, cache_key, moved",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Keys whose marks were taken off, those of them that the source still has.
#[derive(Default)]
pub struct Taken {
    pub raw_keys: Vec<String>,
    /// Of each its normal form, under which answers stand; None for one that is never asked about.
    pub cache_keys: Vec<Option<String>>,
    /// Those of which some rows had another key before; they stay marked as such until [`settled`].
    pub moved: Vec<String>,
}

/// Takes the marks off. Before the answers are read: see [`answered`].
pub fn written(source: &str, raw_keys: Vec<String>) -> Result<Taken, Error> {
    let mut taken = Taken::default();
    spi::run(&WRITTEN, &[Arg::of(source), Arg::of(raw_keys)], Mode::Write, |row| {
        let Some(raw_key) = row.text(1) else { return };
        if row.get(3) == Some(true) {
            taken.moved.push(raw_key.clone());
        }
        taken.raw_keys.push(raw_key);
        taken.cache_keys.push(row.text(2));
    })?;
    Ok(taken)
}

static SETTLED: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_indicator SET moved = false WHERE source = $1 AND raw_key = ANY ($2)",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Nothing of another key stands in the rows of these any more.
pub fn settled(source: &str, raw_keys: Vec<String>) -> Result<(), Error> {
    if !raw_keys.is_empty() {
        spi::run(&SETTLED, &[Arg::of(source), Arg::of(raw_keys)], Mode::Write, |_| {})?;
    }
    Ok(())
}

static UNWRITTEN: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_indicator SET dirty = true WHERE source = $1 AND raw_key = $2",
    args: &[TEXTOID, TEXTOID],
};

/// Marks a key whose rows are not all written.
pub fn unwritten(source: &str, raw_key: &str) -> Result<(), Error> {
    spi::run(&UNWRITTEN, &[Arg::of(source), Arg::of(raw_key)], Mode::Write, |_| {})?;
    Ok(())
}

static RECOUNT: Statement = Statement {
    sql: "WITH seen AS MATERIALIZED (
            SELECT u.raw_key, u.row_count, u.weight, u.latest, u.unfilled, i.raw_key IS NOT NULL AS known,
                i.cache_key, i.dirty, i.moved, i.written_at,
                i.row_count IS DISTINCT FROM u.row_count OR i.weight IS DISTINCT FROM u.weight
                    OR i.latest IS DISTINCT FROM u.latest AS changed,
                u.row_count > i.row_count OR u.latest > i.latest AS more
            FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5),
                pg_catalog.unnest($6)) AS u (raw_key, row_count, weight, latest, unfilled)
            LEFT JOIN @extschema@.enrichment_indicator i ON i.source = $1 AND i.raw_key = u.raw_key),
        counted AS (
            UPDATE @extschema@.enrichment_indicator i SET row_count = s.row_count, weight = s.weight, latest = s.latest
            FROM seen s WHERE s.known AND s.changed AND i.source = $1 AND i.raw_key = s.raw_key),
        unwritten AS (
            -- stands unfilled although an answer is there, or an answer came that nobody told of, or rows that no trigger
            -- saw: they may hold the answer for the key they had before
            SELECT s.raw_key, 0::int8 AS row_count, 0::float8 AS weight, NULL::timestamptz AS latest FROM seen s
            WHERE s.known AND NOT s.dirty AND (s.moved OR s.cache_key IS NOT NULL AND EXISTS (
                SELECT FROM @extschema@.enrichment_cache c
                WHERE c.service = ANY ($7) AND c.cache_key = s.cache_key AND c.response_status IN ('success', 'not_found')
                  AND (s.unfilled OR s.more OR c.fetched_at > s.written_at)))),
        noted AS (
            INSERT INTO @extschema@.enrichment_arrival (source, raw_keys, row_counts, weights, latest)
            SELECT $1, pg_catalog.array_agg(n.raw_key), pg_catalog.array_agg(n.row_count), pg_catalog.array_agg(n.weight),
                pg_catalog.array_agg(n.latest)
            FROM (SELECT s.raw_key, s.row_count, s.weight, s.latest FROM seen s WHERE NOT s.known
                UNION ALL SELECT * FROM unwritten) n HAVING pg_catalog.count(*) > 0
            RETURNING key_count)
        SELECT (SELECT pg_catalog.count(*) FROM seen s WHERE s.known), (SELECT n.key_count FROM noted n)",
    args: &[
        TEXTOID,
        TEXTARRAYOID,
        INT8ARRAYOID,
        FLOAT8ARRAYOID,
        TIMESTAMPTZARRAYOID,
        BOOLARRAYOID,
        TEXTARRAYOID,
    ],
};

/// What a portion of a sweep found.
#[derive(Default)]
pub struct Recounted {
    /// Keys that were known.
    pub known: i64,
    /// Keys that are new, or whose rows are to be written.
    pub noted: i64,
}

/// Takes over what a sweep counted of some keys; new ones and those with unfilled rows are put on the list of arrivals.
pub fn recount(source: &str, services: &[String], keys: Vec<Seen>) -> Result<Recounted, Error> {
    let unfilled: Vec<bool> = keys.iter().map(|key| key.unfilled).collect();
    let [raw, rows, weights, latest] = arrivals::columns(keys);
    let args = [Arg::of(source), raw, rows, weights, latest, Arg::of(unfilled), Arg::of(services.to_vec())];
    let mut found = Recounted::default();
    spi::run(&RECOUNT, &args, Mode::Write, |row| {
        found = Recounted { known: row.get(1).unwrap_or(0), noted: row.get::<i32>(2).map_or(0, i64::from) };
    })?;
    Ok(found)
}

static COUNT: Statement = Statement {
    sql: "SELECT pg_catalog.count(*) FROM @extschema@.enrichment_indicator WHERE source = $1",
    args: &[TEXTOID],
};

pub fn count(source: &str) -> Result<i64, Error> {
    let mut count = 0;
    spi::run(&COUNT, &[Arg::of(source)], Mode::Write, |row| count = row.get(1).unwrap_or(0))?;
    Ok(count)
}

static NAMES: Statement = Statement {
    sql: "SELECT i.raw_key FROM @extschema@.enrichment_indicator i WHERE i.source = $1 AND i.raw_key > $2
        ORDER BY i.raw_key LIMIT $3",
    args: &[TEXTOID, TEXTOID, INT8OID],
};

// A request that nobody made by name (its priority is below 0) goes with the last row that waited for it.
static FORGET: Statement = Statement {
    sql: "WITH gone AS (
            DELETE FROM @extschema@.enrichment_indicator i
            WHERE i.source = $1 AND i.raw_key = ANY ($2) AND NOT (i.moved AND i.dirty)
            RETURNING i.source, i.raw_key, i.cache_key)
        DELETE FROM @extschema@.enrichment_queue q USING gone g, @extschema@.enrichment_source s
        WHERE s.name = g.source AND q.service = ANY (s.services) AND q.cache_key = g.cache_key
          AND q.state = 'waiting' AND q.priority < 0
          AND NOT EXISTS (SELECT FROM @extschema@.enrichment_indicator o JOIN @extschema@.enrichment_source p ON p.name = o.source
            WHERE o.cache_key = q.cache_key AND (o.source, o.raw_key) <> (g.source, g.raw_key) AND q.service = ANY (p.services))",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Forgets the keys of a source that a whole sweep did not meet (`met` takes their hash).
pub fn forget_others(source: &str, met: &HashSet<u64>, hash: impl Fn(&str) -> u64) -> Result<(), Error> {
    const PORTION: i64 = 10_000;
    let mut after = String::new();
    loop {
        let mut names: Vec<String> = Vec::new();
        let args = [Arg::of(source), Arg::of(after.as_str()), Arg::of(PORTION)];
        spi::run(&NAMES, &args, Mode::Write, |row| names.extend(row.text(1)))?;
        let Some(last) = names.last().cloned() else { return Ok(()) };
        let gone: Vec<String> = names.into_iter().filter(|name| !met.contains(&hash(name))).collect();
        if !gone.is_empty() {
            let withdrawn = spi::run(&FORGET, &[Arg::of(source), Arg::of(gone)], Mode::Write, |_| {})?;
            backlog::note(-(withdrawn as i64));
        }
        after = last;
    }
}
