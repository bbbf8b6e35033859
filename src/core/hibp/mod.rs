//! Ranges of the Pwned Passwords API: what an answer says, and the compact form in which it is kept.

pub mod corpus;
mod jsonb;
mod packed;
mod range;
#[cfg(test)]
mod tests;

pub use jsonb::{jsonb_size, pack_jsonb, write_jsonb};
pub use packed::{find, find_in_part, first_look, pack, seen_any, summary, to_json, Suffix, RECORD};
pub use range::{parse_range, Range};
