//! Keeps signals away from the threads of the pool.
//!
//! PostgreSQL's handlers assume the main thread: a signal that reached another one would set its latch and its flags
//! from there. A thread inherits the mask of its creator, so everything is blocked around the creation.

use nix::sys::signal::{SigSet, SigmaskHow};

/// All signals are blocked in this thread while the value lives; the former mask is back after.
pub(super) struct AllBlocked {
    former: Option<SigSet>,
}

impl AllBlocked {
    /// Blocks them. Cannot fail with the constants given; if it did, the mask would stay as it was.
    pub(super) fn here() -> Self {
        AllBlocked { former: SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK).ok() }
    }
}

impl Drop for AllBlocked {
    fn drop(&mut self) {
        if let Some(former) = &self.former {
            let _ = former.thread_set_mask();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;

    #[test]
    fn signals_are_blocked_while_the_guard_lives_and_as_before_after_it() {
        let mut usr2 = SigSet::empty();
        usr2.add(Signal::SIGUSR2);
        usr2.thread_block().unwrap();
        let before = SigSet::thread_get_mask().unwrap();
        {
            let _guard = AllBlocked::here();
            let mask = SigSet::thread_get_mask().unwrap();
            assert!(mask.contains(Signal::SIGTERM) && mask.contains(Signal::SIGUSR1));
        }
        let after = SigSet::thread_get_mask().unwrap();
        assert_eq!(before, after);
        assert!(after.contains(Signal::SIGUSR2) && !after.contains(Signal::SIGTERM));
    }
}
