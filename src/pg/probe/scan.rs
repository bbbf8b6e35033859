//! The open index scan that look-ups of one transaction share, and its end.
//!
//! Contract: everything a scan holds (relations, buffer pins, the slot) belongs to a resource owner and a memory context
//! of its own, both children of the transaction's, so that a scan that died half-way can be dropped as a whole. Between
//! two look-ups no buffer is pinned. Locks stay until the transaction ends, as those of any query do. The scan is closed
//! before a transaction ends or is prepared, when a subtransaction is rolled back, and before any utility command:
//! ALTER TABLE and its kin refuse a table that somebody reads. An error in the middle leaves `BUSY` set, and whoever
//! comes next drops what is left.

use super::places::{self, Place};
use super::server::{index_fetch_heap, index_getnext_tid, index_rescan, slot_getsomeattrs_int};
use super::target::{self, Column, Target};
use crate::pg::lone::{self, Lone};
use pgrx::pg_sys;

/// Service and key.
pub(super) const KEYS: usize = 2;

pub(super) struct Scan {
    pub(super) owner: pg_sys::ResourceOwner,
    /// Where everything runs that the access methods do: what they keep for the scan they allocate when they first need it.
    pub(super) memory: pg_sys::MemoryContext,
    pub(super) heap: pg_sys::Relation,
    index: pg_sys::Relation,
    pub(super) scan: pg_sys::IndexScanDesc,
    pub(super) slot: *mut pg_sys::TupleTableSlot,
    pub(super) target: Target,
    /// What `target::changes` was when it was opened.
    changes: u64,
    /// Service and key as values of type text, kept so that their memory is used again.
    pub(super) texts: [Vec<u32>; KEYS],
}

static OPEN: Lone<*mut Scan> = Lone::new(core::ptr::null_mut());
pub(super) static BUSY: Lone<bool> = Lone::new(false);
/// What look-ups have cost: 1 for a place that was remembered, 2 for the way down the index.
static SPENT: Lone<u64> = Lone::new(0);
/// What has to be given back, also when the opening failed half-way.
static HELD: Lone<Option<(pg_sys::ResourceOwner, pg_sys::MemoryContext)>> = Lone::new(None);

/// The row that was found, readable until the closure that receives it returns.
pub struct Found<'a> {
    pub slot: *mut pg_sys::TupleTableSlot,
    pub target: &'a Target,
}

impl Found<'_> {
    /// A value as it stands in the row, in the page's memory: to be copied by whoever keeps it.
    pub fn datum(&self, column: Column) -> Option<pg_sys::Datum> {
        let at = self.target.attribute(column);
        // SAFETY: the slot was filled up to the widest column.
        unsafe {
            let slot = &*self.slot;
            (!*slot.tts_isnull.add(at)).then(|| *slot.tts_values.add(at))
        }
    }

    /// The page the row stands in.
    pub fn block(&self) -> u32 {
        // SAFETY: a filled slot has the place of its row.
        places::block_of(&unsafe { (*self.slot).tts_tid })
    }

    /// Whether it is the row of this key.
    pub fn is_of(&self, service: &str, key: &str) -> bool {
        self.bytes(Column::Key) == key.as_bytes() && self.bytes(Column::Service) == service.as_bytes()
    }

    /// A text column's bytes.
    pub fn bytes(&self, column: Column) -> &[u8] {
        self.datum(column).map_or(&[], |datum| {
            // SAFETY: a text of the row, stored in line: keys and names are far below the size that is moved out.
            unsafe { varlena_bytes(datum) }
        })
    }
}

/// The bytes of a varlena that is neither compressed nor out of line; nothing of any other.
unsafe fn varlena_bytes<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller's claim that it is a varlena.
    unsafe {
        let start = datum.cast_mut_ptr::<pg_sys::varlena>();
        if pgrx::varatt_is_1b_e(start) || pgrx::varatt_is_4b_c(start) {
            return &[];
        }
        core::slice::from_raw_parts(pgrx::vardata_any(start).cast(), pgrx::varsize_any_exhdr(start))
    }
}

/// Runs what follows in the name of a resource owner and in its memory, until this is dropped.
pub struct As(pg_sys::ResourceOwner, pg_sys::MemoryContext);

impl As {
    pub fn owner(owner: pg_sys::ResourceOwner, memory: pg_sys::MemoryContext) -> Self {
        // SAFETY: plain globals of this process; owner and context are alive.
        unsafe {
            let former = As(pg_sys::CurrentResourceOwner, pg_sys::CurrentMemoryContext);
            pg_sys::CurrentResourceOwner = owner;
            pg_sys::CurrentMemoryContext = memory;
            former
        }
    }
}

impl Drop for As {
    fn drop(&mut self) {
        // SAFETY: puts back what was there; after an error the server chooses its own.
        unsafe {
            pg_sys::CurrentResourceOwner = self.0;
            pg_sys::CurrentMemoryContext = self.1;
        }
    }
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
    // SAFETY: an open scan is used by one look-up at a time, as PostgreSQL's sessions have one thread.
    let scan = unsafe { &mut *opened(target, changes)? };
    BUSY.set(true);
    let place = Place::of(service, key);
    let owner = As::owner(scan.owner, scan.memory);
    // SAFETY: the arguments of the scan keys live until `rest`. The frames inside the guards own nothing.
    let found = unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            SPENT.set(SPENT.get() + 1);
            if let Some(at) = place.as_ref().and_then(Place::known) {
                if row_at(scan, &at) && scan.found().is_of(service, key) {
                    return true;
                }
            }
            SPENT.set(SPENT.get() + 1);
            scan.ask(service, key);
            next(scan, place.as_ref())
        })
    };
    drop(owner);
    let value = read(found.then_some(scan.found()).as_ref());
    let owner = As::owner(scan.owner, scan.memory);
    // SAFETY: as above.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| rest(scan)) };
    drop(owner);
    BUSY.set(false);
    Some(value)
}

/// What the look-ups of this process have cost so far, in look-ups by a remembered place.
pub fn spent() -> u64 {
    SPENT.get()
}

/// A value of type text in `words`: header and bytes, aligned as PostgreSQL wants it.
pub fn put_text(words: &mut Vec<u32>, value: &str) -> pg_sys::Datum {
    let size = value.len() + pg_sys::VARHDRSZ;
    words.resize(size.div_ceil(4), 0);
    // SAFETY: the words hold at least `size` bytes.
    unsafe {
        let start = words.as_mut_ptr().cast::<pg_sys::varlena>();
        pgrx::set_varsize_4b(start, size as i32);
        core::ptr::copy_nonoverlapping(value.as_ptr(), start.cast::<u8>().add(pg_sys::VARHDRSZ), value.len());
    }
    pg_sys::Datum::from(words.as_ptr())
}

impl Scan {
    /// What stands in the slot.
    pub(super) fn found(&self) -> Found<'_> {
        Found { slot: self.slot, target: &self.target }
    }

    /// Makes a key the one to look for.
    pub(super) unsafe fn ask(&mut self, service: &str, key: &str) {
        // SAFETY: an open scan has its keys; their arguments live as long as it.
        unsafe {
            let keys = core::slice::from_raw_parts_mut((*self.scan).keyData, KEYS);
            for ((key, text), value) in keys.iter_mut().zip(&mut self.texts).zip([service, key]) {
                key.sk_argument = put_text(text, value);
            }
        }
    }

    /// The next look is made for the statement that runs.
    pub(super) unsafe fn see(&self) {
        // SAFETY: an open scan; `probe::find` sees to it that there is a snapshot.
        unsafe { (*self.scan).xs_snapshot = lone::active_snapshot().unwrap_or((*self.scan).xs_snapshot) };
    }
}

/// The row of the key by the index; its place is remembered.
pub(super) unsafe fn next(scan: &Scan, place: Option<&Place>) -> bool {
    // SAFETY: called on an open scan, behind a guard.
    unsafe {
        scan.see();
        loop {
            let entry = index_getnext_tid(scan.scan, pg_sys::ScanDirection::ForwardScanDirection);
            if entry.is_null() {
                return false;
            }
            // fetching the row makes of it the place of the version that was found
            let entry = *entry;
            if index_fetch_heap(scan.scan, scan.slot) {
                slot_getsomeattrs_int(scan.slot, scan.target.widest);
                if let Some(place) = place {
                    place.note(entry);
                }
                return true;
            }
        }
    }
}

/// Whether the snapshot sees a row there; then it is in the slot.
pub(super) unsafe fn row_at(scan: &Scan, place: &pg_sys::ItemPointerData) -> bool {
    // SAFETY: as `next`. A row that this snapshot sees is not taken away, as in any scan by an index.
    unsafe {
        if !places::exists(scan.heap, place) {
            return false;
        }
        scan.see();
        (*scan.scan).xs_heaptid = *place;
        (*scan.scan).xs_heap_continue = false;
        let found = index_fetch_heap(scan.scan, scan.slot);
        // the scan stands at another entry or at none, which is not the dead one
        (*scan.scan).kill_prior_tuple = false;
        if found {
            slot_getsomeattrs_int(scan.slot, scan.target.widest);
        }
        found
    }
}

/// Unpins what the look-up had pinned, and makes the scan ready for the next one.
pub(super) unsafe fn rest(scan: &Scan) {
    // SAFETY: as above.
    unsafe {
        if let Some(clear) = (*(*scan.slot).tts_ops).clear {
            clear(scan.slot);
        }
        index_rescan(scan.scan, core::ptr::null_mut(), KEYS as i32, core::ptr::null_mut(), 0);
    }
}

/// The transaction's scan, opened when it is not, and opened anew when it looks at something else by now.
pub(super) fn opened(target: &Target, changes: u64) -> Option<*mut Scan> {
    if BUSY.get() {
        drop_all();
    }
    let open = OPEN.get();
    // SAFETY: a pointer in OPEN is a scan that has not been closed.
    if !open.is_null() && unsafe { (*open).changes } == changes {
        return Some(open);
    }
    close();
    lock(target);
    // the wait for a lock is when news of changes comes in
    if target::changes() != changes {
        return None;
    }
    let scan = open_scan(target, changes);
    OPEN.set(scan);
    Some(scan)
}

/// Locks table and index until the transaction ends, as a query would.
fn lock(target: &Target) {
    // SAFETY: the transaction's own owner lives as long as it does.
    let _owner = unsafe { As::owner(pg_sys::TopTransactionResourceOwner, pg_sys::CurrentMemoryContext) };
    for relation in [target.heap, target.index] {
        // SAFETY: a lock on a relation that is gone does no harm.
        unsafe { pg_sys::LockRelationOid(relation, pg_sys::AccessShareLock as i32) };
    }
}

fn open_scan(target: &Target, changes: u64) -> *mut Scan {
    // SAFETY: what the executor does to open a table with an index. Where this raises, the end of the transaction takes
    // owner and memory along.
    unsafe {
        let name = c"enrichment_cache look-up".as_ptr();
        let memory = pg_sys::AllocSetContextCreateInternal(pg_sys::TopTransactionContext, name, 0, 1024, 64 * 1024);
        let owner = pg_sys::ResourceOwnerCreate(pg_sys::TopTransactionResourceOwner, name);
        HELD.set(Some((owner, memory)));
        BUSY.set(true);
        let _owner = As::owner(owner, memory);
        let heap = pg_sys::relation_open(target.heap, pg_sys::NoLock as i32);
        let index = pg_sys::index_open(target.index, pg_sys::NoLock as i32);
        let mut keys = [pg_sys::ScanKeyData::default(); KEYS];
        for (at, key) in keys.iter_mut().enumerate() {
            let (column, equal) = (at as pg_sys::AttrNumber + 1, pg_sys::F_TEXTEQ.into());
            pg_sys::ScanKeyInit(key, column, pg_sys::BTEqualStrategyNumber as u16, equal, pg_sys::Datum::null());
        }
        let slot = pg_sys::table_slot_create(heap, core::ptr::null_mut());
        let scan = begin(heap, index);
        index_rescan(scan, keys.as_mut_ptr(), KEYS as i32, core::ptr::null_mut(), 0);
        let texts = [Vec::new(), Vec::new()];
        BUSY.set(false);
        Box::into_raw(Box::new(Scan { owner, memory, heap, index, scan, slot, target: *target, changes, texts }))
    }
}

#[cfg(not(feature = "pg18"))]
unsafe fn begin(heap: pg_sys::Relation, index: pg_sys::Relation) -> pg_sys::IndexScanDesc {
    // SAFETY: both relations are open and locked.
    unsafe { pg_sys::index_beginscan(heap, index, pg_sys::GetActiveSnapshot(), KEYS as i32, 0) }
}

#[cfg(feature = "pg18")]
unsafe fn begin(heap: pg_sys::Relation, index: pg_sys::Relation) -> pg_sys::IndexScanDesc {
    // SAFETY: as above; nobody counts the searches.
    unsafe { pg_sys::index_beginscan(heap, index, pg_sys::GetActiveSnapshot(), core::ptr::null_mut(), KEYS as i32, 0) }
}

/// Whether a look-up finds everything open.
pub fn is_open() -> bool {
    !OPEN.get().is_null() && !BUSY.get()
}

/// Closes the scan, if one is open.
pub fn close() {
    if BUSY.get() {
        return drop_all();
    }
    let open = OPEN.replace(core::ptr::null_mut());
    if open.is_null() {
        return;
    }
    // SAFETY: the pointer came from Box::into_raw and left OPEN; the order is the reverse of opening.
    unsafe {
        let scan = Box::from_raw(open);
        let owner = As::owner(scan.owner, scan.memory);
        pg_sys::index_endscan(scan.scan);
        pg_sys::ExecDropSingleTupleTableSlot(scan.slot);
        pg_sys::index_close(scan.index, pg_sys::NoLock as i32);
        pg_sys::relation_close(scan.heap, pg_sys::NoLock as i32);
        drop(owner);
    }
    give_back(true);
}

/// Drops a scan as it is: after an error nothing in it can be relied on but its owner and its memory.
fn drop_all() {
    BUSY.set(false);
    let open = OPEN.replace(core::ptr::null_mut());
    if !open.is_null() {
        // SAFETY: as in `close`; this frees our own part only.
        drop(unsafe { Box::from_raw(open) });
    }
    give_back(false);
}

fn give_back(in_order: bool) {
    use pg_sys::ResourceReleasePhase::*;
    let Some((owner, memory)) = HELD.replace(None) else { return };
    // SAFETY: both are children of the transaction's, and the callbacks at its end come before theirs.
    unsafe {
        for phase in [RESOURCE_RELEASE_BEFORE_LOCKS, RESOURCE_RELEASE_LOCKS, RESOURCE_RELEASE_AFTER_LOCKS] {
            pg_sys::ResourceOwnerRelease(owner, phase, in_order, false);
        }
        pg_sys::ResourceOwnerDelete(owner);
        pg_sys::MemoryContextDelete(memory);
    }
}

/// The transaction ends, or a subtransaction is rolled back.
pub fn end(rolled_back: bool) {
    if rolled_back {
        drop_all();
    } else {
        close();
    }
}
