//! Loading a downloaded corpus of Pwned Passwords, step by step; `CALL enrich_hibp_load` (sql/install/59_hibp_load.sql)
//! commits between the steps and keeps the place.

use super::{cache, given};
use crate::core::error::Error;
use crate::core::hibp;
use crate::core::redact::shorten;
use crate::core::service::Service;
use crate::io::hibp_corpus;
use crate::pg::convert::{clock, to_micros, to_timestamp};
use crate::pg::encoding::{RawText, Utf8};
use crate::pg::error::Answer;
use crate::pg::store::cache::{Incoming, Payload};
use crate::pg::store::{hibp as rows, registry};
use crate::pg::wake;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::path::PathBuf;

/// What stands at a path: whether it is a directory, where its last step ends, when it was changed.
///
/// # Errors
/// 42501 for who may not read files of the server; 22023 for a path that is not absolute; 58P01 for one that cannot be read.
#[allow(clippy::type_complexity)] // the columns are read by name
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_hibp_corpus(
    path: Option<Utf8>,
) -> Result<
    TableIterator<'static, (name!(directory, bool), name!(size, i64), name!(modified, TimestampWithTimeZone))>,
    ErrorReport,
> {
    let path = readable(path)?;
    let corpus =
        hibp_corpus::look(&path).map_err(|why| unreadable(PgSqlErrorCode::ERRCODE_UNDEFINED_FILE, &path, &why))?;
    Ok(TableIterator::once((corpus.directory, corpus.size as i64, to_timestamp(corpus.modified))))
}

/// Stores the ranges of one step of a corpus, observed at `fetched_at` (NULL: when their file was last changed); returns
/// where the next step begins.
///
/// # Errors
/// As above; 22P04 when it is no corpus; 42704 when the service hibp was removed.
#[allow(clippy::type_complexity)] // the columns are read by name
#[pg_extern(volatile, security_definer)]
#[search_path(pg_catalog, pg_temp)]
fn enrichment_hibp_load_step(
    path: Option<Utf8>,
    place: i64,
    fetched_at: Option<TimestampWithTimeZone>,
    ttl: Option<Interval>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(next_place, i64),
            name!(ranges, i64),
            name!(hashes, i64),
            name!(padding, i64),
            name!(left_out, i64),
            name!(problems, Vec<RawText>),
        ),
    >,
    ErrorReport,
> {
    let path = readable(path)?;
    let service = registry::service("hibp")?;
    let step = hibp_corpus::step(&path, place.max(0) as u64)
        .map_err(|why| unreadable(PgSqlErrorCode::ERRCODE_BAD_COPY_FILE_FORMAT, &path, &why))?;
    let now = clock();
    let given_at = fetched_at.map(to_micros);
    let mut batch = Vec::with_capacity(step.ranges.len());
    let mut hashes = 0;
    for (packed, modified) in step.ranges {
        hashes += (packed.records.len() / hibp::RECORD) as i64;
        batch.push(entry(&service, packed, given_at.unwrap_or(modified).min(now), ttl.as_ref())?);
    }
    let keys: Vec<String> = batch.iter().map(|(entry, _)| entry.key.clone()).collect();
    let stored = batch.len() as i64;
    rows::store_ranges(&service.name, batch, keys)?;
    wake::worker_at_commit();
    Ok(TableIterator::once((
        step.next as i64,
        stored,
        hashes,
        step.padding as i64,
        step.left_out as i64,
        step.problems.iter().map(|problem| RawText::of_utf8(problem)).collect(),
    )))
}

fn entry(
    service: &Service,
    packed: hibp::corpus::Packed,
    fetched_at: i64,
    ttl: Option<&Interval>,
) -> Result<(Incoming, Payload), Error> {
    let expires_at = cache::expiry(service, &packed.prefix, "success", ttl, fetched_at)?;
    let summary = hibp::summary(&packed.records);
    let entry = Incoming {
        key: packed.prefix,
        status: "success",
        fetched_at,
        expires_at,
        ranges: Some(packed.records),
        ..Default::default()
    };
    Ok((entry, Payload::Text(Some(summary))))
}

/// The path, for a session that may read files of the server (as `pg_read_file` asks).
fn readable(path: Option<Utf8>) -> Answer<PathBuf> {
    let path = PathBuf::from(&*given(path, "path")?);
    // SAFETY: look-ups in the catalogues. The function runs as its owner; the rights asked for are those of the session.
    let may = unsafe {
        pg_sys::has_privs_of_role(pg_sys::GetOuterUserId(), pg_sys::Oid::from(pg_sys::ROLE_PG_READ_SERVER_FILES))
    };
    if !may {
        let error = ErrorReport::new(
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "must be superuser or a member of the pg_read_server_files role to load a corpus",
            "enrich_hibp_load",
        );
        return Err(error.set_hint("Have an administrator load it, or GRANT pg_read_server_files to this role."));
    }
    if !path.is_absolute() {
        return Err(Error::InvalidArgument {
            message: "the path of a corpus must be absolute".to_string(),
            hint: "Give the path on the server, beginning with a slash.".to_string(),
        }
        .into());
    }
    Ok(path)
}

fn unreadable(code: PgSqlErrorCode, path: &std::path::Path, why: &str) -> ErrorReport {
    let message = format!("the corpus \"{}\" cannot be loaded", shorten(&path.display().to_string(), 200));
    ErrorReport::new(code, message, "enrich_hibp_load").set_detail(format!("{}.", why.trim_end_matches('.'))).set_hint(
        "Give a directory of ranges (00000.txt to FFFFF.txt, SUFFIX:COUNT a line) or the file of SHA-1 hashes ordered by \
         hash (HASH:COUNT a line) that the server's user can read.",
    )
}
