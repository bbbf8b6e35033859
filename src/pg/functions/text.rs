//! The text pair (raw payloads, byte for byte) and the few things that must touch datums directly.

use super::{cache, given, key_to_write};
use crate::core::error::Error;
use crate::core::json_text::make_safe;
use crate::pg::convert::{transaction_start, RawJsonb};
use crate::pg::encoding::{self, RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::ranges::jsonb;
use crate::pg::store::cache::{Incoming, Payload};
use crate::pg::store::registry;
use pgrx::datum::Interval;
use pgrx::prelude::*;

/// Stores a raw text as it is; `enrich_get_text` returns it byte for byte (it is kept as a JSON string).
///
/// # Errors
/// As `enrich_store`.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrich_store_text(
    service: Option<&str>,
    key: Option<Utf8>,
    payload: Option<RawText>,
    ttl: default!(Option<Interval>, "NULL"),
) -> Answer<i64> {
    let service = registry::service(given(service, "service")?)?;
    let key = key_to_write(&service, &given(key, "key")?)?.text;
    let payload = given(payload, "payload")?;
    let size = payload.with_bytes(|bytes| bytes.len()) as u64;
    if size > service.max_bytes {
        return Err(Error::PayloadTooLarge { size, limit: service.max_bytes }.into());
    }
    let now = transaction_start();
    let expires_at = cache::expiry(&service, &key, "success", ttl.as_ref(), now)?;
    let entry = Incoming { key, status: "success", fetched_at: now, expires_at, ..Default::default() };
    cache::store_one(&service, entry, Payload::Jsonb(Some(payload.to_jsonb())))
}

/// A JSON text as `jsonb`, what `jsonb` refuses replaced by U+FFFD; NULL when it is not JSON.
#[pg_extern(immutable, strict, parallel_safe, cost = 100)]
fn enrich_safe_jsonb(json: Utf8) -> Option<RawJsonb> {
    let safe = encoding::fit(make_safe(json.as_bytes()).ok()?);
    Some(RawJsonb(jsonb(&safe.text)))
}

/// Bytes of a value as it would stand uncompressed.
pub fn datum_size(datum: pg_sys::Datum) -> u64 {
    // SAFETY: the datum is a varlena (jsonb), possibly toasted.
    unsafe { pg_sys::toast_raw_datum_size(datum) as u64 }
}
