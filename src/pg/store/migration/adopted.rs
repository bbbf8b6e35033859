//! Statements that give what waits under a digest to its key.

use super::chain::before;
use super::orphans::Digest;
use crate::core::disk::report::Fate;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::{to_micros, to_timestamp};
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;

/// An answer that waits under a digest.
pub struct Waiting {
    pub digest: Digest,
    /// The run that brought it, as long as there is a record of it.
    pub run: Option<i64>,
    pub fetched_at: Micros,
    pub expires_at: Micros,
}

// Digest by digest: after an import the planner may take the service for one without answers, and would read all of them.
static WAITING: Statement = Statement {
    sql: "SELECT o.digest, o.migration, o.fetched_at, o.expires_at
        FROM (SELECT DISTINCT u AS d FROM pg_catalog.unnest($2) u ORDER BY u) n
        CROSS JOIN LATERAL (SELECT y.digest, y.migration, y.fetched_at, y.expires_at FROM @extschema@.enrichment_orphan y
            WHERE y.service = $1 AND y.digest = n.d ORDER BY y.fetched_at FOR UPDATE) o",
    args: &[TEXTOID, BYTEAARRAYOID],
};

/// What waits under these digests, locked.
pub fn waiting(service: &str, digests: Vec<&[u8]>) -> Result<Vec<Waiting>, Error> {
    let mut found = Vec::new();
    spi::run(&WAITING, &[Arg::of(service), Arg::of(digests)], Mode::Write, |row| {
        let digest = row.get::<Vec<u8>>(1).and_then(|bytes| bytes.try_into().ok());
        if let (Some(digest), Some(at), Some(until)) = (digest, row.get(3), row.get(4)) {
            found.push(Waiting { digest, run: row.get(2), fetched_at: to_micros(at), expires_at: to_micros(until) });
        }
    })?;
    Ok(found)
}

static LOCK: Statement = Statement {
    sql: "SELECT FROM @extschema@.enrichment_cache c WHERE c.service = $1 AND c.cache_key = ANY ($2)
        ORDER BY c.cache_key FOR UPDATE",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Locks what stands under these keys, so that the statements that follow see what every run has brought for them.
pub fn lock(service: &str, keys: Vec<&str>) -> Result<(), Error> {
    spi::run(&LOCK, &[Arg::of(service), Arg::of(keys)], Mode::Write, |_| {})?;
    Ok(())
}

// The newer answer stays: what the cache has may have been observed before the file, though it was stored after the import.
// What gives way is kept for the way back, as the import of a file whose key is known does it. What is older than a run's answer
// goes in below the runs that are newer, so that it stands when they are taken back; below what no run brought it is of no use.
static TAKE: Statement = Statement {
    sql: concat!(
        "WITH taken AS (
            DELETE FROM @extschema@.enrichment_orphan o
            USING (SELECT unnest($2::text[]) AS k, unnest($3::bytea[]) AS d, unnest($4::timestamptz[]) AS f, unnest($5::timestamptz[]) AS e) u
            WHERE o.service = $1 AND o.digest = u.d AND o.fetched_at = u.f
            RETURNING u.k, u.e, o.migration, o.payload, o.ranges, o.response_status, o.fetched_at, o.altered),
        old AS MATERIALIZED (
            SELECT c.* FROM @extschema@.enrichment_cache c JOIN taken t ON c.service = $1 AND c.cache_key = t.k
            ORDER BY c.cache_key FOR UPDATE OF c),
        stored AS (
            INSERT INTO @extschema@.enrichment_cache AS c
                (service, cache_key, payload, ranges, response_status, fetched_at, expires_at, altered)
            SELECT $1, t.k, t.payload, t.ranges, t.response_status, t.fetched_at, t.e, t.altered
            FROM taken t LEFT JOIN old o ON o.cache_key = t.k
            WHERE o.id IS NULL OR o.response_status NOT IN ('success', 'not_found') OR t.fetched_at > o.fetched_at
            ORDER BY t.k
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
            SELECT t.migration, s.id, s.fetched_at, o.id IS NOT NULL, o.version, o.payload, o.ranges, o.response_status,
                o.fetched_at, o.expires_at, o.api_response_code, o.api_latency_ms, o.error_message, o.altered, o.etag,
                o.last_modified
            FROM stored s JOIN taken t ON t.k = s.cache_key LEFT JOIN old o ON o.id = s.id WHERE t.migration IS NOT NULL
            ON CONFLICT (migration, cache_id) DO UPDATE SET fetched_at = EXCLUDED.fetched_at),
        mine AS MATERIALIZED (
            SELECT t.k FROM taken t JOIN old o ON o.cache_key = t.k
            JOIN @extschema@.enrichment_migration_row r ON r.migration = t.migration AND r.cache_id = o.id),
        above AS (
            SELECT DISTINCT ON (t.k) t.k, t.migration AS run, t.payload, t.ranges, t.response_status, t.fetched_at AS f, t.e, t.altered, r.*
            FROM taken t JOIN old o ON o.cache_key = t.k CROSS JOIN @extschema@.enrichment_migration g
            JOIN @extschema@.enrichment_migration_row r ON r.migration = g.id AND r.cache_id = o.id AND r.fetched_at > t.fetched_at
            WHERE o.response_status IN ('success', 'not_found') AND t.fetched_at < o.fetched_at
              AND NOT EXISTS (SELECT FROM mine m WHERE m.k = t.k)
            ORDER BY t.k, r.fetched_at),
        next AS MATERIALIZED (
            SELECT a.* FROM above a WHERE NOT a.replaced OR a.old_status NOT IN ('success', 'not_found') OR a.old_fetched_at < a.f),
        below AS (
            INSERT INTO @extschema@.enrichment_migration_row (migration, cache_id, fetched_at, ",
        before!(""),
        ") SELECT n.run, n.cache_id, n.f, ",
        before!("n."),
        " FROM next n WHERE n.run IS NOT NULL),
        lifted AS (
            UPDATE @extschema@.enrichment_migration_row r SET (",
        before!(""),
        ") = ROW (true, NULL::int8, n.payload, n.ranges, n.response_status, n.f, n.e, NULL::int4, NULL::int4, NULL::text, n.altered,
                NULL::text, NULL::text)
            FROM next n WHERE r.migration = n.migration AND r.cache_id = n.cache_id)
        SELECT t.k, t.migration, s.id IS NOT NULL, s.expires_at > pg_catalog.now(), m.k IS NOT NULL, t.fetched_at = o.fetched_at
        FROM taken t LEFT JOIN stored s ON s.cache_key = t.k LEFT JOIN old o ON o.cache_key = t.k LEFT JOIN mine m ON m.k = t.k"
    ),
    args: &[TEXTOID, TEXTARRAYOID, BYTEAARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID],
};

/// What became of an answer that waited.
pub struct Taken {
    pub key: String,
    pub run: Option<i64>,
    /// It stands in the cache now.
    pub stored: bool,
    pub fresh: bool,
    /// As of a file whose key is known.
    pub fate: Fate,
}

/// Gives answers that wait to their keys, of each key one: as an answer, its key, and when it expires there.
pub fn take(service: &str, answers: &[(&Waiting, &str, Micros)], mut each: impl FnMut(Taken)) -> Result<(), Error> {
    let stamps = |pick: fn(&(&Waiting, &str, Micros)) -> Micros| -> Vec<TimestampWithTimeZone> {
        answers.iter().map(|answer| to_timestamp(pick(answer))).collect()
    };
    let args = [
        Arg::of(service),
        Arg::of(answers.iter().map(|(_, key, _)| *key).collect::<Vec<_>>()),
        Arg::of(answers.iter().map(|(waiting, ..)| waiting.digest.as_slice()).collect::<Vec<_>>()),
        Arg::of(stamps(|(waiting, ..)| waiting.fetched_at)),
        Arg::of(stamps(|(_, _, expires_at)| *expires_at)),
    ];
    spi::run(&TAKE, &args, Mode::Write, |row| {
        let told = |n| row.get(n).unwrap_or(false);
        let stored = told(3);
        let fate = match (told(5), stored, told(6)) {
            (true, ..) | (false, false, true) => Fate::Duplicate,
            (false, true, _) => Fate::Imported,
            (false, false, false) => Fate::OlderThanRow,
        };
        if let Some(key) = row.text(1) {
            each(Taken { key, run: row.get(2), stored, fresh: stored && told(4), fate });
        }
    })?;
    Ok(())
}
