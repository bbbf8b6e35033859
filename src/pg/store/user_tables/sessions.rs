//! `vt_flagged` of sessions: true once VirusTotal calls a file of the session malicious. Attached tables of files and of
//! sessions are linked by their `session_id`. The flag is only ever set here, never cleared: it has other writers.

use super::{as_owner, Part};
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::arrivals::{self, Seen, Why};
use crate::pg::store::schema;
use crate::pg::store::sources::{self, Column, Shape, Source};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;

const LINK: &str = "session_id";
const FLAG: &str = "vt_flagged";

/// A table of sessions whose flag follows a table of files.
struct Linked {
    sessions: Source,
    flag: Column,
    session_id: Column,
    file_session_id: Column,
}

fn linked(files: &Source) -> Result<Vec<Linked>, Error> {
    let Some(file_session_id) = files.column(LINK).filter(|column| plain(column)) else { return Ok(Vec::new()) };
    let all = sources::all()?.standing.into_iter();
    let linked =
        all.filter(|source| matches!(source.shape, Shape::Raw | Shape::Cowrieprocessor)).filter_map(|sessions| {
            let flag = sessions.column(FLAG).filter(|column| column.type_oid == pg_sys::BOOLOID)?.clone();
            let session_id = sessions.column(LINK).filter(|column| plain(column))?.clone();
            // two sources on one table: its rows are written once
            Some(Linked { sessions, flag, session_id, file_session_id: file_session_id.clone() })
        });
    let mut tables: Vec<Linked> = linked.collect();
    tables.sort_by(|a, b| a.sessions.relation.cmp(&b.sessions.relation));
    tables.dedup_by(|a, b| a.sessions.relation == b.sessions.relation);
    Ok(tables)
}

// types whose comparison is the server's own
fn plain(column: &Column) -> bool {
    [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::BPCHAROID, pg_sys::INT4OID, pg_sys::INT8OID, pg_sys::UUIDOID]
        .contains(&column.type_oid)
}

/// Flags the sessions that hold files of these hashes, as they stand in the rows: for `part` of the files' rows, as each of them has one
/// session; says how many were flagged, and whether these were all.
pub fn flag(files: &Source, malicious: &[String], part: Part) -> Result<(u64, bool), Error> {
    if malicious.is_empty() {
        return Ok((0, true));
    }
    let (mut flagged, mut all) = (0, true);
    for Linked { sessions, flag, session_id, file_session_id } in linked(files)? {
        let held = format!(
            "{key} = ANY ($1::{key_type}[]) AND t.{link} IS NOT NULL{and_eligible}",
            link = file_session_id.quoted,
            key = files.key_sql(),
            key_type = super::comparable(&files.key).0,
            and_eligible = files.and_eligible(),
        );
        let condition = match part {
            Part::At(_) => {
                format!("t.ctid = ANY ($2::pg_catalog.tid[]) AND t.tableoid = $3 AND CASE WHEN true THEN {held} END")
            }
            _ => held,
        };
        let find = format!(
            "SELECT DISTINCT t.{link}::text FROM {relation} t WHERE {condition}",
            link = file_session_id.quoted,
            relation = files.relation,
        );
        let mut args = vec![(TEXTARRAYOID, Arg::of(malicious.to_vec()))];
        part.add_args(&mut args);
        let mut ids: Vec<String> = Vec::new();
        as_owner(files.owner, || spi::run_once(&find, None, &args, Mode::Write, |row| ids.extend(row.text(1))))?;
        let (relation, flag, id) = (&sessions.relation, &flag.quoted, &session_id.quoted);
        let unflagged = format!("t.{id} = ANY ($1::{}[]) AND t.{flag} IS DISTINCT FROM true", bare(&session_id));
        let set = match part {
            Part::Some(most) => format!(
                "UPDATE {relation} t SET {flag} = true WHERE {unflagged} AND t.{id} IN (
                    SELECT t.{id} FROM {relation} t WHERE {unflagged} LIMIT {most})"
            ),
            _ => format!("UPDATE {relation} t SET {flag} = true WHERE {unflagged}"),
        };
        let rows = super::update(&sessions, &set, None, &[(TEXTARRAYOID, Arg::of(ids))])?;
        all &= !matches!(part, Part::Some(most) if rows as i64 >= most);
        flagged += rows;
    }
    Ok((flagged, all))
}

// without a length, so that nothing is cut to match
fn bare(column: &Column) -> &'static str {
    match column.type_oid {
        pg_sys::INT4OID => "int4",
        pg_sys::INT8OID => "int8",
        pg_sys::UUIDOID => "uuid",
        pg_sys::BPCHAROID => "bpchar",
        _ => "text",
    }
}

/// Lists the malicious files of sessions that came, or were attached, after their file was judged; returns how many.
pub fn note_unflagged(files: &Source) -> Result<i64, Error> {
    let schema = schema()?;
    let mut noted = 0;
    // an expression of the owner may stand in the key or the condition: these rows are found when the file is written
    if files.has_expressions() {
        return Ok(0);
    }
    for Linked { sessions, flag, session_id, file_session_id } in linked(files)? {
        let sql = format!(
            "SELECT DISTINCT i.raw_key FROM {schema}.enrichment_virustotal v
            JOIN {schema}.enrichment_indicator i ON i.source = $1 AND i.cache_key = v.cache_key AND NOT i.dirty
            JOIN {files} f ON f.{key} = i.raw_key::{key_type}
            JOIN {sessions} s ON s.{id}::text = f.{file_id}::text
            WHERE v.malicious > 0 AND s.{flag} IS DISTINCT FROM true",
            files = files.relation,
            key = files.key.quoted,
            key_type = super::comparable(&files.key).0,
            sessions = sessions.relation,
            id = session_id.quoted,
            file_id = file_session_id.quoted,
            flag = flag.quoted,
        );
        let mut keys: Vec<Seen> = Vec::new();
        spi::run_once(&sql, None, &[(TEXTOID, Arg::of(files.name.as_str()))], Mode::Write, |row| {
            let seen = |raw_key| Seen { raw_key, rows: 0, weight: 0.0, latest: None, unfilled: true };
            keys.extend(row.text(1).map(seen));
        })?;
        noted += keys.len() as i64;
        while !keys.is_empty() {
            let rest = keys.split_off(keys.len().min(arrivals::KEYS_A_ROW));
            arrivals::note(&files.name, keys, Why::New)?;
            keys = rest;
        }
    }
    Ok(noted)
}
