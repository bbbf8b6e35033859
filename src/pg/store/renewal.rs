//! Statements of conditional requests: by what providers know the versions of kept answers, and answers that still hold.

use crate::core::condition::Validators;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_timestamp;
use crate::pg::spi::{self, Arg, Mode, Statement};
use crate::pg::store::queue::Claim;
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::{HashMap, HashSet};

static KEPT: Statement = Statement {
    sql: "SELECT cache_key, etag, last_modified FROM @extschema@.enrichment_cache
        WHERE service = $1 AND cache_key = ANY ($2) AND payload IS NOT NULL AND (etag IS NOT NULL OR last_modified IS NOT NULL)",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Notes, beside claimed keys whose answer is kept, by what the provider knows its version.
pub fn note_kept(service: &str, claims: &mut [Claim]) -> Result<(), Error> {
    let mut kept = HashMap::new();
    let keys: Vec<&str> = claims.iter().map(|claim| claim.key.as_str()).collect();
    spi::run(&KEPT, &[Arg::of(service), Arg::of(keys)], Mode::Read, |row| {
        if let Some(key) = row.text(1) {
            kept.insert(key, Validators { etag: row.text(2), last_modified: row.text(3) });
        }
    })?;
    claims.iter_mut().for_each(|claim| claim.kept = kept.remove(&claim.key));
    Ok(())
}

/// An answer that still holds: the provider was asked and said so.
pub struct Renewal {
    pub key: String,
    pub fetched_at: Micros,
    pub expires_at: Micros,
    pub code: Option<i32>,
    pub latency_ms: Option<i32>,
}

// The same rows as above, so that what is not renewed is asked without a condition next. A clock that was set back makes
// an answer no older.
static RENEW: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_cache AS c SET
            fetched_at = greatest(c.fetched_at, r.fetched_at), expires_at = greatest(c.expires_at, r.expires_at),
            api_response_code = r.code, api_latency_ms = r.latency, error_message = NULL, version = c.version + 1
        FROM (SELECT unnest($2::text[]) AS key, unnest($3::timestamptz[]) AS fetched_at, unnest($4::timestamptz[]) AS expires_at,
                unnest($5::int4[]) AS code, unnest($6::int4[]) AS latency) AS r
        WHERE c.service = $1 AND c.cache_key = r.key AND c.payload IS NOT NULL
          AND (c.etag IS NOT NULL OR c.last_modified IS NOT NULL)
        RETURNING c.cache_key",
    args: &[TEXTOID, TEXTARRAYOID, TIMESTAMPTZARRAYOID, TIMESTAMPTZARRAYOID, INT4ARRAYOID, INT4ARRAYOID],
};

/// Renews kept answers of a service without touching them; returns the keys of which there was one.
pub fn renew(service: &str, renewals: &[Renewal]) -> Result<HashSet<String>, Error> {
    let mut renewed = HashSet::new();
    if renewals.is_empty() {
        return Ok(renewed);
    }
    let args = [
        Arg::of(service),
        Arg::of(renewals.iter().map(|one| one.key.as_str()).collect::<Vec<_>>()),
        Arg::of(renewals.iter().map(|one| to_timestamp(one.fetched_at)).collect::<Vec<_>>()),
        Arg::of(renewals.iter().map(|one| to_timestamp(one.expires_at)).collect::<Vec<_>>()),
        Arg::of(renewals.iter().map(|one| one.code).collect::<Vec<_>>()),
        Arg::of(renewals.iter().map(|one| one.latency_ms).collect::<Vec<_>>()),
    ];
    spi::run(&RENEW, &args, Mode::Write, |row| renewed.extend(row.text(1)))?;
    Ok(renewed)
}
