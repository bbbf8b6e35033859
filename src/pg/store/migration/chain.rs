//! Statements on what runs have replaced under a key, one after the other: each row of `enrichment_migration_row` holds what
//! stood before, so that the runs can be taken back in any order.

use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_timestamp;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

/// What stood there before, as columns of a row with this name.
macro_rules! before {
    ($row:literal) => {
        concat!(
            $row,
            "replaced, ",
            $row,
            "old_version, ",
            $row,
            "old_payload, ",
            $row,
            "old_ranges, ",
            $row,
            "old_status, ",
            $row,
            "old_fetched_at, ",
            $row,
            "old_expires_at, ",
            $row,
            "old_code, ",
            $row,
            "old_latency_ms, ",
            $row,
            "old_error, ",
            $row,
            "old_altered, ",
            $row,
            "old_etag, ",
            $row,
            "old_last_modified"
        )
    };
}
pub(super) use before;

// Rows of one key are found by their run and the key: there are few runs, and no other index.
static STEP_ASIDE: Statement = Statement {
    sql: concat!(
        "WITH mine AS MATERIALIZED (
            SELECT r.*, c.cache_key FROM (SELECT unnest($2::text[]) AS k, unnest($3::int8[]) AS m, unnest($4::timestamptz[]) AS f) u
            JOIN @extschema@.enrichment_cache c ON c.service = $1 AND c.cache_key = u.k
            JOIN @extschema@.enrichment_migration_row r ON r.migration = u.m AND r.cache_id = c.id
            WHERE r.fetched_at < u.f AND r.fetched_at <> c.fetched_at),
        inherited AS (
            UPDATE @extschema@.enrichment_migration_row later SET (",
        before!(""),
        ") = ROW (",
        before!("m."),
        ") FROM mine m, @extschema@.enrichment_migration g
            WHERE later.migration = g.id AND g.id <> m.migration AND later.cache_id = m.cache_id AND later.replaced
              AND later.old_fetched_at = m.fetched_at),
        forgotten AS (
            DELETE FROM @extschema@.enrichment_history h USING mine m
            WHERE h.service = $1 AND h.cache_key = m.cache_key AND h.fetched_at = m.fetched_at)
        DELETE FROM @extschema@.enrichment_migration_row r USING mine m
        WHERE r.migration = m.migration AND r.cache_id = m.cache_id RETURNING m.cache_key"
    ),
    args: &[TEXTOID, TEXTARRAYOID, INT8ARRAYOID, TIMESTAMPTZARRAYOID],
};

/// What a run brought for a key and somebody has replaced since is taken out, before the same run brings a later observation
/// for it: a run has one place in the order. Hands over the keys of which something was taken out.
pub fn step_aside(
    service: &str,
    keys: Vec<&str>,
    runs: Vec<Option<i64>>,
    fetched_at: impl Iterator<Item = Micros>,
    mut each: impl FnMut(String),
) -> Result<(), Error> {
    let stamps: Vec<TimestampWithTimeZone> = fetched_at.map(to_timestamp).collect();
    let args = [Arg::of(service), Arg::of(keys), Arg::of(runs), Arg::of(stamps)];
    spi::run(&STEP_ASIDE, &args, Mode::Write, |row| row.text(1).into_iter().for_each(&mut each))?;
    Ok(())
}
