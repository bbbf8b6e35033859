//! What processes tell each other of the disk cache: keys that were answered from files, which the worker of their database
//! takes over, and what is wrong with the directory.
//!
//! Contract: one LWLock guards it all, held for a scan of the ring at most. Keys are hints: where there is no room the oldest
//! one goes, and comes again with the next look-up. Without preloading there are no hints, and each session has its own
//! idea of what is wrong. The directory is one for the cluster, and so is its trouble.

use crate::core::{Micros, SECOND};
use crate::pg::convert::clock;
use crate::pg::shmem::Text;
use crate::pg::{gucs, wake};
use pgrx::lwlock::PgLwLock;
use pgrx::prelude::*;
use pgrx::{pg_shmem_init, PGRXSharedMemory};
use std::cell::RefCell;

/// Keys that wait to be taken over.
const TOLD: usize = 512;
/// A directory in trouble is tried again after this, by one process.
const TRY_AGAIN: Micros = 2 * SECOND;
/// The same trouble is logged again after this.
const SAY_AGAIN: Micros = 600 * SECOND;
/// At most one file that was passed over is logged in this time.
const SAY_FILE: Micros = 60 * SECOND;

/// What is done with the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Reading,
    Writing,
}

/// What is wrong, and since when; nothing when `since` is 0.
#[derive(Clone, Copy)]
pub struct Mishap {
    pub why: Text<256>,
    pub since: Micros,
    retry_at: Micros,
    said_at: Micros,
}

const NO_MISHAP: Mishap = Mishap { why: Text::EMPTY, since: 0, retry_at: 0, said_at: 0 };

#[derive(Clone, Copy)]
struct Mishaps {
    reading: Mishap,
    writing: Mishap,
    file_said_at: Micros,
}

const NO_MISHAPS: Mishaps = Mishaps { reading: NO_MISHAP, writing: NO_MISHAP, file_said_at: 0 };

#[derive(Clone, Copy)]
struct Told {
    /// 0 for none.
    database: u32,
    service: Text<64>,
    key: Text<512>,
}

#[derive(Clone, Copy)]
struct Shared {
    mishaps: Mishaps,
    /// Where the next key goes.
    next: usize,
    told: [Told; TOLD],
}

impl Default for Shared {
    fn default() -> Self {
        let nothing = Told { database: 0, service: Text::EMPTY, key: Text::EMPTY };
        Shared { mishaps: NO_MISHAPS, next: 0, told: [nothing; TOLD] }
    }
}

// SAFETY: plain values without pointers, guarded by the LWLock around them.
unsafe impl PGRXSharedMemory for Shared {}

// SAFETY: the name is used once.
static SHARED: PgLwLock<Shared> = unsafe { PgLwLock::new(c"enrichment_cache disk") };

thread_local! {
    static OWN: RefCell<Mishaps> = const { RefCell::new(NO_MISHAPS) };
}

/// Reserves the memory; only while the library is being preloaded.
pub fn init() {
    pg_shmem_init!(SHARED);
}

fn mishaps<T>(work: impl FnOnce(&mut Mishaps) -> T) -> T {
    if gucs::preloaded() {
        work(&mut SHARED.exclusive().mishaps)
    } else {
        OWN.with_borrow_mut(work)
    }
}

/// Tells the worker of a key that a file answered.
pub fn tell(service: &str, key: &str) {
    // SAFETY: a plain question to the server.
    if !gucs::preloaded() || unsafe { pg_sys::RecoveryInProgress() } {
        return;
    }
    let told = Told { database: wake::my_database(), service: Text::new(service), key: Text::new(key) };
    let first = {
        let mut shared = SHARED.exclusive();
        let mine = |one: &&Told| one.database == told.database;
        let same = |one: &Told| one.service.as_str() == service && one.key.as_str() == key;
        if shared.told.iter().filter(mine).any(same) {
            return;
        }
        let first = !shared.told.iter().any(|one| one.database == told.database);
        let at = shared.next;
        shared.told[at] = told;
        shared.next = (at + 1) % TOLD;
        first
    };
    if first {
        wake::worker();
    }
}

/// Takes the keys of this database that were told, with their services.
pub fn take_told() -> Vec<(String, String)> {
    if !gucs::preloaded() {
        return Vec::new();
    }
    let database = wake::my_database();
    if !SHARED.share().told.iter().any(|one| one.database == database) {
        return Vec::new();
    }
    let mut shared = SHARED.exclusive();
    let mine = shared.told.iter_mut().filter(|one| one.database == database);
    mine.map(|one| {
        one.database = 0;
        (one.service.as_str().to_string(), one.key.as_str().to_string())
    })
    .collect()
}

/// Whether the directory may be read: it is in no trouble, or it is time to try again, which one process does.
pub fn reading_again() -> bool {
    again(Side::Reading)
}

/// The same for writing.
pub fn writing_again() -> bool {
    again(Side::Writing)
}

fn again(side: Side) -> bool {
    // the usual case does not keep others out
    if gucs::preloaded() && of(&SHARED.share().mishaps, side).since == 0 {
        return true;
    }
    let now = clock();
    mishaps(|mishaps| {
        let mishap = of_mut(mishaps, side);
        let allowed = mishap.since == 0 || mishap.retry_at <= now;
        if allowed && mishap.since != 0 {
            mishap.retry_at = now + TRY_AGAIN;
        }
        allowed
    })
}

/// Notes that reading failed, or (`None`) went well.
pub fn read_trouble(why: Option<&str>) {
    note(Side::Reading, why);
}

/// Notes that writing failed, or (`None`) went well.
pub fn write_trouble(why: Option<&str>) {
    note(Side::Writing, why);
}

fn note(side: Side, why: Option<&str>) {
    if why.is_none() && gucs::preloaded() && of(&SHARED.share().mishaps, side).since == 0 {
        return;
    }
    let now = clock();
    let (was, say) = mishaps(|mishaps| {
        let mishap = of_mut(mishaps, side);
        let was = mishap.since;
        match why {
            None => *mishap = NO_MISHAP,
            Some(why) => {
                let say = was == 0 || mishap.said_at + SAY_AGAIN <= now;
                *mishap = Mishap {
                    why: Text::new(why),
                    since: if was == 0 { now } else { was },
                    retry_at: now + TRY_AGAIN,
                    said_at: if say { now } else { mishap.said_at },
                };
                return (was, say);
            }
        }
        (was, false)
    });
    match (why, side) {
        (Some(why), Side::Reading) if say => {
            pgrx::log!("enrichment_cache: WARNING: the disk cache cannot be read, the database answers alone: {why}");
        }
        (Some(why), Side::Writing) if say => pgrx::log!(
            "enrichment_cache: WARNING: the disk cache cannot be written, files wait until it can, the database is complete: {why}"
        ),
        (None, Side::Reading) if was != 0 => pgrx::log!("enrichment_cache: the disk cache is read again"),
        (None, Side::Writing) if was != 0 => pgrx::log!("enrichment_cache: the disk cache is written again"),
        _ => (),
    }
}

/// Notes that one file was passed over.
pub fn unreadable(why: &str) {
    let now = clock();
    let say = mishaps(|mishaps| {
        let say = mishaps.file_said_at + SAY_FILE <= now;
        if say {
            mishaps.file_said_at = now;
        }
        say
    });
    if say {
        pgrx::log!("enrichment_cache: a file of the disk cache is passed over: {why}");
    }
}

/// What is wrong with reading and with writing now.
pub fn troubles() -> [(Side, Mishap); 2] {
    mishaps(|mishaps| [(Side::Reading, mishaps.reading), (Side::Writing, mishaps.writing)])
}

fn of(mishaps: &Mishaps, side: Side) -> &Mishap {
    match side {
        Side::Reading => &mishaps.reading,
        Side::Writing => &mishaps.writing,
    }
}

fn of_mut(mishaps: &mut Mishaps, side: Side) -> &mut Mishap {
    match side {
        Side::Reading => &mut mishaps.reading,
        Side::Writing => &mut mishaps.writing,
    }
}
