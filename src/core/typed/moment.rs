//! Reading a moment from a text, without any setting (time zone, order of day and month) having a say.

use super::leading_digits;
use crate::core::{Micros, SECOND};

/// Unix seconds of 9 to 11 digits, or `YYYY-MM-DD`, also with ` HH:MM` or `THH:MM`, `:SS`, a fraction of up to nine
/// digits, and `UTC`, `GMT`, `Z` or an offset (`+02:00`, `+0200`), with or without a space before it.
pub fn read(text: &[u8]) -> Option<Micros> {
    if (9..=11).contains(&text.len()) && leading_digits(text) == text.len() {
        return Some(text.iter().fold(0, |seconds, digit| seconds * 10 + i64::from(digit - b'0')) * SECOND);
    }
    let mut rest = Rest(text);
    let year = rest.number(4, 1000..=9999)?;
    rest.take(b'-')?;
    let month = rest.number(2, 1..=12)?;
    rest.take(b'-')?;
    let day = rest.number(2, 1..=31)?;
    let date = jiff::civil::Date::new(year as i16, month as i8, day as i8).ok()?;
    let midnight = date.duration_since(jiff::civil::date(1970, 1, 1)).as_secs();
    if rest.0.is_empty() {
        return Some(midnight * SECOND);
    }
    if rest.take(b' ').is_none() {
        rest.take(b'T')?;
    }
    let hour = rest.number(2, 0..=23)?;
    rest.take(b':')?;
    let minute = rest.number(2, 0..=59)?;
    let second = match rest.take(b':') {
        Some(()) => rest.second()?,
        None => 0,
    };
    let offset = rest.offset()?;
    Some((midnight + hour * 3600 + minute * 60 - offset) * SECOND + second)
}

struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take(&mut self, byte: u8) -> Option<()> {
        let (first, rest) = self.0.split_first()?;
        if *first != byte {
            return None;
        }
        self.0 = rest;
        Some(())
    }

    fn number(&mut self, digits: usize, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let text = self.0.get(..digits)?;
        if leading_digits(text) < digits {
            return None;
        }
        self.0 = &self.0[digits..];
        Some(text.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
            .filter(|number| range.contains(number))
    }

    /// Seconds with a fraction, rounded as PostgreSQL's `make_timestamp` does.
    fn second(&mut self) -> Option<Micros> {
        let from = self.0;
        let whole = self.number(2, 0..=59)?;
        if self.take(b'.').is_none() {
            return Some(whole * SECOND);
        }
        let digits = leading_digits(self.0);
        if !(1..=9).contains(&digits) {
            return None;
        }
        self.0 = &self.0[digits..];
        let seconds: f64 = std::str::from_utf8(&from[..3 + digits]).ok()?.parse().ok()?;
        Some((seconds * 1e6).round_ties_even() as Micros)
    }

    /// Seconds east of Greenwich; everything that is left must be the offset.
    fn offset(&mut self) -> Option<i64> {
        if self.0.is_empty() {
            return Some(0);
        }
        let _ = self.take(b' ');
        if matches!(self.0, b"UTC" | b"GMT" | b"Z") {
            return Some(0);
        }
        let sign = if self.take(b'+').is_some() {
            1
        } else {
            self.take(b'-')?;
            -1
        };
        let hours = self.number(2, 0..=14)?;
        let _ = self.take(b':');
        let minutes = self.number(2, 0..=59)?;
        self.0.is_empty().then_some(sign * (hours * 3600 + minutes * 60))
    }
}
