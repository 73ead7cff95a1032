//! The sequential test of ownership: two e-processes that may be stopped at any time.
//!
//! **Forward**, against "this model is innocent". The candidate lists were fixed before the beacon drew one candidate of
//! each, so a model that was not trained on the draw answers with the drawn one at most once in `k` of the times that it
//! answers inside the list, whatever else is true of the model, the keys and the sampling. Betting the share `L` of the
//! wealth on the drawn candidate gives each reply the factor of [`stake_factor`], whose mean is exactly 1 for an
//! innocent model. The mean of the products for the stakes [`STAKES`] is again such a process, `E`, and by Ville's
//! inequality it ever reaches `1/α` with probability at most `α`.
//!
//! **Reverse**, against "the drawn response comes at least `min_hit_rate` of the time". A reply counts as a hit or as a
//! miss, and likelihood ratios of smaller rates to `min_hit_rate` are averaged. If each reply is a hit with
//! probability at least `min_hit_rate` whatever came before, it ever reaches `1/β` with probability at most `β`.
//!
//! What the caller must see to:
//! - each leaf is asked **once**: the same draw bet on twice is not two bets;
//! - leaves come in [`crate::draw::query_order`] without a gap, and every reply is observed, also the disappointing ones;
//! - a run gets the part of `α` that belongs to its first position ([`EProcessParameters::starting_at`]), because whoever
//!   reports a run could have chosen where it begins;
//! - "not this model" means "not at this strength": a suppressed copy that still answers one key in ten is given up by
//!   the reverse process unless `min_hit_rate` lies below a tenth.
//!
//! Both values depend on the counts of replies only, and are computed from them, so rounding does not add up. `ln` and
//! `exp` may differ in the last bit between platforms, so decisions are made on the six decimals of [`rounded`]: every
//! machine then decides alike, and the bounds hold up to a factor of 1.000003.

use serde::{Deserialize, Serialize};

use crate::{ids::CandidateIndex, units::CandidateCount};

/// Shares of the wealth that are bet on the drawn candidate; the process is the mean over them.
pub const STAKES: [f64; 4] = [0.3, 0.5, 0.7, 0.9];

/// Rates that the reverse process tries, as fractions of the smallest hit rate that is looked for.
pub const REVERSE_RATES: [f64; 4] = [0.0, 0.125, 0.25, 0.5];

/// Error bound of a routine proof.
pub const ROUTINE_ALPHA: f64 = 1e-6;

/// Why a test cannot be run.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum EProcessError {
    /// Each parameter is a probability, and neither certainty makes a test.
    #[error("{name} is {value}, which is not between 0 and 1")]
    OutOfRange {
        /// The parameter.
        name: &'static str,
        /// What was given.
        value: f64,
    },
}

/// What a reply was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The drawn candidate.
    Drawn,
    /// Another candidate of the same key.
    OtherCandidate,
    /// Anything else: an ordinary answer, a refusal, a suppressed token.
    Outside,
}

impl Reply {
    /// Judges what [`crate::matching::MatchingRule::match_reply`] found.
    pub fn of(matched: Option<CandidateIndex>, drawn: CandidateIndex) -> Self {
        match matched {
            Some(index) if index == drawn => Self::Drawn,
            Some(_) => Self::OtherCandidate,
            None => Self::Outside,
        }
    }
}

/// Error bounds and the strength that is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EProcessParameters {
    /// Largest probability of "proved" for an innocent model.
    pub alpha: f64,
    /// Smallest rate of drawn responses that counts as this model.
    pub min_hit_rate: f64,
    /// Largest probability of "not this model" for a model that answers at least at `min_hit_rate`.
    pub beta: f64,
}

impl Default for EProcessParameters {
    fn default() -> Self {
        Self { alpha: ROUTINE_ALPHA, min_hit_rate: 0.5, beta: 1e-3 }
    }
}

impl EProcessParameters {
    /// The same test at the level of a run whose first leaf stands at this position of the order, from 0:
    /// `α` times [`share_of_alpha`].
    pub fn starting_at(self, start: u32) -> Self {
        Self { alpha: self.alpha * share_of_alpha(start), ..self }
    }

    fn check(&self) -> Result<(), EProcessError> {
        for (name, value) in [("alpha", self.alpha), ("min_hit_rate", self.min_hit_rate), ("beta", self.beta)] {
            if !(value > 0.0 && value < 1.0) {
                return Err(EProcessError::OutOfRange { name, value });
            }
        }
        Ok(())
    }
}

/// The part of `α` that belongs to the run beginning at position `s` of the order: `1 / ((s + 1)(s + 2))`.
///
/// Over all positions the parts add up to 1, so `α` bounds a false proof by any run under one root, wherever a claimant
/// chooses to begin. The price is small: with sixteen candidates and `α` = 1e-6, six drawn responses in a row prove a
/// run from position 0, eight one from position 6, nine one from position 64.
pub fn share_of_alpha(start: u32) -> f64 {
    let start = f64::from(start);
    1.0 / ((start + 1.0) * (start + 2.0))
}

/// A decimal logarithm as it is decided on and written down: to six decimals.
pub fn rounded(log10: f64) -> f64 {
    (log10 * 1e6).round() / 1e6
}

/// How one reply changed the two processes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryFactors {
    /// `E` after the reply over `E` before it.
    pub forward: f64,
    /// The same for the reverse process.
    pub reverse: f64,
}

/// How a test ended. A test that runs out of leaves first is undecided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// `E` reached `1/α`.
    Proved,
    /// The reverse process reached `1/β`: not this model at this strength.
    NotThisModel,
}

/// Replies so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyCounts {
    /// [`Reply::Drawn`].
    pub drawn: u32,
    /// [`Reply::OtherCandidate`].
    pub other_candidate: u32,
    /// [`Reply::Outside`].
    pub outside: u32,
}

impl ReplyCounts {
    fn add(&mut self, reply: Reply) {
        let count = match reply {
            Reply::Drawn => &mut self.drawn,
            Reply::OtherCandidate => &mut self.other_candidate,
            Reply::Outside => &mut self.outside,
        };
        // A tree holds fewer leaves than this, and each is asked once.
        *count = count.saturating_add(1);
    }
}

/// Factor of one reply when the share `stake` is bet on the drawn one of the candidates:
/// `1 - L + L·k` for it, `1 - L` for another candidate, and 1 for anything else, which costs nothing.
///
/// When two drawn responses count, as for a key that tells tenants apart, `candidates` is half the list's length.
pub fn stake_factor(candidates: CandidateCount, stake: f64, reply: Reply) -> f64 {
    match reply {
        Reply::Drawn => 1.0 - stake + stake * f64::from(candidates.get()),
        Reply::OtherCandidate => 1.0 - stake,
        Reply::Outside => 1.0,
    }
}

/// A running test. Feed it every reply in order; read the decision after each.
#[derive(Clone, Debug)]
pub struct EProcess {
    candidates: CandidateCount,
    parameters: EProcessParameters,
    counts: ReplyCounts,
    ln_e: f64,
    ln_reverse: f64,
    ln_e_maximum: f64,
    decision: Option<Decision>,
}

impl EProcess {
    /// A test for keys with so many candidates.
    pub fn new(candidates: CandidateCount, parameters: EProcessParameters) -> Result<Self, EProcessError> {
        parameters.check()?;
        Ok(Self {
            candidates,
            parameters,
            counts: ReplyCounts::default(),
            ln_e: 0.0,
            ln_reverse: 0.0,
            ln_e_maximum: 0.0,
            decision: None,
        })
    }

    /// How many replies in a row must be the drawn ones for a proof: no run with fewer keys can succeed.
    pub fn fewest_queries(candidates: CandidateCount, parameters: EProcessParameters) -> Result<u32, EProcessError> {
        let mut process = Self::new(candidates, parameters)?;
        // Every drawn reply multiplies the evidence by a factor above 1 that grows towards the number of candidates.
        while process.decision.is_none() {
            process.observe(Reply::Drawn);
        }
        Ok(process.counts.drawn)
    }

    /// Takes the next reply. The first decision stands whatever is observed after it.
    pub fn observe(&mut self, reply: Reply) -> QueryFactors {
        self.counts.add(reply);
        let (ln_e, ln_reverse) = (self.ln_forward_of_counts(), self.ln_reverse_of_counts());
        let factors = QueryFactors { forward: (ln_e - self.ln_e).exp(), reverse: (ln_reverse - self.ln_reverse).exp() };
        self.ln_e = ln_e;
        self.ln_reverse = ln_reverse;
        self.ln_e_maximum = self.ln_e_maximum.max(ln_e);
        if self.decision.is_none() {
            // A hit moves only the forward process up and a miss only the reverse one, so they never cross together.
            if rounded(self.log10_e()) >= self.log10_threshold() {
                self.decision = Some(Decision::Proved);
            } else if rounded(self.log10_reverse()) >= rounded(-self.parameters.beta.log10()) {
                self.decision = Some(Decision::NotThisModel);
            }
        }
        factors
    }

    /// The first decision that was reached, or `None` while the test is undecided.
    pub const fn decision(&self) -> Option<Decision> {
        self.decision
    }

    /// Decimal logarithm of `E`.
    pub fn log10_e(&self) -> f64 {
        self.ln_e / std::f64::consts::LN_10
    }

    /// Where [`Self::log10_e`] proves ownership: `1/α`, rounded.
    pub fn log10_threshold(&self) -> f64 {
        rounded(-self.parameters.alpha.log10())
    }

    /// Decimal logarithm of the reverse process.
    pub fn log10_reverse(&self) -> f64 {
        self.ln_reverse / std::f64::consts::LN_10
    }

    /// Probability at most which an innocent model's `E` ever gets as high as this one got: one over the largest `E`.
    pub fn error_bound(&self) -> f64 {
        (-self.ln_e_maximum).exp()
    }

    /// Replies so far.
    pub const fn counts(&self) -> ReplyCounts {
        self.counts
    }

    /// The test's parameters.
    pub const fn parameters(&self) -> &EProcessParameters {
        &self.parameters
    }

    fn ln_forward_of_counts(&self) -> f64 {
        ln_mean_exp(STAKES.map(|stake| {
            let ln = |reply| stake_factor(self.candidates, stake, reply).ln();
            times(self.counts.drawn, ln(Reply::Drawn)) + times(self.counts.other_candidate, ln(Reply::OtherCandidate))
        }))
    }

    fn ln_reverse_of_counts(&self) -> f64 {
        let smallest = self.parameters.min_hit_rate;
        // A sum of two 32-bit counts is exact in 64-bit floats.
        let misses = f64::from(self.counts.other_candidate) + f64::from(self.counts.outside);
        ln_mean_exp(REVERSE_RATES.map(|fraction| {
            let hit = times(self.counts.drawn, fraction.ln());
            hit + misses * ((-fraction * smallest).ln_1p() - (-smallest).ln_1p())
        }))
    }
}

/// `count · ln`, with `0 · -∞ = 0`: what did not happen contributes the factor 1.
fn times(count: u32, ln: f64) -> f64 {
    if count == 0 { 0.0 } else { f64::from(count) * ln }
}

/// Logarithm of the mean of exponentials, without overflow. At least one term must be finite.
fn ln_mean_exp(terms: [f64; 4]) -> f64 {
    let largest = terms.into_iter().fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = terms.into_iter().map(|term| (term - largest).exp()).sum();
    largest + (sum / 4.0).ln()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn count(value: u16) -> CandidateCount {
        CandidateCount::new(value).unwrap()
    }

    fn replies() -> impl Strategy<Value = Vec<Reply>> {
        prop::collection::vec(prop::sample::select(vec![Reply::Drawn, Reply::OtherCandidate, Reply::Outside]), 0..200)
    }

    proptest! {
        #[test]
        fn values_are_the_products_of_the_factors_and_the_plain_definition(power in 1_u32..=10, replies in replies(), smallest in 0.02..0.98) {
            let candidates = count(1 << power);
            let parameters = EProcessParameters { min_hit_rate: smallest, ..EProcessParameters::default() };
            let mut process = EProcess::new(candidates, parameters).unwrap();
            let (mut forward, mut reverse) = (0.0, 0.0);
            let (mut products, mut ratios) = ([0.0_f64; 4], [0.0_f64; 4]);
            for reply in replies {
                let factors = process.observe(reply);
                forward += factors.forward.log10();
                reverse += factors.reverse.log10();
                for (product, stake) in products.iter_mut().zip(STAKES) {
                    *product += stake_factor(candidates, stake, reply).log10();
                }
                for (ratio, fraction) in ratios.iter_mut().zip(REVERSE_RATES) {
                    let rate = fraction * smallest;
                    *ratio += if reply == Reply::Drawn { rate / smallest } else { (1.0 - rate) / (1.0 - smallest) }.log10();
                }
            }
            let mean = |logs: [f64; 4]| {
                let largest = logs.into_iter().fold(f64::NEG_INFINITY, f64::max);
                largest + (logs.iter().map(|log| 10_f64.powf(log - largest)).sum::<f64>() / 4.0).log10()
            };
            prop_assert!((process.log10_e() - forward).abs() < 1e-9);
            prop_assert!((process.log10_reverse() - reverse).abs() < 1e-9);
            prop_assert!((process.log10_e() - mean(products)).abs() < 1e-9);
            prop_assert!((process.log10_reverse() - mean(ratios)).abs() < 1e-9);
        }

        #[test]
        fn the_two_thresholds_are_never_crossed_by_one_reply(power in 1_u32..=10, replies in replies()) {
            let mut process = EProcess::new(count(1 << power), EProcessParameters::default()).unwrap();
            for reply in replies {
                let factors = process.observe(reply);
                prop_assert!(factors.forward <= 1.0 + 1e-12 || factors.reverse <= 1.0 + 1e-12);
                if reply == Reply::Outside {
                    prop_assert_eq!(factors.forward, 1.0);
                }
            }
        }
    }

    #[test]
    fn the_first_decision_stands() {
        let mut process = EProcess::new(count(16), EProcessParameters::default()).unwrap();
        while process.decision().is_none() {
            process.observe(Reply::Drawn);
        }
        assert_eq!(process.decision(), Some(Decision::Proved));
        let bound = process.error_bound();
        assert!(bound <= 1e-6);
        for _ in 0..200 {
            process.observe(Reply::OtherCandidate);
        }
        assert!(process.log10_e() < 0.0 && process.log10_reverse() > 3.0);
        assert_eq!(process.decision(), Some(Decision::Proved));
        assert_eq!(process.error_bound(), bound);
    }

    #[test]
    fn ordinary_answers_end_in_not_this_model_at_no_cost_to_the_forward_process() {
        let mut process = EProcess::new(count(16), EProcessParameters::default()).unwrap();
        let mut queries = 0;
        while process.decision().is_none() {
            process.observe(Reply::Outside);
            queries += 1;
        }
        assert_eq!((process.decision(), queries), (Some(Decision::NotThisModel), 12));
        assert_eq!((process.log10_e(), process.error_bound()), (0.0, 1.0));
        assert_eq!(process.counts(), ReplyCounts { drawn: 0, other_candidate: 0, outside: 12 });
    }

    #[test]
    fn a_reply_is_judged_by_what_it_matched() {
        let drawn = CandidateIndex::new(3);
        assert_eq!(Reply::of(Some(drawn), drawn), Reply::Drawn);
        assert_eq!(Reply::of(Some(CandidateIndex::new(2)), drawn), Reply::OtherCandidate);
        assert_eq!(Reply::of(None, drawn), Reply::Outside);
    }

    #[test]
    fn parameters_outside_the_unit_interval_are_refused() {
        for value in [0.0, 1.0, -0.1, 2.0, f64::NAN, f64::INFINITY] {
            let parameters = EProcessParameters { beta: value, ..EProcessParameters::default() };
            assert!(matches!(
                EProcess::new(count(16), parameters),
                Err(EProcessError::OutOfRange { name: "beta", .. })
            ));
        }
    }

    #[test]
    fn shares_of_alpha_add_up_to_all_of_it_and_raise_the_threshold_only() {
        let sum: f64 = (0..1_000_000).map(share_of_alpha).sum();
        assert!(sum <= 1.0 && sum > 0.999_99, "{sum}");
        let parameters = EProcessParameters::default();
        assert_eq!(parameters.starting_at(0), EProcessParameters { alpha: 0.5e-6, ..parameters });
        assert_eq!(share_of_alpha(6), 1.0 / 56.0);
        assert!(share_of_alpha(u32::MAX) > 0.0);
    }

    #[test]
    fn drawn_responses_in_a_row_that_prove_a_run() {
        for (start, hits) in [(0, 6), (6, 8), (64, 9), (1_000, 11)] {
            let mut process = EProcess::new(count(16), EProcessParameters::default().starting_at(start)).unwrap();
            for _ in 1..hits {
                process.observe(Reply::Drawn);
            }
            assert_eq!(process.decision(), None, "position {start}");
            process.observe(Reply::Drawn);
            assert_eq!(process.decision(), Some(Decision::Proved), "position {start}");
        }
    }

    #[test]
    fn a_threshold_on_the_edge_is_decided_by_the_written_digits() {
        // The value of E after four drawn responses, and its neighbours by a last bit of the logarithm.
        let e = [0.3_f64, 0.5, 0.7, 0.9].map(|stake| (1.0 + 15.0 * stake).powi(4)).iter().sum::<f64>() / 4.0;
        for slip in [1.0 - 1e-14, 1.0, 1.0 + 1e-14] {
            let parameters = EProcessParameters { alpha: slip / e, ..EProcessParameters::default() };
            let mut process = EProcess::new(count(16), parameters).unwrap();
            for _ in 0..4 {
                assert_eq!(process.decision(), None);
                process.observe(Reply::Drawn);
            }
            assert_eq!(process.decision(), Some(Decision::Proved), "{slip}");
        }
    }
}
