//! Where windows begin and end: aligned in UTC, months by the calendar.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::Per;
use crate::core::{Micros, SECOND};

/// The length of a window that always has the same; `None` for months.
pub(super) fn length(per: Per) -> Option<Micros> {
    match per {
        Per::Second => Some(SECOND),
        Per::Minute => Some(60 * SECOND),
        Per::Hour => Some(3_600 * SECOND),
        Per::Day => Some(86_400 * SECOND),
        Per::Month => None,
    }
}

/// The start of the window that holds `now`.
pub fn window_start(per: Per, now: Micros) -> Micros {
    match length(per) {
        Some(length) => now.saturating_sub(now.rem_euclid(length)),
        None => month(now).0,
    }
}

/// The end of the window that holds `now`: the start of the next one.
pub fn window_end(per: Per, now: Micros) -> Micros {
    match length(per) {
        Some(length) => window_start(per, now).saturating_add(length),
        None => month(now).1,
    }
}

/// The month that holds a moment. Moments outside the years -9999 to 9999 are taken as the nearest inside, and at
/// those borders the window ends with representable time.
fn month(now: Micros) -> (Micros, Micros) {
    let moment = match Timestamp::from_microsecond(now) {
        Ok(moment) => moment,
        Err(_) if now < 0 => Timestamp::MIN,
        Err(_) => Timestamp::MAX,
    };
    let first = TimeZone::UTC.to_datetime(moment).date().first_of_month();
    let midnight = |date: jiff::civil::Date| {
        let midnight = TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?;
        Some(midnight.as_microsecond())
    };
    let next = first.checked_add(1.month()).ok().and_then(midnight);
    (midnight(first).unwrap_or(Micros::MIN), next.unwrap_or(Micros::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Micros {
        text.parse::<Timestamp>().unwrap().as_microsecond()
    }

    #[test]
    fn windows_are_aligned_in_utc() {
        let now = at("2024-02-29T23:59:59.75Z");
        for (per, start, end) in [
            (Per::Second, "2024-02-29T23:59:59Z", "2024-03-01T00:00:00Z"),
            (Per::Minute, "2024-02-29T23:59:00Z", "2024-03-01T00:00:00Z"),
            (Per::Hour, "2024-02-29T23:00:00Z", "2024-03-01T00:00:00Z"),
            (Per::Day, "2024-02-29T00:00:00Z", "2024-03-01T00:00:00Z"),
            (Per::Month, "2024-02-01T00:00:00Z", "2024-03-01T00:00:00Z"),
        ] {
            assert_eq!(window_start(per, now), at(start), "{per:?}");
            assert_eq!(window_end(per, now), at(end), "{per:?}");
        }
        assert_eq!(window_end(Per::Month, at("2025-12-31T12:00:00Z")), at("2026-01-01T00:00:00Z"));
        assert_eq!(window_start(Per::Day, -1), at("1969-12-31T00:00:00Z"));
        assert_eq!(window_start(Per::Month, 0), 0);
    }

    proptest! {
        #[test]
        fn every_moment_lies_in_its_window(now in -100_000_000_000_000_000..200_000_000_000_000_000i64) {
            for per in Per::ALL {
                let (start, end) = (window_start(per, now), window_end(per, now));
                prop_assert!(start <= now && now < end);
                prop_assert_eq!(window_start(per, end), end);
                prop_assert_eq!(window_end(per, start), end);
            }
        }

        #[test]
        fn no_moment_makes_it_panic(now in any::<i64>()) {
            for per in Per::ALL {
                let _ = (window_start(per, now), window_end(per, now));
            }
        }
    }
}
