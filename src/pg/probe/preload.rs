//! All rows of a service in one pass over the table: what a query does better that looks most of them up anyway. The pass
//! sees what the query's snapshot sees, as a sequential scan in the query would.

use super::answer;
use super::memo::Row;
use super::scan::{As, Found};
use super::server::{heap_getnextslot, slot_getsomeattrs_int};
use super::target::{self, Column, Target};
use crate::core::error::Error;
use crate::pg::lone;
use pgrx::pg_sys;
use std::ops::Range;

/// How large the table is.
pub struct Extent {
    pub pages: u32,
    pub rows: u64,
}

/// The table's size; `None` where SQL has to be asked.
///
/// # Errors
/// As [`target::current`].
pub fn extent() -> Result<Option<Extent>, Error> {
    let Some(target) = target::current()? else { return Ok(None) };
    // SAFETY: the table is locked by the look-ups of this transaction; it is opened and closed again.
    let (pages, rows) = unsafe {
        let heap = pg_sys::relation_open(target.heap, pg_sys::AccessShareLock as i32);
        let pages = pg_sys::RelationGetNumberOfBlocksInFork(heap, pg_sys::ForkNumber::MAIN_FORKNUM);
        let rows = (*(*heap).rd_rel).reltuples;
        pg_sys::relation_close(heap, pg_sys::NoLock as i32);
        (pages, rows)
    };
    // not counted yet: -1
    let rows = if rows < 0.0 { u64::from(pages) * 10 } else { rows as u64 };
    Ok(Some(Extent { pages, rows }))
}

/// How much look-ups may cost (see [`scan::spent`]) before a pass would have cost no more; `None` where no pass is to be
/// made: SQL has to be asked, or this transaction would conflict with every writer of the table.
///
/// # Errors
/// As [`target::current`].
pub fn worth_it_after() -> Result<Option<u64>, Error> {
    // SAFETY: a plain global of this process.
    if unsafe { pg_sys::XactIsoLevel } == pg_sys::XACT_SERIALIZABLE as i32 {
        return Ok(None);
    }
    let Some(Extent { pages, rows }) = extent()? else { return Ok(None) };
    // going to a remembered place costs about four fifths of a page of a pass, or four of its rows
    Ok(Some(64.max(u64::from(pages) * 5 / 4 + rows / 4)))
}

/// Hands every row of a service to `each`, or those in some pages, until it returns false; says whether it saw all of them.
///
/// # Errors
/// As [`target::current`]; PostgreSQL's own errors are raised.
fn each_of(service: &str, pages: Option<Range<u32>>, mut each: impl FnMut(&Found) -> bool) -> Result<bool, Error> {
    let changes = target::changes();
    let (Some(target), Some(snapshot)) = (target::current()?, lone::active_snapshot()) else { return Ok(false) };
    // SAFETY: what a sequential scan of the executor does. All of it belongs to the query's own resource owner and to a
    // child of its memory, which an error takes along.
    unsafe {
        let heap = pg_sys::relation_open(target.heap, pg_sys::AccessShareLock as i32);
        if target::changes() != changes {
            pg_sys::relation_close(heap, pg_sys::NoLock as i32);
            return Ok(false);
        }
        let name = c"enrichment_cache pass".as_ptr();
        let memory = pg_sys::AllocSetContextCreateInternal(pg_sys::CurrentMemoryContext, name, 0, 1024, 64 * 1024);
        let (slot, scan) = {
            let _memory = As::owner(pg_sys::CurrentResourceOwner, memory);
            let mut flags = pg_sys::ScanOptions::SO_ALLOW_STRAT | pg_sys::ScanOptions::SO_ALLOW_PAGEMODE;
            // this one is counted, once for each pass over the table
            if pages.as_ref().is_none_or(|pages| pages.start == 0) {
                flags |= pg_sys::ScanOptions::SO_TYPE_SEQSCAN;
            }
            let slot = pg_sys::table_slot_create(heap, core::ptr::null_mut());
            let (none, alone) = (core::ptr::null_mut(), core::ptr::null_mut());
            let scan = pg_sys::heap_beginscan(heap, snapshot, 0, none, alone, flags);
            if let Some(pages) = pages {
                pg_sys::heap_setscanlimits(scan, pages.start, pages.len() as u32);
            }
            (slot, scan)
        };
        let mut all = true;
        loop {
            let found = {
                let _memory = As::owner(pg_sys::CurrentResourceOwner, memory);
                pg_sys::ffi::pg_guard_ffi_boundary(|| next(scan, slot, &target, service.as_bytes()))
            };
            if !found {
                break;
            }
            if !each(&Found { slot, target: &target }) {
                all = false;
                break;
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::relation_close(heap, pg_sys::NoLock as i32);
        pg_sys::MemoryContextDelete(memory);
        Ok(all)
    }
}

/// Hands every fresh answer of a service to `each`, as [`each_of`] does: key, payload and, if it counts as a hit, row. False too where one
/// is made up for each look-up, which must be looked up then.
///
/// # Errors
/// As [`each_of`].
pub fn each_answer(
    service: &str,
    pages: Option<Range<u32>>,
    mut each: impl FnMut(&[u8], Option<&[u8]>, Option<Row>) -> bool,
) -> Result<bool, Error> {
    each_of(service, pages, |row| {
        if row.datum(Column::Ranges).is_some() {
            return false;
        }
        if !row.datum(Column::ExpiresAt).is_some_and(|at| answer::is_fresh(at, 0)) {
            return true;
        }
        let place = answer::is_hit(row).then(|| answer::place_of(row));
        each(row.bytes(Column::Key), answer::payload_of(row), place)
    })
}

/// Goes to the next row of the service. Cancel requests are served between pages, by the scan itself.
unsafe fn next(
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    target: &Target,
    service: &[u8],
) -> bool {
    // SAFETY: called by `each_of` on its scan, behind a guard; the frames in here own nothing.
    unsafe {
        while heap_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            slot_getsomeattrs_int(slot, target.attribute(Column::Service) as i32 + 1);
            if (Found { slot, target }).bytes(Column::Service) == service {
                slot_getsomeattrs_int(slot, target.widest);
                return true;
            }
        }
        false
    }
}
