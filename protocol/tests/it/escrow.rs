//! The model of the escrow: every refusal, and what must hold after any calls.

use std::collections::BTreeMap;

use alloy_primitives::keccak256;
use protocol::{
    Address, B256,
    counts::{LaneStep, RequestUsage, UsageCounts, UsageTotals},
    escrow::{Call, Claim, Escrow, EscrowError, InFlight, LeaseAccount, LeaseClaims, Payment, Surroundings},
    ids::{ChainId, ChannelId, Lane, LeaseId},
    messages::{
        Channel, Domain, FinishReason, LeaseManager, Message as _, PaymentEscrow, SessionGrant, Statement, Voucher,
    },
    money::{Prices, Shares},
    signature::SigningKey,
    splits::{Split, Splits},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, UnixMilliseconds, UnixSeconds},
};

mod random_calls;
mod refusals;
mod stories;

pub(crate) const START: UnixSeconds = UnixSeconds::new(1_767_225_600);
pub(crate) const CLAIM_INTERVAL: u64 = 3_600;
pub(crate) const AUDIT: Address = Address::repeat_byte(0xa0);
pub(crate) const CREATOR: Address = Address::repeat_byte(0xc0);
pub(crate) const PARENT: Address = Address::repeat_byte(0xc1);
pub(crate) const WALLET: Address = Address::repeat_byte(0x3a);
pub(crate) const TOKENS: [Address; 2] = [Address::repeat_byte(0x71), Address::repeat_byte(0x72)];
pub(crate) const LEASE: LeaseId = LeaseId::new(1);

/// A key that everybody here knows.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&keccak256(name).0).unwrap()
}

pub(crate) fn address(name: &str) -> Address {
    key(name).address()
}

pub(crate) fn bps(value: u16) -> BasisPoints {
    BasisPoints::new(value).unwrap()
}

pub(crate) fn prices(request: u128, prompt: u128, cached: u128, completion: u128) -> Prices {
    let [request, prompt, cached, completion] = [request, prompt, cached, completion].map(PricePerMillion::new);
    Prices { request, prompt, cached, completion }
}

/// Who leases what, what was reported, and a wallet contract that accepts what its owner signs.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) leases: BTreeMap<LeaseId, LeaseAccount>,
    pub(crate) reported: BTreeMap<LeaseId, UsageTotals>,
}

/// Who shares the royalty of the first lease.
pub(crate) fn splits() -> Splits {
    Splits::new(vec![Split { recipient: PARENT, share: bps(2_500) }]).unwrap()
}

/// A lease at prices that make a unit cost a unit, and others at odd ones.
pub(crate) fn world() -> World {
    let lease = |host: &str, token, royalty, validators, splits: &Splits, prices: Prices, floors: Prices| {
        let shares = Shares::new(bps(royalty), bps(validators), floors).unwrap();
        shares.check_prices(&prices).unwrap();
        LeaseAccount {
            host: address(host),
            lease_key: address(&format!("{host}'s lease key")),
            creator: CREATOR,
            token,
            claimable_until: UnixSeconds::new(START.get() + 1_000_000),
            dispute_window: Seconds::new(86_400),
            shares,
            splits: splits.root(),
            prices,
        }
    };
    let unit = prices(1_000_000, 1_000_000, 1_000_000, 1_000_000);
    let odd = prices(123_457, 333_333, 33_333, 777_777);
    let floors = prices(10_000, 66_666, 6_666, 155_555);
    let most = UsageTotals {
        requests: u64::MAX,
        prompt_tokens: u64::MAX,
        cached_tokens: u64::MAX,
        completion_tokens: u64::MAX,
        charge: Amount::MAX,
    };
    World {
        leases: BTreeMap::from([
            (LEASE, lease("host", TOKENS[0], 1_000, 100, &splits(), unit, Prices::default())),
            (LeaseId::new(2), lease("host", TOKENS[0], 500, 300, &Splits::default(), odd, floors)),
            (LeaseId::new(3), lease("other host", TOKENS[1], 2_000, 0, &Splits::default(), odd, floors)),
        ]),
        reported: [1, 2, 3].map(|lease| (LeaseId::new(lease), most)).into(),
    }
}

impl Surroundings for World {
    fn lease(&self, lease: LeaseId) -> Option<LeaseAccount> {
        self.leases.get(&lease).cloned()
    }

    fn reported(&self, lease: LeaseId) -> UsageTotals {
        self.reported.get(&lease).copied().unwrap_or_default()
    }

    fn wallet_accepts(&self, account: Address, digest: B256, signature: &[u8]) -> Option<bool> {
        (account == WALLET).then(|| signature == key("wallet owner").sign(digest).as_bytes())
    }
}

pub(crate) fn domain() -> Domain<PaymentEscrow> {
    Domain::new(ChainId::new(31_337), Address::repeat_byte(0xe5))
}

pub(crate) fn statements() -> Domain<LeaseManager> {
    Domain::new(ChainId::new(31_337), Address::repeat_byte(0x1e))
}

pub(crate) fn escrow() -> Escrow {
    Escrow::new(domain(), statements(), AUDIT, Seconds::new(CLAIM_INTERVAL))
}

pub(crate) fn by(name: &str, seconds: u64) -> Call {
    Call { caller: address(name), now: UnixSeconds::new(START.get() + seconds) }
}

/// The channel from the payer to the host of the first lease.
pub(crate) fn channel() -> Channel {
    Channel {
        payer: address("payer"),
        host: address("host"),
        token: TOKENS[0],
        withdraw_delay: Seconds::new(2 * CLAIM_INTERVAL),
        salt: B256::ZERO,
    }
}

pub(crate) fn id(channel: &Channel) -> ChannelId {
    channel.digest(&domain())
}

pub(crate) fn counts(requests: u64, prompt: u64, cached: u64, completion: u64) -> UsageCounts {
    UsageCounts::new(requests, prompt, cached, completion).unwrap()
}

pub(crate) fn voucher(channel: &Channel, counts: UsageCounts) -> Voucher {
    Voucher {
        channel: id(channel),
        lease: LEASE,
        lane: Lane::new(0),
        counts,
        ceiling: Amount::new(1_000),
        statements_head: None,
        expires_at: UnixSeconds::new(START.get() + 500_000),
    }
}

pub(crate) fn signed(voucher: &Voucher, signer: &str) -> Vec<u8> {
    key(signer).sign(voucher.digest(&domain()).into()).as_bytes().to_vec()
}

pub(crate) fn claim_of(channel: &Channel, voucher: Voucher, signer: &str) -> Claim {
    Claim { channel: channel.clone(), signature: signed(&voucher, signer), voucher, in_flight: None }
}

/// The statement of the request that follows the voucher, at the right charge.
pub(crate) fn statement_after(voucher: &Voucher, usage: RequestUsage, prices: &Prices) -> Statement {
    let step = LaneStep::new(voucher.counts, usage).unwrap();
    Statement {
        channel: Some(voucher.channel),
        lease: voucher.lease,
        lane: voucher.lane,
        step,
        charge: prices.charge(step.before(), step.after()).unwrap(),
        request_hash: keccak256("request"),
        response_hash: keccak256("response"),
        started: UnixMilliseconds::new(START.get() * 1_000),
        ended: UnixMilliseconds::new(START.get() * 1_000 + 5),
        finish_reason: FinishReason::Stop,
        execution: None,
        previous: voucher.statements_head,
    }
}

pub(crate) fn in_flight(statement: Statement, signer: &str) -> InFlight {
    let signature = key(signer).sign(statement.digest(&statements()).into()).as_bytes().to_vec();
    InFlight { statement, signature }
}

pub(crate) fn grant_of(channel: &Channel, name: &str, nonce: u64) -> SessionGrant {
    SessionGrant {
        channel: id(channel),
        key: address(name),
        cap: Amount::new(100),
        per_request_cap: Amount::new(20),
        expires_at: UnixSeconds::new(START.get() + 100_000),
        nonce,
    }
}

pub(crate) fn signed_grant(grant: &SessionGrant, signer: &str) -> Vec<u8> {
    key(signer).sign(grant.digest(&domain()).into()).as_bytes().to_vec()
}

/// One claim under the first lease.
pub(crate) fn claim(escrow: &mut Escrow, world: &World, call: Call, claim: Claim) -> Result<Vec<Payment>, EscrowError> {
    let group = LeaseClaims { lease: claim.voucher.lease, splits: splits(), claims: vec![claim] };
    escrow.claim_batch(call, world, &[group])
}

/// An escrow with this deposit in the channel.
pub(crate) fn funded(amount: u128) -> Escrow {
    let mut escrow = escrow();
    escrow.deposit(&channel(), Amount::new(amount)).unwrap();
    escrow
}
