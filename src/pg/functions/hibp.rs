//! Packed hash ranges in SQL: one suffix looked up, and the whole as JSON.

use crate::core::hibp::Suffix;
use crate::pg::convert::{RawBytea, RawJsonb};
use crate::pg::ranges;
use pgrx::prelude::*;

/// How often HIBP has seen the password of this suffix; 0 when the range does not hold it.
#[pg_extern(immutable, strict, parallel_safe, cost = 100)]
fn enrich_hibp_count(ranges: RawBytea, suffix: &str) -> i64 {
    Suffix::parse(suffix.as_bytes()).map_or(0, |suffix| ranges::count(ranges.0, &suffix) as i64)
}

/// The range as an object of suffixes and counts.
#[pg_extern(immutable, strict, parallel_safe, cost = 1000)]
fn enrich_hibp_range(ranges: RawBytea) -> RawJsonb {
    RawJsonb(ranges::expand(ranges.0))
}
