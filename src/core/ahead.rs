//! Which answers that somebody reads are asked for again before, or soon after, they expire, and how many of a day's
//! calls that may take.

use super::limiter::{Limit, Per};
use super::Micros;

/// The largest part of its life that an answer may be asked for again ahead of its end.
const MOST_AHEAD: f64 = 0.9;

/// Checks `refresh_ahead` and `refresh_ahead_share` of a service's rules.
///
/// # Errors
/// A number outside its bounds, in words.
pub fn check(ahead: f64, share: f64) -> Result<(), String> {
    if !(0.0..=MOST_AHEAD).contains(&ahead) {
        return Err(format!("refresh_ahead: {ahead} is not between 0 and {MOST_AHEAD}"));
    }
    if !(0.0..=1.0).contains(&share) {
        return Err(format!("refresh_ahead_share: {share} is not between 0 and 1"));
    }
    Ok(())
}

/// From when on an answer that is read is asked for again, where its life is from `fetched_at` to `expires_at`.
pub fn begins(fetched_at: Micros, expires_at: Micros, ahead: f64) -> Micros {
    let life = expires_at.saturating_sub(fetched_at).max(0);
    expires_at.saturating_sub((life as f64 * ahead.clamp(0.0, MOST_AHEAD)) as Micros)
}

/// How many requests ahead of expiry a day still has room for: `share` of the calls that the limits allow in a day,
/// less those made already.
pub fn allowance(limits: &[Limit], share: f64, made: i64) -> i64 {
    let a_day =
        limits.iter().map(|limit| i64::from(limit.max).saturating_mul(windows_of_a_day(limit.per)) / days(limit.per));
    match a_day.min() {
        Some(calls) => ((calls as f64 * share.clamp(0.0, 1.0)) as i64).saturating_sub(made).max(0),
        None if share > 0.0 => i64::MAX,
        None => 0,
    }
}

fn windows_of_a_day(per: Per) -> i64 {
    match per {
        Per::Second => 86_400,
        Per::Minute => 1_440,
        Per::Hour => 24,
        Per::Day | Per::Month => 1,
    }
}

/// The days of a window: the longest month, for a shorter one allows no less.
fn days(per: Per) -> i64 {
    if per == Per::Month {
        31
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::limiter::parse_limits;

    #[test]
    fn the_last_part_of_a_life_is_ahead_of_its_end() {
        assert_eq!(begins(1_000, 2_000, 0.1), 1_900);
        assert_eq!(begins(1_000, 2_000, 0.0), 2_000);
        assert_eq!(begins(1_000, 2_000, 7.0), 1_100);
        assert_eq!(begins(2_000, 1_000, 0.5), 1_000);
        assert_eq!(begins(i64::MIN, i64::MAX, 0.0), i64::MAX);
    }

    #[test]
    fn no_more_than_the_share_of_the_tightest_limit_is_asked_ahead_in_a_day() {
        let limits = |json| parse_limits(json).unwrap();
        let virustotal = limits(r#"[{"max":4,"per":"minute"},{"max":500,"per":"day"},{"max":15500,"per":"month"}]"#);
        assert_eq!(allowance(&virustotal, 0.25, 0), 125);
        assert_eq!(allowance(&virustotal, 0.25, 124), 1);
        assert_eq!(allowance(&virustotal, 0.25, 130), 0);
        assert_eq!(allowance(&limits(r#"[{"max":1,"per":"second"}]"#), 0.5, 200), 43_000);
        assert_eq!(allowance(&limits(r#"[{"max":310,"per":"month"}]"#), 1.0, 3), 7);
        assert_eq!(allowance(&[], 0.25, 1_000_000), i64::MAX);
        assert_eq!(allowance(&[], 0.0, 0), 0);
    }

    #[test]
    fn parts_that_cannot_be_meant_are_refused() {
        assert_eq!(check(0.1, 0.25), Ok(()));
        for (ahead, share, word) in [(-0.1, 0.2, "refresh_ahead:"), (1.0, 0.2, "refresh_ahead:"), (0.1, 1.1, "share")] {
            assert!(check(ahead, share).unwrap_err().contains(word));
        }
        assert!(check(f64::NAN, 0.2).is_err());
    }
}
