//! Windows that stand in the calendar: calls counted per window.

use std::collections::BTreeMap;

use super::window::{window_end, window_start};
use super::Per;
use crate::core::Micros;

#[derive(Clone, Debug)]
pub(super) struct Fixed {
    per: Per,
    /// Calls by the start of their window: this one, the one before, and any later one that another server's clock or
    /// a clock since set back has seen.
    spent: BTreeMap<Micros, i64>,
}

impl Fixed {
    pub(super) fn new(per: Per) -> Self {
        Fixed { per, spent: BTreeMap::new() }
    }

    pub(super) fn restore(&mut self, start: Micros, spent: i64) {
        let window = self.spent.entry(window_start(self.per, start)).or_default();
        *window = window.saturating_add(spent);
    }

    pub(super) fn spent(&self, now: Micros) -> i64 {
        self.spent.get(&window_start(self.per, now)).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, now: Micros, n: u32) {
        let start = window_start(self.per, now);
        let window = self.spent.entry(start).or_default();
        *window = window.saturating_add(i64::from(n));
        let previous = window_start(self.per, start.saturating_sub(1));
        if self.spent.first_key_value().is_some_and(|(&oldest, _)| oldest < previous) {
            self.spent = self.spent.split_off(&previous);
        }
    }

    /// When fewer than `max` calls are counted; `None` when it is so now.
    pub(super) fn frees_at(&self, now: Micros, max: u32) -> Option<Micros> {
        let full = |at: Micros| self.spent(at) >= i64::from(max.max(1));
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

    /// Calls counted, start and end of the window.
    pub(super) fn status(&self, now: Micros) -> (i64, Micros, Micros) {
        (self.spent(now), window_start(self.per, now), window_end(self.per, now))
    }
}
