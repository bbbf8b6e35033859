//! A window that slides: calls counted until they are older than its length and a margin.

use super::window::{length, window_end};
use super::Per;
use crate::core::Micros;

/// Calls of this share of the window are kept as one entry, at the time of its latest: the memory of a window is
/// bounded whatever its limit, and a call is held back by at most this share longer.
const GRAIN: Micros = 64;

/// Enough for a window and its margin at that grain.
const ENTRIES: usize = 80;

/// For the way from here to the provider, which is not equally long for every call (a new connection takes longer than
/// one that stands, a busy machine than an idle one): a fiftieth of the window, and no less than this. With 20 ms, two
/// busy cores and loopback, one call in a hundred was too early.
const LEAST_MARGIN: Micros = 100_000;

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    first: Micros,
    last: Micros,
    calls: i64,
}

/// A plain value of fixed size, so that it can lie in shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sliding {
    per: Per,
    /// A ring in the order of time, from `oldest`; none is in the future of the latest `now`.
    entries: [Entry; ENTRIES],
    oldest: usize,
    count: usize,
    total: i64,
}

impl Sliding {
    pub(super) fn new(per: Per) -> Self {
        Sliding { per, entries: [Entry::default(); ENTRIES], oldest: 0, count: 0, total: 0 }
    }

    fn length(&self) -> Micros {
        length(self.per).unwrap_or(Micros::MAX / 4)
    }

    fn span(&self) -> Micros {
        self.length() + (self.length() / 50).max(LEAST_MARGIN)
    }

    /// Takes a window of a ledger, its calls as late as they could have been.
    pub(super) fn restore(&mut self, window_start: Micros, spent: i64, now: Micros) {
        let latest = window_end(self.per, window_start).saturating_sub(1).min(now);
        if latest > now.saturating_sub(self.span()) {
            // no limit is as high, and sums of these do not overflow
            self.put(latest, spent.min(i64::from(u32::MAX)));
        }
    }

    pub(super) fn spent(&mut self, now: Micros) -> i64 {
        self.advance(now);
        self.total
    }

    pub(super) fn add(&mut self, now: Micros, n: u32) {
        self.advance(now);
        self.put(now, i64::from(n));
    }

    /// Takes calls back that were added last and did not go out.
    pub(super) fn take_back(&mut self, n: u32) {
        let mut left = i64::from(n);
        while left > 0 {
            let Some(entry) = self.back_mut() else { return };
            let taken = left.min(entry.calls);
            entry.calls -= taken;
            let empty = entry.calls == 0;
            (left, self.total) = (left - taken, self.total - taken);
            self.count -= usize::from(empty);
        }
    }

    fn put(&mut self, at: Micros, calls: i64) {
        self.total = self.total.saturating_add(calls);
        let (grain, full) = (self.length() / GRAIN, self.count == ENTRIES);
        match self.back_mut() {
            // an entry in the past of another database's can only be counted with the later one
            Some(entry) if full || at.saturating_sub(entry.first) < grain => {
                entry.last = entry.last.max(at);
                entry.calls = entry.calls.saturating_add(calls);
            }
            _ => {
                self.count += 1;
                if let Some(entry) = self.back_mut() {
                    *entry = Entry { first: at, last: at, calls };
                }
            }
        }
    }

    fn back_mut(&mut self) -> Option<&mut Entry> {
        let last = self.count.checked_sub(1)?;
        self.entries.get_mut((self.oldest + last) % ENTRIES)
    }

    fn iter(&self) -> impl DoubleEndedIterator<Item = &Entry> {
        (0..self.count).map(|n| &self.entries[(self.oldest + n) % ENTRIES])
    }

    /// The calls added last have gone out only now.
    pub(super) fn went_out(&mut self, now: Micros) {
        if let Some(entry) = self.back_mut() {
            entry.last = entry.last.max(now);
        }
    }

    /// When fewer than `max` calls are counted; `None` when it is so now.
    pub(super) fn frees_at(&mut self, now: Micros, max: i64) -> Option<Micros> {
        self.advance(now);
        let mut counted = self.total;
        let mut at = None;
        for entry in self.iter() {
            if counted < max {
                break;
            }
            counted = counted.saturating_sub(entry.calls);
            at = Some(entry.last.saturating_add(self.span()));
        }
        at
    }

    /// When the next call may start so that the window's calls are equally far apart.
    pub(super) fn evenly_at(&self, now: Micros, max: i64, last: Micros) -> Micros {
        match last > now {
            true => now,
            false => last.saturating_add(self.span() / max.max(1)),
        }
    }

    /// Calls counted, start of the window, and when the last of them leaves it.
    pub(super) fn status(&self, now: Micros) -> (i64, Micros, Micros) {
        let since = now.saturating_sub(self.span());
        let counted = self.iter().filter(|entry| entry.last > since);
        let spent = counted.map(|entry| entry.calls).fold(0, i64::saturating_add);
        let resets_at = match self.iter().next_back() {
            Some(entry) if spent > 0 => entry.last.min(now).saturating_add(self.span()),
            _ => now,
        };
        (spent, now.saturating_sub(self.length()), resets_at)
    }

    /// Lets calls leave that are too old. When the clock was set back, calls of the new future count as made now: they
    /// were made before, so this is the latest that they can be.
    fn advance(&mut self, now: Micros) {
        for n in (0..self.count).rev() {
            let entry = &mut self.entries[(self.oldest + n) % ENTRIES];
            if entry.last <= now {
                break;
            }
            entry.last = now;
            entry.first = entry.first.min(now);
        }
        let since = now.saturating_sub(self.span());
        while self.count > 0 && self.entries[self.oldest].last <= since {
            self.total = self.total.saturating_sub(self.entries[self.oldest].calls);
            self.oldest = (self.oldest + 1) % ENTRIES;
            self.count -= 1;
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.count
    }
}
