//! The one door to the wall clock for code that runs outside a transaction.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::core::Micros;

/// Now, in microseconds since the Unix epoch, UTC; 0 on a machine whose clock stands before 1970.
pub fn now() -> Micros {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Micros::try_from(since.as_micros()).unwrap_or(Micros::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_microseconds_since_1970() {
        let seconds_2020 = 1_577_836_800;
        let seconds_2200 = 7_258_118_400;
        assert!((seconds_2020..seconds_2200).contains(&(now() / 1_000_000)));
    }
}
