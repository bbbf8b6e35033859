//! The import that this session has under way: its threads go on reading while a batch is stored and committed. What
//! counts is the run's row; a reading that does not stand where the row says (after an error, a cancel, a rollback) is
//! begun anew from there.

use super::second_look::SecondLook;
use super::take::{fit, take, Rules, Seen};
use crate::core::disk::item::Item;
use crate::core::disk::known::Known;
use crate::core::disk::recognise::VIRUSTOTAL_UNKNOWN;
use crate::core::disk::report::Report;
use crate::core::error::Error;
use crate::io::import::pipeline::{Next, Pipeline, Spec};
use crate::io::import::safe;
use crate::pg::store::{migration as rows, registry};
use crate::pg::worker::Merger;
use crate::pg::{disk, encoding};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// Bytes of files after which a batch ends.
const MOST_BYTES: u64 = 16 << 20;
const PATIENCE: Duration = Duration::from_millis(50);
/// Beside the session that stores; more than a few readers wait for it.
const READERS: usize = 4;
/// Files after which an import is so long that a helper is started for it.
const LONG: usize = 5000;
/// No service takes a larger answer than this (`enrichment_service.max_bytes`); the file is not read then.
const LARGEST: u64 = 256 << 20;

/// What is imported, and how.
pub struct Order {
    pub directory: String,
    pub services: Option<Vec<String>>,
    pub batch_size: i32,
    pub keep_expired: bool,
}

/// How an import stands after a step.
pub struct State {
    pub finished: bool,
    /// None until all files are counted.
    pub total: Option<i64>,
    pub report: String,
}

struct Reading {
    /// None: it only tries.
    run: Option<i64>,
    /// Batches that the run had when this reading stood where it stands.
    batches: i64,
    /// Files that had been taken before it began.
    before: u64,
    pipeline: Pipeline,
    /// Items of the pipeline's last part that did not fit into a batch.
    rest: Vec<Item>,
    /// Of a run that only tries, which has no row.
    report: Report,
    seen: Seen,
    known: Known,
    /// All files are taken, and what could not be named is looked at again.
    second: Option<SecondLook>,
    /// Files that this reading has stored.
    stored: usize,
    helper: Helper,
}

/// The process that merges beside this one, of an import that is worth it.
enum Helper {
    NotYet,
    Asked { _merger: Option<Merger> },
}

thread_local! {
    static READING: RefCell<Option<Reading>> = const { RefCell::new(None) };
    static WATCHING: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _: *mut core::ffi::c_void) {
    if event == pg_sys::XactEvent::XACT_EVENT_ABORT {
        // dropping it ends its threads
        let _ = READING.try_with(|reading| reading.try_borrow_mut().map(|mut reading| *reading = None));
        super::rows::forget();
    }
}

pub(super) fn watch() {
    if !WATCHING.with(|watching| watching.replace(true)) {
        // SAFETY: the callback stays registered, and the library loaded, for as long as the process lives.
        unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), core::ptr::null_mut()) };
    }
}

/// Takes the next files: of a run, or of an order that is only tried.
///
/// # Errors
/// A run that is not this session's, a directory that cannot be read, what PostgreSQL says while storing.
pub fn step(run: Option<i64>, order: Order) -> Result<State, Error> {
    watch();
    let (order, mut report, position, batches) = match run {
        None => (order, None, None, 0),
        Some(id) => {
            let row = rows::open(id, true)?.ok_or_else(|| Error::Other {
                message: format!("import {id} is not run by this session"),
                detail: None,
                hint: Some("Another session may go on with it; see enrichment_migration_progress.".to_owned()),
            })?;
            let order = Order {
                directory: row.directory,
                services: row.services,
                batch_size: row.batch_size,
                keep_expired: row.keep_expired,
            };
            (order, Some(row.report), row.position, row.batches)
        }
    };
    let held = READING.with(|reading| reading.borrow_mut().take());
    let held = held.filter(|held| held.run == run && (run.is_none() || held.batches == batches));
    let mut reading = match held {
        Some(held) => held,
        None => begin(run, &order, position, batches, report.as_ref())?,
    };
    let most = order.batch_size.max(1) as usize;
    let (items, read) = if reading.second.is_some() { (Vec::new(), true) } else { reading.next_batch(most)? };
    let noted = run.is_some() && disk::written_elsewhere(Path::new(&order.directory))?;
    let rules = Rules { run, keep_expired: order.keep_expired, noun: "file", noted };
    let counts = report.as_mut().unwrap_or(&mut reading.report);
    take(&rules, &items, counts, &mut reading.seen, &mut reading.known)?;
    let end = read && {
        let second = reading.second.get_or_insert_default();
        second.go_on(run, most, &mut reading.known, &mut reading.seen, counts)?
    };
    reading.batches += 1;
    reading.stored += items.len();
    if run.is_some() && !end && reading.stored >= LONG && matches!(reading.helper, Helper::NotYet) {
        reading.helper = Helper::Asked { _merger: Merger::start() };
    }
    let total = reading.pipeline.total().map(|counted| (counted + reading.before) as i64);
    let text = report.as_ref().unwrap_or(&reading.report).to_json();
    if let (Some(id), Some(report)) = (run, &report) {
        rows::advance(id, items.last().map(|item| item.path.as_slice()), report, total, end)?;
    }
    if !end {
        READING.with(|place| *place.borrow_mut() = Some(reading));
    }
    Ok(State { finished: end, total, report: text })
}

fn begin(
    run: Option<i64>,
    order: &Order,
    after: Option<Vec<u8>>,
    batches: i64,
    report: Option<&Report>,
) -> Result<Reading, Error> {
    let (pipeline, known) = open(&order.directory, order.services.as_deref(), after, run.is_some())?;
    Ok(Reading {
        run,
        batches,
        before: report.map_or(0, |report| report.all.files),
        pipeline,
        rest: Vec::new(),
        report: Report::default(),
        seen: Seen::default(),
        known,
        second: None,
        stored: 0,
        helper: Helper::NotYet,
    })
}

/// Opens a directory and begins to read it behind a path, making `jsonb` or not; the keys by which digests are found come with it.
///
/// # Errors
/// What the system says of it.
pub fn open(
    directory: &str,
    services: Option<&[String]>,
    after: Option<Vec<u8>>,
    build: bool,
) -> Result<(Pipeline, Known), Error> {
    let refused = |why: String| Error::InvalidArgument {
        message: format!("directory \"{directory}\" cannot be read: {why}"),
        hint: "Give the absolute path of a directory on the server that its operating system user may read.".to_owned(),
    };
    let path = directory.to_owned();
    let root = disk::patiently(move || safe::open_root(&path))?.map_err(|errno| refused(errno.desc().to_owned()))?;
    let mut known = Known::default();
    rows::known_keys(|key| known.add(key))?;
    let all = registry::all()?;
    let only = services.map(|names| {
        let mut only: BTreeSet<String> = names.iter().cloned().collect();
        if only.contains("virustotal") {
            only.insert(VIRUSTOTAL_UNKNOWN.to_owned());
        }
        only
    });
    let most_bytes = all.values().map(|service| service.max_bytes).max().unwrap_or(0).min(LARGEST);
    let spec = Spec { root, after, only, services: all, most_bytes, build: build && encoding::is_utf8() };
    let readers = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(READERS));
    let pipeline = Pipeline::start(spec, readers).map_err(|error| refused(error.to_string()))?;
    Ok((pipeline, known))
}

impl Reading {
    /// The next files, and whether they are the last.
    fn next_batch(&mut self, most: usize) -> Result<(Vec<Item>, bool), Error> {
        let mut items: Vec<Item> = Vec::with_capacity(most);
        let mut bytes = 0;
        let mut more = std::mem::take(&mut self.rest);
        loop {
            let mut parts = more.into_iter();
            for item in parts.by_ref() {
                bytes += item.bytes;
                items.push(item);
                if items.len() == most || bytes >= MOST_BYTES {
                    self.rest = parts.collect();
                    return Ok((items, false));
                }
            }
            more = match next_part(&mut self.pipeline)? {
                Some(part) => part,
                None => return Ok((items, true)),
            };
        }
    }
}

/// The next files of a reading, waiting for them as long as nobody cancels; nothing at its end.
///
/// # Errors
/// A thread of the reading has died.
pub fn next_part(pipeline: &mut Pipeline) -> Result<Option<Vec<Item>>, Error> {
    loop {
        pgrx::check_for_interrupts!();
        match pipeline.next(PATIENCE) {
            Next::Items(mut items) => {
                fit(&mut items);
                return Ok(Some(items));
            }
            Next::Waiting => (),
            Next::End if pipeline.complete() => return Ok(None),
            Next::End => return Err(Error::other("reading the directory ended before its end")),
        }
    }
}
