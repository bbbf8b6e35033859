//! Background workers: the launcher, which knows the databases of the cluster, and one worker per database that has
//! the extension.

mod adopt;
mod answers;
mod credentials;
mod database;
mod discover;
mod fetches;
mod helper;
mod jobs;
mod lane;
mod lanes;
mod launcher;
mod ledgers;
mod lookups;
mod merge;
mod mirror;
mod pieces;
mod read_again;
mod said;
mod signals;
mod slices;
mod standing;
mod steps;
mod trials;
mod usage;
mod write_back;
mod writers;
mod xact;

pub use merge::Merger;

use pgrx::bgworkers::{BackgroundWorkerBuilder, BgWorkerStartTime};
use std::time::Duration;

/// Registers the launcher; only while the library is being preloaded.
pub fn init() {
    BackgroundWorkerBuilder::new("enrichment_cache launcher")
        .set_type("enrichment_cache launcher")
        .set_library("enrichment_cache")
        .set_function("enrichment_launcher_main")
        .enable_shmem_access(None)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(Some(Duration::from_secs(1)))
        .load();
}

/// Ends this process so that the postmaster starts the launcher again (exit code 0 would mean "never again").
fn exit_for_restart() -> ! {
    // SAFETY: ends the process in the server's own way, running its exit callbacks.
    unsafe { pgrx::pg_sys::proc_exit(1) };
    // the bindings of PostgreSQL 18 do not say that it never returns
    #[allow(unreachable_code)]
    std::process::abort()
}
