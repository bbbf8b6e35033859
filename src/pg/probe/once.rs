//! A look-up that opens what it needs and closes it again: for the first one of a transaction, which in most statements
//! of a client is the only one. Where there is a second, [`super::scan`] keeps everything open from then on.
//!
//! Contract: all that is opened belongs to the query's own resource owner and memory, as what its executor opens does, so
//! that an error leaves it to the server to clean up.

use super::places::{self, Place};
use super::scan::Found;
use super::server::{
    index_beginscan, index_close, index_endscan, index_fetch_heap, index_getnext_tid, index_open, index_rescan,
    relation_close, relation_open, slot_getsomeattrs_int, table_slot_create, ExecDropSingleTupleTableSlot,
    LockRelationOid, ScanKeyInit,
};
use super::target::{self, Target};
use crate::core::key::MAX_KEY;
use crate::pg::lone::{self, Lone};
use pgrx::pg_sys;
use std::mem::MaybeUninit;

/// Whether this transaction has made such a look-up.
static MADE: Lone<bool> = Lone::new(false);

const SHARED: pg_sys::LOCKMODE = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
const LOCKED: pg_sys::LOCKMODE = pg_sys::NoLock as pg_sys::LOCKMODE;

/// Whether the next look-up is better made with a scan that stays open.
pub fn is_made() -> bool {
    MADE.get()
}

/// The transaction is over.
pub fn end() {
    MADE.set(false);
}

struct Open {
    heap: pg_sys::Relation,
    slot: *mut pg_sys::TupleTableSlot,
    /// Index and scan, where the row's place was not known.
    by: Option<(pg_sys::Relation, pg_sys::IndexScanDesc)>,
    found: bool,
}

/// What is looked for.
struct Wanted<'a> {
    target: &'a Target,
    changes: u64,
    service: &'a str,
    key: &'a str,
    place: Option<Place>,
}

/// Bytes of the longest key or name with its header, in words: PostgreSQL wants them aligned.
const WORDS: usize = (MAX_KEY + pg_sys::VARHDRSZ).div_ceil(4);

/// A value of type text on the stack.
struct Text(MaybeUninit<[u32; WORDS]>);

impl Text {
    const EMPTY: Text = Text(MaybeUninit::uninit());

    /// The value; `None` for what is longer than any key.
    fn put(&mut self, value: &str) -> Option<pg_sys::Datum> {
        if value.len() > MAX_KEY {
            return None;
        }
        // SAFETY: there is room for the header and so many bytes.
        unsafe {
            let start = self.0.as_mut_ptr().cast::<pg_sys::varlena>();
            pgrx::set_varsize_4b(start, (value.len() + pg_sys::VARHDRSZ) as i32);
            core::ptr::copy_nonoverlapping(value.as_ptr(), start.cast::<u8>().add(pg_sys::VARHDRSZ), value.len());
            Some(pg_sys::Datum::from(start))
        }
    }
}

/// Whether service and key are of a length that [`find`] takes; all are that have passed their checks.
pub fn takes(service: &str, key: &str) -> bool {
    service.len() <= MAX_KEY && key.len() <= MAX_KEY
}

/// Looks one row up under the active snapshot and hands it to `read`; `None` when the table or its index changed just
/// now, so that both are to be looked for again.
pub fn find<T>(
    target: &Target,
    changes: u64,
    service: &str,
    key: &str,
    read: impl FnOnce(Option<&Found>) -> T,
) -> Option<T> {
    let (mut of_service, mut of_key) = (Text::EMPTY, Text::EMPTY);
    let arguments = [of_service.put(service)?, of_key.put(key)?];
    let wanted = Wanted { target, changes, service, key, place: Place::of(service, key) };
    // SAFETY: the texts live until the scan is closed. The frames inside the guards own nothing.
    let open = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| open(&wanted, arguments)) }?;
    MADE.set(true);
    let value = read(open.found.then_some(Found { slot: open.slot, target }).as_ref());
    // SAFETY: as above; what was opened is closed once.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| close(&open)) };
    Some(value)
}

/// Locks a relation; false when the wait for the lock brought news of changes.
unsafe fn lock(relation: pg_sys::Oid, changes: u64) -> bool {
    // SAFETY: a lock on a relation that is gone does no harm.
    unsafe { LockRelationOid(relation, SHARED) };
    target::changes() == changes
}

/// Opens the table and goes to the row: where it is known to stand, else by the index.
unsafe fn open(wanted: &Wanted, arguments: [pg_sys::Datum; 2]) -> Option<Open> {
    let target = wanted.target;
    // SAFETY: what the executor does for a scan, in its order; called behind a guard.
    unsafe {
        if !lock(target.heap, wanted.changes) {
            return None;
        }
        let snapshot = lone::active_snapshot()?;
        let heap = relation_open(target.heap, LOCKED);
        let slot = table_slot_create(heap, core::ptr::null_mut());
        if let Some(at) = wanted.place.as_ref().and_then(Place::known) {
            if stands(heap, snapshot, at, slot) {
                slot_getsomeattrs_int(slot, target.widest);
                if (Found { slot, target }).is_of(wanted.service, wanted.key) {
                    return Some(Open { heap, slot, by: None, found: true });
                }
            }
        }
        if !lock(target.index, wanted.changes) {
            close(&Open { heap, slot, by: None, found: false });
            return None;
        }
        let index = index_open(target.index, LOCKED);
        let mut keys = [pg_sys::ScanKeyData::default(); 2];
        for ((key, argument), column) in keys.iter_mut().zip(arguments).zip(1..) {
            ScanKeyInit(key, column, pg_sys::BTEqualStrategyNumber as u16, pg_sys::F_TEXTEQ.into(), argument);
        }
        #[cfg(not(feature = "pg18"))]
        let scan = index_beginscan(heap, index, snapshot, 2, 0);
        #[cfg(feature = "pg18")]
        let scan = index_beginscan(heap, index, snapshot, core::ptr::null_mut(), 2, 0);
        index_rescan(scan, keys.as_mut_ptr(), 2, core::ptr::null_mut(), 0);
        let mut open = Open { heap, slot, by: Some((index, scan)), found: false };
        loop {
            let entry = index_getnext_tid(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if entry.is_null() {
                return Some(open);
            }
            // fetching the row makes of it the place of the version that was found
            let entry = *entry;
            if index_fetch_heap(scan, slot) {
                slot_getsomeattrs_int(slot, target.widest);
                wanted.place.iter().for_each(|place| place.note(entry));
                open.found = true;
                return Some(open);
            }
        }
    }
}

/// Whether the snapshot sees a row at a place that the index once gave; then it is in the slot.
unsafe fn stands(
    heap: pg_sys::Relation,
    snapshot: pg_sys::Snapshot,
    mut at: pg_sys::ItemPointerData,
    slot: *mut pg_sys::TupleTableSlot,
) -> bool {
    // SAFETY: what an index scan does with what its index gives; the slot keeps the page of what was found.
    unsafe {
        let methods = &*(*heap).rd_tableam;
        let (Some(begin), Some(fetch), Some(end)) =
            (methods.index_fetch_begin, methods.index_fetch_tuple, methods.index_fetch_end)
        else {
            return false;
        };
        if !places::exists(heap, &at) {
            return false;
        }
        let scan = begin(heap);
        let mut again = false;
        let found = fetch(scan, &mut at, snapshot, slot, &mut again, core::ptr::null_mut());
        end(scan);
        found
    }
}

/// The reverse. Locks stay until the transaction ends, as those of any query do.
unsafe fn close(open: &Open) {
    // SAFETY: called once, behind a guard.
    unsafe {
        if let Some((_, scan)) = open.by {
            index_endscan(scan);
        }
        ExecDropSingleTupleTableSlot(open.slot);
        if let Some((index, _)) = open.by {
            index_close(index, LOCKED);
        }
        relation_close(open.heap, LOCKED);
    }
}
