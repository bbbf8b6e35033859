//! Host names: RFC 1123 labels, underscores allowed, as names in the wild have them.

use super::{problem, Key, KeyForm, KeyProblem};

/// The longest name in text form (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

pub(super) fn host(text: &str) -> Result<Key, KeyProblem> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() > MAX_NAME {
        return problem(format!("has {} bytes, more than the {MAX_NAME} of a host name", name.len()));
    }
    let mut last = "";
    for label in name.split('.') {
        check_label(label)?;
        last = label;
    }
    // a malformed address is not a name (WHATWG URL, "ends in a number")
    if last.bytes().all(|b| b.is_ascii_digit()) || hexadecimal_number(last) {
        return problem("ends in a number and is neither an IP address nor a host name");
    }
    Ok(Key { text: name.to_ascii_lowercase(), form: KeyForm::Host })
}

fn check_label(label: &str) -> Result<(), KeyProblem> {
    if label.is_empty() {
        return problem("has an empty label");
    }
    if !label.is_ascii() {
        return problem("holds characters outside ASCII; give the xn-- form of the name");
    }
    if label.len() > MAX_LABEL {
        return problem(format!("has a label of {} characters, more than {MAX_LABEL}", label.len()));
    }
    if let Some(c) = label.chars().find(|&c| !(c.is_ascii_alphanumeric() || c == '-' || c == '_')) {
        return problem(format!("holds the character {c:?}, which no host name has"));
    }
    if label.starts_with('-') || label.ends_with('-') {
        return problem("has a label that begins or ends with a hyphen");
    }
    Ok(())
}

fn hexadecimal_number(label: &str) -> bool {
    label.len() >= 2 && label[..2].eq_ignore_ascii_case("0x") && label[2..].bytes().all(|b| b.is_ascii_hexdigit())
}
