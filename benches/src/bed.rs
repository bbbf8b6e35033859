//! The cluster everything is measured on: how it is set up, and the ways into it.

use crate::measure::session::Session;
use crate::settings::Settings;
use crate::stop::Stop;
use crate::{screen, Result};
use std::process::Command;
use testbed::{Cluster, Stage};

const MIB: u64 = 1 << 20;
/// What scale 1 wants; less where memory is short.
const SHARED_BUFFERS_MIB: u64 = 2048;
const LEAST_SHARED_BUFFERS_MIB: u64 = 256;
/// Free disk that scale 1 needs, in MiB.
const DISK_MIB: f64 = 20_000.0;

/// Settings of the cluster, beside shared_buffers. What is not named here has PostgreSQL's default.
const SERVER: &[(&str, &str)] = &[
    ("jit", "off"),
    ("autovacuum", "off"),
    ("work_mem", "256MB"),
    ("hash_mem_multiplier", "2.0"),
    ("maintenance_work_mem", "512MB"),
    ("max_parallel_workers_per_gather", "0"),
    ("max_parallel_workers", "8"),
    ("max_worker_processes", "16"),
    // a checkpoint comes when it is asked for, not in the middle of a measurement
    ("max_wal_size", "8GB"),
    ("checkpoint_timeout", "1h"),
    ("enrichment_cache.enabled", "off"),
    ("enrichment_cache.cleanup_interval", "0"),
    ("enrichment_cache.sweep_interval", "0"),
    ("enrichment_cache.stats_interval", "86400"),
];

/// The database of the read groups, and the one that is written to.
pub const MAIN: &str = "bench";
pub const STORE: &str = "bench_store";
pub const FETCH: &str = "bench_fetch";
pub const SOURCES: &str = "bench_sources";
pub const TEN_MILLION: &str = "bench_ten_million";

/// The running cluster, what it holds, and what was asked for.
pub struct Bed {
    pub settings: Settings,
    pub stop: Stop,
    /// Databases whose data are there.
    pub prepared: Vec<&'static str>,
    /// As written into the document.
    pub server: Vec<(String, String)>,
    cluster: Cluster,
}

impl Bed {
    /// Makes the cluster; it goes when the value goes.
    ///
    /// # Errors
    /// When the extension is not in the stage, disk or memory do not suffice, or the server does not start.
    pub fn start(settings: &Settings, stop: &Stop) -> Result<Self> {
        if !Stage::from_env()?.has_extension() {
            return Err("the extension is not in the stage: run `make bench`, or `make build` before this".into());
        }
        let mut server = vec![("shared_buffers".to_string(), format!("{}MB", shared_buffers(settings.scale)?))];
        server.extend(SERVER.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        stop.check()?;
        screen::note("starting a cluster of its own");
        let mut builder = Cluster::builder("bench").preload(true).durable(true);
        for (name, value) in &server {
            builder = builder.setting(name, value);
        }
        let cluster = builder.start()?;
        let bed = Self { settings: settings.clone(), stop: stop.clone(), prepared: Vec::new(), server, cluster };
        bed.check_disk()?;
        Ok(bed)
    }

    /// A session in a database.
    ///
    /// # Errors
    /// When the server does not let one in, or the program was asked to end.
    pub fn session(&self, database: &str) -> Result<Session> {
        self.stop.check()?;
        Session::open(self.cluster.try_client(database)?, &self.stop)
    }

    /// A bare connection to a database, for what the test bed does with it.
    ///
    /// # Errors
    /// When the server does not let one in.
    pub fn client(&self, database: &str) -> Result<postgres::Client> {
        self.stop.check()?;
        Ok(self.cluster.try_client(database)?)
    }

    /// A new database with the extension in it, and the schema `bench` for everything else.
    ///
    /// # Errors
    /// The server's error.
    pub fn create_database(&self, database: &str) -> Result<Session> {
        self.session("postgres")?.run(&format!("CREATE DATABASE {database}"))?;
        let mut session = self.session(database)?;
        session.run("CREATE EXTENSION enrichment_cache; CREATE SCHEMA bench")?;
        Ok(session)
    }

    /// The server's first process, which starts those of new sessions.
    ///
    /// # Errors
    /// When it does not run.
    pub fn postmaster(&self) -> Result<i32> {
        self.cluster.postmaster_pid().ok_or_else(|| "the server does not run".into())
    }

    /// A program of the stage, told how to reach the server.
    pub fn client_program(&self, program: &str) -> Command {
        let mut command = Command::new(self.cluster.stage().bin(program));
        command.args(["-h", &self.cluster.host(), "-p", &self.cluster.port().to_string(), "-U", "postgres"]);
        command.env_remove("PGOPTIONS");
        command
    }

    /// Fails early rather than after half an hour.
    fn check_disk(&self) -> Result<()> {
        let output = Command::new("df").arg("-Pk").arg(self.cluster.data_dir()).output()?;
        let free = free_mib(&String::from_utf8_lossy(&output.stdout));
        let wanted = (DISK_MIB * self.settings.scale) as u64;
        match free {
            Some(free) if free < wanted => Err(format!(
                "{free} MB are free where the cluster is, {wanted} MB are needed: set BENCH_SCALE lower, or \
                 ENRICHMENT_STATE to a directory with more room"
            )
            .into()),
            _ => Ok(()),
        }
    }
}

/// The fourth column of the last line of `df -P` (POSIX), in MiB.
fn free_mib(said: &str) -> Option<u64> {
    said.lines().last()?.split_whitespace().nth(3)?.parse::<u64>().ok().map(|kib| kib / 1024)
}

/// In MiB: two GiB times the scale, but not more than a quarter of the machine's memory.
fn shared_buffers(scale: f64) -> Result<u64> {
    let memory = crate::report::machine::memory().ok_or("cannot read /proc/meminfo")? / MIB;
    let wanted = (SHARED_BUFFERS_MIB as f64 * scale.min(1.0)) as u64;
    let most = memory / 4;
    if most < LEAST_SHARED_BUFFERS_MIB {
        return Err(format!("this machine has {memory} MB of memory; 1 GB is the least").into());
    }
    Ok(wanted.clamp(LEAST_SHARED_BUFFERS_MIB, most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_space_is_read_from_df() {
        let said = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 50 2048 50% /a b\n";
        assert_eq!(free_mib(said), Some(2));
        assert_eq!(free_mib(""), None);
    }

    #[test]
    fn shared_buffers_follow_the_scale_within_bounds() {
        let small = shared_buffers(0.01).unwrap();
        assert_eq!(small, LEAST_SHARED_BUFFERS_MIB);
        assert!(shared_buffers(10.0).unwrap() <= SHARED_BUFFERS_MIB);
    }
}
