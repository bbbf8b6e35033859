//! Statements on `enrichment_orphan`: imported answers under the digests of keys that nobody has named yet.

use super::{batch_sql, Batch};
use crate::core::disk::body::Body;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_micros;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

static KEEP_ORPHANS: Statement = Statement {
    sql: concat!(
        "INSERT INTO @extschema@.enrichment_orphan AS o
            (service, digest, migration, payload, ranges, response_status, fetched_at, expires_at, altered)
        SELECT $1, u.k, $8, u.p, u.r, CASE WHEN u.p IS NULL THEN 'not_found' ELSE 'success' END, u.f, u.e, u.a FROM ",
        batch_sql!("bytea[]"),
        " ON CONFLICT (service, digest, migration) DO UPDATE SET payload = EXCLUDED.payload, ranges = EXCLUDED.ranges,
            response_status = EXCLUDED.response_status, fetched_at = EXCLUDED.fetched_at, expires_at = EXCLUDED.expires_at,
            altered = EXCLUDED.altered
        WHERE EXCLUDED.fetched_at > o.fetched_at"
    ),
    args: &[
        TEXTOID,
        BYTEAARRAYOID,
        JSONBARRAYOID,
        BYTEAARRAYOID,
        TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID,
        BOOLARRAYOID,
        INT8OID,
    ],
};

/// Keeps answers under the digests of their keys, in order and each once.
pub fn keep_orphans(run: i64, batch: &Batch, digests: Vec<&[u8]>) -> Result<(), Error> {
    let [service, _, c, d, e, f, g] = batch.args();
    spi::run(&KEEP_ORPHANS, &[service, Arg::of(digests), c, d, e, f, g, Arg::of(run)], Mode::Write, |_| {})?;
    Ok(())
}

static FIND: Statement = Statement {
    sql: "SELECT o.payload::pg_catalog.text, o.ranges, o.fetched_at, o.expires_at, o.altered FROM @extschema@.enrichment_orphan o
        WHERE o.service OPERATOR(pg_catalog.=) $1 AND o.digest OPERATOR(pg_catalog.=) ANY ($2)
        ORDER BY o.fetched_at DESC LIMIT 1",
    args: &[TEXTOID, BYTEAARRAYOID],
};

/// The newest answer under one of these digests, with its observation and its expiry.
pub fn find(service: &str, digests: Vec<&[u8]>) -> Result<Option<(Body, Micros, Micros)>, Error> {
    let mut found = None;
    spi::run(&FIND, &[Arg::of(service), Arg::of(digests)], Mode::Read, |row| {
        found = row.get(3).zip(row.get(4)).map(|(fetched_at, expires_at)| {
            let altered = row.get(5).unwrap_or(false);
            let body = Body { payload: row.text(1), ranges: row.get(2), observed_at: None, altered };
            (body, to_micros(fetched_at), to_micros(expires_at))
        });
    })?;
    Ok(found)
}

static ANY_ORPHAN: Statement =
    Statement { sql: "SELECT EXISTS (SELECT FROM @extschema@.enrichment_orphan WHERE service = $1)", args: &[TEXTOID] };

/// Whether answers of a service wait for their keys.
pub fn any_orphan(service: &str) -> Result<bool, Error> {
    let mut any = false;
    spi::run(&ANY_ORPHAN, &[Arg::of(service)], Mode::Write, |row| any = row.get(1).unwrap_or(false))?;
    Ok(any)
}

// The newer answer stays: what the cache has may have been observed before the file, though it was stored after the import.
// What gives way is kept for the way back, as the import of a file whose key is known does it.
static ADOPT: Statement = Statement {
    sql: "WITH taken AS (
            DELETE FROM @extschema@.enrichment_orphan o USING unnest($2::text[], $3::bytea[]) AS u (k, d)
            WHERE o.service = $1 AND o.digest = u.d
            RETURNING u.k, o.migration, o.payload, o.ranges, o.response_status, o.fetched_at, o.expires_at, o.altered),
        newest AS (SELECT DISTINCT ON (t.k) t.* FROM taken t ORDER BY t.k, t.fetched_at DESC),
        old AS MATERIALIZED (
            SELECT c.* FROM @extschema@.enrichment_cache c JOIN newest n ON c.service = $1 AND c.cache_key = n.k
            ORDER BY c.cache_key FOR UPDATE OF c),
        stored AS (
            INSERT INTO @extschema@.enrichment_cache AS c
                (service, cache_key, payload, ranges, response_status, fetched_at, expires_at, altered)
            SELECT $1, n.k, n.payload, n.ranges, n.response_status, n.fetched_at, n.expires_at, n.altered
            FROM newest n LEFT JOIN old o ON o.cache_key = n.k
            WHERE o.id IS NULL OR o.response_status NOT IN ('success', 'not_found') OR n.fetched_at > o.fetched_at
            ORDER BY n.k
            ON CONFLICT (service, cache_key) DO UPDATE SET payload = EXCLUDED.payload, ranges = EXCLUDED.ranges,
                response_status = EXCLUDED.response_status, fetched_at = EXCLUDED.fetched_at,
                expires_at = EXCLUDED.expires_at, api_response_code = NULL, api_latency_ms = NULL, error_message = NULL,
                altered = EXCLUDED.altered, etag = NULL, last_modified = NULL, version = c.version + 1
            WHERE c.response_status NOT IN ('success', 'not_found') OR EXCLUDED.fetched_at > c.fetched_at
            RETURNING c.id, c.cache_key, c.fetched_at, c.expires_at),
        brought AS (
            INSERT INTO @extschema@.enrichment_migration_row (migration, cache_id, fetched_at, replaced, old_version, old_payload,
                old_ranges, old_status, old_fetched_at, old_expires_at, old_code, old_latency_ms, old_error, old_altered, old_etag,
                old_last_modified)
            SELECT n.migration, s.id, s.fetched_at, o.id IS NOT NULL, o.version, o.payload, o.ranges, o.response_status,
                o.fetched_at, o.expires_at, o.api_response_code, o.api_latency_ms, o.error_message, o.altered, o.etag,
                o.last_modified
            FROM stored s JOIN newest n ON n.k = s.cache_key LEFT JOIN old o ON o.id = s.id
            ON CONFLICT (migration, cache_id) DO UPDATE SET fetched_at = EXCLUDED.fetched_at)
        SELECT s.cache_key, s.expires_at > pg_catalog.now() FROM stored s",
    args: &[TEXTOID, TEXTARRAYOID, BYTEAARRAYOID],
};

/// Gives answers that were kept under these digests to their keys; hands over each key, and whether its answer is fresh.
pub fn adopt(
    service: &str,
    keys: Vec<&str>,
    digests: Vec<&[u8]>,
    mut each: impl FnMut(String, bool),
) -> Result<(), Error> {
    spi::run(&ADOPT, &[Arg::of(service), Arg::of(keys), Arg::of(digests)], Mode::Write, |row| {
        if let (Some(key), Some(fresh)) = (row.text(1), row.get(2)) {
            each(key, fresh);
        }
    })?;
    Ok(())
}

static OWNERS: Statement = Statement {
    sql: "SELECT DISTINCT i.cache_key FROM @extschema@.enrichment_indicator i
        CROSS JOIN LATERAL (VALUES (pg_catalog.sha256(pg_catalog.convert_to(i.cache_key, 'UTF8'))),
            (pg_catalog.sha256(pg_catalog.convert_to(i.raw_key, 'UTF8'))),
            (CASE WHEN i.cache_key ~ '^[0-9a-f]{64}$' THEN pg_catalog.decode(i.cache_key, 'hex') END)) AS d (digest)
        JOIN @extschema@.enrichment_orphan o ON o.digest = d.digest
        WHERE i.source = $1 AND i.cache_key IS NOT NULL AND o.service = $2 LIMIT $3",
    args: &[TEXTOID, TEXTOID, INT8OID],
};

/// Keys of a source under whose digests answers of a service are kept.
pub fn owners(source: &str, service: &str, most: i64) -> Result<Vec<String>, Error> {
    let mut keys = Vec::new();
    spi::run(&OWNERS, &[Arg::of(source), Arg::of(service), Arg::of(most)], Mode::Write, |row| {
        keys.extend(row.text(1))
    })?;
    Ok(keys)
}
