//! Whether an UPDATE gave a row another key. Its transition tables are read side by side: the server adds a row as it was and
//! as it is to them one after the other (AfterTriggerSaveEvent in trigger.c), in partitions and for a row that moves to
//! another one too, so the n-th of one is the n-th of the other. A row that a trigger of another partition refuses is in the
//! first alone: then they are of different lengths, and nothing is known of pairs.

use core::ffi::c_int;
use pgrx::pg_sys;

/// What two transition tables say of a key column.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Each row has the key it had.
    Same,
    /// The n-th row was the n-th row, and some have another key.
    Differ,
    /// Rows cannot be told apart.
    Unknown,
}

/// Compares the column of this number, of one of the types keys may have, row by row; without a number only the lengths are looked at.
/// A value in another form may be taken for another value.
///
/// # Safety
/// `data` is what the server called an UPDATE trigger with that has both transition tables.
pub unsafe fn compare(data: *mut pg_sys::TriggerData, column: Option<i16>) -> Pairs {
    // SAFETY: the trigger's data, its relation and its tuplestores live as long as its call, which is longer than this.
    unsafe {
        let (old, new) = ((*data).tg_oldtable, (*data).tg_newtable);
        if old.is_null() || new.is_null() || pg_sys::tuplestore_tuple_count(old) != pg_sys::tuplestore_tuple_count(new)
        {
            return Pairs::Unknown;
        }
        let Some(column) = column else { return Pairs::Differ };
        let rows = (*(*data).tg_relation).rd_att;
        let (mut before, mut after) = (Reader::of(old, rows), Reader::of(new, rows));
        let mut left = 0u32;
        while before.next() && after.next() {
            if !same(before.value(column), after.value(column)) {
                return Pairs::Differ;
            }
            left = left.wrapping_add(1);
            if left.is_multiple_of(1024) {
                pgrx::check_for_interrupts!();
            }
        }
        Pairs::Same
    }
}

/// Reads a tuplestore from its beginning, by a place of its own.
struct Reader {
    store: *mut pg_sys::Tuplestorestate,
    place: c_int,
    slot: *mut pg_sys::TupleTableSlot,
}

impl Reader {
    // SAFETY (all of its functions): the tuplestore holds rows of this descriptor and outlives the reader; where something
    // raises, the abort of the transaction frees slot and place.
    unsafe fn of(store: *mut pg_sys::Tuplestorestate, rows: pg_sys::TupleDesc) -> Self {
        unsafe {
            let place = pg_sys::tuplestore_alloc_read_pointer(store, pg_sys::EXEC_FLAG_REWIND as c_int);
            pg_sys::tuplestore_select_read_pointer(store, place);
            pg_sys::tuplestore_rescan(store);
            let slot = pg_sys::MakeSingleTupleTableSlot(rows, &raw const pg_sys::TTSOpsMinimalTuple);
            Reader { store, place, slot }
        }
    }

    unsafe fn next(&mut self) -> bool {
        unsafe {
            pg_sys::tuplestore_select_read_pointer(self.store, self.place);
            pg_sys::tuplestore_gettupleslot(self.store, true, false, self.slot)
        }
    }

    unsafe fn value(&mut self, column: i16) -> Option<pg_sys::Datum> {
        unsafe {
            if (*self.slot).tts_nvalid < column {
                pg_sys::slot_getsomeattrs_int(self.slot, c_int::from(column));
            }
            let at = usize::try_from(column - 1).unwrap_or(0);
            (!*(*self.slot).tts_isnull.add(at)).then(|| *(*self.slot).tts_values.add(at))
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by of() and dropped once.
            unsafe { pg_sys::ExecDropSingleTupleTableSlot(self.slot) };
        }
    }
}

// SAFETY: both are of one type of variable length.
unsafe fn same(one: Option<pg_sys::Datum>, other: Option<pg_sys::Datum>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one.is_none() && other.is_none() };
    unsafe {
        let (one, other) = (one.cast_mut_ptr::<pg_sys::varlena>(), other.cast_mut_ptr::<pg_sys::varlena>());
        let (whole_one, whole_other) = (pg_sys::pg_detoast_datum_packed(one), pg_sys::pg_detoast_datum_packed(other));
        let same = pgrx::varlena::varlena_to_byte_slice(whole_one) == pgrx::varlena::varlena_to_byte_slice(whole_other);
        for (whole, part) in [(whole_one, one), (whole_other, other)] {
            if whole != part {
                pg_sys::pfree(whole.cast());
            }
        }
        same
    }
}
