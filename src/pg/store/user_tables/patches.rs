//! What the rows of each key get in a json or jsonb column, made once for all of them.

use super::comparable;
use crate::core::error::Error;
use crate::core::iso;
use crate::core::jsonb::{object, Part};
use crate::pg::bind::Bind;
use crate::pg::convert::micros_of;
use crate::pg::packed;
use crate::pg::setting;
use crate::pg::spi::{self, Arg, Mode, Relation};
use crate::pg::store::indicators::Taken;
use crate::pg::store::schema;
use crate::pg::store::sources::{Column, Shape, Source};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::{self, BuiltinOid::*};
use std::collections::btree_map::Entry;
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

/// The name under which a statement reads them.
const NAME: &str = "ec_patches";
/// As they stand in its list of tables.
pub const FROM: &str = "ec_patches p";
/// Plans that are kept reckon with so many keys.
const USUAL_KEYS: f64 = 10.0;

/// Of one key: what the cache knows of it.
#[derive(Default)]
struct Known {
    key: Option<pg_sys::Datum>,
    cache_key: String,
    answers: Vec<Answer>,
    flags: Vec<Option<bool>>,
}

#[derive(Hash)]
struct Answer {
    service: String,
    status: String,
    fetched_at: Option<String>,
    expires_at: Option<String>,
    /// The bytes of a jsonb.
    member: Option<Vec<u8>>,
}

/// Key (`ec_key`) in the rows and (`ec_cache_key`) in the cache, members (`ec_found`), names of members that are to go (`ec_gone`),
/// members of `_meta` (`ec_meta`), the value of a row that has none (`ec_whole`), flags (`ec_flag_0` and so on). With a digest of all of it,
/// where that is wanted. Where some keys are moved, which need not be known, also the names of all our members for those (`ec_all`).
pub fn of(source: &Source, into: &Column, taken: &Taken, digested: bool) -> Result<(Relation, Option<u64>), Error> {
    let Taken { raw_keys, moved, .. } = taken;
    let mut digest = digested.then(DefaultHasher::new);
    let mut known = known(source, taken)?;
    for (n, raw_key) in (1..).zip(raw_keys).filter(|(_, raw_key)| moved.contains(raw_key)) {
        if let Entry::Vacant(place) = known.entry(n) {
            place.insert(unknown(source, raw_key)?);
        }
    }
    let mut patches = empty(source, into, known.len(), !moved.is_empty());
    for (n, known) in &known {
        if let Some(digest) = &mut digest {
            known.answers.hash(digest);
            known.flags.hash(digest);
        }
        let is_moved = usize::try_from(n - 1).is_ok_and(|at| moved.contains(&raw_keys[at]));
        push(known, source, into, (!moved.is_empty()).then_some(is_moved), &mut patches)?;
    }
    Ok((patches, digest.map(|digest| digest.finish())))
}

/// What rows without a key get.
pub fn keyless(source: &Source, into: &Column) -> Result<Relation, Error> {
    let mut patches = empty(source, into, 1, true);
    let nothing = Known { flags: vec![None; source.flags.len()], ..Known::default() };
    push(&nothing, source, into, Some(true), &mut patches)?;
    Ok(patches)
}

fn empty(source: &Source, into: &Column, keys: usize, moving: bool) -> Relation {
    let planned = if source.indexed { USUAL_KEYS } else { keys as f64 };
    let mut columns = vec![
        ("ec_key".to_string(), comparable(&source.key).1),
        ("ec_cache_key".to_string(), pg_sys::TEXTOID),
        ("ec_found".to_string(), pg_sys::JSONBOID),
        ("ec_gone".to_string(), pg_sys::TEXTARRAYOID),
        ("ec_meta".to_string(), pg_sys::JSONBOID),
        ("ec_whole".to_string(), into.type_oid),
    ];
    columns.extend(moving.then(|| ("ec_all".to_string(), pg_sys::TEXTARRAYOID)));
    columns.extend((0..source.flags.len()).map(|n| (format!("ec_flag_{n}"), pg_sys::BOOLOID)));
    Relation::new(NAME, &columns, planned)
}

// `moved`: whether its rows had another key before; None: none of these keys
fn push(
    known: &Known,
    source: &Source,
    into: &Column,
    moved: Option<bool>,
    patches: &mut Relation,
) -> Result<(), Error> {
    let too_large = || Error::Other {
        message: format!("the answers about {} are more than a jsonb holds", known.cache_key),
        detail: None,
        hint: Some("Attach fewer services to one column.".to_string()),
    };
    let found: Vec<(&str, Part)> = known
        .answers
        .iter()
        .filter_map(|answer| Some((answer.service.as_str(), Part::Jsonb(answer.member.as_ref()?))))
        .collect();
    let gone: Vec<&str> =
        known.answers.iter().filter(|answer| answer.member.is_none()).map(|answer| answer.service.as_str()).collect();
    let meta: Vec<(&str, Part)> = known
        .answers
        .iter()
        .map(|answer| {
            let members = vec![
                ("status", Part::Text(&answer.status)),
                ("fetched_at", answer.fetched_at.as_deref().map_or(Part::Null, Part::Text)),
                ("expires_at", answer.expires_at.as_deref().map_or(Part::Null, Part::Text)),
            ];
            (answer.service.as_str(), Part::Object(members))
        })
        .collect();
    let meta = object(meta).ok_or_else(too_large)?;
    let mut whole = found.clone();
    whole.push(("_meta", Part::Jsonb(&meta)));
    let whole = packed::document(&object(whole).ok_or_else(too_large)?, into.type_oid, source.packing);
    let found = packed::jsonb(&object(found).ok_or_else(too_large)?);
    let meta = packed::jsonb(&meta);
    let fixed = [known.key, known.cache_key.as_str().bind(), Some(found), gone.bind(), Some(meta), Some(whole)];
    let all = moved.map(|moved| moved.then(|| source.services.clone()).and_then(Bind::bind));
    let flags = known.flags.iter().map(|flag| flag.bind());
    patches.push(&fixed.into_iter().chain(all).chain(flags).collect::<Vec<_>>());
    // the store has copies
    [found, meta, whole].into_iter().for_each(packed::free);
    Ok(())
}

/// A key of which nothing is known.
fn unknown(source: &Source, raw_key: &str) -> Result<Known, Error> {
    let sql = format!("SELECT $1::{}", comparable(&source.key).0);
    let mut unknown = Known { flags: vec![None; source.flags.len()], ..Known::default() };
    let args = [(TEXTOID, Arg::of(raw_key))];
    spi::run_often(&sql, None, &args, Mode::Read, |row| unknown.key = row.datum(1))?;
    Ok(unknown)
}

/// By the place of the key among those that were asked for.
fn known(source: &Source, taken: &Taken) -> Result<BTreeMap<i64, Known>, Error> {
    let mut known: BTreeMap<i64, Known> = BTreeMap::new();
    let flagging: Vec<&str> = source.flags.iter().map(|(_, service)| service.as_str()).collect();
    let args = [
        (TEXTARRAYOID, Arg::of(taken.raw_keys.clone())),
        (TEXTARRAYOID, Arg::of(taken.cache_keys.clone())),
        (TEXTARRAYOID, Arg::of(source.services.clone())),
        (TEXTARRAYOID, Arg::of(flagging.clone())),
    ];
    let sql = answers_sql(source, &schema()?);
    let each = |row: &spi::Row| {
        let (Some(n), Some(service)) = (row.get::<i64>(1), row.text(3)) else { return };
        let cache_key = || taken.cache_keys.get(usize::try_from(n - 1).ok()?)?.clone();
        let known = known.entry(n).or_insert_with(|| Known {
            key: row.datum(2),
            cache_key: cache_key().unwrap_or_default(),
            answers: Vec::new(),
            flags: vec![None; flagging.len()],
        });
        let flagged: Option<bool> = row.get(8);
        for (flag, _) in known.flags.iter_mut().zip(&flagging).filter(|(_, of)| **of == service) {
            *flag = flagged;
        }
        known.answers.push(Answer {
            service,
            status: row.text(4).unwrap_or_default(),
            fetched_at: row.get(5).and_then(moment),
            expires_at: row.get(6).and_then(moment),
            member: row.jsonb(7),
        });
    };
    // no key comes twice, so there is nothing to be remembered
    setting::during(c"enable_memoize", c"off", || spi::run_often(&sql, None, &args, Mode::Write, each))?;
    Ok(known)
}

/// A moment as it stands in `_meta`; None for the infinite ones.
fn moment(at: TimestampWithTimeZone) -> Option<String> {
    let stored = i64::from(at);
    (stored != i64::MIN && stored != i64::MAX).then(|| iso::utc(micros_of(stored)))
}

// Each step is one probe of a unique index (LIMIT keeps the planner from joining in another order): in the first minute of a
// table's life there are no statistics, and a batch took a second instead of milliseconds.
fn answers_sql(source: &Source, schema: &str) -> String {
    let member = match source.shape {
        Shape::Cowrieprocessor => format!("{schema}.enrich_cowrieprocessor(e.service, e.payload)"),
        _ => format!("coalesce({schema}.enrich_hibp_range(e.ranges), e.payload)"),
    };
    format!(
        "SELECT k.n, k.raw::{key_type}, c.service, c.response_status, c.fetched_at, c.expires_at, c.member, c.flagged
        FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) WITH ORDINALITY AS k (raw, cache_key, n)
        CROSS JOIN pg_catalog.unnest($3) AS s (service)
        CROSS JOIN LATERAL (SELECT e.service, e.response_status, e.fetched_at, e.expires_at, {member} AS member,
                CASE WHEN e.service = ANY ($4) THEN {schema}.enrich_flagged(e.service, e.payload) END AS flagged
            FROM {schema}.enrichment_cache e WHERE e.service = s.service AND e.cache_key = k.cache_key LIMIT 1) c
        WHERE c.response_status IN ('success', 'not_found')",
        key_type = comparable(&source.key).0,
    )
}
