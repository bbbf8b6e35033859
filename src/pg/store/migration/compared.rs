//! Statements that compare files of an import with what stands in their place.

use super::Batch;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_micros;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

/// What stands in the place of a file.
pub struct Compared {
    pub fetched_at: Micros,
    pub same: bool,
}

static COMPARE: Statement = Statement {
    sql: "SELECT u.n, c.fetched_at, c.payload IS NOT DISTINCT FROM u.p AND c.ranges IS NOT DISTINCT FROM u.r
        FROM (SELECT unnest($2::text[]) AS k, unnest($3::jsonb[]) AS p, unnest($4::bytea[]) AS r,
            pg_catalog.generate_subscripts($2, 1) AS n) u
        JOIN @extschema@.enrichment_cache c ON c.service = $1 AND c.cache_key = u.k",
    args: &[TEXTOID, TEXTARRAYOID, JSONBARRAYOID, BYTEAARRAYOID],
};

/// For each answer of a batch (times are not looked at), what stands in the cache.
pub fn compare(batch: &Batch) -> Result<Vec<Option<Compared>>, Error> {
    let [service, keys, payloads, ranges, ..] = batch.args();
    compared(&COMPARE, &[service, keys, payloads, ranges], batch.keys.len())
}

static COMPARE_ORPHANS: Statement = Statement {
    sql: "SELECT u.n, o.fetched_at, o.payload IS NOT DISTINCT FROM u.p AND o.ranges IS NOT DISTINCT FROM u.r
        FROM (SELECT unnest($2::bytea[]) AS d, unnest($3::jsonb[]) AS p, unnest($4::bytea[]) AS r,
            pg_catalog.generate_subscripts($2, 1) AS n) u
        CROSS JOIN LATERAL (SELECT x.* FROM @extschema@.enrichment_orphan x WHERE x.service = $1 AND x.digest = u.d
            ORDER BY x.fetched_at DESC LIMIT 1) o",
    args: &[TEXTOID, BYTEAARRAYOID, JSONBARRAYOID, BYTEAARRAYOID],
};

/// The same for answers that are kept under a digest, the newest of each.
pub fn compare_orphans(batch: &Batch, digests: Vec<&[u8]>) -> Result<Vec<Option<Compared>>, Error> {
    let [service, _, payloads, ranges, ..] = batch.args();
    let n = digests.len();
    compared(&COMPARE_ORPHANS, &[service, Arg::of(digests), payloads, ranges], n)
}

fn compared(statement: &'static Statement, args: &[Arg], n: usize) -> Result<Vec<Option<Compared>>, Error> {
    let mut found: Vec<Option<Compared>> = (0..n).map(|_| None).collect();
    spi::run(statement, args, Mode::Read, |row| {
        let at: Option<TimestampWithTimeZone> = row.get(2);
        let place = row.get::<i32>(1).and_then(|number| found.get_mut(number as usize - 1));
        if let (Some(place), Some(at)) = (place, at) {
            *place = Some(Compared { fetched_at: to_micros(at), same: row.get(3).unwrap_or(false) });
        }
    })?;
    Ok(found)
}
