//! Member names of the objects that are open, to find one that is given twice: `jsonb` keeps the last member only.

use std::borrow::Cow;

/// The names of all open objects, the innermost last.
#[derive(Default)]
pub(super) struct Names<'a> {
    /// With escapes and without quotation marks.
    names: Vec<&'a str>,
    /// Where the names of each open object begin.
    begins: Vec<usize>,
}

impl<'a> Names<'a> {
    pub(super) fn enter(&mut self) {
        self.begins.push(self.names.len());
    }

    pub(super) fn name(&mut self, name: &'a str) {
        self.names.push(name);
    }

    /// Ends the innermost object; true when a name was given twice, as `jsonb` compares them.
    pub(super) fn leave(&mut self) -> bool {
        let begin = self.begins.pop().unwrap_or(0);
        let mut own: Vec<Cow<str>> = self.names.drain(begin..).map(decoded).collect();
        own.sort_unstable();
        own.windows(2).any(|pair| pair[0] == pair[1])
    }
}

/// What a name says. Escapes that `jsonb` refuses are replaced as in the text.
fn decoded(name: &str) -> Cow<'_, str> {
    if !name.contains('\\') {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    let mut units: Vec<u16> = Vec::new();
    let mut rest = name;
    while let Some(c) = rest.chars().next() {
        let (unit, length) = match (c, rest.as_bytes().get(1)) {
            ('\\', Some(b'u')) => (rest.get(2..6).and_then(|digits| u16::from_str_radix(digits, 16).ok()), 6),
            ('\\', Some(&letter)) => {
                flush(&mut out, &mut units);
                out.push(match letter {
                    b'b' => '\u{8}',
                    b'f' => '\u{c}',
                    b'n' => '\n',
                    b'r' => '\r',
                    b't' => '\t',
                    other => char::from(other),
                });
                rest = &rest[2..];
                continue;
            }
            _ => (None, c.len_utf8()),
        };
        match unit {
            Some(0) => units.push(0xfffd),
            Some(unit) => units.push(unit),
            None => {
                flush(&mut out, &mut units);
                out.push(c);
            }
        }
        rest = rest.get(length..).unwrap_or_default();
    }
    flush(&mut out, &mut units);
    Cow::Owned(out)
}

fn flush(out: &mut String, units: &mut Vec<u16>) {
    out.extend(char::decode_utf16(units.drain(..)).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_they_are_read() {
        for (one, other, same) in [
            ("a", "a", true),
            ("a", "A", false),
            ("a", r"\u0061", true),
            ("é", r"\u00E9", true),
            ("😀", r"\ud83d\ude00", true),
            ("/", r"\/", true),
            ("\u{fffd}", r"\u0000", true),
            (r"\u0000", r"\ud800", true),
            (r"\\u0061", r"\u005cu0061", true),
            (r"\\u0061", "a", false),
            (r"\n", r"\u000a", true),
            ("", "", true),
        ] {
            let mut names = Names::default();
            names.enter();
            names.name(one);
            names.enter();
            names.name(other);
            assert!(!names.leave(), "an inner object is another one");
            names.name(other);
            assert_eq!(names.leave(), same, "{one} {other}");
        }
    }
}
