//! Looking into a JSON text without building a tree of it.
//!
//! Members are found by skipping over what is not asked for. serde_json skips without recursion, so its limit of 128
//! levels (which its tree has) does not apply, and a body of 1 MB costs one pass for its outermost members.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON text, its outermost members found. Of members of the same name the last counts, as in `jsonb`.
pub(super) struct Document<'a> {
    root: &'a str,
    members: Members<'a>,
}

impl<'a> Document<'a> {
    /// Takes a text that is JSON already (see [`super::json_text`]).
    pub(super) fn new(text: &'a str) -> Self {
        Document { root: text.trim(), members: members(text).unwrap_or_default() }
    }

    /// The text of the value at a dotted path; numbers count into arrays; the empty path is the whole.
    pub(super) fn get(&self, path: &str) -> Option<&'a str> {
        if path.is_empty() {
            return Some(self.root);
        }
        let mut names = path.split('.');
        let first = names.next()?;
        let mut value = match self.members.get(first) {
            Some(value) => value,
            None => element(self.root, first)?,
        };
        for name in names {
            value = match members(value) {
                Some(members) => members.get(name)?,
                None => element(value, name)?,
            };
        }
        Some(value)
    }

    /// Whether there is a value at a path that is not null.
    pub(super) fn has(&self, path: &str) -> bool {
        self.get(path).is_some_and(|value| value != "null")
    }

    /// The string at a path.
    pub(super) fn string(&self, path: &str) -> Option<String> {
        self.get(path).filter(|value| value.starts_with('"')).and_then(|value| serde_json::from_str(value).ok())
    }

    /// Whether the value at a path tells nothing: it is not an object, or all its members but the named ones are null,
    /// `""`, `[]` or `{}`.
    pub(super) fn empty_except(&self, path: &str, names: &[String]) -> bool {
        let Some(members) = self.get(path).and_then(members) else {
            return true;
        };
        members.0.iter().all(|(name, value)| names.iter().any(|known| known == name) || is_empty(value))
    }
}

fn is_empty(value: &str) -> bool {
    match value.as_bytes() {
        b"null" | b"\"\"" => true,
        [b'[', inner @ .., b']'] | [b'{', inner @ .., b'}'] => inner.trim_ascii().is_empty(),
        _ => false,
    }
}

fn members(text: &str) -> Option<Members<'_>> {
    match text.trim_start().starts_with('{') {
        true => serde_json::from_str(text).ok(),
        false => None,
    }
}

fn element<'a>(text: &'a str, index: &str) -> Option<&'a str> {
    let index: usize = index.parse().ok()?;
    let elements: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    elements.get(index).map(|value| value.get())
}

#[derive(Default)]
struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

impl<'a> Members<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|&(_, value)| value)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;
        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some((Name(name), value)) = map.next_entry::<Name<'de>, &'de RawValue>()? {
                    members.push((name, value.get()));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Collect)
    }
}

#[derive(serde::Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#" {"a":{"b":[{"c":"x\n"},null,{}]},"n":null,"a\u002f":7,"d":1,"d":2,"e":"","":{"":3}} "#;

    #[test]
    fn paths_lead_through_objects_and_arrays() {
        let document = Document::new(TEXT);
        for (path, value) in [
            ("a.b.0.c", Some(r#""x\n""#)),
            ("a.b.1", Some("null")),
            ("a.b.3", None),
            ("a.b.x", None),
            ("a.x", None),
            ("a.b.0.c.d", None),
            ("a/", Some("7")),
            ("d", Some("2")),
            (".", Some("3")),
            ("missing", None),
        ] {
            assert_eq!(document.get(path), value, "{path}");
        }
        assert_eq!(document.get(""), Some(TEXT.trim()));
        assert_eq!(document.string("a.b.0.c"), Some("x\n".to_owned()));
        assert_eq!(document.string("d"), None);
        assert!(document.has("e") && !document.has("n") && !document.has("missing"));
        assert_eq!(Document::new("[[1],[2,3]]").get("1.0"), Some("2"));
        assert_eq!(Document::new("17").get("x"), None);
    }

    #[test]
    fn an_object_of_empty_values_tells_nothing() {
        for (text, nothing) in [
            (r#"{"ip":{"number":"1.2.3.4","count":null,"asname":"","threatfeeds":[ ],"ssh":{}}}"#, true),
            (r#"{"ip":{"number":"1.2.3.4","count":0}}"#, false),
            (r#"{"ip":{"as":null,"asname":" "}}"#, false),
            (r#"{"ip":{}}"#, true),
            (r#"{"ip":[]}"#, true),
            (r#"{"ip":null}"#, true),
            ("{}", true),
        ] {
            assert_eq!(Document::new(text).empty_except("ip", &["number".to_owned()]), nothing, "{text}");
        }
    }

    #[test]
    fn values_nested_beyond_the_limit_of_a_tree_are_found() {
        let deep = format!("{{\"deep\":{}{},\"x\":1}}", "[".repeat(500), "]".repeat(500));
        assert!(serde_json::from_str::<serde_json::Value>(&deep).is_err());
        assert_eq!(Document::new(&deep).get("x"), Some("1"));
    }
}
