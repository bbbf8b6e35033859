//! Rows on their way into the processor's cache: of many that are read one after the other, each would be waited for.

use super::places::block_of;
use super::server::PrefetchBuffer;
use pgrx::pg_sys;

/// The place of no row.
pub const NOWHERE: Place = Place { ip_blkid: pg_sys::BlockIdData { bi_hi: u16::MAX, bi_lo: u16::MAX }, ip_posid: 0 };

type Place = pg_sys::ItemPointerData;

/// A line of the processor's cache.
const LINE: usize = 64;
/// Lines of a row to begin with; the processor finds the next ones itself.
const LINES: usize = 4;
const PAGE: usize = pg_sys::BLCKSZ as usize;
/// The list of rows begins behind the page's header (`SizeOfPageHeaderData`), an `ItemIdData` each.
const HEADER: usize = 24;
const ITEM: usize = 4;
/// Most places at once.
pub const MOST: usize = 64;

/// Asks for the pages of these rows, from the disk where they are not in memory, and for the rows themselves.
///
/// # Safety
/// The table is open; called behind a guard, with at most `MOST` places.
pub unsafe fn fetch(table: pg_sys::Relation, places: &[Place]) {
    let mut pages = [core::ptr::null::<u8>(); MOST];
    for (place, page) in places.iter().zip(&mut pages) {
        if place.ip_posid == 0 {
            continue;
        }
        let block = block_of(place);
        // SAFETY: the caller's claim; the blocks of shared buffers lie one behind the other.
        unsafe {
            let found = PrefetchBuffer(table, pg_sys::ForkNumber::MAIN_FORKNUM, block);
            if found.recent_buffer > 0 {
                *page = pg_sys::BufferBlocks.cast::<u8>().add((found.recent_buffer as usize - 1) * PAGE);
                soon(*page);
                soon(page.add(item(place)));
            }
        }
    }
    for (place, page) in places.iter().zip(&pages) {
        let item = item(place);
        if page.is_null() || item + ITEM > PAGE {
            continue;
        }
        // SAFETY: shared buffers stay mapped. Nobody holds this one, so another page may have come into it: what is read
        // here is only a hint where to look, and kept within the page.
        unsafe {
            let offset = page.add(item).cast::<u32>().read_volatile() as usize & 0x7FFF;
            (0..LINES).map(|line| offset + line * LINE).filter(|at| *at < PAGE).for_each(|at| soon(page.add(at)));
        }
    }
}

/// Where the list of rows of its page says where a row stands.
fn item(place: &Place) -> usize {
    HEADER + usize::from(place.ip_posid).saturating_sub(1) * ITEM
}

/// Tells the processor what is read next. It never faults.
#[inline]
unsafe fn soon(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a hint, whatever the address.
    unsafe {
        core::arch::x86_64::_mm_prefetch::<{ core::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
