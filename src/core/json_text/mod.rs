//! JSON texts made fit for `jsonb`, otherwise byte for byte as they came.
//!
//! One pass over the bytes, no tree, no recursion (RFC 8259, strictly). What `jsonb` refuses is replaced: `\u0000` and
//! escapes of lone surrogates by `\ufffd`, invalid UTF-8 by U+FFFD, numbers that exceed `numeric` by the same token as a
//! string. A byte order mark is dropped. Of a name that an object gives twice `jsonb` keeps the last member: that is left
//! to it, and said.

#[cfg(any(test, feature = "pg_test", feature = "outside"))]
pub mod corpus;
mod encoding;
mod names;
mod number;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

pub use encoding::{for_encoding, Keeps};
use names::Names;

/// The most digits that numbers of one text may take when they are written out, beside those of the text itself: nine
/// bytes, `1e131071`, are read back as 131,072.
const MAX_DIGITS: u64 = 1 << 20;

/// The deepest nesting taken. PostgreSQL's own limit is its stack (`max_stack_depth`, 2 MB by default, reached beyond
/// 6,000 levels); recorded answers have at most 12.
pub const MAX_DEPTH: usize = 512;

/// A JSON text that `jsonb` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safe {
    pub text: String,
    /// Something was replaced, or will be left out by `jsonb`.
    pub altered: bool,
}

/// Why a text cannot be made fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsafe {
    /// `at` is the offset in bytes, after any byte order mark and repair of UTF-8.
    NotJson {
        at: usize,
        why: &'static str,
    },
    TooDeep {
        depth: usize,
    },
    /// Nothing but white space.
    Empty,
}

impl std::fmt::Display for Unsafe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Unsafe::NotJson { at, why } => write!(f, "not json: {why} at byte {at}"),
            Unsafe::TooDeep { depth } => write!(f, "nested deeper than {depth} levels"),
            Unsafe::Empty => f.write_str("empty"),
        }
    }
}

/// Checks a text and replaces what `jsonb` refuses. Making a safe text safe changes nothing.
///
/// # Errors
/// The bytes are not one JSON text, or are nested deeper than [`MAX_DEPTH`].
pub fn make_safe(bytes: &[u8]) -> Result<Safe, Unsafe> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = String::from_utf8_lossy(bytes);
    let repaired = matches!(text, Cow::Owned(_));
    let mut scan = Scan {
        text: &text,
        at: 0,
        out: String::new(),
        copied: 0,
        nesting: Nesting::default(),
        names: Names::default(),
        repeated: false,
        digits: 0,
    };
    scan.document()?;
    let Scan { mut out, copied, repeated, .. } = scan;
    if copied == 0 {
        return Ok(Safe { text: text.into_owned(), altered: repaired || repeated });
    }
    out.push_str(&text[copied..]);
    Ok(Safe { text: out, altered: true })
}

/// What may come next.
enum Expect {
    Value,
    ValueOrEnd,
    Name,
    NameOrEnd,
    CommaOrEnd,
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    /// The text with replacements, up to `copied` of the original; empty until the first one.
    out: String,
    copied: usize,
    nesting: Nesting,
    names: Names<'a>,
    /// An object gives a name twice.
    repeated: bool,
    /// That numbers take beyond their tokens when they are written out.
    digits: u64,
}

impl Scan<'_> {
    fn document(&mut self) -> Result<(), Unsafe> {
        self.white();
        if self.at == self.text.len() {
            return Err(Unsafe::Empty);
        }
        let mut expect = Expect::Value;
        loop {
            self.white();
            expect = match (expect, self.peek()) {
                (Expect::CommaOrEnd, b',') if self.nesting.in_object() => self.take(Expect::Name),
                (Expect::CommaOrEnd, b',') => self.take(Expect::Value),
                (Expect::CommaOrEnd | Expect::NameOrEnd, b'}') if self.nesting.in_object() => self.close(),
                (Expect::CommaOrEnd | Expect::ValueOrEnd, b']') if !self.nesting.in_object() => self.close(),
                (Expect::CommaOrEnd, _) => return self.fail("expected a comma or the end of the value"),
                (Expect::Name | Expect::NameOrEnd, b'"') => {
                    let begin = self.at + 1;
                    self.string()?;
                    self.names.name(&self.text[begin..self.at - 1]);
                    self.white();
                    match self.peek() {
                        b':' => self.take(Expect::Value),
                        _ => return self.fail("expected a colon"),
                    }
                }
                (Expect::Name | Expect::NameOrEnd, _) => return self.fail("expected a member name"),
                (Expect::Value | Expect::ValueOrEnd, first) => self.value(first)?,
            };
            if matches!(expect, Expect::CommaOrEnd) && self.nesting.depth == 0 {
                break;
            }
        }
        self.white();
        match self.at == self.text.len() {
            true => Ok(()),
            false => self.fail("text after the value"),
        }
    }

    /// Reads a scalar, or enters an array or object.
    fn value(&mut self, first: u8) -> Result<Expect, Unsafe> {
        match first {
            b'"' => self.string()?,
            b'{' => {
                self.nesting.enter(true)?;
                self.names.enter();
                return Ok(self.take(Expect::NameOrEnd));
            }
            b'[' => {
                self.nesting.enter(false)?;
                return Ok(self.take(Expect::ValueOrEnd));
            }
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return self.fail("expected a value"),
        }
        Ok(Expect::CommaOrEnd)
    }

    fn take(&mut self, next: Expect) -> Expect {
        self.at += 1;
        next
    }

    fn close(&mut self) -> Expect {
        if self.nesting.in_object() {
            self.repeated |= self.names.leave();
        }
        self.nesting.depth -= 1;
        self.take(Expect::CommaOrEnd)
    }

    /// The next byte; 0, which no JSON text holds outside a string, at the end.
    fn peek(&self) -> u8 {
        self.text.as_bytes().get(self.at).copied().unwrap_or(0)
    }

    fn white(&mut self) {
        while matches!(self.peek(), b' ' | b'\n' | b'\r' | b'\t') {
            self.at += 1;
        }
    }

    fn literal(&mut self, word: &'static str) -> Result<(), Unsafe> {
        if self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(());
        }
        self.fail("expected a value")
    }

    fn number(&mut self) -> Result<(), Unsafe> {
        let rest = &self.text.as_bytes()[self.at..];
        let (length, digits) = match number::scan(rest) {
            Ok(found) => found,
            Err(at) => {
                self.at += at;
                return self.fail("malformed number");
            }
        };
        let more = digits.map(|digits| self.digits + digits.saturating_sub(length as u64));
        self.digits = more.filter(|more| *more <= MAX_DIGITS).unwrap_or(self.digits);
        if more.is_none_or(|more| more > MAX_DIGITS) {
            let token = &self.text[self.at..self.at + length];
            let quoted = format!("\"{token}\"");
            self.replace(length, &quoted);
        } else {
            self.at += length;
        }
        Ok(())
    }

    /// Reads a string from its opening to past its closing quotation mark.
    fn string(&mut self) -> Result<(), Unsafe> {
        self.at += 1;
        loop {
            self.at += plain_run(&self.text.as_bytes()[self.at..]);
            match self.peek() {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => self.escape()?,
                _ if self.at == self.text.len() => return self.fail("unterminated string"),
                _ => return self.fail("control character in a string"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), Unsafe> {
        match self.text.as_bytes().get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => match self.code_unit(self.at) {
                None => self.fail("malformed escape"),
                Some(0xd800..=0xdbff) if matches!(self.code_unit(self.at + 6), Some(0xdc00..=0xdfff)) => {
                    self.at += 12;
                    Ok(())
                }
                Some(0 | 0xd800..=0xdfff) => {
                    self.replace(6, "\\ufffd");
                    Ok(())
                }
                Some(_) => {
                    self.at += 6;
                    Ok(())
                }
            },
            _ => self.fail("malformed escape"),
        }
    }

    /// The code unit of an escape `\uXXXX` at an offset.
    fn code_unit(&self, at: usize) -> Option<u16> {
        let escape = self.text.as_bytes().get(at..at + 6)?;
        if &escape[..2] != b"\\u" {
            return None;
        }
        escape[2..].iter().try_fold(0, |unit, &digit| {
            let value = char::from(digit).to_digit(16)?;
            Some(unit << 4 | value as u16)
        })
    }

    /// Puts other text in the place of the next `length` bytes.
    fn replace(&mut self, length: usize, with: &str) {
        if self.copied == 0 {
            self.out.reserve(self.text.len() + 64);
        }
        self.out.push_str(&self.text[self.copied..self.at]);
        self.out.push_str(with);
        self.at += length;
        self.copied = self.at;
    }

    fn fail<T>(&self, why: &'static str) -> Result<T, Unsafe> {
        let why = if self.at >= self.text.len() { "unexpected end" } else { why };
        Err(Unsafe::NotJson { at: self.at, why })
    }
}

/// Which of the open levels are objects, one bit each.
#[derive(Default)]
struct Nesting {
    objects: [u64; MAX_DEPTH / 64],
    depth: usize,
}

impl Nesting {
    fn enter(&mut self, object: bool) -> Result<(), Unsafe> {
        if self.depth == MAX_DEPTH {
            return Err(Unsafe::TooDeep { depth: MAX_DEPTH });
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        match object {
            true => self.objects[word] |= bit,
            false => self.objects[word] &= !bit,
        }
        self.depth += 1;
        Ok(())
    }

    fn in_object(&self) -> bool {
        self.depth.checked_sub(1).is_some_and(|level| self.objects[level / 64] >> (level % 64) & 1 == 1)
    }
}

/// How many bytes from the start are neither a quotation mark, a backslash nor a control character: eight at a time.
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let mut run = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7]]);
        let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word;
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (zero_byte(word ^ (ONES * 0x22)) | zero_byte(word ^ (ONES * 0x5c)) | control) & HIGH;
        if found != 0 {
            // a borrow can only set a bit above the first true one, so the lowest is exact
            return run + found.trailing_zeros() as usize / 8;
        }
        run += 8;
    }
    let special = |b: &u8| *b == b'"' || *b == b'\\' || *b < 0x20;
    run + bytes[run..].iter().position(special).unwrap_or(bytes.len() - run)
}
