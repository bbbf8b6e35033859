//! Statements on `enrichment_source`: which user tables are enriched, and whether they still stand as attached.

use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_micros;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;

/// What is written where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A member per service, and `_meta`, in a json or jsonb column.
    Json,
    /// The `vt_*` columns of a table of files.
    Files,
    /// `breached`, `breach_prevalence`, `last_hibp_check` of a table of passwords.
    Passwords,
    /// Nothing: the table is only joined.
    None,
}

/// A column of the user's table: quoted name and the type to cast to.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub quoted: String,
    pub sql_type: String,
    pub type_oid: pg_sys::Oid,
}

/// Prefixes of passwords in a batch; as many rows, nearly, for most prefixes have one password.
const PASSWORD_BATCH: i64 = 10_000;

/// An attached table as it stands now.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub relation: String,
    pub owner: pg_sys::Oid,
    pub key: Column,
    pub services: Vec<String>,
    pub into: Option<Column>,
    pub shape: Shape,
    pub commit_interval: i64,
    pub swept_at: Option<Micros>,
    pub columns: Vec<Column>,
}

impl Source {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// Keys that are written in one transaction. For each batch of prefixes a table of passwords is hashed once as a
    /// whole, so there it is many: 276,000 passwords then take some 30 passes in place of 2,800.
    pub fn batch(&self) -> i64 {
        match self.shape {
            Shape::Passwords => self.commit_interval.max(PASSWORD_BATCH),
            _ => self.commit_interval,
        }
    }

    /// The SQL that turns a row `t` into the raw form of its key, never the password itself.
    pub fn raw_key(&self, schema: &str) -> String {
        match self.shape {
            Shape::Passwords => format!("{schema}.enrich_hibp_prefix(t.{}::text)", self.key.quoted),
            _ => format!("t.{}::text", self.key.quoted),
        }
    }
}

static SOURCES: Statement = Statement {
    sql: "SELECT s.name, s.relation::oid, s.key_column::text, s.services, s.into_column::text, s.shape,
            s.commit_interval, s.swept_at, c.relowner,
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
            pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL),
            pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL),
            pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL),
            pg_catalog.array_agg(a.atttypid::oid ORDER BY a.attnum) FILTER (WHERE a.attnum IS NOT NULL)
        FROM @extschema@.enrichment_source s
        LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation AND c.relkind IN ('r', 'p')
        LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        GROUP BY s.name, c.oid, n.oid, c.relowner, c.relname, n.nspname ORDER BY s.name",
    args: &[],
};

/// The attached tables.
#[derive(Default)]
pub struct Attached {
    pub standing: Vec<Source>,
    /// Name of a source and what is wrong with its table.
    pub broken: Vec<(String, String)>,
}

/// Every attached table: those that stand, and what is wrong with those that do not.
pub fn all() -> Result<Attached, Error> {
    let Attached { mut standing, mut broken } = Attached::default();
    spi::run(&SOURCES, &[], Mode::Read, |row| {
        let name = row.text(1).unwrap_or_default();
        match read(row, &name) {
            Ok(source) => standing.push(source),
            Err(why) => broken.push((name, why)),
        }
    })?;
    Ok(Attached { standing, broken })
}

fn read(row: &spi::Row, name: &str) -> Result<Source, String> {
    let relation = row.text(10).ok_or("the table is gone")?;
    let names: Vec<String> = row.get(11).unwrap_or_default();
    let quoted: Vec<String> = row.get(12).unwrap_or_default();
    let types: Vec<String> = row.get(13).unwrap_or_default();
    let oids: Vec<pg_sys::Oid> = row.get(14).unwrap_or_default();
    let columns: Vec<Column> = names
        .into_iter()
        .zip(quoted)
        .zip(types)
        .zip(oids)
        .map(|(((name, quoted), sql_type), type_oid)| Column { name, quoted, sql_type, type_oid })
        .collect();
    let find = |wanted: &str| columns.iter().find(|column| column.name == wanted).cloned();
    let key_name = row.text(3).unwrap_or_default();
    let key = find(&key_name).ok_or_else(|| format!("column \"{key_name}\" is gone"))?;
    if !key_type_allowed(key.type_oid) {
        return Err(format!("column \"{key_name}\" is now of type {}", key.sql_type));
    }
    let into = match row.text(5) {
        None => None,
        Some(wanted) => {
            let column = find(&wanted).ok_or_else(|| format!("column \"{wanted}\" is gone"))?;
            if column.type_oid != pg_sys::JSONOID && column.type_oid != pg_sys::JSONBOID {
                return Err(format!("column \"{wanted}\" is now of type {}", column.sql_type));
            }
            Some(column)
        }
    };
    let shape = match row.text(6).as_deref() {
        Some("json") => Shape::Json,
        Some("files") => Shape::Files,
        Some("passwords") => Shape::Passwords,
        _ => Shape::None,
    };
    Ok(Source {
        name: name.to_string(),
        relation,
        owner: row.get(9).unwrap_or(pg_sys::InvalidOid),
        key,
        services: row.get(4).unwrap_or_default(),
        into,
        shape,
        commit_interval: row.get::<i32>(7).map_or(100, i64::from),
        swept_at: row.get(8).map(to_micros),
        columns,
    })
}

/// Key columns may have the types whose text form the server makes itself: a user's own cast must never run with
/// the rights of the worker.
pub fn key_type_allowed(oid: pg_sys::Oid) -> bool {
    [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::INETOID, pg_sys::CIDROID].contains(&oid)
}

static SWEPT: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_source SET swept_at = pg_catalog.clock_timestamp() WHERE name = $1",
    args: &[TEXTOID],
};

pub fn swept(name: &str) -> Result<(), Error> {
    spi::run(&SWEPT, &[Arg::of(name)], Mode::Write, |_| {})?;
    Ok(())
}

static PROBLEM: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_source SET last_error = $2,
            last_error_at = CASE WHEN $2 IS NULL THEN NULL ELSE pg_catalog.clock_timestamp() END
        WHERE name = $1 AND last_error IS DISTINCT FROM $2",
    args: &[TEXTOID, TEXTOID],
};

/// Notes what is wrong with a source, or that all is well again.
pub fn problem(name: &str, what: Option<&str>) -> Result<(), Error> {
    spi::run(&PROBLEM, &[Arg::of(name), Arg::of(what)], Mode::Write, |_| {})?;
    Ok(())
}
