//! Removing from the cache what is past its expiry and the grace of its service, in batches.

use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode, Statement};
use crate::pg::store::migration::orphans;
use crate::pg::store::registry;
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

// What waits under the digest of an unknown key is kept as long as what stands under a key.
static CLEANUP_ORPHANS: Statement = Statement {
    sql: "WITH old AS MATERIALIZED (
            SELECT o.ctid AS place, o.service, o.expires_at FROM @extschema@.enrichment_orphan o
            JOIN @extschema@.enrichment_service s ON s.name = o.service
            WHERE o.expires_at >= $2
              AND o.expires_at < pg_catalog.now() - (SELECT min(l.stale_ttl) FROM @extschema@.enrichment_service l)
              AND o.expires_at < pg_catalog.now() - s.stale_ttl
            ORDER BY o.expires_at LIMIT $1 FOR UPDATE OF o SKIP LOCKED),
          gone AS (DELETE FROM @extschema@.enrichment_orphan d USING old WHERE d.ctid = old.place)
        SELECT count(*), max(expires_at), array_agg(DISTINCT service) FROM old",
    args: &[INT8OID, TIMESTAMPTZOID],
};

/// How far a cleanup has come: the expiry of the last entry it deleted, and of the last answer of an unknown key.
#[derive(Clone, Copy)]
pub struct CleanedTo {
    entries: TimestampWithTimeZone,
    orphans: TimestampWithTimeZone,
}

impl Default for CleanedTo {
    fn default() -> Self {
        let start = TimestampWithTimeZone::negative_infinity();
        CleanedTo { entries: start, orphans: start }
    }
}

/// Deletes at most `rows` entries that are past expiry and the grace of their service, the oldest first, from where the
/// last batch ended; then, as part of them, answers that wait for their keys as long.
pub fn cleanup(rows: i64, from: &mut CleanedTo) -> Result<i64, Error> {
    let mut deleted = 0;
    spi::run(&CLEANUP, &[Arg::of(rows), Arg::of(from.entries)], Mode::Write, |row| {
        deleted = row.get(1).unwrap_or(0);
        from.entries = row.get(2).unwrap_or(from.entries);
    })?;
    if deleted == rows {
        return Ok(deleted);
    }
    let mut services: Vec<String> = Vec::new();
    spi::run(&CLEANUP_ORPHANS, &[Arg::of(rows - deleted), Arg::of(from.orphans)], Mode::Write, |row| {
        deleted += row.get(1).unwrap_or(0);
        from.orphans = row.get(2).unwrap_or(from.orphans);
        services = row.get(3).unwrap_or_default();
    })?;
    for service in services {
        if !orphans::any(&service)? {
            registry::announce_orphans()?;
        }
    }
    Ok(deleted)
}
