//! A part of a transaction that may fail alone.

use crate::core::error::Error;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Runs `work`; what the data is to blame for (SQLSTATE classes 22, 23 and 54) takes back what it did and becomes a value
/// with PostgreSQL's own message. Everything else (a cancel, want of space, a deadlock) is raised again.
///
/// # Errors
/// What the work returned.
pub fn attempt<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<Result<T, String>, Error> {
    // SAFETY: the sequence of every procedural language of the server (plpython's PLy_spi_subtransaction_begin and its kin).
    let (memory, owner) = unsafe {
        let kept = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(core::ptr::null());
        pg_sys::MemoryContextSwitchTo(kept.0);
        kept
    };
    let end = |ends: unsafe fn()| {
        // SAFETY: ends what was begun above, in whatever state it is; both were current before and outlive it.
        unsafe {
            ends();
            pg_sys::MemoryContextSwitchTo(memory);
            pg_sys::CurrentResourceOwner = owner;
        }
    };
    PgTryBuilder::new(AssertUnwindSafe(|| {
        let value = work();
        match &value {
            Ok(_) => end(pg_sys::ReleaseCurrentSubTransaction),
            Err(_) => end(pg_sys::RollbackAndReleaseCurrentSubTransaction),
        }
        Ok(Ok(value?))
    }))
    .catch_others(|cause| {
        // also before it is raised again: the server would take what is left for a savepoint of the user's
        end(pg_sys::RollbackAndReleaseCurrentSubTransaction);
        match &cause {
            CaughtError::PostgresError(report) if to_blame_on_data(report.sql_error_code()) => {
                Ok(Err(report.message().to_string()))
            }
            _ => cause.rethrow(),
        }
    })
    .execute()
}

fn to_blame_on_data(code: PgSqlErrorCode) -> bool {
    // five characters of six bits, the first in the lowest ones (utils/elog.h: MAKE_SQLSTATE)
    let character = |at: u32| char::from(((code as i32 >> (6 * at)) & 0x3f) as u8 + b'0');
    matches!((character(0), character(1)), ('2', '2' | '3') | ('5', '4'))
}
