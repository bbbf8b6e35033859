//! The direct look-up: one row of the cache through PostgreSQL's index and table access methods, without planner and
//! executor, under the caller's snapshot. Where SQL would see something else than a plain table, SQL is asked.

mod ahead;
pub mod answer;
pub mod entry;
mod habit;
pub mod many;
mod memo;
mod once;
pub mod places;
mod preload;
mod run;
mod scan;
mod server;
pub mod site;
pub mod target;
pub mod together;

use crate::core::error::Error;
use crate::pg::encoding;
use crate::pg::lone;
use crate::pg::tally;
use pgrx::pg_sys;
use pgrx::prelude::*;
use scan::Found;

/// Registers for the ends of transactions and for what changes tables and rights.
pub fn init() {
    target::init();
    // SAFETY: the callbacks live as long as the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(transaction_event), core::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(subtransaction_event), core::ptr::null_mut());
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn transaction_event(event: pg_sys::XactEvent::Type, _arg: *mut core::ffi::c_void) {
    use pg_sys::XactEvent::*;
    if !matches!(event, XACT_EVENT_PRE_COMMIT | XACT_EVENT_PARALLEL_PRE_COMMIT | XACT_EVENT_PRE_PREPARE) {
        tally::end();
    }
    match event {
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PARALLEL_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => scan::end(false),
        XACT_EVENT_ABORT | XACT_EVENT_PARALLEL_ABORT => {
            scan::end(true);
            once::end();
            site::end(true);
        }
        _ => {
            once::end();
            site::end(true);
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn subtransaction_event(
    event: pg_sys::SubXactEvent::Type,
    _own: pg_sys::SubTransactionId,
    _parent: pg_sys::SubTransactionId,
    _arg: *mut core::ffi::c_void,
) {
    if event == pg_sys::SubXactEvent::SUBXACT_EVENT_ABORT_SUB {
        scan::end(true);
        site::end(false);
    }
}

/// Lets go of the table: a command is about to run that may want it for itself.
pub fn let_go() {
    scan::end(false);
}

/// Looks a row up and hands it to `read`; `None`, with `read` not called, when SQL has to be asked.
///
/// # Errors
/// `NotInstalled`; PostgreSQL's own errors are raised.
fn find<T>(service: &str, key: &str, read: impl FnOnce(Option<&Found>) -> T) -> Result<Option<T>, Error> {
    // in the table it stands in another encoding
    if !key.is_ascii() && !encoding::is_utf8() {
        return Ok(None);
    }
    let mut read = Some(read);
    let _snapshot = Snapshot::active();
    loop {
        let changes = target::changes();
        let Some(target) = target::current()? else { return Ok(None) };
        // resolving it for the first time may itself bring news
        if target::changes() != changes {
            continue;
        }
        let mut value = None;
        let taken = |row: Option<&Found>| value = read.take().map(|read| read(row));
        let found = if scan::is_open() || once::is_made() || !once::takes(service, key) {
            scan::find(&target, changes, service, key, taken)
        } else {
            once::find(&target, changes, service, key, taken)
        };
        if found.is_some() {
            return Ok(value);
        }
        pgrx::check_for_interrupts!();
    }
}

/// A snapshot that is active as long as this lives.
struct Snapshot {
    pushed: bool,
}

impl Snapshot {
    fn active() -> Self {
        let pushed = lone::active_snapshot().is_none();
        if pushed {
            // SAFETY: a function called outside of any query gets the snapshot a query would have.
            unsafe { pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot()) };
        }
        Snapshot { pushed }
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if self.pushed && !std::thread::panicking() {
            // SAFETY: pops what `active` pushed; after an error the abort does it.
            unsafe { pg_sys::PopActiveSnapshot() };
        }
    }
}
