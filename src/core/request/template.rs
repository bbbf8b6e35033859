//! Templates: text with `{name}`s. A brace that does not open a name is text, so JSON bodies need no escape.

use std::borrow::Cow;

/// What stands for a name.
pub(super) enum Value<'a> {
    /// A text that is encoded for its place.
    Data(&'a str),
    /// A text of the same author as the template, taken as it is.
    Literal(&'a str),
    /// Known, but there is none.
    Absent,
    Unknown,
}

/// A piece of a template.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Name(&'a str),
}

/// Cuts a template into pieces.
pub(super) fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some((name, after)) = name_at_start(rest) {
            rest = after;
            return Some(Piece::Name(name));
        }
        let next = rest.char_indices().skip(1).find(|&(at, c)| c == '{' && name_at_start(&rest[at..]).is_some());
        let (text, after) = rest.split_at(next.map_or(rest.len(), |(at, _)| at));
        rest = after;
        Some(Piece::Text(text))
    })
}

fn name_at_start(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix('{')?.split_once('}')?;
    let letters = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (name.starts_with(|c: char| c.is_ascii_lowercase()) && name.bytes().all(letters)).then_some((name, after))
}

/// Replaces the names of a template; `None` when a value is absent.
///
/// # Errors
/// The name that is not known.
pub(super) fn render<'a, 'b: 'a>(
    template: &str,
    value: impl Fn(&str) -> Value<'b>,
    encode: impl Fn(&'b str) -> Cow<'b, str>,
) -> Result<Option<String>, String> {
    let mut out = String::with_capacity(template.len() + 64);
    for piece in pieces(template) {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Name(name) => match value(name) {
                Value::Data(text) => out.push_str(&encode(text)),
                Value::Literal(text) => out.push_str(text),
                Value::Absent => return Ok(None),
                Value::Unknown => return Err(name.to_owned()),
            },
        }
    }
    Ok(Some(out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_told_from_braces_of_json() {
        let found: Vec<Piece> = pieces(r#"{"ip":"{key}","o":{}}{Bad}{a b}"#).collect();
        assert_eq!(found, [Piece::Text(r#"{"ip":""#), Piece::Name("key"), Piece::Text(r#"","o":{}}{Bad}{a b}"#)]);
        assert_eq!(pieces("{a}{b_2}").collect::<Vec<_>>(), [Piece::Name("a"), Piece::Name("b_2")]);
        assert_eq!(pieces("").count(), 0);
    }

    proptest! {
        #[test]
        fn pieces_join_to_the_template(template in "[{}a-z_\\\\\"é ]{0,60}") {
            let mut joined = String::new();
            for piece in pieces(&template) {
                match piece {
                    Piece::Text(text) => joined.push_str(text),
                    Piece::Name(name) => joined.push_str(&format!("{{{name}}}")),
                }
            }
            prop_assert_eq!(joined, template);
        }
    }
}
