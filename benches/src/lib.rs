#![doc = include_str!("../README.md")]

pub mod client;
pub mod world;

use std::{fs, time::Duration};

use anyhow::Context as _;
use model::train::log_softmax;

/// Cross-entropy of one token, as a part of a mean over several.
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropy {
    share: f32,
}

impl CrossEntropy {
    /// For a mean over `count` tokens.
    pub fn mean_of(count: usize) -> Self {
        Self { share: 1.0 / count as f32 }
    }

    /// The token's part of the loss in nats; leaves its derivative in place of the `logits` (vocabulary).
    pub fn at(self, logits: &mut [f32], token: usize) -> f64 {
        log_softmax(logits);
        let loss = -logits[token] * self.share;
        logits.iter_mut().for_each(|value| *value = value.exp() * self.share);
        logits[token] -= self.share;
        f64::from(loss)
    }
}

/// The most memory of this process that was resident at any time, in MiB; `None` where there is no `/proc`.
///
/// # Errors
/// When the kernel writes something that is not a number.
pub fn peak_rss_mib() -> anyhow::Result<Option<u64>> {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return Ok(None) };
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.map(|line| line.trim_end_matches("kB").trim().parse::<u64>()).transpose();
    Ok(kib.context("VmHWM is not a number")?.map(|kib| kib / 1024))
}

/// Time that all threads of this process have spent on processors, in steps of ten milliseconds; `None` where there is no `/proc`.
///
/// # Errors
/// When the kernel writes something that is not a number.
pub fn processor_time() -> anyhow::Result<Option<Duration>> {
    /// In a second, whatever the kernel's own clock: it is part of the interface on Linux.
    const TICKS: u64 = 100;
    let Ok(stat) = fs::read_to_string("/proc/self/stat") else { return Ok(None) };
    // Behind the name, which may hold anything: the eleventh is what was spent in the program, the twelfth in the kernel.
    let (_, fields) = stat.rsplit_once(')').context("a name in /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>).sum::<Result<u64, _>>();
    Ok(Some(Duration::from_millis(ticks.context("ticks are not a number")? * 1000 / TICKS)))
}

/// The middle one of the values, or the mean of the two in the middle; NaN of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle), sorted.len() % 2) {
        (None, _) => f64::NAN,
        (Some(value), 1) => *value,
        (Some(value), _) => (sorted[middle - 1] + value) / 2.0,
    }
}

/// The value that such a share of the `sorted` ones does not exceed; NaN of none.
pub fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cross_entropy_of_equal_logits_is_the_logarithm_of_their_number() {
        let mut logits = [1.5; 4];
        let loss = CrossEntropy::mean_of(2).at(&mut logits, 3);
        assert!((loss - 4.0_f64.ln() / 2.0).abs() < 1e-6);
        assert_eq!(logits, [0.125, 0.125, 0.125, -0.375]);
    }

    #[test]
    fn the_median_does_not_depend_on_the_order() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!([0.5, 0.99, 1.0].map(|share| percentile(&values, share)), [50.0, 99.0, 100.0]);
        assert_eq!(percentile(&[7.0], 0.01), 7.0);
        assert!(percentile(&[], 0.5).is_nan());
    }
}
