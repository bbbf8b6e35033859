//! Settings of PostgreSQL that have another value for a while.

use core::ffi::CStr;
use pgrx::pg_sys;

/// Runs work with another value of a setting that any user may change; then it has its former value again, as after a function with a
/// SET clause.
pub fn during<T>(name: &CStr, value: &CStr, work: impl FnOnce() -> T) -> T {
    // SAFETY: C strings, which are copied. The nest level is closed right after the work; when it raises, the abort of the
    // transaction or subtransaction does that.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let value = work();
        pg_sys::AtEOXact_GUC(false, level);
        value
    }
}
