//! JSON as a column keeps it, compressed once for all rows that get the same.

use pgrx::pg_sys;

unsafe extern "C-unwind" {
    // The server's own function (its `src/backend/access/common/toast_internals.c`), called behind a guard.
    fn toast_compress_datum(value: pg_sys::Datum, method: core::ffi::c_char) -> pg_sys::Datum;
}

/// How a column compresses its values: its letter in `pg_attribute.attcompression`, or what `default_toast_compression` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Method(core::ffi::c_char);

impl Method {
    pub fn named(letter: &str) -> Self {
        Method(letter.bytes().next().unwrap_or_default() as core::ffi::c_char)
    }
}

/// Shorter values stay as they are: a row of 2 kB or less is not compressed, and this leaves 400 bytes for its other columns.
const COMPRESSED_FROM: usize = 1600;

/// A `jsonb` of these bytes, without the length in front of them.
pub fn jsonb(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: as many bytes as the length says, in memory of their own.
    unsafe {
        let size = pg_sys::VARHDRSZ + bytes.len();
        let value = pg_sys::palloc(size).cast::<u8>();
        pgrx::varlena::set_varsize_4b(value.cast(), size as i32);
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), value.add(pg_sys::VARHDRSZ), bytes.len());
        pg_sys::Datum::from(value)
    }
}

/// A document for a json or jsonb column, from the bytes of a `jsonb`; compressed when it is large, where a method is given.
pub fn document(bytes: &[u8], type_oid: pg_sys::Oid, method: Option<Method>) -> pg_sys::Datum {
    let mut value = jsonb(bytes);
    if type_oid == pg_sys::JSONOID {
        // SAFETY: a jsonb whose root is a container; the text is a copy.
        let text = unsafe {
            let document = value.cast_mut_ptr::<pg_sys::Jsonb>();
            let text = pg_sys::JsonbToCString(std::ptr::null_mut(), &raw mut (*document).root, bytes.len() as i32);
            let copy = pg_sys::Datum::from(pg_sys::cstring_to_text(text));
            pg_sys::pfree(text.cast());
            copy
        };
        free(value);
        value = text;
    }
    let Some(Method(letter)) = method else { return value };
    // SAFETY: a plain varlena of our own; what cannot be compressed gives null.
    unsafe {
        if pgrx::varlena::varsize_any(value.cast_mut_ptr()) < COMPRESSED_FROM {
            return value;
        }
        let packed = pg_sys::ffi::pg_guard_ffi_boundary(|| toast_compress_datum(value, letter));
        if packed.is_null() {
            return value;
        }
        free(value);
        packed
    }
}

/// Gives the memory of a value back.
pub fn free(value: pg_sys::Datum) {
    // SAFETY: made above, and not used any more.
    unsafe { pg_sys::pfree(value.cast_mut_ptr()) };
}
