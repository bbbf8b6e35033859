//! A directory of files as the older programs keep it, and clusters that know of it.

use crate::support::{run, Base, SOON};
use postgres::Client;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use testbed::{wait_until, Cluster};

pub const HOUR: u64 = 3600;
pub const DAY: u64 = 24 * HOUR;

/// A directory that the server, which may run as somebody else, can read and write; it goes when this does.
pub struct Tree {
    pub root: PathBuf,
}

impl Tree {
    pub fn new(name: &str) -> Tree {
        let root = std::env::temp_dir().join(format!("enrichment-dual-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        make_folder(&root);
        Tree { root }
    }

    /// A file as an older program writes it, so many seconds ago.
    pub fn put(&self, path: &str, body: &str, seconds_ago: u64) {
        let path = self.root.join(path);
        make_folder(path.parent().expect("a folder"));
        fs::write(&path, body).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).expect("permissions");
        let at = SystemTime::now() - Duration::from_secs(seconds_ago);
        File::options().write(true).open(&path).and_then(|file| file.set_modified(at)).expect("a time");
    }

    pub fn body(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.join(path)).ok()
    }

    /// Time of change in microseconds since 1970.
    pub fn changed(&self, path: &str) -> Option<i64> {
        let file = fs::metadata(self.root.join(path)).ok()?;
        Some(file.mtime() * 1_000_000 + file.mtime_nsec() / 1000)
    }

    pub fn there(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Waits until a file holds this.
    #[track_caller]
    pub fn wait_for(&self, path: &str, body: &str) {
        wait_until(&format!("{path} to hold {body}"), SOON, || match self.body(path) {
            Some(found) if found == body => Ok(Some(())),
            found => Err(format!("{found:?}")),
        });
    }

    /// The paths of all files, in order.
    pub fn files(&self) -> Vec<String> {
        fn walk(root: &Path, folder: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    walk(root, &entry.path(), found);
                } else {
                    let path = entry.path();
                    found.push(path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned());
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root, &self.root, &mut found);
        found.sort();
        found
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// Makes a folder and those above it, open to everybody.
pub fn make_folder(folder: &Path) {
    if folder.is_dir() {
        return;
    }
    make_folder(folder.parent().expect("a folder above"));
    fs::create_dir(folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display()));
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).expect("permissions");
}

/// A cluster whose disk cache is this tree.
pub fn cluster(name: &str, tree: &Tree, mode: &str) -> Cluster {
    Cluster::builder(name)
        .preload(true)
        .setting("max_worker_processes", "40")
        .setting("autovacuum", "off")
        .setting("enrichment_cache.disk_cache_dir", &tree.root.display().to_string())
        .setting("enrichment_cache.disk_cache_mode", mode)
        .start()
        .unwrap_or_else(|why| panic!("{why}"))
}

/// A database in a cluster of its own with this tree.
pub fn base(name: &str, tree: &Tree, mode: &str) -> Base {
    Base::in_cluster(&Arc::new(cluster(name, tree, mode)), "dual", &["--limits", "none"])
}

/// What DShield says of an address, compact.
pub fn dshield(key: &str, count: u32) -> String {
    format!(r#"{{"ip":{{"count":{count},"number":"{key}"}}}}"#)
}

/// Where the older programs keep that.
pub fn dshield_path(key: &str) -> String {
    format!("dshield/{}.json", key.replace('.', "/"))
}

/// Stores what DShield says of an address.
pub fn store(client: &mut Client, key: &str, count: u32) {
    run(client, &format!("SELECT enrich_store('dshield', '{key}', '{}')", dshield(key, count)));
}
