//! Shared memory without a lock around it, of whatever size: each part says what it needs, one pair of hooks reserves it all.

use crate::pg::{probe, tally};
use pgrx::prelude::*;
use std::ffi::CStr;

/// A part of shared memory.
pub struct Part {
    /// As `pg_shmem_allocations` calls it.
    pub name: &'static CStr,
    /// In bytes; 0 for none.
    pub size: fn() -> usize,
    /// Takes it; it is all zero the first time (`fresh`), and after a crash.
    pub take: unsafe fn(memory: *mut u8, fresh: bool),
}

const PARTS: [Part; 2] = [tally::PART, probe::places::PART];

static mut NEXT_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut NEXT_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Reserves the memory; only while the library is being preloaded.
pub fn init() {
    // SAFETY: the postmaster loads libraries one after the other, before there is any other process.
    unsafe {
        NEXT_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        NEXT_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(startup);
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: the place PostgreSQL calls for such requests; the next module's turn comes first.
    unsafe {
        if let Some(next) = NEXT_REQUEST {
            next();
        }
        PARTS.iter().map(|part| (part.size)()).filter(|size| *size > 0).for_each(|size| {
            pg_sys::RequestAddinShmemSpace(size);
        });
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: runs in the postmaster, before any other process can look. A restart after a crash comes here again, with
    // new memory.
    unsafe {
        if let Some(next) = NEXT_STARTUP {
            next();
        }
        for part in PARTS {
            let size = (part.size)();
            if size == 0 {
                continue;
            }
            let mut found = false;
            let memory: *mut u8 = pg_sys::ShmemInitStruct(part.name.as_ptr(), size, &mut found).cast();
            if !found {
                core::ptr::write_bytes(memory, 0, size);
            }
            (part.take)(memory, !found);
        }
    }
}
