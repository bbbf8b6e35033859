//! A moment as text, without any setting having a say.

use super::{Micros, SECOND};

/// `YYYY-MM-DDTHH:MM:SSZ`, cut to the second, as `to_char` writes it: years beyond 9999 have more digits, those before Christ are
/// counted backwards without saying so.
pub fn utc(moment: Micros) -> String {
    let seconds = moment.div_euclid(SECOND);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(day);
    let year = if year > 0 { year } else { 1 - year };
    let mut text = String::with_capacity(20);
    match year {
        0..=9999 => put(&mut text, year, 4),
        _ => text.push_str(&year.to_string()),
    }
    let parts = [('-', month), ('-', day), ('T', second / 3600), (':', second / 60 % 60), (':', second % 60)];
    for (before, number) in parts {
        text.push(before);
        put(&mut text, number, 2);
    }
    text.push('Z');
    text
}

fn put(text: &mut String, number: i64, digits: u32) {
    text.extend((0..digits).rev().map(|at| char::from(b'0' + (number / 10_i64.pow(at) % 10) as u8)));
}

/// Year, month and day of a day that is counted from 1970-01-01, in the Gregorian calendar
/// (Howard Hinnant, <https://howardhinnant.github.io/date_algorithms.html#civil_from_days>: years begin in March there, eras have 400).
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468;
    let (era, of_era) = (day.div_euclid(146_097), day.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
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
