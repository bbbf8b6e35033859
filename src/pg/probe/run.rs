//! Many look-ups of one service in a row, behind one guard: first the index is asked where the rows of some keys stand, then
//! these are sent for, then each is read.

use super::ahead;
use super::scan::{next, opened, put_text, rest, As, Found, Scan, BUSY, KEYS};
use super::target::Target;
use crate::pg::lone;
use pgrx::pg_sys;

unsafe extern "C-unwind" {
    // The server's own functions, called behind the guard of a run.
    fn index_rescan(
        scan: pg_sys::IndexScanDesc,
        keys: pg_sys::ScanKey,
        nkeys: core::ffi::c_int,
        orderbys: pg_sys::ScanKey,
        norderbys: core::ffi::c_int,
    );
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attnum: core::ffi::c_int);
    fn index_getnext_tid(
        scan: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
    ) -> *mut pg_sys::ItemPointerData;
    fn index_fetch_heap(scan: pg_sys::IndexScanDesc, slot: *mut pg_sys::TupleTableSlot) -> bool;
    fn ProcessInterrupts();
    fn MemoryContextAlloc(memory: pg_sys::MemoryContext, size: pg_sys::Size) -> *mut core::ffi::c_void;
}

/// So many keys are looked for in the index before the first of their rows is read.
const AHEAD: usize = ahead::MOST;

/// Looks keys up one after the other behind one guard and hands each row to `each`, until that returns false; says how many
/// were looked up, `None` as [`find`] does. What `each` calls must be the server's own functions: their errors are those of
/// this guard.
pub fn each(
    target: &Target,
    changes: u64,
    service: &str,
    keys: &[&str],
    mut each: impl FnMut(Option<&Found>) -> bool,
) -> Option<usize> {
    // SAFETY: as in `find`.
    let scan = unsafe { &mut *opened(target, changes)? };
    BUSY.set(true);
    let mut done = 0;
    let owner = As::owner(scan.owner, scan.memory);
    // SAFETY: as in `find`; the texts belong to the scan, so that an error in the middle loses nothing.
    unsafe {
        let arguments = core::slice::from_raw_parts_mut((*scan.scan).keyData, KEYS);
        arguments[0].sk_argument = put_text(&mut scan.texts[0], service);
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            for some in keys.chunks(AHEAD) {
                let mut places = [ahead::NOWHERE; AHEAD];
                for (key, place) in some.iter().zip(&mut places) {
                    served();
                    arguments[1].sk_argument = put_text(&mut scan.texts[1], key);
                    *place = first(scan);
                }
                ahead::fetch(scan.heap, &places[..some.len()]);
                for (key, place) in some.iter().zip(&places) {
                    let mut found = place.ip_posid != 0 && row_at(scan, place);
                    if !found && place.ip_posid != 0 {
                        // what the first entry of the key points to is gone, or not there yet: look at all of them
                        arguments[1].sk_argument = put_text(&mut scan.texts[1], key);
                        found = next(scan);
                    }
                    done += 1;
                    let go_on = each(found.then_some(Found { slot: scan.slot, target: &scan.target }).as_ref());
                    rest(scan);
                    if !go_on {
                        return;
                    }
                }
            }
        });
    }
    drop(owner);
    BUSY.set(false);
    Some(done)
}

/// Serves a request to cancel.
unsafe fn served() {
    // SAFETY: called behind a guard.
    unsafe {
        if core::ptr::read_volatile(&raw const pg_sys::InterruptPending) != 0 {
            ProcessInterrupts();
        }
    }
}

/// Where the first entry of the index points to.
unsafe fn first(scan: &Scan) -> pg_sys::ItemPointerData {
    // SAFETY: as `next`.
    unsafe {
        (*scan.scan).xs_snapshot = lone::active_snapshot().unwrap_or((*scan.scan).xs_snapshot);
        let place = index_getnext_tid(scan.scan, pg_sys::ScanDirection::ForwardScanDirection);
        let place = if place.is_null() { ahead::NOWHERE } else { *place };
        index_rescan(scan.scan, core::ptr::null_mut(), KEYS as i32, core::ptr::null_mut(), 0);
        place
    }
}

/// Whether the snapshot sees a row there; then it is in the slot.
unsafe fn row_at(scan: &Scan, place: &pg_sys::ItemPointerData) -> bool {
    // SAFETY: as `next`. A row that this snapshot sees is not taken away between the look into the index and this, as in
    // any scan by an index.
    unsafe {
        (*scan.scan).xs_heaptid = *place;
        (*scan.scan).xs_heap_continue = false;
        let found = index_fetch_heap(scan.scan, scan.slot);
        // the scan stands at another entry by now, which is not the dead one
        (*scan.scan).kill_prior_tuple = false;
        if found {
            slot_getsomeattrs_int(scan.slot, scan.target.widest);
        }
        found
    }
}

/// A varlena copied into a memory context, behind the guard of who calls this.
///
/// # Safety
/// `value` is a varlena; an error of the server is not caught here.
pub unsafe fn copied_to(value: pg_sys::Datum, memory: pg_sys::MemoryContext) -> pg_sys::Datum {
    // SAFETY: the caller's claim; there is room for all of it.
    unsafe {
        let start = value.cast_mut_ptr::<pg_sys::varlena>();
        let size = pgrx::varsize_any(start);
        let copy = MemoryContextAlloc(memory, size);
        core::ptr::copy_nonoverlapping(start.cast::<u8>(), copy.cast(), size);
        pg_sys::Datum::from(copy)
    }
}
