//! How fast something goes on, of late, and how far ahead of it more is to be fetched.

use super::{Micros, SECOND};

/// Shorter spans say little.
const SPAN: Micros = SECOND / 10;
/// Where nothing is known yet, as many events in as short a span say enough.
const FIRST_SPAN: Micros = SPAN / 5;
const FIRST_EVENTS: usize = 20;
/// The calls of this time are claimed ahead: threads must not run dry while answers are stored, and the longest that a batch of them
/// takes is when the index of payloads merges what is pending.
const AHEAD: Micros = SECOND / 4;
/// Most requests of a service that are claimed ahead of the threads that will call.
const MOST_AHEAD: usize = 2000;
/// As many answers are stored in one go, however slow the pace.
const AT_ONCE: usize = 400;

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
        // less than an event a span is as good as nothing
        let first = self.per_second * (SPAN as f64) < SECOND as f64 && self.counted >= FIRST_EVENTS;
        let least = if first { FIRST_SPAN } else { SPAN };
        // a clock that was set back begins anew
        if !(0..least).contains(&span) {
            let rate = if span > 0 { self.counted as f64 * SECOND as f64 / span as f64 } else { 0.0 };
            let former = if first { 0.0 } else { 0.5f64.powf(span.max(SPAN) as f64 / SPAN as f64) };
            let per_second = self.per_second * former + rate * (1.0 - former);
            *self = Pace { since: Some(now), counted: 0, per_second };
        }
    }

    /// So many come in a span of this length.
    pub fn within(&self, span: Micros) -> usize {
        (self.per_second * span as f64 / SECOND as f64).ceil() as usize
    }

    /// How many requests to claim where no limit counts, if these are the ends of calls: for the threads that have none, `at_once`,
    /// and for a while ahead. `waiting` are claimed and have no thread, `unstored` are answers that are still to be stored: while
    /// these are more than a batch and more than what comes in that while, it is not the threads that more has to be found for.
    pub fn to_claim(&self, at_once: usize, waiting: usize, unstored: usize) -> usize {
        let ahead = self.within(AHEAD).min(MOST_AHEAD);
        let behind = unstored.saturating_sub(ahead.max(AT_ONCE));
        let wanted = (at_once + ahead).saturating_sub(waiting + behind);
        // a few at a time cost as much as many; at any time three quarters of the while are there
        let few = wanted < ahead / 4 && (at_once <= waiting || behind > 0);
        if few {
            0
        } else {
            wanted
        }
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
        assert_eq!(pace.within(SECOND), 50);
    }

    #[test]
    fn the_first_events_tell_the_pace_at_once_and_after_a_long_rest_again() {
        let mut pace = Pace::default();
        pace.count(0, SECOND);
        pace.count(50, SECOND + SECOND / 100);
        assert_eq!(pace.within(SECOND), 0, "too short to tell");
        pace.count(50, SECOND + SECOND / 20);
        assert_eq!(pace.within(SECOND), 2_000);
        let later = 100 * SECOND;
        pace.count(0, later);
        assert!(pace.within(SECOND) <= 1);
        pace.count(200, later + SECOND / 20);
        assert_eq!(pace.within(SECOND), 4_000);
        // one that comes soon after a look says nothing
        let mut slow = Pace::default();
        slow.count(0, SECOND);
        slow.count(1, SECOND + SECOND / 40);
        slow.count(0, SECOND + SECOND / 10);
        assert_eq!(slow.within(SECOND), 5);
    }

    #[test]
    fn as_many_are_claimed_as_threads_have_none_and_soon_will_have_none() {
        let none = Pace::default();
        assert_eq!((none.to_claim(7, 0, 0), none.to_claim(7, 7, 0), none.to_claim(7, 0, 300)), (7, 0, 7));
        let pace = Pace { since: None, counted: 0, per_second: 4_000.0 };
        for (at_once, waiting, unstored, wanted) in [
            (32, 0, 0, 1_032),
            (0, 0, 0, 1_000),
            (0, 400, 0, 600),
            // as many are there as last for three quarters of the time
            (0, 750, 0, 250),
            (0, 751, 0, 0),
            // a thread that has none finds one of those
            (1, 900, 0, 0),
            (32, 20, 0, 1_012),
            // what is to be stored, up to as many as are claimed ahead, is no reason to claim less
            (0, 0, 1_000, 1_000),
            (0, 0, 1_400, 600),
            (32, 0, 1_800, 0),
            (32, 0, 9_000, 0),
        ] {
            assert_eq!(pace.to_claim(at_once, waiting, unstored), wanted, "{at_once} {waiting} {unstored}");
        }
        let fast = Pace { per_second: 1e6, ..pace };
        assert_eq!(fast.to_claim(0, 0, 0), MOST_AHEAD);
    }
}
