//! Claims: vouchers, requests in flight, and what cheats make of them.

use alloy::primitives::{B256, aliases::U48};
use protocol::{
    counts::{LaneStep, RequestUsage, UsageCounts},
    escrow::{Claim, InFlight, LeaseAccount, LeaseClaims},
    ids::{Lane, LeaseId},
    messages::{FinishReason, Message as _, Statement, Voucher, wire},
    units::{Amount, UnixMilliseconds, UnixSeconds},
};

use super::{Chance, SESSIONS, elsewhere, host_of, key_of};
use crate::{
    differential::{address, key},
    escrow_model::{
        step::{Act, WireClaim},
        world::{DEAR, HOSTS, STRANGER, World, lease_key_of, splits_of},
    },
};

impl Chance {
    pub(super) fn claim(&mut self, world: &World, now: UnixSeconds) -> (&'static str, Act) {
        let mut batch = Vec::new();
        let mut lease = self.lease();
        if self.one_in(25) {
            lease = DEAR;
        }
        let account = world.others.leases.get(&lease).unwrap_or(&world.others.leases[&DEAR]).clone();
        let host = host_of(&account);
        for _ in 0..=self.below(8) / 7 {
            let claims = (0..=self.below(6) / 3).map(|_| self.one_claim(world, now, lease, &account)).collect();
            batch.push(LeaseClaims { lease, splits: self.splits(lease), claims });
        }
        (self.usually(host), Act::Claim { batch })
    }

    fn one_claim(&mut self, world: &World, now: UnixSeconds, lease: LeaseId, account: &LeaseAccount) -> Claim {
        let (mut payer, mut channel) = self.channel(world, host_of(account), account.token);
        // Mostly somebody who can pay.
        for _ in 0..4 {
            let state = world.escrow.channel(channel.digest(&world.domain));
            if state.is_some_and(|state| state.unspent() > Amount::new(3_000)) {
                break;
            }
            (payer, channel) = self.channel(world, host_of(account), account.token);
        }
        let id = channel.digest(&world.domain);
        let lane = Lane::new(if self.one_in(20) { 0 } else { 10 * lease.get() + self.below(2) });
        let before = world.escrow.lane(id, lane).map_or(UsageCounts::ZERO, |state| state.counts);
        let used = if self.one_in(8) { self.usage(2) } else { self.used(1, 2) };
        let mut voucher = Voucher {
            channel: id,
            lease,
            lane,
            counts: before.checked_add(used).unwrap(),
            ceiling: self.amount(2_500),
            statements_head: self.one_in(2).then(|| B256::repeat_byte(7).into()),
            expires_at: UnixSeconds::new(now.get() + self.below(20_000)),
        };
        match self.below(50) {
            0 => voucher.lease = LeaseId::new(self.below(9)),
            1 => channel.host = address(self.pick(&HOSTS)),
            2 => channel.token = self.pick(&world.tokens),
            3 => channel.salt = B256::repeat_byte(1),
            4 => voucher.expires_at = UnixSeconds::new(now.get() - 1),
            5 => voucher.expires_at = now,
            6 => voucher.counts = before,
            7 => {
                // One more request, and less of everything else.
                let (prompt, completion) = (before.prompt().get() / 2, before.completion().get() / 2);
                voucher.counts = UsageCounts::new(before.requests() + 1, prompt, 0, completion).unwrap();
            }
            8 => {
                let most = UsageCounts::MAX;
                voucher.counts = UsageCounts::new(most, most, 0, most).unwrap();
            }
            _ if lease == DEAR && self.one_in(3) => {
                // So many of these requests cost more than any payment.
                voucher.counts = UsageCounts::new(UsageCounts::MAX, 0, 0, 0).unwrap();
            }
            _ => {}
        }
        let other = if self.one_in(40) { self.any_channel(world).2 } else { channel.clone() };
        voucher.channel = other.digest(&world.domain);
        let in_flight = if self.one_in(2) { self.in_flight(world, &mut voucher, account) } else { None };
        let sessions = SESSIONS.map(address);
        let lasts = |session| world.escrow.grant(id, session).is_some_and(|grant| grant.expires_at >= now);
        let granted = sessions.into_iter().position(lasts);
        let signer = match (self.below(18), granted) {
            (0, _) => STRANGER,
            (1 | 2, _) => self.pick(&SESSIONS),
            (2..7, Some(number)) => SESSIONS[number],
            _ => key_of(payer),
        };
        let domain = if self.one_in(40) { elsewhere(&mut self.random, world) } else { world.domain };
        let signature = key(signer).sign(voucher.digest(&domain).into()).as_bytes().to_vec();
        let signature = self.perhaps_spoilt(signature);
        Claim { channel, voucher, signature, in_flight }
    }

    /// The statement of a request that follows the voucher; `None` if there is no room for one.
    fn in_flight(&mut self, world: &World, voucher: &mut Voucher, account: &LeaseAccount) -> Option<InFlight> {
        let prompt = self.below(300);
        let usage = RequestUsage::new(prompt, self.below(prompt + 1), self.below(300)).unwrap();
        let step = LaneStep::new(voucher.counts, usage).ok()?;
        let charge = account.prices.charge(step.before(), step.after()).ok()?;
        voucher.ceiling = charge.checked_add(self.amount(100))?;
        let mut statement = statement_after(voucher, step, charge);
        let mut signer = lease_key_of(host_of(account));
        match self.below(30) {
            0 => statement.channel = None,
            1 => statement.lease = LeaseId::new(self.below(4)),
            2 => statement.lane = Lane::new(self.below(100)),
            3 => statement.previous = Some(B256::repeat_byte(9).into()),
            4 => statement.step = LaneStep::new(UsageCounts::ZERO, usage).unwrap(),
            5 => statement.charge = self.amount(3_000),
            6 => voucher.ceiling = Amount::new(charge.get().saturating_sub(1)),
            7 => signer = STRANGER.to_owned(),
            8 => signer = host_of(account).to_owned(),
            _ => {}
        }
        let signature = key(&signer).sign(statement.digest(&world.statements).into()).as_bytes().to_vec();
        Some(InFlight { signature: self.perhaps_spoilt(signature), statement })
    }

    /// Counts that are no counts: the types here refuse to hold them, and the contract must refuse to pay for them.
    pub(super) fn nonsense(&mut self, world: &World, now: UnixSeconds) -> (&'static str, Act) {
        let lease = LeaseId::new(self.below(3) + 1);
        let account = world.others.leases[&lease].clone();
        let (payer, channel) = self.channel(world, host_of(&account), account.token);
        let id = channel.digest(&world.domain);
        let lane = Lane::new(1_000 + self.below(1_000_000));
        let counts = UsageCounts::new(3, 300, 100, 50).unwrap();
        let expires_at = UnixSeconds::new(now.get() + 10);
        let ceiling = Amount::new(1 << 100);
        let mut voucher = Voucher { channel: id, lease, lane, counts, ceiling, statements_head: None, expires_at };
        let step = LaneStep::new(counts, RequestUsage::new(200, 20, 90).unwrap()).unwrap();
        let charge = account.prices.charge(counts, step.after()).unwrap();
        let in_flight = statement_after(&voucher, step, charge);
        let kind = self.below(5);
        if kind == 4 {
            voucher.counts = UsageCounts::new(3, UsageCounts::MAX, 0, 50).unwrap();
        }
        let mut promise = wire::Voucher::from(&voucher);
        let mut statement = wire::Statement::from(&in_flight);
        match kind {
            0 => promise.cachedTokens = promise.promptTokens + U48::ONE,
            1 => {
                promise.cachedTokens = promise.promptTokens + U48::ONE;
                statement.cachedTokensBefore = promise.cachedTokens;
            }
            2 => statement.seq = U48::ZERO,
            3 => statement.cachedTokens = statement.promptTokens + U48::ONE,
            _ => statement.promptTokensBefore = promise.promptTokens,
        }
        let signer = key_of(payer);
        let signature = key(signer).sign(promise.digest(&world.domain).into()).as_bytes().to_vec();
        let statement_signature =
            key(&lease_key_of(host_of(&account))).sign(statement.digest(&world.statements).into()).as_bytes().to_vec();
        let claim = WireClaim {
            channel: (&channel).into(),
            voucher: promise,
            signature,
            in_flight: (kind > 0).then_some((statement, statement_signature)),
        };
        let act = Act::Nonsense { lease, splits: splits_of(lease), claim: Box::new(claim) };
        (host_of(&account), act)
    }
}

/// The statement of the request that follows a voucher.
fn statement_after(voucher: &Voucher, step: LaneStep, charge: Amount) -> Statement {
    Statement {
        channel: Some(voucher.channel),
        lease: voucher.lease,
        lane: voucher.lane,
        step,
        charge,
        request_hash: B256::repeat_byte(1),
        response_hash: B256::repeat_byte(2),
        started: UnixMilliseconds::new(1),
        ended: UnixMilliseconds::new(2),
        finish_reason: FinishReason::Stop,
        execution: None,
        previous: voucher.statements_head,
    }
}
