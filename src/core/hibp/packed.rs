//! A range in 22 bytes a suffix: its 35 hexadecimal digits in 140 bits, then the count in 36, big endian. Records stand
//! in the order of their suffixes and nothing else stands there, so that one of them is found from any part of the
//! whole: suffixes are digits of SHA-1 and as evenly spread as can be.

use std::fmt::Write;
use std::ops;

/// Bytes of a record.
pub const RECORD: usize = 22;
/// Digits of a suffix; NTLM's have 27 and are not packed.
const DIGITS: usize = 35;
const MAX_COUNT: u64 = (1 << 36) - 1;

/// The digits of a suffix as they begin a record, 16, 16 and 3; the half byte that is left is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Suffix(u64, u64, u16);

impl Suffix {
    /// Reads 35 hexadecimal digits of either case.
    pub fn parse(digits: &[u8]) -> Option<Self> {
        if digits.len() != DIGITS {
            return None;
        }
        let mut bytes = [0; 18];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(*pair.get(1).unwrap_or(&b'0'))?;
        }
        Some(Suffix::beginning(bytes))
    }

    fn beginning(bytes: [u8; 18]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r] = bytes;
        let number = |bytes| u64::from_be_bytes(bytes);
        Suffix(number([a, b, c, d, e, f, g, h]), number([i, j, k, l, m, n, o, p]), u16::from_be_bytes([q, r & 0xf0]))
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

/// Packs suffixes and counts. `None` when not every suffix is 35 upper-case digits, when they are not in order or
/// repeat, or when a count needs more than 36 bits: what would unpack to something else is not packed.
pub fn pack<'a>(entries: impl IntoIterator<Item = (&'a [u8], u64)>) -> Option<Vec<u8>> {
    let entries = entries.into_iter();
    let mut packed: Vec<u8> = Vec::with_capacity(entries.size_hint().0 * RECORD);
    let mut last = None;
    for (digits, count) in entries {
        let suffix = Suffix::parse(digits).filter(|suffix| last.is_none_or(|last| last < *suffix))?;
        if count > MAX_COUNT || digits.iter().any(u8::is_ascii_lowercase) {
            return None;
        }
        packed.extend_from_slice(&suffix.0.to_be_bytes());
        packed.extend_from_slice(&suffix.1.to_be_bytes());
        packed.extend_from_slice(&(u64::from(suffix.2) << 32 | count).to_be_bytes()[2..]);
        last = Some(suffix);
    }
    Some(packed)
}

/// The whole records in a range or a part of one.
pub(super) fn records(packed: &[u8]) -> &[[u8; RECORD]] {
    packed.as_chunks().0
}

pub(super) fn count(record: &[u8; RECORD]) -> u64 {
    let [.., a, b, c, d, e] = *record;
    u64::from_be_bytes([0, 0, 0, a, b, c, d, e]) & MAX_COUNT
}

/// The digits of a record's suffix, upper case.
pub(super) fn digits(record: &[u8; RECORD]) -> [u8; DIGITS] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut digits = [0; DIGITS];
    for (pair, byte) in digits.chunks_mut(2).zip(record) {
        pair[0] = HEX[usize::from(byte >> 4)];
        if let Some(second) = pair.get_mut(1) {
            *second = HEX[usize::from(byte & 15)];
        }
    }
    digits
}

pub(super) fn suffix(record: &[u8; RECORD]) -> Suffix {
    let mut bytes = [0; 18];
    bytes.copy_from_slice(&record[..18]);
    Suffix::beginning(bytes)
}

/// How often a suffix was seen; 0 when the range does not hold it.
pub fn find(packed: &[u8], wanted: &Suffix) -> u64 {
    let records = records(packed);
    records.binary_search_by_key(wanted, suffix).map_or(0, |at| count(&records[at]))
}

/// The same from a part that was read of a range of `length` bytes; `None` when only the rest can tell.
pub fn find_in_part(part: &[u8], range: &ops::Range<usize>, length: usize, wanted: &Suffix) -> Option<u64> {
    let records = records(part);
    match records.binary_search_by_key(wanted, suffix) {
        Ok(at) => Some(count(&records[at])),
        Err(0) if range.start > 0 => None,
        Err(at) if at == records.len() && range.end + RECORD <= length => None,
        Err(_) => Some(0),
    }
}

/// Which bytes of a range of `length` to read first for a suffix, whole records. Of n suffixes, as many as n times its
/// place are expected before it, with a standard deviation of at most half the square root of n; one and a half of them
/// to each side miss one suffix of a hundred in 2,000, and more would read more in all. What is stored in
/// chunks of `chunk` bytes is read in whole ones anyway, so the guess is widened to them.
pub fn first_look(length: usize, chunk: usize, suffix: &Suffix) -> ops::Range<usize> {
    let n = length / RECORD;
    let expected = ((n as u128 * u128::from(suffix.0)) >> 64) as usize;
    let margin = n.isqrt() * 3 / 4 + 1;
    let start = expected.saturating_sub(margin) * RECORD / chunk * chunk;
    let end = ((expected + margin + 1) * RECORD).next_multiple_of(chunk);
    start.next_multiple_of(RECORD)..end.min(length) / RECORD * RECORD
}

/// Whether a range holds more than padding.
pub fn seen_any(packed: &[u8]) -> bool {
    records(packed).iter().any(|record| count(record) > 0)
}

/// What is kept beside a packed range: how many suffixes were seen at all, and how often the most frequent.
pub fn summary(packed: &[u8]) -> String {
    let counts = || records(packed).iter().map(count);
    let suffixes = counts().filter(|&count| count > 0).count();
    let most = counts().max().map_or("null".to_owned(), |most| most.to_string());
    format!("{{\"suffixes\":{suffixes},\"most_seen\":{most}}}")
}

/// The range as JSON text: an object of suffixes and counts.
pub fn to_json(packed: &[u8]) -> String {
    let mut json = String::with_capacity(2 + records(packed).len() * (DIGITS + 8));
    json.push('{');
    for record in records(packed) {
        if json.len() > 1 {
            json.push(',');
        }
        json.push('"');
        json.extend(digits(record).map(char::from));
        // writing to a String does not fail
        let _ = write!(json, "\":{}", count(record));
    }
    json.push('}');
    json
}
