//! enrich_request and enrich_request_many: keys go into the durable queue; the worker wakes at commit.

use super::{eligible, key_to_write};
use crate::core::service::Service;
use crate::core::worth;
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::migration::adopt::adopt;
use crate::pg::store::{breakers, queue, registry};
use crate::pg::{backlog, convert, gucs, wake};
use pgrx::datum::Array;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Asks for a key to be fetched: queued, already_queued, fresh, ineligible, disabled or no_credential.
///
/// # Errors
/// 42704 unknown service, 22023 for a key that cannot be one, 53400 when the queue is full.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_request(service: &str, key: Utf8, priority: default!(i32, 0)) -> Answer<String> {
    let service = registry::service(service)?;
    let key = key_to_write(&service, &key)?;
    adopt(&service.name, std::iter::once(key.text.as_str()))?;
    let refused = match refusal(&service)? {
        Some(why) => Some(why),
        None if !eligible(&key) => Some("ineligible"),
        None => None,
    };
    if let Some(why) = refused {
        return Ok(why.to_string());
    }
    // what was adopted a moment ago is not in the statement's own snapshot
    let fresh = super::fetch::latest(&service, &key)?.is_some_and(|entry| entry.fresh(convert::transaction_start()));
    if fresh {
        return Ok("fresh".to_string());
    }
    warn_without_worker();
    let added = queue::request(&service.name, vec![key.text], worth::given(priority), true)?;
    backlog::check(&service.name, added)?;
    wake::worker_at_commit();
    Ok(if added > 0 { "queued" } else { "already_queued" }.to_string())
}

/// Asks for many keys; returns how many are new in the queue. Keys that are fresh, ineligible or asked for already
/// are left out.
///
/// # Errors
/// As `enrich_request`; nothing is queued then.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_request_many(service: &str, keys: Array<RawText>, priority: default!(i32, 0)) -> Answer<i64> {
    let service = registry::service(service)?;
    let mut wanted = Vec::with_capacity(keys.len());
    for key in keys.iter().flatten() {
        let key = key_to_write(&service, &key.to_utf8())?;
        if eligible(&key) {
            wanted.push(key.text);
        }
    }
    adopt(&service.name, wanted.iter().map(String::as_str))?;
    if wanted.is_empty() || refusal(&service)?.is_some() {
        return Ok(0);
    }
    warn_without_worker();
    wanted.sort_unstable();
    wanted.dedup();
    let added = queue::request(&service.name, wanted, worth::given(priority), true)?;
    backlog::check(&service.name, added)?;
    wake::worker_at_commit();
    Ok(added)
}

/// Has requests that rest after their last attempt asked again, from the first attempt on: of one key, or all of the
/// service. A breaker that is open lets the next call try at once. Returns how many requests go on.
///
/// # Errors
/// 42704 unknown service, 22023 for a key that cannot be one.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_retry(service: Option<&str>, key: default!(Option<Utf8>, "NULL")) -> Answer<i64> {
    let service = registry::service(super::given(service, "service")?)?;
    let key = key.map(|key| key_to_write(&service, &key)).transpose()?;
    let revived = queue::retry_dead(&service.name, key.as_ref().map(|key| key.text.as_str()))?;
    breakers::try_now(&service.name)?;
    wake::worker_at_commit();
    Ok(i64::try_from(revived).unwrap_or(i64::MAX))
}

/// How many requests this database's queue holds, how many it may hold (NULL: no bound), and whether the number is
/// known or the planner's estimate.
///
/// # Errors
/// What the estimate raises.
#[allow(clippy::type_complexity)] // the columns
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_queue_length() -> Result<
    TableIterator<'static, (name!(requests, i64), name!(max_queue, Option<i64>), name!(estimated, bool))>,
    ErrorReport,
> {
    Ok(TableIterator::once((backlog::length()?, gucs::max_queue(), backlog::known().is_none())))
}

/// Why a service takes no requests at all.
pub fn refusal(service: &Service) -> Answer<Option<&'static str>> {
    if !service.enabled {
        return Ok(Some("disabled"));
    }
    if service.secret_required && !super::admin::has_secret(service)? {
        return Ok(Some("no_credential"));
    }
    Ok(None)
}

/// A request waits in the queue for good, but without a worker nobody serves it: said once per session.
fn warn_without_worker() {
    static SAID: std::sync::Once = std::sync::Once::new();
    if !gucs::preloaded() {
        SAID.call_once(|| {
            ErrorReport::new(
                PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the request is queued, but no worker runs to serve it",
                "enrich_request",
            )
            .set_hint("Add enrichment_cache to shared_preload_libraries and restart the server.")
            .report(PgLogLevel::WARNING);
        });
    }
}
