//! Whose rights a statement has: what a user wrote (expressions, triggers, casts) runs as the owner of the table, what is
//! the extension's as the owner of the extension.

use crate::core::error::Error;
use crate::pg::setting;
use pgrx::pg_sys;

/// Runs work with the identity of a table's owner, in a security-restricted operation as REFRESH MATERIALIZED VIEW is, and
/// with the search path that expressions of a source were checked under.
pub fn as_table_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let restricted = pg_sys::SECURITY_RESTRICTED_OPERATION as i32;
    setting::during(c"search_path", c"pg_catalog, pg_temp", || switched(owner, restricted, work))
}

/// Runs work with the identity of the extension's owner, as a SECURITY DEFINER function of it does.
pub fn as_extension_owner<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    switched(super::owner()?, pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32, work)
}

fn switched<T>(user: pg_sys::Oid, how: i32, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let (mut former, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: the former identity is put back right after the work; if the work raises, the abort of the transaction or
    // subtransaction puts it back (xact.c).
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut former, &mut context);
        pg_sys::SetUserIdAndSecContext(user, context | how);
    }
    let result = work();
    // SAFETY: as above.
    unsafe { pg_sys::SetUserIdAndSecContext(former, context) };
    result
}
