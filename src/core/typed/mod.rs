//! What the columns of the typed views hold: the value of a type that a JSON value says, `None` when it says none.
//!
//! Providers send 12, "12", "" and null for the same thing, so a text is read as what it says. All of it works on bytes:
//! only ASCII counts, and every encoding of a server has that.

mod list;
mod moment;

#[cfg(test)]
mod tests;

pub use list::{names, texts, Item};

use super::jsonb::Value;
use super::Micros;
use std::borrow::Cow;

/// The text of a text, a number or a truth value. None for an empty one.
pub fn text(value: Value) -> Option<Cow<[u8]>> {
    match value {
        Value::Text(text) if !text.is_empty() => Some(Cow::Borrowed(text)),
        Value::Number(number) => Some(Cow::Owned(number.text())),
        Value::Bool(true) => Some(Cow::Borrowed(b"true")),
        Value::Bool(false) => Some(Cow::Borrowed(b"false")),
        _ => None,
    }
}

/// A whole number; a fraction is cut off. A text has at most 19 digits before its point.
pub fn bigint(value: Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.trunc(),
        Value::Text(text) => {
            let text = trimmed(text);
            let (sign, rest) = match text.first()? {
                b'+' | b'-' => text.split_at(1),
                _ => text.split_at(0),
            };
            let (digits, rest) = rest.split_at(leading_digits(rest));
            let fraction = match rest {
                [] => rest,
                [b'.', fraction @ ..] => fraction,
                _ => return None,
            };
            if !(1..=19).contains(&digits.len()) || leading_digits(fraction) < fraction.len() {
                return None;
            }
            let whole = digits.iter().fold(0i128, |whole, digit| whole * 10 + i128::from(digit - b'0'));
            i64::try_from(if sign == b"-" { -whole } else { whole }).ok()
        }
        _ => None,
    }
}

/// The number of an autonomous system, also as "AS123", from 1 to 2147483647.
pub fn asn(value: Value) -> Option<i32> {
    let number = match value {
        Value::Number(number) => number.trunc()?,
        Value::Text(text) => {
            let digits = text.strip_prefix(b"AS").or_else(|| text.strip_prefix(b"as")).unwrap_or(text);
            let zeros = digits.iter().take_while(|digit| **digit == b'0').count();
            let digits = &digits[zeros..];
            let (digits, rest) = digits.split_at(leading_digits(digits));
            let rest = rest.strip_prefix(b".").unwrap_or(rest);
            if digits.len() > 10 || rest.iter().any(|byte| *byte != b'0') {
                return None;
            }
            digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0'))
        }
        _ => return None,
    };
    i32::try_from(number).ok().filter(|number| *number > 0)
}

/// A truth value, also as 1, 0 or a word that PostgreSQL takes for one.
pub fn boolean(value: Value) -> Option<bool> {
    const YES: [&[u8]; 6] = [b"true", b"t", b"yes", b"y", b"on", b"1"];
    const NO: [&[u8]; 6] = [b"false", b"f", b"no", b"n", b"off", b"0"];
    match value {
        Value::Bool(truth) => Some(truth),
        Value::Number(number) => match number.plain()? {
            1 => Some(true),
            0 => Some(false),
            _ => None,
        },
        Value::Text(text) if YES.iter().any(|word| text.eq_ignore_ascii_case(word)) => Some(true),
        Value::Text(text) if NO.iter().any(|word| text.eq_ignore_ascii_case(word)) => Some(false),
        _ => None,
    }
}

/// A moment: Unix seconds (a number below the year 10000, or a text of 9 to 11 digits), or a date with or without time,
/// in UTC unless an offset says otherwise.
pub fn moment(value: Value) -> Option<Micros> {
    const YEAR_10000: i64 = 253_402_300_800;
    match value {
        Value::Number(number) => number.micros().filter(|_| number.trunc().is_some_and(|whole| whole < YEAR_10000)),
        Value::Text(text) => moment::read(text),
        _ => None,
    }
}

/// The day of a moment in UTC, in days since 1 January 1970.
pub fn day(value: Value) -> Option<i32> {
    const DAY: Micros = 86_400 * super::SECOND;
    i32::try_from(moment(value)?.div_euclid(DAY)).ok()
}

/// The sum of the members of an object that are whole numbers. None when there is none.
pub fn sum(value: Value) -> Option<i64> {
    let Value::Object(object) = value else { return None };
    let mut numbers = object.members().filter_map(|(_, member)| bigint(member)).peekable();
    numbers.peek()?;
    i64::try_from(numbers.map(i128::from).sum::<i128>()).ok()
}

fn leading_digits(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// White space of C: also the vertical tab, which Rust leaves out.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | 0x09..=0x0d)
}

fn trimmed(text: &[u8]) -> &[u8] {
    let start = text.iter().take_while(|byte| is_space(**byte)).count();
    let end = text[start..].iter().rev().take_while(|byte| is_space(**byte)).count();
    &text[start..text.len() - end]
}
