//! Expressions that users give for the rows of a table of theirs: checked as the server reads them, as the table's owner.

use super::identity::as_table_owner;
use super::sources;
use crate::core::error::Error;
use crate::pg::encoding::encode;
use crate::pg::spi;
use pgrx::{is_a, pg_sys};
use std::ffi::CString;

/// Checks an expression over the rows of a table: `condition` gives true or false, `weight` a number, anything else a key.
/// Returns the type of a key.
///
/// # Errors
/// When it is not one expression; what the server says of it otherwise is raised.
pub fn check(relation: pg_sys::Oid, expression: &str, kind: &str) -> Result<pg_sys::Oid, Error> {
    if !is_one_expression(expression) {
        return Err(Error::InvalidArgument {
            message: format!("not one SQL expression: {expression}"),
            hint: "Give an expression over the columns of the table, as one would write it after SELECT.".to_string(),
        });
    }
    let (owner, name) = sources::owner_and_name(relation)?;
    // a subquery has no system columns, as transition tables have none
    let from = format!("FROM (SELECT * FROM {name} LIMIT 0) t");
    as_table_owner(owner, || {
        Ok(match kind {
            "condition" => {
                spi::check(&format!("SELECT {from} WHERE (\n{expression}\n)"));
                pg_sys::BOOLOID
            }
            "weight" => {
                spi::check(&format!("SELECT pg_catalog.sum((\n{expression}\n)::float8) {from}"));
                pg_sys::FLOAT8OID
            }
            _ => {
                spi::check(&format!(
                    "SELECT (\n{expression}\n) {from} WHERE (\n{expression}\n) IS NOT NULL GROUP BY 1"
                ));
                spi::column_type(&format!("SELECT (\n{expression}\n) {from}"))
            }
        })
    })
}

/// Whether a text is one SQL expression and nothing beside it: no second column, no FROM, no second statement.
///
/// A text that cannot be parsed raises the server's own error.
fn is_one_expression(text: &str) -> bool {
    let Ok(sql) = CString::new(encode(&format!("SELECT (\n{text}\n)"))) else { return false };
    // SAFETY: the parser returns a list of RawStmt; each node is looked at by its tag before it is read as its type.
    unsafe {
        let statements = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        let Some(raw) = only::<pg_sys::RawStmt>(statements) else { return false };
        if !is_a((*raw).stmt, pg_sys::NodeTag::T_SelectStmt) {
            return false;
        }
        let select = (*raw).stmt.cast::<pg_sys::SelectStmt>();
        let bare = (*select).op == pg_sys::SetOperation::SETOP_NONE
            && (*select).intoClause.is_null()
            && (*select).whereClause.is_null()
            && (*select).havingClause.is_null()
            && (*select).limitOffset.is_null()
            && (*select).limitCount.is_null()
            && (*select).withClause.is_null()
            && [
                (*select).distinctClause,
                (*select).fromClause,
                (*select).groupClause,
                (*select).windowClause,
                (*select).valuesLists,
                (*select).sortClause,
                (*select).lockingClause,
            ]
            .iter()
            .all(|list| list.is_null());
        let Some(target) = only::<pg_sys::ResTarget>((*select).targetList) else { return false };
        bare && (*target).name.is_null() && (*target).indirection.is_null()
    }
}

/// The one element of a list.
unsafe fn only<T>(list: *mut pg_sys::List) -> Option<*mut T> {
    // SAFETY: a list is null or has `length` elements.
    unsafe { (!list.is_null() && (*list).length == 1).then(|| (*(*list).elements).ptr_value.cast::<T>()) }
}
