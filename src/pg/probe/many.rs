//! Many keys at once: one open scan, one probe each, in the order of the keys, so that neighbours share their pages. What
//! is found goes from the page into the result, copied once.

use super::answer::{is_fresh, is_hit, place_of};
use super::memo::Row;
use super::run;
use super::scan::Found;
use super::target::{self, Column};
use super::Snapshot;
use crate::core::error::Error;
use crate::pg::encoding::{self, RawText};
use crate::pg::ranges;
use crate::pg::rows::Rows;
use crate::pg::store::cache;
use crate::pg::tally::{self, Counter};
use pgrx::datum::IntoDatum;
use pgrx::pg_sys;

/// Look-ups behind one guard; after each run the rows that were found are noted.
const RUN: usize = 256;

/// Puts the fresh answers among keys that are in order and do not repeat into `rows`; by SQL in one statement where that
/// is needed.
///
/// # Errors
/// What the look-ups raise.
pub fn fresh(service: &str, keys: &[&str], rows: Rows) -> Result<(), Error> {
    let _snapshot = Snapshot::active();
    let mut counter = Counter::of(service);
    let mut touched = Vec::with_capacity(RUN);
    let mut left = keys;
    if !encoding::is_utf8() && keys.iter().any(|key| !key.is_ascii()) {
        // the index holds them in another encoding; the statement's parameters are converted
        return by_sql(service, left, rows, &mut counter);
    }
    while !left.is_empty() {
        pgrx::check_for_interrupts!();
        let changes = target::changes();
        let Some(target) = target::current()? else {
            return by_sql(service, left, rows, &mut counter);
        };
        // resolving it for the first time may itself bring news
        if target::changes() != changes {
            continue;
        }
        let some = &left[..left.len().min(RUN)];
        let mut packed = None;
        let caller = memory();
        let done = run::each(&target, changes, service, some, |row| {
            // SAFETY: this runs behind the guard of the scan, which the values of the row outlive.
            packed = row.and_then(|row| unsafe { take(row, rows, &mut touched, &mut counter, caller) });
            if row.is_none() {
                counter.count(false);
            }
            packed.is_none()
        });
        left = &left[done.unwrap_or(0)..];
        if let Some((key, range)) = packed {
            put_values(rows, key, ranges::expand(range));
        }
        let mut touches = tally::Touches::default();
        touched.drain(..).for_each(|row: Row| touches.row(row.id, row.block, 1));
    }
    Ok(())
}

/// Takes what was found: a plain payload at once, a packed range copied into the caller's memory, to be unpacked there.
unsafe fn take(
    row: &Found,
    rows: Rows,
    touched: &mut Vec<Row>,
    counter: &mut Counter,
    caller: pg_sys::MemoryContext,
) -> Option<(pg_sys::Datum, pg_sys::Datum)> {
    if !row.datum(Column::ExpiresAt).is_some_and(|at| is_fresh(at, 0)) {
        counter.count(false);
        return None;
    }
    counter.count(is_hit(row));
    touched.push(place_of(row));
    let (key, payload) = (row.datum(Column::Key)?, row.datum(Column::Payload)?);
    // SAFETY: values of the row, of the types of the result; behind a guard, says the caller.
    unsafe {
        match row.datum(Column::Ranges) {
            Some(range) => Some((run::copied_to(key, caller), run::copied_to(range, caller))),
            None => {
                rows.put([key, payload]);
                None
            }
        }
    }
}

/// Puts one answer into the result, which copies it; the payload is let go.
pub fn put(rows: Rows, key: &str, payload: pg_sys::Datum) {
    if let Some(key) = RawText::of_utf8(key).into_datum() {
        put_values(rows, key, payload);
    }
}

fn put_values(rows: Rows, key: pg_sys::Datum, payload: pg_sys::Datum) {
    // SAFETY: a text and a jsonb, as the columns are; the frame inside the guard owns nothing. The store has copied them,
    // and nobody else knows of them.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| rows.put([key, payload]));
        pg_sys::pfree(key.cast_mut_ptr());
        pg_sys::pfree(payload.cast_mut_ptr());
    }
}

fn memory() -> pg_sys::MemoryContext {
    // SAFETY: a plain global of this process.
    unsafe { pg_sys::CurrentMemoryContext }
}

fn by_sql(service: &str, keys: &[&str], rows: Rows, counter: &mut Counter) -> Result<(), Error> {
    let (found, hits) = cache::many_by_sql(service, keys.iter().map(|key| key.to_string()).collect())?;
    (0..keys.len()).for_each(|n| counter.count(n < hits));
    for (key, kept) in found {
        pgrx::check_for_interrupts!();
        put(rows, &key, kept.answer().0);
    }
    Ok(())
}
