//! Memory that several processes fill: pieces of dynamic shared memory, of which each process takes some at a time.
//!
//! Contract: what is taken belongs to the process that took it, until it publishes where it lies; nothing is given back before the whole is.
//! A place is a piece and an offset in it, the same in every process. Pieces come as they are needed, each made by one process, in good time; a
//! piece that nobody has mapped any more is gone, and with it what lay in it.

use super::segment::Segment;
use pgrx::pg_sys;
use std::cell::{Cell, OnceCell};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*};

/// Most pieces.
const PIECES: usize = 16;
const FIRST: usize = 1024 * 1024;
const LARGEST: usize = 64 * 1024 * 1024;
/// What a process takes at once.
const CHUNK: usize = 64 * 1024;
/// A line of the processor's cache.
pub const LINE: usize = 64;
const BITS_OF_OFFSET: u32 = 40;
const BITS_OF_LINES: u32 = 28;

/// What stands at the start of the first piece.
#[repr(C, align(64))]
struct Head {
    limit: u64,
    handles: [AtomicU32; PIECES],
    sizes: [AtomicU64; PIECES],
    used: [AtomicU64; PIECES],
    /// The piece that is being filled.
    last: AtomicU32,
    growing: AtomicBool,
    full: AtomicBool,
}

/// The memory as one process has it mapped.
pub struct Arena {
    pieces: [OnceCell<Option<Segment>>; PIECES],
    head: *const Head,
    /// Whether a piece could not be mapped any more.
    torn: Cell<bool>,
}

/// What one process has taken and not yet filled.
#[derive(Clone, Copy, Default)]
pub struct Chunk {
    piece: usize,
    at: usize,
    end: usize,
}

impl Arena {
    /// New memory with `reserved` bytes for whoever wants them, all zero, and `limit` in all; `None` where there is not enough.
    pub fn new(reserved: usize, limit: usize) -> Option<Self> {
        let start = (size_of::<Head>() + reserved).next_multiple_of(LINE);
        if start + FIRST > limit {
            return None;
        }
        let segment = Segment::new(start + FIRST)?;
        // SAFETY: new memory of at least this size, all zero, which is a value of each field; nobody else knows of it yet.
        unsafe {
            let head = &mut *segment.start.cast::<Head>();
            head.limit = limit as u64;
            head.sizes[0] = AtomicU64::new((start + FIRST) as u64);
            head.used[0] = AtomicU64::new(start as u64);
        }
        Some(Self::mapped(segment))
    }

    /// That of another process; `None` when it is gone.
    pub fn of(handle: pg_sys::dsm_handle) -> Option<Self> {
        Segment::of(handle).map(Self::mapped)
    }

    fn mapped(segment: Segment) -> Self {
        let head = segment.start.cast();
        let pieces = [const { OnceCell::new() }; PIECES];
        let _ = pieces[0].set(Some(segment));
        Arena { pieces, head, torn: Cell::new(false) }
    }

    /// The first piece, by which others find it.
    pub fn first(&self) -> Option<&Segment> {
        self.pieces[0].get()?.as_ref()
    }

    fn head(&self) -> &Head {
        // SAFETY: the first piece is mapped as long as this lives; what changes in it is atomic.
        unsafe { &*self.head }
    }

    /// The bytes that were reserved, aligned to a line.
    pub fn reserved(&self) -> *mut u8 {
        // SAFETY: they stand behind the head.
        unsafe { self.head.add(1).cast_mut().cast() }
    }

    /// Whether something that was published here could not be reached.
    pub fn is_torn(&self) -> bool {
        self.torn.get()
    }

    /// The start of a piece, mapped now if it was not.
    fn piece(&self, at: usize) -> Option<*mut u8> {
        let map = || Segment::of(self.head().handles[at].load(Acquire));
        let start = self.pieces.get(at)?.get_or_init(map).as_ref().map(|piece| piece.start);
        if start.is_none() {
            self.torn.set(true);
        }
        start
    }

    /// What lies at a place in bytes, which somebody published.
    pub fn at(&self, place: u64) -> Option<*mut u8> {
        let start = self.piece((place >> BITS_OF_OFFSET) as usize)?;
        // SAFETY: places are published after what they lead to.
        Some(unsafe { start.add((place & ((1 << BITS_OF_OFFSET) - 1)) as usize) })
    }

    /// What lies at a place in lines.
    pub fn line(&self, place: u32) -> Option<*mut u8> {
        let start = self.piece((place >> BITS_OF_LINES) as usize)?;
        // SAFETY: as above.
        Some(unsafe { start.add((place & ((1 << BITS_OF_LINES) - 1)) as usize * LINE) })
    }

    /// Bytes for this process alone, of those that it has in `chunk` or takes now; `None` when there is no more room.
    pub fn take(&self, chunk: &Cell<Chunk>, size: usize, align: usize) -> Option<Chunk> {
        let size = size.next_multiple_of(align);
        let mut rest = chunk.get();
        if rest.end - rest.at < size {
            if size > CHUNK / 4 {
                return self.take_anew(size.next_multiple_of(LINE));
            }
            rest = self.take_anew(CHUNK)?;
        }
        chunk.set(Chunk { at: rest.at + size, ..rest });
        Some(rest)
    }

    fn take_anew(&self, size: usize) -> Option<Chunk> {
        let head = self.head();
        loop {
            let last = head.last.load(Acquire) as usize;
            self.piece(last)?;
            let at = head.used[last].fetch_add(size as u64, Relaxed) as usize;
            let (end, all) = (at + size, head.sizes[last].load(Relaxed) as usize);
            if end <= all {
                // in good time, so that nobody has to wait for it
                let soon = all - all / 4;
                if at < soon && soon <= end {
                    self.has_piece(last + 1, size, false);
                }
                return Some(Chunk { piece: last, at, end });
            }
            if !self.has_piece(last + 1, size, true) {
                return None;
            }
            let _ = head.last.compare_exchange(last as u32, last as u32 + 1, AcqRel, Relaxed);
        }
    }

    /// Whether there is such a piece; it is made if not, by one process. Others wait for it if they want to.
    fn has_piece(&self, number: usize, least: usize, wait: bool) -> bool {
        let head = self.head();
        loop {
            if number >= PIECES || head.full.load(Relaxed) {
                return false;
            }
            let there = || head.handles[number].load(Acquire) != 0;
            if there() {
                return true;
            }
            if !head.growing.swap(true, Acquire) {
                let made = there() || self.make_piece(number, least).is_some();
                head.full.store(!made, Relaxed);
                head.growing.store(false, Release);
                return made;
            }
            if !wait {
                return false;
            }
            pgrx::check_for_interrupts!();
            std::thread::yield_now();
        }
    }

    fn make_piece(&self, number: usize, least: usize) -> Option<()> {
        let head = self.head();
        let taken: u64 = head.sizes.iter().map(|size| size.load(Relaxed)).sum();
        let left = (head.limit.saturating_sub(taken) as usize).min(LINE << BITS_OF_LINES);
        let largest = LARGEST.max(head.limit as usize / 8);
        let wanted = (2 * head.sizes[number - 1].load(Relaxed) as usize).min(largest).max(least).min(left);
        if wanted < least {
            return None;
        }
        let segment = Segment::new(wanted)?;
        head.sizes[number].store(wanted as u64, Relaxed);
        let handle = segment.handle();
        self.pieces[number].set(Some(segment)).ok()?;
        head.handles[number].store(handle, Release);
        Some(())
    }
}

impl Chunk {
    /// Its start as a place in bytes.
    pub fn bytes(self) -> u64 {
        (self.piece as u64) << BITS_OF_OFFSET | self.at as u64
    }

    /// Its start as a place in lines, for what was taken in lines.
    pub fn lines(self) -> u32 {
        (self.piece as u32) << BITS_OF_LINES | (self.at / LINE) as u32
    }
}
