//! Exact binomial tails, and Wilson's interval for a rate.
//!
//! Probabilities are computed by the saddle-point form of C. Loader, "Fast and accurate computation of binomial
//! probabilities" (2000), which subtracts no large numbers, and tails are summed from their largest term, so they keep
//! their relative accuracy down to the smallest probability and, as logarithms, beyond it.

use serde::{Deserialize, Serialize};

/// Why there is no such probability.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BinomialError {
    /// More successes than trials.
    #[error("{hits} hits are more than {trials} trials")]
    Hits {
        /// Successes given.
        hits: u32,
        /// Trials given.
        trials: u32,
    },
    /// Outside 0 to 1, or at an end that makes no sense here.
    #[error("{name} is {value}, which is not a probability that can be used here")]
    Probability {
        /// The argument.
        name: &'static str,
        /// What was given.
        value: f64,
    },
    /// An interval needs at least one trial.
    #[error("no interval can be given for no trial")]
    NoTrial,
}

/// A confidence interval for a rate.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Lower end.
    pub lower: f64,
    /// Upper end.
    pub upper: f64,
}

/// Natural logarithm of the probability of exactly `hits` among `trials` at rate `p`; minus infinity when impossible.
pub fn ln_probability(trials: u32, hits: u32, p: f64) -> Result<f64, BinomialError> {
    check(trials, hits, p)?;
    Ok(ln_mass(trials, hits, p))
}

/// Natural logarithm of the probability of at least `hits` among `trials` at rate `p`.
pub fn ln_upper_tail(trials: u32, hits: u32, p: f64) -> Result<f64, BinomialError> {
    check(trials, hits, p)?;
    Ok(ln_tail_up(trials, hits, p))
}

/// Probability of at least `hits` among `trials` at rate `p`.
pub fn upper_tail(trials: u32, hits: u32, p: f64) -> Result<f64, BinomialError> {
    ln_upper_tail(trials, hits, p).map(f64::exp)
}

/// Probability of at most `hits` among `trials` at rate `p`.
pub fn lower_tail(trials: u32, hits: u32, p: f64) -> Result<f64, BinomialError> {
    check(trials, hits, p)?;
    Ok(tail_down(trials, hits, p))
}

/// The interval of Wilson (1927): about this confidence on average over rates.
pub fn wilson(hits: u32, trials: u32, confidence: f64) -> Result<Interval, BinomialError> {
    check_interval(hits, trials, confidence)?;
    let z = -normal_quantile((1.0 - confidence) / 2.0);
    let n = f64::from(trials);
    let rate = f64::from(hits) / n;
    let shrink = 1.0 + z * z / n;
    let centre = (rate + z * z / (2.0 * n)) / shrink;
    let half = z / shrink * (rate * (1.0 - rate) / n + z * z / (4.0 * n * n)).sqrt();
    // The ends are exact where all or none hit; elsewhere only rounding could leave the unit interval.
    Ok(Interval {
        lower: if hits == 0 { 0.0 } else { (centre - half).max(0.0) },
        upper: if hits == trials { 1.0 } else { (centre + half).min(1.0) },
    })
}

/// The point of the standard normal distribution with this probability below it, to 16 digits: algorithm AS 241
/// (PPND16) of M. Wichura, Applied Statistics 37 (1988). Infinite at 0 and 1.
pub fn normal_quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        return q * ratio(0.180_625 - q * q, &CENTRE);
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    if tail <= 0.0 {
        return q.signum() * f64::INFINITY;
    }
    let r = (-tail.ln()).sqrt();
    let distance = if r <= 5.0 { ratio(r - 1.6, &MIDDLE) } else { ratio(r - 5.0, &FAR) };
    q.signum() * distance
}

fn check(trials: u32, hits: u32, p: f64) -> Result<(), BinomialError> {
    if hits > trials {
        return Err(BinomialError::Hits { hits, trials });
    }
    if (0.0..=1.0).contains(&p) { Ok(()) } else { Err(BinomialError::Probability { name: "p", value: p }) }
}

fn check_interval(hits: u32, trials: u32, confidence: f64) -> Result<(), BinomialError> {
    if trials == 0 {
        return Err(BinomialError::NoTrial);
    }
    check(trials, hits, 0.0)?;
    if confidence > 0.0 && confidence < 1.0 {
        return Ok(());
    }
    Err(BinomialError::Probability { name: "confidence", value: confidence })
}

fn tail_down(trials: u32, hits: u32, p: f64) -> f64 {
    // At most `hits` hits are at least the remaining misses.
    if f64::from(hits) < f64::from(trials) * p {
        sum_away(trials, hits, p, false).exp()
    } else {
        match hits.checked_add(1) {
            Some(more) if more <= trials => 1.0 - sum_away(trials, more, p, true).exp(),
            _ => 1.0,
        }
    }
}

fn ln_tail_up(trials: u32, hits: u32, p: f64) -> f64 {
    match hits.checked_sub(1) {
        None => 0.0,
        // Past the mean the terms fall from the first one on.
        Some(_) if f64::from(hits) > f64::from(trials) * p => sum_away(trials, hits, p, true),
        // Before it the tail is about a half or more, and its complement is the tail whose terms fall.
        Some(fewer) => (-sum_away(trials, fewer, p, false).exp()).ln_1p(),
    }
}

/// Logarithm of the sum of probabilities from `hits` away from the mean: upwards to `trials`, or downwards to 0.
fn sum_away(trials: u32, hits: u32, p: f64, upwards: bool) -> f64 {
    let first = ln_mass(trials, hits, p);
    if first == f64::NEG_INFINITY {
        return first;
    }
    // In units of the first term. Counting successes up is counting misses down.
    let odds = if upwards { p / (1.0 - p) } else { (1.0 - p) / p };
    let mut left = f64::from(if upwards { trials.abs_diff(hits) } else { hits });
    let mut taken = f64::from(trials) - left;
    let (mut term, mut sum) = (1.0, 1.0);
    while left > 0.0 {
        term *= left / (taken + 1.0) * odds;
        sum += term;
        // The terms fall at least geometrically from here, so what is left out is lost in rounding.
        if term < sum * 1e-18 {
            break;
        }
        left -= 1.0;
        taken += 1.0;
    }
    first + sum.ln()
}

fn ln_mass(trials: u32, hits: u32, p: f64) -> f64 {
    let misses = trials.abs_diff(hits);
    let (n, x, y) = (f64::from(trials), f64::from(hits), f64::from(misses));
    // Zero counts first: they contribute the factor 1 also where the logarithm is infinite.
    match (hits, misses) {
        (0, 0) => 0.0,
        (0, _) => n * (-p).ln_1p(),
        (_, 0) => n * p.ln(),
        _ if p == 0.0 || p == 1.0 => f64::NEG_INFINITY,
        _ => {
            let correction = stirling_error(trials) - stirling_error(hits) - stirling_error(misses);
            let spread = (std::f64::consts::TAU * x * (y / n)).ln() / 2.0;
            correction - deviance(x, n * p) - deviance(y, n * (1.0 - p)) - spread
        }
    }
}

/// `ln n!` minus Stirling's approximation of it.
fn stirling_error(n: u32) -> f64 {
    let x = f64::from(n);
    if n < 16 {
        // Factorials up to 15! are exact in 64-bit floats.
        let factorial: f64 = (1..=n).map(f64::from).product();
        return factorial.ln() - ((std::f64::consts::TAU * x).ln() / 2.0 + x * x.ln() - x);
    }
    let square = x * x;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - (1.0 / 1680.0 - 1.0 / 1188.0 / square) / square) / square) / square)
        / x
}

/// `x ln(x/m) + m - x`, without cancellation where `x` is close to `m`.
fn deviance(x: f64, m: f64) -> f64 {
    if (x - m).abs() >= 0.1 * (x + m) {
        return x * (x / m).ln() + m - x;
    }
    let v = (x - m) / (x + m);
    let mut sum = (x - m) * v;
    let mut power = 2.0 * x * v;
    let mut divisor = 1.0;
    loop {
        power *= v * v;
        divisor += 2.0;
        let next = sum + power / divisor;
        if next == sum {
            return sum;
        }
        sum = next;
    }
}

/// Numerator and denominator of a rational approximation, highest power first.
type Rational = ([f64; 8], [f64; 8]);

fn ratio(x: f64, (numerator, denominator): &Rational) -> f64 {
    let polynomial = |coefficients: &[f64; 8]| coefficients.iter().fold(0.0, |sum, c| sum * x + c);
    polynomial(numerator) / polynomial(denominator)
}

/// Within 0.425 of a half.
#[expect(clippy::excessive_precision, reason = "as printed in the paper")]
const CENTRE: Rational = (
    [
        2.509_080_928_730_122_672_7e3,
        3.343_057_558_358_812_810_5e4,
        6.726_577_092_700_870_085_3e4,
        4.592_195_393_154_987_145_7e4,
        1.373_169_376_550_946_112_5e4,
        1.971_590_950_306_551_442_7e3,
        1.331_416_678_917_843_774_5e2,
        3.387_132_872_796_366_608_0,
    ],
    [
        5.226_495_278_852_854_561_0e3,
        2.872_908_573_572_194_267_4e4,
        3.930_789_580_009_271_061_0e4,
        2.121_379_430_158_659_586_7e4,
        5.394_196_021_424_751_107_7e3,
        6.871_870_074_920_579_083_0e2,
        4.231_333_070_160_091_125_2e1,
        1.0,
    ],
);

/// Tails down to `exp(-25)`.
#[expect(clippy::excessive_precision, reason = "as printed in the paper")]
const MIDDLE: Rational = (
    [
        7.745_450_142_783_414_076_40e-4,
        2.272_384_498_926_918_458_33e-2,
        2.417_807_251_774_506_117_70e-1,
        1.270_458_252_452_368_382_58,
        3.647_848_324_763_204_605_04,
        5.769_497_221_460_691_405_50,
        4.630_337_846_156_545_295_90,
        1.423_437_110_749_683_577_34,
    ],
    [
        1.050_750_071_644_416_843_24e-9,
        5.475_938_084_995_344_946_00e-4,
        1.519_866_656_361_645_719_66e-2,
        1.481_039_764_274_800_745_90e-1,
        6.897_673_349_851_000_045_50e-1,
        1.676_384_830_183_803_849_40,
        2.053_191_626_637_758_821_87,
        1.0,
    ],
);

/// Tails beyond.
#[expect(clippy::excessive_precision, reason = "as printed in the paper")]
const FAR: Rational = (
    [
        2.010_334_399_292_288_132_65e-7,
        2.711_555_568_743_487_578_15e-5,
        1.242_660_947_388_078_438_60e-3,
        2.653_218_952_657_612_309_30e-2,
        2.965_605_718_285_048_912_30e-1,
        1.784_826_539_917_291_335_80,
        5.463_784_911_164_114_369_90,
        6.657_904_643_501_103_777_20,
    ],
    [
        2.044_263_103_389_939_785_64e-15,
        1.421_511_758_316_445_888_70e-7,
        1.846_318_317_510_054_681_80e-5,
        7.868_691_311_456_132_591_00e-4,
        1.487_536_129_085_061_485_25e-2,
        1.369_298_809_227_358_053_10e-1,
        5.998_322_065_558_879_376_90e-1,
        1.0,
    ],
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Below 1e-300 floats lose digits, and only the logarithms keep theirs.
    fn close(found: f64, expected: f64, relative: f64) -> bool {
        (found - expected).abs() <= relative * expected.abs() + 1e-300
    }

    proptest! {
        #[test]
        fn masses_add_up_to_one_and_tails_to_their_sums(trials in 0_u32..400, p in 0.0..=1.0) {
            let masses: Vec<f64> = (0..=trials).map(|hits| ln_mass(trials, hits, p).exp()).collect();
            prop_assert!(close(masses.iter().sum(), 1.0, 1e-12));
            for hits in 0..=trials {
                let (below, from) = masses.split_at(usize::try_from(hits).unwrap());
                prop_assert!(close(upper_tail(trials, hits, p).unwrap(), from.iter().rev().sum(), 1e-11), "{hits}");
                prop_assert!(close(lower_tail(trials, hits, p).unwrap(), below.iter().sum::<f64>() + from[0], 1e-11), "{hits}");
            }
        }

        #[test]
        fn wilson_ends_solve_the_score_equation(trials in 1_u32..500, share in 0.0..=1.0, confidence in 0.5..0.999_999) {
            let hits = (0..=trials).find(|&hits| f64::from(hits) >= share * f64::from(trials)).unwrap();
            let (n, rate) = (f64::from(trials), f64::from(hits) / f64::from(trials));
            let z = normal_quantile((1.0 + confidence) / 2.0);
            let Interval { lower, upper } = wilson(hits, trials, confidence).unwrap();
            for end in [lower, upper] {
                prop_assert!(((rate - end).powi(2) - z * z * end * (1.0 - end) / n).abs() < 1e-10);
            }
            prop_assert!((0.0..=rate).contains(&lower) && (rate..=1.0).contains(&upper));
        }

        #[test]
        fn quantiles_are_odd_and_rise(p in 1e-300..0.5_f64, q in 1e-300..0.5_f64) {
            // `1 - p` is rounded for small p, therefore compared where it is not.
            let exact = (p * 1e6).round() / 1e6;
            prop_assert!((normal_quantile(exact) + normal_quantile(1.0 - exact)).abs() < 1e-8 || exact == 0.0);
            prop_assert_eq!(p < q, normal_quantile(p) < normal_quantile(q));
        }
    }

    #[test]
    fn degenerate_rates_and_counts() {
        assert_eq!(upper_tail(10, 0, 0.0), Ok(1.0));
        assert_eq!(upper_tail(10, 1, 0.0), Ok(0.0));
        assert_eq!(lower_tail(10, 9, 1.0), Ok(0.0));
        assert_eq!(upper_tail(10, 10, 1.0), Ok(1.0));
        assert_eq!(upper_tail(0, 0, 0.3), Ok(1.0));
        assert_eq!(ln_upper_tail(5_000, 5_000, 1e-3), Ok(5_000.0 * 1e-3_f64.ln()));
    }

    #[test]
    fn what_is_no_probability_is_refused() {
        assert_eq!(upper_tail(3, 4, 0.5), Err(BinomialError::Hits { hits: 4, trials: 3 }));
        for p in [-0.1, 1.1, f64::NAN] {
            assert!(upper_tail(3, 2, p).is_err() && lower_tail(3, 2, p).is_err());
        }
        for value in [0.0, 1.0, f64::NAN] {
            assert!(wilson(1, 2, value).is_err());
        }
        assert_eq!(wilson(0, 0, 0.95), Err(BinomialError::NoTrial));
    }
}
