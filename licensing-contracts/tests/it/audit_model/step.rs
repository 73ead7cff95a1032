//! One call: what it does to the contracts, and what to the models.

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::SolValue,
};
use licensing_contracts::actions::operators::AuditSet;
use protocol::{
    audit::{
        Absence, Accusation, AuditError, Closure, Conflict, Punishment, QuorumSignature, StatementEvidence, UsageReport,
    },
    bls::{BlsSignature, PublicKey},
    counts::UsageTotals,
    escrow::{Call, EscrowError, LeaseClaims},
    ids::{Epoch, LeaseId, StatementDigest, TaskId},
    merkle_sum::{InclusionProof, Leaf, MerkleSumTree},
    messages::{EpochCommit, Message as _, Statement, TaskKind, Verdict},
    splits::Splits,
    units::{Amount, Seconds, UnixSeconds},
};

use super::world::{Models, Others, Told, World};
use crate::differential::address;

mod encode;

/// A call, so and so much after the one before it.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) after: Seconds,
    pub(super) by: &'static str,
    pub(super) act: Act,
}

#[derive(Clone, Debug)]
pub(super) enum Act {
    // What hosts and payers do all day.
    Report { lease: LeaseId, epoch: Epoch, statements: Vec<Statement> },
    Claim { claims: LeaseClaims },
    Settle { lease: LeaseId, used: UsageTotals },
    // The court.
    Ask { evidence: StatementEvidence, coins: Amount },
    Answer { statement: StatementDigest, report: usize, proof: InclusionProof },
    ResolveInclusion { statement: StatementDigest },
    Omission { evidence: StatementEvidence, absence: Absence },
    Equivocation { first: StatementEvidence, second: StatementEvidence },
    Misprice { evidence: StatementEvidence },
    Postdating { evidence: StatementEvidence },
    Accuse { accusation: Accusation, coins: Amount },
    // Tasks.
    OpenTask { lease: LeaseId, kind: TaskKind, evidence_root: B256, coins: Amount },
    ChallengeOwnership { model: usize, coins: Amount },
    SubmitVerdict { verdict: Verdict, signature: QuorumSignature },
    Resolve { task: TaskId },
    // Validators.
    Join { operator: &'static str, key: PublicKey, possession: BlsSignature },
    LeaveSet { operator: &'static str, set: AuditSet },
    UpdateStakes { operators: Vec<Address> },
    Conflict { conflict: Conflict },
    // Money and leases.
    WithdrawFromCourt { account: Address },
    WithdrawFromAudit { account: Address },
    Suspend { lease: LeaseId },
    Reinstate { lease: LeaseId },
    AddBond { lease: LeaseId, amount: Amount },
    Close { lease: LeaseId },
    WithdrawBond { lease: LeaseId },
}

/// What the models say that a call did.
#[derive(Debug, Default)]
pub(super) struct Supposed {
    pub(super) output: Option<Vec<u8>>,
    pub(super) punishment: Option<Punishment>,
}

impl Supposed {
    fn returning(value: impl SolValue) -> Self {
        Self { output: Some(value.abi_encode()), punishment: None }
    }

    fn punishing(punishment: Option<Punishment>) -> Self {
        Self { output: Some(Vec::new()), punishment }
    }
}

impl From<()> for Supposed {
    fn from((): ()) -> Self {
        Self::punishing(None)
    }
}

/// Why a call is refused: by the audit, or by the escrow.
pub(super) type Refusal = (&'static str, String);

fn of_audit(error: AuditError) -> Refusal {
    (error.name(), error.to_string())
}

fn of_escrow(error: EscrowError) -> Refusal {
    (error.name(), error.to_string())
}

impl World {
    fn tree(&self, statements: &[Statement]) -> MerkleSumTree {
        let leaf = |made: &Statement| Leaf::new(made.digest(&self.domains.statements), made.step.usage(), made.charge);
        MerkleSumTree::new(statements.iter().map(leaf).collect()).unwrap()
    }

    fn report(&self, lease: LeaseId, epoch: Epoch, tree: &MerkleSumTree) -> EpochCommit {
        let commitment = tree.commitment();
        let previous = self.models.book.last_reports.get(&lease).copied();
        EpochCommit { lease, epoch, root: commitment.root, totals: commitment.totals, previous }
    }

    /// What the models say that the contracts do.
    pub(super) fn supposedly(&mut self, step: &Step) -> Result<Supposed, Refusal> {
        let call = Call { caller: address(step.by), now: self.chain.now() };
        match &step.act {
            Act::Report { lease, epoch, statements } => return Ok(self.note_report(*lease, *epoch, statements)),
            Act::Claim { claims } => return self.claim(call, claims),
            Act::Settle { lease, used } => return self.settle(call, *lease, used),
            _ => {}
        }
        let token = self.token;
        let Models { audit, escrow, others, .. } = &mut self.models;
        let done = match &step.act {
            Act::Report { .. } | Act::Claim { .. } | Act::Settle { .. } => Ok(Supposed::default()),
            Act::Ask { evidence, coins } => audit.challenge_inclusion(call, *coins, evidence).map(|_| ().into()),
            Act::Answer { statement, report, proof } => {
                audit.answer_inclusion(others, *statement, *report, proof).map(Into::into)
            }
            Act::ResolveInclusion { statement } => {
                audit.resolve_inclusion(call, others, *statement).map(Supposed::punishing)
            }
            Act::Omission { evidence, absence } => {
                audit.prove_omission(call, others, evidence, absence).map(Some).map(Supposed::punishing)
            }
            Act::Equivocation { first, second } => {
                audit.prove_equivocation(call, others, first, second).map(Some).map(Supposed::punishing)
            }
            Act::Misprice { evidence } => {
                audit.prove_misprice(call, others, evidence).map(Some).map(Supposed::punishing)
            }
            Act::Postdating { evidence } => {
                audit.prove_postdating(call, others, evidence).map(Some).map(Supposed::punishing)
            }
            Act::Accuse { accusation, coins } => {
                audit.accuse(call, *coins, others, accusation).map(|task| Supposed::returning(task.get()))
            }
            Act::OpenTask { lease, kind, evidence_root, coins } => {
                let opened = audit.open_task(call, *coins, *lease, *kind, *evidence_root);
                opened.map(|task| Supposed::returning(task.get()))
            }
            Act::ChallengeOwnership { model, coins } => {
                let opened = audit.open_ownership_task(call, *coins, self.model_ids[*model], OWNERSHIP);
                opened.map(|task| Supposed::returning(task.get()))
            }
            Act::SubmitVerdict { verdict, signature } => {
                let done = audit.submit_verdict(call, verdict, signature);
                done.map(|closure| Supposed::punishing(closure.and_then(|closure: Closure| closure.punishment)))
            }
            Act::Resolve { task } => {
                audit.resolve(call, others, *task).map(|closure| Supposed::punishing(closure.punishment))
            }
            Act::Join { operator, key, possession } => {
                audit.join_validators(others, address(operator), *key, possession).map(Into::into)
            }
            Act::LeaveSet { operator, set } => {
                if *set == AuditSet::Validators {
                    audit.leave_validators(address(operator));
                }
                Ok(().into())
            }
            Act::UpdateStakes { operators } => audit.update_stakes(others, operators).map(Into::into),
            Act::Conflict { conflict } => audit.prove_verdict_conflict(others, conflict).map(Into::into),
            Act::WithdrawFromCourt { account } => audit.withdraw_from_court(*account).map(|_| ().into()),
            Act::WithdrawFromAudit { account } => audit.withdraw_from_audit(*account).map(|_| ().into()),
            Act::Suspend { lease } => audit.suspend(others, *lease).map(Into::into),
            Act::Reinstate { lease } => audit.reinstate(call, others, *lease).map(Into::into),
            Act::AddBond { lease, amount } => audit.add_bond(*lease, *amount).map(Into::into),
            Act::Close { lease } => audit.close(call, *lease).map(Into::into),
            Act::WithdrawBond { lease } => {
                audit.withdraw_bond(call, others, *lease).map(|amount| Supposed::returning(U256::from(amount.get())))
            }
        };
        let done = done.map_err(of_audit)?;
        // What is taken of a bond is credited in the escrow.
        for (account, amount) in done.punishment.iter().flat_map(Punishment::credits) {
            escrow.credit(token, account, amount).map_err(of_escrow)?;
        }
        Ok(done)
    }

    fn told(&self, lease: LeaseId) -> Told {
        Told { lease: self.lease_account(lease), reported: self.models.others.reported(lease) }
    }

    fn settle(&mut self, call: Call, lease: LeaseId, used: &UsageTotals) -> Result<Supposed, Refusal> {
        let told = self.told(lease);
        let Models { escrow, others, .. } = &mut self.models;
        let royalty = escrow.settle_royalty(call, &told, lease, used, &Splits::default()).map_err(of_escrow)?;
        others.settled.insert(lease, escrow.settled(lease));
        Ok(Supposed::returning(U256::from(royalty.get())))
    }

    fn claim(&mut self, call: Call, claims: &LeaseClaims) -> Result<Supposed, Refusal> {
        let told = self.told(claims.lease);
        let Models { escrow, others, .. } = &mut self.models;
        let payments = escrow.claim_batch(call, &told, std::slice::from_ref(claims)).map_err(of_escrow)?;
        others.settled.insert(claims.lease, escrow.settled(claims.lease));
        others.lanes = escrow.lanes().map(|(channel, lane, state)| ((channel, lane), *state)).collect();
        let paid: u128 = payments.iter().map(|payment| payment.cost.get()).sum();
        Ok(Supposed::returning(U256::from(paid)))
    }

    fn note_report(&mut self, lease: LeaseId, epoch: Epoch, statements: &[Statement]) -> Supposed {
        let tree = self.tree(statements);
        let report = self.report(lease, epoch, &tree);
        let now = self.chain.now();
        let Models { others: Others { reports, .. }, book, .. } = &mut self.models;
        let reports = reports.entry(lease).or_default();
        let before = reports.last().map_or(UsageTotals::ZERO, |last| last.cumulative);
        let cumulative = before.checked_add(report.totals).unwrap();
        reports.push(UsageReport { root: report.root, epoch, committed_at: UnixSeconds::new(now.get()), cumulative });
        book.last_reports.insert(lease, report.digest(&self.log));
        book.trees.entry(lease).or_default().push(tree);
        book.unreported.retain(|made| !statements.contains(made));
        Supposed::returning(U256::from(reports.len() - 1))
    }
}

/// Root over what shows who made a model.
pub(super) const OWNERSHIP: B256 = B256::repeat_byte(0x0e);

impl Act {
    /// Under which name successes are counted: the contract's call.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Report { .. } => "commit",
            Self::Claim { .. } => "claimBatch",
            Self::Settle { .. } => "settleRoyalty",
            Self::Ask { .. } => "challengeInclusion",
            Self::Answer { .. } => "answerInclusion",
            Self::ResolveInclusion { .. } => "resolveInclusion",
            Self::Omission { .. } => "proveOmission",
            Self::Equivocation { .. } => "proveEquivocation",
            Self::Misprice { .. } => "proveMisprice",
            Self::Postdating { .. } => "provePostdating",
            Self::Accuse { .. } => "accuse",
            Self::OpenTask { .. } => "openTask",
            Self::ChallengeOwnership { .. } => "challenge",
            Self::SubmitVerdict { .. } => "submitVerdict",
            Self::Resolve { .. } => "resolve",
            Self::Join { .. } => "registerForOperatorSets",
            Self::LeaveSet { .. } => "deregisterFromOperatorSets",
            Self::UpdateStakes { .. } => "updateStakes",
            Self::Conflict { .. } => "proveVerdictConflict",
            Self::WithdrawFromCourt { .. } => "withdrawOwed of the court",
            Self::WithdrawFromAudit { .. } => "withdrawOwed of the audit",
            Self::Suspend { .. } => "suspend",
            Self::Reinstate { .. } => "reinstate",
            Self::AddBond { .. } => "addBond",
            Self::Close { .. } => "close",
            Self::WithdrawBond { .. } => "withdrawBond",
        }
    }
}
