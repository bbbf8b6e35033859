//! Removing from the cache what is past its expiry and the grace of its service, in batches.

use crate::core::error::Error;
use crate::pg::removal::{Place, Table};
use crate::pg::spi::{self, Arg, Mode, Statement};
use crate::pg::store::migration::orphans;
use crate::pg::store::{self, registry};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

// What is looked through begins where the last batch ended: before that stand only entries that are gone, and would be
// visited again.
macro_rules! old_entries {
    () => {
        "SELECT c.ctid AS place, c.expires_at FROM @extschema@.enrichment_cache c
            JOIN @extschema@.enrichment_service s ON s.name = c.service
            WHERE c.expires_at >= $2
              AND c.expires_at < pg_catalog.now() - (SELECT min(l.stale_ttl) FROM @extschema@.enrichment_service l)
              AND c.expires_at < pg_catalog.now() - s.stale_ttl
            ORDER BY c.expires_at LIMIT $1"
    };
}

static OLD: Statement = Statement { sql: old_entries!(), args: &[INT8OID, TIMESTAMPTZOID] };

// A row that somebody is storing into is left for the next time.
static CLEANUP: Statement = Statement {
    sql: concat!(
        "WITH old AS MATERIALIZED (",
        old_entries!(),
        " FOR UPDATE OF c SKIP LOCKED),
          gone AS (DELETE FROM @extschema@.enrichment_cache d USING old WHERE d.ctid = old.place)
        SELECT count(*), max(expires_at) FROM old"
    ),
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

/// What a batch has done.
#[derive(Clone, Copy)]
pub struct Batch {
    pub removed: i64,
    /// Whether there may be more to remove.
    pub more: bool,
}

/// Deletes at most `rows` entries that are past expiry and the grace of their service, the oldest first, from where the
/// last batch ended; then, as part of them, answers that wait for their keys as long. A row that another transaction holds
/// is left for the next cleanup.
///
/// # Errors
/// The server's.
pub fn cleanup(rows: i64, from: &mut CleanedTo) -> Result<Batch, Error> {
    let entries = match by_place(rows, from)? {
        Some(batch) => batch,
        None => by_sql(rows, from)?,
    };
    if entries.more {
        return Ok(entries);
    }
    let orphans = orphans(rows - entries.removed, from)?;
    Ok(Batch { removed: entries.removed + orphans.removed, more: orphans.more })
}

/// Finds what is old, and deletes it where it stands; nothing where only SQL may delete, or none of it could be deleted, so that
/// what stands behind would never be reached.
fn by_place(rows: i64, from: &mut CleanedTo) -> Result<Option<Batch>, Error> {
    let table = store::table(c"enrichment_cache")?;
    if store::is_distributed(table)? {
        return Ok(None);
    }
    let Some(table) = Table::open(table) else { return Ok(None) };
    let (mut places, mut last) = (Vec::new(), from.entries);
    spi::run(&OLD, &[Arg::of(rows), Arg::of(from.entries)], Mode::Write, |row| {
        places.extend(row.get::<Place>(1));
        last = row.get(2).unwrap_or(last);
    })?;
    let (removed, more) = (table.delete(&places), places.len() as i64 == rows);
    if removed == 0 && more {
        return Ok(None);
    }
    from.entries = last;
    Ok(Some(Batch { removed: removed as i64, more }))
}

fn by_sql(rows: i64, from: &mut CleanedTo) -> Result<Batch, Error> {
    let mut removed = 0;
    spi::run(&CLEANUP, &[Arg::of(rows), Arg::of(from.entries)], Mode::Write, |row| {
        removed = row.get(1).unwrap_or(0);
        from.entries = row.get(2).unwrap_or(from.entries);
    })?;
    Ok(Batch { removed, more: removed == rows })
}

fn orphans(rows: i64, from: &mut CleanedTo) -> Result<Batch, Error> {
    let (mut removed, mut services) = (0, Vec::<String>::new());
    spi::run(&CLEANUP_ORPHANS, &[Arg::of(rows), Arg::of(from.orphans)], Mode::Write, |row| {
        removed = row.get(1).unwrap_or(0);
        from.orphans = row.get(2).unwrap_or(from.orphans);
        services = row.get(3).unwrap_or_default();
    })?;
    for service in services {
        if !orphans::any(&service)? {
            registry::announce_orphans()?;
        }
    }
    Ok(Batch { removed, more: removed == rows })
}
