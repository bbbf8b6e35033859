//! `stop`: ends what `state.json` names, and nothing else.

use crate::state::State;
use crate::{place, sandbox, screen, Result};
use std::fs;
use std::path::Path;
use testbed::{Cluster, StopMode};

/// The subcommand: stops everything, removes the files, says so.
///
/// # Errors
/// When a process does not end or a file cannot be removed.
pub fn stop() -> Result<()> {
    let directory = place::directory()?;
    if !directory.exists() {
        screen::done("nothing to stop: no demo has been started");
        return Ok(());
    }
    clear(&directory)?;
    screen::done("demo stopped: server and sandbox providers ended, files removed");
    Ok(())
}

/// Stops what runs and removes the directory; nothing there is no error.
///
/// # Errors
/// As [`stop`].
pub fn clear(directory: &Path) -> Result<()> {
    if let Some(state) = State::read(directory)? {
        if let Some(cluster) = &state.cluster {
            stop_cluster(cluster)?;
        }
        if let Some(providers) = &state.sandbox {
            sandbox::stop(providers)?;
        }
    }
    if directory.exists() {
        fs::remove_dir_all(directory).map_err(|error| format!("cannot remove {}: {error}", directory.display()))?;
    }
    Ok(())
}

/// A fast stop, if a server runs there; its socket directory goes too.
fn stop_cluster(directory: &Path) -> Result<()> {
    match Cluster::adopt(directory) {
        Ok(cluster) => {
            let socket = cluster.host();
            cluster.stop(StopMode::Fast)?;
            let _ = fs::remove_dir_all(socket);
            Ok(())
        }
        Err(reason) if is_served(&directory.join("data")) => Err(reason.into()),
        Err(_) => Ok(()),
    }
}

/// Whether the process named by the data directory's pid file works in it (proc(5), `/proc/pid/cwd`).
fn is_served(data: &Path) -> bool {
    fs::read_to_string(data.join("postmaster.pid"))
        .ok()
        .and_then(|text| text.lines().next().map(|pid| format!("/proc/{}/cwd", pid.trim())))
        .and_then(|link| fs::read_link(link).ok())
        .is_some_and(|works_in| fs::canonicalize(data).is_ok_and(|data| data == works_in))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_left_behind_names_no_server() {
        let data = std::env::temp_dir().join(format!("enrichment-demo-stop-{}", std::process::id()));
        fs::create_dir_all(&data).expect("a directory");
        assert!(!is_served(&data));
        fs::write(data.join("postmaster.pid"), format!("{}\n", std::process::id())).expect("writable");
        assert!(!is_served(&data), "this process does not work there");
        assert!(stop_cluster(&data).is_ok());
        fs::remove_dir_all(&data).expect("removable");
    }
}
