//! Single look-ups back to back in a connection of their own, each with its time.

use super::samples::percentile;
use super::session::Session;
use crate::data::dice::Dice;
use crate::data::keys;
use crate::Result;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Microseconds of each look-up.
#[derive(Clone, Debug, Default)]
pub struct Latencies(pub Vec<f64>);

impl Latencies {
    pub fn p50(&self) -> f64 {
        percentile(&self.0, 0.5)
    }

    pub fn p99(&self) -> f64 {
        percentile(&self.0, 0.99)
    }

    pub fn p999(&self) -> f64 {
        percentile(&self.0, 0.999)
    }
}

/// The look-up by the extension, as a client sends it.
pub const GET: &str = "SELECT enrich_get('dshield', $1::text)";

/// A client that looks up random ones of the first `addresses` addresses.
pub struct Reader {
    session: Session,
    statement: postgres::Statement,
    dice: Dice,
    addresses: u64,
}

impl Reader {
    /// `sql` takes an address as its only parameter, text.
    ///
    /// # Errors
    /// The server's error.
    pub fn new(mut session: Session, sql: &str, addresses: u64, seed: u64) -> Result<Self> {
        let statement = session.prepare(sql)?;
        Ok(Self { session, statement, dice: Dice::new("reader", seed), addresses })
    }

    fn look(&mut self) -> Result<f64> {
        let key = keys::address(self.dice.below(self.addresses));
        let began = Instant::now();
        self.session.execute(&self.statement, &[&key])?;
        Ok(began.elapsed().as_nanos() as f64 / 1_000.0)
    }

    /// So many of them.
    ///
    /// # Errors
    /// The server's error.
    pub fn times(&mut self, count: u64) -> Result<Latencies> {
        (0..count).map(|_| self.look()).collect::<Result<_>>().map(Latencies)
    }

    /// One after the other until `done`.
    ///
    /// # Errors
    /// The server's error.
    pub fn until(&mut self, done: &AtomicBool) -> Result<Latencies> {
        let mut latencies = Latencies::default();
        while !done.load(Ordering::Acquire) {
            latencies.0.push(self.look()?);
        }
        Ok(latencies)
    }
}
