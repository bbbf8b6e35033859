//! How a service stands after its answers: paused for a limit or a refused secret, or left alone by its breaker. Read
//! once for a batch, changed answer by answer, written in the batch's transaction.

use super::{credentials, said};
use crate::core::backoff;
use crate::core::breaker::State;
use crate::core::classify::{Health, Outcome};
use crate::core::error::Error;
use crate::core::service::Service;
use crate::core::{Micros, SECOND};
use crate::io::Done;
use crate::pg::store::breakers::{self, Standing as Row};
use crate::pg::store::lanes::{self as ledger, Pause};

/// How long a refused secret stops its service; another one starts it at once.
pub const UNAUTHORIZED_PAUSE: Micros = 3600 * SECOND;
/// The causes of pauses that are ours to name.
pub const UNAUTHORIZED: &str = "unauthorized";
const RATE_LIMITED: &str = "rate_limited";
const USED_UP: &str = "used_up";
const BREAKER: &str = "breaker";

/// Until when a pause lasts that the provider asked for with a limit that passes. A used-up balance is not one: who was told of it finds out
/// when there is more, and what is left of it stands with the budget where the provider says so.
pub fn told_to_wait(pause: &Pause) -> Option<Micros> {
    pause.until.filter(|_| pause.cause.as_deref() == Some(RATE_LIMITED))
}

/// Whether a pause is for a limit of the provider's.
pub fn limits(cause: &str) -> bool {
    [RATE_LIMITED, USED_UP].contains(&cause)
}

/// A service's standing while a batch of its answers is stored.
pub struct Standing {
    before: Row,
    now: Row,
    /// Where the secret came from that was refused, in words.
    refused: Option<String>,
}

impl Standing {
    /// As it is noted, for a batch with these answers.
    ///
    /// # Errors
    /// What reading it raises.
    pub fn read<'a>(service: &Service, mut batch: impl Iterator<Item = &'a Done>) -> Result<Self, Error> {
        let before = breakers::standing(&service.name)?;
        let refused = batch.any(|done| matches!(done.outcome, Outcome::Unauthorized { .. }));
        let refused = refused.then(|| credentials::origin(service)).transpose()?;
        Ok(Standing { now: before.clone(), before, refused })
    }

    /// What is noted of an outcome that is no answer.
    pub fn message(&self, outcome: &Outcome) -> Option<String> {
        match outcome {
            Outcome::Success { .. } | Outcome::Unchanged | Outcome::NotFound => None,
            Outcome::RateLimited { used_up: true, .. } => Some("the provider's balance is used up".to_string()),
            Outcome::RateLimited { .. } => Some("the provider asked to wait".to_string()),
            Outcome::Unauthorized { message } => Some(match &self.refused {
                Some(origin) => format!("{message}; {origin}"),
                None => message.clone(),
            }),
            Outcome::Invalid { message, .. } | Outcome::Error { message, .. } => Some(message.clone()),
        }
    }

    /// Takes an answer in; returns until when its request waits without having used up an attempt, if that is so.
    pub fn hear(&mut self, done: &Done, random: f64) -> Option<Micros> {
        let now = done.finished_at;
        match &done.outcome {
            Outcome::RateLimited { .. } => return Some(self.limited(&done.outcome, now)),
            Outcome::Unauthorized { .. } => {
                let until = now + UNAUTHORIZED_PAUSE;
                let reason = self.message(&done.outcome).unwrap_or_default();
                let failures = self.now.pause.failures.saturating_add(1);
                self.hold(UNAUTHORIZED, until, reason, failures);
                return Some(until);
            }
            outcome if self.over(outcome, done, now) => self.now.pause = Pause::default(),
            _ => {}
        }
        self.tell_breaker(done, random)
    }

    /// Whether an outcome shows that what the service was paused for is over.
    fn over(&self, outcome: &Outcome, done: &Done, now: Micros) -> bool {
        let limit = self.now.pause.cause.as_deref().is_some_and(limits);
        let shows = outcome.answers() || (limit && Health::of(outcome, done.cause) == Health::Works);
        shows && self.now.pause.until.is_none_or(|until| until <= now)
    }

    /// Pauses for a limit: as long as the provider asks, else longer each time that one call has found it still in
    /// force. Calls that went out together find it once. Returns until when.
    fn limited(&mut self, outcome: &Outcome, now: Micros) -> Micros {
        let Outcome::RateLimited { pause_micros, used_up, asked } = *outcome else { return now };
        let (cause, cap) = match used_up {
            true => (USED_UP, backoff::USED_UP_CAP),
            false => (RATE_LIMITED, backoff::LIMITED_CAP),
        };
        let pause = &self.now.pause;
        let known = pause.cause.as_deref() == Some(cause);
        let holds = pause.until.filter(|until| known && *until > now);
        if let Some(until) = holds.filter(|_| !asked) {
            return until;
        }
        let pauses = match (known, holds) {
            (true, Some(_)) => pause.failures,
            (true, None) => pause.failures.saturating_add(1),
            (false, _) => 1,
        };
        let length = match asked {
            true => pause_micros,
            false => backoff::pause(pauses.max(1) as u32, pause_micros, cap),
        };
        let until = now.saturating_add(length);
        let reason = self.message(outcome).unwrap_or_default();
        self.hold(cause, until, reason, pauses);
        until
    }

    /// Until when the service is paused because its provider asked to wait.
    pub fn limited_until(&self) -> Option<Micros> {
        self.now.pause.until.filter(|_| self.now.pause.cause.as_deref().is_some_and(limits))
    }

    /// Until when it asked everybody who spends from the same budget to wait.
    pub fn told_to_wait(&self) -> Option<Micros> {
        told_to_wait(&self.now.pause)
    }

    fn tell_breaker(&mut self, done: &Done, random: f64) -> Option<Micros> {
        let health = Health::of(&done.outcome, done.cause);
        let breaker = &mut self.now.breaker;
        if breaker.state == State::Open {
            // it began before the breaker opened: one more of what opened it is nobody's failed attempt
            return breaker.until.filter(|_| health == Health::Fails);
        }
        let why = match &done.outcome {
            Outcome::Error { message, .. } | Outcome::Invalid { message, .. } => message.as_str(),
            _ => "",
        };
        let policy = &done.service.rules.breaker;
        // a call that began later has worked meanwhile
        let health = if done.heard.overtaken { Health::Unknown } else { health };
        breaker.heard(policy, (health, done.heard.abreast), done.id, why, done.finished_at, random);
        if breaker.state == State::Open {
            let failures = breaker.failures;
            let until = breaker.until.unwrap_or(done.finished_at);
            let reason = match breaker.openings {
                1 => format!("{failures} calls in a row failed, the last one: {why}"),
                _ => format!("the call that tried again failed, too: {why}"),
            };
            let failures = self.now.pause.failures.saturating_add(1);
            self.hold(BREAKER, until, reason, failures);
        }
        None
    }

    /// Of two reasons to wait the one that lasts longer is shown.
    fn hold(&mut self, cause: &str, until: Micros, reason: String, failures: i32) {
        let pause = &mut self.now.pause;
        if pause.until.is_none_or(|old| old < until) {
            pause.until = Some(until);
            pause.cause = Some(cause.to_string());
            pause.reason = Some(reason);
            pause.failures = failures;
        }
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// What writing it raises.
    pub fn write(&self, service: &str) -> Result<(), Error> {
        if self.now.pause != self.before.pause {
            ledger::set_pause(service, &self.now.pause)?;
        }
        if self.now.breaker != self.before.breaker {
            breakers::set(service, &self.now.breaker)?;
        }
        Ok(())
    }

    /// Says in the log what has changed, after it was committed.
    pub fn tell(&self, service: &str) {
        let (before, now) = (&self.before.breaker, &self.now.breaker);
        if before.state != State::Closed && now.state == State::Closed {
            said::event(service, "goes on: a call succeeded again");
        } else if now.openings > before.openings {
            said::event(service, &format!("is left alone by its breaker, opened {} times in a row", now.openings));
        }
        let cause = self.now.pause.cause.as_deref().filter(|cause| *cause != BREAKER);
        if let Some(cause) = cause.filter(|cause| Some(*cause) != self.before.pause.cause.as_deref()) {
            let origin = self.refused.as_deref().map(|origin| format!(": {origin}")).unwrap_or_default();
            said::event(service, &format!("is paused ({cause}){origin}"));
        }
    }
}
