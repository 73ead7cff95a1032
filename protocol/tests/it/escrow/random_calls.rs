//! Random calls: whatever comes in any order, the money adds up.

use proptest::prelude::*;
use protocol::{
    escrow::Report,
    ids::Lane,
    messages::Voucher,
    units::{Amount, UnixSeconds},
};

use super::*;
use crate::random::Random;

/// The state beside which every call is checked.
struct Run {
    random: Random,
    world: World,
    escrow: Escrow,
    now: u64,
    /// What came in less what went out, by token, as the calls themselves say.
    flow: BTreeMap<Address, i128>,
    /// Calls that succeeded, by name.
    done: BTreeMap<&'static str, u32>,
}

const PAYERS: [&str; 2] = ["payer", "other payer"];
const HOSTS: [&str; 2] = ["host", "other host"];

impl Run {
    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.random.word() % choices.len() as u64) as usize]
    }

    fn chance(&mut self, of: u64) -> bool {
        self.random.word().is_multiple_of(of)
    }

    fn amount(&mut self) -> Amount {
        Amount::new(u128::from(self.random.word() % 3_000))
    }

    fn channel(&mut self) -> Channel {
        let payer = if self.chance(4) { WALLET } else { address(self.pick(&PAYERS)) };
        let token = if self.chance(6) { TOKENS[1] } else { TOKENS[0] };
        Channel { payer, host: address(self.pick(&HOSTS)), token, ..channel() }
    }

    fn caller(&mut self, usual: Address) -> Call {
        let caller = if self.chance(12) { address("stranger") } else { usual };
        Call { caller, now: UnixSeconds::new(START.get() + self.now) }
    }

    fn moved(&mut self, token: Address, amount: Amount, inwards: bool) {
        let amount = i128::try_from(amount.get()).unwrap();
        *self.flow.entry(token).or_default() += if inwards { amount } else { -amount };
    }

    fn call(&mut self) {
        self.now += self.random.word() % 1_200;
        match self.random.word() % 16 {
            0 | 1 => self.deposit(),
            2 => self.announce(),
            3 => self.withdraw(),
            4 => self.release(),
            5 | 6 => self.grant(),
            7 => self.pay_out(),
            8 => self.settle_or_enforce(),
            _ => self.claim(),
        }
    }

    fn finish<T>(&mut self, name: &'static str, result: &Result<T, EscrowError>) -> bool {
        *self.done.entry(name).or_default() += u32::from(result.is_ok());
        result.is_ok()
    }

    fn deposit(&mut self) {
        let (channel, amount) = (self.channel(), self.amount());
        let result = self.escrow.deposit(&channel, amount);
        if self.finish("deposit", &result) {
            self.moved(channel.token, amount, true);
        }
    }

    fn announce(&mut self) {
        let (channel, amount) = (self.channel(), self.amount());
        let call = self.caller(channel.payer);
        let result = if self.chance(5) {
            self.escrow.cancel_withdraw(call, &channel)
        } else {
            self.escrow.initiate_withdraw(call, &channel, amount)
        };
        self.finish("announce", &result);
    }

    fn withdraw(&mut self) {
        let channel = self.channel();
        let call = self.caller(channel.payer);
        let result = self.escrow.withdraw(call, &channel);
        if self.finish("withdraw", &result) {
            self.moved(channel.token, result.unwrap(), false);
        }
    }

    fn release(&mut self) {
        let (channel, amount) = (self.channel(), self.amount());
        let call = self.caller(channel.host);
        let result = self.escrow.release(call, &channel, amount);
        if self.finish("release", &result) {
            self.moved(channel.token, amount, false);
        }
    }

    fn grant(&mut self) {
        let channel = self.channel();
        if self.chance(8) {
            let call = self.caller(channel.payer);
            let result = self.escrow.revoke_grant(call, &channel, address("session"));
            self.finish("revoke", &result);
            return;
        }
        let grant = SessionGrant {
            cap: Amount::new(u128::from(self.random.word() % 6_000)),
            per_request_cap: self.amount(),
            expires_at: UnixSeconds::new(START.get() + self.now + self.random.word() % 40_000),
            ..grant_of(&channel, "session", self.random.word() % 6)
        };
        let signature = signed_grant(&grant, self.signer_of(&channel));
        let call = self.caller(channel.payer);
        let result = self.escrow.register_grant(call, &self.world, &channel, &grant, &signature);
        self.finish("grant", &result);
    }

    fn signer_of(&self, channel: &Channel) -> &'static str {
        let payer = PAYERS.into_iter().find(|name| address(name) == channel.payer);
        payer.unwrap_or("wallet owner")
    }

    fn pay_out(&mut self) {
        let accounts = [CREATOR, PARENT, AUDIT, address("host"), address("other host")];
        let (token, account) = (self.pick(&TOKENS), self.pick(&accounts));
        let result = self.escrow.pay_out(token, account);
        if self.finish("pay out", &result) {
            self.moved(token, result.unwrap(), false);
        }
    }

    fn settle_or_enforce(&mut self) {
        let lease = LeaseId::new(1 + self.random.word() % 3);
        let account = self.world.leases[&lease].clone();
        let splits = if lease == LEASE { splits() } else { Splits::default() };
        let used = UsageTotals {
            requests: self.random.word() % 5,
            prompt_tokens: self.random.word() % 900,
            cached_tokens: self.random.word() % 500,
            completion_tokens: self.random.word() % 900,
            charge: self.amount(),
        };
        if self.chance(2) {
            let call = self.caller(account.host);
            let result = self.escrow.settle_royalty(call, &self.world, lease, &used, &splits);
            if self.finish("settle", &result) {
                self.moved(account.token, result.unwrap(), true);
            }
            return;
        }
        // Of everything that was settled, and a little that was not.
        let cumulative = self.escrow.settled(lease).checked_add(used).unwrap();
        let committed_at = UnixSeconds::new(START.get() + self.now - self.random.word() % 172_800);
        let (call, bond) = (self.caller(account.host), self.amount());
        let report = Report { committed_at, cumulative };
        let result = self.escrow.enforce_royalty(call, &self.world, lease, &report, bond, &splits);
        if self.finish("enforce", &result) {
            self.moved(account.token, result.unwrap().collected, true);
        }
    }

    fn claim(&mut self) {
        let lease = LeaseId::new(1 + self.random.word() % 3);
        let account = self.world.leases[&lease].clone();
        let splits = if lease == LEASE { splits() } else { Splits::default() };
        let mut claims = Vec::new();
        for _ in 0..=self.random.word() % 3 {
            claims.push(self.one_claim(lease, &account));
        }
        let call = self.caller(account.host);
        let before = self.escrow.clone();
        let group = LeaseClaims { lease, splits, claims: claims.clone() };
        let result = self.escrow.claim_batch(call, &self.world, &[group]);
        if !self.finish("claim", &result) {
            return;
        }
        let payments = result.unwrap();
        assert_eq!(payments.len(), claims.len());
        for (payment, claim) in payments.iter().zip(&claims) {
            assert_eq!(payment.statement.is_some(), claim.in_flight.is_some());
            assert!(payment.royalty.get() + payment.validators.get() <= payment.cost.get());
        }
        let paid: u128 = payments.iter().map(|payment| payment.cost.get()).sum();
        let total = |escrow: &Escrow| escrow.balances().map(|(.., amount)| amount.get()).sum::<u128>();
        assert_eq!(total(&self.escrow) - total(&before), paid, "the parts are the payment");
        // The same again pays nothing.
        let claimed = self.escrow.clone();
        for claim in claims {
            let group = LeaseClaims { lease, splits: splits_of(lease), claims: vec![claim] };
            assert!(self.escrow.claim_batch(call, &self.world, &[group]).is_err());
        }
        assert_eq!(self.escrow, claimed);
    }

    fn one_claim(&mut self, lease: LeaseId, account: &LeaseAccount) -> Claim {
        let channel = Channel {
            host: account.host,
            token: if self.chance(20) { TOKENS[1] } else { account.token },
            ..self.channel()
        };
        // Most lanes stay with their lease; some are tried under another one.
        let lane = Lane::new(if self.chance(15) { 0 } else { lease.get() * 10 + self.random.word() % 2 });
        let before = self.escrow.lane(id(&channel), lane).map_or(UsageCounts::ZERO, |state| state.counts);
        let prompt = self.random.word() % 400;
        let used = counts(self.random.word() % 4, prompt, self.random.word() % (prompt + 1), self.random.word() % 300);
        let voucher = Voucher {
            lease: if self.chance(25) { LeaseId::new(9) } else { lease },
            lane,
            ceiling: self.amount(),
            expires_at: UnixSeconds::new(START.get() + self.now + self.random.word() % 20_000),
            ..voucher(&channel, before.checked_add(used).unwrap())
        };
        let signer = if self.chance(3) { "session" } else { self.signer_of(&channel) };
        let mut claim = claim_of(&channel, voucher, signer);
        if self.chance(2) {
            let usage =
                RequestUsage::new(self.random.word() % 200 + 50, self.random.word() % 50, self.random.word() % 99);
            let mut statement = statement_after(&claim.voucher, usage.unwrap(), &account.prices);
            if self.chance(12) {
                statement.charge = self.amount();
            }
            let host = HOSTS.into_iter().find(|name| address(name) == account.host).unwrap();
            claim.in_flight = Some(in_flight(statement, &format!("{host}'s lease key")));
        }
        if self.chance(20) {
            let place = (self.random.word() % 65) as usize;
            claim.signature[place] ^= 1 << (self.random.word() % 8);
        }
        claim
    }

    /// What holds after any calls.
    fn check(&self) {
        for token in TOKENS {
            let deposits: u128 = self
                .escrow
                .channels()
                .filter(|(_, state)| state.token == token)
                .map(|(_, state)| state.unspent().get())
                .sum();
            let balances: u128 =
                self.escrow.balances().filter(|entry| entry.0 == token).map(|entry| entry.2.get()).sum();
            assert_eq!(self.escrow.held(token).get(), deposits + balances, "conservation");
            let flow = self.flow.get(&token).copied().unwrap_or_default();
            assert_eq!(i128::try_from(self.escrow.held(token).get()).unwrap(), flow, "what came in less what went out");
        }
        for (id, state) in self.escrow.channels() {
            assert!(state.spent <= state.deposited, "Σ lanes ≤ deposit");
            let cost: u128 = self
                .escrow
                .lanes()
                .filter(|(channel, ..)| *channel == id)
                .map(|(.., lane)| self.world.leases[&lane.lease].prices.cost_up(lane.counts).unwrap().get())
                .sum();
            assert_eq!(state.spent.get(), cost, "a channel pays what its lanes cost in all");
            for name in ["session"] {
                if let Some(grant) = self.escrow.grant(id, address(name)) {
                    assert!(grant.spent <= grant.cap);
                }
            }
        }
    }
}

fn splits_of(lease: LeaseId) -> Splits {
    if lease == LEASE { splits() } else { Splits::default() }
}

fn run(seed: u64, calls: u32) -> BTreeMap<&'static str, u32> {
    let (random, world, escrow) = (Random::new(seed), world(), escrow());
    let mut run = Run { random, world, escrow, now: 0, flow: BTreeMap::new(), done: BTreeMap::new() };
    for _ in 0..calls {
        let before: Vec<_> = run.escrow.lanes().map(|(channel, lane, state)| (channel, lane, *state)).collect();
        run.call();
        run.check();
        for (channel, lane, state) in before {
            let now = run.escrow.lane(channel, lane).unwrap();
            assert_eq!(now.lease, state.lease);
            now.counts.since(state.counts).unwrap();
        }
    }
    run.done
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn money_adds_up_after_any_calls(seed: u64) {
        run(seed, 60);
    }
}

#[test]
fn random_calls_reach_every_kind_of_success() {
    let mut done = BTreeMap::<&str, u32>::new();
    for seed in 0..24 {
        for (name, count) in run(seed, 120) {
            *done.entry(name).or_default() += count;
        }
    }
    let names =
        ["announce", "claim", "deposit", "enforce", "grant", "pay out", "release", "revoke", "settle", "withdraw"];
    assert!(done.keys().copied().eq(names), "{done:?}");
    assert!(done.values().all(|count| *count >= 10), "{done:?}");
    assert!(done["claim"] >= 60, "{done:?}");
}
