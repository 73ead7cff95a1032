//! Random calls: what honest hosts, payers and validators do, what cheats do, and who accuses them, rightly or not.

use alloy::primitives::{Address, B256};
use licensing_contracts::actions::operators::AuditSet;
use protocol::{
    audit::{LeaseState, OperatorSet, Subject, Surroundings as _, TaskState},
    counts::{LaneStep, RequestUsage, UsageTotals},
    escrow::{Claim, LeaseClaims},
    ids::{Epoch, Lane, LeaseId, TaskId},
    messages::{FinishReason, Message as _, Statement, TaskKind, Voucher},
    splits::Splits,
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    step::{Act, Step},
    world::{EPOCH, HOSTS, LEASES, Models, PAYERS, REPORTER, STRANGER, VALIDATORS, World, plan, secret},
};
use crate::differential::{address, key};

mod evidence;
mod verdicts;

pub(super) struct Chance {
    random: StdRng,
    /// What was tried, to be tried again.
    past: Vec<Step>,
    /// Calls until then.
    taken: u64,
}

/// After so many calls all leases have been over for so long that bonds are free.
const END: u64 = 110;
const UNBONDING: u64 = 8 * 86_400;

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), past: Vec::new(), taken: 0 }
    }

    pub(super) fn step(&mut self, world: &mut World) -> Step {
        let answered = self.below(5);
        let answered = if world.models.book.statements.is_empty() { 1 } else { answered };
        (0..answered).for_each(|_| self.serve(world));
        self.taken += 1;
        let usual = if self.one_in(3) { 0 } else { self.below(200) };
        let after = if self.taken == END { UNBONDING } else { usual };
        let after = Seconds::new(after);
        let step = if !self.past.is_empty() && self.one_in(16) {
            let again = self.past.choose(&mut self.random).unwrap().clone();
            Step { after, ..again }
        } else {
            self.new_step(world, after)
        };
        // EigenLayer's own rules, and those on reports, are no part of the model.
        if !matches!(step.act, Act::Report { .. } | Act::Join { .. } | Act::LeaveSet { .. }) {
            self.past.push(step.clone());
        }
        step
    }

    /// How many blocks pass before the next call.
    pub(super) fn idle_blocks(&mut self) -> u64 {
        if self.one_in(25) { 1_100 } else { 0 }
    }

    fn new_step(&mut self, world: &World, after: Seconds) -> Step {
        let now = UnixSeconds::new(world.chain.now().get() + after.get());
        if self.taken > END
            && !self.one_in(3)
            && let Some((by, act)) = self.ending(world)
        {
            return Step { after, by, act };
        }
        let found = match self.below(51) {
            0..8 => self.report(world, now),
            8..10 => Some(self.claim(world, now)),
            10..13 => Some(self.ask(world)),
            13..16 => self.answer(world),
            16 | 17 => self.resolve_inclusion(world),
            18..24 => Some(self.omission(world)),
            24 | 25 => Some(self.equivocation(world)),
            26 => Some(self.misprice(world)),
            27 => Some(self.postdating(world)),
            28 => Some(self.accuse(world)),
            29 => Some(self.open_task(world)),
            30 => Some(self.challenge_ownership(world)),
            31..37 => self.submit_verdict(world, now),
            37 | 38 => self.resolve(world),
            39 | 40 => self.conflict(world),
            41..45 => self.validators(world),
            45 => Some(self.withdraw_coins(world)),
            _ => Some(self.lease(world, now)),
        };
        let (by, act) = found.unwrap_or_else(|| self.ask(world));
        Step { after, by, act }
    }

    // Small choices

    fn below(&mut self, end: u64) -> u64 {
        self.random.random_range(0..end)
    }

    fn one_in(&mut self, many: u32) -> bool {
        self.random.random_ratio(1, many)
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        *choices.choose(&mut self.random).unwrap()
    }

    fn some_lease(&mut self) -> LeaseId {
        LeaseId::new(1 + self.below(LEASES))
    }

    fn anybody(&mut self) -> &'static str {
        self.pick(&[STRANGER, REPORTER, PAYERS[0], PAYERS[1], HOSTS[0], HOSTS[1]])
    }

    fn coins(&mut self, right: Amount) -> Amount {
        if self.one_in(20) { Amount::new(u128::from(self.below(60))) } else { right }
    }

    // Hosts and payers

    /// A host answers a request: nothing that the chain hears of. It may cheat.
    fn serve(&mut self, world: &mut World) {
        let (lease, payer, lane) = (self.some_lease(), self.pick(&PAYERS), Lane::new(self.below(2)));
        let host = plan(lease).1;
        let now = world.chain.now().get();
        let channel = world.channel(payer, host).digest(&world.domains.channels);
        let prices = world.models.audit.lease(lease).unwrap().prices;
        // The lanes of one channel belong to one lease each.
        let lane = Lane::new(10 * lease.get() + lane.get());
        let book = &mut world.models.book;
        let known = book.lanes.entry((lease, payer, lane)).or_default();
        let prompt = self.random.random_range(0..200);
        let used = RequestUsage::new(prompt, self.random.random_range(0..=prompt), self.random.random_range(0..150));
        let step = LaneStep::new(known.counts, used.unwrap()).unwrap();
        let mut made = Statement {
            channel: Some(channel),
            lease,
            lane,
            step,
            charge: prices.charge(step.before(), step.after()).unwrap(),
            request_hash: B256::from(self.random.random::<[u8; 32]>()),
            response_hash: B256::repeat_byte(2),
            started: UnixMilliseconds::new(now * 1_000),
            ended: UnixMilliseconds::new(now * 1_000 + self.random.random_range(0..999)),
            finish_reason: FinishReason::Stop,
            execution: None,
            previous: known.head,
        };
        if self.random.random_ratio(1, 10) {
            made.charge = Amount::new(u128::from(self.random.random_range(0..2_000_u32)));
        }
        if self.random.random_ratio(1, 20) {
            // Nobody finds it in the report of its real epoch.
            made.ended = UnixMilliseconds::new((now + self.random.random_range(0..3_000)) * 1_000);
        }
        if self.random.random_ratio(1, 10) {
            // Another account of the same request.
            let other = Statement { response_hash: B256::repeat_byte(3), ..made.clone() };
            book.statements.push(other);
        }
        known.counts = step.after();
        known.head = Some(made.digest(&world.domains.statements));
        known.last = Some(made.clone());
        book.statements.push(made.clone());
        book.unreported.push(made);
    }

    /// All statements of the last epoch that had some, less what the host hides.
    fn report(&mut self, world: &World, now: UnixSeconds) -> Option<(&'static str, Act)> {
        let lease = self.some_lease();
        let (reports, book) = (world.models.others.reports(lease), &world.models.book);
        let over = now.get() / EPOCH;
        let least = reports.last().map_or(0, |last| last.epoch.get());
        let epoch_of = |made: &Statement| made.ended.get() / 1_000 / EPOCH;
        let open = book.unreported.iter().filter(|made| made.lease == lease);
        let candidates: Vec<u64> = open.map(epoch_of).filter(|epoch| (least..over).contains(epoch)).collect();
        let epoch = match candidates.iter().min() {
            Some(epoch) if !self.one_in(10) => *epoch,
            _ => over - 1,
        };
        let known = reports.iter().filter(|report| report.epoch.get() == epoch).count();
        // Late reports are not taken either.
        let until = world.models.audit.claimable_until(lease).unwrap();
        if epoch < least || known == 4 || now > until {
            return None;
        }
        let all = book.unreported.iter().filter(|made| made.lease == lease && epoch_of(made) == epoch);
        let hides = self.one_in(2);
        let statements = all.filter(|_| !(hides && self.random.random_ratio(1, 3))).cloned().collect();
        Some((plan(lease).1, Act::Report { lease, epoch: Epoch::new(epoch), statements }))
    }

    fn claim(&mut self, world: &World, now: UnixSeconds) -> (&'static str, Act) {
        let lanes: Vec<_> = world.models.book.lanes.iter().collect();
        let Some(((lease, payer, lane), known)) = lanes.choose(&mut self.random) else { return self.ask(world) };
        let host = plan(*lease).1;
        let channel = world.channel(payer, host);
        // What was accepted before the last request, or all of it.
        let last = known.last.as_ref().map(|last| last.step.before());
        let counts = if self.one_in(3) { last.unwrap_or_default() } else { known.counts };
        let voucher = Voucher {
            channel: channel.digest(&world.domains.channels),
            lease: *lease,
            lane: *lane,
            counts,
            ceiling: Amount::ZERO,
            statements_head: None,
            expires_at: UnixSeconds::new(now.get() + 10),
        };
        let signature = key(payer).sign(voucher.digest(&world.domains.channels).into()).as_bytes().to_vec();
        let claim = Claim { channel, voucher, signature, in_flight: None };
        let claims = LeaseClaims { lease: *lease, splits: Splits::default(), claims: vec![claim] };
        (host, Act::Claim { claims })
    }

    // Accusations

    fn open_task(&mut self, world: &World) -> (&'static str, Act) {
        let lease = if self.one_in(20) { LeaseId::new(9) } else { self.some_lease() };
        let kind = self.kind();
        let coins = self.coins(world.models.audit.rules().task_bond);
        (self.anybody(), Act::OpenTask { lease, kind, evidence_root: B256::repeat_byte(1), coins })
    }

    fn kind(&mut self) -> TaskKind {
        if self.one_in(20) {
            return TaskKind::Ownership;
        }
        // Those that cost everything are rare, or nothing would be left to take.
        let kinds = [TaskKind::TokenCount, TaskKind::TokenCount, TaskKind::TokenCount, TaskKind::Substitution];
        if self.one_in(8) { self.pick(&[TaskKind::OutsideService, TaskKind::VariantLeak]) } else { self.pick(&kinds) }
    }

    fn challenge_ownership(&mut self, world: &World) -> (&'static str, Act) {
        let coins = self.coins(world.models.audit.rules().task_bond);
        (self.anybody(), Act::ChallengeOwnership { model: self.below(2) as usize, coins })
    }

    fn withdraw_coins(&mut self, world: &World) -> (&'static str, Act) {
        let audit = &world.models.audit;
        let court = self.one_in(2);
        let coins = if court { audit.court_coins() } else { audit.audit_coins() };
        let owed: Vec<Address> = coins.all_owed().map(|(account, _)| account).collect();
        let nobody = address(self.anybody());
        let account = if self.one_in(4) { nobody } else { *owed.choose(&mut self.random).unwrap_or(&nobody) };
        (STRANGER, if court { Act::WithdrawFromCourt { account } } else { Act::WithdrawFromAudit { account } })
    }

    fn lease(&mut self, world: &World, now: UnixSeconds) -> (&'static str, Act) {
        let audit = &world.models.audit;
        let suspended = audit.leases().find(|(_, record)| record.state == LeaseState::Suspended);
        let lease = match suspended {
            Some((lease, _)) if !self.one_in(4) => lease,
            _ => self.some_lease(),
        };
        let host = if self.one_in(8) { STRANGER } else { plan(lease).1 };
        let record = audit.lease(lease).unwrap();
        let kind = match record.state {
            // What a host does that wants to go on.
            LeaseState::Suspended if record.bond < record.min_bond && !self.one_in(3) => self.below(9).max(4),
            LeaseState::Suspended => self.below(4),
            LeaseState::Open | LeaseState::Revoked => self.below(9),
        };
        let act = match kind {
            0 | 1 => Act::Suspend { lease },
            2..4 => Act::Reinstate { lease },
            4 | 5 => {
                let amount = Amount::new(u128::from(self.below(20_000)));
                return (plan(lease).1, Act::AddBond { lease, amount });
            }
            // Near its end, so that there is time for everything else.
            6 if now.get() + 3_000 > record.ends_at.get() || self.one_in(3) => Act::Close { lease },
            _ => Act::WithdrawBond { lease },
        };
        (host, act)
    }

    /// What a host does to get its bond back.
    fn ending(&mut self, world: &World) -> Option<(&'static str, Act)> {
        let Models { audit, others, .. } = &world.models;
        // The lease that is nearest to it.
        let bonded = audit.leases().filter(|(_, record)| record.bond != Amount::ZERO);
        let (lease, _) = bonded.min_by_key(|(lease, _)| audit.open_cases(*lease))?;
        let used = others.reported(lease).missing_in(&others.settled(lease));
        let mut questions = audit.inclusion_challenges().filter(|(_, asked)| asked.open && asked.lease == lease);
        let mut tasks = audit.tasks().filter(|(_, task)| {
            matches!(task.subject, Subject::Lease { lease: other, .. } if other == lease)
                && !matches!(task.state, TaskState::Closed(_))
        });
        let act = if self.one_in(6) {
            Act::WithdrawBond { lease }
        } else if let Some((statement, _)) = questions.next() {
            Act::ResolveInclusion { statement }
        } else if let Some((task, _)) = tasks.next() {
            Act::Resolve { task }
        } else if used != UsageTotals::ZERO {
            Act::Settle { lease, used }
        } else {
            Act::WithdrawBond { lease }
        };
        Some((plan(lease).1, act))
    }

    // Validators

    fn validators(&mut self, world: &World) -> Option<(&'static str, Act)> {
        let others = &world.models.others;
        let set = OperatorSet::Validators;
        let (mut name, _) = self.pick(&VALIDATORS);
        // Somebody who may join, and rather one who comes back.
        let outside = VALIDATORS.into_iter().filter(|(name, _)| !others.is_slashable(address(name), set));
        let (back, new): (Vec<_>, Vec<_>) =
            outside.partition(|(name, _)| world.models.audit.validator_key(address(name)).is_some());
        if let Some((outside, _)) = back.choose(&mut self.random).or(new.choose(&mut self.random))
            && !self.one_in(3)
        {
            name = outside;
        }
        let operator = address(name);
        let member = others.is_member(operator, set);
        match self.below(8) {
            0 | 7 if member => Some((name, Act::LeaveSet { operator: name, set: AuditSet::Validators })),
            1 if self.one_in(4) => {
                let host = self.pick(&HOSTS);
                let stays = others.is_member(address(host), OperatorSet::Hosts);
                stays.then_some((host, Act::LeaveSet { operator: host, set: AuditSet::Hosts }))
            }
            // EigenLayer lets nobody come back before the deallocation delay is over.
            2..5 if !member && !others.is_slashable(operator, set) => {
                let owner = if self.one_in(3) { self.pick(&VALIDATORS).0 } else { name };
                let subject = if self.one_in(5) { self.pick(&VALIDATORS).0 } else { name };
                let possession = secret(owner).prove_possession(&world.domains.verdicts, address(subject));
                let key = secret(owner).public_key();
                Some((name, Act::Join { operator: name, key, possession }))
            }
            _ => {
                let active: Vec<Address> = world.models.audit.validators().iter().map(|one| one.operator).collect();
                let operators = if self.one_in(5) { vec![operator] } else { active };
                Some((STRANGER, Act::UpdateStakes { operators }))
            }
        }
    }

    fn some_task(&mut self, world: &World) -> Option<TaskId> {
        let tasks: Vec<_> = world.models.audit.tasks().collect();
        let open: Vec<_> = tasks.iter().filter(|(_, task)| !matches!(task.state, TaskState::Closed(_))).collect();
        if self.one_in(12) {
            return Some(TaskId::new(self.below(tasks.len() as u64 + 2)));
        }
        open.choose(&mut self.random).map(|(task, _)| *task)
    }

    /// Mostly one that a verdict can still decide.
    fn some_undecided_task(&mut self, world: &World, now: UnixSeconds) -> Option<TaskId> {
        let tasks = world.models.audit.tasks();
        let open = tasks.filter(|(_, task)| !matches!(task.state, TaskState::Closed(_)) && now <= task.deadline);
        let open: Vec<TaskId> = open.map(|(task, _)| task).collect();
        if self.one_in(8) { self.some_task(world) } else { open.choose(&mut self.random).copied() }
    }

    fn resolve(&mut self, world: &World) -> Option<(&'static str, Act)> {
        let task = self.some_task(world)?;
        Some((self.anybody(), Act::Resolve { task }))
    }
}
