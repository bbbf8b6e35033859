//! Many keys at once: one open scan, one probe each, in the order of the keys, so that neighbours share their pages.

use super::answer::{copied_value, is_fresh, is_hit, place_of};
use super::scan::Found;
use super::target::Column;
use crate::core::error::Error;
use crate::pg::ranges::Kept;
use crate::pg::store::cache;
use crate::pg::tally::{self, Counter};

/// The fresh answers among keys that are in order and do not repeat; by SQL in one statement where that is needed.
///
/// # Errors
/// What the look-ups raise.
pub fn fresh(service: &str, keys: Vec<String>) -> Result<Vec<(String, Kept)>, Error> {
    let mut counter = Counter::of(service);
    let mut found = Vec::new();
    for at in 0..keys.len() {
        pgrx::check_for_interrupts!();
        let Some((kept, hit)) = super::find(service, &keys[at], |row| row.map_or((None, false), read))? else {
            let (rest, asked) = (keys[at..].to_vec(), keys.len() - at);
            let by_sql = cache::many_by_sql(service, rest)?;
            (0..asked).for_each(|n| counter.count(n < by_sql.len()));
            found.extend(by_sql);
            break;
        };
        counter.count(hit);
        if let Some(kept) = kept {
            found.push((keys[at].clone(), kept));
        }
    }
    Ok(found)
}

fn read(row: &Found) -> (Option<Kept>, bool) {
    if !row.datum(Column::ExpiresAt).is_some_and(|at| is_fresh(at, None)) {
        return (None, false);
    }
    let place = place_of(row);
    tally::touch(place.id, place.block, 1);
    let kept = row
        .datum(Column::Payload)
        .map(|payload| Kept { payload: copied_value(payload), ranges: row.datum(Column::Ranges).map(copied_value) });
    (kept, is_hit(row))
}
