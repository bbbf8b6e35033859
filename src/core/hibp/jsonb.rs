//! A range as PostgreSQL stores it in `jsonb`, read and written without its functions, which would take many times as long
//! (docs/adr/0011-hibp-ranges.md). The form is the one on disk (`utils/jsonb.h`, `utils/adt/numeric.c`), which no release
//! can change, for pg_upgrade keeps it. What is written is what `jsonb_in` makes of such an object, byte for byte; what
//! is read is that or nothing.

use super::packed::{count, digits, pack, records, suffix};
use std::ops::Range;

const OBJECT: u32 = 0x2000_0000;
const PAIRS: u32 = 0x0fff_ffff;
const IS_NUMBER: u32 = 0x1000_0000;
const TYPE: u32 = 0x7000_0000;
/// The entry holds where its value ends, not how long it is.
const HAS_OFFSET: u32 = 0x8000_0000;
/// Every so many entries (`JB_OFFSET_STRIDE`).
const STRIDE: usize = 32;
const KEY: usize = 35;
/// A numeric in its short form: positive, no decimals; the low seven bits are the weight.
const SHORT: u16 = 0x8000;
const WEIGHT: u16 = 0x003f;
const BASE: u64 = 10_000;
/// Header of a numeric: its size, then the short form's flags.
const HEADER: usize = 6;

/// Bytes of the `jsonb` object without its varlena header; `None` when `jsonb` cannot hold it, or when the records are
/// out of order, which none of [`pack`] is.
pub fn jsonb_size(packed: &[u8]) -> Option<usize> {
    let records = records(packed);
    if !records.is_sorted_by(|a, b| suffix(a) < suffix(b)) {
        return None;
    }
    let keys = records.len() * KEY;
    let values = records.iter().fold(keys, |end, record| end.next_multiple_of(4) + Number::of(count(record)).size());
    (values <= PAIRS as usize).then_some(4 + 8 * records.len() + values)
}

/// Writes the object into as many zero bytes as [`jsonb_size`] says. `None` when they are not as many.
pub fn write_jsonb(packed: &[u8], out: &mut [u8]) -> Option<()> {
    let records = records(packed);
    let n = records.len();
    let (head, data) = out.split_at_mut_checked(4 + 8 * n)?;
    let (flags, entries) = head.split_first_chunk_mut()?;
    *flags = (OBJECT | n as u32).to_ne_bytes();
    let entries = entries.as_chunks_mut().0;
    let mut end = 0;
    for (i, record) in records.iter().enumerate() {
        data.get_mut(end..end + KEY)?.copy_from_slice(&digits(record));
        end += KEY;
        entries[i] = entry(i, 0, KEY, end);
    }
    for (i, record) in records.iter().enumerate() {
        let number = Number::of(count(record));
        let (start, aligned) = (end, end.next_multiple_of(4));
        end = aligned + number.size();
        number.write(data.get_mut(aligned..end)?);
        entries[n + i] = entry(n + i, IS_NUMBER, end - start, end);
    }
    (end == data.len()).then_some(())
}

fn entry(i: usize, kind: u32, length: usize, end: usize) -> [u8; 4] {
    match i % STRIDE {
        0 => kind | HAS_OFFSET | end as u32,
        _ => kind | length as u32,
    }
    .to_ne_bytes()
}

/// The digits of a count to the base of 10,000, without zeros before and after, and the exponent of the first.
struct Number {
    digits: [u16; 3],
    kept: Range<usize>,
}

impl Number {
    // 36 bits are 11 decimal digits
    fn of(count: u64) -> Self {
        let digits = [(count / BASE / BASE) as u16, (count / BASE % BASE) as u16, (count % BASE) as u16];
        let first = digits.iter().position(|&digit| digit != 0).unwrap_or(2);
        let end = digits.iter().rposition(|&digit| digit != 0).map_or(first, |last| last + 1);
        Number { digits, kept: first..end }
    }

    fn size(&self) -> usize {
        HEADER + 2 * self.kept.len()
    }

    fn write(&self, out: &mut [u8]) {
        let weight = 2 - self.kept.start as u16;
        let size = (self.size() as u32) << if cfg!(target_endian = "little") { 2 } else { 0 };
        out[..4].copy_from_slice(&size.to_ne_bytes());
        out[4..HEADER].copy_from_slice(&(SHORT | weight).to_ne_bytes());
        for (place, digit) in out[HEADER..].as_chunks_mut().0.iter_mut().zip(&self.digits[self.kept.clone()]) {
            *place = digit.to_ne_bytes();
        }
    }
}

/// Packs what is such an object; `container` is a `jsonb` value without its varlena header.
pub fn pack_jsonb(container: &[u8]) -> Option<Vec<u8>> {
    let (flags, rest) = container.split_first_chunk()?;
    let flags = u32::from_ne_bytes(*flags);
    let n = (flags & PAIRS) as usize;
    if flags & !PAIRS != OBJECT {
        return None;
    }
    let (entries, data) = rest.split_at_checked(8 * n)?;
    let mut end = 0;
    let mut parts = entries.as_chunks().0.iter().map(|entry| {
        let entry = u32::from_ne_bytes(*entry);
        let start = end;
        let field = (entry & PAIRS) as usize;
        end = if entry & HAS_OFFSET == 0 { start + field } else { field };
        Some((entry & TYPE, start, data.get(start..end)?))
    });
    let keys: Vec<&[u8]> = parts.by_ref().take(n).map(|part| Some(part?.2)).collect::<Option<_>>()?;
    let counts: Vec<u64> = parts
        .map(|part| {
            let (kind, start, value) = part?;
            let value = value.get(start.next_multiple_of(4) - start..)?;
            (kind == IS_NUMBER).then(|| read_number(value))?
        })
        .collect::<Option<_>>()?;
    pack(keys.into_iter().zip(counts))
}

/// A number that is an integer from 0 and written without decimals.
fn read_number(value: &[u8]) -> Option<u64> {
    let (size, rest) = value.split_first_chunk()?;
    let (flags, digits) = rest.split_first_chunk()?;
    let size = u32::from_ne_bytes(*size);
    let flags = u16::from_ne_bytes(*flags);
    let long = if cfg!(target_endian = "little") { size & 3 == 0 } else { size >> 30 == 0 };
    if !long || flags & !WEIGHT != SHORT {
        return None;
    }
    let digits = digits.as_chunks().0;
    let after = (flags & WEIGHT) as usize + 1;
    // 20 decimal digits are more than any count here has
    if digits.len() > after || after > 5 {
        return None;
    }
    let value = digits
        .iter()
        .try_fold(0_u64, |value, digit| value.checked_mul(BASE)?.checked_add(u64::from(u16::from_ne_bytes(*digit))))?;
    value.checked_mul(BASE.checked_pow((after - digits.len()) as u32)?)
}
