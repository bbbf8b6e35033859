//! Statements on the user's own tables: finding keys no trigger reported, and writing answers back. Whatever touches a
//! row runs with the rights of the table's owner, so that a trigger or an expression of his gains nothing.

mod files;
mod json;
pub mod keys;
pub mod looked;
pub mod pairs;
mod passwords;
mod patches;
mod sessions;

use crate::core::error::Error;
use crate::core::hash;
use crate::pg::lone::Lone;
use crate::pg::spi::{self, Arg, Mode, Relation};
use crate::pg::store::indicators::{self, Taken};
use crate::pg::store::schema;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;
use std::collections::{BTreeMap, HashSet};

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
    /// Of `Part::Some`: whether there was no other row to change, and none was changed by somebody else meanwhile.
    pub all: bool,
}

/// Writes what the cache knows of these keys into their rows. Those of the moved ones that had another key before lose what is known
/// of that.
///
/// # Errors
/// 55P03 when a row stays locked by somebody else, or what the server raises; the transaction is over then.
pub fn write_back(source: &Source, taken: &Taken, part: Part) -> Result<Written, Error> {
    prepare_to_write()?;
    match source.shape {
        Shape::Raw | Shape::Cowrieprocessor => json::write(source, taken, part),
        Shape::Files => files::write(source, taken, part),
        Shape::Passwords => passwords::write(source, &taken.raw_keys, part),
        Shape::None => Ok(Written::default()),
    }
}

/// Takes what is a key's out of rows that have none any more, at most so many.
///
/// # Errors
/// As `write_back`.
pub fn write_keyless(source: &Source, most: i64) -> Result<Written, Error> {
    prepare_to_write()?;
    match source.shape {
        Shape::Raw | Shape::Cowrieprocessor => json::write_keyless(source, most),
        Shape::Files => files::write_keyless(source, most),
        Shape::Passwords | Shape::None => Ok(Written { all: true, ..Written::default() }),
    }
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

/// An UPDATE of rows `t` that has `patches` beside them: `key` finds them, `wanted` says whether one is to change.
struct Change {
    sets: String,
    patches: &'static str,
    key: String,
    wanted: String,
}

impl Change {
    /// Its text for a part of the rows; the arguments of places begin at `$places`. There no index on the key may be taken, which
    /// would go through all of its rows again for each part of them. Of some rows it tells how many it changed, and how many
    /// it had found: one that somebody else changes in between is not changed here.
    fn sql(&self, source: &Source, part: Part, places: usize) -> String {
        let Change { sets, patches, key, wanted } = self;
        let relation = &source.relation;
        let update = format!("UPDATE {relation} t SET {sets} FROM {patches} WHERE");
        match part {
            Part::All => format!("{update} {key} AND {wanted}"),
            Part::Some(most) => format!(
                "WITH found AS MATERIALIZED (SELECT t.tableoid, t.ctid FROM {relation} t, {patches} WHERE {key} AND {wanted} LIMIT {most}),
                changed AS ({update} {key} AND {wanted}
                    AND (t.tableoid, t.ctid) IN (SELECT f.tableoid, f.ctid FROM found f) RETURNING 1)
                SELECT (SELECT pg_catalog.count(*) FROM changed), (SELECT pg_catalog.count(*) FROM found)"
            ),
            Part::At(_) => format!(
                "{update} t.ctid = ANY (${places}::pg_catalog.tid[]) AND t.tableoid = ${table} AND CASE WHEN {key} THEN {wanted} END",
                table = places + 1,
            ),
        }
    }

    /// Runs it as the owner of the table.
    fn apply(
        &self,
        source: &Source,
        part: Part,
        given: Option<&Relation>,
        mut args: Vec<(pg_sys::BuiltinOid, Arg)>,
    ) -> Result<Written, Error> {
        let sql = self.sql(source, part, args.len() + 1);
        part.add_args(&mut args);
        let Part::Some(most) = part else {
            let rows = update(source, &sql, given, &args)?;
            return Ok(Written { rows, content: None, all: true });
        };
        let (mut rows, mut found) = (0i64, 0i64);
        as_owner(source.owner, || {
            spi::run_once(&sql, given, &args, Mode::Write, |row| {
                (rows, found) = (row.get(1).unwrap_or(0), row.get(2).unwrap_or(0));
            })
        })?;
        Ok(Written { rows: rows.unsigned_abs(), content: None, all: found < most && rows == found })
    }
}

/// The places of the rows of a key, at most so many.
///
/// # Errors
/// What the server raises, also from an expression of the source.
pub fn places(source: &Source, raw_key: &str, most: i64) -> Result<Vec<Place>, Error> {
    let mut found = places_of_all(source, std::slice::from_ref(&raw_key.to_string()), Some(most))?;
    Ok(found.remove(raw_key).unwrap_or_default())
}

/// The places of the rows of many keys, by key. Reads a table that has no index on its key once, whole.
///
/// # Errors
/// As `places`.
pub fn places_of_all(
    source: &Source,
    raw_keys: &[String],
    most: Option<i64>,
) -> Result<BTreeMap<String, Vec<Place>>, Error> {
    let (key, condition) = held(source)?;
    let sql = format!(
        "SELECT t.tableoid, t.ctid::text, {key} FROM {relation} t WHERE {condition} {limit}",
        relation = source.relation,
        limit = most.map_or(String::new(), |most| format!("LIMIT {most}")),
    );
    let mut places: BTreeMap<String, Vec<Place>> = BTreeMap::new();
    let args = [(pg_sys::BuiltinOid::TEXTARRAYOID, Arg::of(raw_keys.to_vec()))];
    reading(source, || {
        spi::run_once(&sql, None, &args, Mode::Write, |row| {
            if let (Some(table), Some(place), Some(key)) = (row.get(1), row.text(2), row.text(3)) {
                places.entry(key).or_default().push((table, place));
            }
        })
    })?;
    Ok(places)
}

/// How many rows of these keys still stand at these places of one table.
///
/// # Errors
/// As `places`.
pub fn standing_at(source: &Source, raw_keys: &[String], places: &[Place]) -> Result<i64, Error> {
    let sql = format!(
        "SELECT pg_catalog.count(*) FROM {relation} t
        WHERE t.ctid = ANY ($2::pg_catalog.tid[]) AND t.tableoid = $3 AND CASE WHEN true THEN {condition} END",
        relation = source.relation,
        condition = held(source)?.1,
    );
    let mut args = vec![(pg_sys::BuiltinOid::TEXTARRAYOID, Arg::of(raw_keys.to_vec()))];
    Part::At(places).add_args(&mut args);
    let mut count = 0;
    reading(source, || spi::run_once(&sql, None, &args, Mode::Write, |row| count = row.get(1).unwrap_or(0)))?;
    Ok(count)
}

/// The key of a row as indicators have it, and whether it is one of the texts `$1`. The plan knows how many these are.
fn held(source: &Source) -> Result<(String, String), Error> {
    if source.shape == Shape::Passwords {
        let prefix = format!("{}.enrich_hibp_prefix(t.{}::text)", schema()?, source.key.quoted);
        let condition = format!("{prefix} COLLATE \"C\" = ANY ($1)");
        return Ok((prefix, condition));
    }
    let key = source.key_sql();
    let condition = format!("{key} = ANY ($1::{}[]){}", comparable(&source.key).0, source.and_eligible());
    Ok((format!("{key}::text"), condition))
}

/// The condition on rows without a key, or with an empty text for one.
fn keyless(source: &Source) -> String {
    let key = source.key_sql();
    match [pg_sys::INETOID, pg_sys::CIDROID].contains(&source.key.type_oid) {
        true => format!("{key} IS NULL"),
        false => format!("({key} IS NULL OR {key} = '')"),
    }
}

// what is hashed of a password is ours, the rest may be an expression of the owner
fn reading<T>(source: &Source, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    match source.shape {
        Shape::Passwords => work(),
        _ => as_owner(source.owner, work),
    }
}

/// Runs an UPDATE of the owner's table with his rights. With an index on the key its plan is the same for few keys and many.
fn update(
    source: &Source,
    sql: &str,
    given: Option<&Relation>,
    args: &[(pg_sys::BuiltinOid, Arg)],
) -> Result<u64, Error> {
    as_owner(source.owner, || match source.indexed && source.shape != Shape::Passwords {
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
