//! Statements held against hosts: real ones, forged ones, and proofs that show less than they should.

use alloy::primitives::{B256, U256, aliases::U48, uint};
use protocol::{
    audit::{Absence, Accusation, StatementEvidence, Surroundings as _},
    counts::UsageTotals,
    ids::{ChainId, LeaseId, StatementDigest},
    merkle_sum::{AbsenceProof, InclusionProof, MerkleSumTree},
    messages::{Domain, Message as _, Statement, wire},
};
use rand::{Rng as _, seq::IndexedRandom as _};

use super::Chance;
use crate::{
    audit_model::{
        step::Act,
        world::{EPOCH, PAYERS, STRANGER, World, lease_key_of, plan},
    },
    differential::key,
};

/// Order of the group in which signatures are.
const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);

impl Chance {
    /// A statement that a host signed.
    fn some_statement(&mut self, world: &World) -> Statement {
        world.models.book.statements.choose(&mut self.random).unwrap().clone()
    }

    /// Mostly as the host signed it.
    fn signed(&mut self, world: &World, statement: wire::Statement) -> StatementEvidence {
        let host =
            if (1..=3).contains(&statement.leaseId) { plan(LeaseId::new(statement.leaseId)).1 } else { STRANGER };
        let signer = if self.one_in(30) { STRANGER.to_owned() } else { lease_key_of(host) };
        let here = world.domains.statements;
        let elsewhere = Domain::new(ChainId::new(here.chain().get() + 1), here.verifying_contract());
        let domain = if self.one_in(40) { elsewhere } else { here };
        let mut signature = key(&signer).sign(statement.digest(&domain).into()).as_bytes().to_vec();
        match self.below(100) {
            0 => signature.truncate(64),
            1 => {
                let high = ORDER - U256::from_be_slice(&signature[32..64]);
                signature[32..64].copy_from_slice(&high.to_be_bytes::<32>());
                signature[64] ^= 7;
            }
            2 => signature[64] = 26,
            _ => {}
        }
        StatementEvidence { statement, signature }
    }

    fn evidence(&mut self, world: &World) -> StatementEvidence {
        let made = self.some_statement(world);
        let mut statement = wire::Statement::from(&made);
        match self.below(60) {
            0 => statement.leaseId = self.below(9),
            1 => statement.endedMs = self.random.random(),
            _ => {}
        }
        self.signed(world, statement)
    }

    /// Mostly a statement that may be asked for already, whether it is missing or not.
    fn demandable(&mut self, world: &World) -> StatementEvidence {
        let (book, rules) = (&world.models.book, world.models.audit.rules());
        let waits = (EPOCH + rules.commit_grace.get()) * 1_000;
        let now_ms = world.chain.now().get() * 1_000;
        let among = if self.one_in(2) { &book.unreported } else { &book.statements };
        let old: Vec<&Statement> = among.iter().filter(|made| made.ended.get() + waits <= now_ms).collect();
        match old.choose(&mut self.random) {
            Some(made) if !self.one_in(6) => self.signed(world, (*made).into()),
            _ => self.evidence(world),
        }
    }

    pub(super) fn ask(&mut self, world: &World) -> (&'static str, Act) {
        let evidence = self.demandable(world);
        let coins = self.coins(world.models.audit.rules().challenge_bond);
        (self.anybody(), Act::Ask { evidence, coins })
    }

    fn some_question(&mut self, world: &World) -> Option<StatementDigest> {
        let audit = &world.models.audit;
        let open: Vec<StatementDigest> =
            audit.inclusion_challenges().filter(|(_, asked)| asked.open).map(|(digest, _)| digest).collect();
        if self.one_in(10) {
            return Some(self.some_statement(world).digest(&world.domains.statements));
        }
        open.choose(&mut self.random).copied()
    }

    pub(super) fn answer(&mut self, world: &World) -> Option<(&'static str, Act)> {
        let audit = &world.models.audit;
        let mut statement = self.some_question(world)?;
        // Those that can be answered are, before others are.
        let answerable = audit.inclusion_challenges().find(|(digest, asked)| {
            let mut trees = world.models.book.trees.get(&asked.lease).into_iter().flatten();
            asked.open && trees.any(|tree| tree.prove_inclusion(*digest).is_ok())
        });
        if let Some((digest, _)) = answerable
            && !self.one_in(3)
        {
            statement = digest;
        }
        let lease = audit.inclusion_challenge(statement).map_or(LeaseId::new(1), |asked| asked.lease);
        let trees = world.models.book.trees.get(&lease)?;
        let holding = trees.iter().position(|tree| tree.prove_inclusion(statement).is_ok());
        let mut report = holding.unwrap_or_else(|| self.below(trees.len() as u64) as usize);
        let tree = &trees[report];
        let mut proof = tree.prove_inclusion(statement).ok().or_else(|| self.some_leaf(tree))?;
        match self.below(12) {
            0 => report = self.below(trees.len() as u64 + 1) as usize,
            1 => proof = self.some_leaf(tree)?,
            _ => self.perhaps_bend(&mut proof),
        }
        let asked = audit.inclusion_challenge(statement);
        if let Some(asked) = asked
            && self.one_in(12)
        {
            // The right leaf where it does not stand.
            proof.leaf = asked.leaf;
        }
        Some((self.anybody(), Act::Answer { statement, report, proof }))
    }

    fn some_leaf(&mut self, tree: &MerkleSumTree) -> Option<InclusionProof> {
        let leaf = tree.leaves().choose(&mut self.random)?;
        tree.prove_inclusion(leaf.digest).ok()
    }

    fn perhaps_bend(&mut self, proof: &mut InclusionProof) {
        let kind = self.below(24);
        let Some(sibling) = proof.path.first_mut() else { return };
        match kind {
            0 => sibling.hash = B256::ZERO,
            1 => sibling.sums = UsageTotals { requests: u64::MAX, ..sibling.sums },
            2 => sibling.left = !sibling.left,
            3 => proof.path.clear(),
            _ => {}
        }
    }

    pub(super) fn resolve_inclusion(&mut self, world: &World) -> Option<(&'static str, Act)> {
        let statement = self.some_question(world)?;
        Some((self.anybody(), Act::ResolveInclusion { statement }))
    }

    /// As good a proof as there is that a statement is missing, of one that may well be there.
    pub(super) fn omission(&mut self, world: &World) -> (&'static str, Act) {
        let evidence = self.demandable(world);
        let lease = LeaseId::new(evidence.statement.leaseId);
        let digest = evidence.statement.digest(&world.domains.statements);
        let epoch = evidence.statement.endedMs / 1_000 / EPOCH;
        let reports = world.models.others.reports(lease);
        let mut first_report = reports.iter().take_while(|report| report.epoch.get() < epoch).count();
        let count = reports.iter().filter(|report| report.epoch.get() == epoch).count();
        let trees = world.models.book.trees.get(&lease).map_or(&[][..], Vec::as_slice);
        let mut proofs: Vec<AbsenceProof> =
            trees[first_report..first_report + count].iter().map(|tree| self.absence(tree, digest)).collect();
        match self.below(20) {
            0 => first_report += 1,
            1 => first_report = first_report.saturating_sub(1),
            2 => drop(proofs.pop()),
            3 => proofs.push(AbsenceProof { neighbours: Vec::new() }),
            _ => {}
        }
        let absence = Absence { first_report, proofs };
        (self.anybody(), Act::Omission { evidence, absence })
    }

    fn absence(&mut self, tree: &MerkleSumTree, digest: StatementDigest) -> AbsenceProof {
        let mut proof = match tree.prove_absence(digest) {
            Ok(proof) if self.one_in(2) => proof,
            _ => {
                // One from either end, as if nothing were behind or before it, or any.
                let leaves = tree.leaves();
                let (first, last) = (leaves.first(), leaves.last());
                let shown = match self.below(5) {
                    0 => vec![first],
                    1 => vec![last],
                    2 => vec![first, last],
                    _ => (0..=self.below(3)).map(|_| leaves.choose(&mut self.random)).collect(),
                };
                let shown = shown.into_iter().flatten();
                let neighbours = shown.map(|leaf| tree.prove_inclusion(leaf.digest).unwrap()).collect();
                AbsenceProof { neighbours }
            }
        };
        // The right one before it, and one that is too far behind.
        if let ([_, second], Some(last)) = (proof.neighbours.as_mut_slice(), tree.leaves().last())
            && self.one_in(3)
        {
            *second = tree.prove_inclusion(last.digest).unwrap();
        }
        // In order, so that they might be neighbours.
        if self.one_in(2) {
            proof.neighbours.sort_by_key(|neighbour| neighbour.leaf.digest);
        }
        proof.neighbours.iter_mut().for_each(|neighbour| self.perhaps_bend(neighbour));
        proof
    }

    pub(super) fn equivocation(&mut self, world: &World) -> (&'static str, Act) {
        let first = self.some_statement(world);
        let same_lane = |made: &&Statement| {
            (made.lease, made.channel, made.lane) == (first.lease, first.channel, first.lane)
                && made.step.after().requests().abs_diff(first.step.after().requests()) <= 1
        };
        let candidates: Vec<&Statement> = world.models.book.statements.iter().filter(same_lane).collect();
        let second = match candidates.choose(&mut self.random) {
            Some(second) if !self.one_in(10) => (*second).clone(),
            _ => self.some_statement(world),
        };
        let mut second = wire::Statement::from(&second);
        match self.below(16) {
            0 => second.previous = B256::ZERO,
            1 => second.promptTokensBefore += U48::ONE,
            2 => second.completionTokensBefore += U48::ONE,
            3 => second.responseHash = B256::repeat_byte(0x77),
            _ => {}
        }
        let first = self.signed(world, (&first).into());
        let second = self.signed(world, second);
        (self.anybody(), Act::Equivocation { first, second })
    }

    pub(super) fn misprice(&mut self, world: &World) -> (&'static str, Act) {
        let made = self.some_statement(world);
        let mut statement = wire::Statement::from(&made);
        match self.below(12) {
            0 => statement.charge += 1,
            1 => statement.seq = U48::ZERO,
            2 => statement.cachedTokens = statement.promptTokens + U48::ONE,
            3 => statement.cachedTokensBefore = statement.promptTokensBefore + U48::ONE,
            4 => statement.promptTokens = U48::MAX,
            _ => {}
        }
        let evidence = self.signed(world, statement);
        (self.anybody(), Act::Misprice { evidence })
    }

    /// Of what says that it ended later than now, mostly.
    pub(super) fn postdating(&mut self, world: &World) -> (&'static str, Act) {
        let now_ms = world.chain.now().get() * 1_000;
        let later: Vec<&Statement> =
            world.models.book.statements.iter().filter(|made| made.ended.get() > now_ms).collect();
        let made = match later.choose(&mut self.random) {
            Some(made) if !self.one_in(3) => (*made).clone(),
            _ => self.some_statement(world),
        };
        let mut statement = wire::Statement::from(&made);
        if self.one_in(4) {
            statement.endedMs = now_ms + 1_000 * self.below(2_000);
        }
        let evidence = self.signed(world, statement);
        (self.anybody(), Act::Postdating { evidence })
    }

    pub(super) fn accuse(&mut self, world: &World) -> (&'static str, Act) {
        let made = self.some_statement(world);
        let (_, host) = plan(made.lease);
        let usual = PAYERS.map(|payer| world.channel(payer, host));
        let own = usual.iter().find(|channel| Some(channel.digest(&world.domains.channels)) == made.channel);
        let channel = if self.one_in(10) { usual[0].clone() } else { own.unwrap_or(&usual[0]).clone() };
        let bill = self.signed(world, (&made).into());
        let accusation = Accusation { kind: self.kind(), evidence_root: B256::repeat_byte(4), bill, channel };
        let coins = self.coins(world.models.audit.rules().task_bond);
        (self.anybody(), Act::Accuse { accusation, coins })
    }
}
