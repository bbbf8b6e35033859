//! Deleting rows of a table by their places, without a plan, a row lock before and a second look for each row: what the
//! executor's DELETE does in the end, for a table on which a DELETE does nothing else (nodeModifyTable.c, ExecDelete).

use crate::pg::heap;
use pgrx::prelude::*;

/// Where a row stands.
pub type Place = pg_sys::ItemPointerData;

/// A table, open and locked, from which rows are deleted so.
pub struct Table(pg_sys::Relation);

impl Table {
    /// Nothing for a table from which only SQL may delete. A read-only transaction is refused as SQL refuses it.
    pub fn open(relation: pg_sys::Oid) -> Option<Table> {
        // SAFETY: the relation is locked as the executor locks it, and closed by `drop`, or with the transaction.
        unsafe {
            pg_sys::PreventCommandIfReadOnly(c"DELETE".as_ptr());
            let heap = pg_sys::try_relation_open(relation, pg_sys::RowExclusiveLock as i32);
            if heap.is_null() {
                return None;
            }
            let table = Table(heap);
            if !plain(heap) {
                return None;
            }
            pg_sys::CheckCmdReplicaIdentity(heap, pg_sys::CmdType::CMD_DELETE);
            Some(table)
        }
    }

    /// Deletes the rows that a statement of this transaction has seen at these places since the table was opened, but none that another
    /// transaction holds or has changed since. Returns how many went.
    pub fn delete(&self, places: &[Place]) -> usize {
        // SAFETY: the relation is open and locked. The snapshot is for values stored out of line, which go with their row.
        unsafe {
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
            let command = pg_sys::GetCurrentCommandId(true);
            let removed = places.iter().filter(|place| delete_one(self.0, **place, command)).count();
            pg_sys::PopActiveSnapshot();
            pg_sys::CommandCounterIncrement();
            removed
        }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // after an error the transaction closes it; the lock stays until its end in any case
        if !std::thread::panicking() {
            // SAFETY: opened by `open`.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as i32) }
        }
    }
}

/// Whether the row went; one that somebody else holds, or has changed or deleted, is left.
///
/// # Safety
/// The relation is a heap, open and locked; the place is that of a row which a snapshot of this transaction saw.
unsafe fn delete_one(heap: pg_sys::Relation, mut place: Place, command: pg_sys::CommandId) -> bool {
    const WAIT: bool = false;
    const TO_ANOTHER_PARTITION: bool = false;
    let mut failure = pg_sys::TM_FailureData::default();
    // SAFETY: the caller's claim.
    let result = unsafe {
        pg_sys::heap_delete(heap, &mut place, command, core::ptr::null_mut(), WAIT, &mut failure, TO_ANOTHER_PARTITION)
    };
    result == pg_sys::TM_Result::TM_Ok
}

/// Whether a DELETE is no more than the removal of rows: a heap of its own without children, row security, rules or
/// triggers on deleting, whose owner may delete, and nobody audits what is done.
///
/// # Safety
/// The relation is open and locked.
unsafe fn plain(heap: pg_sys::Relation) -> bool {
    // SAFETY: an open relation has these.
    unsafe {
        let allowed =
            pg_sys::pg_class_aclcheck((*heap).rd_id, pg_sys::GetUserId(), pg_sys::ACL_DELETE as pg_sys::AclMode);
        heap::stands_alone(heap)
            && (*heap).rd_rules.is_null()
            && !fires((*heap).trigdesc)
            && allowed == pg_sys::AclResult::ACLCHECK_OK
            && !heap::is_audited()
    }
}

/// Whether a DELETE fires a trigger.
///
/// # Safety
/// The triggers of an open relation, or null for none.
unsafe fn fires(triggers: *const pg_sys::TriggerDesc) -> bool {
    // SAFETY: the caller's claim.
    unsafe { triggers.as_ref() }.is_some_and(|on| {
        on.trig_delete_before_row
            || on.trig_delete_after_row
            || on.trig_delete_instead_row
            || on.trig_delete_before_statement
            || on.trig_delete_after_statement
    })
}
