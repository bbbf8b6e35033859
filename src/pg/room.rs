//! Whether a page of the cache has room for a new version of a row, so that its update stays within the page (HOT) and
//! enters no index.

use crate::core::error::Error;
use crate::pg::store;
use pgrx::prelude::*;

/// The cache's table, open for a look at its pages.
pub struct Pages {
    heap: pg_sys::Relation,
    blocks: u32,
}

impl Pages {
    /// Opens the table for the rest of the transaction.
    ///
    /// # Errors
    /// `NotInstalled` when the extension is gone.
    pub fn open() -> Result<Option<Self>, Error> {
        let oid = store::table(c"enrichment_cache")?;
        // SAFETY: a table that is gone gives null; the relation is closed in drop, or by the abort after an error.
        unsafe {
            let heap = if oid == pg_sys::InvalidOid {
                core::ptr::null_mut()
            } else {
                pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32)
            };
            if heap.is_null() {
                return Ok(None);
            }
            // pages of another access method, or of a table in parts, say nothing here
            let plain = (*(*heap).rd_rel).relam == pg_sys::HEAP_TABLE_AM_OID;
            let fork = pg_sys::ForkNumber::MAIN_FORKNUM;
            let blocks = if plain { pg_sys::RelationGetNumberOfBlocksInFork(heap, fork) } else { 0 };
            Ok(Some(Pages { heap, blocks }))
        }
    }

    /// Whether the largest row of a page could have another version beside it, once what nobody sees any more is removed.
    /// A page that is not there says nothing: its rows are elsewhere by now.
    pub fn has_room(&self, block: u32) -> bool {
        if block >= self.blocks {
            return true;
        }
        // SAFETY: the page is pinned, and locked while it is looked at; line pointers are read up to their number.
        unsafe {
            let buffer = pg_sys::ReadBuffer(self.heap, block);
            pg_sys::heap_page_prune_opt(self.heap, buffer);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer);
            let lengths =
                (1..=pg_sys::PageGetMaxOffsetNumber(page)).map(|at| (*pg_sys::PageGetItemId(page, at)).lp_len());
            let largest = lengths.max().unwrap_or(0) as usize;
            let room = pg_sys::PageGetHeapFreeSpace(page.cast()) >= largest.next_multiple_of(8);
            pg_sys::UnlockReleaseBuffer(buffer);
            room
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes what `open` opened; the lock stays until the transaction ends.
            unsafe { pg_sys::relation_close(self.heap, pg_sys::NoLock as i32) };
        }
    }
}
