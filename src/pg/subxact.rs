//! Work that may raise without ending the transaction it is part of.

use crate::core::error::Error;
use crate::pg::error::of_caught;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// Runs work in a subtransaction; what it raises becomes a value, and nothing of it remains then. A
/// cancel is no failure of the work and goes on.
///
/// # Errors
/// What the work returned or raised.
pub fn run<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // SAFETY: the sequence of plpgsql's exception blocks (pl_exec.c): memory context and resource owner are the caller's
    // again after either end.
    let (context, owner) = unsafe {
        let caller = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        pg_sys::BeginInternalSubTransaction(core::ptr::null());
        pg_sys::MemoryContextSwitchTo(caller.0);
        caller
    };
    let outcome = PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |cause| cause.rethrow())
        .catch_when(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, |cause| cause.rethrow())
        .catch_others(|cause| Err(of_caught(&cause)))
        .execute();
    // SAFETY: as above.
    unsafe {
        match &outcome {
            Ok(_) => pg_sys::ReleaseCurrentSubTransaction(),
            Err(_) => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
        }
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    outcome
}
