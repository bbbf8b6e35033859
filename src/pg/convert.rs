//! Between PostgreSQL's values and ours: moments, lengths of time, payloads passed through untouched.

use crate::core::error::Error;
use crate::core::Micros;
use pgrx::callconv::{ArgAbi, BoxRet, FcInfo};
use pgrx::datum::{Date, Datum, FromDatum, Interval, IntoDatum, TimestampWithTimeZone};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use std::net::IpAddr;

/// Microseconds between the Unix epoch and PostgreSQL's (2000-01-01 UTC; `timestamp.h`).
const EPOCHS_APART: i64 = 946_684_800_000_000;

/// The start of the current transaction.
pub fn transaction_start() -> Micros {
    super::lone::transaction_start() + EPOCHS_APART
}

/// The wall clock.
pub fn clock() -> Micros {
    // SAFETY: wraps gettimeofday().
    unsafe { pg_sys::GetCurrentTimestamp() + EPOCHS_APART }
}

pub fn to_micros(moment: TimestampWithTimeZone) -> Micros {
    micros_of(i64::from(moment))
}

/// A moment as PostgreSQL stores it: microseconds since 2000, with the ends of the range for both infinities.
pub fn micros_of(stored: i64) -> Micros {
    stored.saturating_add(EPOCHS_APART)
}

/// A moment as PostgreSQL's value; what lies outside its range becomes the nearest it has.
pub fn to_timestamp(moment: Micros) -> TimestampWithTimeZone {
    const LAST: i64 = 9_223_371_331_199_999_999; // 294276-12-31 (timestamp.h: END_TIMESTAMP)
    let value = moment.saturating_sub(EPOCHS_APART).clamp(-211_813_488_000_000_000, LAST);
    TimestampWithTimeZone::try_from(value).unwrap_or_else(|_| TimestampWithTimeZone::positive_infinity())
}

/// A day, counted from the Unix epoch, as PostgreSQL's value.
pub fn to_date(day: i32) -> Option<Date> {
    const DAYS_APART: i32 = (EPOCHS_APART / 86_400_000_000) as i32;
    Date::try_from(day.checked_sub(DAYS_APART)?).ok()
}

/// The length of an interval in microseconds, a month counted as 30 days (as `extract(epoch ...)` nearly does).
///
/// # Errors
/// `NegativeTtl` when it is below zero.
pub fn positive_length(interval: &Interval) -> Result<Micros, Error> {
    let days = i64::from(interval.months()) * 30 + i64::from(interval.days());
    let total = days.saturating_mul(86_400_000_000).saturating_add(interval.micros());
    if total < 0 {
        return Err(Error::NegativeTtl { given: format!("{} s", total / 1_000_000) });
    }
    Ok(total)
}

/// A `jsonb` value passed from a table or an argument to a result without being taken apart: rebuilding 600 bytes of
/// JSON costs 20 µs, handing the datum on costs nothing.
pub struct RawJsonb(pub pg_sys::Datum);

impl FromDatum for RawJsonb {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(RawJsonb(datum))
    }
}

impl IntoDatum for RawJsonb {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        Some(self.0)
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: the SQL type named is the one the datum has.
unsafe impl SqlTranslatable for RawJsonb {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(RawJsonb);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}

// SAFETY: the datum is returned as it came.
unsafe impl BoxRet for RawJsonb {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the datum lives in the memory of the function's caller.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}

// SAFETY: reads the argument's datum without changing it.
unsafe impl<'fcx> ArgAbi<'fcx> for RawJsonb {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: pgrx hands over an argument that is not NULL.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or(RawJsonb(pg_sys::Datum::null())) }
    }
}

/// A value of type `inet` as it is stored: family, bits of the mask, address (`utils/inet.h`).
#[derive(Clone, Copy)]
pub struct Host<'a>(&'a [u8]);

impl Host<'_> {
    pub fn bytes(&self) -> &[u8] {
        self.0
    }

    /// The address, when the mask leaves only one.
    pub fn address(&self) -> Option<IpAddr> {
        match self.0 {
            [_, 32, address @ ..] if address.len() == 4 => <[u8; 4]>::try_from(address).ok().map(IpAddr::from),
            [_, 128, address @ ..] if address.len() == 16 => <[u8; 16]>::try_from(address).ok().map(IpAddr::from),
            _ => None,
        }
    }
}

// SAFETY: the SQL type named is the one the datum has.
unsafe impl SqlTranslatable for Host<'_> {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Host);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("inet"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("inet")));
}

// SAFETY: reads the argument's datum without changing it; the bytes live as long as the call.
unsafe impl<'fcx> ArgAbi<'fcx> for Host<'fcx> {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: pgrx hands over an argument that is not NULL, of the type named above.
        unsafe {
            let Some(RawJsonb(datum)) = arg.unbox_arg_using_from_datum::<RawJsonb>() else { return Host(&[]) };
            let start = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            Host(core::slice::from_raw_parts(pgrx::vardata_any(start).cast(), pgrx::varsize_any_exhdr(start)))
        }
    }
}

// SAFETY: an element of a `jsonb[]` is handed on as it stands in the array, which outlives the call.
unsafe impl pgrx::datum::UnboxDatum for RawJsonb {
    type As<'src>
        = RawJsonb
    where
        Self: 'src;

    unsafe fn unbox<'src>(datum: Datum<'src>) -> Self::As<'src>
    where
        Self: 'src,
    {
        RawJsonb(datum.sans_lifetime())
    }
}

/// A `bytea` argument as it stands in the row, read by who knows which part of it is wanted.
pub struct RawBytea(pub pg_sys::Datum);

// SAFETY: the SQL type named is the one the datum has.
unsafe impl SqlTranslatable for RawBytea {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(RawBytea);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("bytea"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("bytea")));
}

// SAFETY: takes the argument's datum without looking at it.
unsafe impl<'fcx> ArgAbi<'fcx> for RawBytea {
    unsafe fn unbox_arg_unchecked(arg: pgrx::callconv::Arg<'_, 'fcx>) -> Self {
        // SAFETY: pgrx hands over an argument that is not NULL.
        unsafe { arg.unbox_arg_using_from_datum::<RawBytea>().unwrap_or(RawBytea(pg_sys::Datum::null())) }
    }
}

impl FromDatum for RawBytea {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        (!is_null).then_some(RawBytea(datum))
    }
}
