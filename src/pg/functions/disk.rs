//! The disk cache as SQL sees it: how it stands, and the export of the table into a tree of its layout.

use super::given;
use crate::core::disk::written;
use crate::core::error::Error;
use crate::io::disk::{Flush, Tree, Trouble};
use crate::pg::convert::to_timestamp;
use crate::pg::disk::{self, Side};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::gucs::{self, DiskMode};
use crate::pg::lone;
use crate::pg::store::files::{self, Exported};
use crate::pg::store::registry;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::path::Path;

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
    last: i64,
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
    let tree = Tree::open(Path::new(&*directory)).map_err(not_writable)?;
    let mut batch = Batch { last: given(after_id, "after_id")?, ..Batch::default() };
    while batch.rows < i64::from(most) {
        pgrx::check_for_interrupts!();
        let rows = files::to_export(batch.last, services.clone(), AT_ONCE.min(i64::from(most) - batch.rows))?;
        if rows.is_empty() {
            break;
        }
        for row in rows {
            pgrx::check_for_interrupts!();
            batch.last = row.id;
            batch.rows += 1;
            write(&tree, &row, &mut batch).map_err(not_writable)?;
        }
    }
    tree.flush().map_err(not_writable)?;
    let last = (batch.rows > 0).then_some(batch.last);
    let Batch { rows, written, there, newer, no_place, failed, bytes, problem, .. } = batch;
    Ok(TableIterator::once((
        last,
        rows,
        written,
        there,
        newer,
        no_place,
        failed,
        bytes,
        problem.as_deref().map(RawText::of_utf8),
    )))
}

fn write(tree: &Tree, row: &Exported, batch: &mut Batch) -> Result<(), Trouble> {
    let files = written::files(&row.service, &row.key, &row.said.status, row.said.payload.as_deref());
    let Some((path, body)) = files.file else {
        batch.no_place += 1;
        return Ok(());
    };
    let outcome = tree.changed(&path).and_then(|changed| match changed {
        Some(at) if at > row.said.fetched_at => {
            batch.newer += 1;
            Ok(())
        }
        // of an earlier run, if it got as far as its bytes
        Some(at) if at == row.said.fetched_at && holds(tree, &path, &body)? => {
            batch.there += 1;
            Ok(())
        }
        _ => {
            tree.write(&path, body.as_bytes(), row.said.fetched_at, Flush::Later)?;
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
