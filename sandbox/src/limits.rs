//! Sliding windows: how many calls a provider takes per second, minute, hour or day.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::provider::Provider;

/// The length of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// 1 s
    Second,
    /// 60 s
    Minute,
    /// 3600 s
    Hour,
    /// 86 400 s
    Day,
}

impl Per {
    /// The length as a duration.
    pub fn length(self) -> Duration {
        Duration::from_secs(match self {
            Per::Second => 1,
            Per::Minute => 60,
            Per::Hour => 3_600,
            Per::Day => 86_400,
        })
    }
}

/// At most `max` calls in any window of the length `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// calls
    pub max: u32,
    /// window
    pub per: Per,
}

/// Reads `service=N/second` (or minute, hour, day).
///
/// # Errors
/// A sentence that says what is wrong.
pub fn parse(text: &str) -> Result<(Provider, Limit), String> {
    let form = || format!("{text:?} is not of the form service=N/second|minute|hour|day");
    let (service, rate) = text.split_once('=').ok_or_else(form)?;
    let (max, per) = rate.split_once('/').ok_or_else(form)?;
    let limit = Limit {
        max: max.parse().map_err(|_| form())?,
        per: match per {
            "second" => Per::Second,
            "minute" => Per::Minute,
            "hour" => Per::Hour,
            "day" => Per::Day,
            _ => return Err(form()),
        },
    };
    Ok((Provider::parse(service)?, limit))
}

/// The limits the provider is known for (VirusTotal and DShield publish theirs; for the others, those that clients keep).
pub fn real(provider: Provider) -> Vec<Limit> {
    let limit = |max, per| Limit { max, per };
    match provider {
        Provider::VirusTotal => vec![limit(4, Per::Minute), limit(500, Per::Day)],
        Provider::Dshield => vec![limit(1, Per::Second)],
        Provider::Urlhaus => vec![limit(2, Per::Second)],
        Provider::Spur => vec![limit(1, Per::Second)],
        Provider::Hibp => vec![limit(10, Per::Second)],
        Provider::GreyNoise => vec![limit(7, Per::Day)],
        Provider::AbuseIpdb => vec![limit(1000, Per::Day)],
        Provider::InternetDb => vec![limit(1, Per::Second)],
    }
}

#[derive(Debug)]
struct Window {
    limit: Limit,
    calls: VecDeque<Instant>,
}

impl Window {
    fn new(limit: Limit) -> Self {
        Window { limit, calls: VecDeque::new() }
    }

    fn forget_before(&mut self, now: Instant) {
        let length = self.limit.per.length();
        while self.calls.front().is_some_and(|call| now.duration_since(*call) >= length) {
            self.calls.pop_front();
        }
    }

    /// How long until a call fits, None if it fits now.
    fn wait(&mut self, now: Instant) -> Option<Duration> {
        self.forget_before(now);
        if (self.calls.len() as u64) < u64::from(self.limit.max) {
            return None;
        }
        let length = self.limit.per.length();
        Some(self.calls.front().map_or(length, |call| length - now.duration_since(*call)))
    }
}

/// The windows of all providers.
#[derive(Debug)]
pub struct Limits {
    windows: [Mutex<Vec<Window>>; Provider::ALL.len()],
}

impl Limits {
    /// Empty windows for the limits `limits_of` gives.
    pub fn new(limits_of: impl Fn(Provider) -> Vec<Limit>) -> Self {
        Limits {
            windows: Provider::ALL
                .map(|provider| Mutex::new(limits_of(provider).into_iter().map(Window::new).collect())),
        }
    }

    fn of(&self, provider: Provider) -> std::sync::MutexGuard<'_, Vec<Window>> {
        self.windows[provider as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call if it fits into every window; otherwise counts nothing.
    ///
    /// # Errors
    /// The time until a call fits, when this one does not.
    pub fn take(&self, provider: Provider, now: Instant) -> Result<(), Duration> {
        let mut windows = self.of(provider);
        match windows.iter_mut().filter_map(|window| window.wait(now)).max() {
            Some(wait) => Err(wait),
            None => {
                for window in windows.iter_mut() {
                    window.calls.push_back(now);
                }
                Ok(())
            }
        }
    }

    /// Replaces a provider's limits, forgetting its calls. An empty list means no limit.
    pub fn set(&self, provider: Provider, limits: Vec<Limit>) {
        *self.of(provider) = limits.into_iter().map(Window::new).collect();
    }

    /// The limits in force.
    pub fn get(&self, provider: Provider) -> Vec<Limit> {
        self.of(provider).iter().map(|window| window.limit).collect()
    }

    /// Calls counted in the window of that length, and its maximum, if there is such a limit.
    pub fn used(&self, provider: Provider, per: Per, now: Instant) -> Option<(u64, u32)> {
        self.of(provider).iter_mut().find(|window| window.limit.per == per).map(|window| {
            window.forget_before(now);
            (window.calls.len() as u64, window.limit.max)
        })
    }

    /// Of the first limit: its maximum, the calls that are left of it, and when all of them are there again.
    pub fn left(&self, provider: Provider, now: Instant) -> Option<(u32, u64, Duration)> {
        self.of(provider).first_mut().map(|window| {
            window.forget_before(now);
            let last = window.calls.back().map_or(Duration::ZERO, |call| now.duration_since(*call));
            let left = u64::from(window.limit.max).saturating_sub(window.calls.len() as u64);
            (window.limit.max, left, window.limit.per.length().saturating_sub(last))
        })
    }

    /// Forgets all calls, keeps the limits.
    pub fn forget_calls(&self) {
        for provider in Provider::ALL {
            for window in self.of(provider).iter_mut() {
                window.calls.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_slides_and_a_refused_call_is_not_counted() {
        let limits = Limits::new(|_| vec![Limit { max: 2, per: Per::Second }]);
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        assert_eq!(limits.take(Provider::Spur, at(0)), Ok(()));
        assert_eq!(limits.take(Provider::Spur, at(600)), Ok(()));
        assert_eq!(limits.take(Provider::Spur, at(900)), Err(Duration::from_millis(100)));
        assert_eq!(limits.take(Provider::Spur, at(1_000)), Ok(()));
        assert_eq!(limits.take(Provider::Spur, at(1_001)), Err(Duration::from_millis(599)));
        assert_eq!(limits.take(Provider::Dshield, at(1_001)), Ok(()), "each provider counts its own");
    }

    #[test]
    fn the_longest_wait_of_several_windows_is_told() {
        let limits = Limits::new(real);
        let start = Instant::now();
        limits.set(Provider::VirusTotal, vec![Limit { max: 1, per: Per::Minute }, Limit { max: 1, per: Per::Day }]);
        assert_eq!(limits.take(Provider::VirusTotal, start), Ok(()));
        assert_eq!(limits.take(Provider::VirusTotal, start), Err(Duration::from_secs(86_400)));
    }

    #[test]
    fn a_limit_is_read_from_its_written_form() {
        let expected = Limit { max: 40, per: Per::Minute };
        assert_eq!(parse("hibp=40/minute"), Ok((Provider::Hibp, expected)));
        for wrong in ["hibp", "hibp=40", "hibp=x/minute", "hibp=4/week", "shodan=1/second"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
