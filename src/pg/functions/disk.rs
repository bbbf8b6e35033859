//! The disk cache as SQL sees it: how it stands, and the export of the table into a tree of its layout.

use super::given;
use crate::core::disk::written;
use crate::core::error::Error;
use crate::core::Micros;
use crate::io::disk::{Flush, Tree, Trouble};
use crate::pg::convert::to_timestamp;
use crate::pg::disk::{self, Side};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::gucs::{self, DiskMode};
use crate::pg::lone;
use crate::pg::store::files::{self, Exported};
use crate::pg::store::migration::orphans::{self, Exported as Unnamed};
use crate::pg::store::registry;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

/// The mode of the disk cache, whether its directory is set, and what is wrong with reading and writing it now.
#[allow(clippy::type_complexity)] // the columns of the report
#[pg_extern(volatile)]
fn enrich_disk_state() -> TableIterator<
    'static,
    (
        name!(mode, String),
        name!(directory_set, bool),
        name!(side, String),
        name!(trouble, Option<RawText>),
        name!(since, Option<TimestampWithTimeZone>),
    ),
> {
    let mode = match gucs::disk_cache_mode() {
        DiskMode::Off => "off",
        DiskMode::Read => "read",
        DiskMode::WriteThrough => "write_through",
    };
    let set = gucs::disk_cache_dir().is_some();
    let rows = disk::troubles().into_iter().map(move |(side, mishap)| {
        let side = match side {
            Side::Reading => "read",
            Side::Writing => "write",
        };
        let trouble = (mishap.since != 0).then(|| RawText::of_utf8(mishap.why.as_str()));
        let since = (mishap.since != 0).then(|| to_timestamp(mishap.since));
        (mode.to_string(), set, side.to_string(), trouble, since)
    });
    TableIterator::new(rows)
}

/// What became of the rows of one batch of an export.
#[derive(Default)]
struct Batch {
    rows: i64,
    written: i64,
    there: i64,
    newer: i64,
    no_place: i64,
    failed: i64,
    bytes: i64,
    problem: Option<String>,
}

/// Most rows whose answers are held in memory at one time.
const AT_ONCE: i64 = 20;

/// Writes at most `batch_size` answers behind an id into a tree, and has them reach the disk: one step of
/// enrich_export_disk. `last_id` is NULL when there was nothing left.
///
/// # Errors
/// 42501 for who may not write files of the server; 22023 for a path that is not absolute; 58030 when the tree cannot be
/// written.
#[allow(clippy::type_complexity)] // the columns of the report
#[pg_extern(volatile)]
fn enrich_export_batch(
    directory: Option<Utf8>,
    services: Option<Vec<String>>,
    after_id: Option<i64>,
    batch_size: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(last_id, Option<i64>),
            name!(rows, i64),
            name!(written, i64),
            name!(already_there, i64),
            name!(newer_file, i64),
            name!(no_place, i64),
            name!(failed, i64),
            name!(bytes, i64),
            name!(problem, Option<RawText>),
        ),
    >,
    ErrorReport,
> {
    let mut last = given(after_id, "after_id")?;
    let batch = export(directory, services, batch_size, |services, n| {
        let rows = files::to_export(last, services, n)?;
        last = rows.last().map_or(last, |row| row.id);
        let file =
            |row: &Exported| written::files(&row.service, &row.key, &row.said.status, row.said.payload.as_deref()).file;
        Ok(rows.into_iter().map(|row| (file(&row), row.said.fetched_at)).collect())
    })?;
    let last = (batch.rows > 0).then_some(last);
    let Batch { rows, written, there, newer, no_place, failed, bytes, problem } = batch;
    let problem = problem.as_deref().map(RawText::of_utf8);
    Ok(TableIterator::once((last, rows, written, there, newer, no_place, failed, bytes, problem)))
}

/// The same for what an import has kept of unknown keys, behind a service and a digest.
///
/// # Errors
/// As [`enrich_export_batch`].
#[allow(clippy::type_complexity)] // the columns of the report
#[pg_extern(volatile)]
fn enrich_export_unknown_batch(
    directory: Option<Utf8>,
    services: Option<Vec<String>>,
    after_service: Option<String>,
    after_digest: Option<Vec<u8>>,
    batch_size: Option<i32>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(last_service, Option<String>),
            name!(last_digest, Option<Vec<u8>>),
            name!(rows, i64),
            name!(written, i64),
            name!(already_there, i64),
            name!(newer_file, i64),
            name!(no_place, i64),
            name!(failed, i64),
            name!(bytes, i64),
            name!(problem, Option<RawText>),
        ),
    >,
    ErrorReport,
> {
    let mut last = (given(after_service, "after_service")?, given(after_digest, "after_digest")?);
    let batch = export(directory, services, batch_size, |services, n| {
        let rows = orphans::to_export(&last.0, &last.1, services, n)?;
        if let Some(row) = rows.last() {
            last = (row.service.clone(), row.digest.to_vec());
        }
        let file = |row: &Unnamed| {
            written::file_by_digest(&row.service, &row.digest, &row.said.status, row.said.payload.as_deref())
        };
        Ok(rows.into_iter().map(|row| (file(&row), row.said.fetched_at)).collect())
    })?;
    let (service, digest) = (batch.rows > 0).then_some(last).unzip();
    let Batch { rows, written, there, newer, no_place, failed, bytes, problem } = batch;
    let problem = problem.as_deref().map(RawText::of_utf8);
    Ok(TableIterator::once((service, digest, rows, written, there, newer, no_place, failed, bytes, problem)))
}

/// A file to write (none where the layout has no place for it) and its time of observation.
type File = (Option<(String, String)>, Micros);

/// Writes at most `batch_size` files into a tree; `next` gives so many at a time, of these services.
fn export(
    directory: Option<Utf8>,
    services: Option<Vec<String>>,
    batch_size: Option<i32>,
    mut next: impl FnMut(Option<Vec<String>>, i64) -> Result<Vec<File>, Error>,
) -> Answer<Batch> {
    may_write_files()?;
    let directory = given(directory, "directory")?;
    let most = given(batch_size, "batch_size")?;
    if most < 1 {
        return Err(Error::InvalidArgument {
            message: format!("batch_size must be positive: {most}"),
            hint: "Give a number of rows.".to_string(),
        }
        .into());
    }
    for service in services.iter().flatten() {
        registry::service(service)?;
    }
    let root = PathBuf::from(&*directory);
    let tree = disk::patiently(move || Tree::open(&root).map(Arc::new))?.map_err(not_writable)?;
    let mut batch = Batch::default();
    while batch.rows < i64::from(most) {
        pgrx::check_for_interrupts!();
        let files = next(services.clone(), AT_ONCE.min(i64::from(most) - batch.rows))?;
        if files.is_empty() {
            break;
        }
        let tree = tree.clone();
        let write = move |waited_for: &AtomicBool| write_all(&tree, files, batch, waited_for);
        batch = disk::patiently_in_steps(write)?.map_err(not_writable)?;
    }
    disk::patiently(move || tree.flush())?.map_err(not_writable)?;
    Ok(batch)
}

/// Writes files as long as somebody waits for them.
fn write_all(tree: &Tree, files: Vec<File>, mut batch: Batch, waited_for: &AtomicBool) -> Result<Batch, Trouble> {
    for (file, fetched_at) in files {
        if !waited_for.load(Ordering::Relaxed) {
            break;
        }
        batch.rows += 1;
        write(tree, file, fetched_at, &mut batch)?;
    }
    Ok(batch)
}

fn write(tree: &Tree, file: Option<(String, String)>, fetched_at: Micros, batch: &mut Batch) -> Result<(), Trouble> {
    let Some((path, body)) = file else {
        batch.no_place += 1;
        return Ok(());
    };
    let outcome = tree.changed(&path).and_then(|changed| match changed {
        Some(at) if at > fetched_at => {
            batch.newer += 1;
            Ok(())
        }
        // of an earlier run, if it got as far as its bytes
        Some(at) if at == fetched_at && holds(tree, &path, &body)? => {
            batch.there += 1;
            Ok(())
        }
        _ => {
            tree.write(&path, body.as_bytes(), fetched_at, Flush::Later)?;
            batch.written += 1;
            batch.bytes += body.len() as i64;
            Ok(())
        }
    });
    match outcome {
        Err(Trouble::File(why)) => {
            batch.failed += 1;
            batch.problem = Some(why);
            Ok(())
        }
        outcome => outcome,
    }
}

fn holds(tree: &Tree, path: &str, body: &str) -> Result<bool, Trouble> {
    match tree.read(path, body.len() as u64) {
        Ok(found) => Ok(found.is_some_and(|(bytes, _)| bytes == body.as_bytes())),
        // larger than it would be, or no file: writing it says what is wrong
        Err(Trouble::File(_)) => Ok(false),
        Err(trouble) => Err(trouble),
    }
}

fn may_write_files() -> Answer<()> {
    const PG_WRITE_SERVER_FILES: u32 = 4570; // pg_authid.dat
                                             // SAFETY: questions to the catalogue.
    let allowed = unsafe {
        pg_sys::superuser() || pg_sys::has_privs_of_role(lone::user(), pg_sys::Oid::from(PG_WRITE_SERVER_FILES))
    };
    if allowed {
        return Ok(());
    }
    Err(ErrorReport::new(
        PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
        "permission denied to write files of the server",
        "enrich_export_disk",
    )
    .set_hint("Ask a superuser, or a member of pg_write_server_files."))
}

fn not_writable(trouble: Trouble) -> ErrorReport {
    ErrorReport::new(
        PgSqlErrorCode::ERRCODE_IO_ERROR,
        format!("the export cannot be written: {trouble}"),
        "enrich_export_disk",
    )
    .set_hint("Give the absolute path of a directory that exists and that the server may write to. A new call goes on where this one ended.")
}
