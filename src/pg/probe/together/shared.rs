//! What the processes of one parallel query remember together: answers by normal key, in memory that all of them have mapped.
//!
//! Contract: an entry is written before it is published and never changed, so whoever finds it may read it, and hand its answer out,
//! as long as it holds the memo. There is no lock: a bucket is the head of a chain, and entries are put before it by one atomic
//! exchange. Two processes that look up the same key at once leave two true entries. Entries lie close together, answers elsewhere,
//! so that finding one reads little memory. How often each was found every process counts for itself: a count in the entry would send its line
//! from one processor to the other. What finds no room is not remembered here. Where a piece of the memory is gone (see `arena`) its keys are
//! looked up again, and nobody says any more that a key that is not found is not in the table.

use super::arena::{Arena, Chunk, LINE};
use super::segment::Segment;
use crate::pg::probe::memo::{Answer, Row, LARGEST_ANSWER};
use crate::pg::tally;
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

const FEWEST_BUCKETS: u64 = 1024;
const MOST_BUCKETS: u64 = 1 << 24;
/// Pages that a process reads at once when all rows are brought in.
const PAGES: u32 = 64;

/// Numbers of entries that a process takes at once, and the cost of look-ups that it keeps to itself.
const AT_ONCE: u32 = 64;

/// What stands before the buckets. A bucket is the place of its first entry in lines of memory; 0 is none, as there the memory's own head stands.
#[repr(C)]
struct Head {
    buckets: u64,
    /// Of the hash, so that nobody can choose keys that fall into one bucket.
    seed: u64,
    written: Written,
    pass: Pass,
}

/// What look-ups change: a line of its own, as each of them reads the others.
#[repr(C, align(64))]
struct Written {
    /// Numbers of entries that are taken.
    entries: AtomicU32,
    /// What look-ups in the table have cost.
    spent: AtomicU64,
}

/// Of bringing all rows in: pages of the table, one more than there are; those that are taken; those that are read.
#[repr(C, align(64))]
struct Pass {
    pages: AtomicU32,
    taken: AtomicU32,
    read: AtomicU32,
    given_up: AtomicBool,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Entry {
    hash: u64,
    /// Where the answer lies; 0 if there is none.
    answer: u64,
    row: i64,
    block: u32,
    /// The next one of its bucket.
    next: u32,
    key_length: u32,
    /// Its number among all.
    number: u32,
    /// Whether it has a row, and so counts as a hit.
    hit: u32,
}

/// The memo as one process has it mapped.
pub struct SharedMemo {
    memory: Arena,
    hasher: foldhash::fast::FixedState,
    /// What this process has taken for entries and for answers and not yet filled.
    for_entries: Cell<Chunk>,
    for_answers: Cell<Chunk>,
    /// The same of numbers of entries: the next one and how many there are.
    numbers: Cell<(u32, u32)>,
    /// How often this process found each entry, and which ones.
    found: RefCell<Found>,
}

#[derive(Default)]
struct Found {
    /// By the entry's number.
    times: Vec<u32>,
    /// Their rows, and their numbers.
    rows: Vec<(Row, u32)>,
}

/// What is known of a key here.
pub enum Known {
    Answer(Answer),
    /// It is in no row either: all were brought in.
    Absent,
    Nothing,
}

impl SharedMemo {
    /// A new one for about so many rows, within `limit` bytes; `None` where there is not enough memory.
    pub fn new(rows: u64, limit: usize) -> Option<Self> {
        let most = (limit / 64).checked_ilog2().map_or(0, |bits| 1 << bits);
        let buckets = (rows / 2).next_power_of_two().clamp(FEWEST_BUCKETS, MOST_BUCKETS).min(most);
        let memory = Arena::new(size_of::<Head>() + buckets as usize * size_of::<AtomicU32>(), limit)?;
        // SAFETY: reserved for this, all zero, which is a value of each field; nobody else knows of it yet.
        unsafe {
            let head = &mut *memory.reserved().cast::<Head>();
            head.buckets = buckets;
            head.seed = foldhash::fast::RandomState::default().hash_one(rows);
        }
        Some(Self::mapped(memory))
    }

    /// The one that another process made; `None` when it is gone.
    pub fn of(handle: pg_sys::dsm_handle) -> Option<Self> {
        Arena::of(handle).map(Self::mapped)
    }

    fn mapped(memory: Arena) -> Self {
        // SAFETY: written before anybody else knew of it.
        let seed = unsafe { (*memory.reserved().cast::<Head>()).seed };
        SharedMemo {
            memory,
            hasher: foldhash::fast::FixedState::with_seed(seed),
            for_entries: Cell::default(),
            for_answers: Cell::default(),
            numbers: Cell::default(),
            found: RefCell::default(),
        }
    }

    pub fn segment(&self) -> Option<&Segment> {
        self.memory.first()
    }

    fn head(&self) -> &Head {
        // SAFETY: mapped as long as the memory is; what changes in it is atomic.
        unsafe { &*self.memory.reserved().cast() }
    }

    fn bucket(&self, hash: u64) -> &AtomicU32 {
        let head = self.head();
        let at = (hash & (head.buckets - 1)) as usize;
        // SAFETY: the buckets stand behind the head, a power of two of them.
        unsafe { &*(&raw const *head).add(1).cast::<AtomicU32>().add(at) }
    }

    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.finish()
    }

    /// What is known of a key in its normal form.
    #[inline]
    pub fn get(&self, key: &[u8]) -> Known {
        // asked first: an entry that comes later is then one that was there
        let all = self.is_complete();
        match self.find(self.hash(key), key) {
            Some(Some(entry)) => match self.answer(entry) {
                Some(answer) => {
                    self.count(entry);
                    Known::Answer(answer)
                }
                None => Known::Nothing,
            },
            Some(None) if all => Known::Absent,
            _ => Known::Nothing,
        }
    }

    /// The entry of a key; `None` when a part of its chain is gone.
    fn find(&self, hash: u64, key: &[u8]) -> Option<Option<&Entry>> {
        let mut place = self.bucket(hash).load(Acquire);
        while place != 0 {
            // SAFETY: a place of the chain leads to an entry, which stays as long as its piece is mapped.
            let entry = unsafe { &*self.memory.line(place)?.cast::<Entry>() };
            if entry.hash == hash && entry.key() == key {
                return Some(Some(entry));
            }
            place = entry.next;
        }
        Some(None)
    }

    fn answer(&self, entry: &Entry) -> Option<Answer> {
        let answer = if entry.answer == 0 { None } else { Some(self.memory.at(entry.answer)?) };
        let row = (entry.hit != 0).then_some(Row { id: entry.row, block: entry.block });
        Some(Answer { answer, row })
    }

    #[inline]
    fn count(&self, entry: &Entry) {
        let mut found = self.found.borrow_mut();
        let at = entry.number as usize;
        if at >= found.times.len() {
            found.times.resize((at + 1).next_power_of_two().max(FEWEST_BUCKETS as usize), 0);
        }
        found.times[at] += 1;
        if found.times[at] == 1 && entry.hit != 0 {
            found.rows.push((Row { id: entry.row, block: entry.block }, entry.number));
        }
    }

    /// Remembers an answer that was looked up just now, if there is room for it; returns it as it lies here.
    pub fn put(&self, key: &[u8], answer: Option<&[u8]>, row: Option<Row>) -> Option<Answer> {
        let entry = self.add(key, answer, row)?;
        self.count(entry);
        self.answer(entry)
    }

    /// Brings in a row that nobody has asked for yet; false when there is no room.
    pub fn bring_in(&self, key: &[u8], answer: Option<&[u8]>, row: Option<Row>) -> bool {
        matches!(self.find(self.hash(key), key), Some(Some(_))) || self.add(key, answer, row).is_some()
    }

    fn add(&self, key: &[u8], answer: Option<&[u8]>, row: Option<Row>) -> Option<&Entry> {
        let lies = match answer {
            Some(answer) if answer.len() > LARGEST_ANSWER => return None,
            Some(answer) => {
                let lies = self.memory.take(&self.for_answers, answer.len(), 8)?.bytes();
                // SAFETY: `take` gave this process so many bytes that nobody else has.
                unsafe { core::ptr::copy_nonoverlapping(answer.as_ptr(), self.memory.at(lies)?, answer.len()) };
                lies
            }
            None => 0,
        };
        let place = self.memory.take(&self.for_entries, size_of::<Entry>() + key.len(), LINE)?.lines();
        let entry = self.memory.line(place)?.cast::<Entry>();
        let hash = self.hash(key);
        let Row { id, block } = row.unwrap_or(Row { id: 0, block: 0 });
        let (key_length, hit) = (key.len() as u32, u32::from(row.is_some()));
        let number = self.number();
        let mut new = Entry { hash, answer: lies, row: id, block, next: 0, key_length, number, hit };
        // SAFETY: as above.
        unsafe { core::ptr::copy_nonoverlapping(key.as_ptr(), entry.add(1).cast(), key.len()) };
        let bucket = self.bucket(hash);
        new.next = bucket.load(Relaxed);
        loop {
            let next = new.next;
            // SAFETY: as above; it is published by the exchange, with everything before it.
            unsafe { entry.write(new) };
            match bucket.compare_exchange_weak(next, place, Release, Relaxed) {
                // SAFETY: never changed from here on.
                Ok(_) => return Some(unsafe { &*entry }),
                Err(other) => new.next = other,
            }
        }
    }

    /// A number for an entry that no other has. Some that were taken are never used.
    fn number(&self) -> u32 {
        let (next, left) = match self.numbers.get() {
            (_, 0) => (self.head().written.entries.fetch_add(AT_ONCE, Relaxed), AT_ONCE),
            some => some,
        };
        self.numbers.set((next + 1, left - 1));
        next
    }

    /// What look-ups of all have cost, as far as they have said so. `own` is what this one has not said yet; it says it when there is enough of it.
    pub fn spent(&self, own: &Cell<u64>) -> u64 {
        let spent = &self.head().written.spent;
        if own.get() < AT_ONCE.into() {
            return spent.load(Relaxed) + own.get();
        }
        let more = own.take();
        spent.fetch_add(more, Relaxed) + more
    }

    /// Pages of the table that this process is to bring in, of so many; `None` when others have the rest, or it was given up.
    pub fn next_pages(&self, pages: u32) -> Option<Range<u32>> {
        let pass = &self.head().pass;
        // who begins says how many there are: what came behind them later nobody of the query sees
        let _ = pass.pages.compare_exchange(0, pages.saturating_add(1), AcqRel, Acquire);
        let pages = pass.pages.load(Acquire) - 1;
        if pass.given_up.load(Relaxed) || pass.taken.load(Relaxed) >= pages {
            return None;
        }
        let start = pass.taken.fetch_add(PAGES, AcqRel);
        (start < pages).then(|| start..pages.min(start + PAGES))
    }

    /// Says that all rows of these pages are in here.
    pub fn have_read(&self, pages: Range<u32>) {
        self.head().pass.read.fetch_add(pages.len() as u32, Release);
    }

    /// Says that not all rows will be in here.
    pub fn give_up(&self) {
        self.head().pass.given_up.store(true, Relaxed);
    }

    fn is_complete(&self) -> bool {
        let pass = &self.head().pass;
        let pages = pass.pages.load(Relaxed);
        pages > 0 && pass.read.load(Acquire) == pages - 1 && !self.memory.is_torn()
    }
}

/// Reports which rows this process has looked up, and how often.
impl Drop for SharedMemo {
    fn drop(&mut self) {
        let Found { times, rows } = self.found.take();
        let mut touches = tally::Touches::default();
        for (row, number) in rows {
            touches.row(row.id, row.block, times[number as usize]);
        }
    }
}

impl Entry {
    fn key(&self) -> &[u8] {
        // SAFETY: the key stands right behind its entry.
        unsafe { core::slice::from_raw_parts((&raw const *self).add(1).cast(), self.key_length as usize) }
    }
}
