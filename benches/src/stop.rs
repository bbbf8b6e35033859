//! Ctrl-C and SIGTERM: the running statement is cancelled, the error travels up, and the cluster goes with its value.
//!
//! The signals are blocked in every thread but one, which waits for them. The second signal ends the program at
//! once; the next run then removes what is left.

use crate::Result;
use nix::sys::signal::{SigSet, Signal};
use postgres::{CancelToken, NoTls};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A cancellation that came between two statements is lost, hence again and again.
const BETWEEN_CANCELS: Duration = Duration::from_millis(200);

#[derive(Default)]
struct Inner {
    signal: AtomicI32,
    next: AtomicU64,
    sessions: Mutex<HashMap<u64, CancelToken>>,
}

/// Whether the program was asked to end, and the sessions to be cancelled then.
#[derive(Clone, Default)]
pub struct Stop(Arc<Inner>);

/// While it lives, the session is cancelled when the program is asked to end.
pub struct Registration {
    stop: Stop,
    number: u64,
}

impl Stop {
    /// Blocks the signals in this thread and those it makes, and waits for them in one of its own.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn install() -> Result<Self> {
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGINT);
        signals.add(Signal::SIGTERM);
        signals.thread_block()?;
        let stop = Self::default();
        let ours = stop.clone();
        std::thread::spawn(move || {
            let Ok(first) = signals.wait() else { return };
            ours.0.signal.store(first as i32, Ordering::SeqCst);
            let cancelling = ours.clone();
            std::thread::spawn(move || cancelling.cancel_for_ever());
            if let Ok(second) = signals.wait() {
                std::process::exit(128 + second as i32);
            }
        });
        Ok(stop)
    }

    fn cancel_for_ever(&self) {
        loop {
            let tokens: Vec<CancelToken> = self.sessions().values().cloned().collect();
            for token in tokens {
                let _ = token.cancel_query(NoTls);
            }
            std::thread::sleep(BETWEEN_CANCELS);
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<u64, CancelToken>> {
        self.0.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the signal that came first.
    pub fn signal(&self) -> Option<i32> {
        match self.0.signal.load(Ordering::SeqCst) {
            0 => None,
            signal => Some(signal),
        }
    }

    /// To be asked before each thing that takes time.
    ///
    /// # Errors
    /// When the program was asked to end.
    pub fn check(&self) -> Result<()> {
        match self.signal() {
            None => Ok(()),
            Some(_) => Err("interrupted".into()),
        }
    }

    /// Has the session cancelled at the end.
    pub fn register(&self, token: CancelToken) -> Registration {
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.sessions().insert(number, token);
        Registration { stop: self.clone(), number }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.stop.sessions().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_has_asked_to_end_until_a_signal_comes() {
        let stop = Stop::default();
        assert!(stop.check().is_ok());
        stop.0.signal.store(2, Ordering::SeqCst);
        assert_eq!(stop.signal(), Some(2));
        assert!(stop.check().is_err());
    }
}
