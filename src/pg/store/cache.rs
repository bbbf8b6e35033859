//! Statements on `enrichment_cache`: look-ups, batched stores that keep history, invalidation, cleanup.

use crate::core::error::Error;
use crate::core::hash::cache_key_hash;
use crate::core::Micros;
use crate::pg::convert::{to_micros, to_timestamp, RawJsonb};
use crate::pg::ranges::Kept;
use crate::pg::spi::{self, Arg, Mode, Row, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;
use pgrx::pg_sys::Datum;

/// What a row of the cache knows.
pub struct Entry {
    pub payload: Option<Kept>,
    pub response_status: String,
    pub fetched_at: Micros,
    pub expires_at: Micros,
    pub hit_count: i64,
    pub version: i64,
    pub error_message: Option<String>,
}

impl Entry {
    /// Whether it answers without a new call: an answer of the provider ("knows nothing" is one) that has not expired.
    pub fn fresh(&self, now: Micros) -> bool {
        self.expires_at > now && matches!(self.response_status.as_str(), "success" | "not_found")
    }
}

static FRESH: Statement = Statement {
    sql: "SELECT payload, ranges FROM @extschema@.enrichment_cache
        WHERE cache_key_hash OPERATOR(pg_catalog.=) $1 AND service OPERATOR(pg_catalog.=) $2
          AND cache_key OPERATOR(pg_catalog.=) $3 AND expires_at OPERATOR(pg_catalog.+) $4 OPERATOR(pg_catalog.>) pg_catalog.now()",
    args: &[UUIDOID, TEXTOID, TEXTOID, INTERVALOID],
};

fn hash(service: &str, key: &str) -> Arg {
    Arg::of(pgrx::Uuid::from_bytes(cache_key_hash(service, key)))
}

/// THE look-up: the payload of a key that is fresh, or expired by no more than `max_stale`. The next capability
/// replaces its inside; everything that reads one payload goes through here.
pub fn fresh_payload(service: &str, key: &str, max_stale: Arg) -> Result<Option<RawJsonb>, Error> {
    let args = [hash(service, key), Arg::of(service), Arg::of(key), max_stale];
    let mut found = None;
    spi::run(&FRESH, &args, Mode::Read, |row| found = kept(row, 1, 2))?;
    Ok(found.map(|kept| kept.answer()))
}

fn kept(row: &Row, payload: i32, ranges: i32) -> Option<Kept> {
    Some(Kept { payload: row.datum(payload)?, ranges: row.datum(ranges) })
}

static ENTRY: Statement = Statement {
    sql: "SELECT payload, response_status, fetched_at, expires_at, hit_count, version, error_message, ranges
        FROM @extschema@.enrichment_cache
        WHERE cache_key_hash OPERATOR(pg_catalog.=) $1 AND service OPERATOR(pg_catalog.=) $2
          AND cache_key OPERATOR(pg_catalog.=) $3",
    args: &[UUIDOID, TEXTOID, TEXTOID],
};

/// Everything the cache knows of one key.
pub fn entry(service: &str, key: &str) -> Result<Option<Entry>, Error> {
    let mut found = None;
    spi::run(&ENTRY, &[hash(service, key), Arg::of(service), Arg::of(key)], Mode::Read, |row| found = read(row))?;
    Ok(found)
}

fn read(row: &Row) -> Option<Entry> {
    Some(Entry {
        payload: kept(row, 1, 8),
        response_status: row.text(2)?,
        fetched_at: to_micros(row.get(3)?),
        expires_at: to_micros(row.get(4)?),
        hit_count: row.get(5)?,
        version: row.get(6)?,
        error_message: row.text(7),
    })
}

static MANY: Statement = Statement {
    sql: "SELECT c.cache_key, c.payload, c.ranges FROM @extschema@.enrichment_cache c
        WHERE c.service OPERATOR(pg_catalog.=) $1 AND c.cache_key OPERATOR(pg_catalog.=) ANY ($2)
          AND c.expires_at OPERATOR(pg_catalog.>) pg_catalog.now() AND c.payload IS NOT NULL
        ORDER BY c.cache_key",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// The fresh payloads among these keys, in the order of the keys.
pub fn many(service: &str, keys: Vec<String>) -> Result<Vec<(String, Kept)>, Error> {
    let mut found = Vec::new();
    spi::run(&MANY, &[Arg::of(service), Arg::of(keys)], Mode::Read, |row| {
        if let (Some(key), Some(kept)) = (row.text(1), kept(row, 2, 3)) {
            found.push((key, kept));
        }
    })?;
    Ok(found)
}

/// One answer on its way into the cache. A failure carries no payload and leaves an earlier answer in place.
#[derive(Default)]
pub struct Incoming {
    pub key: String,
    pub status: &'static str,
    pub fetched_at: Micros,
    pub expires_at: Micros,
    pub code: Option<i32>,
    pub latency_ms: Option<i32>,
    pub error: Option<String>,
    /// A packed hash range; the payload is its summary then.
    pub ranges: Option<Vec<u8>>,
}

// An older observation never replaces a newer one, a failure never replaces an answer. The earlier payload is kept in
// the history when the new one differs. Rows are locked in the order of their hashes, so that two batches never
// wait for each other in a circle. The earlier rows are found by one probe each, whatever the planner believes of the
// table's size: a plan kept from when it was small would read all of it for every batch.
macro_rules! store_sql {
    ($payloads:literal) => {
        concat!(
            "WITH incoming AS MATERIALIZED (
            SELECT u.*, @extschema@.enrich_key_hash($1, u.cache_key) AS hash
            FROM unnest($2::text[], ",
            $payloads,
            ", $4::text[], $5::timestamptz[], $6::timestamptz[], $7::int4[], $8::int4[], $9::text[], $10::bytea[])
              AS u (cache_key, payload, status, fetched_at, expires_at, code, latency, error, ranges)),
          previous AS MATERIALIZED (
            SELECT p.* FROM (SELECT o.cache_key FROM incoming o ORDER BY o.hash) i
            CROSS JOIN LATERAL (
                SELECT c.* FROM @extschema@.enrichment_cache c
                WHERE c.service = $1 AND c.cache_key = i.cache_key LIMIT 1 FOR UPDATE) p),
          kept AS (
            INSERT INTO @extschema@.enrichment_history (service, cache_key, version, payload, ranges, fetched_at)
            SELECT p.service, p.cache_key, p.version, p.payload, p.ranges, p.fetched_at
            FROM previous p JOIN incoming i ON i.hash = p.cache_key_hash
            WHERE p.payload IS NOT NULL AND i.status IN ('success', 'not_found')
              AND i.fetched_at >= p.fetched_at
              AND (p.payload IS DISTINCT FROM i.payload OR p.ranges IS DISTINCT FROM i.ranges))
          INSERT INTO @extschema@.enrichment_cache AS c (service, cache_key, payload, response_status, fetched_at,
            expires_at, api_response_code, api_latency_ms, error_message, ranges)
          SELECT $1, i.cache_key, i.payload, i.status, i.fetched_at, i.expires_at, i.code, i.latency, i.error, i.ranges
          FROM incoming i
          WHERE (SELECT count(*) FROM previous) >= 0
          ORDER BY i.hash
          ON CONFLICT (service, cache_key) DO UPDATE SET
            payload = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.payload ELSE EXCLUDED.payload END,
            ranges = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.ranges ELSE EXCLUDED.ranges END,
            response_status = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.response_status ELSE EXCLUDED.response_status END,
            fetched_at = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.fetched_at ELSE EXCLUDED.fetched_at END,
            expires_at = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.expires_at ELSE EXCLUDED.expires_at END,
            api_response_code = EXCLUDED.api_response_code,
            api_latency_ms = EXCLUDED.api_latency_ms,
            error_message = EXCLUDED.error_message,
            version = c.version + 1
          WHERE EXCLUDED.fetched_at >= c.fetched_at
          RETURNING c.cache_key, c.version"
        )
    };
}

static STORE_JSONB: Statement = Statement {
    sql: store_sql!("$3::jsonb[]"),
    args: &[
        TEXTOID,
        TEXTARRAYOID,
        JSONBARRAYOID,
        TEXTARRAYOID,
        TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID,
        INT4ARRAYOID,
        INT4ARRAYOID,
        TEXTARRAYOID,
        BYTEAARRAYOID,
    ],
};

static STORE_TEXT: Statement = Statement {
    sql: store_sql!("$3::text[]::jsonb[]"),
    args: &[
        TEXTOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID,
        INT4ARRAYOID,
        INT4ARRAYOID,
        TEXTARRAYOID,
        BYTEAARRAYOID,
    ],
};

/// The payloads of a batch: as the caller's `jsonb[]`, or as JSON text that was made safe.
pub enum Payloads {
    Jsonb(Datum),
    Text(Vec<Option<String>>),
}

/// Stores a batch of one service; keys must not repeat. Returns the keys that were written with their new versions.
pub fn store(service: &str, batch: &[Incoming], payloads: Payloads) -> Result<Vec<(String, i64)>, Error> {
    let stamps = |pick: fn(&Incoming) -> Micros| -> Vec<TimestampWithTimeZone> {
        batch.iter().map(|entry| to_timestamp(pick(entry))).collect()
    };
    let (statement, payloads) = match payloads {
        Payloads::Jsonb(datum) => (&STORE_JSONB, Arg::raw(Some(datum))),
        Payloads::Text(texts) => (&STORE_TEXT, Arg::of(texts)),
    };
    let args = [
        Arg::of(service),
        Arg::of(batch.iter().map(|entry| entry.key.clone()).collect::<Vec<_>>()),
        payloads,
        Arg::of(batch.iter().map(|entry| entry.status).collect::<Vec<_>>()),
        Arg::of(stamps(|entry| entry.fetched_at)),
        Arg::of(stamps(|entry| entry.expires_at)),
        Arg::of(batch.iter().map(|entry| entry.code).collect::<Vec<_>>()),
        Arg::of(batch.iter().map(|entry| entry.latency_ms).collect::<Vec<_>>()),
        Arg::of(batch.iter().map(|entry| entry.error.clone()).collect::<Vec<_>>()),
        // no array at all gives as many NULLs
        match batch.iter().any(|entry| entry.ranges.is_some()) {
            true => Arg::of(batch.iter().map(|entry| entry.ranges.as_deref()).collect::<Vec<_>>()),
            false => Arg::raw(None),
        },
    ];
    let mut written = Vec::with_capacity(batch.len());
    spi::run(statement, &args, Mode::Write, |row| {
        if let (Some(key), Some(version)) = (row.text(1), row.get(2)) {
            written.push((key, version));
        }
    })?;
    Ok(written)
}

static LOCKED_VERSION: Statement = Statement {
    sql: "SELECT version FROM @extschema@.enrichment_cache
        WHERE cache_key_hash = $1 AND service = $2 AND cache_key = $3 FOR UPDATE",
    args: &[UUIDOID, TEXTOID, TEXTOID],
};

/// The version of a row, which is locked until the transaction ends.
pub fn locked_version(service: &str, key: &str) -> Result<Option<i64>, Error> {
    let mut version = None;
    spi::run(&LOCKED_VERSION, &[hash(service, key), Arg::of(service), Arg::of(key)], Mode::Write, |row| {
        version = row.get(1)
    })?;
    Ok(version)
}

static EXPIRE: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_cache SET expires_at = pg_catalog.now(), version = version + 1
        WHERE service = $1 AND ($2 IS NULL OR cache_key = $2) AND expires_at > pg_catalog.now()",
    args: &[TEXTOID, TEXTOID],
};

static DELETE: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_cache WHERE service = $1 AND ($2 IS NULL OR cache_key = $2)",
    args: &[TEXTOID, TEXTOID],
};

/// Expires (or deletes, `hard`) one key of a service, or all of them; returns how many rows changed.
pub fn invalidate(service: &str, key: Option<&str>, hard: bool) -> Result<i64, Error> {
    let statement = if hard { &DELETE } else { &EXPIRE };
    Ok(spi::run(statement, &[Arg::of(service), Arg::of(key)], Mode::Write, |_| {})? as i64)
}

static BREACHES: Statement = Statement {
    sql: "SELECT CASE WHEN ranges IS NULL THEN @extschema@.enrich_bigint(payload OPERATOR(pg_catalog.->) $2)
            ELSE @extschema@.enrich_hibp_count(ranges, $2) END FROM @extschema@.enrichment_cache
        WHERE service = 'hibp' AND cache_key = $1",
    args: &[TEXTOID, TEXTOID],
};

/// How often the cached range of a prefix counts a suffix; 0 when it does not hold it.
pub fn breaches(prefix: &str, suffix: &str) -> Result<i64, Error> {
    let mut count = None;
    spi::run(&BREACHES, &[Arg::of(prefix), Arg::of(suffix)], Mode::Read, |row| count = row.get(1))?;
    Ok(count.unwrap_or(0))
}

static CLEANUP: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_cache d
        WHERE d.ctid = ANY (ARRAY(
            SELECT c.ctid FROM @extschema@.enrichment_cache c
            JOIN @extschema@.enrichment_service s ON s.name = c.service
            WHERE c.expires_at < pg_catalog.now() AND c.expires_at < pg_catalog.now() - s.stale_ttl
            ORDER BY c.expires_at LIMIT $1 FOR UPDATE OF c SKIP LOCKED))",
    args: &[INT8OID],
};

/// Deletes at most `rows` entries that are past expiry and the grace of their service.
pub fn cleanup(rows: i64) -> Result<i64, Error> {
    Ok(spi::run(&CLEANUP, &[Arg::of(rows)], Mode::Write, |_| {})? as i64)
}
