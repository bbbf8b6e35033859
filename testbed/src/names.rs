//! Names of directories that belong to one run: `<name>-<pid of the test program>-<n>`.

use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(1);

/// A name no other cluster of this or another living process has.
pub fn of_this_run(name: &str) -> String {
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The process that made a directory of this name.
pub fn owner(directory: &str) -> Option<i32> {
    let mut parts = directory.rsplitn(3, '-');
    let counter = parts.next()?;
    let pid = parts.next()?;
    parts.next()?;
    counter.parse::<u32>().ok()?;
    pid.parse().ok().filter(|pid| *pid > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_owner() {
        assert_eq!(owner(&of_this_run("two-words")), Some(std::process::id() as i32));
    }

    #[test]
    fn a_foreign_name_has_no_owner() {
        for name in ["demo", "a-b-c", "a-0-1", "-12", "12-3", "a--5-1x"] {
            assert_eq!(owner(name), None, "{name}");
        }
    }
}
