//! Statements on a service's row of `enrichment_lane`: its breaker, and everything that stands in the row at once.

use super::lanes::Pause;
use crate::core::breaker::{Breaker, State};
use crate::core::error::Error;
use crate::pg::convert::{to_micros, to_timestamp};
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

/// What holds a service's calls up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    pub pause: Pause,
    pub breaker: Breaker,
}

static STANDING: Statement = Statement {
    sql: "SELECT paused_until, cause, reason, failures, breaker, breaker_since, breaker_until, breaker_failures,
            breaker_openings, breaker_request, breaker_reason
        FROM @extschema@.enrichment_lane WHERE service = $1",
    args: &[TEXTOID],
};

/// How a service stands; well, when nothing was ever noted of it.
pub fn standing(service: &str) -> Result<Standing, Error> {
    let mut found = Standing::default();
    spi::run(&STANDING, &[Arg::of(service)], Mode::Read, |row| {
        found.pause = Pause {
            until: row.get(1).map(to_micros),
            cause: row.text(2),
            reason: row.text(3),
            failures: row.get(4).unwrap_or(0),
        };
        found.breaker = Breaker {
            state: row.text(5).and_then(|state| State::parse(&state)).unwrap_or_default(),
            since: row.get(6).map(to_micros),
            until: row.get(7).map(to_micros),
            failures: row.get::<i32>(8).unwrap_or(0).max(0) as u32,
            openings: row.get::<i32>(9).unwrap_or(0).max(0) as u32,
            last_failed: row.get(10),
            reason: row.text(11),
        };
    })?;
    Ok(found)
}

static SET: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_lane AS l (service, breaker, breaker_since, breaker_until,
            breaker_failures, breaker_openings, breaker_request, breaker_reason)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
        ON CONFLICT (service) DO UPDATE SET breaker = EXCLUDED.breaker, breaker_since = EXCLUDED.breaker_since,
            breaker_until = EXCLUDED.breaker_until, breaker_failures = EXCLUDED.breaker_failures,
            breaker_openings = EXCLUDED.breaker_openings, breaker_request = EXCLUDED.breaker_request,
            breaker_reason = EXCLUDED.breaker_reason",
    args: &[TEXTOID, TEXTOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT4OID, INT8OID, TEXTOID],
};

/// Keeps a breaker as it is now.
pub fn set(service: &str, breaker: &Breaker) -> Result<(), Error> {
    let number = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    let args = [
        Arg::of(service),
        Arg::of(breaker.state.as_str()),
        Arg::of(breaker.since.map(to_timestamp)),
        Arg::of(breaker.until.map(to_timestamp)),
        Arg::of(number(breaker.failures)),
        Arg::of(number(breaker.openings)),
        Arg::of(breaker.last_failed),
        Arg::of(breaker.reason.clone()),
    ];
    spi::run(&SET, &args, Mode::Write, |_| {})?;
    Ok(())
}

static TRY_NOW: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_lane SET breaker_until = pg_catalog.now(),
            paused_until = CASE WHEN cause = 'breaker' THEN pg_catalog.now() ELSE paused_until END
        WHERE service = $1 AND breaker = 'open' AND breaker_until > pg_catalog.now()",
    args: &[TEXTOID],
};

/// Ends the time that a breaker is open: the next call tries whether the provider is back.
pub fn try_now(service: &str) -> Result<(), Error> {
    spi::run(&TRY_NOW, &[Arg::of(service)], Mode::Write, |_| {})?;
    Ok(())
}
