//! One transaction of a worker: commits on success; on any error rolls back and hands the error on as a value, so
//! that no bad row or answer ends the process.

use crate::core::error::Error;
use crate::pg::error::of_caught;
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
        // SAFETY: C strings of this program; the setting holds for this transaction. Its source is the one the
        // session's own value has, as a lesser one would be ignored.
        unsafe {
            pg_sys::set_config_option(
                c"lock_timeout".as_ptr(),
                c"100ms".as_ptr(),
                pg_sys::GucContext::PGC_SUSET,
                pg_sys::GucSource::PGC_S_OVERRIDE,
                pg_sys::GucAction::GUC_ACTION_LOCAL,
                true,
                0,
                false,
            );
        }
        work()
    })
}
