//! Reading the keys of a user's table, with the rights of its owner: distinct, with what their rows say of their worth.

use crate::core::error::Error;
use crate::core::hash::hibp_split;
use crate::pg::spi::{Arg, Cursor};
use crate::pg::store::arrivals::{Seen, KEYS_A_ROW};
use crate::pg::store::identity::as_table_owner;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::BTreeMap;

/// Which rows are read.
pub enum Rows<'a> {
    /// All, each with whether it stands unfilled by this condition.
    All { unfilled: &'a str },
    /// The newest so many by the source's time column.
    Newest(i64),
    /// Those a statement has inserted.
    Inserted(*mut pg_sys::TriggerData),
    /// Those a statement has given another key, or made eligible. Rows that have none any more count as the key of an empty text.
    Changed(*mut pg_sys::TriggerData),
    /// All that a statement has changed, where it cannot be told which of them got another key.
    Touched(*mut pg_sys::TriggerData),
}

/// Hands the distinct keys of rows on, some thousands at a time. They are read as the table's owner, `each` runs as
/// whoever calls.
///
/// # Errors
/// Those of `each`; an expression of the source may raise.
pub fn read(source: &Source, rows: &Rows, mut each: impl FnMut(Vec<Seen>) -> Result<(), Error>) -> Result<(), Error> {
    let (sql, data) = statement(source, rows);
    let newest = if let Rows::Newest(n) = rows { *n } else { i64::MAX };
    let args = [(INT8OID, Arg::of(newest))];
    let mut cursor = as_table_owner(source.owner, || Ok(Cursor::open(&sql, &args, data)))?;
    // only the first digits of a password's hash are kept: there are a million of them at most
    let mut prefixes: BTreeMap<String, Seen> = BTreeMap::new();
    loop {
        let mut keys = Vec::new();
        as_table_owner(source.owner, || {
            cursor.fetch(KEYS_A_ROW as i64, |row| {
                if let Some(raw_key) = row.text(1) {
                    keys.push(Seen {
                        raw_key,
                        rows: row.get(2).unwrap_or(0),
                        weight: row.get::<f64>(3).filter(|weight| weight.is_finite()).unwrap_or(0.0),
                        latest: row.get(4),
                        unfilled: row.get(5).unwrap_or(false),
                    });
                }
            });
            Ok(())
        })?;
        if keys.is_empty() {
            break;
        }
        if source.shape == Shape::Passwords {
            keys.into_iter().for_each(|key| add(&mut prefixes, key));
        } else {
            each(keys)?;
        }
    }
    drop(cursor);
    let mut portion = Vec::new();
    for key in prefixes.into_values() {
        portion.push(key);
        if portion.len() == KEYS_A_ROW {
            each(std::mem::take(&mut portion))?;
        }
    }
    if portion.is_empty() {
        return Ok(());
    }
    each(portion)
}

fn add(prefixes: &mut BTreeMap<String, Seen>, password: Seen) {
    let prefix = hibp_split(password.raw_key.as_bytes()).0;
    match prefixes.get_mut(&prefix) {
        None => {
            prefixes.insert(prefix.clone(), Seen { raw_key: prefix, ..password });
        }
        Some(known) => {
            known.rows += password.rows;
            known.weight += password.weight;
            known.unfilled |= password.unfilled;
            if password.latest.is_some_and(|at| known.latest.is_none_or(|before| before < at)) {
                known.latest = password.latest;
            }
        }
    }
}

fn statement(source: &Source, rows: &Rows) -> (String, Option<*mut pg_sys::TriggerData>) {
    let key = source.key_sql();
    let weight = source.weight.as_ref().map_or("1::float8".to_string(), |weight| format!("(\n{weight}\n)::float8"));
    let latest = source.time.as_ref().map_or("NULL::timestamptz".to_string(), moment);
    let unfilled = if let Rows::All { unfilled } = rows { *unfilled } else { "false" };
    let from = |relation: &str, more: &str| {
        format!(
            "SELECT {key}::text AS raw, {weight} AS weight, {latest} AS latest, ({unfilled}) AS unfilled
            FROM {relation} t WHERE {key} IS NOT NULL{and_eligible} {more}",
            and_eligible = source.and_eligible()
        )
    };
    let (rows, data) = match rows {
        Rows::All { .. } => (from(&source.relation, ""), None),
        Rows::Newest(_) => {
            let order = source
                .time
                .as_ref()
                .map_or(String::new(), |time| format!("ORDER BY t.{} DESC NULLS LAST", time.quoted));
            (from(&source.relation, &format!("{order} LIMIT $1")), None)
        }
        Rows::Inserted(data) => (from("new_rows", ""), Some(*data)),
        Rows::Touched(data) => (from("new_rows", ""), Some(*data)),
        Rows::Changed(data) => {
            // the n-th row was the n-th row (pairs.rs)
            let paired = |relation: &str| {
                format!("(SELECT t.*, pg_catalog.row_number() OVER () AS ec_pair FROM {relation} t) t")
            };
            let before = format!(
                "SELECT CASE WHEN true{and_eligible} THEN {key}::text END AS ec_raw, t.ec_pair FROM {old_rows}",
                and_eligible = source.and_eligible(),
                old_rows = paired("old_rows"),
            );
            // of a password all is written anew: nothing of another one stays
            let keyless = match source.shape {
                Shape::Passwords | Shape::None => "false",
                _ => "o.ec_raw IS NOT NULL",
            };
            let now = format!(
                "SELECT coalesce({key}::text, '') AS raw, {weight} AS weight, {latest} AS latest, false AS unfilled
                FROM {new_rows} JOIN ({before}) o ON o.ec_pair = t.ec_pair
                WHERE ({key} IS NOT NULL OR {keyless}) AND o.ec_raw IS DISTINCT FROM {key}::text{and_eligible}",
                new_rows = paired("new_rows"),
                and_eligible = source.and_eligible(),
            );
            (now, Some(*data))
        }
    };
    let sql = format!(
        "SELECT r.raw, pg_catalog.count(*), pg_catalog.sum(r.weight)::float8, pg_catalog.max(r.latest),
            pg_catalog.bool_or(r.unfilled) FROM ({rows}) r GROUP BY r.raw"
    );
    (sql, data)
}

/// A time column as a moment, whatever the session's time zone is.
fn moment(time: &Column) -> String {
    match time.type_oid {
        pg_sys::TIMESTAMPTZOID => format!("t.{}", time.quoted),
        _ => format!("(t.{}::timestamp AT TIME ZONE 'UTC')", time.quoted),
    }
}
