//! A disk cache of files made by a test, and a database to import it into.

use crate::support::{ask, create_database, one, run, same, shared_cluster, SOON};
use postgres::Client;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use testbed::{wait_until, Cluster};

pub use enrichment_cache::core::disk::digest;

const HOUR: u64 = 3600;

/// A directory that ends with the value.
pub struct Tree {
    pub root: PathBuf,
}

impl Tree {
    pub fn new() -> Tree {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("enrichment-import-{}-{number}", std::process::id()));
        fs::create_dir_all(&root).expect("a directory");
        Tree { root }
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A file that was written so many hours ago.
    pub fn file(&self, path: &str, body: impl AsRef<[u8]>, hours: u64) -> PathBuf {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(&path, body).expect("a file");
        self.date(&path, hours);
        path
    }

    pub fn date(&self, path: &PathBuf, hours: u64) {
        let at = SystemTime::now() - Duration::from_secs(hours * HOUR);
        File::options().write(true).open(path).and_then(|file| file.set_modified(at)).expect("its time");
    }

    /// A DShield answer about an address, where today's programs put it.
    pub fn dshield(&self, address: &str, attacks: u32, hours: u64) -> PathBuf {
        let path = format!("dshield/{}.json", address.replace('.', "/"));
        self.file(&path, dshield(address, attacks), hours)
    }

    pub fn text(&self) -> &str {
        self.root.to_str().expect("a path that is UTF-8")
    }

    /// The call that imports it, with more arguments.
    pub fn import(&self, more: &str) -> String {
        format!("CALL enrich_migrate_disk('{}'{more})", self.text())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

pub fn dshield(address: &str, attacks: u32) -> String {
    format!(r#"{{"ip":{{"number":"{address}","count":{attacks},"attacks":{attacks},"ascountry":"NL"}}}}"#)
}

/// The path of a key by its digest.
pub fn by_digest(service: &str, key: &str) -> String {
    let name: String = digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{service}/{}/{name}.json", &name[..2])
}

/// A database of its own in the cluster that these tests share.
pub fn database(name: &str) -> (Arc<Cluster>, Client) {
    let cluster = shared_cluster("migration");
    create_database(&cluster, name);
    let mut client = cluster.client(name);
    run(&mut client, "CREATE EXTENSION enrichment_cache; UPDATE enrichment_service SET enabled = false");
    (cluster, client)
}

/// Makes every row, or every statement (`each`), take its time, so that who watches an import can be quicker than it.
pub fn slow_down(client: &mut Client, each: &str, seconds: f64) {
    run(
        client,
        &format!(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
                'BEGIN PERFORM pg_catalog.pg_sleep({seconds}); RETURN NEW; END';
            CREATE TRIGGER slowly BEFORE INSERT ON enrichment_cache FOR EACH {each} EXECUTE FUNCTION slowly()"
        ),
    );
}

/// Has imports wait while they are as `when` says (of a row of enrichment_migration), until `client` lets go: [`GO_ON`].
pub fn hold(client: &mut Client, when: &str) {
    run(
        client,
        &format!(
            "CREATE FUNCTION held() RETURNS trigger LANGUAGE plpgsql SET search_path = public SET lock_timeout = '2min' AS
                'BEGIN IF EXISTS (SELECT FROM enrichment_migration WHERE {}) THEN PERFORM pg_advisory_xact_lock_shared(7); END IF; RETURN NULL; END';
            CREATE TRIGGER held BEFORE INSERT ON enrichment_cache FOR EACH STATEMENT EXECUTE FUNCTION held();
            SELECT pg_advisory_lock(7)",
            when.replace('\'', "''")
        ),
    );
}

pub const GO_ON: &str = "SELECT pg_advisory_unlock(7)";

/// Waits until so many imports are held.
pub fn wait_held(client: &mut Client, imports: i64) {
    let sql = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
    wait_until("imports to be held", SOON, || same(ask::<i64>(client, sql)?, &imports));
}

/// What a call of enrich_migrate_disk reports.
pub fn report(client: &mut Client, call: &str) -> serde_json::Value {
    let rows = client.simple_query(call).unwrap_or_else(|why| panic!("{call}: {}", crate::support::said(&why)));
    let row = rows.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_string),
        _ => None,
    });
    serde_json::from_str(&row.expect("a report")).expect("JSON")
}

/// Asserts that the parts of a report add up to its files.
#[track_caller]
pub fn adds_up(report: &serde_json::Value) {
    const PARTS: [&str; 7] =
        ["imported", "older_than_row", "expired", "duplicate", "malformed", "unreadable", "unknown_key"];
    let count = |name: &str| report[name].as_i64().unwrap_or_else(|| panic!("no {name} in {report}"));
    assert_eq!(PARTS.iter().map(|part| count(part)).sum::<i64>(), count("files"), "{report}");
}

/// The parts of a report that are not nothing.
pub fn parts(report: &serde_json::Value) -> String {
    const PARTS: [&str; 8] =
        ["files", "imported", "older_than_row", "expired", "duplicate", "malformed", "unreadable", "unknown_key"];
    let some = PARTS.iter().filter(|part| report[**part] != 0);
    some.map(|part| format!("{part} {}", report[*part])).collect::<Vec<_>>().join(", ")
}

/// What the cache holds, as one text: all but what a row gets anew with each change.
pub fn cached(client: &mut Client) -> String {
    one(
        client,
        "SELECT coalesce(string_agg((to_jsonb(c) - '{id,version,accessed_at}'::text[])::text, E'\\n' ORDER BY service, cache_key), '')
        FROM enrichment_cache c",
    )
}
