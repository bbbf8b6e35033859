//! Lists: JSON arrays, and texts that hold one.

use super::{is_space, text};
use crate::core::jsonb::Value;
use std::borrow::Cow;

/// One text of a list.
pub type Item<'a> = Cow<'a, [u8]>;

/// The texts of an array of texts, numbers and truth values (none of it, if it has none), or of a text that is a list with
/// commas, or a list as Python prints it.
pub fn texts(value: Value) -> Option<Vec<Item>> {
    match value {
        Value::Array(array) => Some(array.elements().filter_map(text).collect()),
        Value::Text(list) => split(list),
        _ => None,
    }
}

/// The keys of an object in the order of their bytes; else as [`texts`].
pub fn names(value: Value) -> Option<Vec<Item>> {
    let Value::Object(object) = value else { return texts(value) };
    let mut names: Vec<Item> = object.members().map(|(key, _)| Cow::Borrowed(key)).collect();
    names.sort_unstable();
    Some(names)
}

fn split(list: &[u8]) -> Option<Vec<Item<'_>>> {
    let python = list.len() > 1 && list.starts_with(b"[") && list.ends_with(b"]");
    let (quotes, around): (&[u8], &[u8]) = if python { (b"'\"", b"[]'\" ") } else { (b"", b" ") };
    let nothing = |byte: &u8| around.contains(byte) || *byte == b',';
    if list.iter().all(nothing) {
        return None;
    }
    let start = list.iter().take_while(|byte| around.contains(byte)).count();
    let end = list[start..].iter().rev().take_while(|byte| around.contains(byte)).count();
    let list = &list[start..list.len() - end];

    let quote = |byte: Option<&u8>| usize::from(byte.is_some_and(|byte| quotes.contains(byte)));
    let mut items = Vec::new();
    let mut from = 0;
    let mut next = 0;
    while let Some(comma) = list[next..].iter().position(|byte| *byte == b',').map(|at| next + at) {
        // what belongs to the comma: space on both sides, and a quote beyond it
        let spaces = list[from..comma].iter().rev().take_while(|byte| is_space(**byte)).count();
        let before = comma - spaces;
        items.push(&list[from..before - quote(list[from..before].last())]);
        let spaces = list[comma + 1..].iter().take_while(|byte| is_space(**byte)).count();
        let after = comma + 1 + spaces;
        from = after + quote(list.get(after));
        next = from;
    }
    items.push(&list[from..]);
    Some(items.into_iter().filter(|item| !item.is_empty()).map(Cow::Borrowed).collect())
}
