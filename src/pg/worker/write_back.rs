//! Answers go to the rows that wait for them, a bounded batch of keys and one commit at a time. A batch that fails is
//! written key by key: rows that somebody else holds are tried again soon, a row that refuses its answer is set aside
//! until the next sweep, and neither stops the others.

use super::{steps::Steps, xact};
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert;
use crate::pg::store::indicators;
use crate::pg::store::sources::{self, Shape, Source};
use crate::pg::store::user_tables;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a key rests whose rows were locked.
const LOCKED_REST: Micros = 250_000;
/// How long a source is written without a pause.
const TURN: Duration = Duration::from_millis(100);
/// Blocks of a table that is read whole in a moment.
const SMALL_TABLE: i64 = 1000;
const UNINDEXED_BATCH: i64 = 50;
/// A batch of at least this many keys of which none can be written means that the table refuses, not its rows.
const TABLE_REFUSES: usize = 10;

/// Keys whose rows somebody else held, by source, and when they are tried again.
#[derive(Default)]
pub struct WriteBack {
    locked: BTreeMap<String, (Micros, Vec<String>)>,
    /// Of keys that are written piece by piece, by source and key, how many pieces so far.
    pieces: BTreeMap<(String, String), i64>,
}

impl WriteBack {
    /// Writes one batch of each source; true when one of them had anything to write.
    pub fn all(&mut self, standing: &[Source], steps: &mut Steps) -> bool {
        let now = convert::clock();
        self.locked.retain(|name, (until, _)| *until > now && standing.iter().any(|source| source.name == *name));
        let mut busy = false;
        for source in standing {
            busy |= steps.run(&format!("write-back to {}", source.name), || self.batch(source));
        }
        busy
    }

    /// When the first locked key is tried again.
    pub fn next_try(&self) -> Option<Micros> {
        self.locked.values().map(|(until, _)| *until).min()
    }

    fn batch(&mut self, source: &Source) -> Result<bool, Error> {
        let began = Instant::now();
        let mut busy = false;
        // answers and new keys wait meanwhile, so not for long
        while began.elapsed() < TURN {
            let resting = self.locked.get(&source.name).map(|(_, keys)| keys.clone()).unwrap_or_default();
            let mut keys = Vec::new();
            let written = xact::run(c"enrichment_cache: writing back", || {
                keys = indicators::dirty(&source.name, rows_at_once(source), resting)?;
                write(source, &keys, &mut self.pieces)
            });
            match written {
                Ok(()) if keys.is_empty() => break,
                Ok(()) => busy = true,
                Err(error) if keys.is_empty() => return Err(error),
                Err(_) => return self.one_by_one(source, &keys),
            }
        }
        Ok(busy)
    }

    fn one_by_one(&mut self, source: &Source, keys: &[(String, i64)]) -> Result<bool, Error> {
        let mut refused = Vec::new();
        for key in keys {
            let alone = xact::run(c"enrichment_cache: writing back one key", || {
                write(source, std::slice::from_ref(key), &mut self.pieces)
            });
            match alone {
                Ok(()) => {}
                Err(error) if is_locked(&error) => self.rest(source, &key.0),
                Err(error) => refused.push((key.0.clone(), error)),
            }
        }
        let Some((key, error)) = refused.first() else { return Ok(true) };
        let problem = format!("{} of {} keys could not be written, {key} for one: {error}", refused.len(), keys.len());
        xact::run(c"enrichment_cache: setting rows aside", || {
            sources::problem(&source.name, Some(&problem))?;
            if refused.len() < keys.len().max(TABLE_REFUSES) {
                indicators::written(&source.name, refused.iter().map(|(key, _)| key.clone()).collect())?;
            }
            Ok(())
        })?;
        match refused.len() < keys.len().max(TABLE_REFUSES) {
            true => Ok(true),
            false => Err(Error::Other { message: problem, detail: None, hint: None }),
        }
    }

    fn rest(&mut self, source: &Source, key: &str) {
        let until = convert::clock() + LOCKED_REST;
        let (_, keys) = self.locked.entry(source.name.clone()).or_insert((until, Vec::new()));
        keys.push(key.to_string());
    }
}

/// Rows written in one transaction. Without an index each batch reads the whole table, so there it is larger.
fn rows_at_once(source: &Source) -> i64 {
    match source.indexed || source.blocks < SMALL_TABLE {
        true => source.commit_interval,
        false => source.commit_interval.saturating_mul(UNINDEXED_BATCH),
    }
}

fn write(source: &Source, keys: &[(String, i64)], pieces: &mut BTreeMap<(String, String), i64>) -> Result<(), Error> {
    let Some((first, _)) = keys.first() else { return Ok(()) };
    let names: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
    if source.shape != Shape::None {
        // a key of very many rows is written piece by piece, and stays on the list until a piece is not full
        let most = rows_at_once(source);
        let large = keys.iter().map(|(_, rows)| *rows).find(|rows| *rows > most);
        let written = user_tables::write_back(source, &names, large.map(|_| most))?;
        if let Some(rows) = large {
            let place = (source.name.clone(), first.clone());
            let so_far = pieces.entry(place.clone()).or_default();
            *so_far += 1;
            // a trigger of the table that undoes what is written must not keep it here for ever
            if written >= most as u64 && *so_far <= 2 * (rows / most + 1) {
                return Ok(());
            }
            pieces.remove(&place);
        }
    }
    indicators::written(&source.name, names)
}

/// Whether the statement met somebody else's lock or change, and may do better later.
fn is_locked(error: &Error) -> bool {
    const PASSING: [&str; 3] =
        ["ERRCODE_LOCK_NOT_AVAILABLE", "ERRCODE_T_R_DEADLOCK_DETECTED", "ERRCODE_T_R_SERIALIZATION_FAILURE"];
    matches!(error, Error::Statement { sqlstate, .. } if PASSING.contains(&sqlstate.as_str()))
}
