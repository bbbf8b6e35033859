//! Moving in from a disk cache, as the procedures of sql/install/60_migration.sql call it.

use super::given;
use crate::core::error::Error;
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::migration::run::{self, Order};
use crate::pg::migration::verify::verify;
use crate::pg::store::registry;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Whether the caller may import from there (kind 'disk': a directory of the server), and what was asked for makes sense.
///
/// # Errors
/// 42501 without the rights of pg_read_server_files; 22023 for a path that is not absolute or a size out of range; 42704
/// for an unknown service.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_migration_check(
    kind: Option<&str>,
    directory: Option<Utf8>,
    services: Option<Vec<Option<String>>>,
    batch_size: Option<i32>,
) -> Answer<()> {
    let on_disk = given(kind, "kind")? == "disk";
    if on_disk {
        may_read_files()?;
    }
    let directory = given(directory, "directory")?;
    let batch_size = given(batch_size, "batch_size")?;
    if on_disk && !directory.starts_with('/') {
        return Err(Error::InvalidArgument {
            message: "directory must be an absolute path".to_owned(),
            hint: "Give the path from the root of the server's file system.".to_owned(),
        }
        .into());
    }
    if !(1..=100_000).contains(&batch_size) {
        return Err(Error::InvalidArgument {
            message: format!("batch_size must lie between 1 and 100000: {batch_size}"),
            hint: "It is the number of files or rows that are stored and committed together.".to_owned(),
        }
        .into());
    }
    for service in services.into_iter().flatten() {
        registry::service(given(service.as_deref(), "a name in services")?)?;
    }
    Ok(())
}

/// Takes the next files of a run, or of an order that is only tried (run NULL).
///
/// # Errors
/// As `enrichment_migration_check`; a directory that cannot be read; a run of another session.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // a row, as pgrx wants it
fn enrichment_migration_step(
    run: Option<i64>,
    directory: Option<Utf8>,
    services: Option<Vec<Option<String>>>,
    batch_size: Option<i32>,
    keep_expired: Option<bool>,
) -> Result<
    TableIterator<'static, (name!(finished, bool), name!(total, Option<i64>), name!(report, RawText))>,
    ErrorReport,
> {
    may_read_files()?;
    let order = Order {
        directory: given(directory, "directory")?.to_string(),
        services: services.map(|names| names.into_iter().flatten().collect()),
        batch_size: given(batch_size, "batch_size")?,
        keep_expired: given(keep_expired, "keep_expired")?,
    };
    let state = run::step(run, order)?;
    Ok(TableIterator::once((state.finished, state.total, RawText::of_utf8(&state.report))))
}

/// Compares every file of a run's directory with the cache: rows with a path are differences, those without count.
///
/// # Errors
/// 22023 for a number that no run has; 42501 without the rights of pg_read_server_files.
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
#[allow(clippy::type_complexity)] // a row, as pgrx wants it
fn enrichment_migration_verify_disk(
    id: Option<i64>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(path, Option<RawText>),
            name!(service, Option<String>),
            name!(cache_key, Option<RawText>),
            name!(finding, &'static str),
            name!(files, i64),
        ),
    >,
    ErrorReport,
> {
    may_read_files()?;
    let found = verify(given(id, "id")?)?;
    Ok(TableIterator::new(found.into_iter().map(|row| {
        let (path, key) = (row.path.as_deref().map(RawText::of_utf8), row.key.as_deref().map(RawText::of_utf8));
        (path, row.service, key, row.finding, row.files)
    })))
}

/// Reading the server's files is a right of its own, and the caller's, not that of this function's owner.
fn may_read_files() -> Result<(), ErrorReport> {
    const READ_SERVER_FILES: u32 = 4569; // pg_authid.dat: pg_read_server_files
                                         // SAFETY: a question about the session's user, or the role it has taken.
    let may = unsafe { pg_sys::has_privs_of_role(pg_sys::GetOuterUserId(), pg_sys::Oid::from(READ_SERVER_FILES)) };
    if may {
        return Ok(());
    }
    let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
    let report =
        ErrorReport::new(code, "permission denied to import from the server's file system", "enrichment_cache");
    Err(report.set_hint("Only a superuser and members of pg_read_server_files may; others send the files through their connection: COPY enrichment_import, then CALL enrich_migrate_sent()."))
}
