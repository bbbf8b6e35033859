//! Statements for answers that somebody reads and that are, or are about to be, past their time.

use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::backlog;
use crate::pg::convert::to_micros;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

/// An answer that may have to be asked for again.
pub struct Ageing {
    pub service: String,
    pub key: String,
    pub fetched_at: Micros,
    pub expires_at: Micros,
}

// Nine tenths of a life is the most that rules can ask ahead. One probe for each row, whatever the planner believes of
// the table's size.
static AGEING: Statement = Statement {
    sql: "SELECT c.service, c.cache_key, c.fetched_at, c.expires_at
        FROM unnest($1::int8[]) AS t (id)
        CROSS JOIN LATERAL (
            SELECT l.service, l.cache_key, l.fetched_at, l.expires_at FROM @extschema@.enrichment_cache l
            WHERE l.id = t.id AND l.response_status = 'success'
              AND l.expires_at - (l.expires_at - l.fetched_at) * 0.9 <= pg_catalog.now() LIMIT 1) c
        WHERE NOT EXISTS (SELECT FROM @extschema@.enrichment_queue q
            WHERE q.service = c.service AND q.cache_key = c.cache_key)
        ORDER BY c.service, c.expires_at",
    args: &[INT8ARRAYOID],
};

/// Of these rows the answers in the last nine tenths of their life or past it that nobody has requested, of each service
/// the oldest first.
pub fn ageing(rows: Vec<i64>) -> Result<Vec<Ageing>, Error> {
    let mut found = Vec::new();
    spi::run(&AGEING, &[Arg::of(rows)], Mode::Write, |row| {
        if let (Some(service), Some(key), Some(fetched), Some(expires)) =
            (row.text(1), row.text(2), row.get(3), row.get(4))
        {
            found.push(Ageing { service, key, fetched_at: to_micros(fetched), expires_at: to_micros(expires) });
        }
    })?;
    Ok(found)
}

static REQUEST: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_queue (service, cache_key, priority)
        SELECT $1, k, $3 FROM pg_catalog.unnest($2::text[]) AS k ORDER BY k
        ON CONFLICT (service, cache_key) DO NOTHING",
    args: &[TEXTOID, TEXTARRAYOID, INT4OID],
};

/// Requests these keys, fresh or not; returns how many are new in the queue.
pub fn request(service: &str, keys: Vec<String>, priority: i32) -> Result<i64, Error> {
    if keys.is_empty() {
        return Ok(0);
    }
    let added = spi::run(&REQUEST, &[Arg::of(service), Arg::of(keys), Arg::of(priority)], Mode::Write, |_| {})? as i64;
    backlog::note(added);
    Ok(added)
}

static MADE: Statement = Statement {
    sql: "SELECT refreshed_ahead FROM @extschema@.enrichment_cache_stats
        WHERE service = $1 AND day = (pg_catalog.now() AT TIME ZONE 'UTC')::date",
    args: &[TEXTOID],
};

/// Requests ahead of expiry made for a service in the current UTC day.
pub fn made_ahead(service: &str) -> Result<i64, Error> {
    let mut made = 0;
    spi::run(&MADE, &[Arg::of(service)], Mode::Write, |row| made = row.get(1).unwrap_or(0))?;
    Ok(made)
}

static COUNT: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_cache_stats AS s (service, day, refreshed_ahead)
        VALUES ($1, (pg_catalog.now() AT TIME ZONE 'UTC')::date, $2)
        ON CONFLICT (service, day) DO UPDATE SET refreshed_ahead = s.refreshed_ahead + EXCLUDED.refreshed_ahead",
    args: &[TEXTOID, INT8OID],
};

/// Adds to them.
pub fn count_ahead(service: &str, requests: i64) -> Result<(), Error> {
    spi::run(&COUNT, &[Arg::of(service), Arg::of(requests)], Mode::Write, |_| {})?;
    Ok(())
}
