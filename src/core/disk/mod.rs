//! The disk cache of the older programs: its layouts, which file is whose, and what lies in the files.

pub mod body;
pub mod item;
pub mod known;
pub mod layout;
pub mod recognise;
pub mod report;
#[cfg(test)]
pub(crate) mod tests;
pub mod written;

use sha2::{Digest, Sha256};

/// SHA-256 of a key's text, by which the older programs name files.
pub fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// A digest as files are named by it.
pub fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads 64 hexadecimal digits of either case.
pub fn parse_digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let value = |digit: u8| char::from(digit).to_digit(16);
        *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
    }
    Some(bytes)
}
