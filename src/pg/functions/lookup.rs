//! enrich_lookup: everything known of one key, and the state that says why a value is what it is.

use super::{eligible, key_to_read};
use crate::core::key::Key;
use crate::core::service::Service;
use crate::core::Micros;
use crate::pg::convert::{to_timestamp, transaction_start, RawJsonb};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::store::cache::Entry;
use crate::pg::store::queue::{self, Waiting};
use crate::pg::store::registry;
use crate::pg::{disk, probe, shmem, wake};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// What a look-up found of one key.
pub struct Found {
    pub key: String,
    pub state: &'static str,
    pub entry: Option<Entry>,
    pub waiting: Option<Waiting>,
    /// Whether the entry was read from a file of the disk cache.
    pub in_file: bool,
}

/// Looks one key up with its reason.
pub fn find(service: &Service, raw: &str) -> Result<Found, crate::core::error::Error> {
    let Some(key) = key_to_read(service, raw) else {
        return Ok(Found {
            key: crate::core::key::shown(raw),
            state: "ineligible",
            entry: None,
            waiting: None,
            in_file: false,
        });
    };
    let mut entry = probe::entry::entry(&service.name, &key.text)?;
    let lying = disk::newer(service, &key.text, entry.as_ref())?;
    if let Some(lying) = &lying {
        entry = Some(disk::entry(lying));
    }
    let mut waiting = queue::waiting(&service.name, &key.text)?;
    if let Some(waiting) = &mut waiting {
        waiting.next_attempt_at = waiting.next_attempt_at.max(limit_holds_until(&service.name).unwrap_or(Micros::MIN));
    }
    let state = state(&key, entry.as_ref(), waiting.as_ref(), transaction_start());
    Ok(Found { key: key.text, state, entry, waiting, in_file: lying.is_some() })
}

/// Until when a limit holds the calls of a service up.
fn limit_holds_until(service: &str) -> Option<Micros> {
    let database = wake::my_database();
    let mine = |lane: &&shmem::Waits| lane.database == database && lane.service.as_str() == service;
    shmem::read(|shared| shared.lanes.iter().filter(mine).map(|lane| lane.until).max()).flatten()
}

fn state(key: &Key, entry: Option<&Entry>, waiting: Option<&Waiting>, now: Micros) -> &'static str {
    let failed = |waiting: &Waiting| waiting.state == "dead" || waiting.last_outcome.is_some();
    match entry {
        Some(entry) if entry.payload.is_some() && entry.fresh(now) => "hit",
        Some(entry) if entry.payload.is_some() => "stale",
        Some(entry) if entry.response_status == "not_found" && entry.fresh(now) => "not_found",
        _ if !eligible(key) => "ineligible",
        _ if waiting.is_some_and(failed) => "error",
        _ if waiting.is_some() => "queued",
        Some(entry) if entry.response_status != "not_found" => "error",
        _ => "miss",
    }
}

/// One row about a key, and whether it stands in the database or in a file of the disk cache (`source`): state is hit, stale, not_found, error, queued, miss or ineligible.
///
/// # Errors
/// 42704 for an unknown service.
#[allow(clippy::type_complexity)] // the columns of the contract
#[pg_extern(stable, strict, parallel_safe, cost = 200)]
fn enrich_lookup(
    service: &str,
    key: Utf8,
) -> Result<
    TableIterator<
        'static,
        (
            name!(cache_key, RawText),
            name!(state, String),
            name!(response_status, Option<String>),
            name!(payload, Option<RawJsonb>),
            name!(fetched_at, Option<TimestampWithTimeZone>),
            name!(expires_at, Option<TimestampWithTimeZone>),
            name!(age, Option<Interval>),
            name!(hit_count, Option<i64>),
            name!(version, Option<i64>),
            name!(error_message, Option<String>),
            name!(next_attempt_at, Option<TimestampWithTimeZone>),
            name!(source, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let service = registry::service(service)?;
    let Found { key, state, entry, waiting, in_file } = find(&service, &key)?;
    let now = transaction_start();
    let error = entry
        .as_ref()
        .and_then(|entry| entry.error_message.clone())
        .or_else(|| waiting.as_ref().and_then(|waiting| waiting.last_error.clone()));
    let entry = entry.as_ref();
    Ok(TableIterator::once((
        RawText::of_utf8(&key),
        state.to_string(),
        entry.map(|entry| entry.response_status.clone()),
        entry.and_then(|entry| entry.payload).map(|kept| kept.answer()),
        entry.map(|entry| to_timestamp(entry.fetched_at)),
        entry.map(|entry| to_timestamp(entry.expires_at)),
        entry.map(|entry| Interval::from_micros(now - entry.fetched_at)),
        entry.filter(|_| !in_file).map(|entry| entry.hit_count),
        entry.filter(|_| !in_file).map(|entry| entry.version),
        error,
        waiting.filter(|waiting| waiting.state != "dead").map(|waiting| to_timestamp(waiting.next_attempt_at)),
        entry.map(|_| if in_file { "disk" } else { "database" }.to_string()),
    )))
}
