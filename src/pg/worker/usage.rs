//! What providers say of their limits when they are asked for that alone: a call beside the queue, at its own pace, while
//! the lane has work, also while a limit of the provider's holds it up.

use super::lane::Lane;
use super::{said, xact};
use crate::core::key::{Key, KeyForm};
use crate::core::request;
use crate::core::secret::Secret;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::{Done, Job};
use crate::pg::gucs;
use crate::pg::store::lanes as ledger;
use std::sync::Arc;

/// The id of a call that answers no request.
const NO_REQUEST: i64 = 0;
const SECOND: Micros = 1_000_000;

/// When the provider is asked again, if it can be asked.
pub fn next(lane: &Lane, service: &Service) -> Option<Micros> {
    service.rules.usage.url.as_ref()?;
    Some(lane.usage_asked.map_or(Micros::MIN, |asked| asked.saturating_add(every(service))))
}

fn every(service: &Service) -> Micros {
    Micros::from(service.rules.usage.every_seconds) * SECOND
}

/// The call that asks, when it is due.
pub fn job(lane: &mut Lane, service: &Arc<Service>, secret: Option<&Secret>, now: Micros) -> Option<Job> {
    next(lane, service).filter(|at| *at <= now)?;
    let request = request::build_usage(service, secret, &gucs::user_agent(), gucs::contact().as_deref());
    lane.usage_asked = Some(now);
    match request {
        Ok(request) => {
            let request = request?;
            lane.asks_usage(&service.name);
            Some(Job {
                id: NO_REQUEST,
                service: service.clone(),
                key: Key { text: String::new(), form: KeyForm::Text },
                request,
                usage: true,
            })
        }
        Err(why) => {
            said::event(&service.name, &format!("cannot be asked for its usage: {why}"));
            None
        }
    }
}

/// Ends a pause for a used-up balance when the provider, asked since it began, says that something is left of everything it
/// counts; one call then finds out whether that is so. Says when such a call brought nothing; it is made again at its next time.
pub fn note(done: &Done, paused_until: Option<Micros>) {
    let paused = paused_until.is_some_and(|until| until > done.finished_at);
    if paused && !done.reports.is_empty() && done.reports.iter().all(|report| report.left() != Some(0)) {
        let service = &done.service.name;
        let asked = done.finished_at - Micros::from(done.latency_ms + 1) * 1_000;
        if let Err(why) = xact::run(c"enrichment_cache: ending a pause", || ledger::end_used_up(service, asked)) {
            said::event(service, "could not be told that its balance is no longer used up");
            pgrx::debug1!("enrichment_cache: {service}: {why}");
        }
    }
    if done.reports.is_empty() {
        let (outcome, cause) = (done.outcome.status(), done.cause.as_str());
        said::event(&done.service.name, &format!("did not say how much of its limits is left: {outcome} ({cause})"));
    }
}
