//! Waiting for a condition: the only place in the tests that sleeps.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// Asks `probe` until it gives a value, at most for `within`, and returns that value.
///
/// `Ok(None)` and `Err` both mean "not yet": an error is what was seen last, for example a server
/// that does not accept connections at the moment. At least one question is always asked.
///
/// # Panics
/// When the time is over, with `what` and what the last question brought.
#[track_caller]
pub fn wait_until<T>(what: &str, within: Duration, probe: impl FnMut() -> Result<Option<T>, String>) -> T {
    match try_wait_until(what, within, probe) {
        Ok(value) => value,
        Err(why) => panic!("{why}"),
    }
}

/// As [`wait_until`], for callers that have something better to do than to panic.
///
/// # Errors
/// One line: what was waited for, how long, and what the last question brought.
pub fn try_wait_until<T>(
    what: &str,
    within: Duration,
    mut probe: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let last = match probe() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_string(),
            Err(why) => why,
        };
        let left = within.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(format!(
                "waited {:.1} s in vain for {what}; the last answer was: {last}",
                began.elapsed().as_secs_f64()
            ));
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_returns_the_first_value() {
        let mut asked = 0;
        let value = wait_until("three questions", Duration::from_secs(5), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!((value, asked), (3, 3));
    }

    #[test]
    fn waiting_in_vain_tells_the_last_answer() {
        let mut asked = 0;
        let why = try_wait_until::<()>("rain", Duration::from_millis(20), || {
            asked += 1;
            Err(format!("sun {asked}"))
        })
        .unwrap_err();
        assert!(why.contains("for rain") && why.contains(&format!("sun {asked}")), "{why}");
    }

    #[test]
    fn even_no_time_at_all_allows_one_question() {
        assert_eq!(try_wait_until("now", Duration::ZERO, || Ok(Some(7))), Ok(7));
    }
}
