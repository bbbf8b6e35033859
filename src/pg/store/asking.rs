//! Statements that put the keys of attached tables into the queue, the most valuable first.

use crate::core::error::Error;
use crate::pg::backlog;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

static ASK: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_queue AS q (service, cache_key, priority)
        SELECT $1, u.key, u.priority
        FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS u (key, priority)
        WHERE NOT EXISTS (
            SELECT FROM @extschema@.enrichment_cache c
            WHERE c.service = $1 AND c.cache_key = u.key AND c.expires_at > pg_catalog.now()
              AND c.response_status IN ('success', 'not_found'))
        ORDER BY u.key
        ON CONFLICT (service, cache_key) DO UPDATE SET
            priority = CASE WHEN q.state = 'dead' OR EXCLUDED.priority >= 0 THEN greatest(q.priority, EXCLUDED.priority)
                ELSE greatest(q.priority, EXCLUDED.priority - 1000 * q.attempts) END,
            state = CASE q.state WHEN 'dead' THEN 'waiting' ELSE q.state END,
            attempts = CASE q.state WHEN 'dead' THEN 0 ELSE q.attempts END,
            next_attempt_at = CASE q.state WHEN 'dead' THEN pg_catalog.now() ELSE q.next_attempt_at END
        WHERE ($4 AND q.state = 'dead') OR (q.state <> 'dead' AND q.priority < EXCLUDED.priority
            AND (EXCLUDED.priority >= 0 OR q.priority < EXCLUDED.priority - 1000 * q.attempts))
        RETURNING (q.xmax::text = '0') AS added",
    args: &[TEXTOID, TEXTARRAYOID, INT4ARRAYOID, BOOLOID],
};

/// Asks a service for keys that are not fresh, each with its own priority; `revive` brings back those that were given up.
pub fn ask(service: &str, keys: Vec<(String, i32)>, revive: bool) -> Result<(), Error> {
    let (names, priorities): (Vec<String>, Vec<i32>) = keys.into_iter().unzip();
    let args = [Arg::of(service), Arg::of(names), Arg::of(priorities), Arg::of(revive)];
    let mut added = 0;
    spi::run(&ASK, &args, Mode::Write, |row| added += i64::from(row.get::<bool>(1).unwrap_or(false)))?;
    backlog::note(added);
    Ok(())
}

static ASK_MISSING: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_queue AS q (service, cache_key, priority)
        SELECT s.name, i.cache_key, pg_catalog.max(@extschema@.enrichment_worth(i.weight, i.latest))
        FROM @extschema@.enrichment_indicator i
        JOIN @extschema@.enrichment_service s ON s.name = ANY ($2)
        WHERE i.source = $1 AND i.cache_key IS NOT NULL AND s.enabled
          AND NOT EXISTS (SELECT FROM @extschema@.enrichment_cache c
            WHERE c.service = s.name AND c.cache_key = i.cache_key AND c.expires_at > pg_catalog.now()
              AND c.response_status IN ('success', 'not_found'))
          AND NOT EXISTS (SELECT FROM @extschema@.enrichment_queue w
            WHERE w.service = s.name AND w.cache_key = i.cache_key)
          AND @extschema@.enrich_ineligible(s.key_kind, i.cache_key) IS NULL
        GROUP BY s.name, i.cache_key
        ORDER BY 3 DESC LIMIT $3
        ON CONFLICT (service, cache_key) DO NOTHING",
    args: &[TEXTOID, TEXTARRAYOID, INT8OID],
};

/// Requests the keys of a source that have no fresh answer and no request yet, at most so many, the most valuable first;
/// returns how many.
pub fn ask_missing(source: &str, services: &[String], most: i64) -> Result<u64, Error> {
    let args = [Arg::of(source), Arg::of(services.to_vec()), Arg::of(most)];
    let asked = spi::run(&ASK_MISSING, &args, Mode::Write, |_| {})?;
    backlog::note(asked as i64);
    Ok(asked)
}

// Values drift with every row and every day: a step of fifty is worth a write. What somebody asked for by name (0 and
// above) keeps its place, and what failed its steps behind those that did not (core/worth.rs).
static REVALUE: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue q SET priority = v.worth
        FROM (SELECT w.id, pg_catalog.max(@extschema@.enrichment_worth(i.weight, i.latest)) - 1000 * w.attempts AS worth
            FROM @extschema@.enrichment_queue w
            JOIN @extschema@.enrichment_indicator i ON i.cache_key = w.cache_key
            JOIN @extschema@.enrichment_source s ON s.name = i.source AND w.service = ANY (s.services)
            WHERE w.state = 'waiting' AND w.priority < 0 AND w.service = ANY ($1)
            GROUP BY w.id) v
        WHERE q.id = v.id AND pg_catalog.abs(q.priority - v.worth) >= 50",
    args: &[TEXTARRAYOID],
};

/// Brings the priorities of waiting keys up to what their rows are worth now.
pub fn revalue(services: &[String]) -> Result<u64, Error> {
    spi::run(&REVALUE, &[Arg::of(services.to_vec())], Mode::Write, |_| {})
}
