//! The launcher: knows every database of the cluster, starts a worker where one is wanted, looks again from time to
//! time. It reconciles what is with what should be, so that a missed signal costs a minute and nothing else.

use super::signals;
use crate::core::Micros;
use crate::pg::shmem::{self, State};
use crate::pg::{convert, gucs, wake};
use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, BgWorkerStartTime};
use pgrx::prelude::*;
use std::time::Duration;

const SECOND: Micros = 1_000_000;
/// How often a database without the extension is looked at, for what no signal tells (CREATE DATABASE ... TEMPLATE).
const LOOK_AGAIN: Micros = 60 * SECOND;
const NAP: Duration = Duration::from_secs(10);

#[pg_guard]
#[no_mangle]
pub extern "C-unwind" fn enrichment_launcher_main(_arg: pg_sys::Datum) {
    signals::install();
    BackgroundWorker::connect_worker_to_spi(None, None);
    shmem::write(|shared| {
        shared.launcher = wake::my_pid();
        if shared.born == 0 {
            shared.born = convert::clock();
        }
    });
    while !signals::terminating() {
        signals::reload_if_asked();
        let databases = connectable_databases();
        reconcile(&databases);
        signals::wait(NAP, None);
    }
    super::exit_for_restart();
}

/// Name and oid of each database that takes connections, from the shared catalogue (as autovacuum reads it).
fn connectable_databases() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    // SAFETY: a catalogue scan in a transaction of its own; tuples are read while the scan holds them.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetTransactionSnapshot();
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, core::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
            if (*row).datallowconn && !(*row).datistemplate {
                let name = core::ffi::CStr::from_ptr((*row).datname.data.as_ptr()).to_string_lossy().into_owned();
                found.push(((*row).oid.to_u32(), name));
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        pg_sys::CommitTransactionCommand();
    }
    found
}

fn reconcile(databases: &[(u32, String)]) {
    let now = convert::clock();
    let wanted = shmem::write(|shared| {
        let gone: Vec<u32> = shared
            .databases
            .iter()
            .filter(|place| place.oid != 0 && !wake::alive(place.pid))
            .map(|place| place.oid)
            .filter(|oid| !databases.iter().any(|(there, _)| there == oid))
            .collect();
        gone.into_iter().for_each(|oid| {
            shared.forget_database(oid);
            crate::pg::tally::forget_database(oid);
            crate::pg::budgets::forget_database(oid);
        });
        let mut wanted = Vec::new();
        for (oid, name) in databases {
            let Some(place) = shared.place_for(*oid, name) else { break };
            if place.held_by != 0 && !wake::alive(place.held_by) {
                place.held_by = 0;
            }
            if !gucs::serves(name) {
                place.state = State::Excluded;
                continue;
            }
            let running = wake::alive(place.pid);
            if !running && place.pid != 0 {
                place.pid = 0;
            }
            if !running && place.held_by == 0 && place.retry_at <= now {
                wanted.push(*oid);
            }
        }
        wanted
    });
    for oid in wanted.unwrap_or_default() {
        start(oid, now);
    }
}

fn start(oid: u32, now: Micros) {
    let note = |state: State, retry_at: Micros, error: &str| {
        shmem::write(|shared| {
            if let Some(place) = shared.database_mut(oid) {
                place.state = state;
                place.retry_at = retry_at;
                place.error = shmem::Text::new(error);
            }
        });
    };
    // a worker that never reports is tried again after this; one that reports sets its own time
    note(State::Starting, now + LOOK_AGAIN, "");
    let started = BackgroundWorkerBuilder::new("enrichment_cache worker")
        .set_type("enrichment_cache worker")
        .set_library("enrichment_cache")
        .set_function("enrichment_worker_main")
        .set_argument(Some(pg_sys::Datum::from(oid)))
        .enable_shmem_access(None)
        .enable_spi_access()
        .set_start_time(BgWorkerStartTime::RecoveryFinished)
        .set_restart_time(None)
        .set_notify_pid(wake::my_pid())
        .load_dynamic();
    if started.is_err() {
        let why = "no background worker slot is free; raise max_worker_processes";
        note(State::Failed, now + 10 * SECOND, why);
        pgrx::warning!("enrichment_cache: cannot start a worker for database {oid}: {why}");
    }
}
