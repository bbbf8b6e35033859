//! Processors that do not sleep: where each step waits for another process, a virtual processor that halts in between and has to be woken
//! takes longer than what is measured, and not always alike.

use crate::Result;
use std::process::{Child, Command, Stdio};

/// Loops of the scheduler's idle class (`SCHED_IDLE`, sched(7)), one for each processor: they run only where nobody else wants to. They end
/// when this is dropped, or with this process.
pub struct Awake(Vec<Child>);

impl Awake {
    /// # Errors
    /// When util-linux' `setpriv` cannot be run.
    pub fn start() -> Result<Self> {
        let mut awake = Awake(Vec::new());
        for _ in 0..std::thread::available_parallelism()?.get() {
            let looping = Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "chrt", "--idle", "0", "sh", "-c", "while :; do :; done"])
                .stdin(Stdio::null())
                .spawn()
                .map_err(|why| format!("setpriv and chrt (package util-linux) keep the processors awake: {why}"))?;
            awake.0.push(looping);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for looping in &mut self.0 {
            // one that has ended already is no trouble
            let _ = looping.kill();
            let _ = looping.wait();
        }
    }
}
