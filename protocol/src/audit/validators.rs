//! Who may sign verdicts, how much each weighs, and what happens to one that signs two.

use std::collections::BTreeSet;

use alloy_primitives::{Address, B256};

use super::{Audit, AuditError, OperatorSet, Surroundings};
use crate::{
    bls::{self, BlsSignature, PointG1, PointG2, PublicKey},
    messages::{Message as _, Verdict},
    units::{BasisPoints, StakeWeight},
};

/// Share of the validators' weight that a verdict needs.
pub const QUORUM: BasisPoints = BasisPoints::constant::<6_667>();

/// An active validator. Its number is its place among them, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validator {
    /// The operator.
    pub operator: Address,
    /// Its slashable stake when it was last looked at.
    pub weight: StakeWeight,
    /// Its key.
    pub key: PublicKey,
}

/// A validator that did not sign, as whoever submits the verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NonSigner {
    /// Its number.
    pub number: u32,
    /// The operator.
    pub operator: Address,
    /// Its weight.
    pub weight: StakeWeight,
    /// Its key.
    pub key: PointG1,
}

/// The signature of all active validators but some.
#[derive(Clone, Debug)]
pub struct QuorumSignature {
    /// Of all who signed.
    pub signature: BlsSignature,
    /// The sum of their keys.
    pub key: PointG2,
    /// The others, ascending by number.
    pub non_signers: Vec<NonSigner>,
}

/// Two verdicts of one validator.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// Who signed both.
    pub operator: Address,
    /// Its key.
    pub key: PointG2,
    /// The verdicts and its signatures on them.
    pub verdicts: [(Verdict, BlsSignature); 2],
}

impl Audit {
    /// The active validators in the order of their numbers.
    pub fn validators(&self) -> &[Validator] {
        &self.active
    }

    /// The weight of all active validators.
    pub fn total_weight(&self) -> StakeWeight {
        sum_weights(self.active.iter().map(|validator| validator.weight))
    }

    /// The key of an operator that is or was a validator.
    pub fn validator_key(&self, operator: Address) -> Option<&PublicKey> {
        self.keys.get(&operator)
    }

    /// Makes an operator a validator that proves that it holds its key and has enough stake. A key belongs to its first
    /// operator for ever, and the operator has no other: what it signed stays attributable.
    pub fn join_validators(
        &mut self,
        surroundings: &impl Surroundings,
        operator: Address,
        key: PublicKey,
        possession: &BlsSignature,
    ) -> Result<(), AuditError> {
        if self.number(operator).is_some() {
            return Err(AuditError::AlreadyValidator { operator });
        }
        match self.keys.get(&operator) {
            Some(known) if known.g1 != key.g1 => return Err(AuditError::OtherKey { operator }),
            Some(_) => {}
            None if self.keys.values().any(|taken| taken.g1 == key.g1) => return Err(AuditError::KeyTaken),
            None => {}
        }
        let digest = bls::possession_digest(&self.domains.verdicts, operator);
        possession.verify(digest, &key).map_err(|_| AuditError::ProofOfPossession)?;
        let weight = surroundings.stake(operator, OperatorSet::Validators);
        if weight < self.rules.min_weight {
            return Err(AuditError::WeightTooSmall { least: self.rules.min_weight, actual: weight });
        }
        self.keys.insert(operator, key);
        self.active.push(Validator { operator, weight, key });
        Ok(())
    }

    /// An operator left the set; one that is no longer active may.
    pub fn leave_validators(&mut self, operator: Address) {
        if let Some(place) = self.place(operator) {
            // The last one takes its number.
            self.active.swap_remove(place);
        }
    }

    /// Takes over the present stake of validators. One that has too little is no longer active. Anybody may call.
    pub fn update_stakes(&mut self, surroundings: &impl Surroundings, operators: &[Address]) -> Result<(), AuditError> {
        let mut active = self.active.clone();
        for operator in operators {
            let place = active.iter().position(|validator| validator.operator == *operator);
            let place = place.ok_or(AuditError::NotValidator { operator: *operator })?;
            let weight = surroundings.stake(*operator, OperatorSet::Validators);
            if weight < self.rules.min_weight {
                active.swap_remove(place);
            } else if let Some(validator) = active.get_mut(place) {
                validator.weight = weight;
            }
        }
        self.active = active;
        Ok(())
    }

    /// Punishes a validator that signed two verdicts on one task, with all that it allocated. Not while it cannot be slashed: it
    /// could use up the evidence against itself. Anybody may call.
    pub fn prove_verdict_conflict(
        &mut self,
        surroundings: &impl Surroundings,
        conflict: &Conflict,
    ) -> Result<(), AuditError> {
        let Conflict { operator, key, verdicts: [(first, first_signature), (second, second_signature)] } = conflict;
        let (operator, task) = (*operator, first.task);
        let known = self.keys.get(&operator).ok_or(AuditError::NotValidator { operator })?;
        let digests = [first, second].map(|verdict| B256::from(verdict.digest(&self.domains.verdicts)));
        let [first_digest, second_digest] = digests;
        if first_digest == second_digest || task != second.task {
            return Err(AuditError::NoContradiction);
        }
        let key = PublicKey { g1: known.g1, g2: *key };
        let signed = first_signature.verify(first_digest, &key).and(second_signature.verify(second_digest, &key));
        signed.map_err(|_| AuditError::AggregateSignature)?;
        if self.conflicts.contains(&(operator, task)) {
            return Err(AuditError::ConflictPunished { operator, task });
        }
        let slashed = self.slash(surroundings, operator, OperatorSet::Validators, BasisPoints::WHOLE);
        slashed.ok_or(AuditError::NotSlashable { operator })?;
        self.conflicts.insert((operator, task));
        Ok(())
    }

    /// Requires that all active validators but the named ones signed, and that they weigh enough.
    pub(super) fn require_quorum(&self, digest: B256, signature: &QuorumSignature) -> Result<(), AuditError> {
        let mut absent = BTreeSet::new();
        let mut previous = 0;
        for one in &signature.non_signers {
            let number = one.number;
            if number <= previous {
                return Err(AuditError::NonSignerOrder { previous, number });
            }
            previous = number;
            let place = number.checked_sub(1).and_then(|place| usize::try_from(place).ok());
            let known = place.and_then(|place| self.active.get(place));
            let named = (one.operator, one.weight, one.key);
            if known.is_none_or(|known| (known.operator, known.weight, known.key.g1) != named) {
                return Err(AuditError::NonSignerUnknown { number });
            }
            absent.insert(one.operator);
        }
        let signers = self.active.iter().filter(|validator| !absent.contains(&validator.operator));
        let (weights, keys): (Vec<StakeWeight>, Vec<PublicKey>) =
            signers.map(|validator| (validator.weight, validator.key)).unzip();
        let (signed, total) = (sum_weights(weights), self.total_weight());
        bls::check_quorum(signed, total, QUORUM).map_err(|_| AuditError::QuorumMissed { signed, total })?;
        let key = PublicKey::aggregate(&keys).map_err(|_| AuditError::AggregateSignature)?;
        let claimed = PublicKey { g1: key.g1, g2: signature.key };
        signature.signature.verify(digest, &claimed).map_err(|_| AuditError::AggregateSignature)
    }

    /// A validator's number, if it is active.
    pub fn number(&self, operator: Address) -> Option<u32> {
        let place = self.place(operator)?;
        u32::try_from(place).ok()?.checked_add(1)
    }

    fn place(&self, operator: Address) -> Option<usize> {
        self.active.iter().position(|validator| validator.operator == operator)
    }
}

fn sum_weights(weights: impl IntoIterator<Item = StakeWeight>) -> StakeWeight {
    // Stake in tokens, of which there are less than 2^128.
    let sum = weights.into_iter().fold(0_u128, |sum, weight| sum.saturating_add(weight.get()));
    StakeWeight::new(sum)
}
