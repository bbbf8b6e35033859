//! Statements on what a worker must remember of a provider: spend (`enrichment_quota`), pauses (`enrichment_lane`),
//! the day's figures (`enrichment_cache_stats`).

use crate::core::error::Error;
use crate::core::limiter::{Per, Spend};
use crate::core::Micros;
use crate::pg::convert::{to_micros, to_timestamp};
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

static SPEND: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_quota AS q (service, budget, per, window_start, spent, spent_by_all)
            VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (service, budget, per, window_start) DO UPDATE SET spent = q.spent + EXCLUDED.spent,
            spent_by_all = greatest(q.spent_by_all, EXCLUDED.spent_by_all)",
    args: &[TEXTOID, UUIDOID, TEXTOID, TIMESTAMPTZOID, INT8OID, INT8OID],
};

/// Records calls that are about to be made from a budget.
pub fn spend(service: &str, budget: &[u8; 16], spends: &[Spend]) -> Result<(), Error> {
    for spend in spends {
        let args = [
            Arg::of(service),
            Arg::of(pgrx::Uuid::from_bytes(*budget)),
            Arg::of(spend.per.as_str()),
            Arg::of(to_timestamp(spend.window_start)),
            Arg::of(spend.spent),
            Arg::of(spend.by_all),
        ];
        spi::run(&SPEND, &args, Mode::Write, |_| {})?;
    }
    Ok(())
}

static LEDGER: Statement = Statement {
    sql: "SELECT per, window_start, spent, spent_by_all FROM @extschema@.enrichment_quota
        WHERE service = $1 AND budget = $2 AND window_start > pg_catalog.now() - interval '32 days'",
    args: &[TEXTOID, UUIDOID],
};

/// What a service has spent from a budget in the windows that may still count.
pub fn ledger(service: &str, budget: &[u8; 16]) -> Result<Vec<Spend>, Error> {
    let mut spends = Vec::new();
    spi::run(&LEDGER, &[Arg::of(service), Arg::of(pgrx::Uuid::from_bytes(*budget))], Mode::Read, |row| {
        let per = row.text(1).and_then(|per| Per::parse(&per));
        if let (Some(per), Some(start), Some(spent), Some(by_all)) = (per, row.get(2), row.get(3), row.get(4)) {
            spends.push(Spend { per, window_start: to_micros(start), spent, by_all });
        }
    })?;
    Ok(spends)
}

static FORGET_SPENDS: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_quota q
        WHERE q.window_start < pg_catalog.now() - CASE q.per
            WHEN 'second' THEN interval '10 minutes' WHEN 'minute' THEN interval '1 hour'
            WHEN 'hour' THEN interval '2 days' WHEN 'day' THEN interval '62 days' ELSE interval '400 days' END",
    args: &[],
};

/// Drops spends of windows that are long over.
pub fn forget_old_spends() -> Result<u64, Error> {
    spi::run(&FORGET_SPENDS, &[], Mode::Write, |_| {})
}

/// Why a provider is not asked at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    pub until: Option<Micros>,
    pub cause: Option<String>,
    pub reason: Option<String>,
    pub failures: i32,
}

static PAUSE: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_lane AS l (service, paused_until, cause, reason, failures)
        VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (service) DO UPDATE SET paused_until = EXCLUDED.paused_until, cause = EXCLUDED.cause,
            reason = EXCLUDED.reason, failures = EXCLUDED.failures, changed_at = pg_catalog.now()
        WHERE (l.paused_until, l.cause, l.reason, l.failures) IS DISTINCT FROM
            (EXCLUDED.paused_until, EXCLUDED.cause, EXCLUDED.reason, EXCLUDED.failures)",
    args: &[TEXTOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, INT4OID],
};

pub fn set_pause(service: &str, pause: &Pause) -> Result<(), Error> {
    let args = [
        Arg::of(service),
        Arg::of(pause.until.map(to_timestamp)),
        Arg::of(pause.cause.clone()),
        Arg::of(pause.reason.clone()),
        Arg::of(pause.failures),
    ];
    spi::run(&PAUSE, &args, Mode::Write, |_| {})?;
    Ok(())
}

/// Calls of one service since they were last written down.
#[derive(Clone, Copy, Debug, Default)]
pub struct Calls {
    pub calls: i64,
    pub failures: i64,
    pub stores: i64,
    pub latency_sum_ms: i64,
    pub latency_max_ms: i64,
}

static COUNT: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_cache_stats AS s
            (service, day, api_calls, api_failures, cache_stores, avg_api_latency_ms, max_api_latency_ms)
        VALUES ($1, (pg_catalog.now() AT TIME ZONE 'UTC')::date, $2, $3, $4, $5::float8 / nullif($2, 0), $6)
        ON CONFLICT (service, day) DO UPDATE SET
            avg_api_latency_ms = (coalesce(s.avg_api_latency_ms, 0) * s.api_calls + $5)
                / nullif(s.api_calls + EXCLUDED.api_calls, 0),
            api_calls = s.api_calls + EXCLUDED.api_calls,
            api_failures = s.api_failures + EXCLUDED.api_failures,
            cache_stores = s.cache_stores + EXCLUDED.cache_stores,
            max_api_latency_ms = greatest(s.max_api_latency_ms, EXCLUDED.max_api_latency_ms)",
    args: &[TEXTOID, INT8OID, INT8OID, INT8OID, INT8OID, INT4OID],
};

/// Adds to the figures of the current UTC day.
pub fn count(service: &str, calls: &Calls) -> Result<(), Error> {
    let args = [
        Arg::of(service),
        Arg::of(calls.calls),
        Arg::of(calls.failures),
        Arg::of(calls.stores),
        Arg::of(calls.latency_sum_ms),
        Arg::of(i32::try_from(calls.latency_max_ms).unwrap_or(i32::MAX)),
    ];
    spi::run(&COUNT, &args, Mode::Write, |_| {})?;
    Ok(())
}

static COUNT_ENTRIES: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_cache_stats AS s (service, day, total_entries, expired_entries)
        SELECT c.service, (pg_catalog.now() AT TIME ZONE 'UTC')::date, pg_catalog.count(*),
            pg_catalog.count(*) FILTER (WHERE c.expires_at <= pg_catalog.now())
        FROM @extschema@.enrichment_cache c GROUP BY c.service
        ON CONFLICT (service, day) DO UPDATE SET
            total_entries = EXCLUDED.total_entries, expired_entries = EXCLUDED.expired_entries",
    args: &[],
};

/// Writes how many entries each service has now, and how many of them are past expiry.
pub fn count_entries() -> Result<u64, Error> {
    spi::run(&COUNT_ENTRIES, &[], Mode::Write, |_| {})
}

static END_USED_UP: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_lane SET paused_until = pg_catalog.now(), changed_at = pg_catalog.now()
        WHERE service = $1 AND cause = 'used_up' AND paused_until > pg_catalog.now() AND changed_at <= $2",
    args: &[TEXTOID, TIMESTAMPTZOID],
};

static DUE_AGAIN: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue SET next_attempt_at = pg_catalog.now()
        WHERE service = $1 AND state = 'waiting' AND last_outcome = 'rate_limited' AND next_attempt_at > pg_catalog.now()",
    args: &[TEXTOID],
};

/// Ends a pause for a used-up balance that was there already at `asked`: what the provider was asked before that knows
/// nothing of it. Its cause stays known, so that one call finds out whether more is to be had.
pub fn end_used_up(service: &str, asked: Micros) -> Result<(), Error> {
    let args = [Arg::of(service), Arg::of(to_timestamp(asked))];
    if spi::run(&END_USED_UP, &args, Mode::Write, |_| {})? > 0 {
        spi::run(&DUE_AGAIN, &[Arg::of(service)], Mode::Write, |_| {})?;
    }
    Ok(())
}

static FORGET_WANT_OF_SECRET: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_lane SET
            paused_until = CASE cause WHEN 'unauthorized' THEN pg_catalog.now() END,
            cause = CASE cause WHEN 'unauthorized' THEN cause END,
            reason = CASE cause WHEN 'unauthorized' THEN reason END, changed_at = pg_catalog.now()
        WHERE service = $1 AND cause IN ('unauthorized', 'no_credential')",
    args: &[TEXTOID],
};

/// Ends a pause that lasts until a secret is given. Of one that was refused it stays known, so that one call finds out
/// whether the other is accepted.
pub fn forget_want_of_secret(service: &str) -> Result<(), Error> {
    spi::run(&FORGET_WANT_OF_SECRET, &[Arg::of(service)], Mode::Write, |_| {})?;
    Ok(())
}
