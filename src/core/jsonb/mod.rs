//! Reading `jsonb` where it lies, and making it, in PostgreSQL's own binary form (its `src/include/utils/jsonb.h`).
//!
//! Nothing is copied and nothing is trusted: bytes of another form give `None`. Texts are bytes in the server's
//! encoding, all of which hold ASCII as it is.

mod assemble;
mod build;
mod hollow;
mod number;
mod path;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

pub use assemble::{object, Part};
pub use build::build;
pub use hollow::is_hollow;
pub use number::Number;
pub use path::walk;

use std::cmp::Ordering;

const COUNT: u32 = 0x0FFF_FFFF;
const SCALAR: u32 = 0x1000_0000;
const OBJECT: u32 = 0x2000_0000;
const ARRAY: u32 = 0x4000_0000;

const LENGTH: u32 = 0x0FFF_FFFF;
const KIND: u32 = 0x7000_0000;
const TEXT: u32 = 0x0000_0000;
const NUMBER: u32 = 0x1000_0000;
const FALSE: u32 = 0x2000_0000;
const TRUE: u32 = 0x3000_0000;
const NULL: u32 = 0x4000_0000;
const CONTAINER: u32 = 0x5000_0000;
/// The entry holds the end of its value, not the length: so does every 32nd.
const IS_END: u32 = 0x8000_0000;

/// Above this many members a key is searched by halving, not in a row.
const IN_A_ROW: usize = 48;

/// A value, borrowed from the bytes that hold it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    Null,
    Bool(bool),
    Number(Number<'a>),
    Text(&'a [u8]),
    Array(Container<'a>),
    Object(Container<'a>),
}

/// The elements of an array, or the members of an object (in the order of the length of their keys, then of their bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Container<'a> {
    bytes: &'a [u8],
    count: usize,
    /// Where the values begin, behind the entries.
    base: usize,
}

/// The value that a whole `jsonb` is: its bytes without the length in front of them.
pub fn root(bytes: &[u8]) -> Option<Value<'_>> {
    let (header, value) = container(bytes)?;
    match value {
        Value::Array(elements) if header & SCALAR != 0 => elements.value(0),
        _ => Some(value),
    }
}

fn container(bytes: &[u8]) -> Option<(u32, Value<'_>)> {
    let header = word(bytes, 0)?;
    let count = (header & COUNT) as usize;
    let entries = if header & OBJECT != 0 { 2 * count } else { count };
    let base = 4 + 4 * entries;
    if base > bytes.len() {
        return None;
    }
    let container = Container { bytes, count, base };
    match header & (OBJECT | ARRAY) {
        OBJECT => Some((header, Value::Object(container))),
        ARRAY => Some((header, Value::Array(container))),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn aligned(offset: usize) -> usize {
    (offset + 3) & !3
}

impl<'a> Container<'a> {
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// An element of an array.
    pub fn element(&self, index: usize) -> Option<Value<'a>> {
        if index < self.count {
            self.value(index)
        } else {
            None
        }
    }

    pub fn elements(&self) -> impl Iterator<Item = Value<'a>> {
        let array = *self;
        (0..self.count).map_while(move |index| array.value(index))
    }

    /// Keys and values of an object.
    pub fn members(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> {
        let object = *self;
        (0..self.count).map_while(move |at| Some((object.key(at)?, object.value(object.count + at)?)))
    }

    /// The value of a key of an object.
    pub fn member(&self, key: &[u8]) -> Option<Value<'a>> {
        let at = if self.count > IN_A_ROW { self.halve(key)? } else { self.follow(key)? };
        self.value(self.count + at)
    }

    fn follow(&self, key: &[u8]) -> Option<usize> {
        let mut start = 0;
        for (at, entry) in self.entries(self.count).enumerate() {
            let end = (entry & LENGTH) as usize + if entry & IS_END != 0 { 0 } else { start };
            // the order is by length first
            match end.wrapping_sub(start).cmp(&key.len()) {
                Ordering::Equal if self.bytes.get(self.base + start..self.base + end)? == key => return Some(at),
                Ordering::Greater => return None,
                _ => start = end,
            }
        }
        None
    }

    fn halve(&self, key: &[u8]) -> Option<usize> {
        let (mut low, mut high) = (0, self.count);
        while low < high {
            let middle = low + (high - low) / 2;
            let found = self.key(middle)?;
            match found.len().cmp(&key.len()).then_with(|| found.cmp(key)) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }

    fn key(&self, at: usize) -> Option<&'a [u8]> {
        let (start, end) = self.place(at)?;
        self.bytes.get(self.base + start..self.base + end)
    }

    /// Where the value of an entry lies behind the entries.
    fn place(&self, at: usize) -> Option<(usize, usize)> {
        let mut start = 0;
        for entry in self.entries(at).rev() {
            start += (entry & LENGTH) as usize;
            if entry & IS_END != 0 {
                break;
            }
        }
        let entry = word(self.bytes, 4 + 4 * at)?;
        let length = (entry & LENGTH) as usize;
        Some((start, if entry & IS_END != 0 { length } else { start + length }))
    }

    /// The first so many entries.
    fn entries(&self, count: usize) -> impl DoubleEndedIterator<Item = u32> + 'a {
        let words = self.bytes.get(4..4 + 4 * count).unwrap_or_default();
        words.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
    }

    fn value(&self, at: usize) -> Option<Value<'a>> {
        let kind = word(self.bytes, 4 + 4 * at)? & KIND;
        let held = |align: fn(usize) -> usize| {
            let (start, end) = self.place(at)?;
            self.bytes.get(self.base + align(start)..self.base + end)
        };
        match kind {
            NULL => Some(Value::Null),
            TRUE => Some(Value::Bool(true)),
            FALSE => Some(Value::Bool(false)),
            TEXT => Some(Value::Text(held(|start| start)?)),
            NUMBER => Some(Value::Number(Number::read(held(aligned)?)?)),
            CONTAINER => Some(container(held(aligned)?)?.1),
            _ => None,
        }
    }
}

/// The bytes of a `jsonb` of its own, without the length in front of them.
pub fn standalone(value: &Value) -> Vec<u8> {
    let scalar = |kind: u32, data: &[u8]| {
        let mut bytes = Vec::with_capacity(8 + data.len());
        bytes.extend((1 | SCALAR | ARRAY).to_ne_bytes());
        bytes.extend((kind | IS_END | data.len() as u32).to_ne_bytes());
        bytes.extend(data);
        bytes
    };
    match value {
        Value::Null => scalar(NULL, &[]),
        Value::Bool(true) => scalar(TRUE, &[]),
        Value::Bool(false) => scalar(FALSE, &[]),
        Value::Number(number) => scalar(NUMBER, number.bytes()),
        Value::Text(text) => scalar(TEXT, text),
        Value::Array(container) | Value::Object(container) => container.bytes.to_vec(),
    }
}
