//! The server's own functions that look-ups call, not pgrx's guarded ones: they are called in groups behind one guard, which saves a
//! tenth of a look-up's time.

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    pub(super) fn ExecDropSingleTupleTableSlot(slot: *mut pg_sys::TupleTableSlot);
    pub(super) fn LockRelationOid(relation: pg_sys::Oid, mode: pg_sys::LOCKMODE);
    pub(super) fn MemoryContextAlloc(memory: pg_sys::MemoryContext, size: pg_sys::Size) -> *mut core::ffi::c_void;
    pub(super) fn PrefetchBuffer(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
        block: pg_sys::BlockNumber,
    ) -> pg_sys::PrefetchBufferResult;
    pub(super) fn ProcessInterrupts();
    pub(super) fn RelationGetNumberOfBlocksInFork(
        relation: pg_sys::Relation,
        fork: pg_sys::ForkNumber::Type,
    ) -> pg_sys::BlockNumber;
    pub(super) fn ScanKeyInit(
        key: pg_sys::ScanKey,
        column: pg_sys::AttrNumber,
        strategy: pg_sys::StrategyNumber,
        function: pg_sys::RegProcedure,
        argument: pg_sys::Datum,
    );
    pub(super) fn heap_getnextslot(
        scan: pg_sys::TableScanDesc,
        direction: pg_sys::ScanDirection::Type,
        slot: *mut pg_sys::TupleTableSlot,
    ) -> bool;
    #[cfg(not(feature = "pg18"))]
    pub(super) fn index_beginscan(
        heap: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        keys: core::ffi::c_int,
        orders: core::ffi::c_int,
    ) -> pg_sys::IndexScanDesc;
    #[cfg(feature = "pg18")]
    pub(super) fn index_beginscan(
        heap: pg_sys::Relation,
        index: pg_sys::Relation,
        snapshot: pg_sys::Snapshot,
        instrument: *mut core::ffi::c_void,
        keys: core::ffi::c_int,
        orders: core::ffi::c_int,
    ) -> pg_sys::IndexScanDesc;
    pub(super) fn index_close(relation: pg_sys::Relation, mode: pg_sys::LOCKMODE);
    pub(super) fn index_endscan(scan: pg_sys::IndexScanDesc);
    pub(super) fn index_fetch_heap(scan: pg_sys::IndexScanDesc, slot: *mut pg_sys::TupleTableSlot) -> bool;
    pub(super) fn index_getnext_tid(
        scan: pg_sys::IndexScanDesc,
        direction: pg_sys::ScanDirection::Type,
    ) -> *mut pg_sys::ItemPointerData;
    pub(super) fn index_open(relation: pg_sys::Oid, mode: pg_sys::LOCKMODE) -> pg_sys::Relation;
    pub(super) fn index_rescan(
        scan: pg_sys::IndexScanDesc,
        keys: pg_sys::ScanKey,
        nkeys: core::ffi::c_int,
        orderbys: pg_sys::ScanKey,
        norderbys: core::ffi::c_int,
    );
    pub(super) fn relation_close(relation: pg_sys::Relation, mode: pg_sys::LOCKMODE);
    pub(super) fn relation_open(relation: pg_sys::Oid, mode: pg_sys::LOCKMODE) -> pg_sys::Relation;
    pub(super) fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attnum: core::ffi::c_int);
    pub(super) fn table_slot_create(
        heap: pg_sys::Relation,
        registry: *mut *mut pg_sys::List,
    ) -> *mut pg_sys::TupleTableSlot;
}
