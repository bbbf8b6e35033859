//! Making `jsonb` from a JSON text that was made safe ([`crate::core::json_text`]), byte for byte as PostgreSQL's `jsonb_in`
//! does (its `jsonb_util.c`, `numeric.c`), on any thread.

use super::{
    aligned, number, ARRAY, CONTAINER, COUNT, FALSE, IS_END, LENGTH, NULL, NUMBER, OBJECT, SCALAR, TEXT, TRUE,
};
use std::borrow::Cow;

/// Deeper texts are left to PostgreSQL; recorded answers have at most 12 levels.
const DEEPEST: usize = 128;
/// The entry of every so many holds an end (`JB_OFFSET_STRIDE`).
const STRIDE: usize = 32;

/// The bytes of a `jsonb` without the length in front of them, in UTF-8. `None` where PostgreSQL has to look itself: it is
/// no JSON, deeper than this reads, larger than `jsonb` holds, or has a number that `numeric` may not take.
pub fn build(text: &str) -> Option<Vec<u8>> {
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.white();
    if reader.at != text.len() {
        return None;
    }
    let mut out = Vec::with_capacity(text.len() + text.len() / 4 + 16);
    match value {
        Value::Array(_) | Value::Object(_) => drop(value.push(&mut out)?),
        scalar => {
            Value::Array(vec![scalar]).push(&mut out)?;
            out[..4].copy_from_slice(&(1 | SCALAR | ARRAY).to_ne_bytes());
        }
    }
    Some(out)
}

enum Value<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    Array(Vec<Value<'a>>),
    Object(Vec<(Cow<'a, str>, Value<'a>)>),
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn white(&mut self) {
        while matches!(self.text.as_bytes().get(self.at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// The next byte behind white space, taken.
    fn next(&mut self) -> Option<u8> {
        self.white();
        let next = *self.text.as_bytes().get(self.at)?;
        self.at += 1;
        Some(next)
    }

    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        match self.next()? {
            b'"' => self.string().map(Value::Text),
            b'{' if depth < DEEPEST => self.object(depth),
            b'[' if depth < DEEPEST => self.array(depth),
            b't' => self.rest("rue", Value::Bool(true)),
            b'f' => self.rest("alse", Value::Bool(false)),
            b'n' => self.rest("ull", Value::Null),
            b'-' | b'0'..=b'9' => {
                let from = self.at - 1;
                while matches!(self.text.as_bytes().get(self.at), Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
                {
                    self.at += 1;
                }
                Some(Value::Number(&self.text[from..self.at]))
            }
            _ => None,
        }
    }

    fn rest(&mut self, rest: &str, value: Value<'a>) -> Option<Value<'a>> {
        self.text.get(self.at..)?.starts_with(rest).then(|| {
            self.at += rest.len();
            value
        })
    }

    fn array(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut elements = Vec::new();
        self.white();
        if self.text.as_bytes().get(self.at) == Some(&b']') {
            self.at += 1;
            return Some(Value::Array(elements));
        }
        loop {
            elements.push(self.value(depth + 1)?);
            match self.next()? {
                b',' => (),
                b']' => return Some(Value::Array(elements)),
                _ => return None,
            }
        }
    }

    fn object(&mut self, depth: usize) -> Option<Value<'a>> {
        let mut members = Vec::new();
        loop {
            match self.next()? {
                b'"' => (),
                b'}' if members.is_empty() => return Some(Value::Object(members)),
                _ => return None,
            }
            let key = self.string()?;
            if self.next()? != b':' {
                return None;
            }
            members.push((key, self.value(depth + 1)?));
            match self.next()? {
                b',' => (),
                b'}' => return Some(Value::Object(in_order(members))),
                _ => return None,
            }
        }
    }

    /// A string whose opening quote was taken.
    fn string(&mut self) -> Option<Cow<'a, str>> {
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\'))?;
        if rest.as_bytes()[end] == b'"' {
            self.at += end + 1;
            return Some(Cow::Borrowed(&rest[..end]));
        }
        let mut text = String::with_capacity(2 * end);
        let mut rest = rest;
        loop {
            let end = rest.bytes().position(|byte| matches!(byte, b'"' | b'\\'))?;
            text.push_str(&rest[..end]);
            let quote = rest.as_bytes()[end] == b'"';
            rest = &rest[end + 1..];
            if quote {
                self.at = self.text.len() - rest.len();
                return Some(Cow::Owned(text));
            }
            let escaped = *rest.as_bytes().first()?;
            rest = rest.get(1..)?;
            text.push(match escaped {
                b'"' | b'\\' | b'/' => escaped as char,
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => {
                    let (c, after) = unicode(rest)?;
                    rest = after;
                    c
                }
                _ => return None,
            });
        }
    }
}

/// The character of the digits behind `\u`, and what follows.
fn unicode(rest: &str) -> Option<(char, &str)> {
    let unit = |rest: &str| u32::from_str_radix(rest.get(..4)?, 16).ok();
    let first = unit(rest)?;
    let rest = &rest[4..];
    match first {
        0 => None,
        0xD800..0xDC00 => {
            let second = unit(rest.strip_prefix("\\u")?)?;
            let low = (0xDC00..0xE000).contains(&second).then(|| second - 0xDC00)?;
            Some((char::from_u32(0x10000 + ((first - 0xD800) << 10) + low)?, &rest[6..]))
        }
        _ => Some((char::from_u32(first)?, rest)),
    }
}

/// By the length of the keys, then by their bytes; of a key that comes twice the last member.
pub(super) fn in_order<K: AsRef<str>, V>(mut members: Vec<(K, V)>) -> Vec<(K, V)> {
    members.sort_by(|(a, _), (b, _)| {
        let (a, b) = (a.as_ref(), b.as_ref());
        a.len().cmp(&b.len()).then_with(|| a.as_bytes().cmp(b.as_bytes()))
    });
    members.dedup_by(|later, kept| {
        let twice = later.0.as_ref() == kept.0.as_ref();
        if twice {
            std::mem::swap(later, kept);
        }
        twice
    });
    members
}

/// Entries of a container that is being written, and where its values begin.
pub(super) struct Entries {
    at: usize,
    base: usize,
    written: usize,
}

impl Entries {
    pub(super) fn begin(header: u32, count: usize, entries: usize, out: &mut Vec<u8>) -> Option<Self> {
        if count > COUNT as usize {
            return None;
        }
        out.resize(aligned(out.len()), 0);
        out.extend((header | count as u32).to_ne_bytes());
        let at = out.len();
        out.resize(at + 4 * entries, 0);
        Some(Entries { at, base: out.len(), written: 0 })
    }

    /// Notes the next value, which `out` holds from `before` on.
    pub(super) fn note(&mut self, kind: u32, before: usize, out: &mut [u8]) -> Option<()> {
        let (end, length) = (out.len() - self.base, out.len() - before);
        let held = if self.written.is_multiple_of(STRIDE) { IS_END | u32::try_from(end).ok()? } else { length as u32 };
        // all that the container holds counts, as its entries may have to say where it ends
        if end > LENGTH as usize {
            return None;
        }
        let place = self.at + 4 * self.written;
        out[place..place + 4].copy_from_slice(&(kind | held).to_ne_bytes());
        self.written += 1;
        Some(())
    }
}

impl Value<'_> {
    /// Appends the value and returns the kind of its entry.
    fn push(&self, out: &mut Vec<u8>) -> Option<u32> {
        match self {
            Value::Null => Some(NULL),
            Value::Bool(true) => Some(TRUE),
            Value::Bool(false) => Some(FALSE),
            Value::Text(text) => {
                out.extend(text.as_bytes());
                Some(TEXT)
            }
            Value::Number(token) => {
                out.resize(aligned(out.len()), 0);
                number::write(token, out)?;
                Some(NUMBER)
            }
            Value::Array(elements) => {
                let mut entries = Entries::begin(ARRAY, elements.len(), elements.len(), out)?;
                for element in elements {
                    let before = out.len();
                    let kind = element.push(out)?;
                    entries.note(kind, before, out)?;
                }
                Some(CONTAINER)
            }
            Value::Object(members) => {
                let mut entries = Entries::begin(OBJECT, members.len(), 2 * members.len(), out)?;
                for (key, _) in members {
                    let before = out.len();
                    out.extend(key.as_bytes());
                    entries.note(TEXT, before, out)?;
                }
                for (_, value) in members {
                    let before = out.len();
                    let kind = value.push(out)?;
                    entries.note(kind, before, out)?;
                }
                Some(CONTAINER)
            }
        }
    }
}
