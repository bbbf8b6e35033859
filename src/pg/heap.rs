//! What both a direct look-up and a direct deletion must know before they go past the executor.

use pgrx::prelude::*;

/// Whether a relation is a heap that stands alone: no parent, no children, no row security, no other access method, so that its
/// rows are those that SQL would see or delete.
///
/// # Safety
/// The relation is open and locked.
pub unsafe fn stands_alone(relation: pg_sys::Relation) -> bool {
    // SAFETY: an open relation has its row of pg_class.
    let class = unsafe { &*(*relation).rd_rel };
    class.relkind == pg_sys::RELKIND_RELATION as core::ffi::c_char
        && class.relam == pg_sys::HEAP_TABLE_AM_OID
        && !class.relrowsecurity
        && !class.relhassubclass
        && !class.relispartition
}

/// Whether a module (pgaudit) looks at the permissions that each statement uses: what goes past the executor it would not see.
pub fn is_audited() -> bool {
    // SAFETY: a hook of the server, null when there is no such module; it is set while libraries are loaded.
    unsafe { (&raw const pg_sys::ExecutorCheckPerms_hook).read().is_some() }
}
