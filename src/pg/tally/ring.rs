//! A bounded queue in shared memory: many sessions put in, one worker takes out, nobody waits and nobody locks.
//!
//! Contract: each cell has a number that says whose turn it is (Dmitry Vyukov's bounded queue). A cell at position p may
//! be written when its number is p, and read when it is p + 1; the reader then sets it to p + the number of cells. The
//! number is published last, with Release, and looked at first, with Acquire; everything else is Relaxed. A queue that is
//! full takes nothing more. A process that is killed in between would leave its cell unfinished, but then PostgreSQL
//! restarts all processes with new memory.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::*};

/// Most touched rows that wait for the worker.
pub const CELLS: usize = 8192;

/// Rows of one database that were looked up.
#[repr(C, align(64))]
pub struct Ring {
    /// Whose it is; 0 for nobody's.
    pub database: AtomicU32,
    tail: Line<AtomicU64>,
    head: Line<AtomicU64>,
    cells: [Cell; CELLS],
}

/// Alone in its line of the processor's cache.
#[repr(C, align(64))]
struct Line<T>(T);

#[repr(C)]
struct Cell {
    turn: AtomicU64,
    row: AtomicI64,
    at: AtomicI64,
    block: AtomicU32,
    hits: AtomicU32,
    database: AtomicU32,
}

/// A row that was looked up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touch {
    pub database: u32,
    pub row: i64,
    /// The page it stood in.
    pub block: u32,
    pub hits: u32,
    /// When, microseconds since 2000.
    pub at: i64,
}

impl Ring {
    /// Makes zeroed memory a queue.
    pub fn init(&self) {
        for (at, cell) in self.cells.iter().enumerate() {
            cell.turn.store(at as u64, Relaxed);
        }
    }

    /// Puts a row in; says how many wait now, or `None` when there is no room.
    pub fn push(&self, touch: Touch) -> Option<u64> {
        let mut place = self.tail.0.load(Relaxed);
        loop {
            let cell = &self.cells[place as usize % CELLS];
            match (cell.turn.load(Acquire).wrapping_sub(place)) as i64 {
                0 => match self.tail.0.compare_exchange_weak(place, place + 1, Relaxed, Relaxed) {
                    Ok(_) => {
                        cell.row.store(touch.row, Relaxed);
                        cell.at.store(touch.at, Relaxed);
                        cell.block.store(touch.block, Relaxed);
                        cell.hits.store(touch.hits, Relaxed);
                        cell.database.store(touch.database, Relaxed);
                        cell.turn.store(place + 1, Release);
                        return Some((place + 1).saturating_sub(self.head.0.load(Relaxed)));
                    }
                    Err(now) => place = now,
                },
                behind if behind < 0 => return None,
                _ => place = self.tail.0.load(Relaxed),
            }
        }
    }

    /// Takes the oldest row out; only the worker of the ring's database calls this.
    pub fn pop(&self) -> Option<Touch> {
        let place = self.head.0.load(Relaxed);
        let cell = &self.cells[place as usize % CELLS];
        if cell.turn.load(Acquire) != place + 1 {
            return None;
        }
        let touch = Touch {
            database: cell.database.load(Relaxed),
            row: cell.row.load(Relaxed),
            block: cell.block.load(Relaxed),
            hits: cell.hits.load(Relaxed),
            at: cell.at.load(Relaxed),
        };
        cell.turn.store(place + CELLS as u64, Release);
        self.head.0.store(place + 1, Relaxed);
        Some(touch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn ring() -> Box<Ring> {
        // SAFETY: zeroed atomics are valid, as in the server's fresh memory.
        let ring = unsafe { Box::<Ring>::new_zeroed().assume_init() };
        ring.init();
        ring
    }

    fn touch(row: i64) -> Touch {
        Touch { database: 1, row, block: row as u32 + 1, hits: row as u32 + 2, at: row + 3 }
    }

    #[test]
    fn rows_come_out_in_the_order_they_went_in_however_often_the_ring_goes_round() {
        let ring = ring();
        for round in 0..5 {
            for row in 0..CELLS as i64 {
                assert_eq!(ring.push(touch(round * 10_000 + row)), Some(row as u64 + 1));
            }
            assert_eq!(ring.push(touch(-1)), None, "a full ring takes nothing");
            for row in 0..CELLS as i64 {
                assert_eq!(ring.pop(), Some(touch(round * 10_000 + row)));
            }
            assert_eq!(ring.pop(), None, "an empty ring gives nothing");
        }
    }

    #[test]
    fn of_what_many_put_in_at_once_nothing_is_lost_doubled_or_torn() {
        let ring = ring();
        let (threads, each) = (4, 100_000);
        let refused = std::sync::atomic::AtomicU64::new(0);
        let left = std::sync::atomic::AtomicU64::new(threads);
        let mut seen: HashMap<i64, u32> = HashMap::new();
        std::thread::scope(|scope| {
            for thread in 0..threads as i64 {
                let (ring, refused, left) = (&ring, &refused, &left);
                scope.spawn(move || {
                    for n in 0..each {
                        if ring.push(touch(thread * each + n)).is_none() {
                            refused.fetch_add(1, Relaxed);
                        }
                    }
                    left.fetch_sub(1, Release);
                });
            }
            loop {
                let done = left.load(Acquire) == 0;
                while let Some(got) = ring.pop() {
                    assert_eq!(got, touch(got.row));
                    *seen.entry(got.row).or_default() += 1;
                }
                if done {
                    break;
                }
            }
        });
        assert!(seen.values().all(|times| *times == 1));
        assert_eq!(seen.len() as u64 + refused.load(Relaxed), threads * each as u64);
    }
}
