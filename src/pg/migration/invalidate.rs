//! What an import has kept for keys that nobody had named, when keys are invalidated: it would answer in place of the row.

use crate::core::disk::digest;
use crate::core::disk::item::digests;
use crate::core::error::Error;
use crate::core::ttl::JITTER_PERCENT;
use crate::pg::store::migration::invalidated::{self, Named};
use crate::pg::store::migration::orphans;
use crate::pg::store::registry;

/// A key in its normal form, and as the caller writes it.
pub struct Written<'a> {
    pub key: &'a str,
    pub written: &'a str,
}

/// Makes what waits for a key (or all keys) of a service expire now, or deletes it (`hard`); returns how many answers that were.
///
/// To be called before the rows of the cache are invalidated: who takes an answer over locks that first. So either it is gone from
/// there when this has it, and the row it became is found next, or whoever would take it over waits and finds nothing.
///
/// # Errors
/// What PostgreSQL says.
pub fn invalidate(service: &str, key: Option<&Written>, hard: bool) -> Result<i64, Error> {
    if !orphans::any(service)? {
        return Ok(0);
    }
    let mut own = key.map(|key| digests(key.key)).unwrap_or_default();
    own.extend(key.map(|key| digest(key.written)));
    let named = key.map(|key| Named { key: key.key, digests: own.iter().map(<[u8; 32]>::as_slice).collect() });
    if !hard {
        return invalidated::expire(service, named, 1.0 + JITTER_PERCENT as f64 / 100.0);
    }
    let deleted = invalidated::delete(service, named)?;
    if deleted > 0 && !orphans::any(service)? {
        registry::announce_orphans()?;
    }
    Ok(deleted)
}
