//! Answers go to the rows that wait for them, a bounded batch of keys and one commit at a time. A batch that fails is
//! written in halves, down to single keys: rows that somebody else holds are tried again soon, a row that refuses its answer is set aside
//! until the next sweep, and neither stops the others.

use super::{steps::Steps, xact};
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert;
use crate::pg::store::indicators;
use crate::pg::store::sources::{self, Shape, Source};
use crate::pg::store::user_tables;
use std::collections::BTreeMap;

/// How long a key rests whose rows were locked.
const LOCKED_REST: Micros = 250_000;
/// This many keys refused and none written means that the table refuses, not its rows.
const TABLE_REFUSES: usize = 10;

/// Keys whose rows somebody else held, by source, and when they are tried again.
#[derive(Default)]
pub struct WriteBack {
    locked: BTreeMap<String, (Micros, Vec<String>)>,
}

/// What became of the parts of a batch.
#[derive(Default)]
struct Parts {
    written: usize,
    refused: Vec<(String, Error)>,
}

impl Parts {
    fn table_refuses(&self) -> bool {
        self.written == 0 && self.refused.len() >= TABLE_REFUSES
    }
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
        let resting = self.locked.get(&source.name).map(|(_, keys)| keys.clone()).unwrap_or_default();
        let mut keys = Vec::new();
        let written = xact::run(c"enrichment_cache: writing back", || {
            keys = indicators::dirty(&source.name, source.batch(), resting)?;
            write(source, &keys)
        });
        match written {
            Ok(()) => Ok(!keys.is_empty()),
            Err(error) if keys.is_empty() => Err(error),
            Err(_) => self.in_parts(source, &keys),
        }
    }

    fn in_parts(&mut self, source: &Source, keys: &[String]) -> Result<bool, Error> {
        let mut parts = Parts::default();
        self.halves(source, keys, &mut parts);
        let Some((key, error)) = parts.refused.first() else { return Ok(true) };
        let problem = format!(
            "{} of {} keys could not be written, {key} for one: {error}",
            parts.refused.len(),
            parts.refused.len() + parts.written
        );
        xact::run(c"enrichment_cache: setting rows aside", || {
            sources::problem(&source.name, Some(&problem))?;
            if !parts.table_refuses() {
                indicators::written(&source.name, parts.refused.iter().map(|(key, _)| key.clone()).collect())?;
            }
            Ok(())
        })?;
        match parts.table_refuses() {
            false => Ok(true),
            true => Err(Error::Other { message: problem, detail: None, hint: None }),
        }
    }

    /// Writes what can be written of a batch that failed: each half, and each half of a half that fails.
    fn halves(&mut self, source: &Source, keys: &[String], parts: &mut Parts) {
        let (one, other) = keys.split_at(keys.len().div_ceil(2));
        for half in [one, other].into_iter().filter(|half| !half.is_empty()) {
            if parts.table_refuses() {
                return;
            }
            let written = xact::run(c"enrichment_cache: writing back a part", || write(source, half));
            match (written, half) {
                (Ok(()), _) => parts.written += half.len(),
                (Err(error), [key]) if is_locked(&error) => self.rest(source, key),
                (Err(error), [key]) => parts.refused.push((key.clone(), error)),
                (Err(_), _) => self.halves(source, half, parts),
            }
        }
    }

    fn rest(&mut self, source: &Source, key: &str) {
        let until = convert::clock() + LOCKED_REST;
        let (_, keys) = self.locked.entry(source.name.clone()).or_insert((until, Vec::new()));
        keys.push(key.to_string());
    }
}

fn write(source: &Source, keys: &[String]) -> Result<(), Error> {
    if keys.is_empty() {
        return Ok(());
    }
    if source.shape != Shape::None {
        user_tables::write_back(source, keys)?;
    }
    indicators::written(&source.name, keys.to_vec())
}

/// Whether the statement met somebody else's lock or change, and may do better later.
fn is_locked(error: &Error) -> bool {
    const PASSING: [&str; 3] =
        ["ERRCODE_LOCK_NOT_AVAILABLE", "ERRCODE_T_R_DEADLOCK_DETECTED", "ERRCODE_T_R_SERIALIZATION_FAILURE"];
    matches!(error, Error::Statement { sqlstate, .. } if PASSING.contains(&sqlstate.as_str()))
}
