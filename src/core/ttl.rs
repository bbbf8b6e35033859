//! How long an answer stays fresh.

use super::Micros;

/// The lives of entries stored together differ by up to this much in either direction, so that they do not all
/// expire at once.
pub const JITTER_PERCENT: i64 = 5;

/// Steps between no jitter and the full one. Few of them, so that entries stored together stand in few places of the index
/// on expiry, which costs less to store and less room (ADR 0016).
const STEPS: i128 = 50;

/// A TTL moved by up to [`JITTER_PERCENT`], always the same for the same key. Never negative.
pub fn jittered(ttl_micros: Micros, cache_key_hash: &[u8; 16]) -> Micros {
    // the last bytes: the first ones may become the type and the order of the column
    let mut tail = [0; 8];
    tail.copy_from_slice(&cache_key_hash[8..]);
    let step = (u64::from_be_bytes(tail) % (2 * STEPS as u64 + 1)) as i128 - STEPS;
    let ttl = i128::from(ttl_micros.max(0));
    let moved = ttl + ttl * i128::from(JITTER_PERCENT) * step / (100 * STEPS);
    Micros::try_from(moved).unwrap_or(Micros::MAX)
}

/// The moment at which an answer observed at `fetched_at` expires; the last representable one on overflow.
pub fn expires_at(fetched_at: Micros, ttl: Micros, hash: &[u8; 16]) -> Micros {
    fetched_at.saturating_add(jittered(ttl, hash))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::hash::cache_key_hash;
    use proptest::prelude::*;

    const DAY: Micros = 86_400_000_000;

    proptest! {
        #[test]
        fn jitter_stays_within_five_percent(ttl in 0..1000 * DAY, hash in any::<[u8; 16]>()) {
            let moved = jittered(ttl, &hash);
            prop_assert!((moved - ttl).abs() <= ttl / 20 + 1);
            prop_assert_eq!(moved, jittered(ttl, &hash));
        }

        #[test]
        fn no_ttl_overflows_or_turns_negative(fetched in any::<i64>(), ttl in any::<i64>(), hash in any::<[u8; 16]>()) {
            prop_assert!(jittered(ttl, &hash) >= 0);
            prop_assert!(expires_at(fetched, ttl, &hash) >= fetched);
        }
    }

    #[test]
    fn a_bulk_load_expires_over_a_tenth_of_its_ttl() {
        let lives: Vec<Micros> =
            (0..1000).map(|i| jittered(30 * DAY, &cache_key_hash("virustotal", &i.to_string()))).collect();
        let spread = lives.iter().max().unwrap() - lives.iter().min().unwrap();
        assert!(spread > 30 * DAY / 11, "{spread}");
        let mean = lives.iter().sum::<Micros>() / 1000;
        assert!((mean - 30 * DAY).abs() < DAY / 4, "{mean}");
    }

    /// Where the index on expiry gets its new entries.
    #[test]
    fn lives_differ_in_steps_of_a_thousandth() {
        let keys = (0..10_000).map(|i| cache_key_hash("dshield", &i.to_string()));
        let lives: std::collections::BTreeSet<Micros> = keys.map(|key| jittered(7 * DAY, &key)).collect();
        assert_eq!(lives.len(), 101);
        assert!(lives.iter().all(|life| life % (7 * DAY / 1000) == 0), "{lives:?}");
    }

    #[test]
    fn a_ttl_of_zero_expires_at_once() {
        assert_eq!(expires_at(77, 0, &[9; 16]), 77);
        assert_eq!(expires_at(77, -5, &[9; 16]), 77);
        assert_eq!(expires_at(Micros::MAX - 1, DAY, &[9; 16]), Micros::MAX);
    }
}
