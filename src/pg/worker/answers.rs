//! What came back from providers is stored in batches, one transaction each: the cache, the queue, the lane's pause,
//! the figures, and which rows of users' tables are to be written. A batch that fails is stored one by one, so that a
//! poisonous answer quarantines one key. An answer that somebody's lock keeps out is held until it can be stored.

use super::{fetches, lanes::Lanes, usage, xact};
use crate::core::backoff;
use crate::core::classify::Outcome;
use crate::core::error::Error;
use crate::core::hash::cache_key_hash;
use crate::core::{ttl, Micros};
use crate::io::Done;
use crate::pg::store::cache::{self, Incoming, Payload};
use crate::pg::store::lanes::{self as ledger, Calls, Pause};
use crate::pg::store::{indicators, queue};
use crate::pg::{convert, disk};
use std::collections::BTreeMap;

const SECOND: Micros = 1_000_000;
/// How long a refused secret stops its service; setting another through SQL starts it at once.
const UNAUTHORIZED_PAUSE: Micros = 3600 * SECOND;
const MAX_BATCH: usize = 200;

/// After so many answers that a lock kept out, the others of the batch are held untried: each try takes its time.
const LOCKED_OUT: usize = 3;
/// When held answers are tried again.
const TRY_AGAIN: Micros = SECOND;

/// An answer and the attempts its request had used up before.
struct Settled {
    done: Done,
    attempts: i32,
}

/// Answers that could not be stored for reasons that are not theirs.
#[derive(Default)]
pub struct Held {
    answers: Vec<Settled>,
    retry_at: Micros,
}

impl Held {
    /// When they are to be tried again.
    pub fn next_try(&self) -> Option<Micros> {
        (!self.answers.is_empty()).then_some(self.retry_at)
    }

    /// Has them tried with the next answers, however soon that is.
    pub fn try_now(&mut self) {
        self.retry_at = Micros::MIN;
    }
}

/// Stores what came back, and what was held long enough; true when there was anything.
pub fn settle(done: Vec<Done>, lanes: &mut Lanes, held: &mut Held) -> bool {
    let mut answers: Vec<Settled> = Vec::with_capacity(done.len());
    if held.next_try().is_some_and(|at| at <= convert::clock()) {
        answers.append(&mut held.answers);
    }
    for done in done {
        lanes.take_reports(&done);
        if done.usage {
            usage::note(&done);
            continue;
        }
        let attempts = lanes.finished(&done.service.name, done.id);
        answers.push(Settled { done, attempts });
    }
    if answers.is_empty() {
        return false;
    }
    let mut by_service: BTreeMap<String, Vec<Settled>> = BTreeMap::new();
    for answer in answers {
        by_service.entry(answer.done.service.name.clone()).or_default().push(answer);
    }
    for (service, mut answers) in by_service {
        while !answers.is_empty() {
            let rest = answers.split_off(answers.len().min(MAX_BATCH));
            settle_batch(&service, answers, held);
            answers = rest;
        }
    }
    true
}

fn settle_batch(service: &str, batch: Vec<Settled>, held: &mut Held) {
    let mut stored = Vec::with_capacity(batch.len());
    match xact::run_briefly(c"enrichment_cache: storing answers", || store(service, &batch)) {
        Ok(()) => stored = batch,
        Err(error) => {
            let n = batch.len();
            pgrx::log!("enrichment_cache: a batch of {n} answers of {service} is stored one by one: {error}");
            let mut locked_out = 0;
            for answer in batch {
                if locked_out < LOCKED_OUT && one_by_one(service, &answer) {
                    stored.push(answer);
                } else {
                    locked_out += 1;
                    held.retry_at = convert::clock() + TRY_AGAIN;
                    held.answers.push(answer);
                }
            }
        }
    }
    let over = stored.iter().filter(|answer| final_for_now(&answer.done.outcome));
    fetches::complete(service, over.map(|answer| answer.done.key.text.as_str()));
}

/// Stores one answer, or that it could not be stored; false when neither is possible now.
fn one_by_one(service: &str, answer: &Settled) -> bool {
    let alone = |answer: &Settled| {
        xact::run_briefly(c"enrichment_cache: storing an answer", || store(service, std::slice::from_ref(answer)))
    };
    let Err(error) = alone(answer) else { return true };
    if not_its_fault(&error) {
        return false;
    }
    let refused = Settled {
        done: Done {
            outcome: Outcome::Invalid { message: format!("the answer could not be stored: {error}") },
            ..answer.done.clone()
        },
        attempts: answer.attempts,
    };
    alone(&refused).is_ok()
}

/// Whether the same answer can be stored later: locks, cancels, want of space and the like (SQLSTATE classes 40, 53,
/// 55, 57 and 58).
fn not_its_fault(error: &Error) -> bool {
    const PASSING: [&str; 12] = [
        "T_R_SERIALIZATION_FAILURE",
        "T_R_DEADLOCK_DETECTED",
        "INSUFFICIENT_RESOURCES",
        "DISK_FULL",
        "OUT_OF_MEMORY",
        "TOO_MANY_CONNECTIONS",
        "LOCK_NOT_AVAILABLE",
        "OBJECT_IN_USE",
        "QUERY_CANCELED",
        "ADMIN_SHUTDOWN",
        "IO_ERROR",
        "READ_ONLY_SQL_TRANSACTION",
    ];
    matches!(error, Error::Statement { sqlstate, .. }
        if PASSING.iter().any(|name| sqlstate.strip_prefix("ERRCODE_") == Some(name)))
}

/// Whether a session that waits for this key has nothing more to wait for. A limit means waiting.
fn final_for_now(outcome: &Outcome) -> bool {
    !matches!(outcome, Outcome::RateLimited { .. })
}

fn store(service: &str, batch: &[Settled]) -> Result<(), Error> {
    let mut incoming = Vec::with_capacity(batch.len());
    let (mut answered_ids, mut answered_keys) = (Vec::new(), Vec::new());
    let mut calls = Calls::default();
    for Settled { done, attempts } in batch {
        calls.calls += i64::from(done.status_code.is_some() || done.latency_ms > 0);
        calls.latency_sum_ms += i64::from(done.latency_ms);
        calls.latency_max_ms = calls.latency_max_ms.max(i64::from(done.latency_ms));
        let payload = match &done.outcome {
            Outcome::Success { payload, .. } => Some(payload.clone()),
            _ => None,
        };
        incoming.push((entry(done), Payload::Text(payload)));
        match &done.outcome {
            Outcome::Success { .. } | Outcome::NotFound => {
                calls.stores += 1;
                answered_ids.push(done.id);
                answered_keys.push(done.key.text.clone());
            }
            _ => {
                calls.failures += 1;
                queue::put_back(&put_back(done, *attempts))?;
            }
        }
    }
    cache::store(service, incoming)?;
    queue::answered(answered_ids)?;
    if !answered_keys.is_empty() {
        disk::note(service, answered_keys.clone())?;
        indicators::answered(service, answered_keys)?;
    }
    pause(service, batch)?;
    // the queue's row goes with the same commit: what a crash takes is asked for again
    xact::commit_lazily();
    ledger::count(service, &calls)
}

fn entry(done: &Done) -> Incoming {
    let hash = cache_key_hash(&done.service.name, &done.key.text);
    let life = match done.outcome {
        Outcome::Success { .. } => done.service.ttl,
        Outcome::NotFound => done.service.not_found_ttl,
        // a failure is not an answer: nothing may take it for a fresh one
        _ => 0,
    };
    let ranges = match &done.outcome {
        Outcome::Success { ranges, .. } => ranges.clone(),
        _ => None,
    };
    Incoming {
        key: done.key.text.clone(),
        ranges,
        status: done.outcome.status(),
        fetched_at: done.finished_at,
        expires_at: ttl::expires_at(done.finished_at, life, &hash),
        code: done.status_code.map(i32::from),
        latency_ms: i32::try_from(done.latency_ms).ok(),
        error: message(&done.outcome),
    }
}

fn message(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Success { .. } | Outcome::NotFound => None,
        Outcome::RateLimited { used_up: true, .. } => Some("the provider's balance is used up".to_string()),
        Outcome::RateLimited { .. } => Some("the provider asked to wait".to_string()),
        Outcome::Unauthorized { message } | Outcome::Invalid { message } | Outcome::Error { message, .. } => {
            Some(message.clone())
        }
    }
}

/// A limit and a refused secret are not the key's fault: they use up no attempt.
fn put_back(done: &Done, attempts: i32) -> queue::PutBack {
    let now = done.finished_at;
    let (used, next_attempt_at, dead) = match &done.outcome {
        Outcome::RateLimited { pause_micros, .. } => (attempts, now.saturating_add(*pause_micros), false),
        Outcome::Unauthorized { .. } => (attempts, now + UNAUTHORIZED_PAUSE, false),
        outcome => {
            let used = attempts.saturating_add(1);
            let retry = !matches!(outcome, Outcome::Error { retry: false, .. });
            let delay = backoff::delay(used as u32, backoff::BASE, backoff::CAP, fraction(done.id, now));
            (used, now + delay, !retry || used as u32 >= backoff::MAX_ATTEMPTS)
        }
    };
    queue::PutBack {
        id: done.id,
        attempts: used,
        dead,
        next_attempt_at,
        outcome: done.outcome.status(),
        error: message(&done.outcome),
    }
}

/// A number from 0 to 1 that differs between requests: enough to spread their retries.
fn fraction(id: i64, now: Micros) -> f64 {
    let mixed = (id as u64 ^ now as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f64 / f64::from(1u32 << 24)
}

/// Stops the lane for as long as the provider asked, or lets it go on after an answer.
fn pause(service: &str, batch: &[Settled]) -> Result<(), Error> {
    let mut next = ledger::pause_of(service)?;
    let before = next.clone();
    for Settled { done, .. } in batch {
        let (cause, length) = match &done.outcome {
            Outcome::RateLimited { pause_micros, used_up } => {
                (if *used_up { "used_up" } else { "rate_limited" }, *pause_micros)
            }
            Outcome::Unauthorized { .. } => ("unauthorized", UNAUTHORIZED_PAUSE),
            Outcome::Success { .. } | Outcome::NotFound => {
                if next.until.is_some_and(|until| until <= done.finished_at) {
                    next = Pause::default();
                }
                continue;
            }
            _ => continue,
        };
        let until = done.finished_at.saturating_add(length);
        if next.until.is_none_or(|old| old < until) {
            next.until = Some(until);
            next.cause = Some(cause.to_string());
            next.reason = message(&done.outcome);
        }
        next.failures = next.failures.saturating_add(1);
    }
    if next != before {
        ledger::set_pause(service, &next)?;
        if next.cause != before.cause && next.cause.is_some() {
            let why = next.reason.as_deref().unwrap_or("");
            pgrx::log!("enrichment_cache: {service} is paused ({}): {why}", next.cause.as_deref().unwrap_or(""));
        }
    }
    Ok(())
}
