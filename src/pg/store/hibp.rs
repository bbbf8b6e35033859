//! Storing ranges of a downloaded corpus: into the cache, and off the list of what is to be asked.

use super::cache::{self, Incoming, Payload};
use super::indicators;
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

static NOT_TO_ASK: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_queue q
        WHERE q.service = $1 AND q.cache_key = ANY ($2) AND q.state <> 'in_flight' AND EXISTS (
            SELECT FROM @extschema@.enrichment_cache c
            WHERE c.service = q.service AND c.cache_key = q.cache_key
              AND c.response_status IN ('success', 'not_found') AND c.expires_at > pg_catalog.now())",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// Stores ranges, takes what is fresh now off the queue, and has the passwords that wait for them written.
pub fn store_ranges(service: &str, batch: Vec<(Incoming, Payload)>, keys: Vec<String>) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    cache::store(service, batch)?;
    spi::run(&NOT_TO_ASK, &[Arg::of(service), Arg::of(keys.clone())], Mode::Write, |_| {})?;
    indicators::answered(service, keys)
}
