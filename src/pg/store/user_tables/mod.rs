//! Statements on the user's own tables: finding keys no trigger reported, and writing answers back. Reading runs as
//! the worker; every UPDATE runs with the rights of the table's owner, so that a trigger of his gains nothing.

mod files;
mod json;
mod passwords;

use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;

/// Lists keys of a source that are not known yet, or whose rows stand unfilled although an answer is there.
pub fn sweep(source: &Source) -> Result<u64, Error> {
    let schema = super::schema()?;
    let unfilled = match (&source.into, source.shape) {
        (Some(into), Shape::Json) => format!("t.{c} IS NULL OR t.{c}::text NOT LIKE '%\"_meta\"%'", c = into.quoted),
        (_, Shape::Files) => match source.column("enrichment_status") {
            Some(column) => format!("coalesce(t.{}::text, 'pending') = 'pending'", column.quoted),
            None => "false".to_string(),
        },
        (_, Shape::Passwords) => match source.column("last_hibp_check") {
            Some(column) => format!("t.{} IS NULL", column.quoted),
            None => "false".to_string(),
        },
        _ => "false".to_string(),
    };
    let sql = format!(
        "INSERT INTO {schema}.enrichment_arrival (source, raw_key)
        SELECT $1, k.raw FROM (
            SELECT {raw} AS raw, pg_catalog.bool_or({unfilled}) AS unfilled
            FROM {relation} t WHERE t.{key} IS NOT NULL GROUP BY 1) k
        LEFT JOIN {schema}.enrichment_indicator i ON i.source = $1 AND i.raw_key = k.raw
        WHERE i.raw_key IS NULL
           OR (k.unfilled AND NOT i.dirty AND i.cache_key IS NOT NULL AND EXISTS (
                SELECT FROM {schema}.enrichment_cache c
                WHERE c.service = ANY ($2) AND c.cache_key = i.cache_key
                  AND c.response_status IN ('success', 'not_found')))",
        raw = source.raw_key(&schema),
        relation = source.relation,
        key = source.key.quoted,
    );
    let args = [(TEXTOID, Arg::of(source.name.as_str())), (TEXTARRAYOID, Arg::of(source.services.clone()))];
    spi::run_once(&sql, &args, Mode::Write, |_| {})
}

/// Writes what the cache knows of these keys into their rows; returns how many rows changed.
///
/// # Errors
/// 55P03 when a row stays locked by somebody else, or what the server raises; the transaction is over then.
pub fn write_back(source: &Source, raw_keys: &[String]) -> Result<u64, Error> {
    prepare_to_write()?;
    match source.shape {
        Shape::Json => json::write(source, raw_keys),
        Shape::Files => files::write(source, raw_keys),
        Shape::Passwords => passwords::write(source, raw_keys),
        Shape::None => Ok(0),
    }
}

// A wait for a row ends long before anybody's deadlock_timeout: of a loader and this worker that wait for each other,
// the worker gives way. Deferred triggers must fire within the UPDATE, as the owner, and not at commit as the worker.
fn prepare_to_write() -> Result<(), Error> {
    spi::run_once("SELECT pg_catalog.set_config('lock_timeout', '5ms', true)", &[], Mode::Write, |_| {})?;
    spi::run_once("SET CONSTRAINTS ALL IMMEDIATE", &[], Mode::Write, |_| {})?;
    Ok(())
}

fn as_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the former identity is put back right after the work; if the work raises, the transaction's abort
    // puts it back (xact.c, AbortTransaction).
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut user, &mut context);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_RESTRICTED_OPERATION as i32);
    }
    let result = work();
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(user, context) };
    result
}

// bpchar and varchar columns compare as text without a length, so that a long key is never cut to match
fn comparable(key: &Column) -> &'static str {
    match key.type_oid {
        pg_sys::INETOID => "inet",
        pg_sys::CIDROID => "cidr",
        pg_sys::BPCHAROID => "bpchar",
        _ => "text",
    }
}
