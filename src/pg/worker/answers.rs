//! What came back from providers is stored in batches, one transaction each: the cache, the queue, the lane's pause,
//! the figures, and which rows of users' tables are to be written. A batch that fails is stored one by one, so that a
//! poisonous answer quarantines one key. An answer that somebody's lock keeps out is held until it can be stored.

use super::standing::Standing;
use super::{fetches, lanes::Lanes, said, usage, xact};
use crate::core::backoff;
use crate::core::classify::{Cause, Outcome};
use crate::core::error::Error;
use crate::core::hash::cache_key_hash;
use crate::core::{ttl, Micros, SECOND};
use crate::io::Done;
use crate::pg::store::cache::{self, Incoming, Payload};
use crate::pg::store::lanes::{self as ledger, Calls};
use crate::pg::store::renewal::{self, Renewal};
use crate::pg::store::{attempts, indicators, queue};
use crate::pg::{convert, disk};
use std::collections::{BTreeMap, HashSet};

const MAX_BATCH: usize = 400;
const ONE_BY_ONE: &str = "a batch of answers could not be stored together and is stored one by one";

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
            usage::note(&done, lanes.limited_until(&done.service.name));
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
            settle_batch(&service, answers, lanes, held);
            answers = rest;
        }
    }
    true
}

fn settle_batch(service: &str, batch: Vec<Settled>, lanes: &mut Lanes, held: &mut Held) {
    let mut stored = Vec::with_capacity(batch.len());
    let mut again = HashSet::new();
    match xact::run_briefly(c"enrichment_cache: storing answers", || store(service, &batch)) {
        Ok(outcome) => {
            outcome.standing.tell(service);
            lanes.limit(service, outcome.standing.limited_until(), outcome.standing.told_to_wait());
            again = outcome.again;
            stored = batch;
        }
        Err(error) => {
            // not the error itself: it may hold what a trigger of the user's says, and be another one each time
            said::event(service, ONE_BY_ONE);
            pgrx::debug1!("enrichment_cache: {service}: {ONE_BY_ONE}: {error}");
            let mut locked_out = 0;
            for answer in batch {
                if locked_out < LOCKED_OUT && one_by_one(service, &answer, &mut again) {
                    stored.push(answer);
                } else {
                    locked_out += 1;
                    held.retry_at = convert::clock() + TRY_AGAIN;
                    held.answers.push(answer);
                }
            }
        }
    }
    stored.iter().filter(|answer| !answer.done.outcome.answers()).for_each(|answer| said::failed(&answer.done));
    let over = stored.iter().filter(|answer| final_for_now(&answer.done.outcome) && !again.contains(&answer.done.id));
    fetches::complete(service, over.map(|answer| answer.done.key.text.as_str()));
}

/// Stores one answer, or that it could not be stored; false when neither is possible now. `again` as of [`store`].
fn one_by_one(service: &str, answer: &Settled, again: &mut HashSet<i64>) -> bool {
    let alone = |answer: &Settled| {
        xact::run_briefly(c"enrichment_cache: storing an answer", || store(service, std::slice::from_ref(answer)))
    };
    let error = match alone(answer) {
        Ok(stored) => {
            stored.standing.tell(service);
            again.extend(stored.again);
            return true;
        }
        Err(error) => error,
    };
    if not_its_fault(&error) {
        return false;
    }
    let refused = Settled {
        done: Done {
            outcome: Outcome::Invalid { message: format!("the answer could not be stored: {error}"), retry: true },
            cause: Cause::NotStored,
            ..answer.done.clone()
        },
        attempts: answer.attempts,
    };
    alone(&refused).map(|stored| stored.standing.tell(service)).is_ok()
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

/// What storing a batch has brought about.
struct Stored {
    standing: Standing,
    /// Requests that go out once more although they were answered: the provider said that nothing has changed of an answer
    /// that is not there any more.
    again: HashSet<i64>,
}

fn store(service: &str, batch: &[Settled]) -> Result<Stored, Error> {
    let renewals: Vec<Renewal> = batch.iter().filter_map(|answer| renewed(&answer.done)).collect();
    let renewed = renewal::renew(service, &renewals)?;
    let mut again = HashSet::new();
    let mut incoming = Vec::with_capacity(batch.len());
    let (mut answered_ids, mut answered_keys) = (Vec::new(), Vec::new());
    let (mut calls, mut ended) = (Calls::default(), attempts::Attempts::new());
    let registered = &batch[0].done.service;
    let mut standing = Standing::read(registered, batch.iter().map(|answer| &answer.done))?;
    for Settled { done, attempts } in batch {
        calls.calls += i64::from(done.status_code.is_some() || done.latency_ms > 0);
        calls.latency_sum_ms += i64::from(done.latency_ms);
        calls.latency_max_ms = calls.latency_max_ms.max(i64::from(done.latency_ms));
        *ended.entry((done.outcome.status(), done.cause.as_str())).or_default() += 1;
        let payload = match &done.outcome {
            Outcome::Success { payload, .. } => Some(payload.clone()),
            _ => None,
        };
        let message = standing.message(&done.outcome);
        let waits = standing.hear(done, fraction(done.id, done.finished_at));
        if done.outcome == Outcome::Unchanged {
            if renewed.contains(&done.key.text) {
                answered_ids.push(done.id);
                answered_keys.push(done.key.text.clone());
            } else {
                again.insert(done.id);
                queue::put_back(&put_back(done, *attempts, Some(done.finished_at), None))?;
            }
            continue;
        }
        incoming.push((entry(done, message.clone()), Payload::Text(payload)));
        if done.outcome.answers() {
            calls.stores += 1;
            answered_ids.push(done.id);
            answered_keys.push(done.key.text.clone());
        } else {
            calls.failures += 1;
            queue::put_back(&put_back(done, *attempts, waits, message))?;
        }
    }
    cache::store(service, incoming)?;
    queue::answered(answered_ids)?;
    if !answered_keys.is_empty() {
        disk::note(service, answered_keys.clone())?;
        indicators::answered(service, answered_keys)?;
    }
    standing.write(service)?;
    attempts::count(service, &ended)?;
    // the queue's row goes with the same commit: what a crash takes is asked for again
    // an answer that a limit lets come only so often is worth the wait
    if registered.limits.is_empty() {
        xact::commit_lazily();
    }
    ledger::count(service, &calls)?;
    Ok(Stored { standing, again })
}

/// What a provider's word that nothing has changed makes of the kept answer.
fn renewed(done: &Done) -> Option<Renewal> {
    let hash = cache_key_hash(&done.service.name, &done.key.text);
    (done.outcome == Outcome::Unchanged).then(|| Renewal {
        key: done.key.text.clone(),
        fetched_at: done.finished_at,
        expires_at: ttl::expires_at(done.finished_at, done.service.ttl, &hash),
        code: done.status_code.map(i32::from),
        latency_ms: i32::try_from(done.latency_ms).ok(),
    })
}

fn entry(done: &Done, error: Option<String>) -> Incoming {
    let hash = cache_key_hash(&done.service.name, &done.key.text);
    let life = match done.outcome {
        Outcome::Success { .. } => done.service.ttl,
        Outcome::NotFound => done.service.not_found_ttl,
        // a failure is not an answer: nothing may take it for a fresh one
        _ => 0,
    };
    let (ranges, altered, validators) = match &done.outcome {
        Outcome::Success { ranges, altered, validators, .. } => (ranges.clone(), *altered, validators.clone()),
        _ => (None, false, None),
    };
    Incoming {
        key: done.key.text.clone(),
        ranges,
        status: done.outcome.status(),
        fetched_at: done.finished_at,
        expires_at: ttl::expires_at(done.finished_at, life, &hash),
        code: done.status_code.map(i32::from),
        latency_ms: i32::try_from(done.latency_ms).ok(),
        error,
        altered,
        validators,
    }
}

/// `waits`: it waits until then, and that is not the key's fault and uses up no attempt.
fn put_back(done: &Done, attempts: i32, waits: Option<Micros>, error: Option<String>) -> queue::PutBack {
    let now = done.finished_at;
    let not_before = now.saturating_add(done.retry_after.unwrap_or(0));
    let (used, next_attempt_at, dead) = match waits {
        Some(until) => (attempts, until.max(not_before), false),
        None => {
            let used = attempts.saturating_add(1);
            let retry =
                !matches!(done.outcome, Outcome::Error { retry: false, .. } | Outcome::Invalid { retry: false, .. });
            let delay = backoff::delay(used as u32, backoff::BASE, backoff::CAP, fraction(done.id, now));
            (used, now.saturating_add(delay).max(not_before), !retry || used as u32 >= backoff::MAX_ATTEMPTS)
        }
    };
    queue::PutBack {
        id: done.id,
        attempts: used,
        failed: waits.is_none(),
        dead,
        next_attempt_at,
        outcome: done.outcome.status(),
        error,
    }
}

/// A number from 0 to 1 that differs between requests: enough to spread their retries.
fn fraction(id: i64, now: Micros) -> f64 {
    let mixed = (id as u64 ^ now as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40;
    mixed as f64 / f64::from(1u32 << 24)
}
