//! Writing VirusTotal's answers into the `vt_*` columns of a table of files.

use super::{comparable, in_part, sessions, Part};
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::schema;
use crate::pg::store::sources::Source;
use pgrx::pg_sys::BuiltinOid::*;

/// Column of the user's table, and the SQL of its new value from the row `v` of the typed view (`least` ignores NULL).
const FILE_COLUMNS: [(&str, &str); 8] = [
    ("vt_classification", "v.ec_label"),
    ("vt_description", "v.ec_type_description"),
    ("vt_malicious", "v.ec_malicious > 0"),
    ("vt_positives", "CASE WHEN v.ec_malicious IS NOT NULL THEN least(v.ec_malicious, 2147483647) END"),
    ("vt_total", "CASE WHEN v.ec_total IS NOT NULL THEN least(v.ec_total, 2147483647) END"),
    ("vt_first_seen", "v.ec_first_seen"),
    ("vt_last_analysis", "v.ec_last_analysis"),
    ("vt_scan_date", "v.ec_last_analysis"),
];

/// Fills the columns that exist, for the rows of these hashes.
pub fn write(source: &Source, raw_keys: &[String], part: Part) -> Result<u64, Error> {
    let schema = schema()?;
    let sql = format!(
        "SELECT k.raw, v.response_status, v.label, v.type_description, v.malicious::int8, v.total::int8,
            v.first_seen, v.last_analysis
        FROM pg_catalog.unnest($2) AS k (raw)
        CROSS JOIN LATERAL (SELECT i.cache_key FROM {schema}.enrichment_indicator i
            WHERE i.source = $1 AND i.raw_key = k.raw LIMIT 1) i
        CROSS JOIN LATERAL (SELECT * FROM {schema}.enrichment_virustotal w WHERE w.cache_key = i.cache_key LIMIT 1) v
        WHERE v.response_status IN ('success', 'not_found')"
    );
    let args = [(TEXTOID, Arg::of(source.name.as_str())), (TEXTARRAYOID, Arg::of(raw_keys.to_vec()))];
    let (mut raw, mut status, mut label, mut description) = (vec![], vec![], vec![], vec![]);
    let (mut malicious, mut total, mut first_seen, mut last_analysis) = (vec![], vec![], vec![], vec![]);
    spi::run_once(&sql, None, &args, Mode::Write, |row| {
        raw.push(row.text(1));
        status.push(row.text(2));
        label.push(row.text(3));
        description.push(row.text(4));
        malicious.push(row.get::<i64>(5));
        total.push(row.get::<i64>(6));
        first_seen.push(row.get::<pgrx::datum::TimestampWithTimeZone>(7));
        last_analysis.push(row.get::<pgrx::datum::TimestampWithTimeZone>(8));
    })?;
    let bad = raw.iter().zip(&malicious).filter(|(_, malicious)| malicious.is_some_and(|n| n > 0));
    let bad: Vec<String> = bad.filter_map(|(raw, _)| raw.clone()).collect();
    let flagged = sessions::flag(source, &bad)?;
    let Some(update) = files_update(source, part).filter(|_| !raw.is_empty()) else { return Ok(flagged) };
    let mut args = vec![
        (TEXTARRAYOID, Arg::of(raw)),
        (TEXTARRAYOID, Arg::of(status)),
        (TEXTARRAYOID, Arg::of(label)),
        (TEXTARRAYOID, Arg::of(description)),
        (INT8ARRAYOID, Arg::of(malicious)),
        (INT8ARRAYOID, Arg::of(total)),
        (TIMESTAMPTZARRAYOID, Arg::of(first_seen)),
        (TIMESTAMPTZARRAYOID, Arg::of(last_analysis)),
    ];
    part.add_args(&mut args);
    Ok(flagged + super::update(source, &update, None, &args)?)
}

const PATCHES: &str = "unnest($1, $2, $3, $4, $5, $6, $7, $8) AS v (ec_raw, ec_status, ec_label, ec_type_description,
    ec_malicious, ec_total, ec_first_seen, ec_last_analysis)";

// A value the provider does not give never clears one that stands there.
fn files_update(source: &Source, part: Part) -> Option<String> {
    let mut values: Vec<(String, String)> = FILE_COLUMNS
        .iter()
        .filter_map(|(name, value)| {
            let column = source.column(name)?;
            let new = format!("coalesce(({value})::{}, t.{})", column.sql_type, column.quoted);
            Some((column.quoted.clone(), new))
        })
        .collect();
    if let Some(column) = source.column("enrichment_status") {
        let new =
            format!("(CASE v.ec_status WHEN 'success' THEN 'enriched' ELSE 'not_found' END)::{}", column.sql_type);
        values.push((column.quoted.clone(), new));
    }
    let sets: Vec<String> = values.iter().map(|(name, new)| format!("{name} = {new}")).collect();
    let changed: Vec<String> = values.iter().map(|(name, new)| format!("t.{name} IS DISTINCT FROM {new}")).collect();
    let key = format!(
        "{key} = v.ec_raw::{key_type}{and_eligible}",
        key = source.key_sql(),
        key_type = comparable(&source.key).0,
        and_eligible = source.and_eligible(),
    );
    let changed = format!("({})", changed.join(" OR "));
    (!sets.is_empty()).then(|| {
        format!(
            "UPDATE {relation} t SET {sets}
            FROM {patches} WHERE {condition}",
            relation = source.relation,
            sets = sets.join(", "),
            condition = in_part(source, PATCHES, &key, &changed, part, 9),
            patches = PATCHES,
        )
    })
}
