//! Offences that statements prove by themselves.

use super::{
    Audit, AuditError, Compensation, Fault, Offence, Punishment, StatementEvidence, Surroundings,
    court::{report_of, require_epoch},
};
use crate::{
    escrow::Call,
    ids::{Epoch, LeaseId, StatementDigest},
    merkle_sum::AbsenceProof,
    units::Amount,
};

/// Proof that a statement is in none of an epoch's reports, which stand one behind the other.
#[derive(Clone, Debug)]
pub struct Absence {
    /// Number of the epoch's first report; where there is none, of the first one after it.
    pub first_report: usize,
    /// For each of the epoch's reports, the leaves between which the statement would stand.
    pub proofs: Vec<AbsenceProof>,
}

impl Audit {
    /// Punishes a host for a statement that is in none of its epoch's reports. Anybody may call, and is the reporter.
    pub fn prove_omission(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        evidence: &StatementEvidence,
        absence: &Absence,
    ) -> Result<Punishment, AuditError> {
        let lease = self.known_lease(evidence.lease())?;
        let digest = evidence.verify(&self.domains, lease)?;
        let epoch = evidence.challengeable(&self.rules, call.now)?;
        let royalty = evidence.royalty(lease);
        require_absent(surroundings, evidence.lease(), epoch, digest, absence)?;
        let fault = Fault::Omission(digest);
        self.punish_once(call, surroundings, evidence.lease(), fault, Offence::Omission, royalty)
    }

    /// Punishes a host for a statement that says that it ended in the future, where no report has to hold it: the same as if it
    /// were missing. Anybody may call, and is the reporter.
    pub fn prove_postdating(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        evidence: &StatementEvidence,
    ) -> Result<Punishment, AuditError> {
        let lease = self.known_lease(evidence.lease())?;
        let digest = evidence.verify(&self.domains, lease)?;
        evidence.postdated(call.now)?;
        let royalty = evidence.royalty(lease);
        let fault = Fault::Omission(digest);
        self.punish_once(call, surroundings, evidence.lease(), fault, Offence::Omission, royalty)
    }

    /// Punishes a host for two statements that cannot both be true. Anybody may call, and is the reporter.
    pub fn prove_equivocation(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        first: &StatementEvidence,
        second: &StatementEvidence,
    ) -> Result<Punishment, AuditError> {
        let lease = self.known_lease(first.lease())?;
        let digests = [first.verify(&self.domains, lease)?, second.verify(&self.domains, lease)?];
        if !first.contradicts(digests, second) {
            return Err(AuditError::NoContradiction);
        }
        let fault = Fault::Equivocation(second.request());
        self.punish_once(call, surroundings, first.lease(), fault, Offence::Equivocation, Amount::ZERO)
    }

    /// Punishes a host for a statement whose charge its prices do not give. Anybody may call, and is the reporter.
    pub fn prove_misprice(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        evidence: &StatementEvidence,
    ) -> Result<Punishment, AuditError> {
        let lease = self.known_lease(evidence.lease())?;
        let digest = evidence.verify(&self.domains, lease)?;
        let right = evidence.right_charge(&lease.prices);
        if right == Some(alloy_primitives::U256::from(evidence.statement.charge)) {
            return Err(AuditError::ChargeIsRight { charge: Amount::new(evidence.statement.charge) });
        }
        let fault = Fault::Misprice(digest);
        self.punish_once(call, surroundings, evidence.lease(), fault, Offence::Misprice, Amount::ZERO)
    }

    fn punish_once(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        lease: LeaseId,
        fault: Fault,
        offence: Offence,
        creator_loss: Amount,
    ) -> Result<Punishment, AuditError> {
        if !self.punished.insert(fault) {
            return Err(AuditError::AlreadyPunished { fault });
        }
        let compensation = Compensation { payer: None, creator_loss, reporter: Some(call.caller) };
        self.punish(call.now, surroundings, lease, offence, compensation)
    }
}

/// Walks over all reports of an epoch. The ones beside them are of other epochs, so none is left out.
fn require_absent(
    surroundings: &impl Surroundings,
    lease: LeaseId,
    epoch: Epoch,
    digest: StatementDigest,
    absence: &Absence,
) -> Result<(), AuditError> {
    let mut number = absence.first_report;
    if let Some(before) = number.checked_sub(1) {
        let (before, _) = report_of(surroundings, lease, before)?;
        if before.epoch >= epoch {
            return Err(AuditError::WrongEpoch { expected: epoch, actual: before.epoch });
        }
    }
    for proof in &absence.proofs {
        let (report, commitment) = report_of(surroundings, lease, number)?;
        require_epoch(epoch, report.epoch)?;
        proof.verify(&commitment, digest)?;
        number = number.saturating_add(1);
    }
    match surroundings.reports(lease).get(number) {
        Some(next) if next.epoch <= epoch => Err(AuditError::WrongEpoch { expected: epoch, actual: next.epoch }),
        _ => Ok(()),
    }
}
