//! Objects made of values that are `jsonb` already: their bytes are taken over as they are.

use super::build::{in_order, Entries};
use super::{aligned, word, ARRAY, CONTAINER, KIND, NULL, NUMBER, OBJECT, SCALAR, TEXT};

/// A value of an object that is made.
#[derive(Clone)]
pub enum Part<'a> {
    Null,
    /// A text of ASCII, which all encodings of a database share.
    Text(&'a str),
    /// A whole `jsonb`, its bytes without the length in front of them.
    Jsonb(&'a [u8]),
    Object(Vec<(&'a str, Part<'a>)>),
}

/// The bytes of a `jsonb` with these members, without the length in front of them; of a key that comes twice the last one. `None`
/// where a part is no `jsonb` or all of them are more than one holds.
pub fn object(members: Vec<(&str, Part)>) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    push(members, &mut out)?;
    Some(out)
}

fn push(members: Vec<(&str, Part)>, out: &mut Vec<u8>) -> Option<u32> {
    let members = in_order(members);
    let mut entries = Entries::begin(OBJECT, members.len(), 2 * members.len(), out)?;
    for (key, _) in &members {
        let before = out.len();
        out.extend(key.as_bytes());
        entries.note(TEXT, before, out)?;
    }
    for (_, part) in members {
        let before = out.len();
        let kind = match part {
            Part::Null => NULL,
            Part::Text(text) => {
                out.extend(text.as_bytes());
                TEXT
            }
            Part::Jsonb(bytes) => whole(bytes, out)?,
            Part::Object(members) => push(members, out)?,
        };
        entries.note(kind, before, out)?;
    }
    Some(CONTAINER)
}

/// Appends a whole `jsonb` as a value. One that is a scalar lies in an array of one element, as PostgreSQL keeps it.
fn whole(bytes: &[u8], out: &mut Vec<u8>) -> Option<u32> {
    let header = word(bytes, 0)?;
    if header & SCALAR == 0 {
        if header & (OBJECT | ARRAY) == 0 {
            return None;
        }
        out.resize(aligned(out.len()), 0);
        out.extend(bytes);
        return Some(CONTAINER);
    }
    let kind = word(bytes, 4)? & KIND;
    if kind == NUMBER {
        out.resize(aligned(out.len()), 0);
    }
    out.extend(bytes.get(8..)?);
    Some(kind)
}
