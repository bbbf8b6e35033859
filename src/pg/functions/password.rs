//! enrich_password: whether a password is known to be breached; only its five-digit prefix goes anywhere.

use crate::core::hash::hibp_split;
use crate::core::Micros;
use crate::pg::convert::transaction_start;
use crate::pg::encoding::Utf8;
use crate::pg::error::Answer;
use crate::pg::store::{cache, queue, registry};
use crate::pg::{backlog, disk, probe, wake};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Whether HIBP knows a password, and how often it was seen. `breached` is NULL as long as that is not known: status
/// then says queued, error, disabled or miss; else it is fresh or stale.
///
/// # Errors
/// 42704 when the service hibp was removed.
#[allow(clippy::type_complexity)] // the columns of the contract
#[pg_extern(volatile, strict, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_password(
    password: Utf8,
) -> Result<
    TableIterator<'static, (name!(breached, Option<bool>), name!(prevalence, Option<i64>), name!(status, String))>,
    ErrorReport,
> {
    let service = registry::service("hibp")?;
    let (prefix, suffix) = hibp_split(password.as_bytes());
    let now: Micros = transaction_start();
    let mut entry = probe::entry::entry(&service.name, &prefix)?;
    let lying = disk::newer(&service, &prefix, entry.as_ref())?;
    if let Some(lying) = &lying {
        entry = Some(disk::entry(lying));
    }
    let fresh = entry.as_ref().is_some_and(|entry| entry.fresh(now));
    let mut status = if fresh { "fresh" } else { "stale" };
    if !fresh {
        let asked = if service.enabled { ask(&service.name, &prefix)? } else { "disabled" };
        if entry.as_ref().is_none_or(|entry| entry.payload.is_none()) {
            return Ok(TableIterator::once((None, None, asked.to_string())));
        }
        status = "stale";
    }
    let count = match &lying {
        Some(lying) => disk::breaches(lying, &suffix),
        None => cache::breaches(&prefix, &suffix)?,
    };
    Ok(TableIterator::once((Some(count > 0), Some(count), status.to_string())))
}

/// Queues the prefix, unless this transaction may not write: then it says how the request stands.
fn ask(service: &str, prefix: &str) -> Answer<&'static str> {
    let waiting = queue::waiting(service, prefix)?;
    if waiting.as_ref().is_some_and(|waiting| waiting.state == "dead") {
        return Ok("error");
    }
    // SAFETY: plain globals of this process.
    if unsafe { pg_sys::XactReadOnly || pg_sys::RecoveryInProgress() } {
        return Ok(if waiting.is_some() { "queued" } else { "miss" });
    }
    if waiting.is_none() && backlog::room()? == 0 {
        return Ok("miss");
    }
    queue::request(service, vec![prefix.to_string()], 0, false)?;
    wake::worker_at_commit();
    Ok("queued")
}
