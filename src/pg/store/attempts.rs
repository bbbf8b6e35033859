//! Statements on `enrichment_attempt_stats`: how often attempts ended how, by service, UTC day, outcome and cause.

use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;
use std::collections::BTreeMap;

/// Attempts of one service since they were last written down, by outcome and cause.
pub type Attempts = BTreeMap<(&'static str, &'static str), i64>;

static COUNT: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_attempt_stats AS s (service, day, outcome, cause, attempts)
        SELECT $1, (pg_catalog.now() AT TIME ZONE 'UTC')::date, u.outcome, u.cause, u.attempts
        FROM unnest($2::text[], $3::text[], $4::int8[]) AS u (outcome, cause, attempts)
        ON CONFLICT (service, day, outcome, cause) DO UPDATE SET attempts = s.attempts + EXCLUDED.attempts",
    args: &[TEXTOID, TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID],
};

/// Adds to the figures of the current UTC day.
pub fn count(service: &str, attempts: &Attempts) -> Result<(), Error> {
    if attempts.is_empty() {
        return Ok(());
    }
    let args = [
        Arg::of(service),
        Arg::of(attempts.keys().map(|(outcome, _)| *outcome).collect::<Vec<_>>()),
        Arg::of(attempts.keys().map(|(_, cause)| *cause).collect::<Vec<_>>()),
        Arg::of(attempts.values().copied().collect::<Vec<i64>>()),
    ];
    spi::run(&COUNT, &args, Mode::Write, |_| {})?;
    Ok(())
}

static FORGET: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_attempt_stats
        WHERE day < (pg_catalog.now() AT TIME ZONE 'UTC')::date OPERATOR(pg_catalog.-) 400",
    args: &[],
};

/// Drops the figures of days more than 400 days ago.
pub fn forget_old() -> Result<u64, Error> {
    spi::run(&FORGET, &[], Mode::Write, |_| {})
}
