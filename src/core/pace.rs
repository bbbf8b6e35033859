//! How fast something goes on, of late.

use super::{Micros, SECOND};

/// Shorter spans say little.
const SPAN: Micros = SECOND / 10;

/// Events a second, the half of which is the last tenth of a second, a quarter the one before, and so on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    since: Option<Micros>,
    counted: usize,
    per_second: f64,
}

impl Pace {
    /// Counts events that ended by `now`.
    pub fn count(&mut self, events: usize, now: Micros) {
        let since = *self.since.get_or_insert(now);
        self.counted += events;
        let span = now - since;
        // a clock that was set back begins anew
        if !(0..SPAN).contains(&span) {
            let rate = if span > 0 { self.counted as f64 * SECOND as f64 / span as f64 } else { 0.0 };
            *self = Pace { since: Some(now), counted: 0, per_second: (self.per_second + rate) / 2.0 };
        }
    }

    /// So many come in a span of this length.
    pub fn within(&self, span: Micros) -> usize {
        (self.per_second * span as f64 / SECOND as f64).ceil() as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_is_that_of_late() {
        let mut pace = Pace::default();
        assert_eq!(pace.within(SECOND), 0);
        let mut now = 7 * SECOND;
        for _ in 0..200 {
            pace.count(10, now);
            now += SECOND / 100;
        }
        let seen = pace.within(SECOND);
        assert!((990..=1010).contains(&seen), "{seen} of a thousand a second");
        assert!((248..=253).contains(&pace.within(SECOND / 4)));
        // a long rest
        now += 60 * SECOND;
        pace.count(0, now);
        assert!(pace.within(SECOND) <= 505);
        for _ in 0..20 {
            now += SECOND / 5;
            pace.count(0, now);
        }
        assert!(pace.within(SECOND) <= 1);
    }

    #[test]
    fn a_clock_that_is_set_back_does_no_harm() {
        let mut pace = Pace::default();
        pace.count(5, 100 * SECOND);
        pace.count(5, 1);
        pace.count(50, 1 + SECOND);
        assert_eq!(pace.within(SECOND), 25);
    }
}
