//! Importing what was read as rows: the older table, and files that a client sent. The procedure reads them with its caller's
//! rights and hands them over; what becomes of them is decided as for files of a directory.

use super::run::watch;
use super::second_look::SecondLook;
use super::take::{fit, take, Rules, Seen};
use super::verify::{compare, Finding, Findings};
use crate::core::disk::item::{look_at_row, look_at_sent, Item, Services};
use crate::core::disk::known::Known;
use crate::core::disk::report::{Fate, Report};
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::store::{migration as rows, registry};
use std::cell::RefCell;

/// What is imported: which columns say what.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Service, key, value, time.
    Table,
    /// Path, why there are no bytes, bytes in base64, time.
    Archive,
}

impl Kind {
    /// # Errors
    /// Another name.
    pub fn parse(name: &str) -> Result<Kind, Error> {
        match name {
            "table" => Ok(Kind::Table),
            "archive" => Ok(Kind::Archive),
            _ => Err(Error::InvalidArgument {
                message: format!("no rows are imported as \"{name}\""),
                hint: "Use table or archive.".to_owned(),
            }),
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Kind::Table => "row",
            Kind::Archive => "file",
        }
    }
}

/// Rows as columns, all of one length.
#[derive(Default)]
pub struct Columns {
    pub names: Vec<Option<String>>,
    pub keys: Vec<Option<String>>,
    pub bodies: Vec<Option<String>>,
    pub at: Vec<Option<Micros>>,
}

impl Columns {
    fn items(self, kind: Kind, services: &Services) -> Result<Vec<Item>, Error> {
        let n = self.names.len();
        if [self.keys.len(), self.bodies.len(), self.at.len()] != [n; 3] {
            return Err(Error::other("the columns of an import differ in length"));
        }
        let rows = self.names.into_iter().zip(self.keys).zip(self.bodies).zip(self.at);
        let items = rows.map(|(((name, key), body), at)| {
            let (name, body) = (name.as_deref(), body.as_deref());
            match kind {
                Kind::Archive => look_at_sent(name.unwrap_or_default(), at, body.ok_or(key.as_deref()), services),
                Kind::Table => Item {
                    path: format!("{}/{}", name.unwrap_or_default(), key.as_deref().unwrap_or_default()).into_bytes(),
                    bytes: body.map_or(0, |body| body.len() as u64),
                    what: look_at_row(name, key.as_deref(), body, at, services),
                },
            }
        });
        let mut items: Vec<Item> = items.collect();
        fit(&mut items);
        Ok(items)
    }
}

/// How a batch is taken.
pub struct Order {
    /// None: it is only tried.
    pub run: Option<i64>,
    pub kind: Kind,
    /// Nothing of an earlier import of this session counts.
    pub first: bool,
    pub keep_expired: bool,
    /// Where the batch ends.
    pub position: Option<String>,
    pub total: Option<i64>,
    /// Rows without a name, which no batch holds.
    pub nameless: i64,
    /// No rows are left: this batch is empty.
    pub all_given: bool,
}

/// What lasts from one batch to the next. Of a run that stores, only the keys by which digests are found.
#[derive(Default)]
struct Held {
    known: Known,
    seen: Seen,
    second: SecondLook,
    report: Report,
}

thread_local! {
    static HELD: RefCell<Option<Held>> = const { RefCell::new(None) };
}

/// Gives back the memory of an import that ended with an error.
pub(super) fn forget() {
    let _ = HELD.try_with(|held| held.try_borrow_mut().map(|mut held| *held = None));
}

fn held(kind: Kind, first: bool) -> Result<Held, Error> {
    watch();
    let last = HELD.with(|held| held.borrow_mut().take());
    if let Some(held) = last.filter(|_| !first) {
        return Ok(held);
    }
    let mut held = Held::default();
    if kind == Kind::Archive {
        rows::known_keys(|key| held.known.add(key))?;
    }
    Ok(held)
}

fn hold(held: Held) {
    HELD.with(|place| *place.borrow_mut() = Some(held));
}

/// Named in one step of a second look, at most.
const NAMED: usize = 1000;

/// Takes a batch; returns the report so far, and whether that was all.
///
/// # Errors
/// A run that is not this session's; what PostgreSQL says while storing.
pub fn step(order: Order, columns: Columns) -> Result<(String, bool), Error> {
    let Order { run, kind, first, keep_expired, position, total, nameless, all_given } = order;
    let mut held = held(kind, first)?;
    let (mut report, keep_expired) = match run {
        None => (std::mem::take(&mut held.report), keep_expired),
        Some(id) => {
            let row = rows::open(id, false)?.ok_or_else(|| Error::Other {
                message: format!("import {id} is not run by this session"),
                detail: None,
                hint: Some("Another session may go on with it; see enrichment_migration_progress.".to_owned()),
            })?;
            (row.report, row.keep_expired)
        }
    };
    let items = columns.items(kind, &registry::all()?)?;
    let rules = Rules { run, keep_expired, noun: kind.noun(), noted: true };
    take(&rules, &items, &mut report, &mut held.seen, &mut held.known)?;
    let finished = all_given
        && (kind == Kind::Table || held.second.go_on(run, NAMED, &mut held.known, &mut held.seen, &mut report)?);
    for _ in 0..nameless {
        report.note(None, Fate::Malformed, 0);
    }
    let text = report.to_json();
    if let Some(id) = run {
        if nameless > 0 {
            let why = format!("{nameless} rows have no service or no cache_key");
            rows::problems(id, &[(String::new(), "malformed", why)])?;
        }
        rows::advance(id, position.as_deref().map(str::as_bytes), &report, total, finished)?;
    }
    if !finished {
        held.report = report;
        hold(held);
    }
    Ok((text, finished))
}

/// Compares a batch with what the cache holds.
///
/// # Errors
/// What PostgreSQL says.
pub fn verify(kind: Kind, first: bool, columns: Columns) -> Result<Vec<Finding>, Error> {
    let mut held = held(kind, first)?;
    let items = columns.items(kind, &registry::all()?)?;
    let mut found = Findings::default();
    compare(&items, &mut found, &mut held.known)?;
    if items.is_empty() {
        forget();
    } else {
        hold(held);
    }
    Ok(found.rows())
}
