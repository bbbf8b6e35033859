//! The disk cache of older programs beside the table: what the table lacks is looked for in files, and what is stored is
//! noted for the worker, which writes it into files after the commit.
//!
//! A file counts only when it was observed later than the table's own answer. So a key that was invalidated, or stored with
//! a shorter life, does not come back by the file that was written of it.

mod shared;

use crate::core::disk::body::Body;
use crate::core::disk::item::{digests, expiry_with_key};
use crate::core::error::Error;
use crate::core::hibp::{self, Suffix};
use crate::core::json_text::Safe;
use crate::core::service::Service;
use crate::core::Micros;
use crate::io::aside::{Aside, Unanswered};
use crate::io::disk::{contents, judge, Contents, Lying, Trouble};
use crate::pg::convert::{clock, transaction_start};
use crate::pg::gucs::DiskMode;
use crate::pg::probe::target;
use crate::pg::ranges::{self, Kept};
use crate::pg::store::migration::orphans;
use crate::pg::store::{cache::Entry, files, registry};
use crate::pg::{encoding, gucs, wake};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
pub use shared::{init, take_told, tell, troubles, write_trouble, writing_again, Side};
use shared::{read_trouble, reading_again, unreadable};
use std::cell::RefCell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What the files say of a key that the table has no fresh answer for, if that is newer than what the table knows, and
/// fresh or expired by no more than `grace`. The worker is told, and takes it over.
///
/// # Errors
/// What asking for the table's rights raises.
pub fn instead(service: &Service, key: &str, known: Option<&Entry>, grace: Micros) -> Result<Option<Lying>, Error> {
    if known.is_some_and(|entry| entry.fresh(transaction_start())) {
        return Ok(None);
    }
    newest(service, key, known, |lying| lying.expires_at.saturating_add(grace) > transaction_start())
}

/// The same, however long ago it expired.
///
/// # Errors
/// As [`instead`].
pub fn newer(service: &Service, key: &str, known: Option<&Entry>) -> Result<Option<Lying>, Error> {
    if known.is_some_and(|entry| entry.fresh(transaction_start())) {
        return Ok(None);
    }
    newest(service, key, known, |_| true)
}

fn newest(
    service: &Service,
    key: &str,
    known: Option<&Entry>,
    usable: impl FnOnce(&Lying) -> bool,
) -> Result<Option<Lying>, Error> {
    // files know nothing of row security
    if !may_answer(&service.name) || target::hides_rows()? {
        return Ok(None);
    }
    let observed = known.filter(|entry| is_answer(entry)).map(|entry| entry.fetched_at);
    let newer = |lying: &Lying| observed.is_none_or(|at| lying.fetched_at > at);
    let file = if gucs::reads_files() { of_files(service, key) } else { None };
    let found = [file, imported(service, key)?].into_iter().flatten().max_by_key(|lying| lying.fetched_at);
    let found = found.filter(|lying| newer(lying) && usable(lying));
    if found.is_some() {
        tell(&service.name, key);
    }
    Ok(found)
}

/// Whether something beside the table may answer keys of a service: files, or what an import has kept of unknown keys.
pub fn may_answer(service: &str) -> bool {
    gucs::reads_files() || registry::has_orphans(service)
}

/// What an import has kept under the digest of a key.
fn imported(service: &Service, key: &str) -> Result<Option<Lying>, Error> {
    if !registry::has_orphans(&service.name) {
        return Ok(None);
    }
    let digests = digests(key);
    let found = orphans::find(&service.name, digests.iter().map(<[u8; 32]>::as_slice).collect())?;
    Ok(found.map(|(body, fetched_at, until)| {
        let expires_at = expiry_with_key(&service.name, key, fetched_at, until);
        Lying { body, fetched_at, expires_at }
    }))
}

/// An entry that says what the provider said; a failure is none, and nothing newer than a file.
fn is_answer(entry: &Entry) -> bool {
    matches!(entry.response_status.as_str(), "success" | "not_found")
}

/// What the files say of a key; nothing while the directory is in trouble.
pub fn of_files(service: &Service, key: &str) -> Option<Lying> {
    let root = gucs::disk_cache_dir().filter(|_| reading_again())?;
    match read(root, &service.name, key, service.max_bytes) {
        Ok(contents) => {
            read_trouble(None);
            let look = judge(contents, service, key, clock());
            if let Some(why) = look.passed_over {
                unreadable(&why);
            }
            let mut newest = look.newest;
            newest.iter_mut().for_each(|lying| fit(&mut lying.body));
            newest
        }
        Err(trouble) => {
            read_trouble(Some(&trouble.to_string()));
            None
        }
    }
}

thread_local! {
    /// The thread that reads files for this process, and the directory it was last asked for.
    static READER: RefCell<(PathBuf, Aside)> = RefCell::default();
}

/// Reads a key's files, for as long as `enrichment_cache.disk_timeout` allows; can be cancelled.
fn read(root: PathBuf, service: &str, key: &str, most: u64) -> Result<Contents, Trouble> {
    let longest = gucs::disk_timeout();
    let (of, key, at) = (service.to_owned(), key.to_owned(), root.clone());
    let read = READER.with_borrow_mut(|(last, reader)| {
        if *last != root {
            // whatever keeps the thread that reads another directory, this one may be well
            if reader.stuck() {
                *reader = Aside::default();
            }
            *last = root;
        }
        reader.run(
            move || contents(&at, &of, &key, most),
            Some(longest),
            || {
                pgrx::check_for_interrupts!();
            },
        )
    });
    read.unwrap_or_else(|why| {
        Err(Trouble::Tree(match why {
            Unanswered::TooLong => {
                format!("the directory of the disk cache has not answered within {} ms", longest.as_millis())
            }
            Unanswered::Failed(why) => format!("the directory of the disk cache cannot be read: {why}"),
        }))
    })
}

/// Makes what a file says such as this database takes, whatever its encoding.
pub fn fit(body: &mut Body) {
    if let Some(text) = body.payload.take() {
        let safe = encoding::fit(Safe { text, altered: body.altered });
        (body.payload, body.altered) = (Some(safe.text), safe.altered);
    }
}

/// The answer as it was received, a `jsonb` in the current memory context.
pub fn payload(lying: &Lying) -> Option<pg_sys::Datum> {
    match (&lying.body.ranges, &lying.body.payload) {
        (Some(packed), _) => Some(ranges::jsonb(&hibp::to_json(packed))),
        (None, payload) => payload.as_deref().map(ranges::jsonb),
    }
}

/// How often a hash range counts a suffix. `None`: it holds nothing but padding.
pub fn breaches(lying: &Lying, suffix: &str) -> Option<i64> {
    let count = match (&lying.body.ranges, &lying.body.payload) {
        (Some(packed), _) => hibp::seen_any(packed)
            .then(|| Suffix::parse(suffix.as_bytes()).map_or(0, |suffix| hibp::find(packed, &suffix))),
        // a range that cannot be packed is kept as it was received
        (None, Some(range)) => {
            let range: serde_json::Value = serde_json::from_str(range).unwrap_or_default();
            let counts = || range.as_object().into_iter().flat_map(|range| range.values());
            let seen = counts().filter_map(serde_json::Value::as_u64).any(|count| count > 0);
            seen.then(|| range.get(suffix).and_then(serde_json::Value::as_u64).unwrap_or(0))
        }
        _ => None,
    };
    count.map(|count| i64::try_from(count).unwrap_or(i64::MAX))
}

/// It as an entry, as if it stood in the table.
pub fn entry(lying: &Lying) -> Entry {
    Entry {
        payload: payload(lying).map(|payload| Kept { payload, ranges: None }),
        response_status: lying.body.status().to_string(),
        fetched_at: lying.fetched_at,
        expires_at: lying.expires_at,
        hit_count: 0,
        version: 0,
        error_message: None,
    }
}

/// Whether what is stored is to be written into files: by a worker, so never without preloading.
pub fn written_through() -> bool {
    gucs::disk_cache_mode() == DiskMode::WriteThrough && gucs::preloaded() && gucs::disk_cache_dir().is_some()
}

/// Whether what is stored is to be written into files of another directory than this one.
///
/// # Errors
/// As [`patiently`].
pub fn written_elsewhere(directory: &Path) -> Result<bool, Error> {
    let Some(own) = gucs::disk_cache_dir().filter(|_| written_through()) else { return Ok(false) };
    let directory = directory.to_owned();
    let which = |path: &Path| std::fs::metadata(path).ok().map(|it| (it.dev(), it.ino()));
    patiently(move || which(&own) != which(&directory))
}

/// Does something with files in a thread, and waits however long it takes: the wait can be cancelled, what a disk is asked for
/// often cannot.
///
/// # Errors
/// There is no thread to be had.
pub fn patiently<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Error> {
    patiently_in_steps(move |_| work())
}

/// As [`patiently`], for work that ends early when it is told that nobody waits any more.
///
/// # Errors
/// As [`patiently`].
pub fn patiently_in_steps<T: Send + 'static>(work: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Result<T, Error> {
    let done = Aside::default().run_in_steps(work, None, || {
        pgrx::check_for_interrupts!();
    });
    done.map_err(|why| match why {
        Unanswered::Failed(why) => Error::NoThread { why },
        // there is no limit that could have been passed
        Unanswered::TooLong => Error::NoThread { why: "it has not answered".to_owned() },
    })
}

/// Notes keys of which something was stored or deleted: once this transaction has committed, and not if it rolls back, the
/// worker makes the files say the same.
///
/// # Errors
/// What the statement raises.
pub fn note(service: &str, keys: Vec<String>) -> Result<(), Error> {
    if keys.is_empty() || !written_through() {
        return Ok(());
    }
    files::note(service, keys)?;
    wake::worker_at_commit();
    Ok(())
}

/// Notes every key of a service, or one, before it is deleted; says so where its files stay, and it may come back by them.
///
/// # Errors
/// What the statement raises.
pub fn note_deleted(service: &Service, key: Option<&str>) -> Result<(), Error> {
    if written_through() {
        files::note_deleted(&service.name, key)?;
        wake::worker_at_commit();
    } else if gucs::reads_files() && key.is_none_or(|key| of_files(service, key).is_some()) {
        let whose = key.map_or_else(
            || format!("files of {}", service.name),
            |key| format!("a file of {} for {key}", service.name),
        );
        let message = format!("enrichment_cache: {whose} may bring back what is deleted");
        let hint = "Files are deleted in write_through mode only. Delete them too, or invalidate without hard.";
        ErrorReport::new(PgSqlErrorCode::ERRCODE_SUCCESSFUL_COMPLETION, message, "enrich_invalidate")
            .set_hint(hint)
            .report(PgLogLevel::NOTICE);
    }
    Ok(())
}

/// How long a file may wait for its next try, by the tries that failed: 1 s, 2 s, and so on up to ten minutes.
pub fn pause_after(failures: u32) -> Micros {
    const LONGEST: Micros = 600 * crate::core::SECOND;
    crate::core::backoff::delay(failures, crate::core::SECOND, LONGEST, 0.5)
}
