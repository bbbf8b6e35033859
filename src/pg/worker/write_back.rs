//! Answers go to the rows that wait for them, a bounded batch of keys and one commit at a time. A batch that fails is
//! written in halves, down to single keys: rows that somebody else holds are tried again soon, a row that refuses its answer is set aside
//! until the next sweep, and neither stops the others.

use super::{steps::Steps, xact};
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert;
use crate::pg::store::indicators;
pub use crate::pg::store::indicators::Share;
use crate::pg::store::sources::{self, Shape, Source};
use crate::pg::store::user_tables::{self, Part, Place};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// How long a key rests whose rows were locked.
const LOCKED_REST: Micros = 250_000;
/// How long a source is written without a pause.
const TURN: Duration = Duration::from_millis(100);
/// Blocks of a table that is read whole in a moment.
const SMALL_TABLE: i64 = 1000;
const UNINDEXED_BATCH: i64 = 50;
/// For each batch of prefixes a table of passwords is hashed once as a whole, so there it is many: 276,000 passwords
/// then take some 30 passes in place of 2,800.
const PASSWORD_BATCH: i64 = 10_000;
/// Keys that are looked for at once at first.
const FEW_KEYS: usize = 50;
/// Places of rows that are held of a key; rows beyond are looked for piece by piece.
const MOST_PLACES: i64 = 1_000_000;
/// This many keys refused and none written means that the table refuses, not its rows.
const TABLE_REFUSES: usize = 10;

/// Keys whose rows somebody else held, by source, and when they are tried again.
#[derive(Default)]
pub struct WriteBack {
    locked: BTreeMap<String, (Micros, Vec<String>)>,
    /// Keys that are written piece by piece, by source and key.
    pieces: Pieces,
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

type Pieces = BTreeMap<(String, String), Large>;

/// A key of very many rows. They are written where they stood when it began. Unless each was found there and written, what is
/// still to change, because it was moved meanwhile, is looked for.
#[derive(Default)]
struct Large {
    /// None: not looked for yet.
    places: Option<Vec<Place>>,
    /// Whether rows may be left when all places are through.
    missed: bool,
    /// What the rows were given so far, and how many rows the key had.
    given: Option<(Option<u64>, i64)>,
    /// Pieces that were looked for.
    further: i64,
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
    /// That of a process which writes a share of the keys.
    pub fn of(share: Share) -> Self {
        WriteBack { share, ..WriteBack::default() }
    }

    /// Changes the share.
    pub fn take(&mut self, share: Share) {
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
        let all = Share::default();
        while began.elapsed() < TURN {
            let share = if is_shared(source) { &self.share } else { &all };
            let resting = self.locked.get(&source.name).map(|(_, keys)| keys.clone()).unwrap_or_default();
            // each look at a table without an index takes as many as it can
            let usual = match is_shared(source) && source.indexed {
                true => self.usual.get(&source.name).copied().unwrap_or(FEW_KEYS),
                false => usize::MAX,
            };
            let from = self.reached.remove(&source.name).unwrap_or_default();
            let mut keys = Vec::new();
            let written = xact::run(c"enrichment_cache: writing back", || {
                let bounds = (rows_at_once(source), usual);
                keys = indicators::dirty(&source.name, bounds, &from, resting.clone(), share)?;
                if keys.is_empty() && !from.is_empty() {
                    keys = indicators::dirty(&source.name, bounds, "", resting, share)?;
                }
                write(source, &keys, &mut self.pieces)
            });
            match written {
                Ok(()) if keys.is_empty() => break,
                Ok(()) => {
                    busy = true;
                    let next = if keys.len() == usual { 2 * usual } else { keys.len() * 3 / 2 + FEW_KEYS };
                    self.usual.insert(source.name.clone(), next);
                    self.reached.extend(keys.pop().map(|(last, _)| (source.name.clone(), last)));
                }
                Err(error) if keys.is_empty() => return Err(error),
                Err(_) => return self.in_parts(source, &keys),
            }
        }
        self.pressed |= is_shared(source) && began.elapsed() >= TURN;
        Ok(busy)
    }

    fn in_parts(&mut self, source: &Source, keys: &[(String, i64)]) -> Result<bool, Error> {
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
    fn halves(&mut self, source: &Source, keys: &[(String, i64)], parts: &mut Parts) {
        let (one, other) = keys.split_at(keys.len().div_ceil(2));
        for half in [one, other].into_iter().filter(|half| !half.is_empty()) {
            if parts.table_refuses() {
                return;
            }
            let written = xact::run(c"enrichment_cache: writing back a part", || write(source, half, &mut self.pieces));
            match (written, half) {
                (Ok(()), _) => parts.written += half.len(),
                (Err(error), [(key, _)]) if is_locked(&error) => self.rest(source, key),
                (Err(error), [(key, _)]) => parts.refused.push((key.clone(), error)),
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

/// Rows written in one transaction. Without an index each batch reads the whole table, so there it is larger.
fn rows_at_once(source: &Source) -> i64 {
    if source.shape == Shape::Passwords {
        return source.commit_interval.max(PASSWORD_BATCH);
    }
    match source.indexed || source.blocks < SMALL_TABLE {
        true => source.commit_interval,
        false => source.commit_interval.saturating_mul(UNINDEXED_BATCH),
    }
}

fn write(source: &Source, keys: &[(String, i64)], pieces: &mut Pieces) -> Result<(), Error> {
    let Some((first, _)) = keys.first() else { return Ok(()) };
    let names: Vec<String> = keys.iter().map(|(key, _)| key.clone()).collect();
    indicators::written(&source.name, names.clone())?;
    if source.shape != Shape::None {
        // a key of very many rows is written piece by piece, and stays on the list until all are through
        let most = rows_at_once(source);
        match keys.iter().map(|(_, rows)| *rows).find(|rows| *rows > most) {
            None => drop(user_tables::write_back(source, &names, Part::All)?),
            Some(rows) if !write_piece(source, first, rows, most, pieces)? => {
                indicators::unwritten(&source.name, first)?
            }
            Some(_) => (),
        }
    }
    Ok(())
}

/// Whether several processes may write into its table: an answer about a file or a password changes rows of other keys too.
fn is_shared(source: &Source) -> bool {
    matches!(source.shape, Shape::Raw | Shape::Cowrieprocessor)
}

/// Writes the next piece of a key; true when it was the last.
fn write_piece(source: &Source, key: &String, rows: i64, most: i64, pieces: &mut Pieces) -> Result<bool, Error> {
    let name = (source.name.clone(), key.clone());
    let large = pieces.entry(name.clone()).or_default();
    if large.places.is_none() {
        let places = user_tables::places(source, key, MOST_PLACES)?;
        large.missed = places.len() as i64 >= MOST_PLACES;
        large.places = Some(places);
    }
    let keys = std::slice::from_ref(key);
    let places = large.places.as_mut().map(|places| (places.last().map(|(table, _)| *table), places));
    if let Some((Some(table), places)) = places {
        // of one table: in another, other rows stand at the same places
        let alike = places.iter().rev().take(most as usize).take_while(|(its, _)| *its == table).count();
        let rest = places.len() - alike;
        let written = user_tables::write_back(source, keys, Part::At(&places[rest..]))?;
        let given = (written.content, rows);
        // a row was not at its place any more (or had its answers already), an answer or a row came meanwhile
        large.missed |=
            written.rows < alike as u64 || written.content.is_none() || *large.given.get_or_insert(given) != given;
        places.truncate(rest);
        if rest > 0 || large.missed {
            return Ok(false);
        }
        pieces.remove(&name);
        return Ok(true);
    }
    let written = user_tables::write_back(source, keys, Part::Some(most))?;
    large.further += 1;
    // a trigger of the table that undoes what is written must not keep it here for ever
    if written.rows >= most as u64 && large.further <= 2 * (rows / most + 1) {
        return Ok(false);
    }
    pieces.remove(&name);
    Ok(true)
}

/// Whether the statement met somebody else's lock or change, and may do better later.
pub(super) fn is_locked(error: &Error) -> bool {
    const PASSING: [&str; 3] =
        ["ERRCODE_LOCK_NOT_AVAILABLE", "ERRCODE_T_R_DEADLOCK_DETECTED", "ERRCODE_T_R_SERIALIZATION_FAILURE"];
    matches!(error, Error::Statement { sqlstate, .. } if PASSING.contains(&sqlstate.as_str()))
}
