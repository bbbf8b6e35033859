//! What a provider says itself of its limits: in headers of its answers, or in an answer of its own.

use serde::{Deserialize, Serialize};

use super::Per;
use crate::core::{Micros, SECOND};

/// The longest time until a reset that is believed: the longest month.
const LONGEST_RESET: Micros = 31 * 86_400 * SECOND;
/// A smaller number in a reset is a time from now in seconds, a larger one seconds since 1970.
const SECONDS_SINCE_1970: i64 = 1_000_000_000;

/// A provider's numbers for one window, or for a balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// `None`: a balance that no window renews.
    pub per: Option<Per>,
    pub allowed: Option<i64>,
    pub used: Option<i64>,
    pub remaining: Option<i64>,
    pub resets_at: Option<Micros>,
    /// When it was said.
    pub at: Micros,
}

impl Report {
    /// Calls left when it was said.
    pub fn left(&self) -> Option<i64> {
        let counted = || Some(self.allowed?.saturating_sub(self.used?));
        self.remaining.or_else(counted).map(|left| left.max(0))
    }

    /// Calls made when it was said.
    pub fn made(&self) -> Option<i64> {
        let counted = || Some(self.allowed?.saturating_sub(self.remaining?));
        self.used.or_else(counted).map(|made| made.max(0))
    }
}

/// Where a service's answers hold the numbers of one window: names of headers, or paths into a body.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    /// Absent for a balance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per: Option<Per>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allowed: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<String>,
    /// Seconds from now, or since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reset: Option<String>,
}

impl Said {
    /// Every place it names.
    pub fn places(&self) -> impl Iterator<Item = &str> {
        [&self.allowed, &self.used, &self.remaining, &self.reset].into_iter().flatten().map(String::as_str)
    }

    /// Refuses places from which nothing can be learnt.
    ///
    /// # Errors
    /// Why.
    pub fn check(&self) -> Result<(), String> {
        if self.places().any(str::is_empty) {
            return Err("an empty name".to_owned());
        }
        match self.remaining.is_some() || self.allowed.is_some() {
            true => Ok(()),
            false => Err("neither remaining nor allowed".to_owned()),
        }
    }
}

/// The reports that the places hold, as `number` reads them.
pub fn read_reports(places: &[Said], now: Micros, number: impl Fn(&str) -> Option<i64>) -> Vec<Report> {
    let read = |said: &Said| {
        let value = |place: &Option<String>| place.as_deref().and_then(&number).filter(|number| *number >= 0);
        let report = Report {
            per: said.per,
            allowed: value(&said.allowed),
            used: value(&said.used),
            remaining: value(&said.remaining),
            resets_at: value(&said.reset).map(|reset| resets_at(reset, now)),
            at: now,
        };
        (report.allowed.is_some() || report.remaining.is_some()).then_some(report)
    };
    places.iter().filter_map(read).collect()
}

fn resets_at(reset: i64, now: Micros) -> Micros {
    let at = match reset < SECONDS_SINCE_1970 {
        true => now.saturating_add(reset.saturating_mul(SECOND)),
        false => reset.saturating_mul(SECOND),
    };
    at.clamp(now, now.saturating_add(LONGEST_RESET))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 1_790_000_000 * SECOND;

    fn read(places: &str, pairs: &[(&str, i64)]) -> Vec<Report> {
        let places: Vec<Said> = serde_json::from_str(places).unwrap();
        read_reports(&places, NOW, |name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| *value))
    }

    #[test]
    fn what_is_left_is_said_or_follows() {
        let places = r#"[{"per":"day","allowed":"a","used":"u"},{"remaining":"r"}]"#;
        let both = read(places, &[("a", 500), ("u", 120), ("r", 7)]);
        assert_eq!(
            both.iter().map(|r| (r.per, r.left(), r.made())).collect::<Vec<_>>(),
            [(Some(Per::Day), Some(380), Some(120)), (None, Some(7), None)]
        );
        assert_eq!(read(places, &[("a", 5), ("u", 9)])[0].left(), Some(0));
        assert_eq!(read(places, &[("u", 9)]), []);
        assert_eq!(read(places, &[("r", -1)]), []);
    }

    #[test]
    fn a_reset_is_a_time_from_now_or_since_1970() {
        let places = r#"[{"per":"day","remaining":"r","reset":"x"}]"#;
        for (given, expected) in [
            (60, NOW + 60 * SECOND),
            (1_790_000_030, NOW + 30 * SECOND),
            (1_700_000_000, NOW),
            (i64::MAX, NOW + LONGEST_RESET),
        ] {
            assert_eq!(read(places, &[("r", 1), ("x", given)])[0].resets_at, Some(expected), "{given}");
        }
    }

    #[test]
    fn places_that_teach_nothing_are_refused() {
        let said = |text: &str| serde_json::from_str::<Said>(text).unwrap();
        assert!(said(r#"{"per":"day","used":"u"}"#).check().is_err());
        assert!(said(r#"{"per":"day","allowed":""}"#).check().is_err());
        assert!(said(r#"{"remaining":"r"}"#).check().is_ok());
        assert!(serde_json::from_str::<Said>(r#"{"left":"x"}"#).is_err());
    }
}
