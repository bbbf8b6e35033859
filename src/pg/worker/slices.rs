//! Tables whose rows are found by reading all of them, as there is no index on the key, or as passwords are hashed for it: they are read once for very
//! many keys, and written in slices of `commit_interval` rows, each a transaction.
//!
//! Contract: a slice holds its keys whole, and the marks of these are taken off in the transaction that writes them. A key of more
//! rows than a slice has is left to the caller with its places. What was not found at its place is looked for at the end.

use crate::core::error::Error;
use crate::pg::setting;
use crate::pg::store::indicators;
use crate::pg::store::sources::{Shape, Source};
use crate::pg::store::user_tables::{self, Part, Place};
use std::collections::BTreeMap;

/// Blocks of a table that is read whole in a moment.
const SMALL_TABLE: i64 = 1000;
/// Rows that are looked for at once where there is no index, in slices.
const UNINDEXED_SLICES: i64 = 50;
/// For each batch of prefixes a table of passwords is hashed once as a whole: 276,000 passwords then take some 30 passes in place of
/// 2,800.
const PASSWORDS: i64 = 10_000;
/// Places that are held, about.
const MOST_PLACES: i64 = 1_000_000;

/// A key and where its rows stand.
pub struct Placed {
    pub key: String,
    pub places: Vec<Place>,
}

/// What is to be written next of a table.
pub enum Next {
    /// Rows of whole keys.
    Slice(Vec<Placed>),
    /// A key of so many rows, more than a slice has; with its places when it is new.
    Large(String, i64, Option<Vec<Place>>),
    /// What was not at its place any more, wherever it is now.
    Missed(Vec<String>),
}

/// A trigger of the table that keeps rows from being written must not have it read for ever.
const TRIES: u32 = 20;

/// Of each table that was read, what is still to be written.
#[derive(Default)]
pub struct Slices {
    left: BTreeMap<String, Left>,
    /// How often in a row not all could be found that was missed.
    incomplete: BTreeMap<String, u32>,
}

struct Left {
    /// The next one comes last.
    keys: Vec<Placed>,
    /// Written in part.
    large: Option<(String, i64)>,
    missed: Vec<String>,
}

/// How many rows are looked for at once; None: those of a transaction.
pub fn at_once(source: &Source) -> Option<i64> {
    let rows = match source.shape {
        Shape::None => return None,
        Shape::Passwords => source.commit_interval.max(PASSWORDS),
        _ if source.indexed || source.blocks < SMALL_TABLE => return None,
        _ => source.commit_interval.saturating_mul(UNINDEXED_SLICES),
    };
    Some(rows.min(MOST_PLACES.max(source.commit_interval)))
}

impl Slices {
    /// Keeps those of the tables that still stand.
    pub fn retain(&mut self, stands: impl Fn(&String) -> bool) {
        self.left.retain(|name, _| stands(name));
    }

    /// Forgets what was read: the keys are marked as they were.
    pub fn clear(&mut self) {
        self.left.clear();
    }

    /// Takes over what was read.
    pub fn begin(&mut self, source: &Source, keys: Vec<Placed>) {
        self.left.insert(
            source.name.clone(),
            Left { keys: keys.into_iter().rev().collect(), large: None, missed: Vec::new() },
        );
    }

    /// The next part; None when there is none, and the table is to be read again.
    pub fn next(&mut self, source: &Source) -> Option<Next> {
        let most = source.commit_interval as usize;
        let left = self.left.get_mut(&source.name)?;
        if let Some((key, rows)) = left.large.take() {
            return Some(Next::Large(key, rows, None));
        }
        if let Some(Placed { key, places }) = left.keys.pop_if(|key| key.places.len() > most) {
            return Some(Next::Large(key, places.len() as i64, Some(places)));
        }
        let (mut slice, mut rows) = (Vec::new(), 0);
        while let Some(key) = left.keys.pop_if(|key| rows + key.places.len() <= most) {
            rows += key.places.len();
            slice.push(key);
        }
        if !slice.is_empty() {
            return Some(Next::Slice(slice));
        }
        let missed = self.left.remove(&source.name)?.missed;
        (!missed.is_empty()).then_some(Next::Missed(missed))
    }

    /// Goes on with a large key.
    pub fn again(&mut self, source: &Source, key: String, rows: i64) {
        if let Some(left) = self.left.get_mut(&source.name) {
            left.large = Some((key, rows));
        }
    }

    /// Whether what was missed of a table is looked for in vain for the last time.
    pub fn last_try(&self, source: &Source) -> bool {
        self.incomplete.get(&source.name).is_some_and(|tries| *tries >= TRIES)
    }

    /// Notes whether all was found that was missed.
    pub fn looked(&mut self, source: &Source, all: bool) {
        match all || self.last_try(source) {
            true => drop(self.incomplete.remove(&source.name)),
            false => *self.incomplete.entry(source.name.clone()).or_default() += 1,
        }
    }

    /// Looks for these at the end.
    pub fn missed(&mut self, source: &Source, keys: Vec<String>) {
        if let Some(left) = self.left.get_mut(&source.name) {
            left.missed.extend(keys);
        }
    }
}

/// Where the rows of marked keys stand.
///
/// # Errors
/// What the server raises, also from an expression of the source.
pub fn read(source: &Source, keys: Vec<String>) -> Result<Vec<Placed>, Error> {
    let mut found = user_tables::places_of_all(source, &keys, None)?;
    let placed = |key: String| {
        let places = found.remove(&key).unwrap_or_default();
        Placed { key, places }
    };
    Ok(keys.into_iter().map(placed).collect())
}

/// Writes rows of whole keys where they stood; returns the keys of which one was not found there to be written. These stay marked.
///
/// # Errors
/// As `write_back`.
pub fn write(source: &Source, slice: &[Placed]) -> Result<Vec<String>, Error> {
    let names: Vec<String> = slice.iter().map(|placed| placed.key.clone()).collect();
    let taken = indicators::written(&source.name, names.clone())?;
    let mut by_table: BTreeMap<u32, Vec<Place>> = BTreeMap::new();
    for (table, place) in slice.iter().flat_map(|placed| &placed.places) {
        by_table.entry(table.to_u32()).or_default().push((*table, place.clone()));
    }
    let rows: u64 = slice.iter().map(|placed| placed.places.len() as u64).sum();
    let mut changed = 0;
    for places in by_table.values() {
        changed += at_their_places(|| user_tables::write_back(source, &taken, Part::At(places)))?.rows;
    }
    if changed < rows {
        // those that had their answers already, or have none to get, stand where they stood
        let mut standing = 0;
        for places in by_table.values() {
            standing += at_their_places(|| user_tables::standing_at(source, &names, places))?;
        }
        if changed + (standing as u64) < rows {
            for name in &names {
                indicators::unwritten(&source.name, name)?;
            }
            return Ok(names);
        }
    }
    indicators::settled(&source.name, taken.moved)?;
    Ok(Vec::new())
}

/// Has the planner go to places of rows, where it would rather read a table of some thousand blocks as a whole.
fn at_their_places<T>(work: impl FnOnce() -> T) -> T {
    setting::during(c"random_page_cost", c"0.1", work)
}

/// Writes what is left of keys, at most a slice; true when that was all. Keys that are not `last` tried stay marked otherwise: they are
/// found when the table is read again.
///
/// # Errors
/// As `write_back`.
pub fn write_missed(source: &Source, keys: &[String], last: bool) -> Result<bool, Error> {
    let taken = indicators::written(&source.name, keys.to_vec())?;
    let all = user_tables::write_back(source, &taken, Part::Some(source.commit_interval))?.all;
    if !all && !last {
        for key in keys {
            indicators::unwritten(&source.name, key)?;
        }
        return Ok(false);
    }
    indicators::settled(&source.name, taken.moved)?;
    Ok(all)
}
