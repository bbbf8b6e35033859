//! VirusTotal: the whole answer, the answer without its wrapper, or some of its attributes alone.

use crate::core::jsonb::{walk, Value};

/// The attributes in what was cached.
pub fn attributes(payload: Value) -> Value {
    let wrapped = walk(payload, [b"data".as_slice(), b"attributes"]);
    wrapped.or_else(|| walk(payload, [b"attributes".as_slice()])).unwrap_or(payload)
}
