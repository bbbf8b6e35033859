//! Running one SQL statement: plans kept per session, parameters bound, the reading or writing mode chosen by the
//! caller (pgrx's own SPI chooses it by whether the transaction has an id already).

mod relation;

pub use relation::Relation;

use crate::core::error::Error;
use crate::pg::bind::Bind;
use crate::pg::{encoding, setting};
use pgrx::datum::FromDatum;
use pgrx::pg_sys;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

/// A statement of ours: `@extschema@` stands for the extension's schema, `$n` for parameters of the named types.
pub struct Statement {
    pub sql: &'static str,
    pub args: &'static [pg_sys::BuiltinOid],
}

/// One bound parameter; `None` is NULL.
pub struct Arg(Option<pg_sys::Datum>);

impl Arg {
    pub fn of(value: impl Bind) -> Self {
        Arg(value.bind())
    }

    /// Passes a datum of the caller through untouched.
    pub fn raw(datum: Option<pg_sys::Datum>) -> Self {
        Arg(datum)
    }
}

/// Whether a statement may write. `Read` runs under the caller's snapshot, `Write` sees its own transaction's work.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Read,
    Write,
}

/// One row of a result, valid inside the closure that receives it.
pub struct Row {
    tuple: pg_sys::HeapTuple,
    descriptor: pg_sys::TupleDesc,
}

impl Row {
    /// The value of column `n` (from 1), or `None` for NULL.
    pub fn get<T: FromDatum>(&self, n: i32) -> Option<T> {
        let mut null = true;
        // SAFETY: the tuple and its descriptor live until SPI_finish, which runs after the closure; the type is the
        // caller's claim about its own statement, as with every SPI.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, n, &mut null);
            T::from_polymorphic_datum(datum, null, pg_sys::SPI_gettypeid(self.descriptor, n))
        }
    }

    /// Column `n` copied into the memory of whoever called the statement, untouched.
    pub fn datum(&self, n: i32) -> Option<pg_sys::Datum> {
        let mut null = true;
        // SAFETY: as above; SPI_datumTransfer copies into the context that was current before SPI_connect.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, n, &mut null);
            if null {
                return None;
            }
            let (mut length, mut by_value) = (0, false);
            pg_sys::get_typlenbyval(pg_sys::SPI_gettypeid(self.descriptor, n), &mut length, &mut by_value);
            Some(pg_sys::SPI_datumTransfer(datum, by_value, length.into()))
        }
    }

    /// The bytes of a `jsonb` in column `n`, without the length in front of them.
    pub fn jsonb(&self, n: i32) -> Option<Vec<u8>> {
        let mut null = true;
        // SAFETY: as above; an unpacked value lives until SPI_finish.
        unsafe {
            let datum = pg_sys::SPI_getbinval(self.tuple, self.descriptor, n, &mut null);
            (!null).then(|| {
                pgrx::varlena::varlena_to_byte_slice(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())).to_vec()
            })
        }
    }

    /// The text of column `n`, whatever the database's encoding.
    pub fn text(&self, n: i32) -> Option<String> {
        match encoding::is_utf8() {
            true => self.get::<String>(n),
            false => self.get::<&[u8]>(n).map(encoding::decode),
        }
    }
}

struct Plan(pg_sys::SPIPlanPtr);

impl Drop for Plan {
    fn drop(&mut self) {
        // SAFETY: the plan was kept by SPI_keepplan and is freed once, here.
        unsafe {
            pg_sys::SPI_freeplan(self.0);
        }
    }
}

thread_local! {
    static PLANS: RefCell<HashMap<usize, Plan>> = RefCell::new(HashMap::new());
    static PLANS_OF_TEXTS: RefCell<HashMap<String, Plan>> = RefCell::new(HashMap::new());
}

/// Plans of texts that are kept; when they are as many, all go.
const TEXTS: usize = 64;

/// Forgets every kept plan (the extension went away or came back in another schema).
pub fn forget_plans() {
    PLANS.with(|plans| plans.borrow_mut().clear());
    PLANS_OF_TEXTS.with(|plans| plans.borrow_mut().clear());
}

/// Runs reading work under the newest snapshot, not the caller's: what is kept beyond the transaction must not come from
/// an older moment than the invalidation that announced it. PostgreSQL does not allow this during a parallel query,
/// which then reads under its own snapshot.
pub fn with_latest_snapshot<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the pushed snapshot is popped right after the work; if the work raises, the abort drops it.
    unsafe {
        if pg_sys::IsInParallelMode() {
            return work();
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        let value = work();
        pg_sys::PopActiveSnapshot();
        value
    }
}

/// Runs statements that read rows in the order of an index and stop early. While a table is young the planner knows nothing of
/// its size; it then takes any index and sorts what it finds, all of a queue for each claim, and keeps that plan.
pub fn without_sorting<T>(work: impl FnOnce() -> T) -> T {
    setting::during(c"enable_sort", c"off", work)
}

/// Runs statements that look for rows by keys of an index. While a table is small the planner reads all of it instead, compares each
/// row with all keys, and keeps that plan when the table has grown: 200 answers were taken off a queue of 20,000 by four million
/// comparisons.
pub fn by_index<T>(work: impl FnOnce() -> T) -> T {
    setting::during(c"enable_seqscan", c"off", work)
}

struct Connection;

impl Connection {
    fn open() -> Self {
        // SAFETY: paired with SPI_finish in Drop; after an error the transaction's abort cleans up instead.
        unsafe { pg_sys::SPI_connect() };
        Connection
    }

    /// One whose statements know what they are given by its name.
    fn open_with(given: Option<&Relation>) -> Self {
        let connection = Self::open();
        if let Some(relation) = given {
            relation.register();
        }
        connection
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: closes what open() opened.
            unsafe { pg_sys::SPI_finish() };
        }
    }
}

fn plan_of(statement: &'static Statement, schema: &str) -> pg_sys::SPIPlanPtr {
    let id = statement as *const Statement as usize;
    if let Some(plan) = PLANS.with(|plans| plans.borrow().get(&id).map(|plan| plan.0)) {
        return plan;
    }
    let plan = prepare(&statement.sql.replace("@extschema@", schema), statement.args.iter().copied(), 0);
    PLANS.with(|plans| plans.borrow_mut().insert(id, Plan(plan)));
    plan
}

fn prepare(sql: &str, args: impl Iterator<Item = pg_sys::BuiltinOid>, options: u32) -> pg_sys::SPIPlanPtr {
    let sql = c_string(sql);
    let mut types: Vec<pg_sys::Oid> = args.map(pg_sys::Oid::from).collect();
    // SAFETY: text and types outlive the call; SPI_prepare_cursor raises on a bad statement; SPI_keepplan moves the plan to
    // memory that lives as long as the session.
    unsafe {
        let plan = pg_sys::SPI_prepare_cursor(sql.as_ptr(), types.len() as i32, types.as_mut_ptr(), options as i32);
        pg_sys::SPI_keepplan(plan);
        plan
    }
}

/// Runs a kept statement and hands each row to `each`; returns how many rows it processed.
pub fn run(statement: &'static Statement, args: &[Arg], mode: Mode, mut each: impl FnMut(&Row)) -> Result<u64, Error> {
    let schema = super::store::schema()?;
    debug_assert_eq!(args.len(), statement.args.len());
    let bound = bound(args.iter());
    let connection = Connection::open();
    let processed = execute(plan_of(statement, &schema), bound, mode, &mut each);
    drop(connection);
    Ok(processed)
}

fn execute(plan: pg_sys::SPIPlanPtr, (mut values, nulls): Bound, mode: Mode, each: &mut impl FnMut(&Row)) -> u64 {
    // SAFETY: as many values and nulls as the plan has parameters; both outlive the call.
    unsafe {
        pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), mode == Mode::Read, 0);
    }
    each_row(each)
}

/// Runs a statement whose text names a user's table, again and again: its plan is kept, a generic one. For statements whose
/// plan does not depend on the values of their arguments. Arguments of one text always have the same types, and what
/// `given` holds the same columns.
pub fn run_often(
    sql: &str,
    given: Option<&Relation>,
    args: &[(pg_sys::BuiltinOid, Arg)],
    mode: Mode,
    mut each: impl FnMut(&Row),
) -> Result<u64, Error> {
    let bound = bound(args.iter().map(|(_, arg)| arg));
    let connection = Connection::open_with(given);
    let plan = PLANS_OF_TEXTS.with(|plans| plans.borrow().get(sql).map(|plan| plan.0)).unwrap_or_else(|| {
        let plan = prepare(sql, args.iter().map(|(oid, _)| *oid), pg_sys::CURSOR_OPT_GENERIC_PLAN);
        PLANS_OF_TEXTS.with(|plans| {
            let mut plans = plans.borrow_mut();
            if plans.len() >= TEXTS {
                plans.clear();
            }
            plans.insert(sql.to_string(), Plan(plan));
        });
        plan
    });
    let processed = execute(plan, bound, mode, &mut each);
    drop(connection);
    Ok(processed)
}

/// Values of arguments, and marks of those that are NULL.
type Bound = (Vec<pg_sys::Datum>, Vec<core::ffi::c_char>);

fn bound<'a>(args: impl Iterator<Item = &'a Arg>) -> Bound {
    args.map(|arg| {
        (arg.0.unwrap_or(pg_sys::Datum::null()), if arg.0.is_some() { b' ' } else { b'n' } as core::ffi::c_char)
    })
    .unzip()
}

/// Runs a statement whose text names a user's table, planned anew each time.
pub fn run_once(
    sql: &str,
    given: Option<&Relation>,
    args: &[(pg_sys::BuiltinOid, Arg)],
    mode: Mode,
    mut each: impl FnMut(&Row),
) -> Result<u64, Error> {
    let sql = c_string(sql);
    let mut types: Vec<pg_sys::Oid> = args.iter().map(|(oid, _)| pg_sys::Oid::from(*oid)).collect();
    let (mut values, nulls) = bound(args.iter().map(|(_, arg)| arg));
    let connection = Connection::open_with(given);
    // SAFETY: text, types, values and nulls outlive the call.
    unsafe {
        pg_sys::SPI_execute_with_args(
            sql.as_ptr(),
            types.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            mode == Mode::Read,
            0,
        );
    }
    let processed = each_row(&mut each);
    drop(connection);
    Ok(processed)
}

/// A reading statement whose rows are handed on in portions, so that a large table never stands in memory whole.
pub struct Cursor {
    portal: pg_sys::Portal,
    _connection: Connection,
}

impl Cursor {
    /// Opens it; within a trigger (`data`), its transition tables can be named.
    pub fn open(sql: &str, args: &[(pg_sys::BuiltinOid, Arg)], data: Option<*mut pg_sys::TriggerData>) -> Self {
        let sql = c_string(sql);
        let mut types: Vec<pg_sys::Oid> = args.iter().map(|(oid, _)| pg_sys::Oid::from(*oid)).collect();
        let (mut values, nulls) = bound(args.iter().map(|(_, arg)| arg));
        let connection = Connection::open();
        // SAFETY: text, types, values and nulls outlive the call; the trigger's data live as long as its call does,
        // which is longer than this connection.
        let portal = unsafe {
            if let Some(data) = data {
                pg_sys::SPI_register_trigger_data(data);
            }
            pg_sys::SPI_cursor_open_with_args(
                core::ptr::null(),
                sql.as_ptr(),
                types.len() as i32,
                types.as_mut_ptr(),
                values.as_mut_ptr(),
                nulls.as_ptr(),
                false,
                0,
            )
        };
        Cursor { portal, _connection: connection }
    }

    /// Hands the next rows on, at most `n`; returns how many there were.
    pub fn fetch(&mut self, n: i64, mut each: impl FnMut(&Row)) -> u64 {
        // SAFETY: the portal is open; its rows are freed once they have been handed on.
        unsafe {
            pg_sys::SPI_cursor_fetch(self.portal, true, n as core::ffi::c_long);
            let processed = each_row(&mut each);
            if !pg_sys::SPI_tuptable.is_null() {
                pg_sys::SPI_freetuptable(pg_sys::SPI_tuptable);
            }
            processed
        }
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: it was opened and is closed once; the connection ends after it.
            unsafe { pg_sys::SPI_cursor_close(self.portal) };
        }
    }
}

/// The type of the one column of a statement, which is run.
pub fn column_type(sql: &str) -> pg_sys::Oid {
    let sql = c_string(sql);
    let connection = Connection::open();
    // SAFETY: a SELECT leaves a table of tuples with its descriptor.
    let oid = unsafe {
        pg_sys::SPI_execute(sql.as_ptr(), false, 0);
        pg_sys::SPI_gettypeid((*pg_sys::SPI_tuptable).tupdesc, 1)
    };
    drop(connection);
    oid
}

/// Has the server parse and analyse a statement, which is not run.
pub fn check(sql: &str) {
    let sql = c_string(sql);
    let connection = Connection::open();
    // SAFETY: no parameters; the plan goes with the connection.
    unsafe { pg_sys::SPI_prepare(sql.as_ptr(), 0, core::ptr::null_mut()) };
    drop(connection);
}

fn each_row(each: &mut impl FnMut(&Row)) -> u64 {
    // SAFETY: SPI_tuptable is either null or the result of the statement that was just run.
    unsafe {
        let processed = pg_sys::SPI_processed;
        let table = pg_sys::SPI_tuptable;
        if !table.is_null() {
            let descriptor = (*table).tupdesc;
            for n in 0..(*table).numvals as usize {
                each(&Row { tuple: *(*table).vals.add(n), descriptor });
            }
        }
        processed
    }
}

/// SQL in the encoding of the database: it may name tables and hold expressions of users.
fn c_string(text: &str) -> CString {
    CString::new(encoding::encode(&text.replace('\0', ""))).unwrap_or_default()
}
