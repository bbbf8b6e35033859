//! Statements on `enrichment_source`: which user tables are enriched, and whether they still stand as attached.

use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert::to_micros;
use crate::pg::packed::Method;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::BTreeMap;

/// What is written where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A member per service as it was received, and `_meta`, in a json or jsonb column.
    Raw,
    /// The same members as the readers of cowrieprocessor expect them.
    Cowrieprocessor,
    /// The `vt_*` columns of a table of files.
    Files,
    /// `breached`, `breach_prevalence`, `last_hibp_check` of a table of passwords.
    Passwords,
    /// Nothing: the table is only joined.
    None,
}

impl Shape {
    fn named(name: &str) -> Self {
        match name {
            "raw" => Shape::Raw,
            "cowrieprocessor" => Shape::Cowrieprocessor,
            "files" => Shape::Files,
            "passwords" => Shape::Passwords,
            _ => Shape::None,
        }
    }
}

/// A column of the user's table: quoted name and the type to cast to.
#[derive(Clone, Debug)]
pub struct Column {
    pub name: String,
    pub quoted: String,
    pub sql_type: String,
    pub type_oid: pg_sys::Oid,
    pub not_null: bool,
}

/// An attached table as it stands now.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub relation: String,
    pub owner: pg_sys::Oid,
    /// The key column; where an expression gives the key, its type, and a name that is none.
    pub key: Column,
    pub key_expression: Option<String>,
    /// Which rows are asked about and written: an expression.
    pub eligible: Option<String>,
    /// What a row adds to the worth of its key: an expression. None: 1.
    pub weight: Option<String>,
    pub time: Option<Column>,
    pub services: Vec<String>,
    pub into: Option<Column>,
    /// How that column compresses its values, if it does.
    pub packing: Option<Method>,
    pub shape: Shape,
    /// Columns that are true when a service finds fault, and that service.
    pub flags: Vec<(Column, String)>,
    /// Rows written in one transaction; while an enrich_refresh runs that names a number, that.
    pub commit_interval: i64,
    pub swept_at: Option<Micros>,
    pub columns: Vec<Column>,
    /// Whether an index can find the rows of a key.
    pub indexed: bool,
    /// Size of the table in blocks, by its last VACUUM or ANALYZE.
    pub blocks: i64,
}

impl Source {
    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }

    /// The key of a row `t` as SQL.
    pub fn key_sql(&self) -> String {
        match &self.key_expression {
            // on lines of its own: it may end in a comment
            Some(expression) => format!("(\n{expression}\n)"),
            None => format!("t.{}", self.key.quoted),
        }
    }

    /// ` AND ...`, the condition under which a row `t` is the source's at all.
    pub fn and_eligible(&self) -> String {
        self.eligible.as_ref().map_or(String::new(), |expression| format!(" AND (\n{expression}\n)"))
    }

    /// Whether anything the user wrote is evaluated to find its keys.
    pub fn has_expressions(&self) -> bool {
        self.key_expression.is_some() || self.eligible.is_some() || self.weight.is_some()
    }
}

static SOURCES: Statement = Statement {
    sql: "SELECT s.name, s.relation::oid, CASE WHEN $2 IS NULL THEN s.key_column ELSE k.attname END::text, s.services, s.into_column::text, s.shape,
            coalesce((SELECT pg_catalog.min(r.commit_interval) FROM @extschema@.enrichment_refresh_run r
                WHERE s.name = ANY (r.sources) AND r.commit_interval IS NOT NULL AND EXISTS (
                    SELECT FROM pg_catalog.pg_stat_get_activity(r.pid) a WHERE a.query_start = r.started_at AND a.state = 'active')),
                s.commit_interval), s.swept_at, c.relowner,
            pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname),
            a.names, a.quoted, a.types, a.oids,
            s.key_expression, s.key_type::oid, s.eligible, s.weight, s.time_column::text, s.flag_columns::text,
            EXISTS (SELECT FROM pg_catalog.pg_index x WHERE x.indrelid = c.oid AND x.indisvalid AND x.indpred IS NULL
                AND CASE WHEN s.key_expression IS NULL AND s.shape <> 'passwords' THEN x.indkey[0] = k.attnum
                    ELSE x.indkey[0] = 0 END),
            CASE c.relkind WHEN 'p' THEN (SELECT pg_catalog.sum(p.relpages) FROM pg_catalog.pg_partition_tree(c.oid) t
                JOIN pg_catalog.pg_class p ON p.oid = t.relid) ELSE c.relpages END::int8,
            (SELECT i.attcompression::text FROM pg_catalog.pg_attribute i
                WHERE i.attrelid = c.oid AND i.attname = s.into_column AND NOT i.attisdropped AND i.attstorage IN ('x', 'm')),
            a.not_null
        FROM @extschema@.enrichment_source s
        LEFT JOIN pg_catalog.pg_class c ON c.oid = s.relation AND c.relkind IN ('r', 'p')
        LEFT JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        LEFT JOIN pg_catalog.pg_attribute k ON k.attrelid = c.oid AND NOT k.attisdropped
            AND CASE WHEN $2 IS NULL THEN k.attname = s.key_column ELSE k.attnum = $2 END
        LEFT JOIN LATERAL (
            SELECT pg_catalog.array_agg(a.attname::text ORDER BY a.attnum) AS names,
                pg_catalog.array_agg(pg_catalog.quote_ident(a.attname) ORDER BY a.attnum) AS quoted,
                pg_catalog.array_agg(pg_catalog.format_type(a.atttypid, a.atttypmod) ORDER BY a.attnum) AS types,
                pg_catalog.array_agg(a.atttypid::oid ORDER BY a.attnum) AS oids,
                pg_catalog.array_agg(a.attnotnull ORDER BY a.attnum) AS not_null
            FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) a ON true
        WHERE $1 IS NULL OR s.name = $1
        ORDER BY s.name",
    args: &[TEXTOID, INT4OID],
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
    spi::run(&SOURCES, &[Arg::of(None::<String>), Arg::of(None::<i32>)], Mode::Read, |row| {
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
    let not_null: Vec<bool> = row.get(24).unwrap_or_default();
    let columns: Vec<Column> = names
        .into_iter()
        .zip(quoted)
        .zip(types)
        .zip(oids)
        .zip(not_null)
        .map(|((((name, quoted), sql_type), type_oid), not_null)| Column { name, quoted, sql_type, type_oid, not_null })
        .collect();
    let find = |wanted: &str| columns.iter().find(|column| column.name == wanted).cloned();
    let key_expression = row.text(15);
    let key = match row.text(3) {
        None if key_expression.is_none() => return Err("the key column is gone".to_string()),
        None => {
            let type_oid = row.get(16).unwrap_or(pg_sys::InvalidOid);
            Column { name: String::new(), quoted: String::new(), sql_type: String::new(), type_oid, not_null: false }
        }
        Some(wanted) => find(&wanted).ok_or_else(|| format!("column \"{wanted}\" is gone"))?,
    };
    if !key_type_allowed(key.type_oid) {
        return Err(format!("column \"{}\" is now of type {}", key.name, key.sql_type));
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
    // one that is gone is no reason to stop: as coverage does, the next best is taken (enrichment_time_of)
    const USUAL_TIMES: [&str; 5] = ["last_event_at", "last_seen", "first_seen", "first_event_at", "created_at"];
    let named = row.text(19).into_iter();
    let time = named.flat_map(|named| std::iter::once(named).chain(USUAL_TIMES.map(str::to_string))).find_map(|name| {
        let times = [pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPOID, pg_sys::DATEOID];
        find(&name).filter(|column| times.contains(&column.type_oid))
    });
    let services: Vec<String> = row.get(4).unwrap_or_default();
    let flags = flags(row.text(20), &services, into.is_some(), find)?;
    Ok(Source {
        name: name.to_string(),
        relation,
        owner: row.get(9).unwrap_or(pg_sys::InvalidOid),
        key,
        key_expression,
        eligible: row.text(17),
        weight: row.text(18),
        time,
        services,
        into,
        packing: row.text(23).map(|letter| Method::named(&letter)),
        shape: Shape::named(&row.text(6).unwrap_or_default()),
        flags,
        commit_interval: row.get::<i32>(7).map_or(100, i64::from),
        swept_at: row.get(8).map(to_micros),
        columns,
        indexed: row.get(21).unwrap_or(true),
        blocks: row.get(22).unwrap_or(0),
    })
}

/// The flag columns that were named, else those that are there under their usual names.
fn flags(
    named: Option<String>,
    services: &[String],
    has_target: bool,
    find: impl Fn(&str) -> Option<Column>,
) -> Result<Vec<(Column, String)>, String> {
    let Some(named) = named else {
        let usual = |service: &String| {
            let name = if service == "virustotal" { "vt_flagged".to_string() } else { format!("{service}_flagged") };
            find(&name).filter(|column| column.type_oid == pg_sys::BOOLOID).map(|column| (column, service.clone()))
        };
        return Ok(if has_target { services.iter().filter_map(usual).collect() } else { Vec::new() });
    };
    let named: BTreeMap<String, String> =
        serde_json::from_str(&named).map_err(|_| "flag_columns is no object of texts".to_string())?;
    named
        .into_iter()
        .map(|(name, service)| {
            let column = find(&name).ok_or_else(|| format!("column \"{name}\" is gone"))?;
            match column.type_oid == pg_sys::BOOLOID {
                true => Ok((column, service)),
                false => Err(format!("column \"{name}\" is now of type {}", column.sql_type)),
            }
        })
        .collect()
}

/// A source as its trigger sees it: its key column is known by number, which a rename leaves as it is. None when it is
/// not attached any more, or does not stand.
pub fn watched(name: &str, key_number: i16) -> Result<Option<Source>, Error> {
    let mut found = None;
    let number = (key_number > 0).then_some(i32::from(key_number));
    spi::run(&SOURCES, &[Arg::of(name), Arg::of(number)], Mode::Write, |row| found = read(row, name).ok())?;
    Ok(found)
}

/// Key columns may have the types whose text form the server makes itself: a user's own cast must never run with
/// the rights of the worker.
pub fn key_type_allowed(oid: pg_sys::Oid) -> bool {
    [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::INETOID, pg_sys::CIDROID].contains(&oid)
}

static OWNER: Statement = Statement {
    sql: "SELECT c.relowner, pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1",
    args: &[OIDOID],
};

/// The owner of a relation, and its qualified name.
pub fn owner_and_name(relation: pg_sys::Oid) -> Result<(pg_sys::Oid, String), Error> {
    let mut found = None;
    spi::run(&OWNER, &[Arg::of(relation)], Mode::Write, |row| found = row.get(1).zip(row.text(2)))?;
    found.ok_or_else(|| Error::InvalidArgument {
        message: format!("relation with OID {} does not exist", relation.to_u32()),
        hint: "Name a table of this database.".to_string(),
    })
}

static FOLLOW: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_source s SET weight = @extschema@.enrichment_usual_weight(s.relation)
        WHERE s.name = $1 AND s.usual_weight AND s.weight IS DISTINCT FROM @extschema@.enrichment_usual_weight(s.relation)",
    args: &[TEXTOID],
};

/// Has a weight that nobody gave follow the columns that are there; true when it changed.
pub fn follow(name: &str) -> Result<bool, Error> {
    Ok(spi::run(&FOLLOW, &[Arg::of(name)], Mode::Write, |_| {})? > 0)
}

static SWEPT: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_source SET swept_at = pg_catalog.clock_timestamp() WHERE name = $1",
    args: &[TEXTOID],
};

pub fn swept(name: &str) -> Result<(), Error> {
    spi::run(&SWEPT, &[Arg::of(name)], Mode::Write, |_| {})?;
    Ok(())
}

static SWEEP_SOON: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_source SET swept_at = NULL WHERE name = $1 AND swept_at IS NOT NULL",
    args: &[TEXTOID],
};

/// Has the whole table searched again without waiting for its turn.
pub fn sweep_soon(name: &str) -> Result<(), Error> {
    spi::run(&SWEEP_SOON, &[Arg::of(name)], Mode::Write, |_| {})?;
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
