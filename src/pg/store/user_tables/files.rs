//! Writing VirusTotal's answers into the `vt_*` columns of a table of files.

use super::{comparable, sessions, Change, Part, Written};
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::indicators::Taken;
use crate::pg::store::schema;
use crate::pg::store::sources::Source;
use pgrx::pg_sys::BuiltinOid::*;

/// Column of the user's table, the SQL of its new value from the row `v` of the typed view (`least` ignores NULL), and its value
/// when nothing is known and it cannot be NULL.
const FILE_COLUMNS: [(&str, &str, &str); 8] = [
    ("vt_classification", "v.ec_label", "''"),
    ("vt_description", "v.ec_type_description", "''"),
    ("vt_malicious", "v.ec_malicious > 0", "false"),
    ("vt_positives", "CASE WHEN v.ec_malicious IS NOT NULL THEN least(v.ec_malicious, 2147483647) END", "0"),
    ("vt_total", "CASE WHEN v.ec_total IS NOT NULL THEN least(v.ec_total, 2147483647) END", "0"),
    ("vt_first_seen", "v.ec_first_seen", "'-infinity'"),
    ("vt_last_analysis", "v.ec_last_analysis", "'-infinity'"),
    ("vt_scan_date", "v.ec_last_analysis", "'-infinity'"),
];

/// Fills the columns that exist, for the rows of these hashes. Rows of moved ones lose what is another hash's.
pub fn write(source: &Source, taken: &Taken, part: Part) -> Result<Written, Error> {
    let schema = schema()?;
    let sql = format!(
        "SELECT k.raw, v.response_status, v.label, v.type_description, v.malicious::int8, v.total::int8,
            v.first_seen, v.last_analysis, k.raw = ANY ($3)
        FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS k (raw, cache_key)
        LEFT JOIN LATERAL (SELECT * FROM {schema}.enrichment_virustotal w
            WHERE w.cache_key = k.cache_key AND w.response_status IN ('success', 'not_found') LIMIT 1) v ON true
        WHERE v.response_status IS NOT NULL OR k.raw = ANY ($3)"
    );
    let keys = [Arg::of(taken.raw_keys.clone()), Arg::of(taken.cache_keys.clone()), Arg::of(taken.moved.clone())];
    let args = keys.map(|keys| (TEXTARRAYOID, keys));
    let mut had_another = vec![];
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
        had_another.push(row.get::<bool>(9));
    })?;
    let bad = raw.iter().zip(&malicious).filter(|(_, malicious)| malicious.is_some_and(|n| n > 0));
    let bad: Vec<String> = bad.filter_map(|(raw, _)| raw.clone()).collect();
    let (flagged, all) = sessions::flag(source, &bad, part)?;
    let Some(change) = files_update(source, false).filter(|_| !raw.is_empty()) else {
        return Ok(Written { rows: flagged, content: None, all });
    };
    let args = vec![
        (TEXTARRAYOID, Arg::of(raw)),
        (TEXTARRAYOID, Arg::of(status)),
        (TEXTARRAYOID, Arg::of(label)),
        (TEXTARRAYOID, Arg::of(description)),
        (INT8ARRAYOID, Arg::of(malicious)),
        (INT8ARRAYOID, Arg::of(total)),
        (TIMESTAMPTZARRAYOID, Arg::of(first_seen)),
        (TIMESTAMPTZARRAYOID, Arg::of(last_analysis)),
        (BOOLARRAYOID, Arg::of(had_another)),
    ];
    let written = change.apply(source, part, None, args)?;
    Ok(Written { all: all && written.all, ..written })
}

/// Takes what is a hash's out of rows that have none, at most so many.
pub fn write_keyless(source: &Source, most: i64) -> Result<Written, Error> {
    let Some(change) = files_update(source, true) else { return Ok(Written { all: true, ..Written::default() }) };
    let text = || Arg::of(vec![None::<String>]);
    let (number, moment) =
        (|| Arg::of(vec![None::<i64>]), || Arg::of(vec![None::<pgrx::datum::TimestampWithTimeZone>]));
    let texts = [(); 4].map(|()| (TEXTARRAYOID, text()));
    let numbers = [(); 2].map(|()| (INT8ARRAYOID, number()));
    let moments = [(); 2].map(|()| (TIMESTAMPTZARRAYOID, moment()));
    let args: Vec<_> =
        texts.into_iter().chain(numbers).chain(moments).chain([(BOOLARRAYOID, Arg::of(vec![true]))]).collect();
    change.apply(source, Part::Some(most), None, args)
}

const PATCHES: &str =
    "unnest($1, $2, $3, $4, $5, $6, $7, $8, $9) AS v (ec_raw, ec_status, ec_label, ec_type_description,
    ec_malicious, ec_total, ec_first_seen, ec_last_analysis, ec_moved)";

// A value the provider does not give never clears one that stands there, unless it may be another file's.
fn files_update(source: &Source, keyless: bool) -> Option<Change> {
    let mut values: Vec<(String, String)> = FILE_COLUMNS
        .iter()
        .filter_map(|(name, value, nothing)| {
            let column = source.column(name)?;
            let nothing = if column.not_null { nothing } else { "NULL" };
            let new = format!(
                "coalesce(({value})::{of_type}, CASE WHEN v.ec_moved THEN {nothing}::{of_type} ELSE t.{} END)",
                column.quoted,
                of_type = column.sql_type
            );
            Some((column.quoted.clone(), new))
        })
        .collect();
    if let Some(column) = source.column("enrichment_status") {
        let new = format!(
            "(CASE v.ec_status WHEN 'success' THEN 'enriched' WHEN 'not_found' THEN 'not_found' ELSE 'pending' END)::{}",
            column.sql_type
        );
        values.push((column.quoted.clone(), new));
    }
    let sets: Vec<String> = values.iter().map(|(name, new)| format!("{name} = {new}")).collect();
    let changed: Vec<String> = values.iter().map(|(name, new)| format!("t.{name} IS DISTINCT FROM {new}")).collect();
    let found = match keyless {
        true => super::keyless(source),
        false => format!("{} = v.ec_raw::{}", source.key_sql(), comparable(&source.key).0),
    };
    let key = format!("{found}{}", source.and_eligible());
    let changed = format!("({})", changed.join(" OR "));
    (!sets.is_empty()).then(|| Change { sets: sets.join(", "), patches: PATCHES, key, wanted: changed })
}
