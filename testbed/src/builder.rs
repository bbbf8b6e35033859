//! How a cluster is asked for.

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::leftovers;
use crate::names;
use crate::place;
use crate::port::free_port;
use crate::stage::Stage;
use std::fs;
use std::path::{Path, PathBuf};

/// Another test program may take the free port in between.
const PORTS_TRIED: usize = 5;

/// Loaded settings of every cluster: small, without TCP from outside, log in plain lines.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("unix_socket_permissions", "0777"),
    ("logging_collector", "off"),
    ("log_line_prefix", "%m [%p] %b %d "),
    ("log_timezone", "UTC"),
    ("timezone", "UTC"),
    ("lc_messages", "C"),
    ("shared_buffers", "32MB"),
    ("max_connections", "60"),
];

/// Nothing of a test's cluster has to outlive the machine.
const CARELESS: &[(&str, &str)] = &[("fsync", "off"), ("full_page_writes", "off")];

/// What the extension needs to work against providers on loopback.
const PRELOAD: &[(&str, &str)] = &[
    ("shared_preload_libraries", "enrichment_cache"),
    ("enrichment_cache.allow_private_hosts", "on"),
    ("enrichment_cache.contact", "tests@example.org"),
];

/// A cluster that is not there yet. See [`Cluster::builder`].
#[derive(Clone, Debug)]
pub struct ClusterBuilder {
    name: String,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    preload: bool,
    durable: bool,
    keep: bool,
    directory: Option<PathBuf>,
    encoding: String,
    locale: String,
    primary: Option<String>,
}

impl ClusterBuilder {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_string(),
            settings: Vec::new(),
            environment: Vec::new(),
            preload: false,
            durable: false,
            keep: false,
            directory: None,
            encoding: "UTF8".to_string(),
            locale: "C.UTF-8".to_string(),
            primary: None,
        }
    }

    /// A line of `postgresql.conf`; the last one of a name holds.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_string(), value.to_string()));
        self
    }

    /// Preloads the extension's library, lets it call providers on loopback, and gives it a contact.
    pub fn preload(mut self, preload: bool) -> Self {
        self.preload = preload;
        self
    }

    /// A variable of the server's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_string(), value.to_string()));
        self
    }

    /// The clock its processes go by.
    pub fn clock(mut self, clock: &Clock) -> Self {
        self.environment.extend(clock.environment());
        self
    }

    /// Writes to disk as a real server does; off by default.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Where it lives, instead of a directory of its own under `clusters/` of the state directory.
    /// A cluster that is there already is started again, with the settings given now.
    pub fn dir(mut self, directory: impl AsRef<Path>) -> Self {
        self.directory = Some(directory.as_ref().to_path_buf());
        self
    }

    /// Leaves the files where they are when the cluster is dropped; the server is stopped all the same.
    pub fn keep(mut self, keep: bool) -> Self {
        self.keep = keep;
        self
    }

    /// Encoding of the databases, `UTF8` unless said otherwise.
    pub fn encoding(mut self, encoding: &str) -> Self {
        self.encoding = encoding.to_string();
        self
    }

    /// Locale of the databases, `C.UTF-8` unless said otherwise (`C` goes with every encoding).
    pub fn locale(mut self, locale: &str) -> Self {
        self.locale = locale.to_string();
        self
    }

    /// A hot standby that streams from a running cluster. It gets the settings given here, not the primary's.
    pub fn standby_of(mut self, primary: &Cluster) -> Self {
        self.primary = Some(primary.dsn("postgres"));
        self
    }

    /// Makes the cluster and starts it; returns once it answers.
    ///
    /// # Errors
    /// When there is no stage, or when the server does not come up: then with the end of its log.
    pub fn start(self) -> Result<Cluster, String> {
        let stage = Stage::from_env()?;
        let account = place::server_account()?;
        let clusters = place::state().join("clusters");
        leftovers::sweep_once(&clusters);

        let base = match &self.directory {
            Some(given) => std::path::absolute(given).map_err(|why| why.to_string())?,
            None => clusters.join(names::of_this_run(&self.name)),
        };
        place::make_directory(&base, account)?;
        let socket = leftovers::socket_directory(&base)?;
        place::make_directory(&socket, account)?;
        if self.keep || self.directory.is_some() {
            leftovers::mark_kept(&base)?;
        }

        let environment = self.environment.clone();
        let mut cluster = Cluster::new(base, socket, stage, account, environment, self.keep);
        if !cluster.data_dir().join("PG_VERSION").exists() {
            match &self.primary {
                Some(primary) => cluster.copy_from(primary)?,
                None => cluster.initdb(&self.encoding, &self.locale)?,
            }
        } else if cluster.is_running() {
            return Err(format!("a server runs in {} already", cluster.data_dir().display()));
        }
        let mut attempt = 1;
        loop {
            cluster.set_port(free_port());
            self.configure(&cluster)?;
            match cluster.start_again() {
                Ok(()) => return Ok(cluster),
                Err(why) if attempt < PORTS_TRIED && why.contains("could not bind") => attempt += 1,
                Err(why) => return Err(why),
            }
        }
    }

    /// Settings stand in a file of their own, so that starting again replaces and does not pile up.
    fn configure(&self, cluster: &Cluster) -> Result<(), String> {
        let mut lines =
            vec![line("port", &cluster.port().to_string()), line("unix_socket_directories", &cluster.host())];
        let parts = [SETTINGS, if self.durable { &[] } else { CARELESS }, if self.preload { PRELOAD } else { &[] }];
        lines.extend(parts.concat().iter().map(|(name, value)| line(name, value)));
        lines.extend(self.settings.iter().map(|(name, value)| line(name, value)));

        let problem = |why: std::io::Error| format!("cannot configure the cluster: {why}");
        let data = cluster.data_dir();
        let main = data.join("postgresql.conf");
        let include = "include 'testbed.conf'\n";
        let text = fs::read_to_string(&main).map_err(problem)?;
        if !text.ends_with(include) {
            fs::write(&main, format!("{text}\n{include}")).map_err(problem)?;
        }
        fs::write(data.join("testbed.conf"), lines.concat()).map_err(problem)
    }
}

fn line(name: &str, value: &str) -> String {
    format!("{name} = '{}'\n", value.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_in_a_setting_stays_inside_it() {
        assert_eq!(line("a.b", "it's"), "a.b = 'it''s'\n");
    }
}
