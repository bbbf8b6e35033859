//! Texts between UTF-8, which is all that Rust knows, and the encoding of the database.
//!
//! In a database of UTF-8 nothing is done. Elsewhere pgrx takes ASCII only (and panics on the rest) and hands texts over as they
//! are; so what our own statements bind and read is converted here, and never refused: what an encoding lacks becomes `?`, what is no
//! text U+FFFD. JSON keeps more, see `core/json_text/encoding.rs`.

use crate::core::json_text::{for_encoding, Keeps, Safe};
use crate::core::jsonb::{root, Value};
use pgrx::callconv::{ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Datum, FromDatum, IntoDatum};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::borrow::Cow;
use std::ffi::CStr;

const UTF8: i32 = pg_sys::pg_enc::PG_UTF8 as i32;
const SQL_ASCII: i32 = pg_sys::pg_enc::PG_SQL_ASCII as i32;

fn of_database() -> i32 {
    // SAFETY: reads the encoding that a session has from its start.
    unsafe { pg_sys::GetDatabaseEncoding() }
}

pub fn is_utf8() -> bool {
    of_database() == UTF8
}

/// A JSON text as this database's `jsonb` takes it.
pub fn fit(safe: Safe) -> Safe {
    match of_database() {
        UTF8 => safe,
        SQL_ASCII => for_encoding(safe, Keeps::Bytes),
        other => for_encoding(safe, Keeps::Characters(&|c| one(c, other).is_some())),
    }
}

/// A text in the encoding of the database.
pub fn encode(text: &str) -> Cow<'_, [u8]> {
    let encoding = of_database();
    if matches!(encoding, UTF8 | SQL_ASCII) || text.is_ascii() {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match one(c, encoding) {
            _ if c.is_ascii() => out.push(c as u8),
            Some(bytes) => out.extend(bytes),
            None => out.push(b'?'),
        }
    }
    Cow::Owned(out)
}

/// A text of the database.
pub fn decode(bytes: &[u8]) -> String {
    let encoding = of_database();
    if matches!(encoding, UTF8 | SQL_ASCII) || bytes.is_ascii() {
        return String::from_utf8_lossy(bytes).into_owned();
    }
    let (mut out, mut rest) = (String::with_capacity(bytes.len() * 2), bytes);
    while !rest.is_empty() {
        // one byte of any server encoding becomes at most four, and the longest piece is bounded
        let piece = &rest[..rest.len().min(4096)];
        let (taken, utf8) = convert(piece, encoding, UTF8);
        out.push_str(&String::from_utf8_lossy(&utf8));
        if taken == 0 {
            out.push(char::REPLACEMENT_CHARACTER);
        }
        rest = &rest[taken.max(1)..];
    }
    out
}

/// A character in an encoding; `None` when that lacks it.
fn one(c: char, encoding: i32) -> Option<Vec<u8>> {
    let mut utf8 = [0; 4];
    let utf8 = c.encode_utf8(&mut utf8).as_bytes();
    let (taken, bytes) = convert(utf8, UTF8, encoding);
    (taken == utf8.len()).then_some(bytes)
}

/// Converts as much of a text as can be; how many bytes of it that was, and what they became.
fn convert(text: &[u8], from: i32, to: i32) -> (usize, Vec<u8>) {
    // MAX_CONVERSION_GROWTH (mb/pg_wchar.h), and the null character that ends it
    let mut out = vec![0u8; text.len() * 4 + 1];
    // SAFETY: called within a transaction; the function writes no more than it is told there is room for, and with noError
    // it stops at what it cannot convert.
    let taken = unsafe {
        let function = pg_sys::FindDefaultConversionProc(from, to);
        if function == pg_sys::InvalidOid {
            return (0, Vec::new());
        }
        let source = text.as_ptr().cast_mut();
        let (length, room) = (text.len() as i32, out.len() as i32);
        pg_sys::pg_do_encoding_conversion_buf(function, from, to, source, length, out.as_mut_ptr(), room, true)
    };
    out.truncate(out.iter().position(|b| *b == 0).unwrap_or(out.len()));
    (taken.max(0) as usize, out)
}

/// A text as it stands in the database, in its encoding.
pub struct RawText(pg_sys::Datum);

impl RawText {
    /// Makes one of bytes in the encoding of the database.
    pub fn of(bytes: &[u8]) -> RawText {
        // SAFETY: copies the bytes into the current memory context.
        RawText(unsafe { pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32) }.into())
    }

    /// The text a datum is.
    ///
    /// # Safety
    /// It is a `text` value, which lives as long as this.
    pub unsafe fn at(datum: pg_sys::Datum) -> RawText {
        RawText(datum)
    }

    pub fn of_utf8(text: &str) -> RawText {
        RawText::of(&encode(text))
    }

    /// Its characters, without a copy where the database has UTF-8.
    pub fn read(&self) -> Cow<'_, str> {
        // SAFETY: a varlena, whole after detoasting; the copy, if there is one, lives as long as the call's memory, and the
        // server has checked the bytes against its encoding.
        let bytes = unsafe {
            let whole = pg_sys::pg_detoast_datum_packed(self.0.cast_mut_ptr());
            core::slice::from_raw_parts(pgrx::vardata_any(whole).cast::<u8>(), pgrx::varsize_any_exhdr(whole))
        };
        match is_utf8() {
            true => String::from_utf8_lossy(bytes),
            false => Cow::Owned(decode(bytes)),
        }
    }

    pub fn to_utf8(&self) -> String {
        self.with_bytes(decode)
    }

    /// Lends its bytes.
    pub fn with_bytes<T>(&self, work: impl FnOnce(&[u8]) -> T) -> T {
        // SAFETY: a varlena, whole after detoasting; the copy, if there is one, lives as long as the call's memory.
        unsafe {
            let whole = pg_sys::pg_detoast_datum_packed(self.0.cast_mut_ptr());
            work(pgrx::varlena_to_byte_slice(whole))
        }
    }

    /// The text of a JSON string, byte for byte; of another value its JSON text, with every digit of a number.
    pub fn of_jsonb(value: pg_sys::Datum) -> Option<RawText> {
        let string = RawText(value).with_bytes(|bytes| match root(bytes)? {
            Value::Text(text) => Some(RawText::of(text)),
            _ => None,
        });
        string.or_else(|| {
            // SAFETY: the datum is a jsonb value that lives as long as the call.
            let json = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(value)]) };
            json.map(|json| RawText::of(json.to_bytes()))
        })
    }

    /// The same text as a JSON string, byte for byte.
    pub fn to_jsonb(&self) -> pg_sys::Datum {
        self.with_bytes(|bytes| {
            let mut value = pg_sys::JsonbValue {
                type_: pg_sys::jbvType::jbvString,
                val: pg_sys::JsonbValue__bindgen_ty_1 {
                    string: pg_sys::JsonbValue__bindgen_ty_1__bindgen_ty_1 {
                        len: bytes.len() as i32,
                        val: bytes.as_ptr().cast_mut().cast(),
                    },
                },
            };
            // SAFETY: the value and its bytes outlive the call, which copies them.
            unsafe { pg_sys::JsonbValueToJsonb(&mut value) }.into()
        })
    }
}

impl IntoDatum for RawText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

impl FromDatum for RawText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(RawText(datum))
    }
}

// SAFETY: the SQL type named is the one the datum has.
unsafe impl SqlTranslatable for RawText {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(RawText);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("text"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("text")));
}

// SAFETY: the value lives in the memory of the function's caller.
unsafe impl BoxRet for RawText {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: takes the argument's datum without looking at it.
unsafe impl<'fcx> ArgAbi<'fcx> for RawText {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: pgrx hands over an argument that is not NULL.
        unsafe { arg.unbox_arg_using_from_datum::<RawText>().unwrap_or(RawText(pg_sys::Datum::null())) }
    }
}

// SAFETY: an element of a `text[]` is handed on as it stands in the array, which outlives the call.
unsafe impl pgrx::datum::UnboxDatum for RawText {
    type As<'src>
        = RawText
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self::As<'src>
    where
        Self: 'src,
    {
        RawText(datum.sans_lifetime())
    }
}

/// A text argument, read in whatever encoding the database has. (A `&str` would end in a panic outside ASCII, where that is not
/// UTF-8.)
pub struct Utf8<'a>(Cow<'a, str>);

impl std::ops::Deref for Utf8<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

// SAFETY: the SQL type named is the one the datum has.
unsafe impl SqlTranslatable for Utf8<'_> {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Utf8);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("text"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("text")));
}

// SAFETY: reads the argument's datum without changing it; what it lends lives as long as the call.
unsafe impl<'fcx> ArgAbi<'fcx> for Utf8<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: pgrx hands over an argument that is not NULL.
        unsafe {
            match is_utf8() {
                true => Utf8(Cow::Borrowed(arg.unbox_arg_using_from_datum::<&str>().unwrap_or_default())),
                false => Utf8(Cow::Owned(decode(arg.unbox_arg_using_from_datum::<&[u8]>().unwrap_or_default()))),
            }
        }
    }
}
