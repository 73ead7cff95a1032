//! Means and rates with their intervals.

use protocol::binomial::{Interval, normal_quantile, wilson};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::ordinary::turns::count;

/// Confidence of every interval in a report.
pub(crate) const CONFIDENCE: f64 = 0.95;

/// Resamples of a bootstrap.
const RESAMPLES: usize = 2000;

/// A mean with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

impl Estimate {
    /// The same in units of `unit`, which must be above zero.
    pub(crate) fn divided_by(self, unit: f64) -> Self {
        Self { mean: self.mean / unit, lower: self.lower / unit, upper: self.upper / unit }
    }
}

/// A rate with its 95 % interval (Wilson).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// Successes.
    pub hits: u32,
    /// Trials.
    pub trials: u32,
    /// Their ratio; 0 when nothing was tried.
    pub rate: f64,
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// A rate with its interval; with no trials the interval says that anything is possible.
pub(crate) fn rate(hits: u32, trials: u32) -> Rate {
    let Interval { lower, upper } = wilson(hits, trials, CONFIDENCE).unwrap_or(Interval { lower: 0.0, upper: 1.0 });
    let rate = if trials == 0 { 0.0 } else { f64::from(hits) / f64::from(trials) };
    Rate { hits, trials, rate, lower, upper }
}

/// The mean with a percentile bootstrap interval (Efron 1979), which the skew of divergences asks for.
pub(crate) fn bootstrap_mean(values: &[f64], seed: u64) -> Estimate {
    let mean = mean(values);
    if values.len() < 2 {
        return Estimate { mean, lower: mean, upper: mean };
    }
    let mut generator = ChaCha8Rng::seed_from_u64(seed);
    let mut means: Vec<f64> = (0..RESAMPLES)
        .map(|_| {
            let sum: f64 = values.iter().map(|_| values[generator.random_range(0..values.len())]).sum();
            sum / count(values.len())
        })
        .collect();
    means.sort_by(f64::total_cmp);
    // 2.5 % of the resamples on either side.
    let outside = RESAMPLES / 40;
    Estimate { mean, lower: means[outside], upper: means[RESAMPLES - 1 - outside] }
}

/// The mean with a normal interval over independent values; with fewer than two the interval is the mean.
pub(crate) fn normal_mean(values: &[f64]) -> Estimate {
    let mean = mean(values);
    if values.len() < 2 {
        return Estimate { mean, lower: mean, upper: mean };
    }
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / count(values.len() - 1) / count(values.len())).sqrt();
    let half = normal_quantile(1.0 - (1.0 - CONFIDENCE) / 2.0) * error;
    Estimate { mean, lower: mean - half, upper: mean + half }
}

/// The median; sorts the values. 0 for none.
pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => (values[even / 2 - 1] + values[even / 2]) / 2.0,
    }
}

/// The ends of a list; zeros for none.
pub(crate) fn smallest_greatest(values: &[f64]) -> (f64, f64) {
    let ends = values.iter().fold(None, |ends: Option<(f64, f64)>, value| match ends {
        None => Some((*value, *value)),
        Some((least, greatest)) => Some((least.min(*value), greatest.max(*value))),
    });
    ends.unwrap_or_default()
}

fn mean(values: &[f64]) -> f64 {
    if values.is_empty() { 0.0 } else { values.iter().sum::<f64>() / count(values.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootstrap_interval_holds_the_mean_and_is_reproducible() {
        let values: Vec<f64> = (0..60).map(|n| f64::from(n % 7) / 10.0).collect();
        let estimate = bootstrap_mean(&values, 1);
        assert!(estimate.lower < estimate.mean && estimate.mean < estimate.upper);
        assert_eq!(estimate, bootstrap_mean(&values, 1));
        // About twice the standard error on either side.
        let normal = normal_mean(&values);
        assert!((estimate.upper - normal.upper).abs() < 0.01, "{estimate:?} {normal:?}");
    }

    #[test]
    fn medians_of_even_and_odd_lists() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&mut [4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&mut []), 0.0);
    }

    #[test]
    fn nothing_tried_leaves_everything_possible() {
        assert_eq!(rate(0, 0), Rate { hits: 0, trials: 0, rate: 0.0, lower: 0.0, upper: 1.0 });
        let all = rate(64, 64);
        assert!(all.lower > 0.94 && all.upper == 1.0);
    }
}
