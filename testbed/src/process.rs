//! Looking at processes and signalling them, by number and never by name.

use crate::wait::try_wait_until;
use rustix::process::{kill_process, Pid, Signal};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// A process that is there and not merely waiting to be reaped.
pub fn is_alive(pid: i32) -> bool {
    state(pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

/// The living processes that work in this directory or below: for a data directory, the whole server,
/// also what an unexpected end of its postmaster has left behind.
pub fn working_in(directory: &Path) -> Vec<i32> {
    let Ok(directory) = directory.canonicalize() else {
        return Vec::new();
    };
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(&directory)))
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| is_alive(*pid))
        .collect()
}

/// Sends a signal; a process that has gone already is no error.
pub fn signal(pid: i32, which: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = kill_process(pid, which);
    }
}

/// Waits until none of the processes is left.
pub fn wait_gone(what: &str, pids: &[i32], within: Duration) -> Result<(), String> {
    try_wait_until(what, within, || {
        let left: Vec<_> = pids.iter().filter(|pid| is_alive(**pid)).collect();
        if left.is_empty() {
            Ok(Some(()))
        } else {
            Err(format!("still there: {left:?}"))
        }
    })
}

/// proc(5), /proc/pid/stat: the name stands in brackets and may hold anything, then comes the state.
fn state(pid: i32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat[stat.rfind(')')? + 1..].trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_child_is_seen_until_it_is_killed() {
        let here = std::env::temp_dir();
        let mut child = Command::new("sleep").arg("60").current_dir(&here).spawn().unwrap();
        let pid = child.id() as i32;
        assert!(is_alive(pid));
        assert!(working_in(&here).contains(&pid));
        signal(pid, Signal::KILL);
        wait_gone("the child", &[pid], Duration::from_secs(5)).unwrap();
        assert!(!working_in(&here).contains(&pid));
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_stays_is_named() {
        let me = std::process::id() as i32;
        let why = wait_gone("me", &[me], Duration::from_millis(10)).unwrap_err();
        assert!(why.contains(&me.to_string()), "{why}");
    }
}
