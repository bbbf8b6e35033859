//! When a failed call is tried again.

use super::{Micros, SECOND};

/// The wait after the first failure.
pub const BASE: Micros = 30 * SECOND;
/// The longest wait.
pub const CAP: Micros = 6 * 3600 * SECOND;
/// Failed calls after which a request is given up. A 429 is a wait, not a failed call.
pub const MAX_ATTEMPTS: u32 = 8;

/// The longest own pause after "too many requests", and after "used up".
pub const LIMITED_CAP: Micros = 3600 * SECOND;
pub const USED_UP_CAP: Micros = 86_400 * SECOND;

/// The pause after `pauses` in a row (1 = the first) for which the provider named no time: doubling from `base`, at most
/// `cap` unless `base` is more.
pub fn pause(pauses: u32, base: Micros, cap: Micros) -> Micros {
    base.saturating_mul(1 << pauses.saturating_sub(1).min(40)).min(cap.max(base))
}

/// The wait after `attempt` failed calls (1 = after the first): doubling from `base`, moved by up to a quarter in
/// either direction by `random` (0 to 1), at most `cap`.
pub fn delay(attempt: u32, base: Micros, cap: Micros, random: f64) -> Micros {
    let cap = cap.max(0);
    let doublings = attempt.saturating_sub(1).min(62);
    let plain = base.max(0).saturating_mul(1 << doublings).min(cap);
    let random = if random.is_finite() { random.clamp(0.0, 1.0) } else { 0.5 };
    ((plain as f64 * (0.75 + 0.5 * random)) as Micros).clamp(0, cap)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_cap() {
        let waits: Vec<Micros> = (1..=12).map(|n| delay(n, BASE, CAP, 0.5) / SECOND).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1920, 3840, 7680, 15360, 21600, 21600]);
    }

    #[test]
    fn pauses_double_up_to_the_cap_or_the_base() {
        let pauses = |base: Micros| -> Vec<Micros> {
            [1, 2, 3, 7, u32::MAX].map(|n| pause(n, base * SECOND, LIMITED_CAP) / SECOND).into()
        };
        assert_eq!(pauses(60), [60, 120, 240, 3600, 3600]);
        assert_eq!(pauses(86_400), [86_400; 5]);
        assert_eq!(pause(0, Micros::MAX, USED_UP_CAP), Micros::MAX);
    }

    #[test]
    fn jitter_is_a_quarter_either_way() {
        assert_eq!(delay(1, BASE, CAP, 0.0), BASE * 3 / 4);
        assert_eq!(delay(1, BASE, CAP, 1.0), BASE * 5 / 4);
        assert_eq!(delay(1, BASE, CAP, f64::NAN), BASE);
    }

    proptest! {
        #[test]
        fn no_argument_gives_a_wait_outside_zero_and_cap(
            attempt in any::<u32>(), base in any::<i64>(), cap in any::<i64>(), random in any::<f64>(),
        ) {
            let wait = delay(attempt, base, cap, random);
            prop_assert!(wait >= 0 && wait <= cap.max(0));
        }
    }
}
