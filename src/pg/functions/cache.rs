//! Storing answers: enrich_store and its kin, enrich_invalidate, enrich_cleanup.

use super::{given, key_to_write};
use crate::core::error::{Error, STATUSES};
use crate::core::hash::cache_key_hash;
use crate::core::service::Service;
use crate::core::{ttl as life, Micros};
use crate::pg::convert::{positive_length, to_micros, transaction_start, RawJsonb};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::migration::invalidate::{invalidate, Written};
use crate::pg::store::cache::{self as rows, Incoming, Payload};
use crate::pg::store::{arrivals, cleanup, registry};
use crate::pg::{disk, ranges, wake};
use pgrx::datum::{Array, Interval, TimestampWithTimeZone};
use pgrx::prelude::*;

/// How far the clock of another machine may be ahead of ours.
const CLOCK_SKEW: Micros = 300 * 1_000_000;

/// Stores an answer; returns the row's new version. A NULL ttl takes the service's, spread by ±5 %.
///
/// # Errors
/// 42704 unknown service; 22023 for a key that cannot be one, a negative ttl, an unknown status, a payload with a
/// status that has none (or none with "success"), an observation in the future; 54000 for too large a payload.
#[allow(clippy::too_many_arguments)] // the contract's signature
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_store(
    service: Option<&str>,
    key: Option<Utf8>,
    payload: Option<RawJsonb>,
    ttl: default!(Option<Interval>, "NULL"),
    response_status: default!(Option<&str>, "'success'"),
    api_response_code: default!(Option<i32>, "NULL"),
    api_latency_ms: default!(Option<i32>, "NULL"),
    error_message: default!(Option<Utf8>, "NULL"),
    fetched_at: default!(Option<TimestampWithTimeZone>, "now()"),
) -> Answer<i64> {
    let service = registry::service(given(service, "service")?)?;
    let key = key_to_write(&service, &given(key, "key")?)?.text;
    let status = status_named(given(response_status, "response_status")?)?;
    match (&payload, status) {
        (Some(_), "success") | (None, "not_found" | "error" | "rate_limited" | "unauthorized" | "invalid") => (),
        (Some(_), status) => return Err(Error::StatusWithPayload { status: status.to_string() }.into()),
        (None, status) => return Err(Error::PayloadMissing { status: status.to_string() }.into()),
    }
    if let Some(payload) = &payload {
        check_size(&service, payload)?;
    }
    let fetched_at = observed(to_micros(given(fetched_at, "fetched_at")?))?;
    let (payload, ranges) = payload.map(|payload| ranges::pack(&service, payload)).unzip();
    let entry = Incoming {
        ranges: ranges.flatten(),
        expires_at: expiry(&service, &key, status, ttl.as_ref(), fetched_at)?,
        status,
        fetched_at,
        code: api_response_code,
        latency_ms: api_latency_ms,
        error: error_message.map(|message| message.to_string()),
        key,
        ..Default::default()
    };
    store_one(&service, entry, Payload::Jsonb(payload.map(|payload| payload.0)))
}

/// Stores one entry; an older observation than the row's leaves the row as it is and returns its version.
pub fn store_one(service: &Service, entry: Incoming, payload: Payload) -> Answer<i64> {
    let key = entry.key.clone();
    let answer = matches!(entry.status, "success" | "not_found");
    if answer {
        disk::note(&service.name, vec![key.clone()])?;
    }
    match rows::store_one(&service.name, entry, payload)? {
        Some(version) => {
            if answer {
                tell_tables(&service.name, || vec![key])?;
            }
            Ok(version)
        }
        None => Ok(rows::locked_version(&service.name, &key)?.unwrap_or(0)),
    }
}

/// Has the worker write what was stored into the rows of attached tables that wait for these keys. Where no table has the
/// service, nothing is asked of the database.
fn tell_tables(service: &str, keys: impl FnOnce() -> Vec<String>) -> Result<(), Error> {
    if registry::is_attached(service) && arrivals::note_answered(service, keys())? {
        wake::worker_at_commit();
    }
    Ok(())
}

/// Stores many answers of one service, all observed now; of a key that repeats the last one counts. Returns how many
/// rows were written.
///
/// # Errors
/// As `enrich_store`; 22023 when the arrays differ in length. Nothing is stored then.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_store_many(
    service: Option<&str>,
    keys: Option<Array<RawText>>,
    payloads: Option<Array<RawJsonb>>,
    ttl: default!(Option<Interval>, "NULL"),
) -> Answer<i64> {
    let service = registry::service(given(service, "service")?)?;
    let (keys, payloads) = (given(keys, "keys")?, given(payloads, "payloads")?);
    if keys.len() != payloads.len() {
        return Err(Error::InvalidArgument {
            message: format!("{} keys but {} payloads", keys.len(), payloads.len()),
            hint: "Give one payload for each key.".to_string(),
        }
        .into());
    }
    let now = transaction_start();
    let mut batch: Vec<(Incoming, Payload)> = Vec::with_capacity(keys.len());
    for (key, payload) in keys.iter().zip(payloads.iter()) {
        let key = key_to_write(&service, &key.map(|key| key.to_utf8()).unwrap_or_default())?.text;
        let payload = payload.ok_or(Error::PayloadMissing { status: "success".to_string() })?;
        check_size(&service, &payload)?;
        let (payload, ranges) = ranges::pack(&service, payload);
        let expires_at = expiry(&service, &key, "success", ttl.as_ref(), now)?;
        let entry = Incoming { key, status: "success", fetched_at: now, expires_at, ranges, ..Default::default() };
        batch.push((entry, Payload::Jsonb(Some(payload.0))));
    }
    // the last of a key comes first and is kept
    batch.reverse();
    batch.sort_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    batch.dedup_by(|(later, _), (first, _)| later.key == first.key);
    let keys = |batch: &[(Incoming, Payload)]| batch.iter().map(|(entry, _)| entry.key.clone()).collect::<Vec<_>>();
    disk::note(&service.name, keys(&batch))?;
    let stored = if registry::is_attached(&service.name) { keys(&batch) } else { Vec::new() };
    let rows = rows::store(&service.name, batch)?;
    tell_tables(&service.name, || stored)?;
    Ok(rows as i64)
}

/// Stores a payload only if the row still has the expected version (0 = there must be none yet); returns the new
/// version, or NULL when somebody else was faster.
///
/// # Errors
/// As `enrich_store`.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_compare_and_store(
    service: Option<&str>,
    key: Option<Utf8>,
    expected_version: Option<i64>,
    payload: Option<RawJsonb>,
    ttl: default!(Option<Interval>, "NULL"),
) -> Answer<Option<i64>> {
    let service = registry::service(given(service, "service")?)?;
    let key = key_to_write(&service, &given(key, "key")?)?.text;
    let (expected_version, payload) = (given(expected_version, "expected_version")?, given(payload, "payload")?);
    check_size(&service, &payload)?;
    let now = transaction_start();
    let expires_at = expiry(&service, &key, "success", ttl.as_ref(), now)?;
    if rows::locked_version(&service.name, &key)?.unwrap_or(0) != expected_version {
        return Ok(None);
    }
    let (payload, ranges) = ranges::pack(&service, payload);
    let entry = Incoming { key, status: "success", fetched_at: now, expires_at, ranges, ..Default::default() };
    let version = store_one(&service, entry, Payload::Jsonb(Some(payload.0)))?;
    // two sessions may both have found no row: only the one whose insert came first made version expected + 1
    Ok((version == expected_version + 1).then_some(version))
}

/// Makes a key (NULL: all keys) of a service expire now, or deletes it (`hard`), with what an import has kept for it under its
/// digests; returns how many rows changed. What is deleted also goes from the files of the disk cache where they are written
/// (`write_through`), and stays in them where they are only read.
///
/// # Errors
/// 42704 unknown service, 22023 for a key that cannot be one.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_invalidate(
    service: Option<&str>,
    key: default!(Option<Utf8>, "NULL"),
    hard: default!(Option<bool>, "false"),
) -> Answer<i64> {
    let service = registry::service(given(service, "service")?)?;
    let hard = given(hard, "hard")?;
    let normal = key.as_ref().map(|key| key_to_write(&service, key)).transpose()?;
    let key = normal.as_ref().zip(key.as_deref()).map(|(key, written)| Written { key: &key.text, written });
    let imported = invalidate(&service.name, key.as_ref(), hard)?;
    let key = key.map(|key| key.key);
    if hard {
        disk::note_deleted(&service, key)?;
    }
    Ok(imported + rows::invalidate(&service.name, key, hard)?)
}

/// Deletes entries past expiry and the grace of their service, at most `max_rows`, in batches that can be cancelled
/// in between; returns how many.
///
/// # Errors
/// 22023 for a negative number.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_cleanup(max_rows: default!(Option<i64>, "NULL")) -> Answer<i64> {
    const BATCH: i64 = 500;
    let most = max_rows.unwrap_or(i64::MAX);
    if most < 0 {
        return Err(Error::InvalidArgument {
            message: format!("max_rows must not be negative: {most}"),
            hint: "Give a number of rows, or NULL for all.".to_string(),
        }
        .into());
    }
    let (mut removed, mut from) = (0, cleanup::CleanedTo::default());
    while removed < most {
        pgrx::check_for_interrupts!();
        let batch = cleanup::cleanup(BATCH.min(most - removed), &mut from)?;
        removed += batch.removed;
        if !batch.more {
            break;
        }
    }
    Ok(removed)
}

pub fn status_named(name: &str) -> Result<&'static str, Error> {
    STATUSES
        .into_iter()
        .find(|status| *status == name)
        .ok_or_else(|| Error::InvalidStatus { given: crate::core::redact::shorten(name, 60) })
}

/// When an entry of this status expires.
pub fn expiry(
    service: &Service,
    key: &str,
    status: &str,
    ttl: Option<&Interval>,
    fetched_at: Micros,
) -> Result<Micros, Error> {
    if let Some(ttl) = ttl {
        return Ok(fetched_at.saturating_add(positive_length(ttl)?));
    }
    let length = match status {
        "success" => service.ttl,
        "not_found" => service.not_found_ttl,
        _ => 0,
    };
    Ok(life::expires_at(fetched_at, length, &cache_key_hash(&service.name, key)))
}

fn observed(at: Micros) -> Result<Micros, Error> {
    if at > transaction_start().saturating_add(CLOCK_SKEW) {
        return Err(Error::InvalidArgument {
            message: "fetched_at lies in the future".to_string(),
            hint: "Give the moment the answer was observed; age counts from it.".to_string(),
        });
    }
    Ok(at)
}

fn check_size(service: &Service, payload: &RawJsonb) -> Result<(), Error> {
    let size = super::text::datum_size(payload.0);
    if size > service.max_bytes {
        return Err(Error::PayloadTooLarge { size, limit: service.max_bytes });
    }
    Ok(())
}
