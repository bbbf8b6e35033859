//! Pieces of dynamic shared memory that belong to call sites, not to a resource owner: who holds one says when it goes.
//!
//! Contract: a piece lives as long as some process has it mapped, and is gone with the last one, also after a crash (the server
//! clears what is left when it starts again). Where there is none to be had, there is none: a query goes on without.

use crate::pg::error::of_caught;
use pgrx::pg_sys;
use pgrx::prelude::*;
use std::panic::AssertUnwindSafe;

/// One piece, mapped.
pub struct Segment {
    segment: *mut pg_sys::dsm_segment,
    pub start: *mut u8,
}

impl Segment {
    /// A new piece of `size` bytes, all zero; `None` where the system has no room for it, or keeps such memory elsewhere than
    /// in memory.
    pub fn new(size: usize) -> Option<Segment> {
        // SAFETY: a variable of this process.
        let kind = unsafe { pg_sys::dynamic_shared_memory_type };
        if kind != pg_sys::DSM_IMPL_POSIX as i32 || !has_room(size) {
            return None;
        }
        let none = pg_sys::DSM_CREATE_NULL_IF_MAXSEGMENTS as i32;
        // SAFETY: nothing but the call happens inside; see `without_owner`.
        without_owner(|| unsafe { pg_sys::dsm_create(size, none) })
    }

    /// The piece that another process made; `None` when it is gone.
    pub fn of(handle: pg_sys::dsm_handle) -> Option<Segment> {
        // SAFETY: as above.
        without_owner(|| unsafe { pg_sys::dsm_attach(handle) })
    }

    pub fn handle(&self) -> pg_sys::dsm_handle {
        // SAFETY: mapped as long as this lives.
        unsafe { pg_sys::dsm_segment_handle(self.segment) }
    }

    /// Has `work` called with `number` when this process lets the piece go, however it ends.
    pub fn at_the_end(
        &self,
        work: unsafe extern "C-unwind" fn(*mut pg_sys::dsm_segment, pg_sys::Datum),
        number: usize,
    ) {
        // SAFETY: mapped; the callback is a function of this library, which stays.
        unsafe { pg_sys::on_dsm_detach(self.segment, Some(work), pg_sys::Datum::from(number)) };
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: mapped by this, and by nobody else in this process. Processes that end let all of theirs go before memory
        // contexts do.
        unsafe { pg_sys::dsm_detach(self.segment) };
    }
}

/// Maps a piece in nobody's name: an owner would let it go at the end of its query, or warn. What the system refuses is not an error of
/// the query, which has its answers without that memory.
fn without_owner(map: impl FnOnce() -> *mut pg_sys::dsm_segment) -> Option<Segment> {
    // SAFETY: a variable of this process, put back below on every way out.
    let owner = unsafe { core::ptr::replace(&raw mut pg_sys::CurrentResourceOwner, core::ptr::null_mut()) };
    let segment =
        PgTryBuilder::new(AssertUnwindSafe(|| Ok(map()))).catch_others(|cause| Err(of_caught(&cause))).execute();
    // SAFETY: as above.
    unsafe { pg_sys::CurrentResourceOwner = owner };
    match segment {
        Ok(segment) if segment.is_null() => None,
        // SAFETY: mapped just now.
        Ok(segment) => Some(Segment { segment, start: unsafe { pg_sys::dsm_segment_address(segment) }.cast() }),
        Err(error) => {
            pgrx::debug1!("enrichment_cache: parallel workers share no memo: {error}");
            None
        }
    }
}

/// Whether the system can give so much and keep as much again for others. Memory is promised when it is taken, so what is used
/// later is there.
fn has_room(size: usize) -> bool {
    let Ok(files) = rustix::fs::statvfs("/dev/shm") else { return false };
    files.f_bavail.saturating_mul(files.f_frsize) / 2 >= size as u64
}
