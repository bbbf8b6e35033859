//! enrich_fetch: read-through. The session waits on its latch for the worker, which needs no commit of the caller.

use super::{eligible, key_to_write};
use crate::core::error::Error;
use crate::core::key::Key;
use crate::core::service::Service;
use crate::core::Micros;
use crate::pg::convert::{clock, positive_length, RawJsonb};
use crate::pg::encoding::Utf8;
use crate::pg::error::Answer;
use crate::pg::migration::adopt::adopt;
use crate::pg::probe;
use crate::pg::shmem::{self, Stage, State, Text, Waiting};
use crate::pg::store::cache::Entry;
use crate::pg::store::registry;
use crate::pg::{disk, gucs, wake};
use pgrx::datum::Interval;
use pgrx::prelude::*;

/// The payload of a key, fetched now if it is not fresh; waits at most `timeout`, then returns the stale answer if
/// there is one, else NULL. However many sessions ask, the provider is asked once.
///
/// # Errors
/// 42704 unknown service; 22023 for a key that cannot be one or a negative timeout; 55000 when the library is not
/// preloaded, no worker serves the database, or the server is a standby; 53400 when too many sessions wait.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_fetch(service: &str, key: Utf8, timeout: default!(Interval, "'10 s'")) -> Answer<Option<RawJsonb>> {
    let service = registry::service(service)?;
    let key = key_to_write(&service, &key)?;
    if !recovering() {
        adopt(&service.name, std::iter::once(key.text.as_str()))?;
    }
    let deadline = clock().saturating_add(positive_length(&timeout)?);
    if let Some(entry) = latest(&service, &key)?.filter(|entry| entry.fresh(clock())) {
        return Ok(entry.payload.map(|kept| kept.answer()));
    }
    if !gucs::preloaded() {
        return Err(Error::NotPreloaded { what: "enrich_fetch" }.into());
    }
    if recovering() {
        return Err(Error::InRecovery { what: "enrich_fetch" }.into());
    }
    if gucs::enabled() && eligible(&key) && super::request::refusal(&service)?.is_none() {
        wait_for_answer(&service, &key, deadline)?;
    }
    Ok(latest(&service, &key)?.and_then(|entry| entry.payload).map(|kept| kept.answer()))
}

/// Whether this server is a standby, where no worker runs.
fn recovering() -> bool {
    // SAFETY: reads the server's shared state.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// What the cache knows at this moment, also where the transaction's own snapshot is older than the answer.
pub fn latest(service: &Service, key: &Key) -> Result<Option<Entry>, Error> {
    // SAFETY: the pushed snapshot is popped right after the read; if the read raises, the abort drops it.
    unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot()) };
    let entry = probe::entry::entry(&service.name, &key.text);
    // SAFETY: as above.
    unsafe { pg_sys::PopActiveSnapshot() };
    let entry = entry?;
    Ok(match disk::newer(service, &key.text, entry.as_ref())? {
        Some(lying) => Some(disk::entry(&lying)),
        None => entry,
    })
}

/// A place among the waiting sessions, given back whatever happens.
struct Place(usize);

impl Place {
    fn take(service: &Service, key: &Key) -> Result<Place, Error> {
        let asked = Waiting {
            stage: Stage::Asked,
            database: wake::my_database(),
            pid: wake::my_pid(),
            service: Text::new(&service.name),
            key: Text::new(&key.text),
        };
        let taken = shmem::write(|shared| {
            let free = shared.waiting.iter().position(|place| place.stage == Stage::Free || !wake::alive(place.pid))?;
            shared.waiting[free] = asked;
            Some(free)
        });
        taken.flatten().map(Place).ok_or(Error::TooManyWaiting { places: shmem::WAITING })
    }

    fn done(&self) -> bool {
        shmem::read(|shared| shared.waiting[self.0].stage == Stage::Done).unwrap_or(true)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        shmem::write(|shared| {
            let place = &mut shared.waiting[self.0];
            if place.pid == wake::my_pid() {
                place.stage = Stage::Free;
            }
        });
    }
}

fn wait_for_answer(service: &Service, key: &Key, deadline: Micros) -> Result<(), Error> {
    served()?;
    let place = Place::take(service, key)?;
    wake::worker();
    while !place.done() {
        let left = deadline.saturating_sub(clock());
        if left <= 0 {
            break;
        }
        doze(left);
        pgrx::check_for_interrupts!();
    }
    Ok(())
}

/// Waits until this process is woken, for that long at most.
pub(super) fn doze(at_most: Micros) {
    let milliseconds = (at_most / 1000).clamp(1, 60_000) as core::ffi::c_long;
    // SAFETY: waits on this process's own latch; the postmaster's death ends the process.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            (pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH) as i32,
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Whether a worker serves this database, or soon will.
pub(super) fn served() -> Result<(), Error> {
    let place = shmem::read(|shared| {
        shared.database(wake::my_database()).map(|place| (place.state, place.error.as_str().to_string()))
    });
    let why = match place.flatten() {
        Some((State::Serving | State::Starting | State::Unknown | State::Absent, _)) => return Ok(()),
        Some((State::Excluded, _)) => "enrichment_cache.databases leaves this database out".to_string(),
        Some((State::Failed, error)) => error,
        None => "the launcher does not know this database yet".to_string(),
    };
    Err(Error::NotServed { why })
}
