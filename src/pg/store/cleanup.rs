//! Removing from the cache what is past its expiry and the grace of its service, in batches.

use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

// What is looked through begins where the last batch ended: before that stand only entries that are gone, and would be
// visited again. A row that somebody is storing into is left for the next time.
static CLEANUP: Statement = Statement {
    sql: "WITH old AS MATERIALIZED (
            SELECT c.ctid AS place, c.expires_at FROM @extschema@.enrichment_cache c
            JOIN @extschema@.enrichment_service s ON s.name = c.service
            WHERE c.expires_at >= $2
              AND c.expires_at < pg_catalog.now() - (SELECT min(l.stale_ttl) FROM @extschema@.enrichment_service l)
              AND c.expires_at < pg_catalog.now() - s.stale_ttl
            ORDER BY c.expires_at LIMIT $1 FOR UPDATE OF c SKIP LOCKED),
          gone AS (DELETE FROM @extschema@.enrichment_cache d USING old WHERE d.ctid = old.place)
        SELECT count(*), max(expires_at) FROM old",
    args: &[INT8OID, TIMESTAMPTZOID],
};

/// How far a cleanup has come: the expiry of the last entry it deleted.
#[derive(Clone, Copy)]
pub struct CleanedTo(TimestampWithTimeZone);

impl Default for CleanedTo {
    fn default() -> Self {
        CleanedTo(TimestampWithTimeZone::negative_infinity())
    }
}

/// Deletes at most `rows` entries that are past expiry and the grace of their service, the oldest first, from where the
/// last batch ended.
pub fn cleanup(rows: i64, from: &mut CleanedTo) -> Result<i64, Error> {
    let mut deleted = 0;
    spi::run(&CLEANUP, &[Arg::of(rows), Arg::of(from.0)], Mode::Write, |row| {
        deleted = row.get(1).unwrap_or(0);
        if let Some(last) = row.get(2) {
            from.0 = last;
        }
    })?;
    Ok(deleted)
}
