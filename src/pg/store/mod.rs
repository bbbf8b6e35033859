//! Every SQL statement of the extension that runs from Rust, and where the extension stands.

use crate::core::error::Error;
use crate::pg::lone::Lone;
use crate::pg::spi;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::ffi::CStr;
use std::rc::Rc;

pub mod arrivals;
pub mod asking;
pub mod attempts;
pub mod breakers;
pub mod cache;
pub mod cleanup;
pub mod expressions;
pub mod files;
pub mod hibp;
pub mod history;
pub mod identity;
pub mod indicators;
pub mod lanes;
pub mod lookups;
pub mod migration;
pub mod queue;
pub mod read_again;
pub mod registry;
pub mod renewal;
pub mod sources;
pub mod user_tables;

/// The name under which the extension is installed.
pub const EXTENSION: &str = "enrichment_cache";

struct Home {
    schema: Rc<str>,
    extension: pg_sys::Oid,
    namespace: pg_sys::Oid,
    owner: pg_sys::Oid,
}

thread_local! {
    static HOME: RefCell<Option<Home>> = const { RefCell::new(None) };
}

static CATALOG_CHANGED: Lone<bool> = Lone::new(false);

/// Registers for the invalidations after which cached names, plans and services may be wrong.
pub fn init() {
    // SAFETY: the callback only sets a flag. Functions come and go with the extension, so pg_proc tells of both; its
    // schema may get another name.
    unsafe {
        for cache in [pg_sys::SysCacheIdentifier::PROCOID, pg_sys::SysCacheIdentifier::NAMESPACEOID] {
            pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(catalog_changed), pg_sys::Datum::null());
        }
    }
    registry::init();
}

#[pg_guard]
unsafe extern "C-unwind" fn catalog_changed(_arg: pg_sys::Datum, _cache: core::ffi::c_int, _hash: u32) {
    CATALOG_CHANGED.set(true);
}

/// The quoted name of the schema the extension stands in.
///
/// # Errors
/// `NotInstalled` when this database does not have the extension (any more).
pub fn schema() -> Result<Rc<str>, Error> {
    if CATALOG_CHANGED.replace(false) {
        refresh_home();
    }
    if let Some(schema) = HOME.with(|home| home.borrow().as_ref().map(|home| home.schema.clone())) {
        return Ok(schema);
    }
    refresh_home();
    HOME.with(|home| home.borrow().as_ref().map(|home| home.schema.clone())).ok_or(Error::NotInstalled)
}

/// The extension's own oid.
///
/// # Errors
/// As [`schema`].
pub fn extension() -> Result<pg_sys::Oid, Error> {
    schema()?;
    HOME.with(|home| home.borrow().as_ref().map(|home| home.extension)).ok_or(Error::NotInstalled)
}

/// Whether something changed after which the extension may stand elsewhere, or not at all.
pub fn may_have_moved() -> bool {
    CATALOG_CHANGED.get()
}

/// The schema the extension stands in.
///
/// # Errors
/// As [`schema`].
pub fn namespace() -> Result<pg_sys::Oid, Error> {
    schema()?;
    HOME.with(|home| home.borrow().as_ref().map(|home| home.namespace)).ok_or(Error::NotInstalled)
}

/// A table of the extension.
///
/// # Errors
/// As [`schema`].
pub fn table(name: &CStr) -> Result<pg_sys::Oid, Error> {
    let namespace = namespace()?;
    // SAFETY: a catalogue look-up; without such a table it gives the invalid oid, which opens nothing.
    Ok(unsafe { pg_sys::get_relname_relid(name.as_ptr(), namespace) })
}

/// The role the extension belongs to.
///
/// # Errors
/// As [`schema`].
pub fn owner() -> Result<pg_sys::Oid, Error> {
    schema()?;
    HOME.with(|home| home.borrow().as_ref().map(|home| home.owner)).ok_or(Error::NotInstalled)
}

static DISTRIBUTED: &str = "SELECT FROM pg_catalog.pg_dist_partition
    WHERE logicalrelid OPERATOR(pg_catalog.=) $1::pg_catalog.regclass";

/// Whether a table's rows lie on other servers too (Citus keeps a list of such tables).
pub fn is_distributed(relation: pg_sys::Oid) -> Result<bool, Error> {
    // SAFETY: a catalogue look-up.
    let list = unsafe {
        pg_sys::get_relname_relid(c"pg_dist_partition".as_ptr(), pg_sys::Oid::from(pg_sys::PG_CATALOG_NAMESPACE))
    };
    if list == pg_sys::InvalidOid {
        return Ok(false);
    }
    let args = [(pg_sys::BuiltinOid::OIDOID, spi::Arg::of(relation))];
    Ok(spi::run_once(DISTRIBUTED, None, &args, spi::Mode::Read, |_| {})? > 0)
}

fn refresh_home() {
    let found = look_up();
    let same = HOME.with(|home| match (&*home.borrow(), &found) {
        (Some(old), Some(new)) => old.extension == new.extension && old.schema == new.schema && old.owner == new.owner,
        (None, None) => true,
        _ => false,
    });
    if !same {
        spi::forget_plans();
        registry::forget();
        crate::pg::probe::target::forget();
        HOME.with(|home| *home.borrow_mut() = found);
    }
}

fn look_up() -> Option<Home> {
    const SQL: &str = "SELECT e.oid, pg_catalog.quote_ident(n.nspname), n.oid, e.extowner
        FROM pg_catalog.pg_extension e
        JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) e.extnamespace
        WHERE e.extname OPERATOR(pg_catalog.=) 'enrichment_cache'";
    let mut found = None;
    let each = |row: &spi::Row| {
        if let (Some(extension), Some(schema), Some(namespace), Some(owner)) =
            (row.get(1), row.text(2), row.get(3), row.get(4))
        {
            found = Some(Home { schema: Rc::from(schema.as_str()), extension, namespace, owner });
        }
    };
    let _ = spi::with_latest_snapshot(|| spi::run_once(SQL, None, &[], spi::Mode::Read, each));
    found
}
