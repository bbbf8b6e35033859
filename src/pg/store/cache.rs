//! Statements on `enrichment_cache`: look-ups, batched stores that keep history, invalidation, cleanup.

use crate::core::condition::Validators;
use crate::core::error::Error;
use crate::core::json_text::Safe;
use crate::core::jsonb;
use crate::core::Micros;
use crate::pg::bind::Bind;
use crate::pg::convert::{to_micros, to_timestamp, RawJsonb};
use crate::pg::ranges::Kept;
use crate::pg::spi::{self, Arg, Mode, Row, Statement};
use crate::pg::{earlier, encoding, packed};
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::pg_sys::BuiltinOid::*;
use pgrx::pg_sys::Datum;

/// What a row of the cache knows.
pub struct Entry {
    pub payload: Option<Kept>,
    pub response_status: String,
    pub fetched_at: Micros,
    pub expires_at: Micros,
    pub hit_count: i64,
    pub version: i64,
    pub error_message: Option<String>,
}

impl Entry {
    /// Whether it answers without a new call: an answer of the provider ("knows nothing" is one) that has not expired.
    pub fn fresh(&self, now: Micros) -> bool {
        self.expires_at > now && matches!(self.response_status.as_str(), "success" | "not_found")
    }
}

// These three serve what is not our table as well: a column of another type is cast, or the server says that it cannot be.
static FRESH: Statement = Statement {
    sql: "SELECT payload::pg_catalog.jsonb, ranges, expires_at OPERATOR(pg_catalog.>) pg_catalog.now()
        FROM @extschema@.enrichment_cache
        WHERE service OPERATOR(pg_catalog.=) $1 AND cache_key OPERATOR(pg_catalog.=) $2
          AND expires_at OPERATOR(pg_catalog.+) $3 OPERATOR(pg_catalog.>) pg_catalog.now()",
    args: &[TEXTOID, TEXTOID, INTERVALOID],
};

/// The look-up by SQL, for tables that `probe` does not read: the payload of a key that is fresh, or expired by no more
/// than `grace`, and whether there is such an answer; that nothing is known is one without a payload. It reads no more columns than a
/// user's own SQL would, who may have rights on these alone; a failure is never fresh, if perhaps within the grace.
pub fn fresh_by_sql(service: &str, key: &str, grace: Interval) -> Result<(Option<RawJsonb>, bool), Error> {
    let args = [Arg::of(service), Arg::of(key), Arg::of(grace)];
    let (mut found, mut hit) = (None, false);
    spi::run(&FRESH, &args, Mode::Read, |row| {
        found = kept(row, 1, 2);
        hit = found.is_some() || row.get(3) == Some(true);
    })?;
    Ok((found.map(|kept| kept.answer()), hit))
}

fn kept(row: &Row, payload: i32, ranges: i32) -> Option<Kept> {
    Some(Kept { payload: row.datum(payload)?, ranges: row.datum(ranges) })
}

static ENTRY: Statement = Statement {
    sql: "SELECT payload::pg_catalog.jsonb, response_status, fetched_at, expires_at, hit_count, version, error_message, ranges
        FROM @extschema@.enrichment_cache
        WHERE service OPERATOR(pg_catalog.=) $1 AND cache_key OPERATOR(pg_catalog.=) $2",
    args: &[TEXTOID, TEXTOID],
};

/// Everything the cache knows of one key, by SQL.
pub fn entry_by_sql(service: &str, key: &str) -> Result<Option<Entry>, Error> {
    let mut found = None;
    spi::run(&ENTRY, &[Arg::of(service), Arg::of(key)], Mode::Read, |row| found = read(row))?;
    Ok(found)
}

fn read(row: &Row) -> Option<Entry> {
    Some(Entry {
        payload: kept(row, 1, 8),
        response_status: row.text(2)?,
        fetched_at: to_micros(row.get(3)?),
        expires_at: to_micros(row.get(4)?),
        hit_count: row.get(5)?,
        version: row.get(6)?,
        error_message: row.text(7),
    })
}

static MANY: Statement = Statement {
    sql: "SELECT c.cache_key, c.payload::pg_catalog.jsonb, c.ranges FROM @extschema@.enrichment_cache c
        WHERE c.service OPERATOR(pg_catalog.=) $1 AND c.cache_key OPERATOR(pg_catalog.=) ANY ($2)
          AND c.expires_at OPERATOR(pg_catalog.>) pg_catalog.now()
        ORDER BY c.cache_key",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// The fresh payloads among these keys, in the order of the keys, and how many keys have a fresh answer, with a payload or without.
pub fn many_by_sql(service: &str, keys: Vec<String>) -> Result<(Vec<(String, Kept)>, usize), Error> {
    let (mut found, mut hits) = (Vec::new(), 0);
    spi::run(&MANY, &[Arg::of(service), Arg::of(keys)], Mode::Read, |row| {
        hits += 1;
        if let (Some(key), Some(kept)) = (row.text(1), kept(row, 2, 3)) {
            found.push((key, kept));
        }
    })?;
    Ok((found, hits))
}

/// One answer on its way into the cache. A failure carries no payload and leaves an earlier answer in place.
#[derive(Default)]
pub struct Incoming {
    pub key: String,
    pub status: &'static str,
    pub fetched_at: Micros,
    pub expires_at: Micros,
    pub code: Option<i32>,
    pub latency_ms: Option<i32>,
    pub error: Option<String>,
    /// A packed hash range; the payload is its summary then.
    pub ranges: Option<Vec<u8>>,
    /// Something in the payload is not as it was sent.
    pub altered: bool,
    /// By what the provider knows the version of the answer.
    pub validators: Option<Validators>,
}

// An older observation never replaces a newer one, a failure never replaces an answer; what an answer replaces is kept
// in the history by the table's trigger. Rows come, and are locked, in the order of their keys, so that two batches never
// wait for each other in a circle. The arrays are taken apart in the list of columns, not in FROM, where all of them
// would be written down once more before the first row is stored.
macro_rules! store_sql {
    ($payloads:literal, $answer:expr, $returning:literal) => {
        concat!(
            "INSERT INTO @extschema@.enrichment_cache AS c (service, cache_key, payload, response_status, fetched_at,
            expires_at, api_response_code, api_latency_ms, error_message, ranges, altered, etag, last_modified)
          SELECT $1, unnest($2::text[]), unnest(",
            $payloads,
            "), unnest($4::text[]), unnest($5::timestamptz[]), unnest($6::timestamptz[]), unnest($7::int4[]),
            unnest($8::int4[]), unnest($9::text[]), unnest($10::bytea[]), unnest($11::bool[]),
            unnest($12::text[]), unnest($13::text[])
          ON CONFLICT (service, cache_key) DO UPDATE SET ",
            $answer,
            ",
            api_response_code = EXCLUDED.api_response_code,
            api_latency_ms = EXCLUDED.api_latency_ms,
            error_message = EXCLUDED.error_message,
            version = c.version + 1
          WHERE EXCLUDED.fetched_at >= c.fetched_at ",
            $returning
        )
    };
}

/// What becomes of the answer that stands, when an answer comes.
macro_rules! an_answer {
    () => {
        "payload = EXCLUDED.payload, ranges = EXCLUDED.ranges, response_status = EXCLUDED.response_status,
            fetched_at = EXCLUDED.fetched_at, expires_at = EXCLUDED.expires_at, altered = EXCLUDED.altered,
            etag = EXCLUDED.etag, last_modified = EXCLUDED.last_modified"
    };
}

/// The same, when it may be a failure that comes: an answer stays then.
macro_rules! an_answer_or_a_failure {
    () => {
        "payload = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.payload ELSE EXCLUDED.payload END,
            ranges = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.ranges ELSE EXCLUDED.ranges END,
            response_status = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.response_status ELSE EXCLUDED.response_status END,
            fetched_at = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.fetched_at ELSE EXCLUDED.fetched_at END,
            expires_at = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.expires_at ELSE EXCLUDED.expires_at END,
            altered = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.altered ELSE EXCLUDED.altered END,
            etag = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.etag ELSE EXCLUDED.etag END,
            last_modified = CASE WHEN c.response_status IN ('success', 'not_found') AND EXCLUDED.response_status NOT IN ('success', 'not_found')
                THEN c.last_modified ELSE EXCLUDED.last_modified END"
    };
}

const STORE_ARGS: &[pgrx::pg_sys::BuiltinOid] = &[
    TEXTOID,
    TEXTARRAYOID,
    JSONBARRAYOID,
    TEXTARRAYOID,
    TIMESTAMPTZARRAYOID,
    TIMESTAMPTZARRAYOID,
    INT4ARRAYOID,
    INT4ARRAYOID,
    TEXTARRAYOID,
    BYTEAARRAYOID,
    BOOLARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
];
const STORE_TEXT_ARGS: &[pgrx::pg_sys::BuiltinOid] = &[
    TEXTOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
    TIMESTAMPTZARRAYOID,
    TIMESTAMPTZARRAYOID,
    INT4ARRAYOID,
    INT4ARRAYOID,
    TEXTARRAYOID,
    BYTEAARRAYOID,
    BOOLARRAYOID,
    TEXTARRAYOID,
    TEXTARRAYOID,
];

static STORE: Statement = Statement { sql: store_sql!("$3::jsonb[]", an_answer_or_a_failure!(), ""), args: STORE_ARGS };
static STORE_TEXT: Statement =
    Statement { sql: store_sql!("$3::text[]::jsonb[]", an_answer_or_a_failure!(), ""), args: STORE_TEXT_ARGS };
static STORE_ANSWERS: Statement = Statement { sql: store_sql!("$3::jsonb[]", an_answer!(), ""), args: STORE_ARGS };
static STORE_ANSWERS_TEXT: Statement =
    Statement { sql: store_sql!("$3::text[]::jsonb[]", an_answer!(), ""), args: STORE_TEXT_ARGS };
static STORE_ONE: Statement =
    Statement { sql: store_sql!("$3::jsonb[]", an_answer_or_a_failure!(), "RETURNING c.version"), args: STORE_ARGS };
static STORE_ONE_TEXT: Statement = Statement {
    sql: store_sql!("$3::text[]::jsonb[]", an_answer_or_a_failure!(), "RETURNING c.version"),
    args: STORE_TEXT_ARGS,
};

/// A payload: a `jsonb` value as it came, or JSON text that was made safe, for UTF-8 that is.
pub enum Payload {
    Jsonb(Option<Datum>),
    Text(Option<String>),
}

/// Stores a batch of one service; keys must not repeat, payloads are all of one kind. Returns how many were written.
pub fn store(service: &str, mut batch: Vec<(Incoming, Payload)>) -> Result<u64, Error> {
    batch.sort_unstable_by(|(one, _), (other, _)| one.key.cmp(&other.key));
    let answers = batch.iter().all(|(entry, _)| matches!(entry.status, "success" | "not_found"));
    let (args, text) = store_args(service, batch);
    let statement = match (answers, text) {
        (true, false) => &STORE_ANSWERS,
        (true, true) => &STORE_ANSWERS_TEXT,
        (false, false) => &STORE,
        (false, true) => &STORE_TEXT,
    };
    earlier::gathering(|| spi::run(statement, &args, Mode::Write, |_| {}))
}

/// Stores one entry; returns the row's new version, or nothing when an older observation left it as it was.
pub fn store_one(service: &str, entry: Incoming, payload: Payload) -> Result<Option<i64>, Error> {
    let (args, text) = store_args(service, vec![(entry, payload)]);
    let mut version = None;
    spi::run(if text { &STORE_ONE_TEXT } else { &STORE_ONE }, &args, Mode::Write, |row| version = row.get(1))?;
    Ok(version)
}

/// The parameters of the statement, and whether the payloads are texts.
fn store_args(service: &str, batch: Vec<(Incoming, Payload)>) -> ([Arg; 13], bool) {
    let fitted = batch.into_iter().map(|(mut entry, payload)| match payload {
        Payload::Text(Some(text)) => {
            let Safe { text, altered } = encoding::fit(Safe { text, altered: entry.altered });
            entry.altered = altered;
            (entry, Payload::Text(Some(text)))
        }
        payload => (entry, payload),
    });
    let (entries, payloads): (Vec<Incoming>, Vec<Payload>) = fitted.unzip();
    let payloads = built(&payloads).unwrap_or(payloads);
    let stamps = |pick: fn(&Incoming) -> Micros| -> Vec<TimestampWithTimeZone> {
        entries.iter().map(|entry| to_timestamp(pick(entry))).collect()
    };
    let text = matches!(payloads.first(), Some(Payload::Text(_)));
    let payloads = if text {
        let texts = payloads.into_iter().map(|payload| match payload {
            Payload::Text(text) => text,
            Payload::Jsonb(_) => None,
        });
        Arg::of(texts.collect::<Vec<Option<String>>>())
    } else {
        let values = payloads.into_iter().map(|payload| match payload {
            Payload::Jsonb(value) => value.map(RawJsonb),
            Payload::Text(_) => None,
        });
        Arg::of(values.collect::<Vec<Option<RawJsonb>>>())
    };
    let args = [
        Arg::of(service),
        Arg::of(entries.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>()),
        payloads,
        Arg::of(entries.iter().map(|entry| entry.status).collect::<Vec<_>>()),
        Arg::of(stamps(|entry| entry.fetched_at)),
        Arg::of(stamps(|entry| entry.expires_at)),
        unless_empty(entries.iter().map(|entry| entry.code)),
        unless_empty(entries.iter().map(|entry| entry.latency_ms)),
        unless_empty(entries.iter().map(|entry| entry.error.as_deref())),
        unless_empty(entries.iter().map(|entry| entry.ranges.as_deref())),
        Arg::of(entries.iter().map(|entry| entry.altered).collect::<Vec<_>>()),
        unless_empty(entries.iter().map(|entry| entry.validators.as_ref()?.etag.as_deref())),
        unless_empty(entries.iter().map(|entry| entry.validators.as_ref()?.last_modified.as_deref())),
    ];
    (args, text)
}

/// The same payloads as `jsonb`, which takes half the time that the server takes to read them; nothing where one of them is for the
/// server to read.
fn built(payloads: &[Payload]) -> Option<Vec<Payload>> {
    if !encoding::is_utf8() {
        return None;
    }
    payloads
        .iter()
        .map(|payload| match payload {
            Payload::Text(Some(text)) => Some(Payload::Jsonb(Some(packed::jsonb(&jsonb::build(text)?)))),
            Payload::Text(None) => Some(Payload::Jsonb(None)),
            Payload::Jsonb(_) => None,
        })
        .collect()
}

/// An array, or none at all, which gives as many NULLs.
fn unless_empty<T>(values: impl Iterator<Item = Option<T>>) -> Arg
where
    Vec<Option<T>>: Bind,
{
    let values: Vec<Option<T>> = values.collect();
    if values.iter().any(Option::is_some) {
        Arg::of(values)
    } else {
        Arg::raw(None)
    }
}

static COUNT_FRESH: Statement = Statement {
    sql: "SELECT pg_catalog.count(*) FROM @extschema@.enrichment_cache c
        WHERE c.service = $1 AND c.cache_key = ANY ($2) AND c.expires_at > pg_catalog.now()
          AND c.response_status IN ('success', 'not_found')",
    args: &[TEXTOID, TEXTARRAYOID],
};

/// How many of these keys have a fresh answer.
pub fn fresh(service: &str, keys: Vec<String>) -> Result<i64, Error> {
    let mut count = 0;
    spi::run(&COUNT_FRESH, &[Arg::of(service), Arg::of(keys)], Mode::Write, |row| count = row.get(1).unwrap_or(0))?;
    Ok(count)
}

static LOCKED_VERSION: Statement = Statement {
    sql: "SELECT version FROM @extschema@.enrichment_cache
        WHERE service = $1 AND cache_key = $2 FOR UPDATE",
    args: &[TEXTOID, TEXTOID],
};

/// The version of a row, which is locked until the transaction ends.
pub fn locked_version(service: &str, key: &str) -> Result<Option<i64>, Error> {
    let mut version = None;
    spi::run(&LOCKED_VERSION, &[Arg::of(service), Arg::of(key)], Mode::Write, |row| version = row.get(1))?;
    Ok(version)
}

static EXPIRE: Statement = Statement {
    sql: "UPDATE @extschema@.enrichment_cache SET expires_at = pg_catalog.now(), version = version + 1
        WHERE service = $1 AND ($2 IS NULL OR cache_key = $2) AND expires_at > pg_catalog.now()",
    args: &[TEXTOID, TEXTOID],
};

static DELETE: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_cache WHERE service = $1 AND ($2 IS NULL OR cache_key = $2)",
    args: &[TEXTOID, TEXTOID],
};

/// Expires (or deletes, `hard`) one key of a service, or all of them; returns how many rows changed.
pub fn invalidate(service: &str, key: Option<&str>, hard: bool) -> Result<i64, Error> {
    let statement = if hard { &DELETE } else { &EXPIRE };
    Ok(spi::run(statement, &[Arg::of(service), Arg::of(key)], Mode::Write, |_| {})? as i64)
}

static BREACHES: Statement = Statement {
    sql: "SELECT CASE WHEN ranges IS NULL THEN @extschema@.enrich_bigint(payload OPERATOR(pg_catalog.->) $2)
            ELSE @extschema@.enrich_hibp_count(ranges, $2) END,
            CASE WHEN ranges IS NULL THEN @extschema@.enrich_sum(payload)
            ELSE @extschema@.enrich_bigint(payload OPERATOR(pg_catalog.->) 'suffixes') END OPERATOR(pg_catalog.>) 0
        FROM @extschema@.enrichment_cache
        WHERE service = 'hibp' AND cache_key = $1",
    args: &[TEXTOID, TEXTOID],
};

/// How often the cached range of a prefix counts a suffix; 0 when it does not hold it. `None`: the range holds nothing
/// but padding, and says nothing of any password.
pub fn breaches(prefix: &str, suffix: &str) -> Result<Option<i64>, Error> {
    let mut count = None;
    spi::run(&BREACHES, &[Arg::of(prefix), Arg::of(suffix)], Mode::Read, |row| {
        count = (row.get(2) == Some(true)).then(|| row.get(1).unwrap_or(0));
    })?;
    Ok(count)
}
