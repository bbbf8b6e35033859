//! A worker's steps and their troubles: one that failed rests for a while, longer each time, and the others go on.

use crate::core::backoff;
use crate::core::error::Error;
use crate::core::Micros;
use crate::pg::convert;
use crate::pg::shmem::{self, Text};
use crate::pg::wake;
use std::collections::HashMap;

const SECOND: Micros = 1_000_000;
const LONGEST_REST: Micros = 60 * SECOND;

#[derive(Clone, Copy)]
struct Rest {
    until: Micros,
    failures: u32,
}

/// Which steps rest after a failure.
#[derive(Default)]
pub struct Steps {
    resting: HashMap<String, Rest>,
}

impl Steps {
    /// Runs a step unless it rests; says whether it found something to do.
    pub fn run(&mut self, name: &str, step: impl FnOnce() -> Result<bool, Error>) -> bool {
        let now = convert::clock();
        if self.resting.get(name).is_some_and(|rest| rest.until > now) {
            return false;
        }
        match step() {
            Ok(busy) => {
                if self.resting.remove(name).is_some() && self.resting.is_empty() {
                    tell("");
                }
                busy
            }
            // the extension was dropped a moment ago: the worker is about to notice and end
            Err(Error::NotInstalled) => false,
            Err(error) => {
                // from its end: it may have waited for a lock for longer than it is to rest
                self.rest(name, convert::clock(), &error);
                false
            }
        }
    }

    fn rest(&mut self, name: &str, now: Micros, error: &Error) {
        let failures = self.resting.get(name).map_or(0, |rest| rest.failures) + 1;
        let delay = backoff::delay(failures, SECOND, LONGEST_REST, 0.5);
        self.resting.insert(name.to_string(), Rest { until: now + delay, failures });
        tell(&format!("{name}: {error}"));
        // the first failure and then every eighth: a log must not fill while a table stays locked
        if failures % 8 == 1 {
            pgrx::log!(
                "enrichment_cache: {name} failed ({failures} in a row), next try in {} s: {error}",
                delay / SECOND
            );
        }
    }

    /// When the first resting step is tried again.
    pub fn next_try(&self) -> Option<Micros> {
        let now = convert::clock();
        self.resting.values().map(|rest| rest.until).filter(|until| *until > now).min()
    }
}

/// Shows other sessions what troubles this worker now; nothing when all is well again.
fn tell(trouble: &str) {
    shmem::write(|shared| {
        if let Some(place) = shared.database_mut(wake::my_database()) {
            place.error = Text::new(trouble);
        }
    });
}
