//! Earlier answers on their way into the history. The trigger of the cache hands over each row whose payload was replaced
//! by a different one; while a batch is being stored they are gathered and kept some hundred at a time, for one statement a
//! row costs more than the row. Whoever else updates the cache has them kept at once.
//!
//! Contract: what is gathered lies in memory of the transaction and is kept before the storing function returns; an error
//! ends that function, and its transaction or subtransaction with all that was to be kept.

use crate::core::error::Error;
use crate::pg::convert::RawJsonb;
use crate::pg::encoding::RawText;
use crate::pg::store::history::{self, Earlier};
use pgrx::datum::{FromDatum, TimestampWithTimeZone};
use pgrx::pg_sys::{self, Datum};
use std::cell::RefCell;
use std::ffi::CStr;

/// Rows and bytes after which what was gathered is kept.
const ROWS: usize = 500;
const BYTES: usize = 4 << 20;

#[derive(Default)]
struct Gathered {
    rows: Vec<Earlier>,
    bytes: usize,
}

thread_local! {
    static GATHERED: RefCell<Option<Gathered>> = const { RefCell::new(None) };
}

/// Puts back what was gathered around this, however this ends.
struct Outer(Option<Gathered>);

impl Drop for Outer {
    fn drop(&mut self) {
        GATHERED.replace(self.0.take());
    }
}

/// Runs work that stores a batch; then all that it has replaced is kept.
///
/// # Errors
/// Those of the work, and of keeping.
pub fn gathering<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let outer = Outer(GATHERED.replace(Some(Gathered::default())));
    let value = work()?;
    let rest = GATHERED.replace(None).unwrap_or_default();
    drop(outer);
    keep(rest)?;
    Ok(value)
}

fn keep(gathered: Gathered) -> Result<(), Error> {
    if gathered.rows.is_empty() {
        return Ok(());
    }
    let payloads: Vec<Datum> = gathered.rows.iter().map(|row| row.payload.0).collect();
    history::keep(gathered.rows)?;
    // SAFETY: made by `copied`, and nobody else knows of them.
    payloads.into_iter().for_each(|payload| unsafe { pg_sys::pfree(payload.cast_mut_ptr()) });
    Ok(())
}

unsafe extern "C-unwind" {
    // The server's own function, which raises nothing: without a guard for each of twelve values a row.
    fn SPI_getbinval(
        tuple: pg_sys::HeapTuple,
        shape: pg_sys::TupleDesc,
        column: core::ffi::c_int,
        null: *mut bool,
    ) -> Datum;
}

/// The columns that are kept, in the order of their use.
const COLUMNS: [&CStr; 7] = [c"service", c"cache_key", c"version", c"payload", c"ranges", c"fetched_at", c"altered"];
const PAYLOAD: usize = 3;
const RANGES: usize = 4;

type Places = [i32; COLUMNS.len()];

/// Where the columns stand in the table, looked for once in a statement; 0 is nowhere.
///
/// # Safety
/// `call` is that of a trigger function on the table that `shape` describes.
unsafe fn places(call: &pg_sys::FunctionCallInfoBaseData, shape: pg_sys::TupleDesc) -> Places {
    // SAFETY: PostgreSQL leaves `fn_extra` to the function, and it lives as long as its memory.
    unsafe {
        let info = &mut *call.flinfo;
        if info.fn_extra.is_null() {
            let places = pg_sys::MemoryContextAlloc(info.fn_mcxt, size_of::<Places>()).cast::<Places>();
            places.write(COLUMNS.map(|name| pg_sys::SPI_fnumber(shape, name.as_ptr()).max(0)));
            info.fn_extra = places.cast();
        }
        *info.fn_extra.cast::<Places>()
    }
}

/// A value of a tuple.
///
/// # Safety
/// The tuple is one of the table that `shape` describes.
unsafe fn value(tuple: pg_sys::HeapTuple, shape: pg_sys::TupleDesc, place: i32) -> Option<Datum> {
    let mut null = true;
    // SAFETY: the caller's claim.
    let datum = unsafe { SPI_getbinval(tuple, shape, place, &mut null) };
    (place > 0 && !null).then_some(datum)
}

/// What the trigger does for an updated row: keeps its earlier payload if it had one and now has a different one.
///
/// # Errors
/// Those of keeping.
///
/// # Safety
/// `data` is that of `call`, to a trigger that fires after the update of a row.
pub unsafe fn updated(call: &pg_sys::FunctionCallInfoBaseData, data: &pg_sys::TriggerData) -> Result<(), Error> {
    // SAFETY: the caller's claim; both tuples live as long as the trigger runs.
    let (places, shape) = unsafe {
        let shape = (*data.tg_relation).rd_att;
        (places(call, shape), shape)
    };
    // SAFETY: as above.
    let old = |column: usize| unsafe { value(data.tg_trigtuple, shape, places[column]) };
    // SAFETY: as above.
    let new = |column: usize| unsafe { value(data.tg_newtuple, shape, places[column]) };
    let Some(payload) = old(PAYLOAD) else { return Ok(()) };
    let ranges = old(RANGES);
    if new(PAYLOAD).is_some_and(|new| same_payload(payload, new)) && same_bytes(ranges, new(RANGES)) {
        return Ok(());
    }
    let [service, key, version, fetched_at, altered] = [0, 1, 2, 5, 6].map(old);
    // SAFETY: each value is of the type its column has.
    let row = unsafe {
        Earlier {
            service: service.map(|text| RawText::at(text).to_utf8()).unwrap_or_default(),
            key: key.map(|text| RawText::at(text).to_utf8()).unwrap_or_default(),
            version: version.map_or(0, |version| version.value() as i64),
            payload: RawJsonb(copied(payload)),
            ranges: ranges.and_then(|ranges| Vec::<u8>::from_datum(ranges, false)),
            fetched_at: fetched_at
                .and_then(|at| TimestampWithTimeZone::from_datum(at, false))
                .unwrap_or_else(TimestampWithTimeZone::negative_infinity),
            altered: altered.is_some_and(|altered| altered.value() != 0),
        }
    };
    gather(row)
}

fn gather(row: Earlier) -> Result<(), Error> {
    // SAFETY: the payload was just copied.
    let size = unsafe { pgrx::varsize_any(row.payload.0.cast_mut_ptr()) } + row.ranges.as_ref().map_or(0, Vec::len);
    let full = GATHERED.with(|gathered| match &mut *gathered.borrow_mut() {
        None => Some(Gathered { rows: vec![row], bytes: size }),
        Some(gathered) => {
            gathered.rows.push(row);
            gathered.bytes += size;
            let full = gathered.rows.len() >= ROWS || gathered.bytes >= BYTES;
            full.then(|| std::mem::take(gathered))
        }
    });
    full.map_or(Ok(()), keep)
}

/// A value in full, in memory of the transaction: a row's own memory goes with the trigger.
fn copied(payload: Datum) -> Datum {
    // SAFETY: a varlena of the row; the copy is made where it is to stay.
    unsafe {
        let former = pg_sys::MemoryContextSwitchTo(pg_sys::CurTransactionContext);
        let copy = pg_sys::pg_detoast_datum_copy(payload.cast_mut_ptr());
        pg_sys::MemoryContextSwitchTo(former);
        Datum::from(copy)
    }
}

/// Whether two `jsonb` values are equal: most that are have the same bytes.
fn same_payload(one: Datum, other: Datum) -> bool {
    // SAFETY: PostgreSQL's own comparison of two jsonb values.
    let equal =
        || unsafe { pgrx::direct_function_call::<bool>(pg_sys::jsonb_eq, &[Some(one), Some(other)]).unwrap_or(false) };
    same_bytes(Some(one), Some(other)) || equal()
}

/// Whether two varlenas are the same, unpacked where they have to be.
fn same_bytes(one: Option<Datum>, other: Option<Datum>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    // SAFETY: varlenas of rows that outlive this; the unpacked ones are read before the row's memory goes.
    unsafe {
        let [one, other] = [one, other].map(|value| pg_sys::pg_detoast_datum_packed(value.cast_mut_ptr()));
        let bytes = |value: *mut pg_sys::varlena| {
            core::slice::from_raw_parts(pgrx::vardata_any(value).cast::<u8>(), pgrx::varsize_any_exhdr(value))
        };
        bytes(one) == bytes(other)
    }
}
