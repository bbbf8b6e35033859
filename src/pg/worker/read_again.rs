//! What is read stays fresh: answers that were looked up lately are requested again when they are past their time, or
//! about to be. What nobody reads is left to expire.

use super::credentials;
use crate::core::error::Error;
use crate::core::service::Service;
use crate::core::{address, ahead, key, Micros};
use crate::pg::store::read_again::{self, Ageing};
use crate::pg::store::registry;
use crate::pg::{backlog, convert, gucs};

/// An expired answer that somebody was given is worth some days of waiting.
const STALE: i32 = 100;
/// One that has not expired gives way for some hours.
const AHEAD: i32 = -10;

/// Requests what has to be of these rows, which were looked up; says whether anything was requested.
///
/// # Errors
/// What the statements raise.
pub fn request(rows: Vec<i64>) -> Result<bool, Error> {
    if rows.is_empty() || !gucs::enabled() || backlog::room()? == 0 {
        return Ok(false);
    }
    let services = registry::all()?;
    let ageing = read_again::ageing(rows)?;
    let now = convert::clock();
    let mut requested = 0;
    for of_one in ageing.chunk_by(|one, next| one.service == next.service) {
        let Some(service) = services.get(&of_one[0].service).filter(|service| service.enabled) else { continue };
        if service.secret_required && credentials::of(service)?.is_none() {
            continue;
        }
        let (stale, fresh): (Vec<&Ageing>, Vec<&Ageing>) =
            of_one.iter().filter(|one| may_be_sent(service, &one.key)).partition(|one| one.expires_at <= now);
        if service.rules.refresh_stale {
            requested += read_again::request(&service.name, keys(&stale), STALE)?;
        }
        requested += request_ahead(service, fresh, now)?;
    }
    Ok(requested > 0)
}

fn request_ahead(service: &Service, mut fresh: Vec<&Ageing>, now: Micros) -> Result<i64, Error> {
    let part = service.rules.refresh_ahead;
    fresh.retain(|one| part > 0.0 && ahead::begins(one.fetched_at, one.expires_at, part) <= now);
    if fresh.is_empty() {
        return Ok(0);
    }
    let made = read_again::made_ahead(&service.name)?;
    let allowed = ahead::allowance(&service.limits, service.rules.refresh_ahead_share, made);
    fresh.truncate(usize::try_from(allowed).unwrap_or(usize::MAX));
    let added = read_again::request(&service.name, keys(&fresh), AHEAD)?;
    if added > 0 {
        read_again::count_ahead(&service.name, added)?;
    }
    Ok(added)
}

/// What was stored by hand may be of a key that is never sent.
fn may_be_sent(service: &Service, text: &str) -> bool {
    key::normalise(service.key_kind, text).is_ok_and(|key| address::key_eligibility(&key).is_ok())
}

fn keys(ageing: &[&Ageing]) -> Vec<String> {
    ageing.iter().map(|one| one.key.clone()).collect()
}
