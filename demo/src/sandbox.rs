//! The sandbox providers as a process of their own session, so that they outlive the demo's program.

use crate::state::SandboxState;
use crate::{place, Result};
use rustix::process::{kill_process, Pid, Signal};
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const START: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(5);

/// Starts the sandbox detached and waits until it takes connections. Its output goes to `log`.
///
/// # Errors
/// When there is no sandbox program, or it ends or stays silent; the text names the log.
pub fn start(log: &Path, arguments: &[&str]) -> Result<SandboxState> {
    let program = place::sandbox_program()?;
    let port = testbed::free_port();
    let output = File::create(log)?;
    // setsid replaces itself by the program, because a child of ours is no group leader: the pid stays
    let mut child = Command::new("setsid")
        .arg(program)
        .args(["--port", &port.to_string()])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .map_err(|error| format!("cannot run setsid: {error}"))?;
    let mut ended = None;
    testbed::try_wait_until("the sandbox providers", START, || {
        ended = child.try_wait().map_err(|error| error.to_string())?;
        if ended.is_some() {
            return Ok(Some(()));
        }
        TcpStream::connect(("127.0.0.1", port)).map(|_| Some(())).map_err(|error| error.to_string())
    })?;
    match ended {
        Some(status) => Err(format!("the sandbox ended at once ({status}); see {}", log.display()).into()),
        None => Ok(SandboxState { pid: i32::try_from(child.id())?, port }),
    }
}

/// Whether the process of that number is still the sandbox we started, not one that got its number since.
pub fn is_ours(state: &SandboxState) -> bool {
    fs::read(format!("/proc/{}/cmdline", state.pid)).is_ok_and(|cmdline| names_sandbox(&cmdline, state.port))
}

fn names_sandbox(cmdline: &[u8], port: u16) -> bool {
    let words: Vec<&[u8]> = cmdline.split(|byte| *byte == 0).collect();
    let port = port.to_string();
    words[0].ends_with(b"enrichment-sandbox") && words.windows(2).any(|pair| pair == [b"--port", port.as_bytes()])
}

/// Ends the sandbox; returns whether there was one.
///
/// # Errors
/// When it does not end.
pub fn stop(state: &SandboxState) -> Result<bool> {
    let Some(pid) = Pid::from_raw(state.pid).filter(|_| is_ours(state)) else {
        return Ok(false);
    };
    kill_process(pid, Signal::TERM)?;
    let gone = || Ok((!is_ours(state)).then_some(()));
    if testbed::try_wait_until("the end of the sandbox", STOP, gone).is_err() && is_ours(state) {
        kill_process(pid, Signal::KILL)?;
        testbed::try_wait_until("the end of the sandbox", STOP, gone)?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_is_never_taken_for_the_sandbox() {
        assert!(names_sandbox(b"/x/enrichment-sandbox\0--port\08080\0--limits\0real\0", 8080));
        assert!(!names_sandbox(b"/x/enrichment-sandbox\0--port\08081\0", 8080));
        assert!(!names_sandbox(b"vi\0enrichment-sandbox\0--port\08080\0", 8080));
        assert!(!names_sandbox(b"", 8080));
        let me = SandboxState { pid: i32::try_from(std::process::id()).expect("a pid"), port: 8080 };
        assert!(!is_ours(&me));
        assert!(!stop(&me).expect("nothing to stop"));
    }
}
