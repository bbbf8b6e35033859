//! Writing what HIBP's ranges say of passwords: breached, how often, when it was checked.

use super::{comparable, Change, Part, Written};
use crate::core::error::Error;
use crate::pg::convert::to_micros;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::schema;
use crate::pg::store::sources::Source;
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};

// Only a range that was answered says anything: without one, breached stays what it was, NULL included. A range that
// holds nothing but padding is no answer either.
/// Fills the columns that exist, for the passwords of these prefixes.
pub fn write(source: &Source, raw_keys: &[String], part: Part) -> Result<Written, Error> {
    let schema = schema()?;
    // of rows whose places are known only these are hashed, else an index on the prefix serves, or the whole table is read
    let there = match part {
        Part::At(_) => "t.ctid = ANY ($2::pg_catalog.tid[]) AND t.tableoid = $3 AND ",
        Part::All | Part::Some(_) => "",
    };
    let sql = format!(
        "SELECT p.password,
            coalesce(CASE WHEN c.ranges IS NULL
                THEN {schema}.enrich_bigint(c.payload -> {schema}.enrich_hibp_suffix(p.password))
                ELSE {schema}.enrich_hibp_count(c.ranges, {schema}.enrich_hibp_suffix(p.password)) END, 0), c.fetched_at
        FROM (SELECT DISTINCT t.{key}::text AS password, {schema}.enrich_hibp_prefix(t.{key}::text) AS prefix FROM {relation} t
            WHERE {there}{schema}.enrich_hibp_prefix(t.{key}::text) COLLATE \"C\" = ANY ($1)) p
        JOIN {schema}.enrichment_cache c ON c.service = 'hibp' AND c.cache_key = p.prefix
        WHERE c.response_status = 'success'
          AND CASE WHEN c.ranges IS NULL THEN {schema}.enrich_sum(c.payload) > 0 ELSE {schema}.enrich_bigint(c.payload -> 'suffixes') > 0 END",
        key = source.key.quoted,
        relation = source.relation,
    );
    let (mut password, mut count, mut checked) = (vec![], vec![], vec![]);
    let mut args = vec![(TEXTARRAYOID, Arg::of(raw_keys.to_vec()))];
    part.add_args(&mut args);
    spi::run_once(&sql, None, &args, Mode::Write, |row| {
        password.push(row.text(1));
        count.push(row.get::<i64>(2));
        checked.push(row.get::<pgrx::datum::TimestampWithTimeZone>(3));
    })?;
    let mut digest = DefaultHasher::new();
    let answers: BTreeSet<_> = checked.iter().flatten().map(|at| to_micros(*at)).collect();
    answers.hash(&mut digest);
    let content = Some(digest.finish());
    let new_values = [
        ("breached", "v.ec_count > 0"),
        ("breach_prevalence", "least(v.ec_count, 2147483647)"),
        ("last_hibp_check", "v.ec_checked"),
    ];
    let values: Vec<(String, String)> = new_values
        .iter()
        .filter_map(|(name, value)| {
            source.column(name).map(|c| (c.quoted.clone(), format!("({value})::{}", c.sql_type)))
        })
        .collect();
    if password.is_empty() || values.is_empty() {
        return Ok(Written { rows: 0, content, all: true });
    }
    const PATCHES: &str = "unnest($1, $2, $3) AS v (ec_password, ec_count, ec_checked)";
    let key = format!("{} = v.ec_password::{}", source.key_sql(), comparable(&source.key).0);
    let changed: Vec<String> = values.iter().map(|(n, new)| format!("t.{n} IS DISTINCT FROM {new}")).collect();
    let change = Change {
        sets: values.iter().map(|(name, new)| format!("{name} = {new}")).collect::<Vec<_>>().join(", "),
        patches: PATCHES,
        key,
        wanted: format!("({})", changed.join(" OR ")),
    };
    let args = vec![
        (TEXTARRAYOID, Arg::of(password)),
        (INT8ARRAYOID, Arg::of(count)),
        (TIMESTAMPTZARRAYOID, Arg::of(checked)),
    ];
    let written = change.apply(source, part, None, args)?;
    Ok(Written { content, ..written })
}
