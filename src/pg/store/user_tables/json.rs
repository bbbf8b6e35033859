//! Writing answers into a json or jsonb column: a member per service, and `_meta` that says when and how.

use super::{comparable, in_part, Part};
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::schema;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;
use pgrx::pg_sys::BuiltinOid::*;

/// Merges what the cache knows of these keys into their rows.
pub fn write(source: &Source, raw_keys: &[String], part: Part) -> Result<u64, Error> {
    let Some(into) = &source.into else { return Ok(0) };
    let mut patches: Option<Vec<Option<pg_sys::Datum>>> = None;
    let columns = FIXED + source.flags.len();
    let args = [
        (TEXTOID, Arg::of(source.name.as_str())),
        (TEXTARRAYOID, Arg::of(raw_keys.to_vec())),
        (TEXTARRAYOID, Arg::of(source.services.clone())),
        (TEXTARRAYOID, Arg::of(source.flags.iter().map(|(_, service)| service.clone()).collect::<Vec<_>>())),
    ];
    spi::run_often(&patches_sql(source, &schema()?), &args, Mode::Write, |row| {
        patches = row.datum(1).map(|_| (1..=columns as i32).map(|n| row.datum(n)).collect());
    })?;
    let Some(patches) = patches else { return Ok(0) };
    let types = [TEXTARRAYOID, TEXTARRAYOID, JSONBARRAYOID, JSONBARRAYOID, JSONBARRAYOID];
    let types = types.into_iter().chain(std::iter::repeat(BOOLARRAYOID));
    let mut args: Vec<_> = types.zip(patches.into_iter().map(Arg::raw)).collect();
    part.add_args(&mut args);
    super::update(source, &json_update(source, into, part), &args)
}

/// Columns of the patches before those of the flags: keys in the rows and in the cache, members, members that are to go,
/// members of `_meta`.
const FIXED: usize = 5;

// One row of arrays, which go to the UPDATE as they are. Each step is one probe of a unique index (LIMIT keeps the
// planner from joining in another order): in the first minute of a table's life there are no statistics, and a batch took
// a second instead of milliseconds.
fn patches_sql(source: &Source, schema: &str) -> String {
    let member = match source.shape {
        Shape::Cowrieprocessor => format!("{schema}.enrich_cowrieprocessor(e.service, e.payload)"),
        _ => format!("coalesce({schema}.enrich_hibp_range(e.ranges), e.payload)"),
    };
    let flag = |n: usize| {
        format!(
            "pg_catalog.bool_or({schema}.enrich_flagged(c.service, c.payload))
                FILTER (WHERE c.service = ($4::text[])[{n}]) AS flag_{n}"
        )
    };
    let flags: String = (1..=source.flags.len()).map(|n| format!(", {}", flag(n))).collect();
    let arrays: String = (1..=source.flags.len()).map(|n| format!(", pg_catalog.array_agg(k.flag_{n})")).collect();
    format!(
        "SELECT pg_catalog.array_agg(k.raw), pg_catalog.array_agg(k.cache_key), pg_catalog.array_agg(k.found),
            pg_catalog.array_agg(k.gone), pg_catalog.array_agg(k.meta){arrays}
        FROM (SELECT k.raw, pg_catalog.max(i.cache_key) AS cache_key,
                coalesce(pg_catalog.jsonb_object_agg(c.service, c.member) FILTER (WHERE c.member IS NOT NULL), '{{}}') AS found,
                coalesce(pg_catalog.jsonb_agg(c.service) FILTER (WHERE c.member IS NULL), '[]') AS gone,
                pg_catalog.jsonb_object_agg(c.service, pg_catalog.jsonb_build_object('status', c.response_status,
                    'fetched_at', pg_catalog.to_char(c.fetched_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"'),
                    'expires_at', pg_catalog.to_char(c.expires_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')))
                    AS meta{flags}
            FROM pg_catalog.unnest($2) AS k (raw)
            CROSS JOIN LATERAL (SELECT i.cache_key FROM {schema}.enrichment_indicator i
                WHERE i.source = $1 AND i.raw_key = k.raw LIMIT 1) i
            CROSS JOIN pg_catalog.unnest($3) AS s (service)
            CROSS JOIN LATERAL (SELECT e.service, e.response_status, e.fetched_at, e.expires_at, e.payload,
                    {member} AS member
                FROM {schema}.enrichment_cache e WHERE e.service = s.service AND e.cache_key = i.cache_key LIMIT 1) c
            WHERE c.response_status IN ('success', 'not_found')
            GROUP BY k.raw) k
        HAVING pg_catalog.count(*) > 0"
    )
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
// belongs to somebody else and stays as it is. All of it is computed from the row that is updated, so that a row changed
// meanwhile by somebody else is merged anew and loses nothing. The CASE keeps the planner from reading the JSON of rows
// of other keys: it would be slow, and one bad row of the table would stop every key. A row without a value, the usual
// case, takes what was made once for all rows of its key.
fn json_update(source: &Source, into: &Column, part: Part) -> String {
    let column = format!("t.{}", into.quoted);
    let old = format!("(SELECT {} AS old OFFSET 0) o", as_jsonb(into));
    let object = |value: &str| format!("pg_catalog.jsonb_typeof({value}) = 'object'");
    let mut base = "(coalesce(nullif(o.old, 'null'), '{}') - p.ec_gone) || p.ec_found".to_string();
    if source.shape == Shape::Cowrieprocessor {
        // the loader's shape, where a row has it: session, address, services
        let nested = "(o.old -> 'session' -> p.ec_cache_key)";
        base = format!(
            "{base} || CASE WHEN {is_nested} THEN pg_catalog.jsonb_build_object('session', (o.old -> 'session')
                || pg_catalog.jsonb_build_object(p.ec_cache_key, ({nested} - p.ec_gone) || p.ec_found)) ELSE '{{}}' END",
            is_nested = object(nested),
        );
    }
    let merged = format!(
        "{base} || pg_catalog.jsonb_build_object('_meta',
            CASE WHEN {is_object} THEN o.old -> '_meta' ELSE '{{}}' END || p.ec_meta)",
        is_object = object("o.old -> '_meta'"),
    );
    let mut sets = vec![format!(
        "{} = CASE WHEN {column} IS NULL THEN p.ec_whole ELSE (SELECT ({merged})::{} FROM {old}) END",
        into.quoted, into.sql_type
    )];
    let mut changed = vec![format!("(SELECT ({merged}) IS DISTINCT FROM o.old FROM {old})")];
    for (n, (flag, _)) in source.flags.iter().enumerate() {
        let new = format!("coalesce(p.ec_flag_{n}, t.{})", flag.quoted);
        sets.push(format!("{} = {new}", flag.quoted));
        changed.push(format!("t.{} IS DISTINCT FROM {new}", flag.quoted));
    }
    if let Some(at) = source.column("enrichment_at").filter(|at| at.quoted != into.quoted) {
        sets.push(format!("{} = pg_catalog.now()", at.quoted));
    }
    let flags: Vec<String> = (0..source.flags.len()).map(|n| format!(", u.flag_{n} AS ec_flag_{n}")).collect();
    let names: Vec<String> = (0..source.flags.len()).map(|n| format!(", flag_{n}")).collect();
    let arrays: Vec<String> = (1..=FIXED + source.flags.len()).map(|n| format!("pg_catalog.unnest(${n})")).collect();
    let key = format!("{} = p.ec_key{}", source.key_sql(), source.and_eligible());
    let wanted = format!(
        "CASE WHEN {key} THEN
            CASE WHEN {column} IS NULL THEN true
                ELSE (SELECT o.old IS NULL OR pg_catalog.jsonb_typeof(o.old) IN ('object', 'null') FROM {old}) AND ({changed}) END END",
        key = format_args!("{} = p.ec_key", source.key_sql()),
        changed = changed.join(" OR "),
    );
    // an expression of the user names his columns without a table: those of p have names of their own
    format!(
        "WITH p AS MATERIALIZED (
            SELECT u.raw::{key_type} AS ec_key, u.cache_key AS ec_cache_key, u.found AS ec_found,
                ARRAY(SELECT pg_catalog.jsonb_array_elements_text(u.gone)) AS ec_gone, u.meta AS ec_meta,
                (u.found || pg_catalog.jsonb_build_object('_meta', u.meta))::{into_type} AS ec_whole{flags}
            FROM ROWS FROM ({arrays}) AS u (raw, cache_key, found, gone, meta{names}))
        UPDATE {relation} t SET {sets} FROM p
        WHERE {condition}",
        condition = in_part(source, "p", &key, &wanted, part, FIXED + source.flags.len() + 1),
        key_type = comparable(&source.key),
        into_type = into.sql_type,
        flags = flags.concat(),
        names = names.concat(),
        arrays = arrays.join(", "),
        relation = source.relation,
        sets = sets.join(", "),
    )
}
