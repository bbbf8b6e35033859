//! Statements that write down what look-ups counted: figures per service and day, hits per row.

use crate::core::error::Error;
use crate::pg::convert::to_timestamp;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

static COUNT: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_cache_stats AS s (service, day, cache_hits, cache_misses, touches_dropped, disk_hits)
        VALUES ($1, (pg_catalog.now() AT TIME ZONE 'UTC')::date, $2, $3, $4, $5)
        ON CONFLICT (service, day) DO UPDATE SET
            cache_hits = s.cache_hits + EXCLUDED.cache_hits,
            cache_misses = s.cache_misses + EXCLUDED.cache_misses,
            touches_dropped = s.touches_dropped + EXCLUDED.touches_dropped,
            disk_hits = s.disk_hits + EXCLUDED.disk_hits",
    args: &[TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID],
};

/// Adds to the figures of the current UTC day: hits, misses, dropped touches, misses that files answered.
pub fn count(service: &str, [hits, misses, dropped, files]: [i64; 4]) -> Result<(), Error> {
    let args = [Arg::of(service), Arg::of(hits), Arg::of(misses), Arg::of(dropped), Arg::of(files)];
    spi::run(&COUNT, &args, Mode::Write, |_| {})?;
    Ok(())
}

/// Hits of one row since they were last written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hits {
    pub id: i64,
    pub hits: i64,
    /// The last of them.
    pub at: crate::core::Micros,
}

// A row that somebody else has locked is left out: a count is not worth a wait. One probe for each row, whatever the
// planner believes of the table's size.
static TOUCH: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_cache c
        SET hit_count = c.hit_count + t.hits, accessed_at = greatest(c.accessed_at, t.at)
        FROM unnest($1::int8[], $2::int8[], $3::timestamptz[]) AS t (id, hits, at)
        CROSS JOIN LATERAL (
            SELECT l.ctid AS place FROM @extschema@.enrichment_cache l WHERE l.id = t.id
            LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) found
        WHERE c.ctid = found.place",
    args: &[INT8ARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID],
};

/// Adds hits to rows; says how many rows there were. The others are gone, or locked by somebody else.
pub fn touch(rows: &[Hits]) -> Result<u64, Error> {
    let args = [
        Arg::of(rows.iter().map(|row| row.id).collect::<Vec<i64>>()),
        Arg::of(rows.iter().map(|row| row.hits).collect::<Vec<i64>>()),
        Arg::of(rows.iter().map(|row| to_timestamp(row.at)).collect::<Vec<TimestampWithTimeZone>>()),
    ];
    spi::run(&TOUCH, &args, Mode::Write, |_| {})
}
