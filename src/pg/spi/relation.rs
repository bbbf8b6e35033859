//! Rows that are handed to a statement as a table it can name: what PostgreSQL calls an ephemeral named relation, and uses
//! for the transition tables of triggers (its `src/backend/utils/misc/queryenvironment.c`).

use pgrx::pg_sys;
use std::ffi::CString;

/// Lives in the memory that was current when it was made, no longer than the transaction.
pub struct Relation {
    /// Named by the one field of the statement's environment that points to it.
    _name: CString,
    rows: *mut pg_sys::Tuplestorestate,
    entry: Box<pg_sys::EphemeralNamedRelationData>,
    count: usize,
}

impl Relation {
    /// An empty one. `planned_rows` is what plans reckon with, also kept ones.
    pub fn new(name: &str, columns: &[(String, pg_sys::Oid)], planned_rows: f64) -> Self {
        let name = CString::new(name).unwrap_or_default();
        let mut entry = Box::new(pg_sys::EphemeralNamedRelationData::default());
        // SAFETY: names are copied into the descriptor, whose columns are all set; the store holds at most `work_mem` in memory
        // and the rest in a temporary file, and can be read more than once.
        let rows = unsafe {
            let descriptor = pg_sys::CreateTemplateTupleDesc(columns.len() as i32);
            for (n, (column, oid)) in (1..).zip(columns) {
                let column = CString::new(column.as_str()).unwrap_or_default();
                pg_sys::TupleDescInitEntry(descriptor, n, column.as_ptr(), *oid, -1, 0);
            }
            entry.md.tupdesc = descriptor;
            pg_sys::tuplestore_begin_heap(true, false, pg_sys::work_mem)
        };
        entry.md.name = name.as_ptr().cast_mut();
        entry.md.reliddesc = pg_sys::InvalidOid;
        entry.md.enrtype = pg_sys::EphemeralNameRelationType::ENR_NAMED_TUPLESTORE;
        entry.md.enrtuples = planned_rows;
        entry.reldata = rows.cast();
        Relation { _name: name, rows, entry, count: 0 }
    }

    /// Adds a row, one value for each column; they are copied as they are, compressed ones too.
    pub fn push(&mut self, values: &[Option<pg_sys::Datum>]) {
        let mut datums: Vec<pg_sys::Datum> =
            values.iter().map(|value| value.unwrap_or(pg_sys::Datum::null())).collect();
        let mut nulls: Vec<bool> = values.iter().map(Option::is_none).collect();
        // SAFETY: the descriptor's columns are as many.
        unsafe {
            assert_eq!((*self.entry.md.tupdesc).natts as usize, values.len());
            pg_sys::tuplestore_putvalues(self.rows, self.entry.md.tupdesc, datums.as_mut_ptr(), nulls.as_mut_ptr());
        }
        self.count += 1;
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Makes it known to the statements of the open connection to SPI.
    pub(super) fn register(&self) {
        // SAFETY: the entry stays where it is until the connection ends, which the borrow of `self` outlasts.
        let code = unsafe { pg_sys::SPI_register_relation((&raw const *self.entry).cast_mut()) };
        assert_eq!(code, pg_sys::SPI_OK_REL_REGISTER as i32);
    }
}

impl Drop for Relation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: the statement that read it is over; after an error the transaction's abort cleans up instead.
            unsafe { pg_sys::tuplestore_end(self.rows) };
        }
    }
}
