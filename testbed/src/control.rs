//! Starting, stopping and killing a cluster.

use crate::cluster::{Cluster, StopMode};
use crate::leftovers;
use crate::process;
use crate::wait::try_wait_until;
use rustix::process::Signal;
use std::fs::File;
use std::time::Duration;

/// A recovery after a crash is part of a start.
const START_WITHIN: Duration = Duration::from_secs(90);
const STOP_WITHIN: Duration = Duration::from_secs(60);

impl Cluster {
    /// Starts the stopped server, on the port it had; returns once it answers.
    ///
    /// # Errors
    /// With the end of the log when it does not come up, and when it runs already.
    pub fn start_again(&self) -> Result<(), String> {
        let mut child = self.child();
        if self.is_running() {
            return Err("the server runs already".to_string());
        }
        let problem = |why: std::io::Error| format!("cannot start the server: {why}");
        let log = File::options().create(true).append(true).open(self.log_file()).map_err(problem)?;
        let log_before = self.log().len();
        let mut server = self
            .server_command("postgres")
            .arg("-D")
            .arg(self.data_dir())
            .stdout(log.try_clone().map_err(problem)?)
            .stderr(log)
            .spawn()
            .map_err(problem)?;
        let started = try_wait_until("the server to accept connections", START_WITHIN, || {
            if let Some(status) = server.try_wait().map_err(problem)? {
                return Ok(Some(Err(format!("the server did not start ({status})"))));
            }
            match self.try_client("postgres") {
                Ok(_) => Ok(Some(Ok(()))),
                Err(why) => Err(why.to_string()),
            }
        });
        match started.and_then(|outcome| outcome) {
            Ok(()) => {
                *child = Some(server);
                Ok(())
            }
            Err(why) => {
                leftovers::end_server(&self.data_dir());
                let _ = server.wait();
                Err(format!("{why}; its log:\n{}", self.log().get(log_before..).unwrap_or_default()))
            }
        }
    }

    /// Stops the server and waits until all its processes are gone; a stopped one stays stopped.
    ///
    /// # Errors
    /// When it is still there after 60 seconds, as with [`StopMode::Smart`] and an open session.
    pub fn stop(&self, mode: StopMode) -> Result<(), String> {
        let mut child = self.child();
        if let Some(postmaster) = self.postmaster_pid() {
            let everything = process::working_in(&self.data_dir());
            // https://www.postgresql.org/docs/15/server-shutdown.html
            let signal = match mode {
                StopMode::Smart => Signal::TERM,
                StopMode::Fast => Signal::INT,
                StopMode::Immediate => Signal::QUIT,
            };
            process::signal(postmaster, signal);
            process::wait_gone("the server to stop", &everything, STOP_WITHIN)?;
        }
        if let Some(mut child) = child.take() {
            child.wait().map_err(|why| format!("cannot wait for the server: {why}"))?;
        }
        Ok(())
    }

    /// A fast stop and a start.
    ///
    /// # Errors
    /// Those of [`Cluster::stop`] and [`Cluster::start_again`].
    pub fn restart(&self) -> Result<(), String> {
        self.stop(StopMode::Fast)?;
        self.start_again()
    }

    /// The end of power, as far as processes see it: SIGKILL to the postmaster first, then to
    /// everything of the server; returns when nothing of it is left. What had been written stays
    /// written, as the kernel lives on.
    pub fn kill_postmaster_9(&self) {
        let mut child = self.child();
        if let Some(postmaster) = self.postmaster_pid() {
            process::signal(postmaster, Signal::KILL);
        }
        leftovers::end_server(&self.data_dir());
        if let Some(mut child) = child.take() {
            let _ = child.wait();
        }
        assert!(!self.is_running(), "processes of the killed server are still there");
    }

    /// SIGKILL to one process of this server. The postmaster then ends all sessions and recovers.
    ///
    /// # Panics
    /// When the process is not one of this server's.
    pub fn kill_9(&self, pid: i32) {
        assert!(process::working_in(&self.data_dir()).contains(&pid), "process {pid} is not one of this cluster");
        process::signal(pid, Signal::KILL);
    }
}
