//! For tests: `jsonb` as PostgreSQL would write it (its `convertJsonbValue`), from a JSON text.

use super::*;
use serde_json::Value as Json;

/// The bytes of a JSON text as `jsonb`.
pub fn jsonb(text: &str) -> Vec<u8> {
    bytes(&serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

pub fn bytes(json: &Json) -> Vec<u8> {
    let mut bytes = Vec::new();
    match json {
        Json::Array(_) | Json::Object(_) => {
            push(json, &mut bytes);
        }
        scalar => {
            push(&Json::Array(vec![scalar.clone()]), &mut bytes);
            let header = (1 | SCALAR | ARRAY).to_ne_bytes();
            bytes[..4].copy_from_slice(&header);
        }
    }
    bytes
}

/// Appends a value and returns the kind of its entry.
fn push(json: &Json, bytes: &mut Vec<u8>) -> u32 {
    match json {
        Json::Null => NULL,
        Json::Bool(true) => TRUE,
        Json::Bool(false) => FALSE,
        Json::String(text) => {
            bytes.extend(text.as_bytes());
            TEXT
        }
        Json::Number(number) => {
            bytes.resize(aligned(bytes.len()), 0);
            bytes.extend(numeric(&number.to_string(), false));
            NUMBER
        }
        Json::Array(elements) => {
            let elements: Vec<&Json> = elements.iter().collect();
            contain(ARRAY | elements.len() as u32, &elements, bytes)
        }
        Json::Object(members) => {
            let mut members: Vec<(&String, &Json)> = members.iter().collect();
            members.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
            let keys: Vec<Json> = members.iter().map(|(key, _)| Json::String(key.to_string())).collect();
            let entries: Vec<&Json> = keys.iter().chain(members.iter().map(|(_, value)| *value)).collect();
            contain(OBJECT | members.len() as u32, &entries, bytes)
        }
    }
}

fn contain(header: u32, values: &[&Json], bytes: &mut Vec<u8>) -> u32 {
    bytes.resize(aligned(bytes.len()), 0);
    bytes.extend(header.to_ne_bytes());
    let entries = bytes.len();
    bytes.resize(entries + 4 * values.len(), 0);
    let base = bytes.len();
    for (at, value) in values.iter().enumerate() {
        let before = bytes.len();
        let kind = push(value, bytes);
        let entry = match at % 32 {
            0 => kind | IS_END | (bytes.len() - base) as u32,
            _ => kind | (bytes.len() - before) as u32,
        };
        bytes[entries + 4 * at..][..4].copy_from_slice(&entry.to_ne_bytes());
    }
    CONTAINER
}

/// A decimal number as `numeric`, in its short form where it fits.
pub fn numeric(text: &str, long: bool) -> Vec<u8> {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i32 = exponent.parse().unwrap();
    let negative = mantissa.starts_with('-');
    let (whole, fraction) =
        mantissa.trim_start_matches('-').split_once('.').unwrap_or((mantissa.trim_start_matches('-'), ""));
    let scale = (fraction.len() as i32 - exponent).max(0);
    // all digits, the point moved, filled up to groups of four on both sides
    let mut digits = format!("{whole}{fraction}");
    let mut point = whole.len() as i32 + exponent;
    if point < 0 {
        digits.insert_str(0, &"0".repeat(-point as usize));
        point = 0;
    }
    digits.push_str(&"0".repeat((point - digits.len() as i32).max(0) as usize));
    let front = (4 - point % 4) % 4;
    digits.insert_str(0, &"0".repeat(front as usize));
    point += front;
    digits.push_str(&"0".repeat((4 - digits.len() % 4) % 4));
    let groups: Vec<u16> = (0..digits.len() / 4).map(|at| digits[4 * at..4 * at + 4].parse().unwrap()).collect();
    let zeros = groups.iter().take_while(|group| **group == 0).count();
    let last = groups.iter().rposition(|group| *group != 0).map_or(zeros, |at| at + 1);
    let kept = &groups[zeros..last];
    let weight = if kept.is_empty() { 0 } else { point / 4 - 1 - zeros as i32 };
    let negative = negative && !kept.is_empty();

    let mut body = Vec::new();
    if !long && scale <= 0x3F && (-64..=63).contains(&weight) {
        let sign = if weight < 0 { 0x40 } else { 0 };
        let header = 0x8000 | if negative { 0x2000 } else { 0 } | (scale as u16) << 7 | sign | (weight & 0x3F) as u16;
        body.extend(header.to_ne_bytes());
    } else {
        body.extend(((if negative { 0x4000 } else { 0 }) | scale as u16).to_ne_bytes());
        body.extend((weight as i16).to_ne_bytes());
    }
    body.extend(kept.iter().flat_map(|group| group.to_ne_bytes()));
    let size = 4 + body.len() as u32;
    let mut bytes = (if cfg!(target_endian = "little") { size << 2 } else { size }).to_ne_bytes().to_vec();
    bytes.extend(body);
    bytes
}
