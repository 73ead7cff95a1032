//! The court: where is this statement? A host shows it in a report, or loses by silence.

use alloy_primitives::Address;

use super::{
    Audit, AuditError, Compensation, Fault, Offence, Punishment, StatementEvidence, Surroundings, UsageReport, after,
};
use crate::{
    counts::UsageTotals,
    escrow::Call,
    ids::{Epoch, LeaseId, StatementDigest},
    merkle_sum::{Commitment, InclusionProof},
    units::{Amount, UnixSeconds},
};

/// A question for a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InclusionChallenge {
    /// Of which lease.
    pub lease: LeaseId,
    /// To which epoch it belongs.
    pub epoch: Epoch,
    /// When it was asked.
    pub opened_at: UnixSeconds,
    /// Who asked.
    pub challenger: Address,
    /// Whether it is unanswered and not resolved.
    pub open: bool,
    /// What the creator loses if it is missing.
    pub royalty: Amount,
    /// What the epoch's tree must hold.
    pub leaf: crate::merkle_sum::Leaf,
}

impl Audit {
    /// A question for a statement, open or not.
    pub fn inclusion_challenge(&self, statement: StatementDigest) -> Option<&InclusionChallenge> {
        self.challenges.get(&statement)
    }

    /// All questions.
    pub fn inclusion_challenges(&self) -> impl Iterator<Item = (StatementDigest, &InclusionChallenge)> {
        self.challenges.iter().map(|(digest, challenge)| (*digest, challenge))
    }

    /// Whether something was punished.
    pub fn is_punished(&self, fault: &Fault) -> bool {
        self.punished.contains(fault)
    }

    /// Everything that was punished.
    pub fn faults(&self) -> impl Iterator<Item = &Fault> {
        self.punished.iter()
    }

    /// Asks a host to show a statement. Costs the challenge bond, which goes to the host if it answers. One statement is asked
    /// for once.
    pub fn challenge_inclusion(
        &mut self,
        call: Call,
        coins: Amount,
        evidence: &StatementEvidence,
    ) -> Result<StatementDigest, AuditError> {
        super::coins::require_bond(self.rules.challenge_bond, coins)?;
        let lease = self.known_lease(evidence.lease())?;
        let digest = evidence.verify(&self.domains, lease)?;
        let epoch = evidence.challengeable(&self.rules, call.now)?;
        if self.challenges.contains_key(&digest) {
            return Err(AuditError::AlreadyChallenged { statement: digest });
        }
        let challenge = InclusionChallenge {
            lease: evidence.lease(),
            epoch,
            opened_at: call.now,
            challenger: call.caller,
            open: true,
            royalty: evidence.royalty(lease),
            leaf: evidence.leaf(digest),
        };
        self.court_coins.take(self.rules.challenge_bond, coins)?;
        self.challenges.insert(digest, challenge);
        self.case_opened(challenge.lease);
        Ok(digest)
    }

    /// Shows a statement in the lease's report of this number, which must have been there before the question, and not in the same
    /// block: one that was made because it was asked for would turn an omission into a delay. Anybody may answer.
    pub fn answer_inclusion(
        &mut self,
        surroundings: &impl Surroundings,
        statement: StatementDigest,
        report: usize,
        proof: &InclusionProof,
    ) -> Result<(), AuditError> {
        let challenge = *self.open_challenge(statement)?;
        if proof.leaf != challenge.leaf {
            return Err(AuditError::LeafMismatch { statement });
        }
        let (made, commitment) = report_of(surroundings, challenge.lease, report)?;
        require_epoch(challenge.epoch, made.epoch)?;
        if made.committed_at >= challenge.opened_at {
            let (challenged_at, committed_at) = (challenge.opened_at, made.committed_at);
            return Err(AuditError::ReportedAfterChallenge { challenged_at, committed_at });
        }
        proof.verify(&commitment)?;
        let host = self.known_lease(challenge.lease)?.host;
        self.close_challenge(statement, host);
        Ok(())
    }

    /// Punishes a host that did not answer in time; `None` if the statement was proven to be missing meanwhile. Anybody may call.
    pub fn resolve_inclusion(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        statement: StatementDigest,
    ) -> Result<Option<Punishment>, AuditError> {
        let challenge = *self.open_challenge(statement)?;
        let until = after(challenge.opened_at, self.rules.answer_window);
        if call.now <= until {
            return Err(AuditError::TooEarly { from: until });
        }
        self.close_challenge(statement, challenge.challenger);
        if !self.punished.insert(Fault::Omission(statement)) {
            return Ok(None);
        }
        let compensation =
            Compensation { payer: None, creator_loss: challenge.royalty, reporter: Some(challenge.challenger) };
        self.punish(call.now, surroundings, challenge.lease, Offence::Silence, compensation).map(Some)
    }

    fn open_challenge(&self, statement: StatementDigest) -> Result<&InclusionChallenge, AuditError> {
        let challenge = self.challenges.get(&statement).filter(|challenge| challenge.open);
        challenge.ok_or(AuditError::NoChallenge { statement })
    }

    fn close_challenge(&mut self, statement: StatementDigest, winner: Address) {
        if let Some(challenge) = self.challenges.get_mut(&statement) {
            challenge.open = false;
            let lease = challenge.lease;
            self.court_coins.owe(winner, self.rules.challenge_bond);
            self.case_closed(lease);
        }
    }
}

/// A report of a lease with what it alone commits to.
pub(super) fn report_of(
    surroundings: &impl Surroundings,
    lease: LeaseId,
    number: usize,
) -> Result<(UsageReport, Commitment), AuditError> {
    let reports = surroundings.reports(lease);
    let unknown = AuditError::UnknownReport { lease, number };
    let report = *reports.get(number).ok_or(unknown)?;
    let before = number.checked_sub(1).and_then(|before| reports.get(before));
    let before = before.map_or(UsageTotals::ZERO, |before| before.cumulative);
    // Sums of a lease only grow, so nothing is cut off; and cached tokens are at most the prompt tokens in each report.
    let totals = report.cumulative.missing_in(&before);
    Ok((report, Commitment { root: report.root, totals }))
}

pub(super) const fn require_epoch(expected: Epoch, actual: Epoch) -> Result<(), AuditError> {
    if actual.get() == expected.get() { Ok(()) } else { Err(AuditError::WrongEpoch { expected, actual }) }
}
