//! Sessions that wait in `enrich_fetch`: their requests reach the queue without their commit, and they are woken when
//! the answer is stored.

use super::xact;
use crate::core::error::Error;
use crate::pg::shmem::{self, Stage};
use crate::pg::store::queue;
use crate::pg::wake;

/// The priority of a key somebody waits for.
const WAITED_FOR: i32 = 1000;

struct Asked {
    place: usize,
    pid: i32,
    service: String,
    key: String,
}

/// Takes new requests into the queue; each key once, however many sessions ask.
pub fn accept() -> Result<bool, Error> {
    let database = wake::my_database();
    let asked: Vec<Asked> = shmem::read(|shared| {
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
    .unwrap_or_default();
    if asked.is_empty() {
        return Ok(false);
    }
    let pending = xact::run(c"enrichment_cache: taking requests of sessions", || {
        let mut pending = Vec::with_capacity(asked.len());
        for one in &asked {
            queue::request(&one.service, vec![one.key.clone()], WAITED_FOR, true)?;
            pending.push(queue::pending(&one.service, &one.key)?);
        }
        Ok(pending)
    })?;
    shmem::write(|shared| {
        for (one, pending) in asked.iter().zip(&pending) {
            let place = &mut shared.waiting[one.place];
            if place.stage == Stage::Asked && place.pid == one.pid && place.key.as_str() == one.key {
                place.stage = if *pending { Stage::Taken } else { Stage::Done };
            }
        }
    });
    for (one, _) in asked.iter().zip(&pending).filter(|(_, pending)| !**pending) {
        wake::process(one.pid);
    }
    Ok(true)
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
