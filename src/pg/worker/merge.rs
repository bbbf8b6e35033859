//! A helper of a long import: it takes into the index of payloads what the import's session has put on the index's list of
//! pending entries, beside it. That was a third of the session's time (docs/adr/0027).

use super::{signals, write_back::is_locked, xact};
use crate::pg::store::migration as rows;
use crate::pg::{store, wake};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime, DynamicBackgroundWorker};
use pgrx::prelude::*;
use pgrx::PgMemoryContexts;
use std::time::Duration;

/// Between two portions: larger ones cost less for each entry.
const REST: Duration = Duration::from_millis(500);

/// The helper of this session's import; it ends when this is dropped, or with the session.
pub struct Merger(Option<DynamicBackgroundWorker>);

impl Merger {
    /// Starts it. Nothing when no background worker slot is free: the session then does all itself.
    pub fn start() -> Option<Self> {
        let helper = BackgroundWorkerBuilder::new("enrichment_cache import helper")
            .set_type("enrichment_cache import helper")
            .set_library("enrichment_cache")
            .set_function("enrichment_merge_main")
            .set_argument(Some(pg_sys::Datum::from(wake::my_database())))
            .set_extra(&wake::my_pid().to_string())
            .enable_shmem_access(None)
            .enable_spi_access()
            .set_start_time(BgWorkerStartTime::RecoveryFinished)
            .set_restart_time(None)
            .set_notify_pid(wake::my_pid());
        // the handle lives as long as the import, which commits in between
        // SAFETY: the context is the one that never ends, and is left again right after the call.
        let started = unsafe { PgMemoryContexts::TopMemoryContext.switch_to(|_| helper.load_dynamic()) };
        started.ok().map(|helper| Merger(Some(helper)))
    }
}

impl Drop for Merger {
    fn drop(&mut self) {
        // SAFETY: a flag of this process. While it ends, its shared memory may be gone already; the helper sees that by itself.
        let ending = unsafe { pg_sys::proc_exit_inprogress };
        if let Some(helper) = self.0.take().filter(|_| !ending) {
            helper.terminate();
        }
    }
}

#[pg_guard]
#[no_mangle]
pub extern "C-unwind" fn enrichment_merge_main(database: pg_sys::Datum) {
    signals::install();
    let oid = database.value() as u32;
    let session: i32 = BackgroundWorker::get_extra().parse().unwrap_or(0);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(pg_sys::Oid::from(oid)), None);
    signals::configure_session();
    store::registry::in_worker();
    while !signals::terminating() && wake::alive(session) {
        match xact::run(c"enrichment_cache: payload index, for an import", rows::settle) {
            Err(error) if !signals::terminating() && !is_locked(&error) => {
                pgrx::warning!("enrichment_cache: the helper of an import ends, the import goes on by itself: {error}");
                return;
            }
            _ => signals::wait(REST, None),
        };
    }
}
