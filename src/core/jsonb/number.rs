//! A number inside a `jsonb`: PostgreSQL's `numeric` (its `src/backend/utils/adt/numeric.c`), digits to the base 10,000.

use crate::core::Micros;

const LONG_NEGATIVE: u16 = 0x4000;
const SHORT: u16 = 0x8000;
const SHORT_NEGATIVE: u16 = 0x2000;
const SPECIAL: u16 = 0xC000;

/// The value is the sum of `digit(i) * 10,000^(weight - i)`; no digit is kept for zeros at either end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Number<'a> {
    bytes: &'a [u8],
    digits: &'a [u8],
    negative: bool,
    weight: i32,
    /// Decimals shown, as they were written.
    scale: usize,
}

impl<'a> Number<'a> {
    /// Reads a number with the length in front of it, in either of its forms.
    pub(in crate::core) fn read(bytes: &'a [u8]) -> Option<Self> {
        let little = cfg!(target_endian = "little");
        let first = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?);
        let short = if little { bytes[0] & 1 == 1 } else { bytes[0] & 0x80 != 0 };
        let (skip, size) = match (short, little) {
            (true, true) => (1, (bytes[0] >> 1) as usize),
            (true, false) => (1, (bytes[0] & 0x7F) as usize),
            (false, true) => (4, (first >> 2) as usize),
            (false, false) => (4, (first & 0x3FFF_FFFF) as usize),
        };
        let bytes = bytes.get(..size)?;
        let half = |at: usize| Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
        let header = half(skip)?;
        let (negative, weight, scale, from) = match header & SPECIAL {
            SPECIAL => return None,
            SHORT => {
                let weight = i32::from(header & 0x3F) - if header & 0x40 != 0 { 64 } else { 0 };
                (header & 0x2000 != 0, weight, usize::from((header & 0x1F80) >> 7), skip + 2)
            }
            sign => {
                let weight = i32::from(half(skip + 2)? as i16);
                (sign == LONG_NEGATIVE, weight, usize::from(header & 0x3FFF), skip + 4)
            }
        };
        Some(Number { bytes, digits: bytes.get(from..)?, negative, weight, scale })
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The digit at 10,000^(weight - `at`); zero where none is kept.
    fn digit(&self, at: i32) -> u16 {
        let held = usize::try_from(at).ok().and_then(|at| self.digits.get(2 * at..2 * at + 2));
        held.and_then(|digit| digit.try_into().ok()).map_or(0, u16::from_ne_bytes)
    }

    /// The whole part, cut towards zero. `None` outside of 64 bits.
    pub fn trunc(&self) -> Option<i64> {
        // the first digit is not zero, so a sixth one leads past 10,000^5
        if self.weight > 4 {
            return None;
        }
        let whole = (0..=self.weight).fold(0i128, |whole, at| whole * 10_000 + i128::from(self.digit(at)));
        i64::try_from(if self.negative { -whole } else { whole }).ok()
    }

    fn is_negative(&self) -> bool {
        self.negative && !self.digits.is_empty()
    }

    /// As a number of seconds, rounded half up. `None` below zero and outside of 64 bits.
    pub fn micros(&self) -> Option<Micros> {
        if self.is_negative() {
            return None;
        }
        let (first, second) = (self.digit(self.weight + 1), self.digit(self.weight + 2));
        let fraction = i64::from(first) * 100 + i64::from(second / 100) + i64::from(second % 100 >= 50);
        self.trunc()?.checked_mul(1_000_000)?.checked_add(fraction)
    }

    /// The whole number that is written without decimals.
    pub fn plain(&self) -> Option<i64> {
        if self.scale == 0 {
            self.trunc()
        } else {
            None
        }
    }

    /// As PostgreSQL writes it.
    pub fn text(&self) -> Vec<u8> {
        if let Some(plain) = self.plain() {
            return plain.to_string().into_bytes();
        }
        let mut text = Vec::with_capacity(8 + 4 * self.weight.max(0) as usize + self.scale);
        if self.negative {
            text.push(b'-');
        }
        let whole = text.len();
        for at in 0..=self.weight {
            text.extend(four(self.digit(at)));
        }
        let zeros = text[whole..].iter().take_while(|digit| **digit == b'0').count();
        text.drain(whole..whole + zeros);
        if text.len() == whole {
            text.push(b'0');
        }
        if self.scale > 0 {
            text.push(b'.');
            let end = text.len() + self.scale;
            // from 10,000^-1 on, whether digits are kept there or not
            let mut at = self.weight + 1;
            while text.len() < end {
                text.extend(four(self.digit(at)));
                at += 1;
            }
            text.truncate(end);
        }
        text
    }
}

/// Appends a decimal number as it stands in JSON, in the shorter form where PostgreSQL takes it. `None` for one that may be
/// beyond `numeric`.
pub(super) fn write(token: &str, out: &mut Vec<u8>) -> Option<()> {
    /// Characters and powers of ten that are certainly within `numeric`.
    const MOST: usize = 4000;
    let (mantissa, exponent) = match token.find(['e', 'E']) {
        Some(at) => (&token[..at], token[at + 1..].parse::<i32>().ok()?),
        None => (token, 0),
    };
    let negative = mantissa.starts_with('-');
    let mantissa = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (mantissa, ""),
    };
    let decimal = whole.bytes().chain(fraction.bytes());
    if whole.is_empty()
        || whole.len() > 1 && whole.starts_with('0')
        || token.len() > MOST
        || exponent.unsigned_abs() as usize > MOST
    {
        return None;
    }
    let scale = (fraction.len() as i32 - exponent).max(0);
    // how many decimal digits of the first group stand before the token's own
    let point = whole.len() as i32 + exponent;
    let front = (-point).rem_euclid(4);
    let mut weight = (point + front) / 4 - 1;
    let from = out.len();
    out.extend([0; 8]);
    let (mut group, mut filled, mut begun) = (0, front, false);
    let mut kept = out.len();
    let mut push = |group: u16, out: &mut Vec<u8>| {
        if group == 0 && !begun {
            weight -= 1;
            return;
        }
        begun = true;
        out.extend(group.to_ne_bytes());
        if group != 0 {
            kept = out.len();
        }
    };
    for digit in decimal {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        group = group * 10 + u16::from(digit);
        filled += 1;
        if filled == 4 {
            push(std::mem::take(&mut group), out);
            filled = 0;
        }
    }
    if filled > 0 {
        push(group * 10_u16.pow(4 - filled as u32), out);
    }
    out.truncate(kept);
    let zero = kept == from + 8;
    let weight = if zero { 0 } else { weight };
    let negative = negative && !zero;
    let mut header = from + 4;
    if scale <= 0x3F && (-64..=63).contains(&weight) {
        let sign = if negative { SHORT_NEGATIVE } else { 0 };
        let flags = SHORT | sign | (scale as u16) << 7 | (weight & 0x7F) as u16;
        out[header..header + 2].copy_from_slice(&flags.to_ne_bytes());
        out.drain(header + 2..header + 4);
    } else {
        let flags = if negative { LONG_NEGATIVE } else { 0 } | scale as u16;
        out[header..header + 2].copy_from_slice(&flags.to_ne_bytes());
        header += 2;
        out[header..header + 2].copy_from_slice(&(weight as i16).to_ne_bytes());
    }
    let size = (out.len() - from) as u32;
    let size = if cfg!(target_endian = "little") { size << 2 } else { size };
    out[from..from + 4].copy_from_slice(&size.to_ne_bytes());
    Some(())
}

fn four(digit: u16) -> [u8; 4] {
    [digit / 1000 % 10, digit / 100 % 10, digit / 10 % 10, digit % 10].map(|digit| b'0' + digit as u8)
}
