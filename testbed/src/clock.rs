//! A clock that tests can set forward while servers and providers run: a small library (`clock.c`), loaded into them, adds
//! what stands in a file to the wall clock. Time goes on as usual in between; monotonic clocks, and with them sleeping
//! and time-outs, stay real.

use crate::names;
use crate::place;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const SOURCE: &str = include_str!("clock.c");

/// The clock of the programs that were started with it.
pub struct Clock {
    directory: PathBuf,
    file: File,
    /// Microseconds ahead of the real one.
    ahead: AtomicU64,
}

impl Clock {
    /// A clock that shows the real time until it is set forward.
    ///
    /// # Panics
    /// When the library cannot be made: it takes a C compiler, as building Rust does.
    #[track_caller]
    pub fn new(name: &str) -> Self {
        Self::make(name).unwrap_or_else(|why| panic!("{why}"))
    }

    fn make(name: &str) -> Result<Self, String> {
        // among the clusters, where what a killed program has left is swept
        let directory = place::state().join("clusters").join(names::of_this_run(name));
        place::make_directory(&directory, None)?;
        let problem = |why: std::io::Error| format!("cannot make a clock in {}: {why}", directory.display());
        let source = directory.join("clock.c");
        fs::write(&source, SOURCE).map_err(problem)?;
        let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".to_string());
        let output = Command::new(compiler)
            .args(["-shared", "-fPIC", "-O2", "-o"])
            .args([directory.join("clock.so"), source])
            .output()
            .map_err(problem)?;
        if !output.status.success() {
            return Err(format!("cannot compile clock.c: {}", String::from_utf8_lossy(&output.stderr).trim_end()));
        }
        let file = directory.join("ahead");
        fs::write(&file, 0_u64.to_ne_bytes()).map_err(problem)?;
        let file = File::options().write(true).open(file).map_err(problem)?;
        Ok(Self { directory, file, ahead: AtomicU64::new(0) })
    }

    /// What a program's environment needs to go by this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        let pairs = [("LD_PRELOAD", "clock.so"), ("TESTBED_CLOCK", "ahead")];
        let path = |name| self.directory.join(name).display().to_string();
        pairs.into_iter().map(|(variable, name)| (variable.to_string(), path(name))).collect()
    }

    /// Sets the clock forward, for all its programs at the same moment.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[track_caller]
    pub fn advance(&self, by: Duration) {
        let by = by.as_micros() as u64;
        let ahead = self.ahead.fetch_add(by, Ordering::SeqCst) + by;
        if let Err(why) = self.file.write_all_at(&ahead.to_ne_bytes(), 0) {
            panic!("cannot set the clock in {}: {why}", self.directory.display());
        }
    }

    /// What the clock shows, in microseconds since 1970.
    pub fn now(&self) -> i64 {
        let real = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64);
        (real + self.ahead.load(Ordering::SeqCst)) as i64
    }

    /// Sets the clock forward to a moment, in microseconds since 1970; one that has passed changes nothing.
    #[track_caller]
    pub fn advance_to(&self, moment: i64) {
        if let Ok(by) = u64::try_from(moment.saturating_sub(self.now())) {
            self.advance(Duration::from_micros(by));
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
