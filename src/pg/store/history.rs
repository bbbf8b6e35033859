//! Statements on `enrichment_history`: what an answer has replaced.

use crate::core::error::Error;
use crate::pg::convert::RawJsonb;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

/// A row of the cache as it was before.
pub struct Earlier {
    pub service: String,
    pub key: String,
    pub version: i64,
    /// A `jsonb` value that stays where it is until the row is kept.
    pub payload: RawJsonb,
    pub ranges: Option<Vec<u8>>,
    pub fetched_at: TimestampWithTimeZone,
    pub altered: bool,
}

// The trigger of the cache runs this with whatever search_path its statement has.
static KEEP: Statement = Statement {
    sql:
        "INSERT INTO @extschema@.enrichment_history (service, cache_key, version, payload, ranges, fetched_at, altered)
        SELECT pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4),
            pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7)",
    args: &[TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, JSONBARRAYOID, BYTEAARRAYOID, TIMESTAMPTZARRAYOID, BOOLARRAYOID],
};

/// Keeps them all.
pub fn keep(earlier: Vec<Earlier>) -> Result<(), Error> {
    let texts = |pick: fn(&Earlier) -> &str| earlier.iter().map(pick).collect::<Vec<_>>();
    let args = [
        Arg::of(texts(|row| &row.service)),
        Arg::of(texts(|row| &row.key)),
        Arg::of(earlier.iter().map(|row| row.version).collect::<Vec<_>>()),
        Arg::of(earlier.iter().map(|row| RawJsonb(row.payload.0)).collect::<Vec<_>>()),
        Arg::of(earlier.iter().map(|row| row.ranges.as_deref()).collect::<Vec<_>>()),
        Arg::of(earlier.iter().map(|row| row.fetched_at).collect::<Vec<_>>()),
        Arg::of(earlier.iter().map(|row| row.altered).collect::<Vec<_>>()),
    ];
    spi::run(&KEEP, &args, Mode::Write, |_| {})?;
    Ok(())
}
