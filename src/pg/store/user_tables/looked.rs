//! What coverage and diagnosis read of a table whose source has an expression or a condition: the user's text is evaluated
//! with the rights of the table's owner, what has become of the keys is looked up by whoever calls.

use crate::core::error::Error;
use crate::core::hash::hibp_split;
use crate::pg::spi::{self, Arg, Cursor, Mode, Statement};
use crate::pg::store::identity::as_table_owner;
use crate::pg::store::sources::{Shape, Source};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::BTreeMap;

/// How many groups of rows are held and looked up at one time.
const PORTION: i64 = 10_000;

/// What rows have in common: bucket, service, outcome of their key, cause of its failure, whether its answer expired, whether
/// it is asked for.
pub type Fate = (Option<String>, String, String, Option<String>, Option<bool>, Option<bool>);

/// How many rows there are, and the first of their keys.
#[derive(Default)]
pub struct Rows {
    pub rows: i64,
    pub example: Option<String>,
}

static FATES: Statement = Statement {
    sql: "WITH r AS MATERIALIZED (
            SELECT u.raw, u.bucket, u.rows
            FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3), pg_catalog.unnest($4)) AS u (raw, bucket, rows)),
        o AS MATERIALIZED (
            SELECT k.raw_key, k.service, k.outcome, k.expires_at <= pg_catalog.now() - interval '1 hour' AS expired,
                coalesce(k.cause, CASE WHEN k.expires_at <= pg_catalog.now() - interval '1 hour' THEN k.last_outcome END) AS cause,
                coalesce(k.queue_state IN ('waiting', 'in_flight'), false) AS asked
            FROM @extschema@.enrichment_key_outcome k WHERE k.source = $1 AND k.raw_key = ANY ($2))
        SELECT r.bucket, a.service, coalesce(o.outcome, CASE WHEN r.raw IS NULL THEN 'no_key' ELSE 'unknown' END), o.cause,
            o.expired, coalesce(o.asked, false), pg_catalog.sum(r.rows)::int8, pg_catalog.min(r.raw)
        FROM r CROSS JOIN (SELECT DISTINCT u FROM pg_catalog.unnest($5) u) a (service)
        LEFT JOIN o ON o.raw_key = r.raw AND o.service = a.service
        GROUP BY 1, 2, 3, 4, 5, 6",
    args: &[TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID, TEXTARRAYOID],
};

/// The rows of a table by what has become of their keys. A row that is not eligible has no key. `bucket` is SQL of ours
/// over a row `t`; of the blocks so many per cent are read.
///
/// # Errors
/// What the server raises, also from an expression of the source.
pub fn tally(source: &Source, bucket: &str, percent: f64) -> Result<BTreeMap<Fate, Rows>, Error> {
    let condition = source.eligible.as_ref().map_or("true".to_string(), |expression| format!("(\n{expression}\n)"));
    let sql = format!(
        "SELECT r.raw, r.bucket, pg_catalog.count(*)
        FROM (SELECT CASE WHEN {condition} THEN {key}::text END AS raw, {bucket} AS bucket FROM {from}) r GROUP BY 1, 2",
        key = source.key_sql(),
        from = sampled(source, percent),
    );
    let mut fates: BTreeMap<Fate, Rows> = BTreeMap::new();
    let mut cursor = as_table_owner(source.owner, || Ok(Cursor::open(&sql, &[], None)))?;
    loop {
        let (mut raw, mut buckets, mut rows) = (Vec::new(), Vec::new(), Vec::new());
        as_table_owner(source.owner, || {
            cursor.fetch(PORTION, |row| {
                raw.push(row.text(1).map(|key| kept(source, key)));
                buckets.push(row.text(2));
                rows.push(row.get::<i64>(3));
            });
            Ok(())
        })?;
        if raw.is_empty() {
            return Ok(fates);
        }
        let services = Arg::of(source.services.clone());
        let args = [Arg::of(source.name.as_str()), Arg::of(raw), Arg::of(buckets), Arg::of(rows), services];
        spi::run(&FATES, &args, Mode::Write, |row| {
            let word = |n| row.text(n).unwrap_or_default();
            let met = fates.entry((row.text(1), word(2), word(3), row.text(4), row.get(5), row.get(6))).or_default();
            met.rows += row.get::<i64>(7).unwrap_or(0);
            met.example = [met.example.take(), row.text(8)].into_iter().flatten().min();
        })?;
    }
}

/// Where an eligible row stands, and its key.
pub struct RowKey {
    pub part: pg_sys::Oid,
    pub place: pg_sys::ItemPointerData,
    pub raw: Option<String>,
}

/// The eligible rows of a sample, whether they have a key or not.
///
/// # Errors
/// As `tally`.
pub fn row_keys(source: &Source, percent: f64) -> Result<Vec<RowKey>, Error> {
    let sql = format!(
        "SELECT t.tableoid, t.ctid, {key}::text FROM {from} WHERE true{and_eligible}",
        key = source.key_sql(),
        from = sampled(source, percent),
        and_eligible = source.and_eligible(),
    );
    let mut found = Vec::new();
    as_table_owner(source.owner, || {
        let mut cursor = Cursor::open(&sql, &[], None);
        while cursor.fetch(PORTION, |row| {
            if let (Some(part), Some(place)) = (row.get(1), row.get(2)) {
                found.push(RowKey { part, place, raw: row.text(3).map(|key| kept(source, key)) });
            }
        }) > 0
        {}
        Ok(())
    })?;
    Ok(found)
}

/// The same rows each time, as long as the table does not change.
fn sampled(source: &Source, percent: f64) -> String {
    match percent < 100.0 {
        true => format!("{} t TABLESAMPLE SYSTEM ({percent}) REPEATABLE (1)", source.relation),
        false => format!("{} t", source.relation),
    }
}

/// A key as indicators have it: of a password the first digits of its hash.
fn kept(source: &Source, key: String) -> String {
    match source.shape {
        Shape::Passwords => hibp_split(key.as_bytes()).0,
        _ => key,
    }
}
