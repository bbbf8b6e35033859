//! pgbench: transactions per second over the wire.

use crate::bed::Bed;
use crate::Result;
use std::io::{Read, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A child that does not outlive the value.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Transactions per second of a script with prepared statements; `options` are settings of its sessions (`-c a=b`).
///
/// # Errors
/// When pgbench fails, with what it said.
pub fn run(bed: &Bed, database: &str, script: &str, clients: u32, seconds: u32, options: &str) -> Result<f64> {
    bed.stop.check()?;
    let clients = clients.to_string();
    let mut command = bed.client_program("pgbench");
    command.args(["-n", "-M", "prepared", "-c", &clients, "-j", &clients, "-T", &seconds.to_string(), "-f", "-"]);
    command.arg(database).env("PGOPTIONS", options);
    let mut child = Ended(
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|why| format!("pgbench: {why}"))?,
    );
    child.0.stdin.take().ok_or("pgbench has no input")?.write_all(script.as_bytes())?;
    let status = loop {
        if let Some(status) = child.0.try_wait()? {
            break status;
        }
        bed.stop.check()?;
        std::thread::sleep(LOOK_EVERY);
    };
    let mut said = String::new();
    let mut complained = String::new();
    child.0.stdout.take().ok_or("pgbench has no output")?.read_to_string(&mut said)?;
    child.0.stderr.take().ok_or("pgbench has no errors")?.read_to_string(&mut complained)?;
    match tps(&said) {
        Some(tps) if status.success() => Ok(tps),
        _ => Err(format!("pgbench failed ({status}): {complained}{said}").into()),
    }
}

/// The figure pgbench ends with (PostgreSQL 14 and later leave out the time for connecting).
fn tps(said: &str) -> Option<f64> {
    let failed = said.lines().find_map(|line| line.strip_prefix("number of failed transactions: "));
    if failed.is_some_and(|failed| !failed.starts_with("0 ")) {
        return None;
    }
    said.lines().find_map(|line| line.strip_prefix("tps = "))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_read_only_when_nothing_failed() {
        let good = "number of failed transactions: 0 (0.000%)\ntps = 61234.5 (without initial connection time)\n";
        assert_eq!(tps(good), Some(61234.5));
        assert_eq!(tps(&good.replace(": 0 (0.000%)", ": 3 (0.001%)")), None);
        assert_eq!(tps("nothing"), None);
    }
}
