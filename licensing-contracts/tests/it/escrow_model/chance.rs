//! Random calls: such as people make, and such as cheats try.

use alloy::primitives::{Address, B256, U256, uint};
use protocol::{
    counts::{UsageCounts, UsageTotals},
    escrow::LeaseAccount,
    ids::{ChainId, LeaseId},
    messages::{self, Channel, Domain, Message as _, SessionGrant},
    money::Prices,
    splits::{Split, Splits},
    units::{Amount, BasisPoints, Seconds, UnixSeconds},
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    step::{Act, Around, Step},
    world::{CLAIM_INTERVAL, CREATORS, DEAR, EPOCH, HOSTS, PARENT, PAYERS, STRANGER, World, splits_of},
};
use crate::differential::{address, key};

mod claims;

const SESSIONS: [&str; 2] = ["session", "other session"];

/// Order of the group in which signatures are.
const ORDER: U256 = uint!(0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141_U256);

pub(super) struct Chance {
    random: StdRng,
    /// What was tried, to be tried again.
    past: Vec<Step>,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: StdRng::seed_from_u64(seed), past: Vec::new() }
    }

    pub(super) fn step(&mut self, world: &World) -> Step {
        let after = Seconds::new(if self.one_in(3) { 0 } else { self.below(1_000) });
        let step = if !self.past.is_empty() && self.one_in(14) {
            let again = self.past.choose(&mut self.random).unwrap().clone();
            Step { after, ..again }
        } else {
            let now = UnixSeconds::new(world.chain.now().get() + after.get());
            self.new_step(world, after, now)
        };
        if !matches!(step.act, Act::Around(_)) {
            self.past.push(step.clone());
        }
        step
    }

    fn new_step(&mut self, world: &World, after: Seconds, now: UnixSeconds) -> Step {
        let (by, act) = match self.below(32) {
            0..4 => self.deposit(world),
            4..7 => self.withdrawal(world),
            7 => self.release(world),
            8..12 => self.grant(world, now),
            12 => self.revoke(world),
            13 => self.credit(world),
            14..16 => self.pay_out(world),
            16..19 => return self.around(world, after),
            19 => self.settle(world),
            20 => self.enforce(world),
            21 => self.nonsense(world, now),
            _ => self.claim(world, now),
        };
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

    fn amount(&mut self, end: u64) -> Amount {
        Amount::new(u128::from(self.below(end)))
    }

    /// Mostly who may, sometimes somebody else.
    fn usually(&mut self, name: &'static str) -> &'static str {
        if self.one_in(12) { self.pick(&[STRANGER, HOSTS[0], HOSTS[1], PAYERS[0], "wallet"]) } else { name }
    }

    fn channel(&mut self, world: &World, host: &'static str, token: Address) -> (&'static str, Channel) {
        let payer = self.pick(&PAYERS);
        let notice = Seconds::new(2 * CLAIM_INTERVAL);
        let channel = Channel {
            payer: world.account(payer),
            host: address(host),
            token,
            withdraw_delay: notice,
            salt: B256::ZERO,
        };
        (payer, channel)
    }

    fn any_channel(&mut self, world: &World) -> (&'static str, &'static str, Channel) {
        let host = self.pick(&HOSTS);
        // What the hosts' leases are paid in, so that channels are used by everything.
        let usual = world.tokens[HOSTS.iter().position(|name| *name == host).unwrap()];
        let token = if self.one_in(8) { self.pick(&world.tokens) } else { usual };
        let (payer, channel) = self.channel(world, host, token);
        (payer, host, channel)
    }

    fn lease(&mut self) -> LeaseId {
        LeaseId::new(if self.one_in(40) { 9 } else { self.below(3) + 1 })
    }

    fn splits(&mut self, lease: LeaseId) -> Splits {
        if self.one_in(30) {
            let split = Split { recipient: address(STRANGER), share: BasisPoints::new(9_000).unwrap() };
            return Splits::new(vec![split]).unwrap();
        }
        splits_of(lease)
    }

    // Calls

    fn deposit(&mut self, world: &World) -> (&'static str, Act) {
        let (payer, _, mut channel) = self.any_channel(world);
        let mut amount = self.amount(40_000);
        if self.one_in(4) {
            return (self.pick(&[payer, STRANGER]), Act::Collect { channel, amount });
        }
        match self.below(40) {
            0 => channel.withdraw_delay = Seconds::new(2 * CLAIM_INTERVAL - 1),
            1 => channel.withdraw_delay = Seconds::new(30 * 86_400 + 1),
            2 => channel.payer = Address::ZERO,
            3 => channel.host = Address::ZERO,
            4 => amount = Amount::ZERO,
            5 => {
                // One more than fits, where something is there.
                let state = world.escrow.channel(channel.digest(&world.domain));
                let there = state.map_or(0, |state| state.deposited.get());
                amount = Amount::new(if there == 0 { 0 } else { u128::MAX - there + 1 });
            }
            _ => {}
        }
        (self.usually(payer), Act::Deposit { channel, amount })
    }

    fn withdrawal(&mut self, world: &World) -> (&'static str, Act) {
        let (payer, _, channel) = self.any_channel(world);
        let by = self.usually(payer);
        let amount = self.amount(4_000);
        let act = match self.below(6) {
            0 => Act::Cancel { channel },
            1..4 => Act::Withdraw { channel },
            _ => Act::Announce { channel, amount },
        };
        (by, act)
    }

    fn release(&mut self, world: &World) -> (&'static str, Act) {
        let (_, host, channel) = self.any_channel(world);
        let amount = self.amount(3_000);
        (self.usually(host), Act::Release { channel, amount })
    }

    fn grant(&mut self, world: &World, now: UnixSeconds) -> (&'static str, Act) {
        let (payer, _, channel) = self.any_channel(world);
        let id = channel.digest(&world.domain);
        let name = self.pick(&SESSIONS);
        let current = world.escrow.grant(id, address(name)).copied();
        let mut grant = SessionGrant {
            channel: id,
            key: address(name),
            cap: self.amount(6_000),
            per_request_cap: self.amount(900),
            expires_at: UnixSeconds::new(now.get() + self.below(30_000)),
            nonce: self.below(6),
        };
        if let Some(current) = current
            && self.one_in(2)
        {
            // Wider than the one that is there.
            grant.cap = current.cap.checked_add(grant.cap).unwrap();
            grant.per_request_cap = current.per_request_cap.checked_add(grant.per_request_cap).unwrap();
            grant.expires_at = UnixSeconds::new(current.expires_at.get() + 1_000);
            grant.nonce = current.nonce.saturating_add(1);
        }
        let mut signer = key_of(payer);
        match self.below(24) {
            0 => grant.key = Address::ZERO,
            1 => grant.channel = self.any_channel(world).2.digest(&world.domain),
            2 => signer = STRANGER,
            3 => signer = name,
            _ => {}
        }
        let domain = if self.one_in(24) { elsewhere(&mut self.random, world) } else { world.domain };
        let signature = key(signer).sign(grant.digest(&domain).into()).as_bytes().to_vec();
        let signature = self.perhaps_spoilt(signature);
        (self.usually(payer), Act::Grant { channel, grant, signature })
    }

    fn revoke(&mut self, world: &World) -> (&'static str, Act) {
        let (payer, _, channel) = self.any_channel(world);
        let key = address(self.pick(&SESSIONS));
        (self.usually(payer), Act::Revoke { channel, key })
    }

    fn credit(&mut self, world: &World) -> (&'static str, Act) {
        let account = if self.one_in(6) { Address::ZERO } else { address(self.pick(&CREATORS)) };
        let amount = if self.one_in(6) { Amount::ZERO } else { self.amount(500) };
        (STRANGER, Act::Credit { token: self.pick(&world.tokens), account, amount })
    }

    fn pay_out(&mut self, world: &World) -> (&'static str, Act) {
        let audit = world.chain.to().audit_service_manager;
        let names = [CREATORS[0], CREATORS[1], PARENT, HOSTS[0], HOSTS[1]].map(address);
        let account = if self.one_in(6) { audit } else { self.pick(&names) };
        (STRANGER, Act::PayOut { token: self.pick(&world.tokens), account })
    }

    fn around(&mut self, world: &World, after: Seconds) -> Step {
        let lease = LeaseId::new(self.below(3) + 1);
        let account = &world.others.leases[&lease];
        let host = host_of(account);
        // Reports of four different epochs, as no more than four of one are taken.
        let after = Seconds::new(after.get() + EPOCH);
        let now = UnixSeconds::new(world.chain.now().get() + after.get());
        let (by, around) = match self.below(12) {
            0 => {
                let amount = self.amount(3_000);
                (STRANGER, Around::AddBond { lease, amount })
            }
            1 => {
                let model = self.pick(&[0, 1]);
                let owner = world.creator(model);
                let to = CREATORS.into_iter().find(|name| *name != owner).unwrap();
                (owner, Around::Sell { model, to })
            }
            2 if self.one_in(2) && world.may_close(lease, after) => (host, Around::Close { lease }),
            // What is reported later is not taken.
            _ if now.get() <= account.claimable_until.get() => {
                let totals = self.totals(&account.prices, 60);
                let totals = UsageTotals { requests: totals.requests + 1, ..totals };
                (host, Around::Report { lease, root: B256::from(self.random.random::<[u8; 32]>()), totals })
            }
            _ => (STRANGER, Around::AddBond { lease, amount: Amount::new(1) }),
        };
        Step { after, by, act: Act::Around(around) }
    }

    /// What so many requests may use, and what they cost.
    fn totals(&mut self, prices: &Prices, requests: u64) -> UsageTotals {
        let counts = self.usage(requests);
        UsageTotals::new(counts, prices.cost_up(counts).unwrap())
    }

    fn usage(&mut self, most_requests: u64) -> UsageCounts {
        self.used(0, most_requests)
    }

    fn used(&mut self, least_requests: u64, most_requests: u64) -> UsageCounts {
        let requests = least_requests + self.below(most_requests + 1 - least_requests);
        let prompt = self.below(400 * (requests + 1));
        let cached = self.below(prompt + 1);
        UsageCounts::new(requests, prompt, cached, self.below(300 * (requests + 1))).unwrap()
    }

    fn settle(&mut self, world: &World) -> (&'static str, Act) {
        let lease = self.lease();
        let account = world.others.leases.get(&lease).unwrap_or(&world.others.leases[&DEAR]);
        let mut used = self.totals(&account.prices, 3);
        if self.one_in(8) {
            used.cached_tokens = used.prompt_tokens + 1;
        }
        let splits = self.splits(lease);
        (self.usually(host_of(account)), Act::Settle { lease, used, splits })
    }

    fn enforce(&mut self, world: &World) -> (&'static str, Act) {
        let lease = self.lease();
        let reports = world.others.reports.get(&lease).map_or(0, Vec::len);
        let report = if reports == 0 { 0 } else { self.below(reports as u64) as usize };
        // Without a report there is nothing to name; of a lease that nobody opened, anything is refused.
        let lease = if reports == 0 { LeaseId::new(9) } else { lease };
        (STRANGER, Act::Enforce { lease, report, splits: self.splits(lease) })
    }

    /// Most signatures as they are; others in every way that is refused.
    fn perhaps_spoilt(&mut self, mut signature: Vec<u8>) -> Vec<u8> {
        match self.below(90) {
            0 => signature.truncate(64),
            1 => signature.push(0),
            2 => signature.clear(),
            3 => {
                let high = ORDER - U256::from_be_slice(&signature[32..64]);
                signature[32..64].copy_from_slice(&high.to_be_bytes::<32>());
                signature[64] ^= 7;
            }
            4 => signature[64] = 29,
            5 => signature[64] -= 27,
            6 => signature[..32].fill(0),
            7 => {
                let bit = self.below(8 * 65) as usize;
                signature[bit / 8] ^= 1 << (bit % 8);
            }
            _ => {}
        }
        signature
    }
}

/// The domain of another chain, or of another contract.
fn elsewhere(random: &mut StdRng, world: &World) -> Domain<messages::PaymentEscrow> {
    let (chain, contract) = (world.domain.chain(), world.domain.verifying_contract());
    if random.random() {
        Domain::new(ChainId::new(chain.get() + 1), contract)
    } else {
        Domain::new(chain, world.chain.to().lease_manager)
    }
}

/// Who signs for a payer.
fn key_of(payer: &'static str) -> &'static str {
    if payer == "wallet" { "wallet owner" } else { payer }
}

fn host_of(account: &LeaseAccount) -> &'static str {
    HOSTS.into_iter().find(|name| address(name) == account.host).unwrap()
}
