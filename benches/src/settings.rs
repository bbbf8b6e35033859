//! What the user may choose, from the environment: BENCH_SCALE, BENCH_ROUNDS, BENCH_ONLY, BENCH_DOCS.

use crate::Result;
use std::path::PathBuf;

const SMALLEST: f64 = 0.01;
const LARGEST: f64 = 10.0;

/// How much is measured, how often, and where the result goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// 1 is the size the extension is planned for: a million answers, 1.7 million sessions.
    pub scale: f64,
    /// Rounds that count; one more is made before them and discarded.
    pub rounds: usize,
    /// Groups to run; empty means all of the ordinary run.
    pub only: Vec<String>,
    /// Directory of performance.md and performance.json.
    pub documents: PathBuf,
    /// What is measured, as the version control calls it.
    pub revision: Option<String>,
}

impl Settings {
    /// Reads them through `variable`, which gives the value of an environment variable.
    ///
    /// # Errors
    /// A value that makes no sense, with what would.
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let given = |name: &str| variable(name).map(|value| value.trim().to_string()).filter(|value| !value.is_empty());
        let scale = match given("BENCH_SCALE") {
            None => 1.0,
            Some(text) => match text.parse::<f64>() {
                Ok(scale) if (SMALLEST..=LARGEST).contains(&scale) => scale,
                _ => return Err(format!("BENCH_SCALE={text}: give a number from {SMALLEST} to {LARGEST}").into()),
            },
        };
        let rounds = match given("BENCH_ROUNDS") {
            None => 5,
            Some(text) => match text.parse::<usize>() {
                Ok(rounds) if (1..=100).contains(&rounds) => rounds,
                _ => return Err(format!("BENCH_ROUNDS={text}: give a whole number from 1 to 100").into()),
            },
        };
        let only = given("BENCH_ONLY").unwrap_or_default();
        Ok(Self {
            scale,
            rounds,
            only: only.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_string).collect(),
            documents: given("BENCH_DOCS").unwrap_or_else(|| "docs".into()).into(),
            revision: given("BENCH_REVISION"),
        })
    }

    /// A number of rows at this scale; `full` is the one at scale 1.
    pub fn rows(&self, full: u64) -> u64 {
        ((full as f64 * self.scale).round() as u64).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_env(|name| pairs.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string()))
    }

    #[test]
    fn nothing_given_is_the_whole_run() {
        let settings = from(&[]).unwrap();
        assert_eq!((settings.scale, settings.rounds), (1.0, 5));
        assert!(settings.only.is_empty());
        assert_eq!(settings.rows(300_000), 300_000);
    }

    #[test]
    fn a_list_of_groups_may_have_blanks_and_ends() {
        let settings = from(&[("BENCH_ONLY", " wire, joins,,"), ("BENCH_SCALE", "0.1")]).unwrap();
        assert_eq!(settings.only, ["wire", "joins"]);
        assert_eq!(settings.rows(50_000), 5_000);
        assert_eq!(settings.rows(3), 1, "never nothing at all");
    }

    #[test]
    fn nonsense_is_refused_with_what_would_do() {
        for (name, value) in
            [("BENCH_SCALE", "big"), ("BENCH_SCALE", "0"), ("BENCH_SCALE", "NaN"), ("BENCH_ROUNDS", "0")]
        {
            let why = from(&[(name, value)]).unwrap_err().to_string();
            assert!(why.contains(name) && why.contains("give a"), "{why}");
        }
    }
}
