//! Sessions that wait in `enrich_fetch`: their requests reach the queue without their commit, and they are woken when
//! the answer is stored.

use super::xact;
use crate::core::error::Error;
use crate::core::worth::WAITED_FOR;
use crate::core::Micros;
use crate::pg::convert;
use crate::pg::shmem::{self, Stage, Waiting};
use crate::pg::store::queue;
use crate::pg::wake;
use std::collections::HashMap;

/// How long a key is left alone that another transaction is just putting into the queue itself.
const CONTESTED: Micros = 500_000;

#[derive(Clone, PartialEq, Eq, Hash)]
struct Asked {
    place: usize,
    pid: i32,
    service: String,
    key: String,
}

/// Requests of sessions that could not be taken yet, and when they are tried again. A key that an open transaction
/// has requested can only be waited for; the other sessions must not wait with it.
#[derive(Default)]
pub struct Contested(HashMap<Asked, Micros>);

impl Contested {
    /// When the first is to be tried again.
    pub fn next_try(&self) -> Option<Micros> {
        self.0.values().min().copied()
    }
}

/// Takes new requests into the queue; each key once, however many sessions ask.
pub fn accept(contested: &mut Contested) -> Result<bool, Error> {
    let asked = asked();
    contested.0.retain(|one, _| asked.contains(one));
    let now = convert::clock();
    let due: Vec<Asked> =
        asked.into_iter().filter(|one| contested.0.get(one).is_none_or(|retry_at| *retry_at <= now)).collect();
    if due.is_empty() {
        return Ok(false);
    }
    if let Ok(pending) = take(&due) {
        taken(&due, &pending);
        return Ok(true);
    }
    for one in due {
        let alone = std::slice::from_ref(&one);
        match take(alone) {
            Ok(pending) => taken(alone, &pending),
            Err(_) => {
                contested.0.insert(one, convert::clock() + CONTESTED);
            }
        }
    }
    Ok(true)
}

/// Whether a session of this database waits for an answer.
pub fn somebody_waits() -> bool {
    let database = wake::my_database();
    let waits = |one: &Waiting| matches!(one.stage, Stage::Asked | Stage::Taken) && one.database == database;
    shmem::read(|shared| shared.waiting.iter().any(waits)).unwrap_or(false)
}

fn asked() -> Vec<Asked> {
    let database = wake::my_database();
    shmem::read(|shared| {
        shared
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, one)| one.stage == Stage::Asked && one.database == database)
            .map(|(place, one)| Asked {
                place,
                pid: one.pid,
                service: one.service.as_str().to_string(),
                key: one.key.as_str().to_string(),
            })
            .collect()
    })
    .unwrap_or_default()
}

/// Puts them into the queue; says of each whether it waits there now.
fn take(asked: &[Asked]) -> Result<Vec<bool>, Error> {
    xact::run_briefly(c"enrichment_cache: taking requests of sessions", || {
        let mut pending = Vec::with_capacity(asked.len());
        for one in asked {
            queue::request(&one.service, vec![one.key.clone()], WAITED_FOR, true)?;
            pending.push(queue::pending(&one.service, &one.key)?);
        }
        Ok(pending)
    })
}

fn taken(asked: &[Asked], pending: &[bool]) {
    shmem::write(|shared| {
        for (one, pending) in asked.iter().zip(pending) {
            let place = &mut shared.waiting[one.place];
            if place.stage == Stage::Asked && place.pid == one.pid && place.key.as_str() == one.key {
                place.stage = if *pending { Stage::Taken } else { Stage::Done };
            }
        }
    });
    for (one, _) in asked.iter().zip(pending).filter(|(_, pending)| !**pending) {
        wake::process(one.pid);
    }
}

/// Wakes the sessions that wait for these keys of a service.
pub fn complete<'a>(service: &str, keys: impl Iterator<Item = &'a str>) {
    let keys: std::collections::HashSet<&str> = keys.collect();
    let database = wake::my_database();
    let pids = shmem::write(|shared| {
        let mut pids = Vec::new();
        for place in shared.waiting.iter_mut().filter(|place| matches!(place.stage, Stage::Asked | Stage::Taken)) {
            if place.database == database && place.service.as_str() == service && keys.contains(place.key.as_str()) {
                place.stage = Stage::Done;
                pids.push(place.pid);
            }
        }
        pids
    });
    pids.unwrap_or_default().into_iter().for_each(wake::process);
}
