//! What one call site of `enrich_get` remembers within a statement: answers by the key as it was given.
//!
//! Keys, answers and what belongs to them lie in blocks of a memory context that the statement's context takes along;
//! a table of pointers finds them. An answer that the query's other processes have too lies in memory that they share. A result is handed out as it lies here: whoever keeps it beyond the next row copies
//! it, as with any function's result. When the memory it may take is used up, the oldest block makes room.

use crate::pg::tally;
use hashbrown::HashTable;
use pgrx::pg_sys;
use std::hash::{BuildHasher, Hasher};

const SMALLEST_BLOCK: usize = 8 * 1024;
const LARGEST_BLOCK: usize = 16 * 1024 * 1024;
/// Larger answers are not remembered.
pub const LARGEST_ANSWER: usize = 1024 * 1024;
/// Blocks from this size on are worth the processor's large pages: what is looked up at random then misses its table of
/// pages less often.
const LARGE_PAGES_FROM: usize = 4 * 1024 * 1024;
const LARGE_PAGE: usize = 2 * 1024 * 1024;

/// What stands before key and answer in a block.
#[repr(C)]
struct Entry {
    hash: u64,
    /// The row's id; 0 for what has no row.
    row: i64,
    /// Null when there is none.
    answer: *mut u8,
    block: u32,
    /// Look-ups since the last time they were reported.
    hits: u32,
    key_length: u32,
    /// Bytes of the answer that lie behind the key.
    length: u32,
    /// Which service was asked, in the call site's own numbering.
    service: u32,
    /// Whether it counts as a hit: an answer, or the answer that nothing is known.
    hit: u32,
}

/// An entry begins with a line of the processor's cache: what is compared, up to an address of 16 bytes, lies in that one.
const LINE: usize = 64;

/// What is remembered of an answer beside its bytes.
#[derive(Clone, Copy)]
pub struct Row {
    pub id: i64,
    pub block: u32,
}

/// An answer where it lies, `None` if there is none; what came from a row is a hit.
#[derive(Clone, Copy)]
pub struct Answer {
    pub answer: Option<*mut u8>,
    pub row: Option<Row>,
}

struct Block {
    start: *mut u8,
    size: usize,
    used: usize,
}

/// A place of the table: the hash beside the pointer, so that growing it reads no entry.
#[derive(Clone, Copy)]
struct Known {
    hash: u64,
    entry: *mut Entry,
}

/// The memory of one call site.
pub struct Memo {
    memory: pg_sys::MemoryContext,
    table: HashTable<Known>,
    /// Services of which all rows are in here, one bit each.
    complete: u64,
    hasher: foldhash::fast::RandomState,
    /// In order of age, the one being filled last.
    blocks: std::collections::VecDeque<Block>,
    taken: usize,
}

impl Memo {
    /// Keeps its blocks in `memory`, which must outlive it.
    pub fn new(memory: pg_sys::MemoryContext) -> Self {
        Memo {
            memory,
            table: HashTable::new(),
            complete: 0,
            hasher: foldhash::fast::RandomState::default(),
            blocks: Default::default(),
            taken: 0,
        }
    }

    fn hash(&self, service: u32, key: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        hasher.write_u32(service);
        hasher.finish()
    }

    /// What is remembered of a key: its answer (`None`: it has none) and whether that is a hit, or nothing.
    #[inline]
    pub fn get(&mut self, service: u32, key: &[u8]) -> Option<(Option<pg_sys::Datum>, bool)> {
        let hash = self.hash(service, key);
        // SAFETY: the table points to entries of blocks that are in use.
        unsafe {
            let same =
                |known: &Known| known.hash == hash && (*known.entry).service == service && key_of(known.entry) == key;
            let entry = self.table.find(hash, same)?.entry;
            (*entry).hits += 1;
            let answer = (*entry).answer;
            Some(((!answer.is_null()).then(|| pg_sys::Datum::from(answer)), (*entry).hit != 0))
        }
    }

    /// Remembers an answer, if there is room for it within `limit` bytes; returns it as it lies here then. What came from
    /// a row is a hit.
    pub fn put(
        &mut self,
        (service, key): (u32, &[u8]),
        answer: Option<&[u8]>,
        row: Option<Row>,
        limit: usize,
    ) -> Option<Option<pg_sys::Datum>> {
        let size = line(size_of::<Entry>() + round(key.len()) + round(answer.map_or(0, <[u8]>::len)));
        // a large answer would push out many small ones
        if size > limit / 8 || size > LARGEST_ANSWER {
            return None;
        }
        let hash = self.hash(service, key);
        let start = self.place(size, limit)?;
        // SAFETY: as `write` says.
        Some(unsafe { self.write(start, hash, (service, key), answer, row, 1) })
    }

    /// Remembers where an answer lies that outlives what is remembered, and was counted for this look-up.
    pub fn point(&mut self, (service, key): (u32, &[u8]), found: Answer, limit: usize) {
        let size = line(size_of::<Entry>() + round(key.len()));
        let hash = self.hash(service, key);
        if size > limit / 8 {
            return;
        }
        let Some(start) = self.place(size, limit) else { return };
        // SAFETY: as `write` says; the answer is not copied, so it has no bytes here.
        unsafe {
            self.write(start, hash, (service, key), None, found.row, 0);
            (*start.cast::<Entry>()).answer = found.answer.unwrap_or_default();
        }
    }

    /// Brings in a row that nobody has asked for yet; false when there is no room without taking it from others.
    pub fn bring_in(
        &mut self,
        (service, key): (u32, &[u8]),
        answer: Option<&[u8]>,
        row: Option<Row>,
        limit: usize,
    ) -> bool {
        let size = line(size_of::<Entry>() + round(key.len()) + round(answer.map_or(0, <[u8]>::len)));
        if size > LARGEST_ANSWER {
            return false;
        }
        let hash = self.hash(service, key);
        // SAFETY: the table points to entries of blocks that are in use.
        let there = self.table.find(hash, |known| unsafe {
            known.hash == hash && (*known.entry).service == service && key_of(known.entry) == key
        });
        if there.is_some() {
            return true;
        }
        if self.blocks.back().is_none_or(|block| block.size - block.used < size) {
            let wanted = self.next_block(size, limit);
            if self.taken + self.table.allocation_size() + wanted > limit {
                return false;
            }
            self.allocate(wanted);
        }
        let Some(start) = self.place(size, limit) else { return false };
        // SAFETY: as `write` says.
        unsafe { self.write(start, hash, (service, key), answer, row, 0) };
        true
    }

    /// Says that all rows of a service are in here now.
    pub fn completed(&mut self, service: u32) {
        self.complete |= 1u64.checked_shl(service).unwrap_or(0);
    }

    /// Whether what is not in here is not in the table either.
    pub fn is_complete(&self, service: u32) -> bool {
        self.complete & 1u64.checked_shl(service).unwrap_or(0) != 0
    }

    /// Writes an entry into a place of its size, and makes it known.
    unsafe fn write(
        &mut self,
        start: *mut u8,
        hash: u64,
        (service, key): (u32, &[u8]),
        answer: Option<&[u8]>,
        row: Option<Row>,
        hits: u32,
    ) -> Option<pg_sys::Datum> {
        // SAFETY: `place` gives `size` bytes, aligned to 8.
        unsafe {
            let entry = start.cast::<Entry>();
            let Row { id, block } = row.unwrap_or(Row { id: 0, block: 0 });
            let length = answer.map_or(0, |answer| answer.len() as u32);
            let (key_length, hit) = (key.len() as u32, u32::from(row.is_some()));
            let own = start.add(size_of::<Entry>() + round(key.len()));
            let place = answer.map_or(core::ptr::null_mut(), |_| own);
            entry.write(Entry { hash, row: id, answer: place, block, hits, key_length, length, service, hit });
            core::ptr::copy_nonoverlapping(key.as_ptr(), entry.add(1).cast(), key.len());
            if let Some(answer) = answer {
                core::ptr::copy_nonoverlapping(answer.as_ptr(), own, answer.len());
            }
            self.table.insert_unique(hash, Known { hash, entry }, |known| known.hash);
            answer.map(|_| pg_sys::Datum::from(own))
        }
    }

    fn place(&mut self, size: usize, limit: usize) -> Option<*mut u8> {
        if self.blocks.back().is_none_or(|block| block.size - block.used < size) {
            self.add_block(size, limit)?;
        }
        let block = self.blocks.back_mut()?;
        // SAFETY: there are `size` bytes left behind what is used.
        let start = unsafe { block.start.add(block.used) };
        block.used += size;
        Some(start)
    }

    /// Takes a new block, each twice as large as the one before, or the oldest ones' memory when that would be too much.
    fn add_block(&mut self, size: usize, limit: usize) -> Option<()> {
        let wanted = self.next_block(size, limit);
        // the table of pointers counts too
        while self.taken + self.table.allocation_size() + wanted > limit {
            let oldest = self.blocks.pop_front()?;
            self.evict(&oldest);
            if oldest.size >= wanted {
                self.blocks.push_back(Block { used: oldest.start.align_offset(LINE), ..oldest });
                return Some(());
            }
            self.free(oldest);
        }
        self.allocate(wanted);
        Some(())
    }

    fn next_block(&self, size: usize, limit: usize) -> usize {
        let last = self.blocks.back().map_or(SMALLEST_BLOCK / 2, |block| block.size);
        (last * 2).min(LARGEST_BLOCK).min(limit / 8).max(size + LINE)
    }

    fn allocate(&mut self, wanted: usize) {
        // SAFETY: the context lives; not enough memory is an error of the statement. Advice changes no contents.
        let start = unsafe {
            let start = pg_sys::MemoryContextAlloc(self.memory, wanted).cast::<u8>();
            let skip = start.align_offset(LARGE_PAGE);
            if wanted >= LARGE_PAGES_FROM && skip < wanted {
                let whole = (wanted - skip) / LARGE_PAGE * LARGE_PAGE;
                libc::madvise(start.add(skip).cast(), whole, libc::MADV_HUGEPAGE);
            }
            start
        };
        self.taken += wanted;
        self.blocks.push_back(Block { start, size: wanted, used: start.align_offset(LINE) });
    }

    fn free(&mut self, block: Block) {
        self.taken -= block.size;
        // SAFETY: the block came from MemoryContextAlloc and nothing points to it any more.
        unsafe { pg_sys::pfree(block.start.cast()) };
    }

    fn evict(&mut self, block: &Block) {
        self.complete = 0;
        let table = &mut self.table;
        let mut touches = tally::Touches::default();
        each(block, |entry| {
            report(entry, &mut touches);
            // SAFETY: an entry of a block in use.
            let hash = unsafe { (*entry).hash };
            if let Ok(found) = table.find_entry(hash, |other| core::ptr::eq(other.entry, entry)) {
                found.remove();
            }
        });
    }

    /// Forgets everything; a little memory is kept for what comes next.
    pub fn clear(&mut self) {
        self.report();
        self.complete = 0;
        if self.table.capacity() > 1024 {
            self.table = HashTable::new();
        } else {
            self.table.clear();
        }
        while self.blocks.len() > 1 {
            if let Some(block) = self.blocks.pop_back() {
                self.free(block);
            }
        }
        self.blocks.iter_mut().for_each(|block| block.used = block.start.align_offset(LINE));
    }

    /// Reports which rows were looked up, and how often since the last time.
    pub fn report(&self) {
        let mut touches = tally::Touches::default();
        self.blocks.iter().for_each(|block| each(block, |entry| report(entry, &mut touches)));
    }
}

/// A multiple of a cache line.
fn line(size: usize) -> usize {
    size.next_multiple_of(LINE)
}

/// A multiple of 8, at which what follows is aligned.
fn round(size: usize) -> usize {
    size.next_multiple_of(8)
}

fn each(block: &Block, mut work: impl FnMut(*mut Entry)) {
    let mut at = block.start.align_offset(LINE);
    while at < block.used {
        // SAFETY: entries lie one behind the other, as `put` wrote them.
        unsafe {
            let entry = block.start.add(at).cast::<Entry>();
            let (key, answer) = ((*entry).key_length as usize, (*entry).length as usize);
            at += line(size_of::<Entry>() + round(key) + round(answer));
            work(entry);
        }
    }
}

fn report(entry: *mut Entry, touches: &mut tally::Touches) {
    // SAFETY: an entry of a block in use.
    let entry = unsafe { &mut *entry };
    if entry.row != 0 && entry.hits > 0 {
        touches.row(entry.row, entry.block, entry.hits);
    }
    entry.hits = 0;
}

unsafe fn key_of<'a>(entry: *mut Entry) -> &'a [u8] {
    // SAFETY: the key stands right behind its entry.
    unsafe { core::slice::from_raw_parts(entry.add(1).cast(), (*entry).key_length as usize) }
}
