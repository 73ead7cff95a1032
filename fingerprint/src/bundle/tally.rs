//! The running result of a proof. Prover and verifier count with the same code.

use protocol::{
    e_process::{Decision, EProcess, EProcessError, EProcessParameters, Reply, share_of_alpha},
    ids::CandidateIndex,
    units::CandidateCount,
};

use super::{
    format::{FactorsRecord, TestRecord, VerdictRecord},
    number::Rounded,
};
use crate::prove::Outcome;

/// Answers without a reply, one after the other, at which a proof ends.
pub(crate) const FAILURES_IN_A_ROW: u32 = 4;

/// Replies so far, and what they amount to.
pub(crate) struct Tally {
    process: EProcess,
    /// The part of `alpha` that this run may use.
    share: f64,
    queries: u32,
    empty: u32,
    failed: u32,
    failed_in_a_row: u32,
}

impl Tally {
    pub(super) fn new(candidates: CandidateCount, test: &TestRecord) -> Result<Self, EProcessError> {
        let parameters =
            EProcessParameters { alpha: test.alpha.0, min_hit_rate: test.min_hit_rate.0, beta: test.beta.0 };
        // Checked before it is divided, so that an error names what the user gave.
        EProcess::new(candidates, parameters)?;
        let process = EProcess::new(candidates, parameters.starting_at(test.start))?;
        Ok(Self { process, share: share_of_alpha(test.start), queries: 0, empty: 0, failed: 0, failed_in_a_row: 0 })
    }

    /// Counts one reply, or that there was none: that is evidence for neither side.
    pub(super) fn observe(
        &mut self,
        matched: Option<CandidateIndex>,
        drawn: CandidateIndex,
        reply: Option<&str>,
    ) -> FactorsRecord {
        let (forward, reverse) = match reply {
            Some(_) => {
                let factors = self.process.observe(Reply::of(matched, drawn));
                (factors.forward, factors.reverse)
            }
            None => (1.0, 1.0),
        };
        // A set has fewer leaves than this, and each is asked once.
        self.queries = self.queries.saturating_add(1);
        self.empty = self.empty.saturating_add(u32::from(reply.is_some_and(|reply| reply.trim().is_empty())));
        self.failed = self.failed.saturating_add(u32::from(reply.is_none()));
        self.failed_in_a_row = if reply.is_none() { self.failed_in_a_row.saturating_add(1) } else { 0 };
        FactorsRecord {
            log10_factor: Rounded::new(forward.log10()),
            log10_e: Rounded::new(self.process.log10_e()),
            log10_reverse_factor: Rounded::new(reverse.log10()),
            log10_reverse: Rounded::new(self.process.log10_reverse()),
        }
    }

    /// Whether the evidence has decided.
    pub(crate) fn is_decided(&self) -> bool {
        self.process.decision().is_some()
    }

    /// Whether so many answers in a row held no reply that a proof ends.
    pub(crate) fn is_given_up(&self) -> bool {
        self.failed_in_a_row >= FAILURES_IN_A_ROW
    }

    /// What the evidence says so far.
    pub(super) fn outcome(&self) -> Outcome {
        match self.process.decision() {
            Some(Decision::Proved) => Outcome::Proved,
            Some(Decision::NotThisModel) => Outcome::NotThisModel,
            None => Outcome::Undecided,
        }
    }

    pub(crate) fn queries(&self) -> u32 {
        self.queries
    }

    /// Replies that were the drawn response.
    pub(crate) fn drawn(&self) -> u32 {
        self.process.counts().drawn
    }

    /// Replies without any text.
    pub(crate) fn empty(&self) -> u32 {
        self.empty
    }

    /// Decimal logarithm of the evidence for ownership.
    pub(crate) fn log10_e(&self) -> f64 {
        self.process.log10_e()
    }

    /// Decimal logarithm of the evidence that proves ownership.
    pub(crate) fn log10_threshold(&self) -> f64 {
        self.process.log10_threshold()
    }

    /// The error bound that this run is tested at.
    pub(super) fn level(&self) -> f64 {
        self.process.parameters().alpha
    }

    /// Decimal logarithm of the bound on a false proof with this evidence, whichever run under the root it was: one over
    /// the largest `E` and the run's share, at most 1.
    pub(super) fn log10_error_bound(&self) -> f64 {
        (self.process.error_bound() / self.share).log10().min(0.0)
    }

    pub(super) fn verdict(&self) -> VerdictRecord {
        let counts = self.process.counts();
        VerdictRecord {
            outcome: self.outcome(),
            queries: self.queries,
            drawn: counts.drawn,
            other_candidates: counts.other_candidate,
            outside: counts.outside,
            empty: self.empty,
            failed: self.failed,
            log10_e: Rounded::new(self.log10_e()),
            log10_error_bound: Rounded::new(self.log10_error_bound()),
            log10_reverse: Rounded::new(self.process.log10_reverse()),
        }
    }
}
