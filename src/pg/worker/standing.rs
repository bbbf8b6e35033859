//! How a service stands after its answers: paused for a limit or a refused secret, or left alone by its breaker. Read
//! once for a batch, changed answer by answer, written in the batch's transaction.

use super::{credentials, said};
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
const BREAKER: &str = "breaker";

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
            Outcome::Invalid { message } | Outcome::Error { message, .. } => Some(message.clone()),
        }
    }

    /// Takes an answer in; returns until when its request waits without having used up an attempt, if that is so.
    pub fn hear(&mut self, done: &Done, random: f64) -> Option<Micros> {
        let now = done.finished_at;
        match &done.outcome {
            Outcome::RateLimited { pause_micros, used_up } => {
                let until = now.saturating_add(*pause_micros);
                self.pause(if *used_up { "used_up" } else { "rate_limited" }, until, &done.outcome);
                return Some(until);
            }
            Outcome::Unauthorized { .. } => {
                let until = now + UNAUTHORIZED_PAUSE;
                self.pause(UNAUTHORIZED, until, &done.outcome);
                return Some(until);
            }
            outcome if outcome.answers() && self.now.pause.until.is_some_and(|until| until <= now) => {
                self.now.pause = Pause::default();
            }
            _ => {}
        }
        self.tell_breaker(done, random)
    }

    fn tell_breaker(&mut self, done: &Done, random: f64) -> Option<Micros> {
        let health = Health::of(&done.outcome, done.cause);
        let breaker = &mut self.now.breaker;
        if breaker.state == State::Open {
            // it began before the breaker opened: one more of what opened it is nobody's failed attempt
            return breaker.until.filter(|_| health == Health::Fails);
        }
        let why = match &done.outcome {
            Outcome::Error { message, .. } | Outcome::Invalid { message } => message.as_str(),
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
            self.hold(BREAKER, until, reason);
        }
        None
    }

    fn pause(&mut self, cause: &str, until: Micros, outcome: &Outcome) {
        let reason = self.message(outcome).unwrap_or_default();
        self.hold(cause, until, reason);
    }

    /// Of two reasons to wait the one that lasts longer is shown.
    fn hold(&mut self, cause: &str, until: Micros, reason: String) {
        let pause = &mut self.now.pause;
        if pause.until.is_none_or(|old| old < until) {
            pause.until = Some(until);
            pause.cause = Some(cause.to_string());
            pause.reason = Some(reason);
        }
        pause.failures = pause.failures.saturating_add(1);
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
