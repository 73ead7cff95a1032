//! Calls as the contracts take them.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::{SolCall as _, SolType, SolValue},
};
use licensing_contracts::{
    actions::operators,
    bindings::{
        AuditServiceManager, EvidenceCourt, LeaseManager, ModelRegistry, PaymentEscrow, UsageLog,
        audit::{BN254, IAuditServiceManager},
        court::{IEvidenceCourt, MerkleSum},
        escrow::IPaymentEscrow,
        same,
    },
    client::Revert,
};
use protocol::{
    audit::StatementEvidence,
    bls::{PointG1, PointG2},
    escrow::LeaseClaims,
    merkle_sum::{self, InclusionProof},
    messages::wire,
    units::Amount,
};

use super::{Act, OWNERSHIP, Step};
use crate::{
    audit_model::world::World,
    differential::{Done, address},
};

impl World {
    /// What the contracts do.
    pub(in crate::audit_model) fn really(&mut self, step: &Step) -> Result<Done, Revert> {
        let (to, coins, data) = self.encode(&step.act);
        self.chain.submit(step.by, to, coins, data)
    }

    fn encode(&self, act: &Act) -> (Address, U256, Vec<u8>) {
        let to = self.chain.to();
        let (court, audit, leases) = (to.evidence_court, to.audit_service_manager, to.lease_manager);
        let free = |contract: Address, data: Vec<u8>| (contract, U256::ZERO, data);
        let paid = |contract: Address, coins: Amount, data: Vec<u8>| (contract, U256::from(coins.get()), data);
        match act {
            Act::Report { lease, epoch, statements } => {
                let report = self.report(*lease, *epoch, &self.tree(statements));
                let report = same(&wire::EpochCommit::from(&report)).unwrap();
                free(to.usage_log, UsageLog::commitCall { newReport: report, signature: Bytes::new() }.abi_encode())
            }
            Act::Claim { claims } => free(to.payment_escrow, encode_claims(claims)),
            Act::Settle { lease, used } => {
                let used = same(&merkle_sum::wire::Sums::from(*used)).unwrap();
                let call = PaymentEscrow::settleRoyaltyCall { leaseId: lease.get(), used, splits: Vec::new() };
                free(to.payment_escrow, call.abi_encode())
            }
            Act::Ask { evidence, coins } => {
                let (statement, signature) = shown(evidence);
                paid(court, *coins, EvidenceCourt::challengeInclusionCall { statement, signature }.abi_encode())
            }
            Act::Answer { statement, report, proof } => {
                let call = EvidenceCourt::answerInclusionCall {
                    statementDigest: statement.word(),
                    reportIndex: U256::from(*report),
                    leaf: same(&merkle_sum::wire::SumLeaf::from(proof.leaf)).unwrap(),
                    path: path(proof),
                };
                free(court, call.abi_encode())
            }
            Act::ResolveInclusion { statement } => {
                free(court, EvidenceCourt::resolveInclusionCall { statementDigest: statement.word() }.abi_encode())
            }
            Act::Omission { evidence, absence } => {
                let (statement, signature) = shown(evidence);
                let absence = IEvidenceCourt::Absence {
                    firstReport: U256::from(absence.first_report),
                    neighbours: absence
                        .proofs
                        .iter()
                        .map(|proof| proof.neighbours.iter().map(neighbour).collect())
                        .collect(),
                };
                free(court, EvidenceCourt::proveOmissionCall { statement, signature, absence }.abi_encode())
            }
            Act::Equivocation { first, second } => {
                let ((first, first_signature), (second, second_signature)) = (shown(first), shown(second));
                let call = EvidenceCourt::proveEquivocationCall {
                    first,
                    firstSignature: first_signature,
                    second,
                    secondSignature: second_signature,
                };
                free(court, call.abi_encode())
            }
            Act::Misprice { evidence } => {
                let (statement, signature) = shown(evidence);
                free(court, EvidenceCourt::proveMispriceCall { statement, signature }.abi_encode())
            }
            Act::Postdating { evidence } => {
                let (statement, signature) = shown(evidence);
                free(court, EvidenceCourt::provePostdatingCall { statement, signature }.abi_encode())
            }
            Act::Accuse { accusation, coins } => {
                let (statement, signature) = shown(&accusation.bill);
                let call = EvidenceCourt::accuseCall {
                    kind: accusation.kind.code(),
                    evidenceRoot: accusation.evidence_root,
                    statement,
                    signature,
                    channel: same(&wire::Channel::from(&accusation.channel)).unwrap(),
                };
                paid(court, *coins, call.abi_encode())
            }
            Act::OpenTask { lease, kind, evidence_root, coins } => {
                let (kind, evidence_root) = (kind.code(), *evidence_root);
                let call =
                    AuditServiceManager::openTaskCall { leaseId: lease.get(), kind, evidenceRoot: evidence_root };
                paid(audit, *coins, call.abi_encode())
            }
            Act::ChallengeOwnership { model, coins } => {
                let model = U256::from_be_bytes(*self.model_ids[*model].as_bytes());
                let call = ModelRegistry::challengeCall { modelId: model, evidenceRoot: OWNERSHIP };
                paid(to.model_registry, *coins, call.abi_encode())
            }
            Act::SubmitVerdict { verdict, signature } => {
                let absent = signature.non_signers.iter().map(|one| IAuditServiceManager::NonSigner {
                    number: one.number,
                    operator: one.operator,
                    weight: one.weight.get(),
                    key: g1(one.key),
                });
                let call = AuditServiceManager::submitVerdictCall {
                    verdict: same(&wire::Verdict::from(verdict)).unwrap(),
                    signature: g1(signature.signature.0),
                    aggregateKey: g2(signature.key),
                    nonSigners: absent.collect(),
                };
                free(audit, call.abi_encode())
            }
            Act::Resolve { task } => free(audit, AuditServiceManager::resolveCall { taskId: task.get() }.abi_encode()),
            Act::Join { operator, key, possession } => {
                let action = operators::join_validators(to, address(operator), key, possession);
                free(to.eigenlayer.allocation_manager, action.data.to_vec())
            }
            Act::LeaveSet { operator, set } => {
                let action = operators::leave(to, address(operator), *set);
                free(to.eigenlayer.allocation_manager, action.data.to_vec())
            }
            Act::UpdateStakes { operators } => {
                free(audit, AuditServiceManager::updateStakesCall { operators: operators.clone() }.abi_encode())
            }
            Act::Conflict { conflict } => {
                let [(first, first_signature), (second, second_signature)] = &conflict.verdicts;
                let call = AuditServiceManager::proveVerdictConflictCall {
                    operator: conflict.operator,
                    keyG2: g2(conflict.key),
                    first: same(&wire::Verdict::from(first)).unwrap(),
                    firstSignature: g1(first_signature.0),
                    second: same(&wire::Verdict::from(second)).unwrap(),
                    secondSignature: g1(second_signature.0),
                };
                free(audit, call.abi_encode())
            }
            Act::WithdrawFromCourt { account } => {
                free(court, EvidenceCourt::withdrawOwedCall { account: *account }.abi_encode())
            }
            Act::WithdrawFromAudit { account } => {
                free(audit, AuditServiceManager::withdrawOwedCall { account: *account }.abi_encode())
            }
            Act::Suspend { lease } => free(leases, LeaseManager::suspendCall { leaseId: lease.get() }.abi_encode()),
            Act::Reinstate { lease } => free(leases, LeaseManager::reinstateCall { leaseId: lease.get() }.abi_encode()),
            Act::AddBond { lease, amount } => {
                let call = LeaseManager::addBondCall { leaseId: lease.get(), amount: amount.get() };
                free(leases, call.abi_encode())
            }
            Act::Close { lease } => free(leases, LeaseManager::closeCall { leaseId: lease.get() }.abi_encode()),
            Act::WithdrawBond { lease } => {
                free(leases, LeaseManager::withdrawBondCall { leaseId: lease.get() }.abi_encode())
            }
        }
    }
}

fn shown<S: SolValue + From<<S::SolType as SolType>::RustType>>(evidence: &StatementEvidence) -> (S, Bytes) {
    (same(&evidence.statement).unwrap(), evidence.signature.clone().into())
}

fn sibling(sibling: merkle_sum::Sibling) -> MerkleSum::Sibling {
    same(&merkle_sum::wire::SumSibling::from(sibling)).unwrap()
}

fn path(proof: &InclusionProof) -> Vec<MerkleSum::Sibling> {
    proof.path.iter().copied().map(sibling).collect()
}

fn neighbour(proof: &InclusionProof) -> MerkleSum::Neighbour {
    let leaf = same(&merkle_sum::wire::SumLeaf::from(proof.leaf)).unwrap();
    MerkleSum::Neighbour { leaf, path: path(proof) }
}

fn g1(point: PointG1) -> BN254::G1Point {
    let [x, y] = point.to_words();
    BN254::G1Point { x, y }
}

fn g2(point: PointG2) -> BN254::G2Point {
    let [x_imaginary, x_real, y_imaginary, y_real] = point.to_words();
    BN254::G2Point { x: [x_imaginary, x_real], y: [y_imaginary, y_real] }
}

/// Of claims without a request in flight, and terms without splits.
fn encode_claims(group: &LeaseClaims) -> Vec<u8> {
    let claims = group.claims.iter().map(|claim| IPaymentEscrow::Claim {
        channel: (&claim.channel).into(),
        voucher: (&claim.voucher).into(),
        signature: claim.signature.clone().into(),
        inFlight: Vec::new(),
        statementSignature: Bytes::new(),
    });
    let group =
        IPaymentEscrow::LeaseClaims { leaseId: group.lease.get(), splits: Vec::new(), claims: claims.collect() };
    PaymentEscrow::claimBatchCall { batch: vec![group] }.abi_encode()
}
