//! One transaction of a worker: commits on success; on any error rolls back and hands the error on as a value, so
//! that no bad row or answer ends the process.

use crate::core::error::Error;
use crate::pg::error::of_caught;
use crate::pg::lone::Lone;
use pgrx::prelude::*;
use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

/// Runs `work` in a transaction of its own; `doing` is what pg_stat_activity shows meanwhile.
///
/// # Errors
/// What the work returned, or what PostgreSQL raised inside it; nothing of it remains then.
pub fn run<T>(doing: &'static CStr, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // SAFETY: the sequence every background worker of the server follows (worker_spi.c).
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, doing.as_ptr());
    }
    let outcome = PgTryBuilder::new(AssertUnwindSafe(|| {
        let value = work()?;
        // SAFETY: ends what was begun above.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    }))
    .catch_others(|cause| Err(of_caught(&cause)))
    .execute();
    // SAFETY: an abort is legal in every state a failed transaction can be in.
    unsafe {
        if outcome.is_err() {
            pg_sys::AbortCurrentTransaction();
        }
        pg_sys::pgstat_report_stat(true);
    }
    outcome
}

/// As [`run`], for work that should rather fail than wait long for somebody's lock.
///
/// # Errors
/// As [`run`].
pub fn run_briefly<T>(doing: &'static CStr, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    run(doing, || {
        set_local(c"lock_timeout", c"100ms");
        work()
    })
}

/// The end of the last commit that nobody waited for the disk with, until it has come there.
static LAZY: Lone<bool> = Lone::new(false);

/// Lets the commit of this transaction return before it is on disk. For work whose loss in a crash is found and done
/// again (docs/adr/0020): what the next durable commit, [`flush`] or the WAL writer bring there, in this order.
pub fn commit_lazily() {
    set_local(c"synchronous_commit", c"off");
    LAZY.set(true);
}

/// Makes the commit of this transaction wait for the disk, also where the server is set not to.
pub fn commit_durably() {
    // SAFETY: reads a setting of this process.
    if unsafe { pg_sys::synchronous_commit } < pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_LOCAL_FLUSH as i32 {
        set_local(c"synchronous_commit", c"local");
    }
}

/// Brings to disk what was committed lazily.
pub fn flush() {
    if LAZY.replace(false) {
        // SAFETY: the end of this process's last commit, which is in the WAL's buffers at least.
        unsafe { pg_sys::XLogFlush(pg_sys::XactLastCommitEnd) };
    }
}

/// Sets a setting for this transaction. The source is the one the session's own value has, as a lesser one would be
/// ignored.
fn set_local(name: &CStr, value: &CStr) {
    // SAFETY: C strings of this program.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_OVERRIDE,
            pg_sys::GucAction::GUC_ACTION_LOCAL,
            true,
            0,
            false,
        );
    }
}
