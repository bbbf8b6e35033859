//! The provider registry as this session knows it: rows of `enrichment_service`, cached until the table changes.

use crate::core::error::Error;
use crate::core::key::KeyKind;
use crate::core::limiter::parse_limits;
use crate::core::rules::Rules;
use crate::core::service::{Method, ResponseFormat, Service};
use crate::pg::lone::Lone;
use crate::pg::spi::{self, Mode, Row, Statement};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

thread_local! {
    static SERVICES: RefCell<Option<BTreeMap<String, Arc<Service>>>> = const { RefCell::new(None) };
    static RELATION: Cell<pg_sys::Oid> = const { Cell::new(pg_sys::InvalidOid) };
    static CHANGED: Cell<bool> = const { Cell::new(false) };
    /// Read during a parallel query, under its snapshot: good for that query and no longer.
    static DATED: Cell<bool> = const { Cell::new(false) };
    /// Services for which an import has kept answers under digests of unknown keys.
    static ORPHANED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    /// Services that an attached table has.
    static ATTACHED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
}

static GENERATION: Lone<u64> = Lone::new(0);

/// Registers for the invalidation that the table's own trigger sends at each change.
pub fn init() {
    // SAFETY: the callback only compares and sets a flag.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn relation_changed(_arg: pg_sys::Datum, relation: pg_sys::Oid) {
    // InvalidOid means that everything may have changed; before the table is known, any may be the one
    let ours = RELATION.with(Cell::get);
    if relation == pg_sys::InvalidOid || ours == pg_sys::InvalidOid || relation == ours {
        CHANGED.with(|changed| changed.set(true));
        GENERATION.set(GENERATION.get() + 1);
    }
}

/// A number that grows whenever the registry may have changed.
pub fn generation() -> u64 {
    GENERATION.get()
}

pub fn forget() {
    SERVICES.with(|services| *services.borrow_mut() = None);
    RELATION.with(|relation| relation.set(pg_sys::InvalidOid));
}

/// Tells every session that the registry has changed, at commit.
pub fn announce_change(relation: pg_sys::Oid) {
    // SAFETY: queues an invalidation message of this transaction for an existing relation.
    unsafe { pg_sys::CacheInvalidateRelcacheByRelid(relation) };
}

macro_rules! all_sql {
    ($orphans:literal, $attached:literal) => {
        concat!(
            "SELECT name, enabled, key_kind, method, url,
            (SELECT pg_catalog.array_agg(h.key ORDER BY h.key) FROM pg_catalog.jsonb_each_text(headers) h),
            (SELECT pg_catalog.array_agg(h.value ORDER BY h.key) FROM pg_catalog.jsonb_each_text(headers) h),
            body, secret_name, secret_required, response_format,
            (EXTRACT(epoch FROM ttl) OPERATOR(pg_catalog.*) 1000000)::int8,
            (EXTRACT(epoch FROM not_found_ttl) OPERATOR(pg_catalog.*) 1000000)::int8,
            (EXTRACT(epoch FROM stale_ttl) OPERATOR(pg_catalog.*) 1000000)::int8,
            limits::text, max_in_flight, timeout_ms, max_bytes, rules::text, tableoid, ",
            $orphans,
            ", ",
            $attached,
            " FROM @extschema@.enrichment_service s"
        )
    };
}

static ALL: Statement = Statement {
    sql: all_sql!(
        // the first behind a name, by the index: EXISTS would read all of them where a service has none
        "coalesce((SELECT o.service OPERATOR(pg_catalog.=) s.name FROM @extschema@.enrichment_orphan o
            WHERE o.service OPERATOR(pg_catalog.>=) s.name ORDER BY o.service LIMIT 1), false)",
        "EXISTS (SELECT FROM @extschema@.enrichment_source a WHERE s.name OPERATOR(pg_catalog.=) ANY (a.services))"
    ),
    args: &[],
};
/// For a worker, which answers no look-ups and is asked to store nothing: it reads the registry all the time, and with a second table it would often hold one
/// and wait for the other while somebody drops the extension.
static ALL_FOR_WORKER: Statement = Statement { sql: all_sql!("false", "false"), args: &[] };

/// The start of the transaction in which `ORPHANED` was read.
static ORPHANED_AT: Lone<i64> = Lone::new(0);

static IN_WORKER: Lone<bool> = Lone::new(false);

/// This process is a worker.
pub fn in_worker() {
    IN_WORKER.set(true);
}

/// Looks into the registry as it stands, read again first if it may have changed.
fn with_all<T>(look: impl FnOnce(&BTreeMap<String, Arc<Service>>) -> T) -> Result<T, Error> {
    // SAFETY: a plain question about this process.
    let parallel = unsafe { pg_sys::IsInParallelMode() };
    if CHANGED.with(|changed| changed.replace(false)) || !parallel && DATED.with(|dated| dated.replace(false)) {
        forget();
    }
    crate::pg::store::schema()?;
    let known = SERVICES.with(|services| services.borrow().is_some());
    if known {
        static NONE: BTreeMap<String, Arc<Service>> = BTreeMap::new();
        return Ok(SERVICES.with(|services| look(services.borrow().as_ref().unwrap_or(&NONE))));
    }
    let (mut services, mut orphaned, mut attached) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let each = |row: &Row| {
        if let Some(oid) = row.get::<pg_sys::Oid>(20) {
            RELATION.with(|relation| relation.set(oid));
        }
        if let Some(service) = read(row) {
            if row.get(21).unwrap_or(false) {
                orphaned.insert(service.name.clone());
            }
            if row.get(22).unwrap_or(false) {
                attached.insert(service.name.clone());
            }
            services.insert(service.name.clone(), Arc::new(service));
        }
    };
    let all = if IN_WORKER.get() { &ALL_FOR_WORKER } else { &ALL };
    let mut each = each;
    spi::with_latest_snapshot(|| spi::run(all, &[], Mode::Read, &mut each))?;
    // it may have waited for an extension that was just made, with a snapshot from before there was one
    if RELATION.with(Cell::get) == pg_sys::InvalidOid {
        spi::with_latest_snapshot(|| spi::run(all, &[], Mode::Read, &mut each))?;
    }
    let value = look(&services);
    // an empty registry names no relation whose change could be heard of
    if !services.is_empty() {
        DATED.with(|dated| dated.set(parallel));
        // within one transaction only more: its snapshot may still see what others have taken over meanwhile
        let now = crate::pg::lone::transaction_start();
        ORPHANED.with(|known| match ORPHANED_AT.replace(now) == now {
            true => known.borrow_mut().extend(orphaned),
            false => *known.borrow_mut() = orphaned,
        });
        ATTACHED.with(|known| *known.borrow_mut() = attached);
        SERVICES.with(|cache| *cache.borrow_mut() = Some(services));
    }
    Ok(value)
}

/// Every registered service by name.
pub fn all() -> Result<BTreeMap<String, Arc<Service>>, Error> {
    with_all(Clone::clone)
}

/// The service of this name, as others have committed it by now: within a transaction a session hears of that only where it
/// takes a new lock, and a look-up often takes none.
///
/// # Errors
/// `UnknownService` with the names there are.
pub fn service(name: &str) -> Result<Arc<Service>, Error> {
    // SAFETY: as at any lock; the callbacks of this library set flags. Without news it is the look at one flag.
    unsafe { pg_sys::AcceptInvalidationMessages() };
    with_all(|all| all.get(name).cloned().ok_or_else(|| unknown(name, all)))?
}

/// Whether an import has kept answers of a registered service under digests of keys that were not known, as far as was heard
/// when the registry was last read.
pub fn has_orphans(service: &str) -> bool {
    ORPHANED.with(|known| known.borrow().contains(service))
}

/// Whether a table is attached with this service, as far as was heard when the registry was last read.
pub fn is_attached(service: &str) -> bool {
    ATTACHED.with(|known| known.borrow().contains(service))
}

/// Tells every session, at commit, that a service has or has no such answers now; this one is told that they are to be looked at.
///
/// # Errors
/// What reading the registry raises, where this session has not read it yet.
pub fn announce_orphans() -> Result<(), Error> {
    let relation = with_all(|_| RELATION.with(Cell::get))?;
    if relation != pg_sys::InvalidOid {
        announce_change(relation);
    }
    Ok(())
}

fn unknown(name: &str, all: &BTreeMap<String, Arc<Service>>) -> Error {
    Error::UnknownService { name: crate::core::redact::shorten(name, 60), known: all.keys().cloned().collect() }
}

// A row that does not parse cannot be: the table's CHECK runs the same parsers. One that a later release no longer
// reads is left out, and its name is then an unknown service.
fn read(row: &Row) -> Option<Service> {
    let names: Vec<String> = row.get(6).unwrap_or_default();
    let values: Vec<Option<String>> = row.get(7).unwrap_or_default();
    let headers = names.into_iter().zip(values.into_iter().map(Option::unwrap_or_default)).collect();
    Some(Service {
        name: row.text(1)?,
        enabled: row.get(2)?,
        key_kind: KeyKind::parse(&row.text(3)?)?,
        method: Method::parse(&row.text(4)?)?,
        url: row.text(5)?,
        headers,
        body: row.text(8),
        secret_name: row.text(9),
        secret_required: row.get(10)?,
        response_format: ResponseFormat::parse(&row.text(11)?)?,
        ttl: row.get(12)?,
        not_found_ttl: row.get(13)?,
        stale_ttl: row.get(14)?,
        limits: parse_limits(&row.text(15)?).ok()?,
        max_in_flight: row.get::<i32>(16)?.max(1) as u32,
        timeout_ms: row.get::<i32>(17)?.max(1) as u32,
        max_bytes: row.get::<i32>(18)?.max(1) as u64,
        rules: Rules::parse(&row.text(19)?).ok()?,
    })
}

static STORED_SECRET: Statement = Statement {
    sql: "SELECT secret FROM @extschema@.enrichment_secret WHERE secret_name OPERATOR(pg_catalog.=) $1",
    args: &[pg_sys::BuiltinOid::TEXTOID],
};

/// The secret kept in the database under this name; only the worker asks.
pub fn stored_secret(name: &str) -> Result<Option<String>, Error> {
    let mut secret = None;
    spi::run(&STORED_SECRET, &[spi::Arg::of(name)], Mode::Read, |row| secret = row.text(1))?;
    Ok(secret)
}

static SECRET_IS_STORED: Statement = Statement {
    sql: "SELECT EXISTS (SELECT FROM @extschema@.enrichment_secret WHERE secret_name OPERATOR(pg_catalog.=) $1)",
    args: &[pg_sys::BuiltinOid::TEXTOID],
};

/// Whether the database keeps a secret under this name.
pub fn secret_is_stored(name: &str) -> Result<bool, Error> {
    let mut stored = false;
    spi::run(&SECRET_IS_STORED, &[spi::Arg::of(name)], Mode::Read, |row| stored = row.get(1).unwrap_or(false))?;
    Ok(stored)
}

static SET_SECRET: Statement = Statement {
    sql: "INSERT INTO @extschema@.enrichment_secret (secret_name, secret) VALUES ($1, $2)
        ON CONFLICT (secret_name) DO UPDATE SET secret = EXCLUDED.secret, set_at = pg_catalog.now()",
    args: &[pg_sys::BuiltinOid::TEXTOID, pg_sys::BuiltinOid::TEXTOID],
};

static DROP_SECRET: Statement = Statement {
    sql: "DELETE FROM @extschema@.enrichment_secret WHERE secret_name OPERATOR(pg_catalog.=) $1",
    args: &[pg_sys::BuiltinOid::TEXTOID],
};

/// Keeps a secret under this name, or removes it when `None`.
pub fn set_secret(name: &str, secret: Option<&str>) -> Result<(), Error> {
    match secret {
        Some(secret) => spi::run(&SET_SECRET, &[spi::Arg::of(name), spi::Arg::of(secret)], Mode::Write, |_| {})?,
        None => spi::run(&DROP_SECRET, &[spi::Arg::of(name)], Mode::Write, |_| {})?,
    };
    Ok(())
}
