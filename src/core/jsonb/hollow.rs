//! Whether a value holds nothing: null, `""`, `{}`, `[]`, or only such values inside.

use super::Value;

/// Ends at the first number, boolean or text that is not empty: of most answers the first member. However deep a value is
/// nested, the stack does not grow.
pub fn is_hollow(value: Value) -> bool {
    let mut inside = Vec::new();
    let mut next = Some(value);
    while let Some(value) = next {
        let found = match value {
            Value::Array(elements) => elements.elements().any(|element| holds(element, &mut inside)),
            Value::Object(object) => object.members().any(|(_, member)| holds(member, &mut inside)),
            leaf => holds(leaf, &mut inside),
        };
        if found {
            return false;
        }
        next = inside.pop();
    }
    true
}

/// Whether a value itself holds something; what may hold it further inside is put off.
fn holds<'a>(value: Value<'a>, inside: &mut Vec<Value<'a>>) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::Number(_) => true,
        Value::Text(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => {
            inside.push(value);
            false
        }
    }
}
