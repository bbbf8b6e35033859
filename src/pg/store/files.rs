//! Statements of the disk cache: answers taken over from files, and `enrichment_disk_outbox`, the durable list of keys whose
//! files are to be made to say what the table says.

use crate::core::disk::body::Body;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::{to_micros, to_timestamp};
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::{HashMap, HashSet};

/// An answer of a file on its way into the table.
pub struct FromFile {
    pub key: String,
    pub body: Body,
    pub fetched_at: Micros,
    pub expires_at: Micros,
}

// An answer stays where it is not older than the file; a failure gives way to any answer. What is replaced is kept in the
// history by the table's trigger. Rows come in the order of their keys, as everywhere.
static ADOPT: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_cache AS c
            (service, cache_key, payload, response_status, fetched_at, expires_at, ranges, altered)
        SELECT $1, unnest($2::text[]), unnest($3::text[]::jsonb[]), unnest($4::text[]), unnest($5::timestamptz[]),
            unnest($6::timestamptz[]), unnest($7::bytea[]), unnest($8::boolean[])
        ON CONFLICT (service, cache_key) DO UPDATE SET payload = EXCLUDED.payload, ranges = EXCLUDED.ranges,
            response_status = EXCLUDED.response_status, fetched_at = EXCLUDED.fetched_at, expires_at = EXCLUDED.expires_at,
            api_response_code = NULL, api_latency_ms = NULL, error_message = NULL, altered = EXCLUDED.altered, etag = NULL,
            last_modified = NULL, version = c.version + 1
        WHERE EXCLUDED.fetched_at > c.fetched_at OR c.response_status NOT IN ('success', 'not_found')
        RETURNING c.cache_key",
    args: &[
        TEXTOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID,
        BYTEAARRAYOID,
        BOOLARRAYOID,
    ],
};

/// Takes answers of one service over, keys must not repeat; returns the keys of which the table now says what the file says.
pub fn adopt(service: &str, batch: &mut [FromFile]) -> Result<Vec<String>, Error> {
    batch.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    let stamps = |pick: fn(&FromFile) -> Micros| -> Vec<TimestampWithTimeZone> {
        batch.iter().map(|one| to_timestamp(pick(one))).collect()
    };
    let args = [
        Arg::of(service),
        Arg::of(batch.iter().map(|one| one.key.as_str()).collect::<Vec<_>>()),
        Arg::of(batch.iter().map(|one| one.body.payload.as_deref()).collect::<Vec<_>>()),
        Arg::of(batch.iter().map(|one| one.body.status()).collect::<Vec<_>>()),
        Arg::of(stamps(|one| one.fetched_at)),
        Arg::of(stamps(|one| one.expires_at)),
        Arg::of(batch.iter().map(|one| one.body.ranges.as_deref()).collect::<Vec<_>>()),
        Arg::of(batch.iter().map(|one| one.body.altered).collect::<Vec<_>>()),
    ];
    let mut adopted = Vec::new();
    spi::run(&ADOPT, &args, Mode::Write, |row| adopted.extend(row.text(1)))?;
    Ok(adopted)
}

static REQUESTS: Statement = Statement {
    sql: "SELECT q.id, q.service, q.cache_key FROM @extschema@.enrichment_queue q
        WHERE q.id > $1 AND q.state = 'waiting' ORDER BY q.id LIMIT $2",
    args: &[INT8OID, INT8OID],
};

/// At most `n` waiting requests that came after one: id, service, key.
pub fn requests_after(id: i64, n: i64) -> Result<Vec<(i64, String, String)>, Error> {
    let mut found = Vec::new();
    spi::run(&REQUESTS, &[Arg::of(id), Arg::of(n)], Mode::Read, |row| {
        if let (Some(id), Some(service), Some(key)) = (row.get(1), row.text(2), row.text(3)) {
            found.push((id, service, key));
        }
    })?;
    Ok(found)
}

static ANSWERED: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_queue
        WHERE service = $1 AND cache_key = ANY ($2) AND state IN ('waiting', 'dead')",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Takes requests off the list that files have answered; those in flight end with their call.
pub fn answered(service: &str, keys: Vec<String>) -> Result<(), Error> {
    spi::run(&ANSWERED, &[Arg::of(service), Arg::of(keys)], Mode::Write, |_| {})?;
    Ok(())
}

static NOTE: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_disk_outbox (service, cache_key) SELECT $1, unnest($2::text[])",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Notes keys whose files are to be written.
pub fn note(service: &str, keys: Vec<String>) -> Result<(), Error> {
    spi::run(&NOTE, &[Arg::of(service), Arg::of(keys)], Mode::Write, |_| {})?;
    Ok(())
}

// Between deleting and taking over stands a lock for each of 64 parts of a service's keys: a deletion of many keys has no more of them.
static LOCK_DELETED: Statement = Statement {
    sql: "SELECT pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('enrichment_disk_outbox/' || $1), part)
        FROM generate_series(0, 63) part WHERE $2 IS NULL OR part = pg_catalog.hashtext($2) & 63 ORDER BY part",
    args: &[TEXTOID, TEXTOID],
};

// of one key also where the table holds nothing: files may
static NOTE_DELETED: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_disk_outbox (service, cache_key, deleted)
        SELECT $1, $2, true WHERE $2 IS NOT NULL
        UNION ALL SELECT c.service, c.cache_key, true FROM @extschema@.enrichment_cache c WHERE c.service = $1 AND $2 IS NULL",
    args: &[TEXTOID, TEXTOID],
};

/// Notes a key whose files are to go, or every key of a service that the table holds.
pub fn note_deleted(service: &str, key: Option<&str>) -> Result<(), Error> {
    spi::run(&LOCK_DELETED, &[Arg::of(service), Arg::of(key)], Mode::Write, |_| {})?;
    spi::run(&NOTE_DELETED, &[Arg::of(service), Arg::of(key)], Mode::Write, |_| {})?;
    Ok(())
}

static LOCK_ADOPTED: Statement = Statement {
    sql: "SELECT k FROM unnest($2::text[]) AS k WHERE pg_catalog.pg_try_advisory_xact_lock_shared(
            pg_catalog.hashtext('enrichment_disk_outbox/' || $1), pg_catalog.hashtext(k) & 63)",
    args: &[TEXTOID, TEXTARRAYOID],
};

static DELETED: Statement = Statement {
    sql: "SELECT o.cache_key, pg_catalog.max(o.noted_at) FROM @extschema@.enrichment_disk_outbox o
        WHERE o.deleted AND o.service = $1 AND o.cache_key = ANY ($2) GROUP BY o.cache_key",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Leaves of a batch of one service what nobody deletes: not now, in a transaction that is under way, and not since the file
/// was observed, with the file still to go. Until the end of this transaction nobody deletes what is left.
pub fn spare_deleted(service: &str, batch: &mut Vec<FromFile>) -> Result<(), Error> {
    let keys = |batch: &[FromFile]| Arg::of(batch.iter().map(|one| one.key.as_str()).collect::<Vec<_>>());
    let mut free = HashSet::new();
    spi::run(&LOCK_ADOPTED, &[Arg::of(service), keys(batch)], Mode::Write, |row| free.extend(row.text(1)))?;
    batch.retain(|one| free.contains(&one.key));
    let mut deleted: HashMap<String, Micros> = HashMap::new();
    spi::run(&DELETED, &[Arg::of(service), keys(batch)], Mode::Write, |row| {
        if let (Some(key), Some(at)) = (row.text(1), row.get(2)) {
            deleted.insert(key, to_micros(at));
        }
    })?;
    batch.retain(|one| deleted.get(&one.key).is_none_or(|at| one.fetched_at > *at));
    Ok(())
}

/// A key whose files are to be made to say what the table says.
pub struct Noted {
    pub id: i64,
    pub service: String,
    pub key: String,
    pub at: Micros,
    pub failures: i32,
    pub deleted: bool,
}

static DUE: Statement = Statement {
    sql: "SELECT o.id, o.service, o.cache_key, o.noted_at, o.failures, o.deleted
        FROM @extschema@.enrichment_disk_outbox o
        WHERE o.next_try_at <= pg_catalog.clock_timestamp() ORDER BY o.next_try_at, o.id LIMIT $1",
    args: &[INT8OID],
};

/// At most `n` keys that are due, the longest due first.
pub fn due(n: i64) -> Result<Vec<Noted>, Error> {
    let mut due = Vec::new();
    spi::run(&DUE, &[Arg::of(n)], Mode::Read, |row| {
        if let (Some(id), Some(service), Some(key), Some(at), Some(failures), Some(deleted)) =
            (row.get(1), row.text(2), row.text(3), row.get(4), row.get(5), row.get(6))
        {
            due.push(Noted { id, service, key, at: to_micros(at), failures, deleted });
        }
    })?;
    Ok(due)
}

static NEXT: Statement =
    Statement { sql: "SELECT pg_catalog.min(next_try_at) FROM @extschema@.enrichment_disk_outbox", args: &[] };

/// When the first key is due.
pub fn next_due() -> Result<Option<Micros>, Error> {
    let mut at = None;
    spi::run(&NEXT, &[], Mode::Read, |row| at = row.get(1).map(to_micros))?;
    Ok(at)
}

/// What the table says of a key, as JSON text.
pub struct Said {
    pub status: String,
    pub payload: Option<String>,
    pub fetched_at: Micros,
}

static SAID: Statement = Statement {
    sql: "SELECT c.response_status, c.fetched_at,
            (CASE WHEN c.ranges IS NULL THEN c.payload ELSE @extschema@.enrich_hibp_range(c.ranges) END)::text
        FROM @extschema@.enrichment_cache c
        WHERE c.service OPERATOR(pg_catalog.=) $1 AND c.cache_key OPERATOR(pg_catalog.=) $2",
    args: &[TEXTOID, TEXTOID],
};

/// The answer of a key as it is written into a file.
pub fn said(service: &str, key: &str) -> Result<Option<Said>, Error> {
    let mut said = None;
    spi::run(&SAID, &[Arg::of(service), Arg::of(key)], Mode::Read, |row| {
        if let (Some(status), Some(at)) = (row.text(1), row.get(2)) {
            said = Some(Said { status, payload: row.text(3), fetched_at: to_micros(at) });
        }
    })?;
    Ok(said)
}

static DONE: Statement =
    Statement { sql: "DELETE FROM @extschema@.enrichment_disk_outbox WHERE id = ANY ($1)", args: &[INT8ARRAYOID] };

/// Takes keys off the list.
pub fn done(ids: Vec<i64>) -> Result<(), Error> {
    if !ids.is_empty() {
        spi::run(&DONE, &[Arg::of(ids)], Mode::Write, |_| {})?;
    }
    Ok(())
}

static FAILED: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_disk_outbox
        SET failures = failures + 1, next_try_at = $2, problem = $3 WHERE id = $1",
    args: &[INT8OID, TIMESTAMPTZOID, TEXTOID],
};

/// Leaves a key for a later try.
pub fn failed(id: i64, retry_at: Micros, why: &str) -> Result<(), Error> {
    spi::run(&FAILED, &[Arg::of(id), Arg::of(to_timestamp(retry_at)), Arg::of(why)], Mode::Write, |_| {})?;
    Ok(())
}

static COUNT: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_cache_stats AS s (service, day, disk_adopted, disk_written)
        VALUES ($1, (pg_catalog.now() AT TIME ZONE 'UTC')::date, $2, $3)
        ON CONFLICT (service, day) DO UPDATE SET
            disk_adopted = s.disk_adopted + EXCLUDED.disk_adopted, disk_written = s.disk_written + EXCLUDED.disk_written",
    args: &[TEXTOID, INT8OID, INT8OID],
};

/// Adds to the figures of the current UTC day: answers taken over from files, files written.
pub fn count(service: &str, adopted: i64, written: i64) -> Result<(), Error> {
    spi::run(&COUNT, &[Arg::of(service), Arg::of(adopted), Arg::of(written)], Mode::Write, |_| {})?;
    Ok(())
}

/// A row of the cache on its way into a file of an export.
pub struct Exported {
    pub id: i64,
    pub service: String,
    pub key: String,
    pub said: Said,
}

static EXPORT: Statement = Statement {
    sql: "SELECT c.id, c.service, c.cache_key, c.response_status, c.fetched_at,
            (CASE WHEN c.ranges IS NULL THEN c.payload ELSE @extschema@.enrich_hibp_range(c.ranges) END)::text
        FROM @extschema@.enrichment_cache c
        WHERE c.id OPERATOR(pg_catalog.>) $1 AND c.response_status IN ('success', 'not_found')
          AND ($2 IS NULL OR c.service OPERATOR(pg_catalog.=) ANY ($2))
        ORDER BY c.id LIMIT $3",
    args: &[INT8OID, TEXTARRAYOID, INT8OID],
};

/// At most `n` answers behind an id, in the order of their ids.
pub fn to_export(after: i64, services: Option<Vec<String>>, n: i64) -> Result<Vec<Exported>, Error> {
    let mut found = Vec::new();
    spi::run(&EXPORT, &[Arg::of(after), Arg::of(services), Arg::of(n)], Mode::Read, |row| {
        if let (Some(id), Some(service), Some(key), Some(status), Some(at)) =
            (row.get(1), row.text(2), row.text(3), row.text(4), row.get(5))
        {
            let said = Said { status, payload: row.text(6), fetched_at: to_micros(at) };
            found.push(Exported { id, service, key, said });
        }
    })?;
    Ok(found)
}
