//! What was measured in the rounds: medians, spreads, ratios, percentiles.

/// One value for each round, in the order of the rounds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples(pub Vec<f64>);

impl Samples {
    /// The middle value; the mean of the two in the middle when their number is even.
    pub fn median(&self) -> f64 {
        let sorted = sorted(&self.0);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        }
    }

    pub fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    pub fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// This one divided by another: the ratio of the medians, with the least and most of the rounds' own ratios.
    pub fn over(&self, other: &Samples) -> Ratio {
        let by_round = Samples(self.0.iter().zip(&other.0).map(|(a, b)| a / b).collect());
        Ratio { value: self.median() / other.median(), least: by_round.least(), most: by_round.most() }
    }
}

/// How much one is of another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio {
    pub value: f64,
    pub least: f64,
    pub most: f64,
}

impl Ratio {
    /// A ratio that was measured once.
    pub fn once(value: f64) -> Self {
        Self { value, least: value, most: value }
    }
}

/// The value that `share` (0 to 1) of the values do not exceed (nearest rank).
pub fn percentile(values: &[f64], share: f64) -> f64 {
    let sorted = sorted(values);
    if sorted.is_empty() {
        return f64::NAN;
    }
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Samples(vec![9.0, 1.0, 5.0]).median(), 5.0);
        assert_eq!(Samples(vec![9.0, 1.0, 5.0, 7.0]).median(), 6.0);
        assert!(Samples::default().median().is_nan());
    }

    #[test]
    fn a_ratio_is_of_medians_and_its_spread_of_rounds() {
        let ours = Samples(vec![1.0, 2.0, 30.0]);
        let theirs = Samples(vec![2.0, 4.0, 3.0]);
        // medians 2 and 3; the rounds give 0.5, 0.5 and 10
        assert_eq!(ours.over(&theirs), Ratio { value: 2.0 / 3.0, least: 0.5, most: 10.0 });
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=1000).rev().map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 0.999, 1.0, 0.0].map(|share| percentile(&values, share)),
            [500.0, 990.0, 999.0, 1000.0, 1.0]
        );
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
