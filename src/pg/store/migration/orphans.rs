//! Statements on `enrichment_orphan`: imported answers under the digests of keys that nobody has named yet.

use super::{batch_sql, Batch};
use crate::core::disk::body::Body;
use crate::core::disk::report::Fate;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_micros;
use crate::pg::spi::{self, Arg, Mode, Row, Statement};
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::HashMap;

pub type Digest = [u8; 32];

fn digest(row: &Row, n: i32) -> Option<Digest> {
    row.get::<Vec<u8>>(n)?.try_into().ok()
}

// As for files whose key is known: what a run has kept already makes its next file a duplicate, the very observation that
// waits is one, and an older one is older. Of two runs that keep the same at the same time, one does.
static KEEP: Statement = Statement {
    sql: concat!(
        "WITH given AS MATERIALIZED (SELECT * FROM ",
        batch_sql!("bytea[]"),
        "),
        held AS MATERIALIZED (
            SELECT o.digest, o.migration, o.fetched_at FROM @extschema@.enrichment_orphan o
            WHERE o.service = $1 AND o.digest = ANY ($2) ORDER BY o.digest, o.fetched_at FOR UPDATE),
        stands AS (
            SELECT h.digest, max(h.fetched_at) AS newest, max(h.fetched_at) FILTER (WHERE h.migration = $8) AS ours
            FROM held h GROUP BY h.digest),
        outdated AS (
            DELETE FROM @extschema@.enrichment_orphan o USING given g JOIN stands s ON s.digest = g.k
            WHERE o.service = $1 AND o.digest = g.k AND o.fetched_at = s.ours AND g.f > s.newest),
        kept AS (
            INSERT INTO @extschema@.enrichment_orphan
                (service, digest, migration, payload, ranges, response_status, fetched_at, expires_at, altered)
            SELECT $1, g.k, $8, g.p, g.r, CASE WHEN g.p IS NULL THEN 'not_found' ELSE 'success' END, g.f, g.e, g.a
            FROM given g LEFT JOIN stands s ON s.digest = g.k WHERE s.digest IS NULL OR g.f > s.newest ORDER BY g.k
            ON CONFLICT (service, digest, fetched_at) DO NOTHING RETURNING digest)
        SELECT g.k, s.ours IS NOT NULL, k.digest IS NOT NULL, g.f < s.newest
        FROM given g LEFT JOIN stands s ON s.digest = g.k LEFT JOIN kept k ON k.digest = g.k"
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

/// Keeps answers under the digests of their keys, in order and each once; what became of each.
pub fn keep(run: i64, batch: &Batch, digests: Vec<&[u8]>) -> Result<HashMap<Digest, Fate>, Error> {
    let [service, _, c, d, e, f, g] = batch.args();
    let mut fates = HashMap::with_capacity(digests.len());
    spi::run(&KEEP, &[service, Arg::of(digests), c, d, e, f, g, Arg::of(run)], Mode::Write, |row| {
        let told = |n| row.get(n).unwrap_or(false);
        let fate = match (told(2), told(3), told(4)) {
            (false, true, _) => Fate::UnknownKey,
            (false, false, true) => Fate::OlderThanRow,
            _ => Fate::Duplicate,
        };
        fates.extend(digest(row, 1).map(|digest| (digest, fate)));
    })?;
    Ok(fates)
}

static STANDING: Statement = Statement {
    sql: "SELECT o.digest, pg_catalog.max(o.fetched_at) FROM @extschema@.enrichment_orphan o
        WHERE o.service = $1 AND o.digest = ANY ($2) GROUP BY o.digest",
    args: &[TEXTOID, BYTEAARRAYOID],
};

/// When the newest answers were observed that wait under these digests.
pub fn standing(service: &str, digests: Vec<&[u8]>) -> Result<HashMap<Digest, Micros>, Error> {
    let mut found = HashMap::new();
    spi::run(&STANDING, &[Arg::of(service), Arg::of(digests)], Mode::Read, |row| {
        found.extend(digest(row, 1).zip(row.get(2).map(to_micros)));
    })?;
    Ok(found)
}

// Digest by digest: after an import the planner may take the service for one without answers, and would read all of them.
static FIND: Statement = Statement {
    sql:
        "SELECT o.payload::pg_catalog.text, o.ranges, o.fetched_at, o.expires_at, o.altered FROM pg_catalog.unnest($2) d
        CROSS JOIN LATERAL (SELECT y.* FROM @extschema@.enrichment_orphan y
            WHERE y.service OPERATOR(pg_catalog.=) $1 AND y.digest OPERATOR(pg_catalog.=) d OFFSET 0) o
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

// By the index, as the registry asks.
static ANY: Statement = Statement {
    sql: "SELECT coalesce((SELECT o.service = $1 FROM @extschema@.enrichment_orphan o WHERE o.service >= $1
        ORDER BY o.service LIMIT 1), false)",
    args: &[TEXTOID],
};

/// Whether answers of a service wait for their keys.
pub fn any(service: &str) -> Result<bool, Error> {
    let mut any = false;
    spi::run(&ANY, &[Arg::of(service)], Mode::Write, |row| any = row.get(1).unwrap_or(false))?;
    Ok(any)
}

static OWNERS: Statement = Statement {
    sql: "SELECT DISTINCT i.cache_key, d.digest FROM @extschema@.enrichment_indicator i
        CROSS JOIN LATERAL (VALUES (pg_catalog.sha256(pg_catalog.convert_to(i.cache_key, 'UTF8'))),
            (pg_catalog.sha256(pg_catalog.convert_to(i.raw_key, 'UTF8'))),
            (CASE WHEN i.cache_key ~ '^[0-9a-f]{64}$' THEN pg_catalog.decode(i.cache_key, 'hex') END)) AS d (digest)
        JOIN @extschema@.enrichment_orphan o ON o.digest = d.digest
        WHERE i.source = $1 AND i.cache_key IS NOT NULL AND o.service = $2 LIMIT $3",
    args: &[TEXTOID, TEXTOID, INT8OID],
};

/// Keys of a source with the digests under which answers of a service wait for them: of the key as it was written, too.
pub fn owners(source: &str, service: &str, most: i64) -> Result<Vec<(String, Digest)>, Error> {
    let mut keys = Vec::new();
    spi::run(&OWNERS, &[Arg::of(source), Arg::of(service), Arg::of(most)], Mode::Write, |row| {
        keys.extend(row.text(1).zip(digest(row, 2)))
    })?;
    Ok(keys)
}

static OF_RUN: Statement = Statement {
    sql: "SELECT o.service, o.digest FROM @extschema@.enrichment_orphan o
        WHERE o.migration = $1 AND (o.service, o.digest) > ($2, $3) ORDER BY o.service, o.digest LIMIT $4",
    args: &[INT8OID, TEXTOID, BYTEAOID, INT8OID],
};

/// At most `n` answers that a run has kept, behind a place in their order: service and digest.
pub fn of_run(run: i64, after: &(String, Vec<u8>), n: i64) -> Result<Vec<(String, Digest)>, Error> {
    let mut found = Vec::new();
    let args = [Arg::of(run), Arg::of(after.0.as_str()), Arg::of(after.1.as_slice()), Arg::of(n)];
    spi::run(&OF_RUN, &args, Mode::Write, |row| found.extend(row.text(1).zip(digest(row, 2))))?;
    Ok(found)
}

/// An answer of an orphan on its way into a file of an export.
pub struct Exported {
    pub service: String,
    pub digest: Digest,
    pub said: crate::pg::store::files::Said,
}

static EXPORT: Statement = Statement {
    sql: "SELECT DISTINCT ON (o.service, o.digest) o.service, o.digest, o.response_status, o.fetched_at,
            (CASE WHEN o.ranges IS NULL THEN o.payload ELSE @extschema@.enrich_hibp_range(o.ranges) END)::pg_catalog.text
        FROM @extschema@.enrichment_orphan o
        WHERE (o.service, o.digest) OPERATOR(pg_catalog.>) ($1, $2)
          AND ($3 IS NULL OR o.service OPERATOR(pg_catalog.=) ANY ($3))
        ORDER BY o.service, o.digest, o.fetched_at DESC LIMIT $4",
    args: &[TEXTOID, BYTEAOID, TEXTARRAYOID, INT8OID],
};

/// At most `n` digests with their newest answers, behind a place in their order.
pub fn to_export(service: &str, after: &[u8], services: Option<Vec<String>>, n: i64) -> Result<Vec<Exported>, Error> {
    let mut found = Vec::new();
    let args = [Arg::of(service), Arg::of(after), Arg::of(services), Arg::of(n)];
    spi::run(&EXPORT, &args, Mode::Read, |row| {
        if let (Some(service), Some(digest), Some(status), Some(at)) =
            (row.text(1), digest(row, 2), row.text(3), row.get(4))
        {
            let said = crate::pg::store::files::Said { status, payload: row.text(5), fetched_at: to_micros(at) };
            found.push(Exported { service, digest, said });
        }
    })?;
    Ok(found)
}
