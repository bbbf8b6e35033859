//! Reading answers: the forms of enrich_get, enrich_get_many, enrich_get_text. They read, and write nothing.

use crate::core::error::Error;
use crate::core::key;
use crate::core::service::Service;
use crate::core::Micros;
use crate::pg::convert::{positive_length, Host, RawJsonb};
use crate::pg::disk;
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::probe::{answer, many, site};
use crate::pg::rows::{KeysWithPayloads, Rows};
use crate::pg::store::registry;
use crate::pg::tally::Counter;
use pgrx::datum::{Array, Interval};
use pgrx::prelude::*;

/// The payload of a key if it is fresh, else NULL. Reads only; a key that cannot be one is NULL.
///
/// # Errors
/// 42704 for an unknown service.
#[pg_extern(stable, strict, parallel_safe, cost = 100)]
fn enrich_get(service: &str, key: Utf8, fcinfo: pg_sys::FunctionCallInfo) -> Answer<Option<RawJsonb>> {
    Ok(site::get(fcinfo, service, site::Given::Text(&key))?.map(RawJsonb))
}

/// The same for a column of type inet: no text is parsed, and none is made for an address that is remembered. A network has no
/// answer of its own.
#[pg_extern(stable, strict, parallel_safe, cost = 100, name = "enrich_get")]
fn enrich_get_inet(service: &str, key: Host, fcinfo: pg_sys::FunctionCallInfo) -> Answer<Option<RawJsonb>> {
    Ok(site::get(fcinfo, service, site::Given::Host(key))?.map(RawJsonb))
}

/// The payload of a key if it is fresh or expired by no more than `max_stale`, in which a month is 30 days and a day 24 hours.
///
/// # Errors
/// 42704 for an unknown service, 22023 for a negative interval.
#[pg_extern(stable, strict, parallel_safe, cost = 100, name = "enrich_get")]
fn enrich_get_stale(service: &str, key: Utf8, max_stale: Interval) -> Answer<Option<RawJsonb>> {
    Ok(once(service, &key, positive_length(&max_stale)?)?.map(RawJsonb))
}

/// The fresh payloads among many keys, in key order; keys without one give no row.
///
/// # Errors
/// 42704 for an unknown service.
#[pg_extern(stable, strict, parallel_safe, cost = 1000)]
fn enrich_get_many(service: &str, keys: Array<RawText>, fcinfo: pg_sys::FunctionCallInfo) -> Answer<KeysWithPayloads> {
    let service = registry::service(service)?;
    let keys: Vec<RawText> = keys.iter().flatten().collect();
    let keys: Vec<_> = keys.iter().map(RawText::read).collect();
    let mut wanted: Vec<_> = keys.iter().filter_map(|key| key::normal_form(service.key_kind, key)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let wanted: Vec<&str> = wanted.iter().map(|key| &**key).collect();
    let rows = Rows::of(fcinfo, wanted.len())?;
    if disk::may_answer(&service.name) {
        with_files(&service, &wanted, rows)?;
    } else {
        many::fresh(&service.name, &wanted, rows)?;
    }
    Ok(KeysWithPayloads)
}

/// Key by key, with the files of the disk cache for what the table has no fresh answer to.
fn with_files(service: &Service, keys: &[&str], rows: Rows) -> Result<(), Error> {
    for key in keys {
        pgrx::check_for_interrupts!();
        let mut once = answer::Once { counter: Counter::of(&service.name) };
        if let Some(payload) = answer::fresh(service, key, &mut once, 0)? {
            many::put(rows, key, payload);
        }
    }
    Ok(())
}

/// The raw text of a fresh entry; a payload that is not a text comes as its JSON text.
///
/// # Errors
/// 42704 for an unknown service.
#[pg_extern(stable, strict, parallel_safe, cost = 100)]
fn enrich_get_text(service: &str, key: Utf8) -> Answer<Option<RawText>> {
    Ok(once(service, &key, 0)?.and_then(RawText::of_jsonb))
}

fn once(service: &str, key: &str, grace: Micros) -> Result<Option<pg_sys::Datum>, Error> {
    let service = registry::service(service)?;
    let Ok(key) = key::normalise(service.key_kind, key) else { return Ok(None) };
    answer::fresh(&service, &key.text, &mut answer::Once { counter: Counter::of(&service.name) }, grace)
}
