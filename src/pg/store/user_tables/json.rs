//! Writing answers into a json or jsonb column: a member per service, and `_meta` that says when and how.

use super::{in_part, patches, Part, Written};
use crate::core::error::Error;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;

/// Merges what the cache knows of these keys into their rows.
pub fn write(source: &Source, raw_keys: &[String], part: Part) -> Result<Written, Error> {
    let Some(into) = &source.into else { return Ok(Written::default()) };
    let (patches, content) = patches::of(source, into, raw_keys)?;
    let content = Some(content);
    if patches.is_empty() {
        return Ok(Written { rows: 0, content });
    }
    let mut args = Vec::new();
    part.add_args(&mut args);
    let rows = super::update(source, &json_update(source, into, part), Some(&patches), &args)?;
    Ok(Written { rows, content })
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
        "UPDATE {relation} t SET {sets} FROM {patches} WHERE {condition}",
        patches = patches::FROM,
        condition = in_part(source, patches::FROM, &key, &wanted, part, 1),
        relation = source.relation,
        sets = sets.join(", "),
    )
}
