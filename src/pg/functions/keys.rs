//! Keys in SQL: hash, normal form, eligibility, password prefixes, and the check of a registry row.

use crate::core::address;
use crate::core::error::Error;
use crate::core::hash::{cache_key_hash, hibp_split};
use crate::core::key::{self, KeyKind};
use crate::core::limiter::parse_limits;
use crate::core::request;
use crate::core::rules::Rules;
use crate::core::service::{Method, ResponseFormat, Service};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use pgrx::prelude::*;

/// The first 16 bytes of SHA-256 over service, a zero byte, key: `cache_key_hash` of the cache.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_key_hash(service: &str, cache_key: Utf8) -> pgrx::Uuid {
    pgrx::Uuid::from_bytes(cache_key_hash(service, &cache_key))
}

/// The normal form of a key of this kind, NULL when it cannot be one.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_normalize_key(key_kind: &str, key: Utf8) -> Answer<Option<RawText>> {
    let kind = kind_named(key_kind)?;
    Ok(key::normalise(kind, &key).ok().map(|key| RawText::of_utf8(&key.text)))
}

/// Why a key is never sent to a provider, NULL when it may be.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_ineligible(key_kind: &str, key: Utf8) -> Answer<Option<String>> {
    let kind = kind_named(key_kind)?;
    Ok(match key::normalise(kind, &key) {
        Err(problem) => Some(format!("no key, it {}", problem.why)),
        Ok(key) => address::key_eligibility(&key).err().map(|why| why.words().to_string()),
    })
}

/// The first five hexadecimal digits of a password's SHA-1: all of it that ever leaves.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_hibp_prefix(password: Utf8) -> String {
    hibp_split(password.as_bytes()).0
}

/// The other 35 digits, to be looked for in a cached range.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_hibp_suffix(password: Utf8) -> String {
    hibp_split(password.as_bytes()).1
}

/// Checks a row of the registry; raises what is wrong with it, else true. The table's CHECK constraint calls it.
///
/// # Errors
/// 22023 naming the column and what stands there.
#[allow(clippy::too_many_arguments)] // one argument for each column that needs more than SQL to check
#[pg_extern(immutable, parallel_safe)]
fn enrich_check_service(
    name: &str,
    key_kind: &str,
    method: &str,
    url: &str,
    headers: &str,
    body: Option<&str>,
    secret_name: Option<&str>,
    limits: &str,
    rules: &str,
) -> Answer<bool> {
    let wrong = |column: &str, why: String| Error::InvalidArgument {
        message: format!("invalid {column} for service \"{name}\": {why}"),
        hint: format!("Correct the column {column} of this row of enrichment_service."),
    };
    let key_kind = kind_named(key_kind)?;
    let limits = parse_limits(limits).map_err(|why| wrong("limits", why.trim_start_matches("limits: ").to_string()))?;
    let rules = Rules::parse(rules).map_err(|why| Error::InvalidRules { service: name.to_string(), why })?;
    let headers: std::collections::BTreeMap<String, String> =
        serde_json::from_str(headers).map_err(|_| wrong("headers", "not an object of texts".to_string()))?;
    let method = Method::parse(method).ok_or_else(|| wrong("method", "neither GET nor POST".to_string()))?;
    let service = Service {
        name: name.to_string(),
        enabled: true,
        key_kind,
        method,
        url: url.to_string(),
        headers: headers.into_iter().collect(),
        body: body.map(str::to_string),
        secret_name: secret_name.map(str::to_string),
        secret_required: false,
        response_format: ResponseFormat::Json,
        ttl: 1,
        not_found_ttl: 1,
        stale_ttl: 0,
        limits,
        max_in_flight: 1,
        timeout_ms: 1,
        max_bytes: 1,
        rules,
    };
    match request::template_problem(&service) {
        Some(why) => Err(wrong("url, headers or body", why).into()),
        None => Ok(true),
    }
}

fn kind_named(name: &str) -> Result<KeyKind, Error> {
    KeyKind::parse(name).ok_or_else(|| Error::InvalidArgument {
        message: format!("unknown key kind \"{}\"", key::shown(name)),
        hint: format!("Use one of: {}.", KeyKind::ALL.map(KeyKind::as_str).join(", ")),
    })
}
