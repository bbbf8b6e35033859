//! Everything the cache knows of one key, for those who want more than its payload.

use super::answer::copied_value;
use super::scan::Found;
use super::target::Column;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::micros_of;
use crate::pg::ranges::Kept;
use crate::pg::store::cache::{self, Entry};
use pgrx::datum::FromDatum;

/// The row of a key, fresh or not.
///
/// # Errors
/// What the look-up raises.
pub fn entry(service: &str, key: &str) -> Result<Option<Entry>, Error> {
    match super::find(service, key, |row| row.map(read))? {
        Some(entry) => Ok(entry),
        None => cache::entry_by_sql(service, key),
    }
}

fn read(row: &Found) -> Entry {
    let number = |column| row.datum(column).map_or(0, |value| value.value() as i64);
    let moment = |column| -> Micros { micros_of(number(column)) };
    // SAFETY: the columns asked for are of type text.
    let text = |column| row.datum(column).and_then(|text| unsafe { String::from_datum(text, false) });
    Entry {
        payload: row.datum(Column::Payload).map(|payload| Kept {
            payload: copied_value(payload),
            ranges: row.datum(Column::Ranges).map(copied_value),
        }),
        response_status: text(Column::Status).unwrap_or_default(),
        fetched_at: moment(Column::FetchedAt),
        expires_at: moment(Column::ExpiresAt),
        hit_count: number(Column::HitCount),
        version: number(Column::Version),
        error_message: text(Column::ErrorMessage),
    }
}
