//! Tests of services that sessions wait for: one live call each, beside the queue, within the limits, told in steps.

use super::credentials::{self, Credential};
use super::lanes::Lanes;
use super::xact;
use crate::core::error::Error;
use crate::core::key;
use crate::core::limiter::Per;
use crate::core::request;
use crate::core::service::Service;
use crate::core::trial::{self, Called, Step};
use crate::core::Micros;
use crate::io::secrets::Origin;
use crate::io::{Done, Job, Pool};
use crate::pg::store::breakers;
use crate::pg::store::lanes::{self as ledger, Calls, Pause};
use crate::pg::store::registry;
use crate::pg::{convert, gucs, trials};
use std::collections::HashMap;
use std::sync::Arc;

/// The tests whose calls are under way: what was told before, and whether a secret went along.
#[derive(Default)]
pub struct Trials(HashMap<u32, (Vec<Step>, bool)>);

/// The id of a test's call; those of requests are positive.
fn id(ticket: u32) -> i64 {
    -1 - i64::from(ticket)
}

fn ticket(id: i64) -> Option<u32> {
    u32::try_from(-1 - id).ok()
}

impl Trials {
    /// Begins what sessions have asked for; true when there was anything.
    pub fn begin(&mut self, pool: &Pool, lanes: &mut Lanes) -> bool {
        let asked = trials::take();
        let any = !asked.is_empty();
        for (ticket, service) in asked {
            let mut told = Vec::new();
            match prepare(&service, lanes, &mut told) {
                Ok(Some((mut job, with_secret))) => {
                    job.id = id(ticket);
                    self.0.insert(ticket, (told, with_secret));
                    pool.submit(job);
                }
                Ok(None) => trials::tell(ticket, &trial::write(&told)),
                Err(error) => {
                    let hint = "Look at the server log and at enrich_health().";
                    told.push(Step::new("worker", Some(false), error.to_string(), Some(hint)));
                    trials::tell(ticket, &trial::write(&told));
                }
            }
        }
        any
    }

    /// Takes the calls of tests out of what came back, and tells how they went.
    pub fn finish(&mut self, done: &mut Vec<Done>, lanes: &mut Lanes) {
        let (of_tests, others) = std::mem::take(done).into_iter().partition(|done: &Done| done.id < 0);
        *done = others;
        for done in of_tests {
            lanes.take_reports(&done);
            let counted = xact::run(c"enrichment_cache: counting a test", || count(&done));
            let open = ticket(done.id).and_then(|ticket| Some((ticket, self.0.remove(&ticket)?)));
            let Some((ticket, (mut told, with_secret))) = open else { continue };
            told.extend(trial::call(
                &done.service,
                &Called {
                    outcome: &done.outcome,
                    failed_at: done.failed_at,
                    status: done.status_code,
                    latency_ms: done.latency_ms,
                    through_proxy: gucs::http_proxy().is_some(),
                    with_secret,
                },
            ));
            if let Err(error) = counted {
                pgrx::log!("enrichment_cache: the call of a test was not counted: {error}");
            }
            trials::tell(ticket, &trial::write(&told));
        }
    }
}

/// The call of a test, and whether a secret goes along; `None` when it cannot be made now. `told` says what was found.
fn prepare(name: &str, lanes: &mut Lanes, told: &mut Vec<Step>) -> Result<Option<(Job, bool)>, Error> {
    let now = convert::clock();
    let (service, found, pause) = xact::run(c"enrichment_cache: preparing a test", || {
        let service = registry::service(name)?;
        let found = credentials::found(&service)?;
        Ok((service.clone(), found, breakers::standing(&service.name)?.pause))
    })?;
    told.push(state_of(&service));
    told.push(trial::secret(&service, found.origin.map(Origin::as_str), found.warning.as_deref()));
    if found.secret.is_none() && service.secret_required {
        return Ok(None);
    }
    let free = within_limits(&service, &pause, &found, lanes, now)?;
    let permitted = free.ok == Some(true);
    told.push(free);
    if !permitted {
        return Ok(None);
    }
    let Credential { secret, .. } = found;
    let key = trial::key(&service).unwrap_or_default();
    let built = key::normalise(service.key_kind, key).map_err(|problem| problem.why).and_then(|key| {
        let request = request::build(&service, &key, secret.as_ref(), &gucs::user_agent(), gucs::contact().as_deref())?;
        Ok((key, request))
    });
    match built {
        Ok((key, request)) => Ok(Some((Job { id: 0, service, key, request, usage: false }, secret.is_some()))),
        Err(why) => {
            let hint = "Name a key that can be asked as test_key in the rules of the service.";
            told.push(Step::new("request", Some(false), format!("no request can be built: {why}"), Some(hint)));
            Ok(None)
        }
    }
}

fn state_of(service: &Service) -> Step {
    match (gucs::enabled(), service.enabled) {
        (false, _) => {
            let hint = "Set enrichment_cache.enabled = on and reload; the test is made all the same.";
            Step::new("enabled", Some(false), "fetching is switched off for the whole server", Some(hint))
        }
        (true, false) => {
            let hint = "Run UPDATE enrichment_service SET enabled = true; the test is made all the same.";
            Step::new("enabled", Some(false), "the service is switched off", Some(hint))
        }
        (true, true) => Step::new("enabled", Some(true), "the service is asked", None),
    }
}

/// Takes one call from the budget, if limits and the provider allow one now. What a wrong secret or the
/// breaker stopped may be tested.
fn within_limits(
    service: &Arc<Service>,
    pause: &Pause,
    found: &Credential,
    lanes: &mut Lanes,
    now: Micros,
) -> Result<Step, Error> {
    let seconds = |until: Micros| (until.saturating_sub(now) / 1_000_000).max(1);
    let asked_to_wait = pause
        .until
        .filter(|until| *until > now)
        .filter(|_| !matches!(pause.cause.as_deref(), Some("unauthorized" | "no_credential" | "breaker")));
    if let Some(until) = asked_to_wait {
        let why = pause.reason.as_deref().unwrap_or("it is paused");
        let detail = format!("{why}; nothing is asked for another {} s", seconds(until));
        return Ok(Step::new("limit", Some(false), detail, Some("Wait, then test again; no call was made.")));
    }
    Ok(match lanes.permit_one(service, found.secret.as_ref(), now)? {
        Ok(()) => Step::new("limit", Some(true), "one call is allowed now, and was counted", None),
        Err(held) => {
            let which = held.and_then(|(_, per)| per).map_or("balance", Per::as_str);
            let wait = held.map_or(1, |(until, _)| seconds(until));
            let detail = format!("the limit of the {which} is reached; the next call may start in {wait} s");
            Step::new("limit", Some(false), detail, Some("Wait, then test again; no call was made."))
        }
    })
}

/// A test is a call like any other.
fn count(done: &Done) -> Result<(), Error> {
    let latency = i64::from(done.latency_ms);
    let failed = !matches!(done.outcome.status(), "success" | "not_found");
    let calls = Calls {
        calls: 1,
        failures: i64::from(failed),
        latency_sum_ms: latency,
        latency_max_ms: latency,
        ..Calls::default()
    };
    ledger::count(&done.service.name, &calls)
}
