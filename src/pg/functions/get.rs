//! Reading answers: the forms of enrich_get, enrich_get_many, enrich_get_text. They read, and write nothing.

use crate::core::error::Error;
use crate::core::key;
use crate::core::service::Service;
use crate::pg::convert::{positive_length, Host, RawJsonb};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::probe::{answer, entry, many, site};
use crate::pg::ranges::Kept;
use crate::pg::store::registry;
use crate::pg::tally::Counter;
use crate::pg::{disk, gucs};
use pgrx::datum::{Array, Interval};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The payload of a key if it is fresh, else NULL. Reads only; a key that cannot be one is NULL.
///
/// # Errors
/// 42704 for an unknown service.
#[pg_extern(stable, strict, parallel_safe, cost = 100)]
fn enrich_get(service: &str, key: Utf8, fcinfo: pg_sys::FunctionCallInfo) -> Answer<Option<RawJsonb>> {
    Ok(site::get(fcinfo, service, site::Given::Text(&key))?.map(RawJsonb))
}

/// The same for a column of type inet, without a way over text. A network has no answer of its own.
#[pg_extern(stable, strict, parallel_safe, cost = 100, name = "enrich_get")]
fn enrich_get_inet(service: &str, key: Host, fcinfo: pg_sys::FunctionCallInfo) -> Answer<Option<RawJsonb>> {
    Ok(site::get(fcinfo, service, site::Given::Host(key))?.map(RawJsonb))
}

/// The payload of a key if it is fresh or expired by no more than `max_stale`.
///
/// # Errors
/// 42704 for an unknown service, 22023 for a negative interval.
#[pg_extern(stable, strict, parallel_safe, cost = 100, name = "enrich_get")]
fn enrich_get_stale(service: &str, key: Utf8, max_stale: Interval) -> Answer<Option<RawJsonb>> {
    positive_length(&max_stale)?;
    Ok(once(service, &key, Some(max_stale))?.map(RawJsonb))
}

/// The fresh payloads among many keys, in key order; keys without one give no row.
///
/// # Errors
/// 42704 for an unknown service.
#[pg_extern(stable, strict, parallel_safe, cost = 1000)]
fn enrich_get_many(
    service: &str,
    keys: Array<RawText>,
) -> Result<TableIterator<'static, (name!(cache_key, RawText), name!(payload, RawJsonb))>, ErrorReport> {
    let service = registry::service(service)?;
    let normal = |key: RawText| key::normalise(service.key_kind, &key.to_utf8()).ok().map(|key| key.text);
    let mut wanted: Vec<String> = keys.iter().flatten().filter_map(normal).collect();
    wanted.sort_unstable();
    wanted.dedup();
    // each answer is made when its row is asked for: a packed range becomes twice as long
    let asked = gucs::reads_files().then(|| wanted.clone());
    let mut found = many::fresh(&service.name, wanted)?;
    if let Some(asked) = asked {
        found = with_files(&service, asked, found)?;
    }
    Ok(TableIterator::new(found.into_iter().map(|(key, kept)| (RawText::of_utf8(&key), kept.answer()))))
}

/// Adds what files of the disk cache say of keys that the table has no fresh answer for; both are in key order.
fn with_files(service: &Service, asked: Vec<String>, found: Vec<(String, Kept)>) -> Result<Vec<(String, Kept)>, Error> {
    let mut counter = Counter::of(&service.name);
    let mut all = Vec::with_capacity(asked.len());
    let mut found = found.into_iter().peekable();
    for key in asked {
        pgrx::check_for_interrupts!();
        if let Some(known) = found.next_if(|(known, _)| *known == key) {
            all.push(known);
            continue;
        }
        let known = entry::entry(&service.name, &key)?;
        if let Some(lying) = disk::instead(service, &key, known.as_ref(), None)? {
            counter.file_answered();
            all.extend(disk::payload(&lying).map(|payload| (key, Kept { payload, ranges: None })));
        }
    }
    Ok(all)
}

/// The raw text of a fresh entry; a payload that is not a text comes as its JSON text.
///
/// # Errors
/// 42704 for an unknown service.
#[pg_extern(stable, strict, parallel_safe, cost = 100)]
fn enrich_get_text(service: &str, key: Utf8) -> Answer<Option<RawText>> {
    Ok(once(service, &key, None)?.and_then(RawText::of_jsonb))
}

fn once(service: &str, key: &str, grace: Option<Interval>) -> Result<Option<pg_sys::Datum>, Error> {
    let service = registry::service(service)?;
    let Ok(key) = key::normalise(service.key_kind, key) else { return Ok(None) };
    answer::fresh(&service, &key.text, &mut answer::Once { counter: Counter::of(&service.name) }, grace)
}
