//! Small things of a session, without what a thread would cost: values that only its one thread touches, and questions to
//! the server that never raise.
//!
//! PostgreSQL's processes have one thread that may call it; the pool's threads of a worker hold none of what is here. A
//! `thread_local!` in a shared library is found by a function call each time, and a guarded call of the server saves a
//! jump's way back: a look-up touches ten of these, which together were a tenth of its time.

use pgrx::pg_sys;
use std::cell::Cell;

/// A value of this process's one thread that speaks to PostgreSQL.
pub struct Lone<T>(Cell<T>);

// SAFETY: only that thread reads or writes it; other threads of a worker have no way to it (`io` knows nothing of `pg`).
unsafe impl<T> Sync for Lone<T> {}

impl<T: Copy> Lone<T> {
    pub const fn new(value: T) -> Self {
        Lone(Cell::new(value))
    }

    #[inline]
    pub fn get(&self) -> T {
        self.0.get()
    }

    #[inline]
    pub fn set(&self, value: T) {
        self.0.set(value);
    }

    #[inline]
    pub fn replace(&self, value: T) -> T {
        self.0.replace(value)
    }
}

mod server {
    use super::pg_sys;

    unsafe extern "C-unwind" {
        pub fn ActiveSnapshotSet() -> bool;
        pub fn GetActiveSnapshot() -> pg_sys::Snapshot;
        pub fn GetUserId() -> pg_sys::Oid;
        pub fn GetCurrentTransactionStartTimestamp() -> pg_sys::TimestampTz;
        pub fn GetCurrentStatementStartTimestamp() -> pg_sys::TimestampTz;
    }
}

/// The snapshot of the statement that runs; `None` outside of any.
#[inline]
pub fn active_snapshot() -> Option<pg_sys::Snapshot> {
    // SAFETY: both look at a stack of this process and raise nothing; the second only where there is one.
    unsafe { server::ActiveSnapshotSet().then(|| server::GetActiveSnapshot()) }
}

/// Whose rights count now.
#[inline]
pub fn user() -> pg_sys::Oid {
    // SAFETY: reads a variable of this process.
    unsafe { server::GetUserId() }
}

/// The start of the transaction, microseconds since 2000.
#[inline]
pub fn transaction_start() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { server::GetCurrentTransactionStartTimestamp() }
}

/// The start of the statement, microseconds since 2000.
#[inline]
pub fn statement_start() -> i64 {
    // SAFETY: reads a variable of this process.
    unsafe { server::GetCurrentStatementStartTimestamp() }
}
