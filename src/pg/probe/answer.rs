//! One look-up of a fresh answer: by the direct scan where that is possible, else by SQL.

use super::memo::Row;
use super::scan::Found;
use super::target::Column;
use crate::core::error::Error;
use crate::core::service::Service;
use crate::core::Micros;
use crate::pg::convert::RawJsonb;
use crate::pg::store::cache;
use crate::pg::tally;
use crate::pg::{disk, lone, ranges};
use pgrx::datum::Interval;
use pgrx::pg_sys;

/// Who receives the answer: it counts it, and keeps or copies the bytes.
pub trait Taker {
    /// A payload (`None`: the row says there is none, or there is no fresh row) as it lies in the page.
    fn take(&mut self, payload: Option<&[u8]>, row: Option<Row>, hit: bool) -> Option<pg_sys::Datum>;
    /// An answer that SQL gave, already in the caller's memory.
    fn pass(&mut self, hit: bool);
    /// An answer that a file of the disk cache gave, already in the caller's memory.
    fn file(&mut self, payload: Option<pg_sys::Datum>) -> Option<pg_sys::Datum>;
}

/// Takes one answer, without remembering it.
pub struct Once {
    pub counter: tally::Counter,
}

impl Taker for Once {
    fn take(&mut self, payload: Option<&[u8]>, row: Option<Row>, hit: bool) -> Option<pg_sys::Datum> {
        self.counter.count(hit);
        if let (Some(row), true) = (row, hit) {
            tally::touch(row.id, row.block, 1);
        }
        payload.map(copied)
    }

    fn pass(&mut self, hit: bool) {
        self.counter.count(hit);
    }

    fn file(&mut self, payload: Option<pg_sys::Datum>) -> Option<pg_sys::Datum> {
        self.counter.count_file();
        payload
    }
}

/// The payload of a key in its normal form, if it is fresh or expired by no more than `grace`.
///
/// # Errors
/// What the look-up raises.
pub fn fresh(
    service: &Service,
    key: &str,
    taker: &mut impl Taker,
    grace: Micros,
) -> Result<Option<pg_sys::Datum>, Error> {
    if !disk::may_answer(&service.name) {
        return of_table(service, key, taker, grace);
    }
    // a fresh answer of the table, then one of the files, then an expired one of the table
    let (mut answer, mut missed) = (None, false);
    let found = super::find(&service.name, key, |row| match fresh_row(row, 0) {
        Some(row) => answer = taken(row, taker),
        None => missed = true,
    })?;
    if found.is_some() && !missed {
        return Ok(answer);
    }
    let known = super::entry::entry(&service.name, key)?;
    if let Some(lying) = disk::instead(service, key, known.as_ref(), grace)? {
        return Ok(taker.file(disk::payload(&lying)));
    }
    if found.is_some() && grace == 0 {
        return Ok(taker.take(None, None, false));
    }
    of_table(service, key, taker, grace)
}

/// The same without files.
fn of_table(
    service: &Service,
    key: &str,
    taker: &mut impl Taker,
    grace: Micros,
) -> Result<Option<pg_sys::Datum>, Error> {
    let mut answer = None;
    let found = super::find(&service.name, key, |row| {
        answer = match fresh_row(row, grace) {
            Some(row) => taken(row, taker),
            None => taker.take(None, None, false),
        }
    })?;
    if found.is_none() {
        let (payload, hit) = cache::fresh_by_sql(&service.name, key, Interval::from_micros(grace))?;
        taker.pass(hit);
        answer = payload.map(|RawJsonb(payload)| payload);
    }
    Ok(answer)
}

fn fresh_row<'a>(row: Option<&'a Found<'a>>, grace: Micros) -> Option<&'a Found<'a>> {
    row.filter(|row| row.datum(Column::ExpiresAt).is_some_and(|at| is_fresh(at, grace)))
}

fn taken(row: &Found, taker: &mut impl Taker) -> Option<pg_sys::Datum> {
    let hit = is_hit(row);
    // of a packed range the payload is only the summary
    let payload = row.datum(Column::Ranges).map(ranges::expand).or_else(|| row.datum(Column::Payload));
    // SAFETY: the payload is a varlena of the row, readable as long as the row is.
    let bytes = payload.map(|payload| unsafe { varlena(payload) });
    taker.take(bytes, Some(place_of(row)), hit)
}

/// The payload of a row as it lies in the page; not that of a packed range, which is only the summary.
pub fn payload_of<'a>(row: &'a Found) -> Option<&'a [u8]> {
    // SAFETY: a varlena of the row, readable as long as the row is.
    row.datum(Column::Payload).map(|payload| unsafe { varlena(payload) })
}

/// Whether a fresh row is an answer: a payload, or that nothing is known.
pub fn is_hit(row: &Found) -> bool {
    row.datum(Column::Payload).is_some() || row.bytes(Column::Status) == b"not_found"
}

/// Which row it is.
pub fn place_of(row: &Found) -> Row {
    Row { id: row.datum(Column::Id).map_or(0, |id| id.value() as i64), block: row.block() }
}

/// Whether a moment lies after the start of this transaction, or came before it by less than `grace`.
pub fn is_fresh(expires_at: pg_sys::Datum, grace: Micros) -> bool {
    let expires_at = expires_at.value() as i64;
    // -infinity is the least number, and stays in the past
    expires_at != i64::MIN && expires_at.saturating_add(grace) > lone::transaction_start()
}

/// A varlena as it lies there, also when it is a pointer to what was moved out of line: nothing is unpacked here.
unsafe fn varlena<'a>(datum: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: the caller's claim.
    unsafe {
        let start = datum.cast_mut_ptr::<pg_sys::varlena>();
        core::slice::from_raw_parts(start.cast(), pgrx::varsize_any(start))
    }
}

/// The bytes of a value of ours, as it lies in the caller's memory.
pub fn bytes_of<'a>(value: pg_sys::Datum) -> &'a [u8] {
    // SAFETY: a varlena that lives as long as the call.
    unsafe { varlena(value) }
}

/// A varlena of a row, copied into the caller's memory.
pub fn copied_value(datum: pg_sys::Datum) -> pg_sys::Datum {
    // SAFETY: a value of the row that is being read.
    copied(unsafe { varlena(datum) })
}

/// Bytes copied into the caller's memory.
pub fn copied(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: palloc gives as many bytes as asked for, or raises.
    unsafe {
        let start = pg_sys::palloc(bytes.len()).cast::<u8>();
        core::ptr::copy_nonoverlapping(bytes.as_ptr(), start, bytes.len());
        pg_sys::Datum::from(start)
    }
}
