//! A moment as text, without any setting having a say.

use super::{Micros, SECOND};
use jiff::civil::date;
use jiff::ToSpan;

const DAY: i64 = 86_400;
/// The Gregorian calendar repeats itself after 400 years.
const CYCLE: i64 = 146_097;

/// `YYYY-MM-DDTHH:MM:SSZ`, cut to the second, as `to_char` writes it: years beyond 9999 have more digits, those before Christ are
/// counted backwards without saying so.
pub fn utc(moment: Micros) -> String {
    let seconds = moment.div_euclid(SECOND);
    let (day, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // the server's years reach further than the library's: a year of the same shape stands for them
    let (cycles, day) = (day.div_euclid(CYCLE), day.rem_euclid(CYCLE));
    let date = date(1970, 1, 1).saturating_add(day.days());
    let year = i64::from(date.year()) + 400 * cycles;
    let year = if year > 0 { year } else { 1 - year };
    let (month, day) = (date.month(), date.day());
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_written_as_to_char_writes_them() {
        // SELECT to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') in PostgreSQL 15
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (951_782_399_999_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00Z"),
            (1_764_000_000_500_000, "2025-11-24T16:00:00Z"),
            (253_402_300_800_000_000, "10000-01-01T00:00:00Z"),
            (-63_517_824_000_000_000, "0044-03-15T00:00:00Z"),
        ];
        for (moment, text) in known {
            assert_eq!(utc(moment), text);
        }
    }

    #[test]
    fn every_day_is_the_calendars() {
        // from the first of the year 1 on
        for day in (-719_162_i64..2_900_000).step_by(7) {
            let moment = jiff::Timestamp::from_second(day * 86_400 + day.rem_euclid(86_400)).unwrap();
            assert_eq!(utc(moment.as_microsecond()), moment.to_string());
        }
    }
}
