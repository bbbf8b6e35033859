//! Every setting of the extension, in one place: name, unit, bounds, who may change it; read through typed getters.

use pgrx::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::CString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static DATABASES: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"*"));
static CONCURRENCY: GucSetting<i32> = GucSetting::<i32>::new(32);
static USER_AGENT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"enrichment_cache"));
static CONTACT: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static ALLOW_PRIVATE_HOSTS: GucSetting<bool> = GucSetting::<bool>::new(false);
static CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static HTTP_PROXY: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static SECRETS_DIR: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static CLEANUP_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(3600);
static STATS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);
static SWEEP_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(300);

static DISK_CACHE_DIR: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static DISK_CACHE_MODE: GucSetting<DiskMode> = GucSetting::<DiskMode>::new(DiskMode::Off);

/// What is done with the files of the disk cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq, pgrx::PostgresGucEnum)]
pub enum DiskMode {
    #[name = c"off"]
    Off,
    /// What the table lacks is read from files, and taken over into the table.
    #[name = c"read"]
    Read,
    /// As `Read`, and what is stored is written into files too.
    #[name = c"write_through"]
    WriteThrough,
}

static DISK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1000);
static MAX_QUEUE: GucSetting<i32> = GucSetting::<i32>::new(2_000_000);
static LOOKUP_CACHE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);
static MEMO_SIZE: GucSetting<i32> = GucSetting::<i32>::new(256 * 1024);
static WRITE_BACK_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static TRACK_LOOKUPS: GucSetting<bool> = GucSetting::<bool>::new(true);

static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Defines the settings and reserves their prefix. Everything that steers files, hosts or secrets takes the
/// configuration file (SIGHUP); nothing is open to ordinary users.
pub fn init(preloading: bool) {
    PRELOADED.store(preloading, Ordering::Relaxed);
    let sighup = GucContext::Sighup;
    flag(c"enrichment_cache.enabled", c"Whether the workers fetch at all (kill switch).", &ENABLED);
    text(
        c"enrichment_cache.databases",
        c"Databases to serve, separated by commas; * is every one that has the extension.",
        &DATABASES,
        GucFlags::empty(),
    );
    whole(
        c"enrichment_cache.concurrency",
        c"Most HTTP calls of one database's worker at the same time (threads).",
        &CONCURRENCY,
        1,
        512,
        GucFlags::empty(),
    );
    text(c"enrichment_cache.user_agent", c"User-Agent sent to providers.", &USER_AGENT, GucFlags::empty());
    text(c"enrichment_cache.contact", c"Contact address sent to providers that ask for one (DShield); DSHIELD_EMAIL of the server's environment otherwise.", &CONTACT, GucFlags::empty());
    GucRegistry::define_bool_guc(
        c"enrichment_cache.allow_private_hosts",
        c"Whether providers may be reached at private addresses, there over plain http too.",
        c"For an on-premises provider or a test; off keeps the server from being used to reach its own network.",
        &ALLOW_PRIVATE_HOSTS,
        sighup,
        GucFlags::SUPERUSER_ONLY,
    );
    text(
        c"enrichment_cache.ca_file",
        c"PEM file of certificate authorities to trust in place of the system's.",
        &CA_FILE,
        GucFlags::SUPERUSER_ONLY,
    );
    text(
        c"enrichment_cache.http_proxy",
        c"Proxy for calls to providers (http://host:port).",
        &HTTP_PROXY,
        GucFlags::SUPERUSER_ONLY,
    );
    text(
        c"enrichment_cache.secrets_dir",
        c"Directory whose files, named as secret_name, hold the secrets.",
        &SECRETS_DIR,
        GucFlags::SUPERUSER_ONLY,
    );
    whole(
        c"enrichment_cache.cleanup_interval",
        c"Time between removals of entries past expiry and grace (0 = never).",
        &CLEANUP_INTERVAL,
        0,
        604_800,
        GucFlags::UNIT_S,
    );
    whole(
        c"enrichment_cache.stats_interval",
        c"Time between counts of the cache's entries, and removals of spend long past.",
        &STATS_INTERVAL,
        1,
        86_400,
        GucFlags::UNIT_S,
    );
    whole(
        c"enrichment_cache.sweep_interval",
        c"Time between searches of attached tables for rows that no trigger reported (0 = never).",
        &SWEEP_INTERVAL,
        0,
        604_800,
        GucFlags::UNIT_S,
    );
    whole(
        c"enrichment_cache.write_back_workers",
        c"Most processes of a database that write answers into attached tables at the same time (1 = its worker alone).",
        &WRITE_BACK_WORKERS,
        1,
        16,
        GucFlags::empty(),
    );
    text(
        c"enrichment_cache.disk_cache_dir",
        c"Directory of the disk cache that older programs read and write (an absolute path).",
        &DISK_CACHE_DIR,
        GucFlags::SUPERUSER_ONLY,
    );
    GucRegistry::define_enum_guc(
        c"enrichment_cache.disk_cache_mode",
        c"Whether files of the disk cache are read where the table has no answer, and written with what is stored.",
        c"off: not at all. read: what the table lacks is answered from files and taken over. write_through: what is stored is written into files too.",
        &DISK_CACHE_MODE,
        GucContext::Sighup,
        GucFlags::empty(),
    );
    whole(
        c"enrichment_cache.disk_timeout",
        c"How long a look-up waits for the files of the disk cache before the database answers alone.",
        &DISK_TIMEOUT,
        1,
        600_000,
        GucFlags::UNIT_MS,
    );
    whole(
        c"enrichment_cache.max_queue",
        c"Most requests that the queue of a database may hold (0 = no bound).",
        &MAX_QUEUE,
        0,
        i32::MAX,
        GucFlags::empty(),
    );
    // without preloading it says nothing, and the server takes no such setting any more
    let fixed = if preloading { GucContext::Postmaster } else { GucContext::Sighup };
    GucRegistry::define_int_guc(
        c"enrichment_cache.lookup_cache_size",
        c"Shared memory that remembers where the rows of looked-up keys stand (0 = none).",
        c"Eight bytes a key. Needs shared_preload_libraries.",
        &LOOKUP_CACHE_SIZE,
        0,
        1024 * 1024,
        fixed,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"enrichment_cache.memo_size",
        c"Most memory that one call of enrich_get in a query may use to remember answers (0 = none).",
        c"Each call in the text of a query has its own; parallel workers share one in dynamic shared memory, and have their own beside it. It is given back with the query.",
        &MEMO_SIZE,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_KB | GucFlags::EXPLAIN,
    );
    GucRegistry::define_bool_guc(
        c"enrichment_cache.track_lookups",
        c"Whether hits, misses and looked-up rows are counted.",
        c"",
        &TRACK_LOOKUPS,
        GucContext::Suset,
        GucFlags::empty(),
    );
    // SAFETY: the prefix is a C string literal that lives as long as the process.
    unsafe { pgrx::pg_sys::MarkGUCPrefixReserved(c"enrichment_cache".as_ptr()) };
}

fn flag(name: &'static std::ffi::CStr, about: &'static std::ffi::CStr, setting: &'static GucSetting<bool>) {
    GucRegistry::define_bool_guc(name, about, c"", setting, GucContext::Sighup, GucFlags::empty());
}

fn text(
    name: &'static std::ffi::CStr,
    about: &'static std::ffi::CStr,
    setting: &'static GucSetting<Option<CString>>,
    flags: GucFlags,
) {
    GucRegistry::define_string_guc(name, about, c"", setting, GucContext::Sighup, flags);
}

fn whole(
    name: &'static std::ffi::CStr,
    about: &'static std::ffi::CStr,
    setting: &'static GucSetting<i32>,
    low: i32,
    high: i32,
    flags: GucFlags,
) {
    GucRegistry::define_int_guc(name, about, c"", setting, low, high, GucContext::Sighup, flags);
}

fn string(setting: &GucSetting<Option<CString>>) -> Option<String> {
    let value = setting.get()?.into_string().ok()?;
    let value = value.trim();
    (!value.is_empty()).then(|| value.to_string())
}

fn seconds(setting: &GucSetting<i32>) -> Option<Duration> {
    let value = setting.get();
    (value > 0).then(|| Duration::from_secs(value as u64))
}

/// Whether the library was in shared_preload_libraries when the server started.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

pub fn enabled() -> bool {
    ENABLED.get()
}

/// Whether `enrichment_cache.databases` names this database.
pub fn serves(database: &str) -> bool {
    match string(&DATABASES) {
        None => true,
        Some(list) => list.split(',').map(str::trim).any(|name| name == "*" || name == database),
    }
}

pub fn concurrency() -> usize {
    CONCURRENCY.get().max(1) as usize
}

pub fn user_agent() -> String {
    string(&USER_AGENT).unwrap_or_else(|| format!("enrichment_cache/{}", env!("CARGO_PKG_VERSION")))
}

pub fn contact() -> Option<String> {
    string(&CONTACT).or_else(|| std::env::var("DSHIELD_EMAIL").ok().filter(|value| !value.trim().is_empty()))
}

pub fn allow_private_hosts() -> bool {
    ALLOW_PRIVATE_HOSTS.get()
}

pub fn ca_file() -> Option<PathBuf> {
    string(&CA_FILE).map(PathBuf::from)
}

pub fn http_proxy() -> Option<String> {
    string(&HTTP_PROXY)
}

pub fn secrets_dir() -> Option<PathBuf> {
    string(&SECRETS_DIR).map(PathBuf::from)
}

pub fn disk_cache_mode() -> DiskMode {
    DISK_CACHE_MODE.get()
}

/// Whether the table's misses are looked for in files.
#[inline]
pub fn reads_files() -> bool {
    DISK_CACHE_MODE.get() != DiskMode::Off
}

pub fn disk_cache_dir() -> Option<PathBuf> {
    string(&DISK_CACHE_DIR).map(PathBuf::from)
}

/// How long one look for the files of a key may take.
pub fn disk_timeout() -> Duration {
    Duration::from_millis(DISK_TIMEOUT.get().max(1) as u64)
}

/// Most requests that a queue may hold; `None` for no bound.
pub fn max_queue() -> Option<i64> {
    Some(i64::from(MAX_QUEUE.get())).filter(|max| *max > 0)
}

/// Bytes that one call site may use to remember answers.
pub fn memo_size() -> usize {
    MEMO_SIZE.get().max(0) as usize * 1024
}

/// Bytes of shared memory for the places of rows.
pub fn lookup_cache_size() -> usize {
    LOOKUP_CACHE_SIZE.get().max(0) as usize * 1024
}

pub fn track_lookups() -> bool {
    TRACK_LOOKUPS.get()
}

pub fn cleanup_interval() -> Option<Duration> {
    seconds(&CLEANUP_INTERVAL)
}

pub fn stats_interval() -> Duration {
    seconds(&STATS_INTERVAL).unwrap_or(Duration::from_secs(300))
}

pub fn sweep_interval() -> Option<Duration> {
    seconds(&SWEEP_INTERVAL)
}

pub fn write_back_workers() -> i32 {
    WRITE_BACK_WORKERS.get()
}
