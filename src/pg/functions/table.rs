//! What the cache's table itself calls: the trigger that keeps earlier answers, the numbers of its rows, the terms of the
//! index on payloads.

use crate::core::scatter;
use crate::pg::convert::RawJsonb;
use crate::pg::earlier;
use crate::pg::error::Answer;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::{Datum, Internal};
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;

/// What a trigger returns that fires after its row was written: nothing that anybody looks at.
struct Fired;

// SAFETY: the SQL type is that of every trigger function.
unsafe impl SqlTranslatable for Fired {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Fired);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::Table);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::literal("trigger")));
}

// SAFETY: a null pointer that is not the SQL value NULL, as the manager of triggers wants it.
unsafe impl BoxRet for Fired {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: nobody follows the pointer.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::null()) }
    }
}

/// Keeps the payload that an update has replaced by a different one.
///
/// # Errors
/// 22023 when it is called by anybody but its trigger.
#[pg_extern(volatile)]
fn enrichment_keep_history(fcinfo: pg_sys::FunctionCallInfo) -> Answer<Fired> {
    // SAFETY: PostgreSQL hands a trigger its data as the call's context; the tags say which they are.
    unsafe {
        let data = (*fcinfo).context.cast::<pg_sys::TriggerData>();
        let after_row = pg_sys::TRIGGER_EVENT_UPDATE | pg_sys::TRIGGER_EVENT_ROW;
        let kind = pg_sys::TRIGGER_EVENT_OPMASK | pg_sys::TRIGGER_EVENT_ROW | pg_sys::TRIGGER_EVENT_TIMINGMASK;
        let fired =
            !data.is_null() && (*data).type_ == pg_sys::NodeTag::T_TriggerData && (*data).tg_event & kind == after_row;
        if !fired {
            return Err(crate::core::error::Error::InvalidArgument {
                message: "enrichment_keep_history is a trigger that fires after a row was updated".to_string(),
                hint: "It stands on enrichment_cache already; nothing has to call it.".to_string(),
            }
            .into());
        }
        earlier::updated(&*fcinfo, &*data)?;
    }
    Ok(Fired)
}

/// The number of a row of the cache, from the one its sequence gave: each is given once, and neighbours lie far apart.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_scattered(number: i64) -> i64 {
    scatter::scattered(number)
}

/// The terms under which the index on payloads finds a payload.
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_payload_terms(
    _payload: RawJsonb,
    count: Internal,
    _nulls: Internal,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Internal {
    // SAFETY: the arguments are those of the server's own function, which is the one behind jsonb_path_ops.
    unsafe { coarse(pg_sys::gin_extract_jsonb_path(fcinfo), count) }
}

/// The terms that a condition on a payload asks for.
#[allow(clippy::too_many_arguments)] // as the index access method calls it
#[pg_extern(immutable, strict, parallel_safe)]
fn enrich_payload_query_terms(
    _wanted: RawJsonb,
    count: Internal,
    _strategy: i16,
    _partial: Internal,
    _extra: Internal,
    _nulls: Internal,
    _mode: Internal,
    fcinfo: pg_sys::FunctionCallInfo,
) -> Internal {
    // SAFETY: as above.
    unsafe { coarse(pg_sys::gin_extract_jsonb_query_path(fcinfo), count) }
}

/// Makes each of the terms a coarse one, in place.
unsafe fn coarse(terms: pg_sys::Datum, count: Internal) -> Internal {
    // SAFETY: the server's function has written as many terms as it counted.
    unsafe {
        let count = count.unwrap().map_or(0, |count| *count.cast_mut_ptr::<i32>());
        let start = terms.cast_mut_ptr::<pg_sys::Datum>();
        if count > 0 && !start.is_null() {
            for term in core::slice::from_raw_parts_mut(start, count as usize) {
                *term = pg_sys::Datum::from(scatter::coarse(term.value() as u32));
            }
        }
        Internal::from(Some(terms))
    }
}
