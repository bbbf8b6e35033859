//! Windows that stand in the calendar: calls counted per window.

use super::window::{window_end, window_start};
use super::Per;
use crate::core::Micros;

/// This window, the one before, and later ones that another server's clock or a clock since set back has seen.
const KEPT: usize = 4;

#[derive(Clone, Copy, Debug)]
struct Window {
    start: Micros,
    /// Calls of all ledgers that were read, and those since.
    calls: i64,
    /// What one ledger knew of all others together, and the calls since.
    least: i64,
}

impl Window {
    fn spent(&self) -> i64 {
        self.calls.max(self.least)
    }
}

const NONE: Window = Window { start: Micros::MIN, calls: 0, least: 0 };

/// A plain value of fixed size, so that it can lie in shared memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fixed {
    per: Per,
    windows: [Window; KEPT],
}

impl Fixed {
    pub(super) fn new(per: Per) -> Self {
        Fixed { per, windows: [NONE; KEPT] }
    }

    /// Takes one ledger's calls in a window, and what it knew of all ledgers' calls.
    pub(super) fn restore(&mut self, start: Micros, spent: i64, by_all: i64) {
        if let Some(window) = self.window(window_start(self.per, start)) {
            window.calls = window.calls.saturating_add(spent);
            window.least = window.least.max(by_all);
        }
    }

    pub(super) fn spent(&self, now: Micros) -> i64 {
        let start = window_start(self.per, now);
        self.windows.iter().find(|window| window.start == start).map_or(0, Window::spent)
    }

    pub(super) fn add(&mut self, now: Micros, n: i64) {
        if let Some(window) = self.window(window_start(self.per, now)) {
            window.calls = window.calls.saturating_add(n).max(0);
            window.least = window.least.saturating_add(n).max(0);
        }
    }

    /// The place of a window, taken from the oldest if need be; `None` for one that is older than all.
    fn window(&mut self, start: Micros) -> Option<&mut Window> {
        let known = self.windows.iter().position(|window| window.start == start);
        let at = known.or_else(|| {
            let (at, oldest) = self.windows.iter().enumerate().min_by_key(|(_, window)| window.start)?;
            (oldest.start < start).then_some(at)
        })?;
        if known.is_none() {
            self.windows[at] = Window { start, ..NONE };
        }
        Some(&mut self.windows[at])
    }

    /// When fewer than `max` calls are counted; `None` when it is so now.
    pub(super) fn frees_at(&self, now: Micros, max: i64) -> Option<Micros> {
        let full = |at: Micros| self.spent(at) >= max.max(1);
        let mut at = now;
        while full(at) {
            let end = window_end(self.per, at);
            if end <= at {
                return Some(end);
            }
            at = end;
        }
        (at != now).then_some(at)
    }

    /// When the next call may start so that what is left of the window's calls spreads evenly over what is left of the
    /// window after the last call.
    pub(super) fn evenly_at(&self, now: Micros, max: i64, last: Micros) -> Micros {
        let (start, end) = (window_start(self.per, now), window_end(self.per, now));
        if last < start || last > now {
            return now;
        }
        let left = max.saturating_sub(self.spent(now)).max(0);
        last.saturating_add(end.saturating_sub(last) / left.saturating_add(1))
    }

    /// Calls counted, start and end of the window.
    pub(super) fn status(&self, now: Micros) -> (i64, Micros, Micros) {
        (self.spent(now), window_start(self.per, now), window_end(self.per, now))
    }
}
