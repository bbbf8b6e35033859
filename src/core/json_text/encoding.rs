//! JSON texts for a database whose encoding is not UTF-8.
//!
//! There `jsonb` refuses `\uXXXX` of a character that the encoding lacks, and takes UTF-8's bytes for other characters. So a
//! text is written in ASCII: characters that the encoding has as escapes, which PostgreSQL translates itself, and the others as
//! the text of their escape, `\\u4e2d`, which says which character it was.

use super::Safe;

/// How a database keeps texts.
#[derive(Clone, Copy)]
pub enum Keeps<'a> {
    /// The characters of an encoding other than UTF-8.
    Characters(&'a dyn Fn(char) -> bool),
    /// Any bytes, unlooked at (SQL_ASCII): there UTF-8 is kept as it is, and escapes beyond ASCII are what is refused.
    Bytes,
}

/// Writes a text that is safe in UTF-8 for such a database.
pub fn for_encoding(safe: Safe, keeps: Keeps) -> Safe {
    let Safe { text, mut altered } = safe;
    if text.is_ascii() && !text.contains("\\u") {
        return Safe { text, altered };
    }
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let (c, length) = match c {
            '\\' => match escaped(rest) {
                Some(found) => found,
                None => {
                    // the escaped character may be a backslash, which begins no escape of its own
                    out.push_str(&rest[..2]);
                    rest = &rest[2..];
                    continue;
                }
            },
            c => (c, c.len_utf8()),
        };
        let (given, after) = rest.split_at(length);
        match keeps {
            _ if c.is_ascii() => out.push_str(given),
            Keeps::Bytes => out.push(c),
            Keeps::Characters(has) if has(c) => push_escape(&mut out, c, "\\u"),
            Keeps::Characters(_) => {
                push_escape(&mut out, c, "\\\\u");
                altered = true;
            }
        }
        rest = after;
    }
    Safe { text: out, altered }
}

/// The character of an escape `\uXXXX`, or of two for one, at the start of a text, and the length of it.
fn escaped(text: &str) -> Option<(char, usize)> {
    let unit = |at: usize| u32::from_str_radix(text.get(at..)?.strip_prefix("\\u")?.get(..4)?, 16).ok();
    let first = unit(0)?;
    match char::from_u32(first) {
        Some(c) => Some((c, 6)),
        None => {
            let second = unit(6)?;
            let code = 0x10000 + ((first - 0xd800) << 10) + second.checked_sub(0xdc00)?;
            Some((char::from_u32(code)?, 12))
        }
    }
}

fn push_escape(out: &mut String, c: char, begin: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    for unit in c.encode_utf16(&mut [0; 2]) {
        out.push_str(begin);
        out.extend([12, 8, 4, 0].map(|shift| char::from(HEX[usize::from(*unit >> shift & 15)])));
    }
}

#[cfg(test)]
mod tests {
    use super::super::make_safe;
    use super::*;
    use proptest::prelude::*;

    fn latin1(c: char) -> bool {
        u32::from(c) < 0x100
    }

    fn written(text: &str, keeps: Keeps) -> (String, bool) {
        let Safe { text, altered } = for_encoding(make_safe(text.as_bytes()).unwrap(), keeps);
        (text, altered)
    }

    #[test]
    fn what_the_encoding_has_is_escaped_and_what_it_lacks_stays_readable() {
        let latin1 = Keeps::Characters(&latin1);
        for (given, expected, altered) in [
            (r#"["plain", 1]"#, r#"["plain", 1]"#, false),
            (r#""é \u00e9""#, r#""\u00e9 \u00e9""#, false),
            (r#""中 \u4E2D""#, r#""\\u4e2d \\u4e2d""#, true),
            (r#""😀""#, r#""\\ud83d\\ude00""#, true),
            (r#""\ud83d\ude00""#, r#""\\ud83d\\ude00""#, true),
            (r#""\\u4e2d \\é \"é""#, r#""\\u4e2d \\\u00e9 \"\u00e9""#, false),
            (r#""\u0041\n\u0001""#, r#""\u0041\n\u0001""#, false),
            (r#""\u0000""#, r#""\\ufffd""#, true),
            (r#"{"é":1}"#, r#"{"\u00e9":1}"#, false),
        ] {
            assert_eq!(written(given, latin1), (expected.to_owned(), altered), "{given}");
        }
        assert_eq!(
            written(r#""é \u4e2d \ud83d\ude00 \\u4e2d""#, Keeps::Bytes),
            (r#""é 中 😀 \\u4e2d""#.to_owned(), false)
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_ascii_and_says_the_same_where_the_encoding_has_all(text in any::<String>()) {
            let given = serde_json::Value::from(text);
            let (out, altered) = written(&given.to_string(), Keeps::Characters(&|_| true));
            prop_assert!(out.is_ascii());
            let holds_null = given.as_str().unwrap().contains('\0');
            prop_assert_eq!(altered, holds_null);
            if !holds_null {
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), given.clone());
                let (out, _) = written(&given.to_string(), Keeps::Bytes);
                prop_assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), given);
            }
        }
    }
}
