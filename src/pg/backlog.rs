//! How many requests a database's queue holds, and the bound on it.
//!
//! Contract: the number lives in the database's place in shared memory. Whoever adds requests or takes them off says so
//! within the transaction, and an abort takes it back. The worker counts exactly when it starts and every
//! `stats_interval`, which mends what subtransactions and prepared transactions leave behind. Where no worker has
//! counted yet, the planner's estimate stands in.

use super::{gucs, shmem, wake};
use crate::core::error::Error;
use crate::pg::store::queue;
use pgrx::prelude::*;
use std::cell::Cell;

thread_local! {
    /// What this transaction has added, less what it took off.
    static PENDING: Cell<i64> = const { Cell::new(0) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Requests of this transaction came (or went, below 0).
pub fn note(change: i64) {
    if change == 0 || !gucs::preloaded() {
        return;
    }
    if !REGISTERED.with(|flag| flag.replace(true)) {
        // SAFETY: the callback lives as long as the process.
        unsafe { pg_sys::RegisterXactCallback(Some(ended), core::ptr::null_mut()) };
    }
    PENDING.with(|pending| pending.set(pending.get() + change));
    add(change);
}

fn add(change: i64) {
    shmem::write(|shared| {
        if let Some(count) = shared.database_mut(wake::my_database()).and_then(|place| place.requests.as_mut()) {
            *count = (*count + change).max(0);
        }
    });
}

#[pg_guard]
unsafe extern "C-unwind" fn ended(event: pg_sys::XactEvent::Type, _arg: *mut core::ffi::c_void) {
    use pg_sys::XactEvent::*;
    match event {
        XACT_EVENT_COMMIT | XACT_EVENT_PREPARE => PENDING.with(|pending| pending.set(0)),
        XACT_EVENT_ABORT => add(-PENDING.with(|pending| pending.replace(0))),
        _ => {}
    }
}

/// The worker has counted.
pub fn counted(requests: i64) {
    shmem::write(|shared| {
        if let Some(place) = shared.database_mut(wake::my_database()) {
            place.requests = Some(requests);
        }
    });
}

/// How many requests there are, as far as it is known in shared memory.
pub fn known() -> Option<i64> {
    shmem::read(|shared| shared.database(wake::my_database()).and_then(|place| place.requests)).flatten()
}

/// How many there are, if only by the planner's estimate.
///
/// # Errors
/// What the estimate raises.
pub fn length() -> Result<i64, Error> {
    known().map_or_else(queue::estimated_length, Ok)
}

/// How many more the bound lets in.
///
/// # Errors
/// As [`length`].
pub fn room() -> Result<i64, Error> {
    match gucs::max_queue() {
        None => Ok(i64::MAX),
        Some(max) => Ok((max - length()?).max(0)),
    }
}

/// Whether there is room for more than a few: a search for what is missing is not worth it for less.
///
/// # Errors
/// As [`length`].
pub fn has_room_for_many() -> Result<bool, Error> {
    Ok(gucs::max_queue().is_none_or(|max| known().is_none_or(|length| length < max - max / 10)))
}

/// Refuses what this statement has added when the queue is longer than it may be.
///
/// # Errors
/// `QueueFull`; the caller's transaction, or its subtransaction, is rolled back by it.
pub fn check(service: &str, added: i64) -> Result<(), Error> {
    let Some(max) = gucs::max_queue().filter(|_| added > 0) else { return Ok(()) };
    let length = match known() {
        Some(length) => length,
        None => queue::estimated_length()?,
    };
    if length <= max {
        return Ok(());
    }
    // a subtransaction that ends by this error would leave them counted
    note(-added);
    Err(Error::QueueFull { service: service.to_string(), limit: max, length: length - added, added })
}
