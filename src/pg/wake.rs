//! Waking other processes: the worker of this database and the launcher, now or when the transaction commits.

use super::shmem;
use pgrx::prelude::*;
use std::cell::Cell;

/// Sets the latch of a process of this cluster; nothing happens when it is gone.
pub fn process(pid: i32) {
    if pid == 0 {
        return;
    }
    // SAFETY: BackendPidGetProc returns null or a place in shared memory that stays mapped for good; if its process
    // ended meanwhile, whoever has the place now wakes once for nothing.
    unsafe {
        let process = pg_sys::BackendPidGetProc(pid);
        if !process.is_null() {
            pg_sys::SetLatch(&raw mut (*process).procLatch);
        }
    }
}

/// Whether a process of this cluster with this id is alive.
pub fn alive(pid: i32) -> bool {
    // SAFETY: only compares the returned pointer.
    pid != 0 && unsafe { !pg_sys::BackendPidGetProc(pid).is_null() }
}

pub fn my_database() -> u32 {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyDatabaseId.to_u32() }
}

pub fn my_pid() -> i32 {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::MyProcPid }
}

/// Wakes the worker of this database.
pub fn worker() {
    let pid = shmem::write(|shared| {
        let place = shared.database_mut(my_database())?;
        place.wakes = place.wakes.wrapping_add(1);
        Some(place.pid)
    });
    process(pid.flatten().unwrap_or(0));
}

/// Has the launcher look at this database again, and its worker at what there is to do.
pub fn launcher() {
    let launcher = shmem::write(|shared| {
        if let Some(place) = shared.database_mut(my_database()) {
            place.changes = place.changes.wrapping_add(1);
            if place.state != State::Serving {
                place.state = State::Unknown;
                place.retry_at = 0;
            }
        }
        shared.launcher
    });
    process(launcher.unwrap_or(0));
}

use shmem::State;

thread_local! {
    static AT_COMMIT: Cell<bool> = const { Cell::new(false) };
    static LAUNCHER_TOO: Cell<bool> = const { Cell::new(false) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// Wakes the worker once this transaction has committed; asked for many times, done once.
pub fn worker_at_commit() {
    at_commit(false);
}

/// Wakes launcher and worker once this transaction has committed (CREATE or DROP EXTENSION).
pub fn launcher_at_commit() {
    at_commit(true);
}

fn at_commit(launcher_too: bool) {
    if !super::gucs::preloaded() {
        return;
    }
    if launcher_too {
        LAUNCHER_TOO.with(|flag| flag.set(true));
    }
    AT_COMMIT.with(|flag| flag.set(true));
    if !REGISTERED.with(|flag| flag.replace(true)) {
        // SAFETY: the callback lives as long as the process.
        unsafe { pg_sys::RegisterResourceReleaseCallback(Some(released), core::ptr::null_mut()) };
    }
}

/// The last step of a transaction. Callbacks for its commit come earlier: before other processes are told what changed
/// in the registry, so that a worker woken there would go by the former one, and before its locks are released.
#[pg_guard]
unsafe extern "C-unwind" fn released(
    phase: pg_sys::ResourceReleasePhase::Type,
    committed: bool,
    top_level: bool,
    _arg: *mut core::ffi::c_void,
) {
    if phase != pg_sys::ResourceReleasePhase::RESOURCE_RELEASE_AFTER_LOCKS || !top_level {
        return;
    }
    let worker_too = AT_COMMIT.with(|flag| flag.replace(false));
    if LAUNCHER_TOO.with(|flag| flag.replace(false)) && committed {
        launcher();
    }
    if worker_too && committed {
        worker();
    }
}
