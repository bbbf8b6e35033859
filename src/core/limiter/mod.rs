//! How many calls a service may start: one limiter per service over several windows, a plain value.
//!
//! Hours, days and months are fixed windows in UTC, as providers count them. Seconds and minutes are sliding windows a
//! little longer than their name, so that a provider that counts from another phase never sees more than the limit.
//! Spend is recorded before the call and never given back.

mod fixed;
mod sliding;
#[cfg(test)]
mod tests;
mod window;

use serde::{Deserialize, Serialize};

use super::Micros;
use fixed::Fixed;
use sliding::Sliding;
pub use window::{window_end, window_start};

/// The length of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    Second,
    Minute,
    Hour,
    Day,
    /// Of the calendar.
    Month,
}

impl Per {
    /// Every length, shortest first.
    pub const ALL: [Per; 5] = [Per::Second, Per::Minute, Per::Hour, Per::Day, Per::Month];

    /// Reads the word used in `enrichment_service.limits`.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|per| per.as_str() == text)
    }

    /// The word used in `enrichment_service.limits`.
    pub fn as_str(self) -> &'static str {
        match self {
            Per::Second => "second",
            Per::Minute => "minute",
            Per::Hour => "hour",
            Per::Day => "day",
            Per::Month => "month",
        }
    }
}

/// At most `max` calls in each window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Above 0.
    pub max: u32,
    pub per: Per,
}

/// Reads `enrichment_service.limits`, such as `[{"max":4,"per":"minute"},{"max":500,"per":"day"}]`. `[]` is no limit.
///
/// # Errors
/// The text is not such a list, a limit is 0, or a window is named twice.
pub fn parse_limits(json: &str) -> Result<Vec<Limit>, String> {
    let limits: Vec<Limit> = serde_json::from_str(json).map_err(|error| format!("limits: {error}"))?;
    for (i, limit) in limits.iter().enumerate() {
        let per = limit.per.as_str();
        if limit.max == 0 {
            return Err(format!(
                "limits: a max of 0 per {per} would never let a call start; disable the service instead"
            ));
        }
        if limits[..i].iter().any(|earlier| earlier.per == limit.per) {
            return Err(format!("limits: more than one limit per {per}"));
        }
    }
    Ok(limits)
}

/// Calls recorded in the ledger (`enrichment_quota`) for one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spend {
    pub per: Per,
    /// As [`window_start`] gives it, for sliding windows too.
    pub window_start: Micros,
    pub spent: i64,
}

/// How full one window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowStatus {
    pub per: Per,
    pub max: u32,
    pub spent: i64,
    /// Where the counted time begins.
    pub window_start: Micros,
    /// When the count is 0 again if no further call starts; `now` when it is 0 already and the window slides.
    pub resets_at: Micros,
}

/// The limiter of one service. All windows are counted, limited or not, so that a limit added later knows its past.
#[derive(Clone, Debug)]
pub struct Limiter {
    limits: Vec<Limit>,
    second: Sliding,
    minute: Sliding,
    hour: Fixed,
    day: Fixed,
    month: Fixed,
}

impl Limiter {
    /// A limiter that knows what the ledger recorded. Calls of a second or minute are taken as having happened as late
    /// as they could, so that a restart never lets more calls start than no restart would.
    pub fn new(limits: &[Limit], ledger: &[Spend], now: Micros) -> Self {
        let mut limiter = Limiter {
            limits: limits.to_vec(),
            second: Sliding::new(Per::Second),
            minute: Sliding::new(Per::Minute),
            hour: Fixed::new(Per::Hour),
            day: Fixed::new(Per::Day),
            month: Fixed::new(Per::Month),
        };
        let mut ledger: Vec<&Spend> = ledger.iter().filter(|spend| spend.spent > 0).collect();
        ledger.sort_by_key(|spend| spend.window_start);
        for spend in ledger {
            match spend.per {
                Per::Second => limiter.second.restore(spend.window_start, spend.spent, now),
                Per::Minute => limiter.minute.restore(spend.window_start, spend.spent, now),
                Per::Hour => limiter.hour.restore(spend.window_start, spend.spent),
                Per::Day => limiter.day.restore(spend.window_start, spend.spent),
                Per::Month => limiter.month.restore(spend.window_start, spend.spent),
            }
        }
        limiter
    }

    /// How many of `want` calls may start now.
    pub fn permits(&mut self, now: Micros, want: u32) -> u32 {
        let mut allowed = i64::from(want);
        for limit in &self.limits {
            let spent = match limit.per {
                Per::Second => self.second.spent(now),
                Per::Minute => self.minute.spent(now),
                Per::Hour => self.hour.spent(now),
                Per::Day => self.day.spent(now),
                Per::Month => self.month.spent(now),
            };
            allowed = allowed.min(i64::from(limit.max).saturating_sub(spent));
        }
        // between 0 and `want`
        allowed.max(0) as u32
    }

    /// Records `n` calls that start now, whether or not they are permitted, and gives what to add to the ledger:
    /// one row for each limit.
    pub fn reserve(&mut self, now: Micros, n: u32) -> Vec<Spend> {
        if n == 0 {
            return Vec::new();
        }
        self.second.add(now, n);
        self.minute.add(now, n);
        self.hour.add(now, n);
        self.day.add(now, n);
        self.month.add(now, n);
        let spend =
            |limit: &Limit| Spend { per: limit.per, window_start: window_start(limit.per, now), spent: i64::from(n) };
        self.limits.iter().map(spend).collect()
    }

    /// Says that the calls reserved last have gone out only now, after what had to be done first: a provider counts
    /// them from here.
    pub fn went_out(&mut self, now: Micros) {
        self.second.went_out(now);
        self.minute.went_out(now);
    }

    /// When the next call may start, and the window that holds it back longest; `None` when one may start now.
    pub fn next_permit_at(&mut self, now: Micros) -> Option<(Micros, Per)> {
        let mut latest: Option<(Micros, Per)> = None;
        for limit in &self.limits {
            let at = match limit.per {
                Per::Second => self.second.frees_at(now, limit.max),
                Per::Minute => self.minute.frees_at(now, limit.max),
                Per::Hour => self.hour.frees_at(now, limit.max),
                Per::Day => self.day.frees_at(now, limit.max),
                Per::Month => self.month.frees_at(now, limit.max),
            };
            if let Some(at) = at {
                if latest.is_none_or(|(before, _)| at > before) {
                    latest = Some((at, limit.per));
                }
            }
        }
        latest
    }

    /// Takes other limits; what was spent stays spent.
    pub fn set_limits(&mut self, limits: &[Limit], _now: Micros) {
        self.limits.clear();
        self.limits.extend_from_slice(limits);
    }

    /// The limits in force.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// How full each limited window is.
    pub fn status(&self, now: Micros) -> Vec<WindowStatus> {
        let status = |limit: &Limit| {
            let (spent, window_start, resets_at) = match limit.per {
                Per::Second => self.second.status(now),
                Per::Minute => self.minute.status(now),
                Per::Hour => self.hour.status(now),
                Per::Day => self.day.status(now),
                Per::Month => self.month.status(now),
            };
            WindowStatus { per: limit.per, max: limit.max, spent, window_start, resets_at }
        };
        self.limits.iter().map(status).collect()
    }
}
