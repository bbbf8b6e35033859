//! The rows of a function that returns a set, put at once where PostgreSQL reads them from: each is copied one time, and
//! what does not fit into `work_mem` goes to a temporary file.

use crate::core::error::Error;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

unsafe extern "C-unwind" {
    // The server's own function, called behind the guard of who puts many rows in.
    fn tuplestore_putvalues(
        store: *mut pg_sys::Tuplestorestate,
        shape: pg_sys::TupleDesc,
        values: *const pg_sys::Datum,
        nulls: *const bool,
    );
}

/// Where the rows go; it lives as long as the query that called the function.
#[derive(Clone, Copy)]
pub struct Rows {
    store: *mut pg_sys::Tuplestorestate,
    shape: pg_sys::TupleDesc,
}

impl Rows {
    /// For the result of this call, of which `expected` rows are expected.
    ///
    /// # Errors
    /// `InvalidArgument` where the caller takes no set.
    pub fn of(fcinfo: pg_sys::FunctionCallInfo, expected: usize) -> Result<Rows, Error> {
        // SAFETY: PostgreSQL hands over who asks for a set as a ReturnSetInfo, which lives as long as the call. The
        // store and the shape are made in the memory of its query.
        unsafe {
            let asks = (*fcinfo).resultinfo.cast::<pg_sys::ReturnSetInfo>();
            let materialize = pg_sys::SetFunctionReturnMode::SFRM_Materialize;
            let is_set = !asks.is_null() && (*asks).type_ == pg_sys::NodeTag::T_ReturnSetInfo;
            if !is_set || (*asks).allowedModes as u32 & materialize == 0 {
                return Err(Error::InvalidArgument {
                    message: "set-valued function called in context that cannot accept a set".to_string(),
                    hint: "Call it in FROM.".to_string(),
                });
            }
            let memory = (*(*asks).econtext).ecxt_per_query_memory;
            let former = pg_sys::MemoryContextSwitchTo(memory);
            let mut shape = core::ptr::null_mut();
            pg_sys::get_call_result_type(fcinfo, core::ptr::null_mut(), &mut shape);
            let shape = pg_sys::BlessTupleDesc(pg_sys::CreateTupleDescCopy(shape));
            let random = (*asks).allowedModes as u32 & pg_sys::SetFunctionReturnMode::SFRM_Materialize_Random != 0;
            pg_sys::MemoryContextSwitchTo(room(memory, expected));
            let store = pg_sys::tuplestore_begin_heap(random, false, pg_sys::work_mem);
            pg_sys::MemoryContextSwitchTo(former);
            (*asks).returnMode = materialize;
            (*asks).setResult = store;
            (*asks).setDesc = shape;
            Ok(Rows { store, shape })
        }
    }

    /// Puts one row in, none of its values NULL.
    ///
    /// # Safety
    /// The values are of the types of the columns, as many as there are. An error of the server is not caught: to be
    /// called behind a guard.
    pub unsafe fn put<const N: usize>(&self, values: [pg_sys::Datum; N]) {
        // SAFETY: the caller's claim; the store copies the values.
        unsafe { tuplestore_putvalues(self.store, self.shape, values.as_ptr(), [false; N].as_ptr()) }
    }
}

/// Memory for the rows. Where there are many it is one piece, for which the processor's large pages are asked: else each
/// call takes thousands of pages of the system and gives them back, for an eighth of its time.
unsafe fn room(memory: pg_sys::MemoryContext, expected: usize) -> pg_sys::MemoryContext {
    const LARGE_PAGE: usize = 2 << 20;
    const LARGEST: usize = 64 << 20;
    const ROW: usize = 1024;
    // SAFETY: a plain setting of this session, in kB.
    let most = unsafe { pg_sys::work_mem as usize * 1024 }.min(LARGEST);
    let size = (expected * ROW).min(most).next_power_of_two();
    if size < 2 * LARGE_PAGE {
        return memory;
    }
    // SAFETY: the first block of a context is where the context itself lies, and has the size asked for. Advice changes
    // no contents.
    unsafe {
        let name = c"enrichment_cache rows".as_ptr();
        let room = pg_sys::AllocSetContextCreateInternal(memory, name, 0, size, size);
        let start = room.cast::<u8>();
        let skip = start.align_offset(LARGE_PAGE);
        let whole = size.saturating_sub(skip) / LARGE_PAGE * LARGE_PAGE;
        libc::madvise(start.add(skip).cast(), whole, libc::MADV_HUGEPAGE);
        room
    }
}

/// What a function returns that has put its rows in: keys with their payloads.
pub struct KeysWithPayloads;

// SAFETY: the columns are those that the function puts in.
unsafe impl SqlTranslatable for KeysWithPayloads {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(KeysWithPayloads);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Err(ArgumentError::Table);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("TABLE (cache_key TEXT, payload jsonb)")));
}

// SAFETY: the rows are in the store; the value itself is not looked at.
unsafe impl BoxRet for KeysWithPayloads {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        fcinfo.return_null()
    }
}
