//! A window that slides: calls counted until they are older than its length and a margin.

use std::collections::VecDeque;

use super::window::{length, window_end};
use super::Per;
use crate::core::Micros;

/// Calls of this share of the window are kept as one entry, at the time of its latest: the memory of a window is
/// bounded whatever its limit, and a call is held back by at most this share longer.
const GRAIN: Micros = 500;

/// For the way from here to the provider, which is not equally long for every call (a new connection takes longer than
/// one that stands, a busy machine than an idle one): a fiftieth of the window, and no less than this. With 20 ms, two
/// busy cores and loopback, one call in a hundred was too early.
const LEAST_MARGIN: Micros = 100_000;

#[derive(Clone, Debug)]
struct Entry {
    first: Micros,
    last: Micros,
    calls: i64,
}

#[derive(Clone, Debug)]
pub(super) struct Sliding {
    per: Per,
    length: Micros,
    span: Micros,
    /// In the order of time; none is in the future of the latest `now`.
    entries: VecDeque<Entry>,
    total: i64,
}

impl Sliding {
    pub(super) fn new(per: Per) -> Self {
        let length = length(per).unwrap_or(Micros::MAX / 4);
        let span = length + (length / 50).max(LEAST_MARGIN);
        Sliding { per, length, span, entries: VecDeque::new(), total: 0 }
    }

    /// Takes a window of the ledger, its calls as late as they could have been.
    pub(super) fn restore(&mut self, window_start: Micros, spent: i64, now: Micros) {
        let latest = window_end(self.per, window_start).saturating_sub(1).min(now);
        if latest > now.saturating_sub(self.span) {
            // no limit is as high, and sums of these do not overflow
            let spent = spent.min(i64::from(u32::MAX));
            self.total = self.total.saturating_add(spent);
            self.entries.push_back(Entry { first: latest, last: latest, calls: spent });
        }
    }

    pub(super) fn spent(&mut self, now: Micros) -> i64 {
        self.advance(now);
        self.total
    }

    pub(super) fn add(&mut self, now: Micros, n: u32) {
        self.advance(now);
        let n = i64::from(n);
        self.total = self.total.saturating_add(n);
        match self.entries.back_mut() {
            Some(entry) if now.saturating_sub(entry.first) < self.length / GRAIN => {
                entry.last = now;
                entry.calls = entry.calls.saturating_add(n);
            }
            _ => self.entries.push_back(Entry { first: now, last: now, calls: n }),
        }
    }

    /// The calls added last have gone out only now.
    pub(super) fn went_out(&mut self, now: Micros) {
        if let Some(entry) = self.entries.back_mut() {
            entry.last = entry.last.max(now);
        }
    }

    /// When fewer than `max` calls are counted; `None` when it is so now.
    pub(super) fn frees_at(&mut self, now: Micros, max: u32) -> Option<Micros> {
        self.advance(now);
        let mut counted = self.total;
        let mut at = None;
        for entry in &self.entries {
            if counted < i64::from(max) {
                break;
            }
            counted = counted.saturating_sub(entry.calls);
            at = Some(entry.last.saturating_add(self.span));
        }
        at
    }

    /// Calls counted, start of the window, and when the last of them leaves it.
    pub(super) fn status(&self, now: Micros) -> (i64, Micros, Micros) {
        let since = now.saturating_sub(self.span);
        let counted = self.entries.iter().filter(|entry| entry.last > since);
        let spent = counted.map(|entry| entry.calls).fold(0, i64::saturating_add);
        let resets_at = match self.entries.back() {
            Some(entry) if spent > 0 => entry.last.min(now).saturating_add(self.span),
            _ => now,
        };
        (spent, now.saturating_sub(self.length), resets_at)
    }

    /// Lets calls leave that are too old. When the clock was set back, calls of the new future count as made now: they
    /// were made before, so this is the latest that they can be.
    fn advance(&mut self, now: Micros) {
        for entry in self.entries.iter_mut().rev().take_while(|entry| entry.last > now) {
            entry.last = now;
            entry.first = entry.first.min(now);
        }
        let since = now.saturating_sub(self.span);
        while self.entries.front().is_some_and(|entry| entry.last <= since) {
            let left = self.entries.pop_front().map_or(0, |entry| entry.calls);
            self.total = self.total.saturating_sub(left);
        }
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }
}
