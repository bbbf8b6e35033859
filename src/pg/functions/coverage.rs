//! Rows of attached tables with their keys, for coverage and diagnosis, where the user's own text says which rows and keys
//! these are.

use crate::core::error::Error;
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::store::sources::{self, Source};
use crate::pg::store::user_tables::looked;
use crate::pg::subxact;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The rows of a source by what has become of their keys, `bucket` being SQL over a row `t`; of the blocks `percent` are
/// read. Nothing when the source does not stand or its expressions fail: enrich_health() says so.
///
/// # Errors
/// A cancel.
#[allow(clippy::type_complexity)] // the columns are read by name
#[pg_extern(volatile, strict, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_tally_rows(
    source: Utf8,
    bucket: Utf8,
    percent: f64,
) -> Result<
    TableIterator<
        'static,
        (
            name!(bucket, Option<RawText>),
            name!(service, RawText),
            name!(outcome, RawText),
            name!(cause, Option<RawText>),
            name!(expired, Option<bool>),
            name!(asked, Option<bool>),
            name!(rows, i64),
            name!(example, Option<RawText>),
        ),
    >,
    ErrorReport,
> {
    let fates = read(&source, |source| looked::tally(source, &bucket, percent))?;
    Ok(TableIterator::new(fates.into_iter().map(|((bucket, service, outcome, cause, expired, asked), met)| {
        (
            text(bucket),
            RawText::of_utf8(&service),
            RawText::of_utf8(&outcome),
            text(cause),
            expired,
            asked,
            met.rows,
            text(met.example),
        )
    })))
}

/// Where the eligible rows of a sample stand, and their keys. Nothing as above.
///
/// # Errors
/// A cancel.
#[allow(clippy::type_complexity)] // the columns are read by name
#[pg_extern(volatile, strict, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_row_keys(
    source: Utf8,
    percent: f64,
) -> Result<
    TableIterator<
        'static,
        (name!(part, pg_sys::Oid), name!(place, pg_sys::ItemPointerData), name!(raw, Option<RawText>)),
    >,
    ErrorReport,
> {
    let found = read(&source, |source| looked::row_keys(source, percent))?;
    Ok(TableIterator::new(found.into_iter().map(|row| (row.part, row.place, text(row.raw)))))
}

fn text(value: Option<String>) -> Option<RawText> {
    value.as_deref().map(RawText::of_utf8)
}

/// What a user's expression cannot do must not stop the view: the sweep meets it too and notes it with the source.
fn read<T: Default>(name: &str, work: impl FnOnce(&Source) -> Result<T, Error>) -> Result<T, Error> {
    let Some(source) = sources::all()?.standing.into_iter().find(|source| source.name == name) else {
        return Ok(T::default());
    };
    Ok(subxact::run(|| work(&source)).unwrap_or_else(|error| {
        pgrx::debug1!("enrichment_cache: source {name}: {error}");
        T::default()
    }))
}
