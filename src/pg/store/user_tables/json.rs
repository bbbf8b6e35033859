//! Writing answers into a json or jsonb column: a member per service, and `_meta` that says when and how.

use super::{as_owner, comparable};
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::schema;
use crate::pg::store::sources::{Column, Source};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;

/// Merges what the cache knows of these keys into their rows.
pub fn write(source: &Source, raw_keys: &[String]) -> Result<u64, Error> {
    let Some(into) = &source.into else { return Ok(0) };
    let schema = schema()?;
    let mut patches = Patches::default();
    // each step is one probe of a unique index (LIMIT keeps the planner from joining in another order): in the first
    // minute of a table's life there are no statistics, and a batch took a second instead of milliseconds
    let sql = format!(
        "SELECT k.raw,
            coalesce(pg_catalog.jsonb_object_agg(c.service, c.payload) FILTER (WHERE c.payload IS NOT NULL), '{{}}')::text,
            coalesce(pg_catalog.jsonb_agg(c.service) FILTER (WHERE c.payload IS NULL), '[]')::text,
            pg_catalog.jsonb_object_agg(c.service, pg_catalog.jsonb_build_object('status', c.response_status,
                'fetched_at', pg_catalog.to_char(c.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                'expires_at', pg_catalog.to_char(c.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))::text,
            pg_catalog.bool_or(coalesce({schema}.enrich_bigint(c.payload #> '{{ip,count}}'), 0) > 0
                OR coalesce({schema}.enrich_bigint(c.payload #> '{{ip,attacks}}'), 0) > 0)
                FILTER (WHERE c.service = 'dshield' AND c.payload IS NOT NULL)
        FROM pg_catalog.unnest($2) AS k (raw)
        CROSS JOIN LATERAL (SELECT i.cache_key FROM {schema}.enrichment_indicator i
            WHERE i.source = $1 AND i.raw_key = k.raw LIMIT 1) i
        CROSS JOIN pg_catalog.unnest($3) AS s (service)
        CROSS JOIN LATERAL (SELECT e.service, e.response_status, e.fetched_at, e.expires_at,
                coalesce({schema}.enrich_hibp_range(e.ranges), e.payload) AS payload
            FROM {schema}.enrichment_cache e WHERE e.service = s.service AND e.cache_key = i.cache_key LIMIT 1) c
        WHERE c.response_status IN ('success', 'not_found')
        GROUP BY k.raw"
    );
    let args = [
        (TEXTOID, Arg::of(source.name.as_str())),
        (TEXTARRAYOID, Arg::of(raw_keys.to_vec())),
        (TEXTARRAYOID, Arg::of(source.services.clone())),
    ];
    spi::run_once(&sql, &args, Mode::Write, |row| {
        patches.raw.push(row.text(1));
        patches.found.push(row.text(2));
        patches.gone.push(row.text(3));
        patches.meta.push(row.text(4));
        patches.flagged.push(row.get(5));
    })?;
    if patches.raw.is_empty() {
        return Ok(0);
    }
    as_owner(source.owner, || {
        let args = [
            (TEXTARRAYOID, Arg::of(patches.raw)),
            (TEXTARRAYOID, Arg::of(patches.found)),
            (TEXTARRAYOID, Arg::of(patches.gone)),
            (TEXTARRAYOID, Arg::of(patches.meta)),
            (BOOLARRAYOID, Arg::of(patches.flagged)),
        ];
        spi::run_once(&json_update(source, into), &args, Mode::Write, |_| {})
    })
}

#[derive(Default)]
struct Patches {
    raw: Vec<Option<String>>,
    found: Vec<Option<String>>,
    gone: Vec<Option<String>>,
    meta: Vec<Option<String>>,
    flagged: Vec<Option<bool>>,
}

/// The column as jsonb. A json column may hold what jsonb refuses: `\u0000` and halves of surrogate pairs become
/// U+FFFD on the way (an escaped backslash in front is told apart).
fn as_jsonb(into: &Column) -> String {
    let column = format!("t.{}", into.quoted);
    if into.type_oid == pg_sys::JSONBOID {
        return column;
    }
    const UNESCAPED: &str = r"(?<!\\)((?:\\\\)*)";
    const HIGH: &str = r"\\u[dD][89abAB][0-9a-fA-F]{2}";
    const LOW: &str = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}";
    let refused =
        [format!(r"{UNESCAPED}\\u0000"), format!("{UNESCAPED}{HIGH}(?!{LOW})"), format!("(?<!{HIGH}){UNESCAPED}{LOW}")];
    let mended = refused.iter().fold(format!("{column}::text"), |text, pattern| {
        format!(r"pg_catalog.regexp_replace({text}, '{pattern}', '\1\\ufffd', 'g')")
    });
    format!(r"CASE WHEN {column}::text LIKE '%\\u%' THEN {mended}::jsonb ELSE {column}::text::jsonb END")
}

// The merge touches the members of our services and `_meta`, nothing else. What is not an object (an array, a string)
// belongs to somebody else and stays as it is. All of it is computed from the row that is updated, so that a row
// changed meanwhile by somebody else is merged anew and loses nothing. The CASE keeps the planner from reading the
// JSON of rows of other keys: it would be slow, and one bad row of the table would stop every key.
fn json_update(source: &Source, into: &Column) -> String {
    let old = format!("(SELECT {} AS old OFFSET 0) o", as_jsonb(into));
    let merged = "(coalesce(nullif(o.old, 'null'), '{}') - p.gone) || p.found || pg_catalog.jsonb_build_object('_meta',
            CASE WHEN pg_catalog.jsonb_typeof(o.old -> '_meta') = 'object' THEN o.old -> '_meta' ELSE '{}' END || p.meta)";
    let mut sets = vec![format!("{} = (SELECT ({merged})::{} FROM {old})", into.quoted, into.sql_type)];
    let mut changed = vec![format!("(SELECT ({merged}) IS DISTINCT FROM o.old FROM {old})")];
    if let Some(flag) = source.column("dshield_flagged").filter(|column| column.type_oid == pg_sys::BOOLOID) {
        sets.push(format!("{q} = coalesce(p.flagged, t.{q})", q = flag.quoted));
        changed.push(format!("t.{q} IS DISTINCT FROM coalesce(p.flagged, t.{q})", q = flag.quoted));
    }
    if let Some(at) = source.column("enrichment_at") {
        sets.push(format!("{} = pg_catalog.now()", at.quoted));
    }
    format!(
        "WITH p AS MATERIALIZED (
            SELECT u.raw::{key_type} AS key, u.found::jsonb AS found,
                ARRAY(SELECT pg_catalog.jsonb_array_elements_text(u.gone::jsonb)) AS gone, u.meta::jsonb AS meta, u.flagged
            FROM unnest($1, $2, $3, $4, $5) AS u (raw, found, gone, meta, flagged))
        UPDATE {relation} t SET {sets} FROM p
        WHERE t.{key} = p.key AND CASE WHEN t.{key} = p.key THEN
            (SELECT o.old IS NULL OR pg_catalog.jsonb_typeof(o.old) IN ('object', 'null') FROM {old}) AND ({changed}) END",
        relation = source.relation,
        key = source.key.quoted,
        key_type = comparable(&source.key),
        sets = sets.join(", "),
        changed = changed.join(" OR "),
    )
}
