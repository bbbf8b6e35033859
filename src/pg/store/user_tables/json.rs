//! Writing answers into a json or jsonb column: a member per service, and `_meta` that says when and how.

use super::{keyless, patches, Change, Part, Written};
use crate::core::error::Error;
use crate::pg::store::indicators::Taken;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::pg_sys;

/// Merges what the cache knows of these keys into their rows. Rows of moved ones lose what is another key's.
pub fn write(source: &Source, taken: &Taken, part: Part) -> Result<Written, Error> {
    let Some(into) = &source.into else { return Ok(Written::default()) };
    // whole keys are never gone on with
    let digested = !matches!(part, Part::All);
    let (patches, content) = patches::of(source, into, taken, digested)?;
    if patches.is_empty() {
        return Ok(Written { rows: 0, content, all: true });
    }
    let which = if taken.moved.is_empty() { Which::Filled } else { Which::Moved };
    let written = json_update(source, into, which).apply(source, part, Some(&patches), Vec::new())?;
    Ok(Written { content, ..written })
}

/// Takes what is a key's out of rows that have none, at most so many.
pub fn write_keyless(source: &Source, most: i64) -> Result<Written, Error> {
    let Some(into) = &source.into else { return Ok(Written { all: true, ..Written::default() }) };
    let patches = patches::keyless(source, into)?;
    json_update(source, into, Which::Keyless).apply(source, Part::Some(most), Some(&patches), Vec::new())
}

/// Which rows a statement writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those of keys with answers.
    Filled,
    /// Those of keys some of whose rows had another key before.
    Moved,
    /// Those without a key.
    Keyless,
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
//
// A row that had another key before shows it by its `_meta`: a service's time differs from that of the answer to its present key,
// or stands there without one. It loses all members of ours first, and its flags become false. A row that has no `_meta` is not touched
// so: what stands there is somebody else's.
fn json_update(source: &Source, into: &Column, which: Which) -> Change {
    let column = format!("t.{}", into.quoted);
    let old = format!("(SELECT {} AS old OFFSET 0) o", as_jsonb(into));
    let object = |value: &str| format!("pg_catalog.jsonb_typeof({value}) = 'object'");
    let anothers = "(p.ec_all IS NOT NULL AND EXISTS (SELECT FROM pg_catalog.unnest(p.ec_all) s (service)
        WHERE o.old #> ARRAY['_meta', s.service] <> coalesce(p.ec_meta -> s.service, 'null')))";
    let (gone, former) = match which {
        Which::Filled => ("p.ec_gone".to_string(), "o.old -> '_meta'".to_string()),
        _ => (
            format!("CASE WHEN {anothers} THEN p.ec_all ELSE p.ec_gone END"),
            format!("(o.old -> '_meta') - CASE WHEN {anothers} THEN p.ec_all ELSE '{{}}'::text[] END"),
        ),
    };
    let mut base = format!("(coalesce(nullif(o.old, 'null'), '{{}}') - {gone}) || p.ec_found");
    if source.shape == Shape::Cowrieprocessor {
        // the loader's shape, where a row has it: session, address, services
        let nested = "(o.old -> 'session' -> p.ec_cache_key)";
        base = format!(
            "{base} || CASE WHEN {is_nested} THEN pg_catalog.jsonb_build_object('session', (o.old -> 'session')
                || pg_catalog.jsonb_build_object(p.ec_cache_key, ({nested} - p.ec_gone) || p.ec_found)) ELSE '{{}}' END",
            is_nested = object(nested),
        );
    }
    let meta = format!(
        "CASE WHEN {is_object} THEN {former} ELSE '{{}}' END || p.ec_meta",
        is_object = object("o.old -> '_meta'")
    );
    let merged = match which {
        Which::Filled => format!("{base} || pg_catalog.jsonb_build_object('_meta', {meta})"),
        _ => format!(
            "(SELECT CASE WHEN m.meta = '{{}}' THEN m.base - '_meta'
                ELSE m.base || pg_catalog.jsonb_build_object('_meta', m.meta) END
                FROM (SELECT {base} AS base, {meta} AS meta OFFSET 0) m)"
        ),
    };
    let mut sets = vec![format!(
        "{} = CASE WHEN {column} IS NULL THEN p.ec_whole ELSE (SELECT ({merged})::{} FROM {old}) END",
        into.quoted, into.sql_type
    )];
    let mut changed = vec![format!("(SELECT ({merged}) IS DISTINCT FROM o.old FROM {old})")];
    for (n, (flag, _)) in source.flags.iter().enumerate() {
        let kept = match which {
            Which::Filled => format!("t.{}", flag.quoted),
            _ => format!("CASE WHEN (SELECT {anothers} FROM {old}) THEN false ELSE t.{} END", flag.quoted),
        };
        let new = format!("coalesce(p.ec_flag_{n}, {kept})");
        sets.push(format!("{} = {new}", flag.quoted));
        changed.push(format!("t.{} IS DISTINCT FROM {new}", flag.quoted));
    }
    if let Some(at) = source.column("enrichment_at").filter(|at| at.quoted != into.quoted) {
        let now = match which {
            Which::Filled => "pg_catalog.now()",
            _ => "CASE WHEN p.ec_meta <> '{}' THEN pg_catalog.now() END",
        };
        sets.push(format!("{} = {now}", at.quoted));
    }
    let found = match which {
        Which::Keyless => keyless(source),
        _ => format!("{} = p.ec_key", source.key_sql()),
    };
    let is_new = match which {
        Which::Filled => "true",
        _ => "p.ec_meta <> '{}'",
    };
    let wanted = format!(
        "CASE WHEN {found} THEN
            CASE WHEN {column} IS NULL THEN {is_new}
                ELSE (SELECT o.old IS NULL OR pg_catalog.jsonb_typeof(o.old) IN ('object', 'null') FROM {old}) AND ({changed}) END END",
        changed = changed.join(" OR "),
    );
    let key = format!("{found}{}", source.and_eligible());
    // an expression of the user names his columns without a table: those of p have names of their own
    Change { sets: sets.join(", "), patches: patches::FROM, key, wanted }
}
