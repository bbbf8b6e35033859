//! Packed hash ranges as PostgreSQL holds them: what is read of one for one suffix, and its way from and to `jsonb`.

use crate::core::hibp::{self, Suffix, RECORD};
use crate::core::service::{ResponseFormat, Service};
use crate::pg::convert::RawJsonb;
use crate::pg::encoding;
use pgrx::pg_sys::{self, Datum};
use std::ffi::CString;

/// Bytes in a chunk of a value that stands out of line (`TOAST_MAX_CHUNK_SIZE`, `heaptoast.h`): four tuples fill a page,
/// and each has a header, an oid, a number and the chunk's own header.
const CHUNK: usize = (pg_sys::BLCKSZ as usize - 40) / 4 / 8 * 8 - 24 - 4 - 4 - 4;

/// The answer of a row as it stands there: a payload, which of a packed range is the summary.
#[derive(Clone, Copy)]
pub struct Kept {
    pub payload: Datum,
    pub ranges: Option<Datum>,
}

impl Kept {
    /// The answer as it was received.
    pub fn answer(self) -> RawJsonb {
        RawJsonb(self.ranges.map_or(self.payload, expand))
    }
}

/// What is to be stored of a payload: of a hash range that can be packed the summary and the packed range, else itself.
pub fn pack(service: &Service, payload: RawJsonb) -> (RawJsonb, Option<Vec<u8>>) {
    if service.response_format != ResponseFormat::HibpRange {
        return (payload, None);
    }
    match with_bytes(payload.0, hibp::pack_jsonb) {
        Some(packed) => (RawJsonb(jsonb(&hibp::summary(&packed))), Some(packed)),
        None => (payload, None),
    }
}

/// The object of suffixes and counts that a packed range stands for, a `jsonb` in the current memory context.
pub fn expand(ranges: Datum) -> Datum {
    with_bytes(ranges, |packed| {
        let written = hibp::jsonb_size(packed).and_then(|size| {
            let (value, object) = new_value(size);
            hibp::write_jsonb(packed, object).map(|()| value)
        });
        written.unwrap_or_else(|| jsonb(&hibp::to_json(packed)))
    })
}

/// A new value in the current memory context, and its bytes behind the header, all zero.
fn new_value(size: usize) -> (Datum, &'static mut [u8]) {
    // SAFETY: the new memory has room for the header and `size` bytes; nobody else knows of it, and what is made of it
    // is returned before its context ends.
    unsafe {
        let value: *mut pg_sys::varlena = pg_sys::palloc0(pg_sys::VARHDRSZ + size).cast();
        pgrx::set_varsize_4b(value, (pg_sys::VARHDRSZ + size) as i32);
        let bytes = std::slice::from_raw_parts_mut(value.cast::<u8>().add(pg_sys::VARHDRSZ), size);
        (Datum::from(value), bytes)
    }
}

/// A `jsonb` of bytes that [`crate::core::jsonb::build`] made, in the current memory context.
pub fn built(bytes: &[u8]) -> Datum {
    let (value, place) = new_value(bytes.len());
    place.copy_from_slice(bytes);
    value
}

/// How often a suffix was seen. Of a value that stands out of line only the part is read where the suffix should be.
pub fn count(ranges: Datum, suffix: &Suffix) -> u64 {
    look(ranges, suffix).unwrap_or_else(|| with_bytes(ranges, |packed| hibp::find(packed, suffix)))
}

fn look(ranges: Datum, suffix: &Suffix) -> Option<u64> {
    let length = length_out_of_line(ranges)?;
    let part = hibp::first_look(length, CHUNK, suffix);
    if part.len() + RECORD > length {
        return None;
    }
    // SAFETY: the part lies within the value, whose size is that of an int32; the copy is freed once.
    unsafe {
        let slice = pg_sys::pg_detoast_datum_slice(ranges.cast_mut_ptr(), part.start as i32, part.len() as i32);
        let found = hibp::find_in_part(pgrx::varlena_to_byte_slice(slice), &part, length, suffix);
        pg_sys::pfree(slice.cast());
        found
    }
}

/// The length of a value that stands in the table's TOAST and can be read in parts, that is, not compressed.
fn length_out_of_line(value: Datum) -> Option<usize> {
    // SAFETY: a varlena; the sizes are read from its header or its pointer to the TOAST.
    unsafe {
        let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
        let on_disk = pgrx::varatt_is_1b_e(pointer)
            && u32::from(pgrx::vartag_external(pointer)) == pg_sys::vartag_external::VARTAG_ONDISK;
        let length = pg_sys::toast_raw_datum_size(value) - pg_sys::VARHDRSZ;
        (on_disk && pg_sys::toast_datum_size(value) == length).then_some(length)
    }
}

/// Works on the bytes of a value, without the length in front of them.
pub fn with_bytes<T>(value: Datum, work: impl FnOnce(&[u8]) -> T) -> T {
    // SAFETY: a varlena, whole after detoasting; the bytes are not used after the copy, if there is one, is freed.
    unsafe {
        let pointer: *mut pg_sys::varlena = value.cast_mut_ptr();
        let whole = pg_sys::pg_detoast_datum_packed(pointer);
        let result = work(pgrx::varlena_to_byte_slice(whole));
        if whole != pointer {
            pg_sys::pfree(whole.cast());
        }
        result
    }
}

/// A `jsonb` value of a JSON text, in the current memory context.
pub fn jsonb(text: &str) -> Datum {
    let text = CString::new(&*encoding::encode(text)).unwrap_or_default();
    // SAFETY: a text of ours without a null character, that outlives the call.
    let value = unsafe { pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(Datum::from(text.as_ptr()))]) };
    value.unwrap_or(Datum::null())
}
