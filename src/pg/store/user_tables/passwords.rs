//! Writing what HIBP's ranges say of passwords: breached, how often, when it was checked.

use super::{as_owner, comparable};
use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode};
use crate::pg::store::schema;
use crate::pg::store::sources::Source;
use pgrx::pg_sys::BuiltinOid::*;

// Only a range that was answered says anything: without one, breached stays what it was, NULL included. A range that
// holds nothing but padding is no answer either. The table is read once for a whole batch, so batches are large
// (`Source::batch`); an index on the prefix serves where there is one.
/// Fills the columns that exist, for the passwords of these prefixes.
pub fn write(source: &Source, raw_keys: &[String]) -> Result<u64, Error> {
    let schema = schema()?;
    let sql = format!(
        "SELECT p.password,
            coalesce(CASE WHEN c.ranges IS NULL
                THEN {schema}.enrich_bigint(c.payload -> {schema}.enrich_hibp_suffix(p.password))
                ELSE {schema}.enrich_hibp_count(c.ranges, {schema}.enrich_hibp_suffix(p.password)) END, 0), c.fetched_at
        FROM (SELECT DISTINCT t.{key}::text AS password, {schema}.enrich_hibp_prefix(t.{key}::text) AS prefix FROM {relation} t
            WHERE {schema}.enrich_hibp_prefix(t.{key}::text) COLLATE \"C\" = ANY ($1)) p
        JOIN {schema}.enrichment_cache c ON c.service = 'hibp' AND c.cache_key = p.prefix
        WHERE c.response_status = 'success'
          AND CASE WHEN c.ranges IS NULL THEN {schema}.enrich_sum(c.payload) > 0 ELSE {schema}.enrich_bigint(c.payload -> 'suffixes') > 0 END",
        key = source.key.quoted,
        relation = source.relation,
    );
    let (mut password, mut count, mut checked) = (vec![], vec![], vec![]);
    spi::run_once(&sql, None, &[(TEXTARRAYOID, Arg::of(raw_keys.to_vec()))], Mode::Write, |row| {
        password.push(row.text(1));
        count.push(row.get::<i64>(2));
        checked.push(row.get::<pgrx::datum::TimestampWithTimeZone>(3));
    })?;
    let new_values = [
        ("breached", "v.count > 0"),
        ("breach_prevalence", "least(v.count, 2147483647)"),
        ("last_hibp_check", "v.checked"),
    ];
    let values: Vec<(String, String)> = new_values
        .iter()
        .filter_map(|(name, value)| {
            source.column(name).map(|c| (c.quoted.clone(), format!("({value})::{}", c.sql_type)))
        })
        .collect();
    if password.is_empty() || values.is_empty() {
        return Ok(0);
    }
    let update = format!(
        "UPDATE {relation} t SET {sets} FROM unnest($1, $2, $3) AS v (password, count, checked)
        WHERE t.{key} = v.password::{key_type} AND ({changed})",
        relation = source.relation,
        sets = values.iter().map(|(name, new)| format!("{name} = {new}")).collect::<Vec<_>>().join(", "),
        changed =
            values.iter().map(|(n, new)| format!("t.{n} IS DISTINCT FROM {new}")).collect::<Vec<_>>().join(" OR "),
        key = source.key.quoted,
        key_type = comparable(&source.key).0,
    );
    as_owner(source.owner, || {
        let args = [
            (TEXTARRAYOID, Arg::of(password)),
            (INT8ARRAYOID, Arg::of(count)),
            (TIMESTAMPTZARRAYOID, Arg::of(checked)),
        ];
        spi::run_once(&update, None, &args, Mode::Write, |_| {})
    })
}
