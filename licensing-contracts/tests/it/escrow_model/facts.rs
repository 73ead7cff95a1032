//! Everything that the contracts show, as the model has it.

use std::collections::BTreeSet;

use alloy::{
    primitives::{Address, U256},
    sol_types::SolValue as _,
};
use licensing_contracts::{
    actions::Erc20,
    bindings::{LeaseManager, PaymentEscrow},
};
use protocol::{
    ids::{ChannelId, Lane},
    messages::Message as _,
};

use super::{
    step::{Act, Step, sums},
    world::{CREATORS, HOSTS, LEASES, PARENT, PAYERS, STRANGER, World},
};
use crate::differential::Fact;

/// What was ever talked about: a call that is refused must leave these as they were, too.
#[derive(Debug, Default)]
pub(super) struct Known {
    channels: BTreeSet<ChannelId>,
    lanes: BTreeSet<(ChannelId, Lane)>,
    keys: BTreeSet<(ChannelId, Address)>,
}

impl Known {
    pub(super) fn note(&mut self, step: &Step, world: &World) {
        match &step.act {
            Act::Deposit { channel, .. }
            | Act::Collect { channel, .. }
            | Act::Announce { channel, .. }
            | Act::Cancel { channel }
            | Act::Withdraw { channel }
            | Act::Release { channel, .. } => {
                self.channels.insert(channel.digest(&world.domain));
            }
            Act::Grant { channel, grant, .. } => {
                self.keys.insert((channel.digest(&world.domain), grant.key));
            }
            Act::Revoke { channel, key } => {
                self.keys.insert((channel.digest(&world.domain), *key));
            }
            Act::Claim { batch } => {
                for claim in batch.iter().flat_map(|group| &group.claims) {
                    let id = claim.channel.digest(&world.domain);
                    self.channels.insert(id);
                    self.lanes.insert((id, claim.voucher.lane));
                }
            }
            Act::Nonsense { claim, .. } => {
                self.lanes.insert((claim.voucher.channelId.into(), Lane::new(claim.voucher.lane)));
            }
            _ => {}
        }
    }

    pub(super) fn facts(&self, world: &World) -> Vec<Fact> {
        let mut facts = self.channel_facts(world);
        facts.extend(lease_facts(world));
        facts.extend(money_facts(world));
        facts
    }

    fn channel_facts(&self, world: &World) -> Vec<Fact> {
        let (escrow, contract) = (&world.escrow, world.chain.to().payment_escrow);
        let channels = self.channels.iter().map(|id| {
            let state = escrow.channel(*id);
            let (deposited, spent) = state.map(|state| (state.deposited.get(), state.spent.get())).unwrap_or_default();
            let announced = state.and_then(|state| state.withdrawal);
            let (amount, at) = announced.map(|it| (it.amount.get(), it.withdrawable_at.get())).unwrap_or_default();
            let question = PaymentEscrow::channelStateCall { id: id.word() };
            Fact::new(format!("{id:?}"), contract, &question, (deposited, spent, amount, at).abi_encode_params())
        });
        let lanes = self.lanes.iter().map(|(id, lane)| {
            let state = escrow.lane(*id, *lane);
            let counts = state.map(|state| state.counts).unwrap_or_default();
            let lease = state.map(|state| state.lease.get()).unwrap_or_default();
            let (prompt, cached, completion) = (counts.prompt(), counts.cached(), counts.completion());
            let answer = (lease, counts.requests(), prompt.get(), cached.get(), completion.get());
            let question = PaymentEscrow::laneCall { id: id.word(), number: lane.get() };
            Fact::new(format!("lane {lane} of {id:?}"), contract, &question, answer.abi_encode_params())
        });
        let grants = self.keys.iter().map(|(id, key)| {
            let grant = escrow.grant(*id, *key);
            let answer = grant.map(|grant| {
                let (cap, spent, per_request) = (grant.cap.get(), grant.spent.get(), grant.per_request_cap.get());
                (cap, spent, per_request, grant.expires_at.get(), grant.nonce, true)
            });
            let question = PaymentEscrow::grantCall { id: id.word(), key: *key };
            let answer = answer.unwrap_or_default().abi_encode_params();
            Fact::new(format!("grant of {key} on {id:?}"), contract, &question, answer)
        });
        channels.chain(lanes).chain(grants).collect()
    }
}

fn lease_facts(world: &World) -> Vec<Fact> {
    let to = world.chain.to();
    let mut facts = Vec::new();
    for (lease, account) in &world.others.leases {
        let number = lease.get();
        let settled = sums(&world.escrow.settled(*lease)).abi_encode();
        let question = PaymentEscrow::settledCall { leaseId: number };
        facts.push(Fact::new(format!("use settled of lease {lease}"), to.payment_escrow, &question, settled));
        let debt = U256::from(world.escrow.royalty_debt(*lease).get()).abi_encode();
        let question = PaymentEscrow::royaltyDebtCall(number);
        facts.push(Fact::new(format!("debt of lease {lease}"), to.payment_escrow, &question, debt));

        // What the model is told of the lease must be true as well.
        let shown = world.chain.read(to.lease_manager, &LeaseManager::accountCall { leaseId: number });
        let record = world.chain.read(to.lease_manager, &LeaseManager::leaseCall { leaseId: number });
        let (state, bond) = (record.state, record.bond);
        assert_eq!(shown.claimableUntil, account.claimable_until.get(), "lease {lease}");
        assert_eq!((shown.host, shown.leaseKey, shown.creator), (account.host, account.lease_key, account.creator));
        assert_eq!(bond, world.others.bonds[lease].get(), "bond of lease {lease}");
        assert_eq!(state, if world.others.suspended[lease] { 2 } else { 1 }, "lease {lease}");
    }
    assert_eq!(facts.len(), 2 * LEASES as usize);
    facts
}

/// Every balance, and that the escrow really holds what it owes.
fn money_facts(world: &World) -> Vec<Fact> {
    let to = world.chain.to();
    let names = PAYERS.into_iter().chain(HOSTS).chain(CREATORS).chain([PARENT, STRANGER]);
    let accounts: Vec<Address> = names.map(|name| world.account(name)).chain([to.audit_service_manager]).collect();
    let mut facts = Vec::new();
    for token in world.tokens {
        for account in &accounts {
            let balance = U256::from(world.escrow.balance(token, *account).get()).abi_encode();
            let question = PaymentEscrow::balanceCall { token, account: *account };
            facts.push(Fact::new(format!("balance of {account} in {token}"), to.payment_escrow, &question, balance));
        }
        let held = U256::from(world.escrow.held(token).get()).abi_encode();
        let question = Erc20::balanceOfCall { account: to.payment_escrow };
        facts.push(Fact::new(format!("what the escrow holds of {token}"), token, &question, held));
    }
    facts
}
