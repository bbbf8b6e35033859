//! Many look-ups of one service in a row, behind one guard: first the index is asked where the rows of some keys stand, then
//! these are sent for, then each is read.

use super::ahead;
use super::places::{self, Place};
use super::scan::{next, opened, rest, row_at, As, Found, Scan, BUSY, KEYS};
use super::server::{index_getnext_tid, index_rescan, MemoryContextAlloc, ProcessInterrupts};
use super::target::Target;
use pgrx::pg_sys;

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
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            for some in keys.chunks(AHEAD) {
                let mut at = [ahead::NOWHERE; AHEAD];
                let mut places = [const { None }; AHEAD];
                for ((key, place), hint) in some.iter().zip(&mut at).zip(&mut places) {
                    served();
                    *hint = Place::of(service, key);
                    let remembered = hint.as_ref().and_then(Place::known);
                    *place = match remembered.filter(|place| places::exists(scan.heap, place)) {
                        Some(place) => place,
                        None => first(scan, service, key, hint.as_ref()),
                    };
                }
                ahead::fetch(scan.heap, &at[..some.len()]);
                for ((key, place), hint) in some.iter().zip(&at).zip(&places) {
                    let mut found = place.ip_posid != 0 && row_at(scan, place) && scan.found().is_of(service, key);
                    if !found && place.ip_posid != 0 {
                        // what stands there is gone, not there yet, or another's: look at all entries of the key
                        scan.ask(service, key);
                        found = next(scan, hint.as_ref());
                    }
                    done += 1;
                    let go_on = each(found.then_some(scan.found()).as_ref());
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

/// Where the first entry of a key in the index points to; remembered.
unsafe fn first(scan: &mut Scan, service: &str, key: &str, hint: Option<&Place>) -> pg_sys::ItemPointerData {
    // SAFETY: as `next`.
    unsafe {
        scan.ask(service, key);
        scan.see();
        let place = index_getnext_tid(scan.scan, pg_sys::ScanDirection::ForwardScanDirection);
        let place = if place.is_null() { ahead::NOWHERE } else { *place };
        index_rescan(scan.scan, core::ptr::null_mut(), KEYS as i32, core::ptr::null_mut(), 0);
        hint.iter().for_each(|hint| hint.note(place));
        place
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
