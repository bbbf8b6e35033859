//! Following a path, exactly as `jsonb_extract_path` does.

use super::{Container, Value};

/// The value at the end of a path; the empty path leads to the value itself.
pub fn walk<'a, 'p>(mut value: Value<'a>, path: impl IntoIterator<Item = &'p [u8]>) -> Option<Value<'a>> {
    for step in path {
        value = match value {
            Value::Object(object) => object.member(step)?,
            Value::Array(array) => index(&array, step)?,
            _ => return None,
        };
    }
    Some(value)
}

/// The element of an array that a step names: a number as C's `strtol` reads it, below zero counted from the end.
fn index<'a>(array: &Container<'a>, step: &[u8]) -> Option<Value<'a>> {
    let skipped = step.iter().take_while(|byte| matches!(byte, b' ' | 0x09..=0x0d)).count();
    let number: i32 = std::str::from_utf8(&step[skipped..]).ok()?.parse().ok()?;
    let at = if number < 0 { array.len().checked_sub(number.unsigned_abs() as usize)? } else { number as usize };
    array.element(at)
}
