//! Signals of a worker, its waiting, and its session's settings.

use core::ffi::CStr;
use pgrx::prelude::*;
use std::ffi::CString;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[cfg(not(feature = "pg18"))]
use pg_sys::pqsignal as handle;
#[cfg(feature = "pg18")]
use pg_sys::pqsignal_be as handle;

static TERMINATE: AtomicBool = AtomicBool::new(false);
static RELOAD: AtomicBool = AtomicBool::new(false);

/// Takes over SIGTERM and SIGHUP. SIGTERM also cancels the statement that runs, so that a wait for a lock ends at
/// once and there is still time to store what has been answered.
pub fn install() {
    // SAFETY: handlers that only set flags and a latch, as those of the server do (postmaster/interrupt.c).
    unsafe {
        handle(libc::SIGTERM, Some(on_terminate));
        handle(libc::SIGHUP, Some(on_reload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

unsafe extern "C-unwind" fn on_terminate(_signal: core::ffi::c_int) {
    // only the first one cancels: what is stored before the end must not be interrupted by the second
    if TERMINATE.swap(true, Ordering::SeqCst) {
        return;
    }
    // SAFETY: flags and a latch of this process.
    unsafe {
        pg_sys::QueryCancelPending = 1;
        pg_sys::InterruptPending = 1;
        pg_sys::SetLatch(pg_sys::MyLatch);
    }
}

unsafe extern "C-unwind" fn on_reload(_signal: core::ffi::c_int) {
    RELOAD.store(true, Ordering::SeqCst);
    // SAFETY: a latch of this process.
    unsafe { pg_sys::SetLatch(pg_sys::MyLatch) };
}

pub fn terminating() -> bool {
    TERMINATE.load(Ordering::SeqCst)
}

/// Forgets the cancel that came with SIGTERM, so that the last statements can run.
pub fn clear_cancel() {
    // SAFETY: a flag of this process.
    unsafe { pg_sys::QueryCancelPending = 0 };
}

/// Reads the configuration again when SIGHUP asked for it; true when it did.
pub fn reload_if_asked() -> bool {
    let asked = RELOAD.swap(false, Ordering::SeqCst);
    if asked {
        // SAFETY: outside a transaction, as every loop of the server does it.
        unsafe { pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP) };
        give_way();
    }
    asked
}

/// What ended a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Somebody has set the latch.
    Called,
    /// Results are there.
    Results,
    Time,
}

/// Waits for the latch, for results (`results` readable), or for the time to pass.
pub fn wait(longest: Duration, results: Option<RawFd>) -> Ended {
    let mut events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    if results.is_some() {
        events |= pg_sys::WL_SOCKET_READABLE;
    }
    let milliseconds = longest.as_millis().clamp(1, 3_600_000) as core::ffi::c_long;
    // SAFETY: this process's latch and a descriptor that the pool keeps open.
    let happened = unsafe {
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, core::ptr::null());
        let happened = pg_sys::WaitLatchOrSocket(
            pg_sys::MyLatch,
            events as i32,
            results.unwrap_or(pg_sys::PGINVALID_SOCKET),
            milliseconds,
            pg_sys::PG_WAIT_EXTENSION,
        );
        // a latch that is set after the wait has ended for another reason ends the next wait: resetting it here would lose
        // what it was set for
        if happened as u32 & pg_sys::WL_LATCH_SET != 0 {
            pg_sys::ResetLatch(pg_sys::MyLatch);
        }
        happened
    };
    answer_the_server();
    match happened as u32 {
        happened if happened & pg_sys::WL_LATCH_SET != 0 => Ended::Called,
        happened if happened & pg_sys::WL_SOCKET_READABLE != 0 => Ended::Results,
        _ => Ended::Time,
    }
}

/// Answers barriers other processes wait for (DROP DATABASE does); a cancel that comes while idle is for nothing.
fn answer_the_server() {
    if terminating() {
        return;
    }
    PgTryBuilder::new(|| {
        pgrx::check_for_interrupts!();
    })
    .catch_others(|_| ())
    .execute();
}

/// Settings of a worker's session, whatever the database or its roles are configured to.
pub fn configure_session() {
    const SETTINGS: [(&CStr, &CStr); 6] = [
        (c"search_path", c"pg_catalog, pg_temp"),
        (c"TimeZone", c"UTC"),
        (c"DateStyle", c"ISO"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
        (c"default_transaction_deferrable", c"off"),
    ];
    for (name, value) in SETTINGS {
        set(name, value);
    }
    give_way();
}

/// Of a session and this worker that wait for each other, the worker gives way: its waits end before the session's
/// `deadlock_timeout`.
fn give_way() {
    // SAFETY: reads a setting of this process, in milliseconds.
    let patience = unsafe { pg_sys::DeadlockTimeout } / 2;
    set(c"lock_timeout", &CString::new(patience.clamp(1, 3000).to_string()).unwrap_or_default());
}

fn set(name: &CStr, value: &CStr) {
    // SAFETY: C strings that live until it returns, which copies them.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
        );
    }
}
