//! Statements on the user's own tables: finding keys no trigger reported, and writing answers back. Whatever touches a
//! row runs with the rights of the table's owner, so that a trigger or an expression of his gains nothing.

mod files;
mod json;
pub mod keys;
pub mod looked;
mod passwords;
mod patches;
mod sessions;

use crate::core::error::Error;
use crate::core::hash;
use crate::pg::lone::Lone;
use crate::pg::spi::{self, Arg, Mode, Relation};
use crate::pg::store::indicators;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;
use std::collections::HashSet;

/// Lists keys of a source that are not known yet, or whose rows stand unfilled although an answer is there, and forgets
/// those that no row holds any more; returns how many were listed.
///
/// # Errors
/// What the server raises, also from an expression of the source.
pub fn sweep(source: &Source) -> Result<i64, Error> {
    let (mut met, mut known, mut noted) = (HashSet::new(), 0i64, 0i64);
    keys::read(source, &keys::Rows::All { unfilled: &unfilled(source) }, |seen| {
        met.extend(seen.iter().map(|key| hash::short(&key.raw_key)));
        let found = indicators::recount(&source.name, &source.services, seen)?;
        known += found.known;
        noted += found.noted;
        Ok(())
    })?;
    if indicators::count(&source.name)? > known {
        indicators::forget_others(&source.name, &met, hash::short)?;
    }
    if source.shape == Shape::Files {
        noted += sessions::note_unflagged(source)?;
    }
    Ok(noted)
}

fn unfilled(source: &Source) -> String {
    match (&source.into, source.shape) {
        (Some(into), _) if into.type_oid == pg_sys::JSONBOID => {
            format!("t.{c} IS NULL OR NOT t.{c} ? '_meta'", c = into.quoted)
        }
        (Some(into), _) => format!("t.{c} IS NULL OR t.{c}::text NOT LIKE '%\"_meta\"%'", c = into.quoted),
        (_, Shape::Files) => match source.column("enrichment_status") {
            Some(column) => format!("coalesce(t.{}::text, 'pending') = 'pending'", column.quoted),
            None => "false".to_string(),
        },
        (_, Shape::Passwords) => match source.column("last_hibp_check") {
            Some(column) => format!("t.{} IS NULL", column.quoted),
            None => "false".to_string(),
        },
        _ => "false".to_string(),
    }
}

static WRITING: Lone<bool> = Lone::new(false);

/// Whether this process is writing answers at the moment: the triggers of attached tables have nothing to note then.
pub fn writing() -> bool {
    WRITING.get()
}

/// Which rows of its keys a batch writes.
#[derive(Clone, Copy)]
pub enum Part<'a> {
    All,
    /// At most so many that are to change.
    Some(i64),
    /// Those that stood at these places of one table and still do.
    At(&'a [Place]),
}

/// Where a row stands: its table or partition, and its `ctid`.
pub type Place = (pg_sys::Oid, String);

impl Part<'_> {
    /// Adds the arguments of its condition, which come last.
    fn add_args(&self, args: &mut Vec<(pg_sys::BuiltinOid, Arg)>) {
        if let Part::At(places @ [(table, _), ..]) = self {
            let ctids: Vec<&str> = places.iter().map(|(_, ctid)| ctid.as_str()).collect();
            args.push((pg_sys::BuiltinOid::TEXTARRAYOID, Arg::of(ctids)));
            args.push((pg_sys::BuiltinOid::OIDOID, Arg::of(*table)));
        }
    }
}

/// What became of the rows of some keys.
#[derive(Clone, Copy, Default)]
pub struct Written {
    /// So many changed.
    pub rows: u64,
    /// A digest of what they were given; None where it was not taken.
    pub content: Option<u64>,
}

/// Writes what the cache knows of these keys into their rows.
///
/// # Errors
/// 55P03 when a row stays locked by somebody else, or what the server raises; the transaction is over then.
pub fn write_back(source: &Source, raw_keys: &[String], part: Part) -> Result<Written, Error> {
    prepare_to_write()?;
    let rows = match source.shape {
        Shape::Raw | Shape::Cowrieprocessor => return json::write(source, raw_keys, part),
        Shape::Files => files::write(source, raw_keys, part)?,
        Shape::Passwords => passwords::write(source, raw_keys)?,
        Shape::None => 0,
    };
    Ok(Written { rows, content: None })
}

// A wait for a row ends long before anybody's deadlock_timeout: of a loader and this worker that wait for each other,
// the worker gives way. Deferred triggers must fire within the UPDATE, as the owner, and not at commit as the worker.
// A commit need not reach the disk at once: what a crash takes back is still marked as unwritten.
fn prepare_to_write() -> Result<(), Error> {
    const SETTINGS: &str = "SELECT pg_catalog.set_config('lock_timeout', '5ms', true),
        pg_catalog.set_config('synchronous_commit', 'off', true)";
    spi::run_often(SETTINGS, None, &[], Mode::Write, |_| {})?;
    spi::run_often("SET CONSTRAINTS ALL IMMEDIATE", None, &[], Mode::Write, |_| {})?;
    Ok(())
}

/// The condition on rows `t` of an UPDATE that has `patches` beside them: `key` finds them, `wanted` says whether one is to
/// change. The arguments of places begin at `$places`; there no index on the key may be taken, which would go through all
/// of its rows again for each part of them.
fn in_part(source: &Source, patches: &str, key: &str, wanted: &str, part: Part, places: usize) -> String {
    match part {
        Part::All => format!("{key} AND {wanted}"),
        Part::Some(most) => format!(
            "{key} AND {wanted} AND (t.tableoid, t.ctid) IN (SELECT t.tableoid, t.ctid FROM {relation} t, {patches}
                WHERE {key} AND {wanted} LIMIT {most})",
            relation = source.relation,
        ),
        Part::At(_) => format!(
            "t.ctid = ANY (${places}::pg_catalog.tid[]) AND t.tableoid = ${table} AND CASE WHEN {key} THEN {wanted} END",
            table = places + 1,
        ),
    }
}

/// The places of the rows of a key, at most so many.
///
/// # Errors
/// What the server raises, also from an expression of the source.
pub fn places(source: &Source, raw_key: &str, most: i64) -> Result<Vec<Place>, Error> {
    let sql = format!(
        "SELECT t.tableoid, t.ctid::text FROM {relation} t WHERE {key} = $1::{key_type}{and_eligible} LIMIT {most}",
        relation = source.relation,
        key = source.key_sql(),
        key_type = comparable(&source.key).0,
        and_eligible = source.and_eligible(),
    );
    let mut places = Vec::new();
    let args = [(pg_sys::BuiltinOid::TEXTOID, Arg::of(raw_key))];
    as_owner(source.owner, || {
        spi::run_once(&sql, None, &args, Mode::Write, |row| places.extend(row.get(1).zip(row.text(2))))
    })?;
    Ok(places)
}

/// Runs an UPDATE of the owner's table with his rights. With an index on the key its plan is the same for few keys and many.
fn update(
    source: &Source,
    sql: &str,
    given: Option<&Relation>,
    args: &[(pg_sys::BuiltinOid, Arg)],
) -> Result<u64, Error> {
    as_owner(source.owner, || match source.indexed {
        true => spi::run_often(sql, given, args, Mode::Write, |_| {}),
        false => spi::run_once(sql, given, args, Mode::Write, |_| {}),
    })
}

fn as_owner<T>(owner: pg_sys::Oid, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    struct Writing;
    impl Drop for Writing {
        fn drop(&mut self) {
            WRITING.set(false);
        }
    }
    WRITING.set(true);
    let _writing = Writing;
    crate::pg::store::identity::as_table_owner(owner, work)
}

// bpchar and varchar columns compare as text without a length, so that a long key is never cut to match
fn comparable(key: &Column) -> (&'static str, pg_sys::Oid) {
    match key.type_oid {
        pg_sys::INETOID => ("inet", pg_sys::INETOID),
        pg_sys::CIDROID => ("cidr", pg_sys::CIDROID),
        pg_sys::BPCHAROID => ("bpchar", pg_sys::BPCHAROID),
        _ => ("text", pg_sys::TEXTOID),
    }
}
