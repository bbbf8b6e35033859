//! Many keys at once: one open scan, one probe each, in the order of the keys, so that neighbours share their pages.

use super::answer::{self, Once};
use crate::core::error::Error;
use crate::core::service::Service;
use crate::pg::convert::RawJsonb;
use crate::pg::store::cache;
use crate::pg::tally::Counter;

/// The fresh payloads among keys that are in order and do not repeat; by SQL in one statement where that is needed.
///
/// # Errors
/// What the look-ups raise.
pub fn fresh(service: &Service, keys: Vec<String>) -> Result<Vec<(String, RawJsonb)>, Error> {
    let mut taker = Once { counter: Counter::of(&service.name) };
    if super::target::current()?.is_none() {
        let asked = keys.len();
        let found = cache::many_by_sql(&service.name, keys)?;
        (0..asked).for_each(|at| taker.counter.count(at < found.len()));
        return Ok(found);
    }
    let mut found = Vec::new();
    for key in keys {
        pgrx::check_for_interrupts!();
        if let Some(payload) = answer::fresh(service, &key, &mut taker, None)? {
            found.push((key, RawJsonb(payload)));
        }
    }
    Ok(found)
}
