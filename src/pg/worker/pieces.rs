//! Keys of more rows than a transaction writes are written piece by piece, and stay marked until all are through.

use crate::core::error::Error;
use crate::pg::store::indicators::{self, Taken};
use crate::pg::store::sources::Source;
use crate::pg::store::user_tables::{self, Part, Place};
use std::collections::BTreeMap;

/// Places of rows that are held of a key; rows beyond are looked for piece by piece.
const MOST_PLACES: i64 = 1_000_000;
/// Pieces that are looked for again because somebody else changed a row of them at the same moment.
const SOME_MORE: i64 = 10;

/// By source and key.
pub type Pieces = BTreeMap<(String, String), Large>;

/// A key of very many rows. They are written where they stood when it began. Unless each was found there and written, what is
/// still to change, because it was moved meanwhile, is looked for.
#[derive(Default)]
pub struct Large {
    /// None: not looked for yet.
    places: Option<Vec<Place>>,
    /// Whether rows may be left when all places are through.
    missed: bool,
    /// What the rows were given so far, and how many rows the key had.
    given: Option<(Option<u64>, i64)>,
    /// Pieces that were looked for.
    further: i64,
}

impl Large {
    /// One whose rows stand there.
    pub fn at(places: Vec<Place>) -> Self {
        Large { places: Some(places), ..Large::default() }
    }
}

/// Writes the next piece of a key, and marks it according to that; true when it was the last.
pub fn write_next(source: &Source, key: &str, rows: i64, pieces: &mut Pieces) -> Result<bool, Error> {
    let taken = indicators::written(&source.name, vec![key.to_string()])?;
    let last = write_piece(source, key, &taken, rows, pieces)?;
    match last {
        true => indicators::settled(&source.name, taken.moved)?,
        false => indicators::unwritten(&source.name, key)?,
    }
    Ok(last)
}

fn write_piece(source: &Source, key: &str, taken: &Taken, rows: i64, pieces: &mut Pieces) -> Result<bool, Error> {
    let most = source.commit_interval;
    let name = (source.name.clone(), key.to_string());
    let large = pieces.entry(name.clone()).or_default();
    if large.places.is_none() {
        let places = user_tables::places(source, key, MOST_PLACES)?;
        large.missed = places.len() as i64 >= MOST_PLACES;
        large.places = Some(places);
    }
    let places = large.places.as_mut().map(|places| (places.last().map(|(table, _)| *table), places));
    if let Some((Some(table), places)) = places {
        // of one table: in another, other rows stand at the same places
        let alike = places.iter().rev().take(most as usize).take_while(|(its, _)| *its == table).count();
        let rest = places.len() - alike;
        let written = user_tables::write_back(source, taken, Part::At(&places[rest..]))?;
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
    let written = user_tables::write_back(source, taken, Part::Some(most))?;
    large.further += 1;
    // a trigger of the table that undoes what is written must not keep it here for ever
    if !written.all && large.further <= 2 * (rows / most + 1) + SOME_MORE {
        return Ok(false);
    }
    pieces.remove(&name);
    Ok(true)
}

/// Rows that have no key any more lose what is known of the one they had. They stand under an empty key.
pub fn write_keyless(source: &Source, key: &str, rows: i64, pieces: &mut Pieces) -> Result<(), Error> {
    let taken = indicators::written(&source.name, vec![key.to_string()])?;
    let name = (source.name.clone(), key.to_string());
    let large = pieces.entry(name.clone()).or_default();
    large.further += 1;
    let most = source.commit_interval;
    let goes_on = large.further <= 2 * (rows / most + 1) + SOME_MORE;
    if !user_tables::write_keyless(source, most)?.all && goes_on {
        return indicators::unwritten(&source.name, key);
    }
    pieces.remove(&name);
    indicators::settled(&source.name, taken.moved)
}
