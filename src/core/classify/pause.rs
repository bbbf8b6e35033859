//! How long to wait after "too many requests".

use std::time::UNIX_EPOCH;

use crate::core::{Micros, SECOND};

/// The longest pause that a provider can ask for, in seconds.
const MAX_SECONDS: i64 = 86_400;

/// The pause in microseconds, from the header `Retry-After` (RFC 9110, section 10.2.3: seconds, or a date) or, where it
/// is absent or unreadable, `default_seconds`. At least a second; one that the header asks for at most a day.
pub fn limited_pause(retry_after: Option<&str>, now: Micros, default_seconds: u32) -> Micros {
    let asked = retry_after.map(str::trim).and_then(|text| seconds(text).or_else(|| until(text, now)));
    match asked {
        Some(pause) => pause.clamp(SECOND, MAX_SECONDS * SECOND),
        None => i64::from(default_seconds.max(1)) * SECOND,
    }
}

/// Seconds, whole as the RFC has them or with a fraction, as some servers send.
fn seconds(text: &str) -> Option<Micros> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) || !text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return None;
    }
    let seconds: f64 = text.parse().ok()?;
    Some((seconds.min(MAX_SECONDS as f64) * SECOND as f64).ceil() as Micros)
}

fn until(text: &str, now: Micros) -> Option<Micros> {
    let date = httpdate::parse_http_date(text).ok()?;
    let at = Micros::try_from(date.duration_since(UNIX_EPOCH).ok()?.as_micros()).ok()?;
    Some(at.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 6 November 1994, 08:49:37 UTC, the moment of RFC 9110's examples.
    const NOW: Micros = 784_111_777 * SECOND;

    #[test]
    fn retry_after_is_seconds_or_a_date_or_nothing() {
        for (header, seconds) in [
            (Some("120"), 120),
            (Some(" 7 "), 7),
            (Some("1.5"), 2),
            (Some("0"), 1),
            (Some("99999999999999999999999"), 86_400),
            (Some("Sun, 06 Nov 1994 08:50:37 GMT"), 60),
            (Some("Sunday, 06-Nov-94 08:50:37 GMT"), 60),
            (Some("Sun Nov  6 08:50:37 1994"), 60),
            (Some("Sun, 06 Nov 1994 08:00:00 GMT"), 1),
            (Some("Sun, 06 Nov 2044 08:00:00 GMT"), 86_400),
            (Some("-5"), 300),
            (Some("soon"), 300),
            (Some("1e3"), 300),
            (Some(""), 300),
            (None, 300),
        ] {
            let pause = limited_pause(header, NOW, 300);
            assert_eq!((pause + SECOND - 1) / SECOND, seconds, "{header:?}");
        }
        assert_eq!(limited_pause(None, NOW, 0), SECOND);
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_leave_its_bounds(header in any::<String>(), now in any::<i64>()) {
            let pause = limited_pause(Some(&header), now, 60);
            prop_assert!((SECOND..=86_400 * SECOND).contains(&pause));
        }
    }
}
