//! Verdicts: of a quorum, of too few, of validators that sign two, and signatures that are bent.

use super::Chance;
use crate::{
    audit_model::{
        step::Act,
        world::{VALIDATORS, World, secret},
    },
    differential::address,
};
use alloy::primitives::B256;
use protocol::{
    audit::{Conflict, NonSigner, OperatorSet, QuorumSignature, Subject, Surroundings as _, Validator},
    bls::{BlsSignature, PublicKey, SecretKey},
    ids::{Epoch, LeaseId, TaskId},
    messages::{Message as _, Outcome, TaskKind, Verdict},
    units::{StakeWeight, UnixSeconds},
};

impl Chance {
    pub(super) fn submit_verdict(&mut self, world: &World, now: UnixSeconds) -> Option<(&'static str, Act)> {
        let task = self.some_undecided_task(world, now)?;
        let verdict = self.verdict(world, task);
        let validators: Vec<Validator> = world.models.audit.validators().to_vec();
        let absent_in = if self.one_in(4) { 2 } else { 8 };
        let signs: Vec<bool> = validators.iter().map(|_| !self.one_in(absent_in)).collect();
        let digest: B256 = verdict.digest(&world.domains.verdicts).into();
        let signed = if self.one_in(25) { B256::repeat_byte(1) } else { digest };
        let keys: Vec<SecretKey> =
            validators.iter().zip(&signs).filter(|(_, signs)| **signs).map(|(one, _)| secret_of(one)).collect();
        // There is no signature of nobody.
        let keys = if keys.is_empty() { vec![secret("nobody")] } else { keys };
        let signatures: Vec<BlsSignature> = keys.iter().map(|key| key.sign(signed)).collect();
        let publics: Vec<PublicKey> = keys.iter().map(SecretKey::public_key).collect();
        let absent = (1..).zip(validators.iter().zip(&signs)).filter(|(_, (_, signs))| !**signs);
        let mut non_signers: Vec<NonSigner> = absent
            .map(|(number, (one, _))| NonSigner { number, operator: one.operator, weight: one.weight, key: one.key.g1 })
            .collect();
        let bent = self.below(30);
        if let Some(first) = non_signers.first_mut() {
            match bent {
                0 | 1 => first.weight = StakeWeight::new(1),
                2 => first.number = 77,
                3 => first.number = 0,
                _ => {}
            }
        }
        match bent {
            4 if !non_signers.is_empty() => non_signers.push(non_signers[0]),
            5 => drop(non_signers.pop()),
            _ => {}
        }
        let signature = QuorumSignature {
            signature: BlsSignature::aggregate(&signatures).unwrap(),
            key: PublicKey::aggregate(&publics).unwrap().g2,
            non_signers,
        };
        Some((self.anybody(), Act::SubmitVerdict { verdict, signature }))
    }

    fn verdict(&mut self, world: &World, number: TaskId) -> Verdict {
        let task = world.models.audit.task(number);
        let lease = match task.map(|task| task.subject) {
            Some(Subject::Lease { lease, .. }) => lease,
            _ => LeaseId::new(0),
        };
        let mut verdict = Verdict {
            task: number,
            lease,
            kind: task.map_or(TaskKind::Substitution, |task| task.kind),
            outcome: if self.one_in(3) { Outcome::NotGuilty } else { Outcome::Guilty },
            evidence_bits: 21,
            evidence_root: task.map(|task| task.evidence_root).unwrap_or_default(),
            epoch: Epoch::new(1),
        };
        match self.below(30) {
            0 => verdict.lease = LeaseId::new(self.below(5)),
            1 => verdict.kind = TaskKind::VariantLeak,
            _ => {}
        }
        verdict
    }

    /// A validator that signed two verdicts on one task, or did not.
    pub(super) fn conflict(&mut self, world: &World) -> Option<(&'static str, Act)> {
        let before = self.past.iter().rev().find(|step| matches!(step.act, Act::Conflict { .. }));
        if let Some(again) = before.cloned()
            && self.one_in(4)
        {
            return Some((again.by, again.act));
        }
        let task = self.some_task(world)?;
        let first = self.verdict(world, task);
        let gone = VALIDATORS.into_iter().find(|(name, _)| {
            !world.models.others.is_slashable(address(name), OperatorSet::Validators)
                && world.models.audit.validator_key(address(name)).is_some()
        });
        let (name, _) = match gone {
            Some(gone) if self.one_in(2) => gone,
            _ => self.pick(&VALIDATORS),
        };
        let mut second = Verdict { evidence_bits: first.evidence_bits + 1, ..first.clone() };
        match self.below(6) {
            0 => second = first.clone(),
            1 => second.task = self.some_task(world)?,
            2 => second.outcome = Outcome::NotGuilty,
            _ => {}
        }
        let signer = if self.one_in(4) { self.pick(&VALIDATORS).0 } else { name };
        let sign = |verdict: &Verdict| secret(signer).sign(verdict.digest(&world.domains.verdicts).into());
        let verdicts = [(first.clone(), sign(&first)), (second.clone(), sign(&second))];
        let conflict = Conflict { operator: address(name), key: secret(signer).public_key().g2, verdicts };
        Some((self.anybody(), Act::Conflict { conflict }))
    }
}

fn secret_of(validator: &Validator) -> SecretKey {
    let named = VALIDATORS.iter().find(|(name, _)| address(name) == validator.operator);
    secret(named.unwrap().0)
}
