//! The share of a lane's calls that goes by age alone: whatever priorities are given, what has been due longest is next sooner
//! or later.

/// One call of so many.
const EVERY: u32 = 5;

/// Counts a lane's calls.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fair {
    since: u32,
}

impl Fair {
    /// How many of the next `calls` go to what has been due longest.
    pub fn by_age(&mut self, calls: u32) -> u32 {
        let counted = self.since.saturating_add(calls);
        self.since = counted % EVERY;
        counted / EVERY
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fifth_call_goes_by_age_however_they_come() {
        for sizes in [vec![1; 40], vec![3, 7, 0, 1, 9, 20], vec![40]] {
            let mut fair = Fair::default();
            let mut calls = 0;
            for size in sizes {
                let before = calls / EVERY;
                calls += size;
                assert_eq!(fair.by_age(size), calls / EVERY - before);
            }
            assert_eq!(calls, 40);
        }
    }
}
