//! What a group found: sentences, tables, and the targets with their figures.

use super::numbers::ratio;
use super::table::Table;
use crate::measure::samples::Ratio;
use serde::{Deserialize, Serialize};

/// Which side of the bound is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    AtMost,
    AtLeast,
}

/// One target, and what was measured of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Target {
    pub claim: String,
    pub side: Side,
    pub bound: f64,
    /// None where this version of the extension does not have what is measured.
    pub measured: Option<f64>,
    pub least: Option<f64>,
    pub most: Option<f64>,
    /// What stands behind the number; a plain ratio has none.
    pub unit: String,
}

impl Target {
    fn new(claim: &str, side: Side, bound: f64, measured: Option<Ratio>) -> Self {
        let measured = measured.filter(|ratio| ratio.value.is_finite());
        Self {
            claim: claim.to_string(),
            side,
            bound,
            measured: measured.map(|ratio| ratio.value),
            least: measured.map(|ratio| ratio.least),
            most: measured.map(|ratio| ratio.most),
            unit: String::new(),
        }
    }

    pub fn at_most(claim: &str, bound: f64, measured: Option<Ratio>) -> Self {
        Self::new(claim, Side::AtMost, bound, measured)
    }

    pub fn at_least(claim: &str, bound: f64, measured: Option<Ratio>) -> Self {
        Self::new(claim, Side::AtLeast, bound, measured)
    }

    /// Something that is so or is not.
    pub fn holds(claim: &str, holds: bool) -> Self {
        Self { unit: "yes".into(), ..Self::at_least(claim, 1.0, Some(Ratio::once(f64::from(u8::from(holds))))) }
    }

    pub fn in_unit(mut self, unit: &str) -> Self {
        self.unit = unit.to_string();
        self
    }

    /// Judged by the figure itself, not by what is left of it in print. None when it was not measured.
    pub fn met(&self) -> Option<bool> {
        self.measured.map(|measured| self.within(measured))
    }

    fn within(&self, value: f64) -> bool {
        match self.side {
            Side::AtMost => value <= self.bound,
            Side::AtLeast => value >= self.bound,
        }
    }

    /// With a third digit where two would show a figure on the other side of the bound.
    fn shown(&self, value: f64) -> String {
        let rounded = (value * 100.0).round() / 100.0;
        if self.within(rounded) == self.within(value) {
            ratio(value)
        } else {
            format!("{value:.3}")
        }
    }

    pub fn verdict(&self) -> &'static str {
        match self.met() {
            Some(true) => "met",
            Some(false) => "not met",
            None => "not measured",
        }
    }

    pub fn bound_text(&self) -> String {
        match (self.unit.as_str(), self.side) {
            ("yes", _) => "yes".to_string(),
            (unit, Side::AtMost) => format!("≤ {}{}{unit}", ratio(self.bound), if unit.is_empty() { "" } else { " " }),
            (unit, Side::AtLeast) => format!("≥ {}{}{unit}", ratio(self.bound), if unit.is_empty() { "" } else { " " }),
        }
    }

    /// The figure, with the least and most of the rounds where they differ.
    pub fn measured_text(&self) -> String {
        let Some(value) = self.measured else { return "not available".to_string() };
        if self.unit == "yes" {
            return if value == 1.0 { "yes" } else { "no" }.to_string();
        }
        let unit = if self.unit.is_empty() { String::new() } else { format!(" {}", self.unit) };
        match (self.least, self.most) {
            (Some(least), Some(most)) if ratio(least) != ratio(most) => {
                format!("{}{unit} ({} to {})", self.shown(value), ratio(least), ratio(most))
            }
            _ => format!("{}{unit}", self.shown(value)),
        }
    }
}

/// All that a group has to say.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Findings {
    pub text: Vec<String>,
    pub tables: Vec<Table>,
    pub targets: Vec<Target>,
}

impl Findings {
    pub fn say(&mut self, sentence: impl Into<String>) -> &mut Self {
        self.text.push(sentence.into());
        self
    }

    pub fn table(&mut self, table: Table) -> &mut Self {
        self.tables.push(table);
        self
    }

    pub fn target(&mut self, target: Target) -> &mut Self {
        self.targets.push(target);
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_judged_by_its_figure_and_not_by_what_is_printed() {
        let ratio = |value| Some(Ratio { value, least: 0.9, most: 1.2 });
        assert_eq!(Target::at_most("a", 1.15, ratio(1.15)).met(), Some(true));
        assert_eq!(Target::at_most("a", 1.15, ratio(1.151)).met(), Some(false));
        let missed = Target::at_least("a", 0.9, ratio(0.8967));
        assert_eq!((missed.met(), missed.measured_text().as_str()), (Some(false), "0.897 (0.90 to 1.20)"));
        assert_eq!(Target::at_least("a", 1.1, ratio(1.09)).met(), Some(false));
        assert_eq!(Target::at_least("a", 1.1, None).met(), None);
        assert_eq!(Target::at_least("a", 1.1, Some(Ratio::once(f64::NAN))).verdict(), "not measured");
    }

    #[test]
    fn figures_carry_their_spread_and_unit() {
        let target = Target::at_most("a", 0.65, Some(Ratio { value: 0.5, least: 0.4, most: 0.6 }));
        assert_eq!((target.measured_text().as_str(), target.bound_text().as_str()), ("0.50 (0.40 to 0.60)", "≤ 0.65"));
        let target = Target::at_most("a", 1.0, Some(Ratio::once(0.25))).in_unit("ms");
        assert_eq!((target.measured_text().as_str(), target.bound_text().as_str()), ("0.25 ms", "≤ 1.00 ms"));
        let target = Target::holds("a", false);
        assert_eq!((target.measured_text().as_str(), target.verdict()), ("no", "not met"));
    }
}
