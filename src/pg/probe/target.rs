//! What a direct look-up reads: the cache's table and the index it goes by, as this session knows them. Kept until
//! PostgreSQL says that something about them changed.

use crate::core::error::Error;
use crate::pg::heap;
use crate::pg::lone::{self, Lone};
use crate::pg::store;
use pgrx::prelude::*;
use std::ffi::CStr;

/// The columns a look-up may return.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Column {
    Id,
    Payload,
    Status,
    FetchedAt,
    ExpiresAt,
    HitCount,
    Version,
    ErrorMessage,
    Ranges,
    Service,
    Key,
}

const COLUMNS: [(&CStr, pg_sys::Oid); 11] = [
    (c"id", pg_sys::INT8OID),
    (c"payload", pg_sys::JSONBOID),
    (c"response_status", pg_sys::TEXTOID),
    (c"fetched_at", pg_sys::TIMESTAMPTZOID),
    (c"expires_at", pg_sys::TIMESTAMPTZOID),
    (c"hit_count", pg_sys::INT8OID),
    (c"version", pg_sys::INT8OID),
    (c"error_message", pg_sys::TEXTOID),
    (c"ranges", pg_sys::BYTEAOID),
    (c"service", pg_sys::TEXTOID),
    (c"cache_key", pg_sys::TEXTOID),
];

/// A table and an index that can be read directly.
#[derive(Clone, Copy)]
pub struct Target {
    pub heap: pg_sys::Oid,
    /// A B-tree on service and cache_key, both in byte order.
    pub index: pg_sys::Oid,
    /// Attribute numbers in the order of `Column`.
    attributes: [i16; COLUMNS.len()],
    /// The last of them.
    pub widest: i32,
}

impl Target {
    pub fn attribute(&self, column: Column) -> usize {
        self.attributes[column as usize] as usize - 1
    }
}

static KNOWN: Lone<Option<Option<Target>>> = Lone::new(None);
static HEAP: Lone<pg_sys::Oid> = Lone::new(pg_sys::InvalidOid);
static INDEX: Lone<pg_sys::Oid> = Lone::new(pg_sys::InvalidOid);
/// Who may read the table, as far as that was asked.
static ALLOWED: Lone<pg_sys::Oid> = Lone::new(pg_sys::InvalidOid);
/// Grows with everything that may change what a look-up finds or who may look.
static CHANGES: Lone<u64> = Lone::new(1);

/// Registers for the invalidations after which the table, its index or somebody's rights may be others.
pub fn init() {
    // SAFETY: the callbacks only set flags of this process.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
        for cache in [pg_sys::SysCacheIdentifier::AUTHOID, pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(roles_changed), pg_sys::Datum::null());
        }
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    if relation == pg_sys::InvalidOid || relation == HEAP.get() || relation == INDEX.get() {
        forget();
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn roles_changed(_arg: pg_sys::Datum, _cache: core::ffi::c_int, _hash: u32) {
    ALLOWED.set(pg_sys::InvalidOid);
    CHANGES.set(CHANGES.get() + 1);
}

/// Forgets what is known: the extension or its table is another now.
pub fn forget() {
    KNOWN.set(None);
    ALLOWED.set(pg_sys::InvalidOid);
    CHANGES.set(CHANGES.get() + 1);
}

/// A number that grows whenever table, index or rights may have changed.
pub fn changes() -> u64 {
    CHANGES.get()
}

/// The table and index to read directly, when that gives what SQL would give this user: a plain heap without row
/// security, children or a distribution, an index as ours, the right to read it, and nobody who audits reads.
///
/// # Errors
/// `NotInstalled` when the extension is gone.
pub fn current() -> Result<Option<Target>, Error> {
    let known = match KNOWN.get() {
        Some(known) if !store::may_have_moved() => known,
        _ => {
            let (found, lasting) = resolve()?;
            if lasting {
                KNOWN.set(Some(found));
            }
            found
        }
    };
    Ok(known.filter(|target| !heap::is_audited() && may_read(target.heap)))
}

/// Whether row security may keep rows of the table from this user.
///
/// # Errors
/// As [`current`].
pub fn hides_rows() -> Result<bool, Error> {
    if current()?.is_some() {
        return Ok(false);
    }
    let oid = store::table(c"enrichment_cache")?;
    // SAFETY: the relation is locked while it is looked at.
    unsafe {
        let heap = pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32);
        if heap.is_null() {
            return Ok(true);
        }
        let hides = (*(*heap).rd_rel).relrowsecurity;
        pg_sys::relation_close(heap, pg_sys::AccessShareLock as i32);
        Ok(hides)
    }
}

/// Whether this user may read all of the table; if only some columns, SQL knows better.
fn may_read(heap: pg_sys::Oid) -> bool {
    let user = lone::user();
    if ALLOWED.get() == user {
        return true;
    }
    // SAFETY: a question to the catalogue.
    unsafe {
        let allowed = pg_sys::pg_class_aclcheck(heap, user, pg_sys::ACL_SELECT as pg_sys::AclMode)
            == pg_sys::AclResult::ACLCHECK_OK;
        if allowed {
            ALLOWED.set(user);
        }
        allowed
    }
}

/// What stands in the catalogue, and whether the finding lasts until the next invalidation.
fn resolve() -> Result<(Option<Target>, bool), Error> {
    let oid = store::table(c"enrichment_cache")?;
    HEAP.set(oid);
    // SAFETY: catalogue look-ups; the relations are locked while they are looked at.
    unsafe {
        if oid == pg_sys::InvalidOid {
            return Ok((None, false));
        }
        let heap = pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32);
        if heap.is_null() {
            return Ok((None, false));
        }
        let class = &*(*heap).rd_rel;
        let plain = heap::stands_alone(heap)
            // what is not replicated is not there on a standby, as SQL says
            && (class.relpersistence == pg_sys::RELPERSISTENCE_PERMANENT as core::ffi::c_char
                || !pg_sys::RecoveryInProgress());
        let index = if plain { index_of(heap) } else { (None, true) };
        pg_sys::relation_close(heap, pg_sys::AccessShareLock as i32);
        let (Some(index), lasting) = index else { return Ok((None, index.1)) };
        let Some(attributes) = attributes_of(oid) else { return Ok((None, true)) };
        if store::is_distributed(oid)? {
            return Ok((None, true));
        }
        INDEX.set(index);
        let widest = attributes.iter().copied().max().unwrap_or(0).into();
        Ok((Some(Target { heap: oid, index, attributes, widest }), lasting))
    }
}

unsafe fn attributes_of(heap: pg_sys::Oid) -> Option<[i16; COLUMNS.len()]> {
    let mut found = [0; COLUMNS.len()];
    for (at, (name, kind)) in COLUMNS.iter().enumerate() {
        // SAFETY: catalogue look-ups by name; 0 is no column.
        unsafe {
            found[at] = pg_sys::get_attnum(heap, name.as_ptr());
            if found[at] <= 0 || pg_sys::get_atttype(heap, found[at]) != *kind {
                return None;
            }
        }
    }
    Some(found)
}

/// The index of the table that is as ours, and whether the finding lasts: one that old snapshots may not use yet is looked
/// at again.
unsafe fn index_of(heap: pg_sys::Relation) -> (Option<pg_sys::Oid>, bool) {
    // SAFETY: the list is ours to free; each index is locked while it is looked at.
    unsafe {
        let mut lasting = true;
        let id = (*heap).rd_id;
        let columns = [c"service", c"cache_key"].map(|name| pg_sys::get_attnum(id, name.as_ptr()));
        let list = pgrx::PgList::<u32>::from_pg(pg_sys::RelationGetIndexList(heap));
        for oid in list.iter_oid() {
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let (ours, usable) = (is_ours(index, columns), usable_now(index));
            pg_sys::index_close(index, pg_sys::AccessShareLock as i32);
            match (ours, usable) {
                (true, true) => return (Some(oid), lasting),
                (true, false) => lasting = false,
                (false, _) => (),
            }
        }
        (None, lasting)
    }
}

/// Whether an index is a complete B-tree on these columns in their byte order.
unsafe fn is_ours(index: pg_sys::Relation, columns: [i16; 2]) -> bool {
    // SAFETY: an open index has these.
    unsafe {
        let form = &*(*index).rd_index;
        let class = &*(*index).rd_rel;
        let by_bytes = |at| {
            *(*index).rd_indcollation.add(at) == pg_sys::C_COLLATION_OID
                && *(*index).rd_opfamily.add(at) == pg_sys::TEXT_BTREE_FAM_OID
                // the family also orders values of type name, which are stored otherwise
                && *(*index).rd_opcintype.add(at) == pg_sys::TEXTOID
        };
        class.relam == pg_sys::BTREE_AM_OID
            && form.indisvalid
            && form.indislive
            && form.indkey.values.as_slice(form.indnkeyatts as usize) == columns
            && by_bytes(0)
            && by_bytes(1)
            && pg_sys::RelationGetIndexPredicate(index).is_null()
    }
}

/// Whether every snapshot of this transaction may use the index (plancat.c asks the same).
unsafe fn usable_now(index: pg_sys::Relation) -> bool {
    // SAFETY: an open index has its tuple of pg_index.
    unsafe {
        if !(*(*index).rd_index).indcheckxmin {
            return true;
        }
        let header = &*(*(*index).rd_indextuple).t_data;
        let frozen = u32::from(header.t_infomask) & pg_sys::HEAP_XMIN_FROZEN == pg_sys::HEAP_XMIN_FROZEN;
        frozen || pg_sys::TransactionIdPrecedes(header.t_choice.t_heap.t_xmin, pg_sys::TransactionXmin)
    }
}
