//! One processor for a client and the server's new processes. A client with one statement under way and its server process
//! take turns; on two processors each turn waits for a halted one to wake up, which in a virtual machine takes longer than the
//! statement and is what would be measured.

use crate::bed::Bed;
use crate::Result;
use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;

/// This thread.
const HERE: Pid = Pid::from_raw(0);

/// While it lives, what this thread starts and what the server starts for new sessions runs on one processor.
pub struct OneProcessor {
    /// Who was put there, and where they could run before.
    before: [(Pid, CpuSet); 2],
}

impl OneProcessor {
    /// The last of those that this thread may use.
    ///
    /// # Errors
    /// When the server does not run, or the kernel refuses.
    pub fn of(bed: &Bed) -> Result<Self> {
        let one = last(&sched_getaffinity(HERE)?)?;
        let mut before = [(HERE, CpuSet::new()), (Pid::from_raw(bed.postmaster()?), CpuSet::new())];
        for (who, set) in &mut before {
            *set = sched_getaffinity(*who)?;
        }
        let placed = Self { before };
        for (who, _) in &placed.before {
            sched_setaffinity(*who, &one)?;
        }
        Ok(placed)
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        for (who, set) in &self.before {
            // one that is gone needs none
            let _ = sched_setaffinity(*who, set);
        }
    }
}

/// Only the last processor of a set.
fn last(of: &CpuSet) -> Result<CpuSet> {
    let mut only = CpuSet::new();
    let last = (0..CpuSet::count()).rev().find(|at| of.is_set(*at) == Ok(true));
    only.set(last.ok_or("there is no processor to run on")?)?;
    Ok(only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_set_is_one_of_it() {
        let mut set = CpuSet::new();
        assert!(last(&set).is_err());
        [0, 3].iter().for_each(|at| set.set(*at).unwrap());
        let only = last(&set).unwrap();
        assert_eq!([0, 3, 4].map(|at| only.is_set(at).unwrap()), [false, true, false]);
    }

    #[test]
    fn what_a_thread_starts_runs_where_the_thread_may() {
        let before = sched_getaffinity(HERE).unwrap();
        let one = last(&before).unwrap();
        sched_setaffinity(HERE, &one).unwrap();
        let child = std::process::Command::new("grep").args(["Cpus_allowed_list", "/proc/self/status"]).output();
        sched_setaffinity(HERE, &before).unwrap();
        let said = String::from_utf8(child.unwrap().stdout).unwrap();
        let only = (0..CpuSet::count()).find(|at| one.is_set(*at) == Ok(true)).unwrap();
        assert_eq!(said.split_whitespace().last(), Some(only.to_string().as_str()));
    }
}
