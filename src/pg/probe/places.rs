//! Where rows stood when they were last looked up, in shared memory: a look-up that knows its row's place goes straight
//! there and asks no index.
//!
//! Contract: a place is a hint. What stands there counts only when the look-up's snapshot sees it and it has the key: as a key is unique
//! in every snapshot, that is then its row. Anything else is found by the index, whose answer is the next hint. A
//! place is that of the index entry, so it outlives updates that leave the index alone. Reading and writing a hint is one
//! atomic load or store; two processes that write at once leave one of two true hints. SERIALIZABLE goes by the index, for its
//! predicate locks.

use super::server::RelationGetNumberOfBlocksInFork;
use crate::pg::areas::Part;
use crate::pg::gucs;
use pgrx::pg_sys;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering::*};

/// Hints that a key may stand in.
const WAYS: usize = 4;
/// A hint is tag, block and offset; 0 is none, as no row has offset 0.
const BITS_OF_OFFSET: u32 = 11;
const BITS_OF_PLACE: u32 = BITS_OF_OFFSET + 32;

type Bucket = [AtomicU64; WAYS];

static BUCKETS: AtomicPtr<Bucket> = AtomicPtr::new(core::ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// What is reserved of shared memory.
pub const PART: Part = Part { name: c"enrichment_cache places", size: || buckets() * size_of::<Bucket>(), take };

fn buckets() -> usize {
    gucs::lookup_cache_size() / size_of::<Bucket>()
}

unsafe fn take(memory: *mut u8, _fresh: bool) {
    COUNT.store(buckets(), Relaxed);
    BUCKETS.store(memory.cast(), Release);
}

/// What is remembered of one key of this database.
pub struct Place {
    bucket: &'static Bucket,
    /// Tells it from most other keys of the bucket.
    tag: u64,
    victim: usize,
}

impl Place {
    /// `None` where nothing is remembered.
    pub fn of(service: &str, key: &str) -> Option<Place> {
        let buckets = BUCKETS.load(Acquire);
        // SAFETY: a variable of this process.
        if buckets.is_null() || unsafe { pg_sys::XactIsoLevel } == pg_sys::XACT_SERIALIZABLE as i32 {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        // SAFETY: as above.
        hasher.write_u32(unsafe { pg_sys::MyDatabaseId }.into());
        hasher.write(service.as_bytes());
        hasher.write_u8(0);
        hasher.write(key.as_bytes());
        let hash = hasher.finish();
        let at = ((u128::from(hash) * COUNT.load(Relaxed) as u128) >> 64) as usize;
        // SAFETY: `at` is below the number of buckets, which stay mapped as long as the process lives.
        let bucket = unsafe { &*buckets.add(at) };
        let tag = hash & ((1 << (64 - BITS_OF_PLACE)) - 1);
        Some(Place { bucket, tag, victim: (hash >> (64 - BITS_OF_PLACE)) as usize % WAYS })
    }

    /// Where the key's row stood.
    pub fn known(&self) -> Option<pg_sys::ItemPointerData> {
        let hints = self.bucket.iter().map(|hint| hint.load(Relaxed));
        let hint = hints.into_iter().find(|hint| *hint != 0 && hint >> BITS_OF_PLACE == self.tag)?;
        let block = (hint >> BITS_OF_OFFSET) as u32;
        Some(pg_sys::ItemPointerData {
            ip_blkid: pg_sys::BlockIdData { bi_hi: (block >> 16) as u16, bi_lo: block as u16 },
            ip_posid: (hint & ((1 << BITS_OF_OFFSET) - 1)) as u16,
        })
    }

    /// Remembers where its row stands.
    pub fn note(&self, at: pg_sys::ItemPointerData) {
        if at.ip_posid == 0 || at.ip_posid >= 1 << BITS_OF_OFFSET {
            return;
        }
        let hint = self.tag << BITS_OF_PLACE | u64::from(block_of(&at)) << BITS_OF_OFFSET | u64::from(at.ip_posid);
        let known = |hint: &u64| *hint != 0 && hint >> BITS_OF_PLACE == self.tag;
        let mut room = self.victim;
        for (at, slot) in self.bucket.iter().enumerate() {
            let now = slot.load(Relaxed);
            if now == hint {
                return;
            }
            if known(&now) {
                room = at;
                break;
            }
            if now == 0 && self.bucket[room].load(Relaxed) != 0 {
                room = at;
            }
        }
        self.bucket[room].store(hint, Relaxed);
    }
}

/// The page of a place.
pub fn block_of(at: &pg_sys::ItemPointerData) -> u32 {
    u32::from(at.ip_blkid.bi_hi) << 16 | u32::from(at.ip_blkid.bi_lo)
}

/// Whether the table still has the page of a place: VACUUM cuts off what is empty at its end.
///
/// # Safety
/// The table is open and locked; an error of the server is not caught here.
pub unsafe fn exists(heap: pg_sys::Relation, at: &pg_sys::ItemPointerData) -> bool {
    let block = block_of(at);
    // SAFETY: the caller's claim. Nobody cuts the table as long as it is locked, and what was known of its length before the lock was
    // forgotten with the invalidation that comes with cutting it.
    unsafe {
        let files = (*heap).rd_smgr;
        let main = pg_sys::ForkNumber::MAIN_FORKNUM;
        if !files.is_null() {
            let known = (*files).smgr_cached_nblocks[main as usize];
            if known != pg_sys::InvalidBlockNumber && block < known {
                return true;
            }
        }
        block < RelationGetNumberOfBlocksInFork(heap, main)
    }
}
