//! Statements that invalidate what waits for its key, as the cache's own rows are.

use crate::core::error::Error;
use crate::pg::spi::{self, Arg, Mode, Statement};
use pgrx::pg_sys::BuiltinOid::*;

/// A key with digests under which answers may wait for it.
#[derive(Clone)]
pub struct Named<'a> {
    pub key: &'a str,
    pub digests: Vec<&'a [u8]>,
}

// An attached table may write the key in another way, and an answer may wait under the digest of that.
macro_rules! digests_sql {
    () => {
        "(SELECT unnest($2::bytea[]) AS d
            UNION SELECT pg_catalog.sha256(pg_catalog.convert_to(i.raw_key, 'UTF8')) FROM @extschema@.enrichment_indicator i
            WHERE i.cache_key = $3 ORDER BY d) n"
    };
}

macro_rules! of_service_sql {
    () => {
        "o.service = $1"
    };
}

// Digest by digest: after an import the planner may take the service for one without answers, and would read all of them.
macro_rules! of_key_sql {
    () => {
        concat!(
            "o.ctid = ANY (ARRAY(SELECT x.ctid FROM ",
            digests_sql!(),
            " CROSS JOIN LATERAL (SELECT y.ctid FROM @extschema@.enrichment_orphan y
                WHERE y.service = $1 AND y.digest = n.d OFFSET 0) x))"
        )
    };
}

// In the order of those that take answers over or keep them. Apart from what is done to them, which finds them as they stand by
// then, and without their rows: of a whole service there may be millions.
static LOCK: Statement = Statement {
    sql: "SELECT pg_catalog.count(*) FROM (SELECT FROM @extschema@.enrichment_orphan o
        WHERE o.service = $1 ORDER BY o.digest, o.fetched_at FOR UPDATE) held",
    args: &[TEXTOID],
};

static LOCK_OF_KEY: Statement = Statement {
    sql: concat!(
        "SELECT pg_catalog.count(*) FROM ",
        digests_sql!(),
        " CROSS JOIN LATERAL (SELECT FROM @extschema@.enrichment_orphan o
            WHERE o.service = $1 AND o.digest = n.d ORDER BY o.fetched_at FOR UPDATE) held"
    ),
    args: &[TEXTOID, BYTEAARRAYOID, TEXTOID],
};

static DELETE: Statement = Statement {
    sql: concat!("DELETE FROM @extschema@.enrichment_orphan o WHERE ", of_service_sql!()),
    args: &[TEXTOID],
};

static DELETE_OF_KEY: Statement = Statement {
    sql: concat!("DELETE FROM @extschema@.enrichment_orphan o WHERE ", of_key_sql!()),
    args: &[TEXTOID, BYTEAARRAYOID, TEXTOID],
};

// An age in seconds: an interval of days would be an hour off where the clocks change in between.
macro_rules! over_sql {
    ($longest:literal) => {
        concat!(
            "o.fetched_at + pg_catalog.make_interval(secs => EXTRACT(epoch FROM pg_catalog.now() - o.fetched_at)::float8 / ",
            $longest,
            ")"
        )
    };
}

macro_rules! expire_sql {
    ($which:expr, $longest:literal) => {
        concat!(
            "UPDATE @extschema@.enrichment_orphan o SET expires_at = ",
            over_sql!($longest),
            " WHERE o.expires_at > ",
            over_sql!($longest),
            " AND ",
            $which
        )
    };
}

static EXPIRE: Statement = Statement { sql: expire_sql!(of_service_sql!(), "$2"), args: &[TEXTOID, FLOAT8OID] };

static EXPIRE_OF_KEY: Statement =
    Statement { sql: expire_sql!(of_key_sql!(), "$4"), args: &[TEXTOID, BYTEAARRAYOID, TEXTOID, FLOAT8OID] };

fn args(service: &str, named: Option<Named>) -> Vec<Arg> {
    let mut args = vec![Arg::of(service)];
    if let Some(Named { key, digests }) = named {
        args.extend([Arg::of(digests), Arg::of(key)]);
    }
    args
}

fn lock(service: &str, named: Option<Named>) -> Result<(), Error> {
    let statement = if named.is_some() { &LOCK_OF_KEY } else { &LOCK };
    spi::run(statement, &args(service, named), Mode::Write, |_| {})?;
    Ok(())
}

/// Deletes what waits for one key of a service, or for all of them; returns how many answers that were.
pub fn delete(service: &str, named: Option<Named>) -> Result<i64, Error> {
    lock(service, named.clone())?;
    let statement = if named.is_some() { &DELETE_OF_KEY } else { &DELETE };
    Ok(spi::run(statement, &args(service, named), Mode::Write, |_| {})? as i64)
}

/// Makes what waits for one key of a service, or for all of them, expire so early that it has expired by now under a key that
/// makes its life `longest` times as long; returns how many answers that were.
pub fn expire(service: &str, named: Option<Named>, longest: f64) -> Result<i64, Error> {
    lock(service, named.clone())?;
    let statement = if named.is_some() { &EXPIRE_OF_KEY } else { &EXPIRE };
    let mut args = args(service, named);
    args.push(Arg::of(longest));
    Ok(spi::run(statement, &args, Mode::Write, |_| {})? as i64)
}
