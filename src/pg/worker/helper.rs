//! Helpers: processes that a session or a worker starts for a long piece of work, and that end with it.

use crate::pg::wake;
use pgrx::bgworkers::{BackgroundWorkerBuilder, BackgroundWorkerStatus, BgWorkerStartTime, DynamicBackgroundWorker};
use pgrx::pg_sys;
use pgrx::PgMemoryContexts;

/// A helper of this process; it is told to end when this is dropped, and sees by itself when this process has ended.
pub struct Helper(Option<DynamicBackgroundWorker>);

impl Helper {
    /// Starts one that serves this process's database: `function` of this library, which finds `extra` in its environment.
    /// Nothing when no background worker slot is free.
    pub fn start(name: &str, function: &str, extra: &str) -> Option<Self> {
        let helper = BackgroundWorkerBuilder::new(name)
            .set_type(name)
            .set_library("enrichment_cache")
            .set_function(function)
            .set_argument(Some(pg_sys::Datum::from(wake::my_database())))
            .set_extra(extra)
            .enable_shmem_access(None)
            .enable_spi_access()
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(None)
            .set_notify_pid(wake::my_pid());
        // the handle outlives the transaction
        // SAFETY: the context is the one that never ends, and is left again right after the call.
        let started = unsafe { PgMemoryContexts::TopMemoryContext.switch_to(|_| helper.load_dynamic()) };
        started.ok().map(|helper| Helper(Some(helper)))
    }

    /// The place of one that could not be started.
    pub fn ended() -> Self {
        Helper(None)
    }

    /// Whether it has come to its end, or was never to begin.
    pub fn has_ended(&self) -> bool {
        let status = self.0.as_ref().map(DynamicBackgroundWorker::pid);
        !matches!(status, Some(Ok(_) | Err(BackgroundWorkerStatus::NotYetStarted)))
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // SAFETY: a flag of this process. While it ends, its shared memory may be gone already; the helper sees that by itself.
        let ending = unsafe { pg_sys::proc_exit_inprogress };
        if let Some(helper) = self.0.take().filter(|_| !ending) {
            helper.terminate();
        }
    }
}
