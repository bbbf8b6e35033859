//! Rounds in turns: A B C A B C ..., so that what the machine does meanwhile meets all alike. The first is a warm-up.

use super::samples::{Ratio, Samples};
use super::session::Session;
use crate::bed::Bed;
use crate::{screen, Result};
use std::time::Instant;

type Measure<'a, C> = Box<dyn FnMut(&mut C) -> Result<f64> + 'a>;

/// One of the things that are compared.
pub struct Variant<'a, C> {
    name: String,
    /// None where this version of the extension does not have it.
    measure: Option<Measure<'a, C>>,
}

impl<'a, C> Variant<'a, C> {
    /// `measure` gives the value of one round.
    pub fn new(name: &str, measure: impl FnMut(&mut C) -> Result<f64> + 'a) -> Self {
        Self { name: name.to_string(), measure: Some(Box::new(measure)) }
    }

    /// It stays in the table, where it says that it cannot be measured.
    pub fn available(mut self, available: bool) -> Self {
        if !available {
            self.measure = None;
        }
        self
    }
}

/// A statement, with the settings it runs under; the value is nanoseconds for each of `rows`.
pub fn statement<'a>(name: &str, settings: &str, sql: &str, rows: u64) -> Variant<'a, Session> {
    let settings = format!("RESET ALL; {settings}");
    let sql = sql.to_string();
    Variant::new(name, move |session: &mut Session| {
        session.run(&settings)?;
        Ok(session.time(&sql)?.as_nanos() as f64 / rows as f64)
    })
}

/// Names and samples, in the order in which they were given.
#[derive(Clone, Debug, Default)]
pub struct Measured(pub Vec<(String, Option<Samples>)>);

impl Measured {
    /// The samples of a variant that was measured.
    pub fn get(&self, name: &str) -> Option<&Samples> {
        self.0.iter().find(|(known, _)| known == name)?.1.as_ref()
    }

    /// One variant divided by another, where both were measured.
    pub fn ratio(&self, of: &str, to: &str) -> Option<Ratio> {
        Some(self.get(of)?.over(self.get(to)?))
    }
}

/// Measures all of them in the rounds asked for; `what` is for the lines of progress.
///
/// # Errors
/// The first error of a variant, with its name.
pub fn in_turns<C>(bed: &Bed, what: &str, context: &mut C, variants: Vec<Variant<C>>) -> Result<Measured> {
    in_rounds(bed.settings.rounds, what, context, variants)
}

/// As [`in_turns`], in so many rounds.
///
/// # Errors
/// As [`in_turns`].
pub fn in_rounds<C>(rounds: usize, what: &str, context: &mut C, mut variants: Vec<Variant<C>>) -> Result<Measured> {
    let mut measured =
        Measured(variants.iter().map(|v| (v.name.clone(), v.measure.as_ref().map(|_| Samples::default()))).collect());
    if variants.iter().all(|variant| variant.measure.is_none()) {
        screen::note(&format!("{what}: not available in this version"));
        return Ok(measured);
    }
    for round in 0..=rounds {
        let began = Instant::now();
        for (variant, (_, samples)) in variants.iter_mut().zip(&mut measured.0) {
            let (Some(measure), Some(samples)) = (&mut variant.measure, samples) else { continue };
            let value = measure(context).map_err(|why| format!("{what}, {}: {why}", variant.name))?;
            if round > 0 {
                samples.0.push(value);
            }
        }
        let round = if round == 0 { "warm-up".to_string() } else { format!("round {round} of {rounds}") };
        screen::note(&format!("{what}: {round}, {:.1} s", began.elapsed().as_secs_f64()));
    }
    Ok(measured)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_measured_has_no_ratio() {
        let measured = Measured(vec![
            ("a".into(), Some(Samples(vec![1.0]))),
            ("b".into(), Some(Samples(vec![4.0]))),
            ("c".into(), None),
        ]);
        assert_eq!(measured.ratio("a", "b").unwrap().value, 0.25);
        assert_eq!(measured.ratio("a", "c"), None);
        assert_eq!(measured.ratio("a", "unknown"), None);
    }
}
