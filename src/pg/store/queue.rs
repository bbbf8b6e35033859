//! Statements on `enrichment_queue`: the durable, single-flight list of what is to be asked.

use crate::core::condition::Validators;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::backlog;
use crate::pg::convert::{to_micros, to_timestamp};
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

// One probe for each key (LIMIT keeps it so): a plan that is made while the cache is small would read all of it later.
// What nobody asks for by name (below 0) takes a step down for each failed attempt (core/worth.rs), also when it is wanted again.
static REQUEST: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_queue AS q (service, cache_key, priority)
        SELECT $1, k, $3 FROM pg_catalog.unnest($2::text[]) AS k
        WHERE (SELECT true FROM @extschema@.enrichment_cache c
            WHERE c.service = $1 AND c.cache_key = k AND c.expires_at > pg_catalog.now()
              AND c.response_status IN ('success', 'not_found') LIMIT 1) IS NULL
        ORDER BY k
        ON CONFLICT (service, cache_key) DO UPDATE SET
            priority = CASE WHEN q.state = 'dead' OR EXCLUDED.priority >= 0 THEN greatest(q.priority, EXCLUDED.priority)
                ELSE greatest(q.priority, EXCLUDED.priority - 1000 * q.attempts) END,
            state = CASE q.state WHEN 'dead' THEN 'waiting' ELSE q.state END,
            attempts = CASE q.state WHEN 'dead' THEN 0 ELSE q.attempts END,
            next_attempt_at = CASE q.state WHEN 'dead' THEN pg_catalog.now() ELSE q.next_attempt_at END
        WHERE ($4 AND q.state = 'dead') OR (q.state <> 'dead' AND q.priority < EXCLUDED.priority
            AND (EXCLUDED.priority >= 0 OR q.priority < EXCLUDED.priority - 1000 * q.attempts))
        RETURNING (q.xmax::text = '0') AS added",
    args: &[TEXTOID, TEXTARRAYOID, INT4OID, BOOLOID],
};

/// Puts keys of a service that are not fresh into the queue; returns how many are new there. A request that waits
/// takes the higher priority; one that rests after its last attempt is revived if `revive` says so.
pub fn request(service: &str, keys: Vec<String>, priority: i32, revive: bool) -> Result<i64, Error> {
    let mut added = 0;
    spi::run(&REQUEST, &[Arg::of(service), Arg::of(keys), Arg::of(priority), Arg::of(revive)], Mode::Write, |row| {
        added += i64::from(row.get::<bool>(1).unwrap_or(false));
    })?;
    backlog::note(added);
    Ok(added)
}

/// A request as `enrich_lookup` reports it.
pub struct Waiting {
    pub state: String,
    /// Not before its service's pause is over.
    pub next_attempt_at: Micros,
    pub last_outcome: Option<String>,
    pub last_error: Option<String>,
}

static WAITING: Statement = Statement {
    sql: "SELECT q.state, GREATEST(q.next_attempt_at, l.paused_until), q.last_outcome, q.last_error
        FROM @extschema@.enrichment_queue q
        LEFT JOIN @extschema@.enrichment_lane l ON l.service OPERATOR(pg_catalog.=) q.service
        WHERE q.service OPERATOR(pg_catalog.=) $1 AND q.cache_key OPERATOR(pg_catalog.=) $2",
    args: &[TEXTOID, TEXTOID],
};

pub fn waiting(service: &str, key: &str) -> Result<Option<Waiting>, Error> {
    let mut found = None;
    spi::run(&WAITING, &[Arg::of(service), Arg::of(key)], Mode::Read, |row| {
        found = row.text(1).zip(row.get(2)).map(|(state, at)| Waiting {
            state,
            next_attempt_at: to_micros(at),
            last_outcome: row.text(3),
            last_error: row.text(4),
        });
    })?;
    Ok(found)
}

/// A claimed request.
pub struct Claim {
    pub id: i64,
    pub key: String,
    pub attempts: i32,
    /// By what the provider knows the answer that is kept, if it is to be asked whether it has changed.
    pub kept: Option<Validators>,
}

// The rows are locked where they were found, so they are changed there, without another search. One that somebody changes between
// the statement's snapshot and its lock is left for the next claim.
macro_rules! claim_sql {
    ($order:literal) => {
        concat!(
            "UPDATE @extschema@.enrichment_queue q
        SET state = 'in_flight', leased_at = $3, leased_by = pg_catalog.pg_backend_pid()
        WHERE q.ctid = ANY (ARRAY(
            SELECT d.ctid FROM @extschema@.enrichment_queue d
            WHERE d.service = $1 AND d.state = 'waiting' AND d.next_attempt_at <= $3
            ORDER BY ",
            $order,
            " LIMIT $2 FOR UPDATE SKIP LOCKED))
        RETURNING q.id, q.cache_key, q.attempts, q.rank, q.next_attempt_at"
        )
    };
}

static CLAIM: Statement =
    Statement { sql: claim_sql!("d.rank DESC, d.next_attempt_at, d.id"), args: &[TEXTOID, INT8OID, TIMESTAMPTZOID] };

static CLAIM_OLDEST: Statement =
    Statement { sql: claim_sql!("d.next_attempt_at"), args: &[TEXTOID, INT8OID, TIMESTAMPTZOID] };

/// Claims at most `n` due requests of a service, those of the highest rank first: priority and waiting together. The last
/// `by_age` of them are those that have been due longest.
pub fn claim(service: &str, n: u32, by_age: u32, now: Micros) -> Result<Vec<Claim>, Error> {
    let by_rank = n.saturating_sub(by_age);
    let mut claims = Vec::new();
    if by_rank > 0 {
        claim_by(&CLAIM, service, by_rank, now, &mut claims)?;
    }
    // where the first found fewer than it looked for, nothing is left
    if by_age > 0 && claims.len() == by_rank as usize {
        claim_by(&CLAIM_OLDEST, service, by_age, now, &mut claims)?;
    }
    Ok(claims)
}

/// Claims by one statement; they come in the order of rank.
fn claim_by(
    statement: &'static Statement,
    service: &str,
    n: u32,
    now: Micros,
    claims: &mut Vec<Claim>,
) -> Result<(), Error> {
    let args = [Arg::of(service), Arg::of(i64::from(n)), Arg::of(to_timestamp(now))];
    let mut found: Vec<(f64, Micros, Claim)> = Vec::with_capacity(n as usize);
    let run = || {
        spi::run(statement, &args, Mode::Write, |row| {
            if let (Some(id), Some(key), Some(attempts)) = (row.get(1), row.text(2), row.get(3)) {
                let rank = row.get(4).unwrap_or(f64::NEG_INFINITY);
                let due = row.get(5).map_or(Micros::MAX, to_micros);
                found.push((rank, due, Claim { id, key, attempts, kept: None }));
            }
        })
    };
    spi::by_index(|| spi::without_sorting(run))?;
    found.sort_unstable_by(|(one, due, claim), (other, other_due, other_claim)| {
        other.total_cmp(one).then(due.cmp(other_due)).then(claim.id.cmp(&other_claim.id))
    });
    claims.extend(found.into_iter().map(|(_, _, claim)| claim));
    Ok(())
}

static DUE: Statement = Statement {
    sql: "SELECT s.name, (
            SELECT pg_catalog.min(q.next_attempt_at) FROM @extschema@.enrichment_queue q
            WHERE q.service = s.name AND q.state = 'waiting')
        FROM @extschema@.enrichment_service s WHERE s.enabled",
    args: &[],
};

/// For each service with waiting requests, when the first is due.
pub fn due() -> Result<Vec<(String, Micros)>, Error> {
    let mut due = Vec::new();
    spi::run(&DUE, &[], Mode::Read, |row| {
        if let (Some(service), Some(at)) = (row.text(1), row.get(2)) {
            due.push((service, to_micros(at)));
        }
    })?;
    Ok(due)
}

static ANSWERED: Statement =
    Statement { sql: "DELETE FROM @extschema@.enrichment_queue WHERE id = ANY ($1)", args: &[INT8ARRAYOID] };

/// Takes answered requests off the list.
pub fn answered(ids: Vec<i64>) -> Result<(), Error> {
    if !ids.is_empty() {
        let gone = spi::by_index(|| spi::run(&ANSWERED, &[Arg::of(ids)], Mode::Write, |_| {}))?;
        backlog::note(-(gone as i64));
    }
    Ok(())
}

/// Puts a claimed request back: `attempts` is what it has used up by now, `dead` when that was the last one.
pub struct PutBack {
    pub id: i64,
    pub attempts: i32,
    /// Whether this attempt is the key's own failure: it goes behind those that were not tried yet.
    pub failed: bool,
    pub dead: bool,
    pub next_attempt_at: Micros,
    pub outcome: &'static str,
    pub error: Option<String>,
}

static PUT_BACK: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue SET
            state = CASE WHEN $3 THEN 'dead' ELSE 'waiting' END, attempts = $2, next_attempt_at = $4,
            leased_at = NULL, leased_by = NULL, last_outcome = $5, last_error = $6,
            last_attempt_at = pg_catalog.now(), priority = CASE WHEN NOT $7 THEN priority WHEN priority < 0 THEN priority - 1000 ELSE 0 END
        WHERE id = $1",
    args: &[INT8OID, INT4OID, BOOLOID, TIMESTAMPTZOID, TEXTOID, TEXTOID, BOOLOID],
};

pub fn put_back(request: &PutBack) -> Result<(), Error> {
    let args = [
        Arg::of(request.id),
        Arg::of(request.attempts),
        Arg::of(request.dead),
        Arg::of(to_timestamp(request.next_attempt_at)),
        Arg::of(request.outcome),
        Arg::of(request.error.clone()),
        Arg::of(request.failed),
    ];
    spi::run(&PUT_BACK, &args, Mode::Write, |_| {})?;
    Ok(())
}

static RETRY_REFUSED: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue SET next_attempt_at = pg_catalog.now()
        WHERE service = $1 AND state = 'waiting' AND last_outcome = 'unauthorized'",
    args: &[TEXTOID],
};

/// Makes what a provider refused for its secret due at once.
pub fn retry_refused(service: &str) -> Result<(), Error> {
    spi::run(&RETRY_REFUSED, &[Arg::of(service)], Mode::Write, |_| {})?;
    Ok(())
}

static RETRY_DEAD: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue SET state = 'waiting', attempts = 0, next_attempt_at = pg_catalog.now()
        WHERE service = $1 AND state = 'dead' AND ($2 IS NULL OR cache_key = $2)",
    args: &[TEXTOID, TEXTOID],
};

/// Has requests that rest after their last attempt tried again from the beginning, one or all of a service; returns
/// how many.
pub fn retry_dead(service: &str, key: Option<&str>) -> Result<u64, Error> {
    spi::run(&RETRY_DEAD, &[Arg::of(service), Arg::of(key)], Mode::Write, |_| {})
}

static RELEASE: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue SET state = 'waiting', leased_at = NULL, leased_by = NULL
        WHERE state = 'in_flight'",
    args: &[],
};

/// Gives back every claim: of a worker that died, or of this one before it ends.
pub fn release_all() -> Result<u64, Error> {
    spi::run(&RELEASE, &[], Mode::Write, |_| {})
}

static RELEASE_SOME: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_queue SET state = 'waiting', leased_at = NULL, leased_by = NULL
        WHERE id = ANY ($1) AND state = 'in_flight'",
    args: &[INT8ARRAYOID],
};

/// Gives back claims of which no call was made.
pub fn release(ids: &[i64]) -> Result<(), Error> {
    if !ids.is_empty() {
        spi::by_index(|| spi::run(&RELEASE_SOME, &[Arg::of(ids.to_vec())], Mode::Write, |_| {}))?;
    }
    Ok(())
}

static EXISTS: Statement = Statement {
    sql: "SELECT pg_catalog.count(*) FROM @extschema@.enrichment_queue
        WHERE service = $1 AND cache_key = $2 AND state <> 'dead'",
    args: &[TEXTOID, TEXTOID],
};

/// Whether a request for this key waits or is in flight.
pub fn pending(service: &str, key: &str) -> Result<bool, Error> {
    let mut count = 0i64;
    spi::run(&EXISTS, &[Arg::of(service), Arg::of(key)], Mode::Write, |row| count = row.get(1).unwrap_or(0))?;
    Ok(count > 0)
}

static LENGTH: Statement = Statement { sql: "SELECT pg_catalog.count(*) FROM @extschema@.enrichment_queue", args: &[] };

/// How many requests there are: reads the whole queue.
pub fn length() -> Result<i64, Error> {
    let mut length = 0;
    spi::run(&LENGTH, &[], Mode::Read, |row| length = row.get(1).unwrap_or(0))?;
    Ok(length)
}

// as the planner does: the rows of a page when it was last analysed, or fifty, times the pages there are now
static ESTIMATE: Statement = Statement {
    sql: "SELECT (pg_catalog.pg_relation_size(c.oid) / pg_catalog.current_setting('block_size')::float8
            * CASE WHEN c.relpages > 0 AND c.reltuples >= 0 THEN c.reltuples / c.relpages ELSE 50 END)::int8
        FROM pg_catalog.pg_class c WHERE c.oid = '@extschema@.enrichment_queue'::pg_catalog.regclass",
    args: &[],
};

/// How many requests there are, by the size of the table.
pub fn estimated_length() -> Result<i64, Error> {
    let mut length = 0;
    spi::run(&ESTIMATE, &[], Mode::Read, |row| length = row.get(1).unwrap_or(0))?;
    Ok(length)
}
