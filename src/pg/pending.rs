//! How much stands on the list of pending entries of a GIN index (its `src/backend/access/gin/README`).

use pgrx::pg_sys;

/// The beginning of what stands on the first page of a GIN index (`GinMetaPageData` in its `ginblock.h`).
#[repr(C)]
struct MetaPage {
    head: pg_sys::BlockNumber,
    tail: pg_sys::BlockNumber,
    tail_free_size: u32,
    pending_pages: pg_sys::BlockNumber,
}

/// Bytes of pages on the list of an index; 0 where it is no GIN index, or is gone.
pub fn bytes(index: pg_sys::Oid) -> i64 {
    const META: pg_sys::BlockNumber = 0;
    const HEADER: usize = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp).next_multiple_of(8);
    // SAFETY: the relation is held open under a lock while its first page is read under a lock of the buffer; every GIN index
    // has that page, and that it is one is asked before.
    unsafe {
        let relation = pg_sys::try_relation_open(index, pg_sys::AccessShareLock as i32);
        if relation.is_null() {
            return 0;
        }
        let mut pages = 0;
        if (*(*relation).rd_rel).relam == pg_sys::GIN_AM_OID {
            let buffer = pg_sys::ReadBuffer(relation, META);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let contents = pg_sys::BufferGetPage(buffer).cast::<u8>().add(HEADER);
            pages = (*contents.cast::<MetaPage>()).pending_pages;
            pg_sys::UnlockReleaseBuffer(buffer);
        }
        pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32);
        i64::from(pages) * i64::from(pg_sys::BLCKSZ)
    }
}
