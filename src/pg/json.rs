//! `jsonb` arguments lent as bytes, and values made of bytes.
//!
//! A payload of more than 2 kB is stored compressed, a large one out of line. A row of a typed view reads it once for each of
//! its columns, so the last one that was unpacked is kept, up to [`KEPT`] bytes, until the transaction ends:
//!
//! - One inside the row is known by its compressed bytes, which are compared.
//! - One out of line is known by its TOAST pointer. The value behind a pointer never changes, and its number can be given to
//!   another value only after a vacuum has removed it. No vacuum removes what this process's `xmin` still sees, and `xmin`
//!   never goes back to a value that it had before another process could see less. So the pointer holds while `xmin` is
//!   the same; subtransaction and command are compared too, for values that this transaction itself wrote and took back.

use crate::core::text_array::{self, Texts};
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::memcxt::PgMemoryContexts;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::{pg_sys, varlena};
use std::cell::RefCell;

/// The largest value that is kept unpacked.
const KEPT: usize = 8 << 20;

struct Unpacked {
    /// The value as it was given: a TOAST pointer, or compressed.
    packed: Vec<u8>,
    /// For a TOAST pointer: under which view of the database it was followed.
    seen: Option<Seen>,
    /// Lives in `memory`.
    value: *mut pg_sys::varlena,
    memory: pg_sys::MemoryContext,
}

#[derive(PartialEq, Eq)]
struct Seen {
    xmin: pg_sys::TransactionId,
    subtransaction: pg_sys::SubTransactionId,
    command: pg_sys::CommandId,
}

thread_local! {
    static LAST: RefCell<Option<Unpacked>> = const { RefCell::new(None) };
}

/// The arguments of a function over `(jsonb)` or `(jsonb, VARIADIC text[])`; `None` when one is NULL.
pub struct Arguments {
    payload: pg_sys::Datum,
    path: Option<pg_sys::Datum>,
}

/// Takes the arguments of a call as they are.
pub fn arguments(call: pg_sys::FunctionCallInfo) -> Option<Arguments> {
    // SAFETY: PostgreSQL hands over as many arguments as it says.
    let arguments = unsafe {
        let count = (*call).nargs as usize;
        std::slice::from_raw_parts(std::ptr::addr_of!((*call).args).cast::<pg_sys::NullableDatum>(), count)
    };
    if arguments.iter().any(|argument| argument.isnull) {
        return None;
    }
    Some(Arguments { payload: arguments.first()?.value, path: arguments.get(1).map(|path| path.value) })
}

impl Arguments {
    /// Lends the payload's bytes and the steps of the path.
    pub fn lend<R>(&self, work: impl FnOnce(&[u8], Texts) -> Option<R>) -> Option<R> {
        let Some(path) = self.path else {
            return lend(self.payload, |payload| work(payload, Texts::default()));
        };
        // SAFETY: the argument is a text[]; a copy lives as long as the call's memory.
        let path = unsafe {
            let given = path.cast_mut_ptr::<pg_sys::varlena>();
            let plain = if varlena::varatt_is_4b_u(given) { given } else { pg_sys::pg_detoast_datum(given) };
            slice(plain)
        };
        let path = text_array::read(path)?;
        lend(self.payload, |payload| work(payload, path))
    }
}

/// Lends the bytes of a value, without the length in front of them.
fn lend<R>(datum: pg_sys::Datum, work: impl FnOnce(&[u8]) -> R) -> R {
    let given = datum.cast_mut_ptr::<pg_sys::varlena>();
    // SAFETY: the datum is a varlena that outlives the call; what is external or compressed is unpacked first.
    unsafe {
        if varlena::varatt_is_1b_e(given) || varlena::varatt_is_4b_c(given) {
            unpacked(given, work)
        } else {
            work(slice(given))
        }
    }
}

/// # Safety
/// The value must be neither external nor compressed.
unsafe fn slice<'a>(value: *const pg_sys::varlena) -> &'a [u8] {
    // SAFETY: the length in front says how many bytes there are.
    unsafe { std::slice::from_raw_parts(varlena::vardata_any(value).cast(), varlena::varsize_any_exhdr(value)) }
}

/// # Safety
/// The value must be external or compressed.
#[cold]
unsafe fn unpacked<R>(given: *mut pg_sys::varlena, work: impl FnOnce(&[u8]) -> R) -> R {
    // SAFETY: a varlena of either kind says its own size; `detoast_attr` gives a plain one.
    let packed = unsafe { std::slice::from_raw_parts(given.cast::<u8>(), varlena::varsize_any(given)) };
    let seen = match seen(given) {
        Ok(seen) => seen,
        // SAFETY: as above; the value lives in the caller's memory.
        Err(()) => return work(unsafe { slice(pg_sys::detoast_attr(given)) }),
    };
    LAST.with_borrow_mut(|last| {
        if !last.as_ref().is_some_and(|last| last.packed == packed && last.seen == seen) {
            // SAFETY: the memory, when there is one, is of this transaction.
            unsafe { replace(last, given, packed, seen) };
        }
        match last {
            // SAFETY: the value lives until it is replaced or the transaction ends, and `work` does neither.
            Some(last) => work(unsafe { slice(last.value) }),
            None => work(&[]),
        }
    })
}

/// Under which view of the database a value out of line is read, nothing for one inside the row. An error for what is not
/// kept: a value that is too large, not stored, or read under no snapshot.
fn seen(given: *mut pg_sys::varlena) -> Result<Option<Seen>, ()> {
    // SAFETY: the value is external or compressed; MyProc is this process's own entry.
    unsafe {
        if pg_sys::toast_raw_datum_size(given.into()) > KEPT {
            return Err(());
        }
        if !varlena::varatt_is_1b_e(given) {
            return Ok(None);
        }
        let xmin = (*pg_sys::MyProc).xmin;
        if u32::from(varlena::vartag_1b_e(given)) != pg_sys::vartag_external::VARTAG_ONDISK
            || xmin == pg_sys::InvalidTransactionId
        {
            return Err(());
        }
        Ok(Some(Seen {
            xmin,
            subtransaction: pg_sys::GetCurrentSubTransactionId(),
            command: pg_sys::GetCurrentCommandId(false),
        }))
    }
}

/// # Safety
/// `given` must be external or compressed.
unsafe fn replace(last: &mut Option<Unpacked>, given: *mut pg_sys::varlena, packed: &[u8], seen: Option<Seen>) {
    // SAFETY: the memory is deleted with the transaction's, and `forget` is called before that.
    unsafe {
        let (memory, mut kept) = match last.take() {
            Some(old) => {
                pg_sys::pfree(old.value.cast());
                (old.memory, old.packed)
            }
            None => (memory(), Vec::new()),
        };
        let value = PgMemoryContexts::For(memory).switch_to(|_| pg_sys::detoast_attr(given));
        kept.clear();
        kept.extend_from_slice(packed);
        *last = Some(Unpacked { packed: kept, seen, value, memory });
    }
}

/// Memory that ends with the transaction, and tells us.
fn memory() -> pg_sys::MemoryContext {
    // SAFETY: a transaction is under way, for a function is being called.
    unsafe {
        let memory = pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopTransactionContext,
            c"enrichment_cache payload".as_ptr(),
            0,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        let callback = pg_sys::MemoryContextAllocZero(memory, size_of::<pg_sys::MemoryContextCallback>())
            .cast::<pg_sys::MemoryContextCallback>();
        (*callback).func = Some(forget);
        pg_sys::MemoryContextRegisterResetCallback(memory, callback);
        memory
    }
}

unsafe extern "C-unwind" fn forget(_: *mut core::ffi::c_void) {
    let _ = LAST.try_with(|last| last.try_borrow_mut().map(|mut last| *last = None));
}

/// A value of a type of variable length. Which one, the declaration in SQL says.
pub struct Made(pg_sys::Datum);

unsafe extern "C-unwind" {
    // The server's own function, not pgrx's guarded one, which takes longer than all else here. Its errors (no memory, a
    // value above 1 GB) jump over frames that own nothing but, at most, the text of a number.
    fn palloc(size: usize) -> *mut core::ffi::c_void;
}

impl Made {
    /// Makes it of its bytes, without the length in front of them.
    pub fn of(bytes: &[u8]) -> Made {
        let size = pg_sys::VARHDRSZ + bytes.len();
        // SAFETY: the memory is as large as is written to; PostgreSQL refuses what a length in front cannot say.
        unsafe {
            let value = palloc(size).cast::<pg_sys::varlena>();
            varlena::set_varsize_4b(value, size as i32);
            let data = value.cast::<u8>().add(pg_sys::VARHDRSZ);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), data, bytes.len());
            Made(value.into())
        }
    }
}

// SAFETY: never used to write a declaration.
unsafe impl SqlTranslatable for Made {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Made);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::Skip);
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> = Ok(ReturnsRef::One(SqlMappingRef::Skip));
}

// SAFETY: the value lives in the memory of the function's caller.
unsafe impl BoxRet for Made {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: as above.
        unsafe { fcinfo.return_raw_datum(self.0) }
    }
}
