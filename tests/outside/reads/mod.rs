//! Tests of reading: a database with a small universe of keys, each asked for in every form beside plain SQL.

mod interrupted;
mod memo;
mod nested;
mod parallel;
mod places;
mod read_only;
mod registry;
mod remembered;
mod rights;
mod together;

pub use parallel::force_workers;

use crate::support::{create_database, one, run, said};
use postgres::{Client, Row};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use testbed::{Cluster, ClusterBuilder};

/// All of it in one row: how many answers there were, and the differences, a line each.
const SUMMARY: &str = "SELECT count(got) FILTER (WHERE form <> 'lookup state'), coalesce(string_agg(format('%s: enrich_get(%L, %L) gives %s, plain SQL %s',
        form, service, raw, coalesce(left(got::text, 60), 'NULL'), coalesce(left(want::text, 60), 'NULL')), chr(10))
    FILTER (WHERE got IS DISTINCT FROM want), ''), min(asked_by), max(asked_by)";

/// The differences in what a view of the fixture compares, and how much of the view's asking was done in which way.
pub fn comparison(view: &str) -> String {
    let passes = if view.starts_with("crowded") { "max(passes) - min(passes)" } else { "0::int8" };
    format!("{SUMMARY}, {passes} FROM {view}")
}

/// What a comparison saw.
#[derive(Clone, Copy, Default)]
pub struct Seen {
    pub answers: i64,
    /// Comparisons that parallel workers made.
    pub by_workers: usize,
    /// Passes that look-ups made over the whole table.
    pub passes: i64,
}

impl Seen {
    /// What a row of a comparison says, made in the session of process `pid`.
    pub fn of(row: &Row, pid: i32) -> Seen {
        let askers: [Option<i32>; 2] = [row.get(2), row.get(3)];
        let by_workers = usize::from(askers.iter().flatten().any(|asker| *asker != pid));
        Seen { answers: row.get(0), by_workers, passes: row.get::<_, Option<i64>>(4).unwrap_or(0) }
    }
}

impl std::ops::AddAssign for Seen {
    fn add_assign(&mut self, other: Seen) {
        self.answers += other.answers;
        self.by_workers += other.by_workers;
        self.passes += other.passes;
    }
}

/// How many answers a comparison saw; panics when one differs.
#[track_caller]
pub fn agreed(row: &Row) -> i64 {
    let (answers, differences): (i64, String) = (row.get(0), row.get(1));
    assert_eq!(differences, "");
    answers
}

/// Compares every reading function with plain SQL; returns how many answers there were.
#[track_caller]
pub fn agree(client: &mut Client) -> i64 {
    agree_in(client, "compared")
}

/// The same for one view of the fixture.
#[track_caller]
pub fn agree_in(client: &mut Client, view: &str) -> i64 {
    match client.query_one(&comparison(view), &[]) {
        Ok(row) => agreed(&row),
        Err(why) => panic!("{view}: {}", said(&why)),
    }
}

/// A cluster whose workers look into the tables only to count, and never ask anybody.
pub fn builder(name: &str) -> ClusterBuilder {
    Cluster::builder(name)
        .preload(true)
        .setting("max_connections", "100")
        .setting("max_worker_processes", "60")
        .setting("max_prepared_transactions", "10")
        .setting("autovacuum", "off")
        .setting("enrichment_cache.enabled", "off")
        .setting("enrichment_cache.cleanup_interval", "0")
        .setting("enrichment_cache.sweep_interval", "0")
        // the worker's own writes belong to what must not disturb a read
        .setting("enrichment_cache.stats_interval", "1s")
        .setting("log_line_prefix", "%m [%p] %e ")
}

/// The cluster that these tests share.
pub fn cluster() -> Arc<Cluster> {
    static RUNNING: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(cluster) = running.upgrade() {
        return cluster;
    }
    let cluster = Arc::new(builder("reads").start().unwrap_or_else(|why| panic!("{why}")));
    *running = Arc::downgrade(&cluster);
    cluster
}

/// A database with the extension and the fixture.
pub struct Reads {
    pub cluster: Arc<Cluster>,
    pub name: String,
}

impl Reads {
    #[track_caller]
    pub fn new(name: &str) -> Reads {
        Reads::in_cluster(&cluster(), name)
    }

    #[track_caller]
    pub fn in_cluster(cluster: &Arc<Cluster>, name: &str) -> Reads {
        create_database(cluster, name);
        let reads = Reads { cluster: cluster.clone(), name: name.to_string() };
        run(&mut reads.client(), "CREATE EXTENSION enrichment_cache");
        run(&mut reads.client(), include_str!("fixture.sql"));
        reads
    }

    /// In a cluster of its own, where no transaction of another database holds anything up.
    #[track_caller]
    pub fn apart(name: &str) -> Reads {
        let cluster = builder(name).start().unwrap_or_else(|why| panic!("{why}"));
        let reads = Reads::in_cluster(&Arc::new(cluster), name);
        reads.fill();
        reads
    }

    /// As [`Reads::new`], with a fresh answer for every key.
    #[track_caller]
    pub fn filled(name: &str) -> Reads {
        let reads = Reads::new(name);
        reads.fill();
        reads
    }

    #[track_caller]
    pub fn fill(&self) {
        self.run(
            "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT service, cache_key, made(min(n)), now() + interval '1 hour' FROM universe
            WHERE cache_key IS NOT NULL GROUP BY service, cache_key",
        );
    }

    /// A fresh answer for every key of the crowd.
    #[track_caller]
    pub fn fill_crowd(&self) {
        self.run(
            "INSERT INTO enrichment_cache (service, cache_key, payload, expires_at)
            SELECT service, cache_key, made(n), now() + interval '1 hour' FROM crowd GROUP BY n, service, cache_key",
        );
    }

    #[track_caller]
    pub fn client(&self) -> Client {
        self.cluster.client(&self.name)
    }

    #[track_caller]
    pub fn run(&self, sql: &str) {
        run(&mut self.client(), sql);
    }

    /// What the log says of a session's process.
    pub fn log_of(&self, pid: i32) -> Vec<String> {
        let mark = format!("[{pid}]");
        self.cluster.log().lines().filter(|line| line.contains(&mark)).map(str::to_string).collect()
    }
}

/// The process of a session.
#[track_caller]
pub fn pid(client: &mut Client) -> i32 {
    one(client, "SELECT pg_backend_pid()")
}

/// What a session's process holds of its own, in bytes.
#[track_caller]
pub fn anonymous(client: &mut Client) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid(client))).expect("proc(5)");
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line of its own");
    kilobytes.trim().trim_end_matches(" kB").parse::<i64>().expect("a number") * 1024
}

/// SplitMix64 (Steele, Lea, Flood 2014): the same numbers for the same seed.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
