//! Answers go to the rows that wait for them, a bounded batch of keys and one commit at a time. A batch that fails is
//! written in halves, down to single keys: rows that somebody else holds are tried again soon, a row that refuses its answer is set aside
//! until the next sweep, and neither stops the others.

use super::pieces::{self, Large, Pieces};
use super::slices::{self, Next, Placed, Slices};
use super::{steps::Steps, xact};
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert;
use crate::pg::store::indicators;
pub use crate::pg::store::indicators::Share;
use crate::pg::store::sources::{self, Shape, Source};
use crate::pg::store::user_tables::{self, Part};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a key rests whose rows were locked.
const LOCKED_REST: Micros = 250_000;
/// How long a source is written without a pause.
const TURN: Duration = Duration::from_millis(100);
/// Keys that are looked for at once at first.
const FEW_KEYS: usize = 50;
/// Keys beyond those that had the rows of a transaction of late and a quarter: each is read from index, table and queue.
const SOME_MORE: usize = 10;
/// This many keys refused and none written means that the table refuses, not its rows.
const TABLE_REFUSES: usize = 10;

/// Keys whose rows somebody else held, by source, and when they are tried again.
#[derive(Default)]
pub struct WriteBack {
    locked: BTreeMap<String, (Micros, Vec<String>)>,
    /// Keys that are written piece by piece, by source and key.
    pieces: Pieces,
    /// Tables that were read whole, and what is still to be written of them.
    slices: Slices,
    /// The keys that are this process's.
    share: Share,
    /// As many keys as are looked for at once, by source: so many have had the rows of a transaction of late, and some more.
    usual: BTreeMap<String, usize>,
    /// The last key that was written, by source. The next ones are looked for from there on, and from the first one when there is none:
    /// the index still leads to those that were written a moment ago.
    reached: BTreeMap<String, String>,
    /// Whether there was more to write than the last turn had time for, of sources whose keys can be shared.
    pressed: bool,
}

/// Whether a source has more to write.
enum More {
    Yes,
    No,
    /// What there was has been tried part by part, which took its time.
    InParts,
}

/// Writes some keys, or what else a batch consists of.
type Write<'a, K> = &'a dyn Fn(&[K], &mut Pieces) -> Result<(), Error>;

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
    /// That of a process which writes a share of the keys.
    pub fn of(share: Share) -> Self {
        WriteBack { share, ..WriteBack::default() }
    }

    /// Changes the share.
    pub fn take(&mut self, share: Share) {
        if share != self.share {
            // what was read may be somebody else's now
            self.slices.clear();
        }
        self.share = share;
    }

    pub fn is_pressed(&self) -> bool {
        self.pressed
    }

    /// As [`WriteBack::all`], of the sources whose keys can be shared.
    ///
    /// # Errors
    /// What went wrong; the sources that come later are left out then.
    pub fn helped(&mut self, standing: &[Source]) -> Result<bool, Error> {
        let mut busy = false;
        self.forget(standing);
        for source in standing.iter().filter(|source| is_shared(source)) {
            busy |= self.batch(source)?;
        }
        Ok(busy)
    }

    fn forget(&mut self, standing: &[Source]) {
        let now = convert::clock();
        let stands = |name: &String| standing.iter().any(|source| source.name == *name);
        self.locked.retain(|name, (until, _)| *until > now && stands(name));
        self.pieces.retain(|(name, _), _| stands(name));
        self.slices.retain(stands);
        self.usual.retain(|name, _| stands(name));
        self.reached.retain(|name, _| stands(name));
    }

    /// Writes one batch of each source; true when one of them had anything to write.
    pub fn all(&mut self, standing: &[Source], steps: &mut Steps) -> bool {
        self.forget(standing);
        self.pressed = false;
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
            let more = match slices::at_once(source) {
                Some(rows) => self.slice(source, rows)?,
                None => self.keys(source)?,
            };
            match more {
                More::No => break,
                More::Yes => busy = true,
                More::InParts => return Ok(true),
            }
        }
        self.pressed |= is_shared(source) && began.elapsed() >= TURN;
        Ok(busy)
    }

    /// The next keys to be written, `rows` rows and `usual` keys at most.
    fn dirty(&self, source: &Source, bounds: (i64, usize), from: &str) -> Result<Vec<(String, i64)>, Error> {
        let all = Share::default();
        let share = if is_shared(source) { &self.share } else { &all };
        let resting = self.locked.get(&source.name).map(|(_, keys)| keys.clone()).unwrap_or_default();
        indicators::dirty((&source.name, &source.services), bounds, from, resting, share)
    }

    /// Writes a batch of keys whose rows an index finds.
    fn keys(&mut self, source: &Source) -> Result<More, Error> {
        let usual = match is_shared(source) && source.indexed {
            true => self.usual.get(&source.name).copied().unwrap_or(FEW_KEYS),
            false => usize::MAX,
        };
        let from = self.reached.remove(&source.name).unwrap_or_default();
        let mut keys = Vec::new();
        let written = xact::run(c"enrichment_cache: writing back", || {
            let bounds = (source.commit_interval, usual);
            keys = self.dirty(source, bounds, &from)?;
            if keys.is_empty() && !from.is_empty() {
                keys = self.dirty(source, bounds, "")?;
            }
            write(source, &keys, &mut self.pieces)
        });
        match written {
            Ok(()) if keys.is_empty() => Ok(More::No),
            Ok(()) => {
                let next = if keys.len() == usual { usual.saturating_mul(2) } else { keys.len() * 5 / 4 + SOME_MORE };
                self.usual.insert(source.name.clone(), next);
                self.reached.extend(keys.pop().map(|(last, _)| (source.name.clone(), last)));
                Ok(More::Yes)
            }
            Err(error) if keys.is_empty() => Err(error),
            Err(_) => self.in_parts(source, &keys, |(key, _)| key, &|half: &[(String, i64)], pieces: &mut Pieces| {
                write(source, half, pieces)
            }),
        }
    }

    /// Writes a slice of a table that was read whole, or reads it, to find the places of so many rows.
    fn slice(&mut self, source: &Source, rows: i64) -> Result<More, Error> {
        match self.slices.next(source) {
            None => {
                let read = xact::run(c"enrichment_cache: finding rows to write", || {
                    let mut keys: Vec<String> =
                        self.dirty(source, (rows, usize::MAX), "")?.into_iter().map(|(key, _)| key).collect();
                    // rows without a key stand nowhere that could be looked for by it
                    if keys.first().is_some_and(String::is_empty) {
                        pieces::write_keyless(source, &keys.remove(0), 1, &mut self.pieces)?;
                        return Ok((true, slices::read(source, keys)?));
                    }
                    Ok((!keys.is_empty(), slices::read(source, keys)?))
                });
                let (any, keys) = read.inspect_err(|error| note_unread(source, error))?;
                self.slices.begin(source, keys);
                Ok(if any { More::Yes } else { More::No })
            }
            Some(Next::Slice(slice)) => {
                match xact::run(c"enrichment_cache: writing back", || slices::write(source, &slice)) {
                    Ok(missed) => self.slices.missed(source, missed),
                    Err(_) => {
                        let part = |half: &[Placed], _: &mut Pieces| slices::write(source, half).map(|_| ());
                        return self.in_parts(source, &slice, |placed| &placed.key, &part);
                    }
                }
                Ok(More::Yes)
            }
            Some(Next::Large(key, rows, places)) => {
                if let Some(places) = places {
                    self.pieces.insert((source.name.clone(), key.clone()), Large::at(places));
                }
                let keys = [(key, rows)];
                let piece = |keys: &[(String, i64)], pieces: &mut Pieces| match keys {
                    [(key, rows), ..] => pieces::write_next(source, key, *rows, pieces),
                    [] => Ok(true),
                };
                match xact::run(c"enrichment_cache: writing back a piece", || piece(&keys, &mut self.pieces)) {
                    Ok(true) => (),
                    Ok(false) => {
                        let [(key, rows)] = keys;
                        self.slices.again(source, key, rows);
                    }
                    Err(_) => {
                        let part = |half: &[(String, i64)], pieces: &mut Pieces| piece(half, pieces).map(|_| ());
                        return self.in_parts(source, &keys, |(key, _)| key, &part);
                    }
                }
                Ok(More::Yes)
            }
            Some(Next::Missed(keys)) => {
                let last = self.slices.last_try(source);
                let missed = xact::run(c"enrichment_cache: writing back", || slices::write_missed(source, &keys, last));
                match missed {
                    Ok(all) => self.slices.looked(source, all),
                    Err(_) => {
                        let part =
                            move |half: &[String], _: &mut Pieces| slices::write_missed(source, half, last).map(|_| ());
                        return self.in_parts(source, &keys, |key| key, &part);
                    }
                }
                Ok(More::Yes)
            }
        }
    }

    fn in_parts<K>(
        &mut self,
        source: &Source,
        keys: &[K],
        name: fn(&K) -> &String,
        write: Write<K>,
    ) -> Result<More, Error> {
        let mut parts = Parts::default();
        self.halves(source, keys, name, write, &mut parts);
        let Some((key, error)) = parts.refused.first() else { return Ok(More::InParts) };
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
            false => Ok(More::InParts),
            true => Err(Error::Other { message: problem, detail: None, hint: None }),
        }
    }

    /// Writes what can be written of a batch that failed: each half, and each half of a half that fails.
    fn halves<K>(&mut self, source: &Source, keys: &[K], name: fn(&K) -> &String, write: Write<K>, parts: &mut Parts) {
        let (one, other) = keys.split_at(keys.len().div_ceil(2));
        for half in [one, other].into_iter().filter(|half| !half.is_empty()) {
            if parts.table_refuses() {
                return;
            }
            let written = xact::run(c"enrichment_cache: writing back a part", || write(half, &mut self.pieces));
            match (written, half) {
                (Ok(()), _) => parts.written += half.len(),
                (Err(error), [key]) if is_locked(&error) => self.rest(source, name(key)),
                (Err(error), [key]) => parts.refused.push((name(key).clone(), error)),
                (Err(_), _) => self.halves(source, half, name, write, parts),
            }
        }
    }

    fn rest(&mut self, source: &Source, key: &str) {
        let until = convert::clock() + LOCKED_REST;
        let (_, keys) = self.locked.entry(source.name.clone()).or_insert((until, Vec::new()));
        keys.push(key.to_string());
    }
}

fn write(source: &Source, keys: &[(String, i64)], pieces: &mut Pieces) -> Result<(), Error> {
    let keys = match keys {
        [(key, rows), rest @ ..] if key.is_empty() => {
            pieces::write_keyless(source, key, *rows, pieces)?;
            rest
        }
        _ => keys,
    };
    let Some((first, _)) = keys.first() else { return Ok(()) };
    let most = source.commit_interval;
    // a key of very many rows is written piece by piece, and stays on the list until all are through
    let large = keys.iter().map(|(_, rows)| *rows).find(|rows| *rows > most);
    if let Some(rows) = large.filter(|_| source.shape != Shape::None) {
        return pieces::write_next(source, first, rows, pieces).map(|_| ());
    }
    let taken = indicators::written(&source.name, keys.iter().map(|(key, _)| key.clone()).collect())?;
    if source.shape != Shape::None {
        user_tables::write_back(source, &taken, Part::All)?;
    }
    indicators::settled(&source.name, taken.moved)
}

/// What is wrong with a table whose rows could not be found stands in enrich_health().
fn note_unread(source: &Source, error: &Error) {
    let problem = format!("the rows to be written could not be found: {error}");
    let noted =
        xact::run(c"enrichment_cache: noting a broken source", || sources::problem(&source.name, Some(&problem)));
    if let Err(second) = noted {
        pgrx::log!("enrichment_cache: source {}: {problem}; this could not be noted: {second}", source.name);
    }
}

/// Whether several processes may write into its table: an answer about a file or a password changes rows of other keys too.
fn is_shared(source: &Source) -> bool {
    matches!(source.shape, Shape::Raw | Shape::Cowrieprocessor)
}

/// Whether the statement met somebody else's lock or change, and may do better later.
pub(super) fn is_locked(error: &Error) -> bool {
    const PASSING: [&str; 3] =
        ["ERRCODE_LOCK_NOT_AVAILABLE", "ERRCODE_T_R_DEADLOCK_DETECTED", "ERRCODE_T_R_SERIALIZATION_FAILURE"];
    matches!(error, Error::Statement { sqlstate, .. } if PASSING.contains(&sqlstate.as_str()))
}
