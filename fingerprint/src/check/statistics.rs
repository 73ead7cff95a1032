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

/// 97.5 % quantiles of Student's t distribution with 1, 2, … 30 degrees of freedom.
const STUDENT: [f64; 30] = [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
    2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
];

/// The mean with Student's interval over independent values; with fewer than two the interval is the mean.
pub(crate) fn student_mean(values: &[f64]) -> Estimate {
    let mean = mean(values);
    let Some(freedom) = values.len().checked_sub(1).filter(|freedom| *freedom > 0) else {
        return Estimate { mean, lower: mean, upper: mean };
    };
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    let error = (squares / count(freedom) / count(values.len())).sqrt();
    let normal = || normal_quantile(1.0 - (1.0 - CONFIDENCE) / 2.0);
    let half = STUDENT.get(freedom - 1).copied().unwrap_or_else(normal) * error;
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
        let normal = student_mean(&values);
        assert!((estimate.upper - normal.upper).abs() < 0.01, "{estimate:?} {normal:?}");
    }

    #[test]
    fn the_interval_of_few_values_is_wide() {
        // Student (1908), table of ten nights: a mean of .75 and a standard error of .566, nine degrees of freedom.
        let sleep = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let estimate = student_mean(&sleep);
        assert!((estimate.mean - 0.75).abs() < 1e-9);
        assert!((estimate.lower + 0.5298).abs() < 1e-3 && (estimate.upper - 2.0298).abs() < 1e-3, "{estimate:?}");
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
