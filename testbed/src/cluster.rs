//! A private PostgreSQL cluster: what it is and where, and its end.

use crate::builder::ClusterBuilder;
use crate::leftovers;
use crate::place::Account;
use crate::process;
use crate::stage::Stage;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Lines of the log that a panic shows.
const LOG_LINES_SHOWN: usize = 80;

/// Keys of real providers must not get into a test's server.
const NOT_INHERITED: &[&str] =
    &["VT_API_KEY", "DSHIELD_EMAIL", "URLHAUS_API_KEY", "SPUR_API_KEY", "PGDATA", "PGOPTIONS"];

/// How a server is asked to stop; the words are those of `pg_ctl stop -m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopMode {
    /// When the last session has left.
    Smart,
    /// Sessions are ended, a checkpoint is written.
    Fast,
    /// At once; the next start recovers from the log.
    Immediate,
}

/// A running (or stopped) cluster of its own, with its own port, socket, log and directory.
///
/// Every method takes `&self`, so that threads of a test can share it. On drop the server is
/// stopped at once and its files are removed, unless they are kept.
pub struct Cluster {
    base: PathBuf,
    socket: PathBuf,
    port: u16,
    stage: Stage,
    account: Option<Account>,
    environment: Vec<(String, String)>,
    at_end: AtEnd,
    child: Mutex<Option<Child>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    Remove,
    Stop,
    Leave,
}

impl Cluster {
    /// Begins the description of a cluster; `name` shows in its directory's name.
    pub fn builder(name: &str) -> ClusterBuilder {
        ClusterBuilder::new(name)
    }

    pub(crate) fn new(
        base: PathBuf,
        socket: PathBuf,
        stage: Stage,
        account: Option<Account>,
        environment: Vec<(String, String)>,
        keep: bool,
    ) -> Self {
        let at_end = if keep { AtEnd::Stop } else { AtEnd::Remove };
        let child = Mutex::new(None);
        Self { base, socket, port: 0, stage, account, environment, at_end, child }
    }

    /// A cluster that another program has left running in `directory`; it is left running again.
    ///
    /// # Errors
    /// When no server runs there.
    pub fn adopt(directory: &Path) -> Result<Self, String> {
        let none = || format!("no server runs in {}", directory.display());
        let socket = leftovers::known_socket_directory(directory).ok_or_else(none)?;
        let account = crate::place::server_account()?;
        let stage = Stage::from_env()?;
        let mut cluster = Self::new(directory.to_path_buf(), socket, stage, account, Vec::new(), true);
        cluster.at_end = AtEnd::Leave;
        // the fourth line of postmaster.pid (src/include/utils/pidfile.h)
        cluster.port = cluster.pid_file_line(4).ok_or_else(none)?;
        if cluster.is_running() {
            Ok(cluster)
        } else {
            Err(none())
        }
    }

    /// Lets go of the cluster: the server goes on after this program's end.
    pub fn leave_running(mut self) {
        self.at_end = AtEnd::Leave;
    }

    /// The TCP port on 127.0.0.1, which also names the socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn set_port(&mut self, port: u16) {
        self.port = port;
    }

    /// The directory of the socket, as `host` of a connection.
    pub fn host(&self) -> String {
        self.socket.display().to_string()
    }

    /// The tree its programs come from.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// PostgreSQL's data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.base.join("data")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.base.join("log")
    }

    pub(crate) fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All the server has said since the cluster was made.
    pub fn log(&self) -> String {
        fs::read(self.log_file()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last `lines` lines of the log.
    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }

    /// The postmaster's process, while it lives.
    pub fn postmaster_pid(&self) -> Option<i32> {
        self.pid_file_line(1).filter(|pid| process::is_alive(*pid))
    }

    /// True while any process of the server is there.
    pub fn is_running(&self) -> bool {
        !process::working_in(&self.data_dir()).is_empty()
    }

    fn pid_file_line<T: std::str::FromStr>(&self, number: usize) -> Option<T> {
        let text = fs::read_to_string(self.data_dir().join("postmaster.pid")).ok()?;
        text.lines().nth(number - 1)?.trim().parse().ok()
    }

    /// A program of the stage, to be run as the account that owns the server.
    pub(crate) fn server_command(&self, program: &str) -> Command {
        use std::os::unix::process::CommandExt;
        let mut command = Command::new(self.stage.bin(program));
        // the tests' own directory may be closed to that account
        command.current_dir("/").stdin(Stdio::null());
        NOT_INHERITED.iter().for_each(|name| {
            command.env_remove(name);
        });
        if let Some(Account { uid, gid }) = self.account {
            command.uid(uid).gid(gid).env("HOME", "/nonexistent");
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn initdb(&self, encoding: &str, locale: &str) -> Result<(), String> {
        let output = self
            .server_command("initdb")
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "--no-instructions"])
            .args(["-E", encoding, "--locale", locale, "-D"])
            .arg(self.data_dir())
            .output()
            .map_err(|why| format!("cannot run initdb: {why}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("initdb failed: {}", String::from_utf8_lossy(&output.stderr).trim_end()))
    }

    /// What a failing test wants to know, on its standard error and beside the logs of `make`.
    fn show_log(&self) {
        eprintln!("--- log of {} ---", self.base.display());
        eprintln!("{}\n--- end of log ---", self.log_tail(LOG_LINES_SHOWN));
        if let (Some(logs), Some(name)) = (std::env::var_os("ENRICHMENT_LOGS"), self.base.file_name()) {
            let name = format!("server-{}.log", name.to_string_lossy());
            let _ = fs::copy(self.log_file(), Path::new(&logs).join(name));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.show_log();
        }
        if self.at_end == AtEnd::Leave {
            return;
        }
        if self.stop(StopMode::Immediate).is_err() {
            leftovers::end_server(&self.data_dir());
        }
        if self.at_end == AtEnd::Remove {
            leftovers::remove(&self.base);
        }
    }
}
