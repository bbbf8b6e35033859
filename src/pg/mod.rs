//! The only place where PostgreSQL is met: loading, settings, shared memory, statements, functions, workers.

use pgrx::prelude::*;

mod areas;
mod backlog;
mod bind;
mod budgets;
mod convert;
mod disk;
mod earlier;
mod encoding;
mod error;
mod functions;
mod gucs;
mod heap;
mod hooks;
mod json;
mod lone;
mod migration;
mod packed;
mod pending;
mod probe;
pub mod ranges;
mod removal;
mod room;
mod rows;
mod schema;
mod setting;
mod shmem;
mod spi;
mod store;
mod subxact;
mod tally;
mod trials;
mod wake;
mod worker;

::pgrx::pg_module_magic!(name, version);

/// Called by PostgreSQL when the library is loaded: by the postmaster when it is preloaded, else by the first
/// session that calls one of the functions. Shared memory and workers exist only in the first case.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // pgrx puts a backtrace into the DETAIL of errors that pass through it when the environment asks Rust for one
    if std::env::var_os("RUST_LIB_BACKTRACE").is_none() {
        std::env::set_var("RUST_LIB_BACKTRACE", "0");
    }
    let preloading = preloading();
    gucs::init(preloading);
    store::init();
    probe::init();
    hooks::init();
    if preloading {
        shmem::init();
        probe::together::group::init();
        budgets::init();
        areas::init();
        trials::init();
        disk::init();
        worker::init();
    }
}

fn preloading() -> bool {
    // SAFETY: a plain global of the server, written by the postmaster before it loads any library.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress && !pg_sys::IsBinaryUpgrade }
}
