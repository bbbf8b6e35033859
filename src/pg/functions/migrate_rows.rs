//! Moving in from rows, as the procedures of sql/install/62_import.sql call it.

use super::given;
use crate::pg::encoding::RawText;
use crate::pg::migration::rows::{self, Columns, Kind, Order};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

type Texts = Option<Vec<Option<String>>>;

fn columns(names: Texts, keys: Texts, bodies: Texts, at: Option<Vec<Option<i64>>>) -> Columns {
    Columns {
        names: names.unwrap_or_default(),
        keys: keys.unwrap_or_default(),
        bodies: bodies.unwrap_or_default(),
        at: at.unwrap_or_default(),
    }
}

/// Takes the next rows of a run, or of an order that is only tried (run NULL); returns the report so far. When all rows were
/// given, it is called until it is finished.
///
/// # Errors
/// 22023 for an argument that must not be NULL; a run of another session.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::too_many_arguments)] // the columns of a batch and how it is taken
#[allow(clippy::type_complexity)] // a row, as pgrx wants it
fn enrichment_migration_take(
    run: Option<i64>,
    kind: Option<&str>,
    first: Option<bool>,
    keep_expired: Option<bool>,
    names: Option<Vec<Option<String>>>,
    keys: Option<Vec<Option<String>>>,
    bodies: Option<Vec<Option<String>>>,
    observed_at: Option<Vec<Option<i64>>>,
    place: Option<String>,
    total: Option<i64>,
    nameless: Option<i64>,
    all_given: Option<bool>,
) -> Result<TableIterator<'static, (name!(finished, bool), name!(report, RawText))>, ErrorReport> {
    let order = Order {
        run,
        kind: Kind::parse(given(kind, "kind")?)?,
        first: given(first, "first")?,
        keep_expired: given(keep_expired, "keep_expired")?,
        position: place,
        total,
        nameless: given(nameless, "nameless")?,
        all_given: given(all_given, "all_given")?,
    };
    let (report, finished) = rows::step(order, columns(names, keys, bodies, observed_at))?;
    Ok(TableIterator::once((finished, RawText::of_utf8(&report))))
}

/// Compares rows that were read with the cache; no rows end the comparison.
///
/// # Errors
/// 22023 for an argument that must not be NULL.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // a row, as pgrx wants it
fn enrichment_migration_compare(
    kind: Option<&str>,
    first: Option<bool>,
    names: Option<Vec<Option<String>>>,
    keys: Option<Vec<Option<String>>>,
    bodies: Option<Vec<Option<String>>>,
    observed_at: Option<Vec<Option<i64>>>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(path, Option<String>),
            name!(service, Option<String>),
            name!(cache_key, Option<String>),
            name!(finding, &'static str),
            name!(files, i64),
        ),
    >,
    ErrorReport,
> {
    let kind = Kind::parse(given(kind, "kind")?)?;
    let found = rows::verify(kind, given(first, "first")?, columns(names, keys, bodies, observed_at))?;
    Ok(TableIterator::new(found.into_iter().map(|row| (row.path, row.service, row.key, row.finding, row.files))))
}
