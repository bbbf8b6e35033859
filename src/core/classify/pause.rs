//! How long a provider asks to be left alone.

use std::time::UNIX_EPOCH;

use crate::core::{Micros, SECOND};

/// The longest pause that a provider can ask for, in seconds.
const MAX_SECONDS: i64 = 86_400;

/// The wait in microseconds that the header `Retry-After` asks for (RFC 9110, section 10.2.3: seconds, or a date): at least
/// a second, at most a day. `None`: it cannot be read.
pub fn retry_after(header: &str, now: Micros) -> Option<Micros> {
    let text = header.trim();
    let asked = seconds(text).or_else(|| until(text, now))?;
    Some(asked.clamp(SECOND, MAX_SECONDS * SECOND))
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
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("1.5", Some(2)),
            ("0", Some(1)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(1)),
            ("Sun, 06 Nov 2044 08:00:00 GMT", Some(86_400)),
            ("-5", None),
            ("soon", None),
            ("1e3", None),
            ("", None),
        ] {
            let wait = retry_after(header, NOW);
            assert_eq!(wait.map(|wait| (wait + SECOND - 1) / SECOND), seconds, "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn no_header_makes_it_panic_or_leave_its_bounds(header in any::<String>(), now in any::<i64>()) {
            let wait = retry_after(&header, now).unwrap_or(SECOND);
            prop_assert!((SECOND..=86_400 * SECOND).contains(&wait));
        }
    }
}
