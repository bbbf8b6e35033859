//! How many calls may start under one budget (a provider's host and the secret it is asked with), over several windows.
//!
//! What was spent is a plain value of fixed size without pointers, so that all workers of a cluster can share it; the
//! limits come from the service that asks. Hours, days and months are fixed windows in UTC, as providers count them. Seconds and minutes are sliding windows a
//! little longer than their name, so that a provider that counts from another phase never sees more than the limit.
//! Spend is recorded before the call and never given back.

mod fixed;
mod report;
#[cfg(test)]
mod reported_tests;
mod sliding;
mod spending;
#[cfg(test)]
mod tests;
mod window;

use serde::{Deserialize, Serialize};

use super::Micros;
pub use report::{read_reports, Report, Said};
pub use spending::{Held, Spending};
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
    /// Calls are spread evenly over the window instead of starting as soon as they may.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub even: bool,
    /// Holds also where the provider says that it allows more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cap: bool,
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
    /// What all ledgers together had spent by then, as far as it was known.
    pub by_all: i64,
}

/// How full one window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowStatus {
    pub per: Per,
    /// The limit in force; `None` where only the provider counts.
    pub max: Option<i64>,
    pub spent: i64,
    /// Where the counted time begins.
    pub window_start: Micros,
    /// When the count is 0 again if no further call starts; `now` when it is 0 already and the window slides.
    pub resets_at: Micros,
}
