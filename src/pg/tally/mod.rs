//! Counting look-ups without writing: hits and misses per service, and which rows were touched, in shared memory.
//!
//! Contract: a counter belongs to a database and a service; its place is taken under the lock of `shmem` and then only
//! added to. Where there is none left, a database counts the services that come later together, in one place of its own.
//! Hits and misses are never dropped; touched rows are, and counted, when the ring of their database is full or the database
//! has none because no worker serves it. The worker alone says what it has written to its tables (`folded`). When the library
//! was not preloaded there is no memory, and nothing is counted.

mod ring;

use crate::pg::areas::Part;
use crate::pg::lone::{self, Lone};
use crate::pg::{gucs, shmem, wake};
use ring::Ring;
pub use ring::Touch;
use shmem::Text;
use std::cell::RefCell;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};

/// Most pairs of database and service that are counted apart.
const COUNTERS: usize = 1024;
/// Places behind these, one for each of so many databases, for its services that found none.
const OTHERS: usize = 4 * shmem::DATABASES;
/// The last place of all, for databases that found not even such a one. Nobody writes it down: it could be anybody's.
const REST: usize = COUNTERS + OTHERS;
/// What those are called; no service can be.
const OTHER_SERVICES: &str = "(other services)";
const OTHER_DATABASES: &str = "(other databases)";
/// Most databases whose touched rows are remembered.
const RINGS: usize = 32;
/// Look-ups that a call site keeps to itself before it adds them.
const UNADDED: u32 = 1024;

#[repr(C)]
struct Area {
    places: [Place; REST + 1],
    rings: [Ring; RINGS],
}

#[repr(C, align(64))]
struct Place {
    database: AtomicU32,
    hits: AtomicU64,
    misses: AtomicU64,
    dropped: AtomicU64,
    /// Of the misses those that a file of the disk cache answered.
    files: AtomicU64,
    /// What of these the worker has written.
    folded: [AtomicU64; 4],
    name: std::cell::UnsafeCell<Text<64>>,
}

static AREA: AtomicPtr<Area> = AtomicPtr::new(core::ptr::null_mut());

thread_local! {
    static KNOWN: RefCell<Vec<(Box<str>, usize)>> = const { RefCell::new(Vec::new()) };
}

static MY_RING: Lone<usize> = Lone::new(0);

/// Rows that `touch` found no room for and has not added yet.
static UNTOLD: Lone<u32> = Lone::new(0);

/// What is reserved of shared memory.
pub const PART: Part = Part { name: c"enrichment_cache look-ups", size: size_of::<Area>, take };

unsafe fn take(memory: *mut u8, fresh: bool) {
    let area = memory.cast::<Area>();
    if fresh {
        // SAFETY: memory of this size, all zero, which is a value of each of its fields.
        unsafe { (*area).rings.iter().for_each(Ring::init) };
    }
    AREA.store(area, Release);
}

fn area() -> Option<&'static Area> {
    // SAFETY: null, or shared memory that stays mapped as long as the process lives; all that changes in it is atomic,
    // or written before it is published under a lock.
    unsafe { AREA.load(Acquire).as_ref() }
}

/// The look-ups of one service at one call site, on their way to the shared counter.
pub struct Counter {
    place: Option<usize>,
    hits: u32,
    misses: u32,
    files: u32,
}

impl Counter {
    /// The counter of a service of this database; one that counts nothing when look-ups are not tracked.
    pub fn of(service: &str) -> Self {
        let place = (gucs::track_lookups() && area().is_some()).then(|| place_of(service));
        Counter { place, hits: 0, misses: 0, files: 0 }
    }

    #[inline]
    pub fn count(&mut self, hit: bool) {
        if hit {
            self.hits += 1;
        } else {
            self.misses += 1;
        }
        if self.hits + self.misses >= UNADDED {
            self.add();
        }
    }

    /// Counts a miss that a file answered.
    pub fn count_file(&mut self) {
        self.files += 1;
        self.count(false);
    }

    fn add(&mut self) {
        if let (Some(at), Some(area)) = (self.place, area()) {
            let place = &area.places[at];
            // sessions that count at the same time hand this line to each other: no more often than there is something to add
            if self.hits > 0 {
                place.hits.fetch_add(self.hits.into(), Relaxed);
            }
            if self.misses > 0 {
                place.misses.fetch_add(self.misses.into(), Relaxed);
            }
            if self.files > 0 {
                place.files.fetch_add(self.files.into(), Relaxed);
            }
        }
        (self.hits, self.misses, self.files) = (0, 0, 0);
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.add();
    }
}

/// The place of a service of this database, taken if it has none.
fn place_of(service: &str) -> usize {
    let known = KNOWN.with(|known| known.borrow().iter().find(|(name, _)| **name == *service).map(|(_, at)| *at));
    known.unwrap_or_else(|| {
        let at = take_place(service);
        KNOWN.with(|known| known.borrow_mut().push((service.into(), at)));
        at
    })
}

fn take_place(service: &str) -> usize {
    let Some(area) = area() else { return REST };
    let taken = shmem::write(|_| {
        let own = place_among(area, 0..COUNTERS, service);
        own.or_else(|| place_among(area, COUNTERS..REST, OTHER_SERVICES))
    });
    taken.flatten().unwrap_or(REST)
}

/// The place of this name among some, or a free one, which becomes it. The caller holds the lock of `shmem`.
fn place_among(area: &Area, some: std::ops::Range<usize>, service: &str) -> Option<usize> {
    let database = wake::my_database();
    let ours = |at: &usize| area.places[*at].database.load(Acquire) == database && name(&area.places[*at]) == service;
    let free = |at: &usize| area.places[*at].database.load(Acquire) == 0;
    some.clone().find(ours).or_else(|| {
        let at = some.clone().find(free)?;
        let place = &area.places[at];
        for counter in [&place.hits, &place.misses, &place.dropped, &place.files].into_iter().chain(&place.folded) {
            counter.store(0, Relaxed);
        }
        // SAFETY: nobody reads the name of a place without a database, and the lock keeps other writers out.
        unsafe { *place.name.get() = Text::new(service) };
        place.database.store(database, Release);
        Some(at)
    })
}

fn name(place: &Place) -> &str {
    // SAFETY: written before the place was published, and not again while it has a database.
    unsafe { (*place.name.get()).as_str() }
}

/// Notes that a row of this database's cache was looked up, in a transaction whose end is told of with [`end`].
pub fn touch(row: i64, block: u32, hits: u32) {
    let mut touches = Touches::default();
    touches.row(row, block, hits);
    if std::mem::take(&mut touches.dropped) > 0 {
        // as counters: processes that look up at the same time would hand the line to each other for each row
        UNTOLD.set(UNTOLD.get() + 1);
        if UNTOLD.get() >= UNADDED {
            end();
        }
    }
}

/// A transaction ends: what it counted and has not added yet is added.
pub fn end() {
    if let (1.., Some(area)) = (UNTOLD.get(), area()) {
        drop_some(area, UNTOLD.get().into());
        UNTOLD.set(0);
    }
}

/// Many rows that were looked up, noted one after the other: from the first that finds no room on, the rest is only counted.
#[derive(Default)]
pub struct Touches {
    dropped: u64,
}

impl Touches {
    pub fn row(&mut self, row: i64, block: u32, hits: u32) {
        if self.dropped > 0 {
            self.dropped += 1;
            return;
        }
        let Some(area) = area() else { return };
        if !gucs::track_lookups() {
            return;
        }
        let database = wake::my_database();
        let at = lone::statement_start();
        let waiting = ring_of(area, database).and_then(|ring| ring.push(Touch { database, row, block, hits, at }));
        match waiting {
            // once on the way up: the worker empties it before it is full
            Some(waiting) if waiting as usize == ring::CELLS / 2 => wake::worker(),
            Some(_) => (),
            None => self.dropped = 1,
        }
    }
}

impl Drop for Touches {
    fn drop(&mut self) {
        if let (1.., Some(area)) = (self.dropped, area()) {
            drop_some(area, self.dropped);
        }
    }
}

fn ring_of(area: &Area, database: u32) -> Option<&Ring> {
    let ours = |ring: &Ring| ring.database.load(Acquire) == database;
    let last = &area.rings[MY_RING.get()];
    if ours(last) {
        return Some(last);
    }
    let at = area.rings.iter().position(ours)?;
    MY_RING.set(at);
    Some(&area.rings[at])
}

/// Dropped touches are counted where the database's first counter is: they say nothing of a service.
fn drop_some(area: &Area, rows: u64) {
    let database = wake::my_database();
    let place = area.places.iter().find(|place| place.database.load(Relaxed) == database);
    place.unwrap_or(&area.places[REST]).dropped.fetch_add(rows, Relaxed);
}

/// Look-ups of a service that are not in the tables yet.
pub struct Unfolded {
    pub service: String,
    pub hits: u64,
    pub misses: u64,
    pub dropped: u64,
    pub files: u64,
    at: usize,
}

impl Unfolded {
    fn is_any(&self) -> bool {
        self.hits + self.misses + self.dropped > 0
    }
}

/// What was counted in this database since the worker last wrote it down; nothing of services for which that is nothing.
pub fn unfolded() -> Vec<Unfolded> {
    let Some(area) = area() else { return Vec::new() };
    let database = wake::my_database();
    let ours = area.places.iter().enumerate().filter(|(_, place)| place.database.load(Acquire) == database);
    ours.map(|(at, place)| unfolded_of(place, at, name(place))).filter(Unfolded::is_any).collect()
}

/// What is counted together for databases that found no place, this one among them or not; nothing as a rule.
pub fn of_other_databases() -> Option<Unfolded> {
    Some(unfolded_of(&area()?.places[REST], REST, OTHER_DATABASES)).filter(Unfolded::is_any)
}

fn unfolded_of(place: &Place, at: usize, name: &str) -> Unfolded {
    let since = |counter: &AtomicU64, folded: &AtomicU64| counter.load(Relaxed) - folded.load(Relaxed);
    Unfolded {
        service: name.to_string(),
        hits: since(&place.hits, &place.folded[0]),
        misses: since(&place.misses, &place.folded[1]),
        dropped: since(&place.dropped, &place.folded[2]),
        files: since(&place.files, &place.folded[3]),
        at,
    }
}

/// The worker has written these.
pub fn fold(written: &[Unfolded]) {
    let Some(area) = area() else { return };
    for unfolded in written {
        let folded = &area.places[unfolded.at].folded;
        for (counter, count) in folded.iter().zip([unfolded.hits, unfolded.misses, unfolded.dropped, unfolded.files]) {
            counter.fetch_add(count, Relaxed);
        }
    }
}

/// The worker of this database begins: touched rows are remembered from now on, if there is a ring left.
pub fn serve() {
    let (Some(area), database) = (area(), wake::my_database()) else { return };
    if ring_of(area, database).is_none() {
        let free = |ring: &&Ring| ring.database.compare_exchange(0, database, AcqRel, Relaxed).is_ok();
        let _ = area.rings.iter().find(free);
    }
}

/// The worker ends for good: another database may have the ring.
pub fn leave() {
    if let Some(ring) = area().and_then(|area| ring_of(area, wake::my_database())) {
        ring.database.store(0, Release);
    }
}

/// Takes at most `most` touched rows of this database out of its ring.
pub fn touched(most: usize) -> Vec<Touch> {
    let database = wake::my_database();
    let Some(ring) = area().and_then(|area| ring_of(area, database)) else { return Vec::new() };
    let taken = std::iter::from_fn(|| ring.pop()).take(most);
    // one that was on its way when the ring changed hands is somebody else's
    taken.filter(|touch| touch.database == database).collect()
}

/// Touched rows that the worker could not write down.
pub fn dropped(rows: u64) {
    if let Some(area) = area() {
        drop_some(area, rows);
    }
}

/// A database is gone: its counters and its ring are free. The caller holds the lock of `shmem`.
pub fn forget_database(database: u32) {
    let Some(area) = area() else { return };
    area.places.iter().filter(|place| place.database.load(Relaxed) == database && database != 0).for_each(|place| {
        place.database.store(0, Release);
    });
    if let Some(ring) = area.rings.iter().find(|ring| ring.database.load(Relaxed) == database && database != 0) {
        ring.database.store(0, Release);
    }
}
