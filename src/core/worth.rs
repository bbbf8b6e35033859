//! What a key is worth, as a priority in the queue: limits bind, so the order of asking matters. A point is an hour of
//! waiting (docs/adr/0019).

use crate::core::Micros;

const DAY: f64 = 86_400.0 * 1e6;
/// After so many days a key's last row counts half.
const HALF_LIFE_DAYS: f64 = 7.0;
/// The share of many rows: what 131,071 rows of weight 1 are worth.
const ROWS: f64 = 600.0;
const DOUBLINGS: f64 = 17.0;
/// The share of recency.
const RECENCY: f64 = 390.0;
const LEAST: f64 = -1000.0;
/// The priority of a key that a session waits for: more than a year ahead of a backlog without priority.
pub const WAITED_FOR: i32 = 10_000;
/// The most, and the least, that somebody may give: a backlog of it must be 200 days old to go before a waiting session.
const MOST_GIVEN: i32 = 5_000;

/// The priority that somebody gave, within its bounds.
pub fn given(priority: i32) -> i32 {
    priority.clamp(-MOST_GIVEN, MOST_GIVEN)
}

/// The priority of a key that rows of these weights wait for, the latest of `latest`: -1000 to -1. So whatever somebody asks
/// for by name (0 and above) comes before what tables merely hold. Each failed attempt takes 1000 of it in the queue
/// (`store::queue`), so that a key is tried again after all that were tried less often, or have not been due for six weeks longer.
pub fn priority(weight: f64, latest: Option<Micros>, now: Micros) -> i32 {
    let weight = if weight.is_finite() { weight.max(0.0) } else { 0.0 };
    let rows = (ROWS * (1.0 + weight).log2() / DOUBLINGS).min(ROWS);
    let recency = latest.map_or(0.0, |at| {
        let days = now.saturating_sub(at).max(0) as f64 / DAY;
        RECENCY * (-days / HALF_LIFE_DAYS).exp2()
    });
    (LEAST + rows + recency).floor() as i32
}

/// The priority of a key that an interactive refresh asks for: 1000 to 1999, in the same order.
pub fn urgent(priority: i32) -> i32 {
    priority + 2000
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_800_000_000_000_000;
    const DAYS: Micros = 86_400_000_000;

    #[test]
    fn what_is_given_stays_half_a_year_behind_a_waiting_session() {
        assert_eq!([i32::MIN, -7, 0, 7, i32::MAX].map(given), [-5_000, -7, 0, 7, 5_000]);
        assert!(WAITED_FOR - given(i32::MAX) >= 183 * 24);
    }

    #[test]
    fn more_rows_and_later_rows_come_first() {
        let of = |weight, days: Micros| priority(weight, Some(NOW - days * DAYS), NOW);
        assert!(of(1000.0, 10) > of(10.0, 10));
        assert!(of(1.0, 0) > of(1.0, 10));
        assert!(of(100_000.0, 60) > of(1.0, 14), "a campaign of the past is worth more than one row of last week");
        assert!(of(1.0, 0) > of(1000.0, 60), "today's single row is worth more than a thousand of two months ago");
    }

    #[test]
    fn every_worth_is_below_what_is_asked_by_name_and_every_urgent_one_above() {
        for weight in [f64::NAN, f64::INFINITY, -5.0, 0.0, 1.0, 1e300] {
            for latest in [None, Some(Micros::MIN), Some(NOW), Some(Micros::MAX)] {
                let worth = priority(weight, latest, NOW);
                assert!((-1000..0).contains(&worth), "{weight} {latest:?}: {worth}");
                assert!((1000..2000).contains(&urgent(worth)));
            }
        }
    }
}
