//! Vouchers turned into balances.

use super::{Call, Escrow, EscrowError, LaneState, LeaseAccount, Surroundings, require_host, sum};
use crate::{
    counts::{UsageCounts, UsageTotals},
    ids::{ChannelId, LeaseId, StatementDigest},
    messages::{Channel, Message as _, Statement, Voucher},
    signature::Signature,
    splits::Splits,
    units::Amount,
};

/// A voucher with what proves it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The channel that pays.
    pub channel: Channel,
    /// What the payer promised.
    pub voucher: Voucher,
    /// Of the payer, or of a granted key, over the voucher.
    pub signature: Vec<u8>,
    /// The request in flight, to be claimed too.
    pub in_flight: Option<InFlight>,
}

/// A request that the payer has not accepted yet.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// The host's account of it.
    pub statement: Statement,
    /// Of the lease key.
    pub signature: Vec<u8>,
}

/// Claims under one lease, with the recipients that its terms name.
#[derive(Clone, Debug)]
pub struct LeaseClaims {
    /// The lease.
    pub lease: LeaseId,
    /// Who shares the royalty.
    pub splits: Splits,
    /// The claims.
    pub claims: Vec<Claim>,
}

/// What one claim paid, and to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The channel that paid.
    pub channel: ChannelId,
    /// The lane after the claim.
    pub lane: LaneState,
    /// What was paid.
    pub cost: Amount,
    /// The creator's part and that of those who share with him.
    pub royalty: Amount,
    /// The validators' part.
    pub validators: Amount,
    /// The claimed request in flight.
    pub statement: Option<StatementDigest>,
}

/// What a group of claims adds up to.
#[derive(Default)]
struct Tally {
    used: UsageTotals,
    royalty: Amount,
    validators: Amount,
}

impl Escrow {
    /// Turns vouchers into balances: of the host, the creator and those who share with him, and the validators. The host
    /// of every lease calls. All of the claims hold, or none of them.
    pub fn claim_batch(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        batch: &[LeaseClaims],
    ) -> Result<Vec<Payment>, EscrowError> {
        self.attempt(|next| {
            let mut payments = Vec::new();
            for group in batch {
                next.claim_under_lease(call, surroundings, group, &mut payments)?;
            }
            Ok(payments)
        })
    }

    fn claim_under_lease(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        group: &LeaseClaims,
        payments: &mut Vec<Payment>,
    ) -> Result<(), EscrowError> {
        let lease = surroundings.lease(group.lease).ok_or(EscrowError::UnknownLease { lease: group.lease })?;
        require_host(lease.host, call.caller)?;
        if call.now > lease.claimable_until {
            return Err(EscrowError::LeaseNotClaimable { until: lease.claimable_until });
        }
        require_splits(&lease, &group.splits)?;

        let mut tally = Tally::default();
        for claim in &group.claims {
            payments.push(self.claim(call, surroundings, group.lease, &lease, claim, &mut tally)?);
        }
        self.settle(surroundings, group.lease, &tally.used)?;
        let parts = sum("parts", tally.royalty, tally.validators)?;
        // Claim by claim the parts are at most what is paid.
        let host = tally.used.charge.checked_sub(parts).ok_or(EscrowError::Overflow { what: "parts" })?;
        self.add_to_balance(lease.token, self.audit, tally.validators)?;
        self.credit_royalty(&lease, &group.splits, tally.royalty)?;
        self.add_to_balance(lease.token, lease.host, host)
    }

    fn claim(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        lease_id: LeaseId,
        lease: &LeaseAccount,
        claim: &Claim,
        tally: &mut Tally,
    ) -> Result<Payment, EscrowError> {
        let id = self.require_ours(call, lease_id, lease, claim)?;
        let lane = (id, claim.voucher.lane);
        let before = match self.lanes.get(&lane) {
            Some(state) if state.lease != lease_id => {
                return Err(EscrowError::WrongLease { expected: state.lease, actual: lease_id });
            }
            Some(state) => state.counts,
            None => UsageCounts::ZERO,
        };
        let (after, statement) = self.counts_of(claim, lease)?;
        if after.requests() <= before.requests() {
            return Err(EscrowError::NotNewer { claimed: before.requests(), requests: after.requests() });
        }
        let cost = lease.prices.charge(before, after)?;
        let used = after.since(before).map_err(crate::money::MoneyError::from)?;

        self.spend_as_signer(call, surroundings, id, claim, cost)?;
        let state = self.state(&claim.channel, id);
        let available = state.unspent();
        if cost > available {
            return Err(EscrowError::InsufficientDeposit { available, needed: cost });
        }
        state.spent = sum("claims", state.spent, cost)?;
        let state = LaneState { lease: lease_id, counts: after };
        self.lanes.insert(lane, state);

        let parts = lease.shares.split(cost, used)?;
        tally.royalty = sum("royalties", tally.royalty, parts.royalty)?;
        tally.validators = sum("validators' shares", tally.validators, parts.validators)?;
        tally.used = totals(tally.used, UsageTotals::new(used, cost))?;
        let (royalty, validators) = (parts.royalty, parts.validators);
        Ok(Payment { channel: id, lane: state, cost, royalty, validators, statement })
    }

    /// A voucher counts on its own channel, lease and token, and until it expires.
    fn require_ours(
        &self,
        call: Call,
        lease_id: LeaseId,
        lease: &LeaseAccount,
        claim: &Claim,
    ) -> Result<ChannelId, EscrowError> {
        let Claim { channel, voucher, .. } = claim;
        let id = self.id(channel);
        if voucher.channel != id {
            return Err(EscrowError::WrongChannel { expected: id, actual: Some(voucher.channel) });
        }
        if voucher.lease != lease_id {
            return Err(EscrowError::WrongLease { expected: lease_id, actual: voucher.lease });
        }
        require_host(channel.host, lease.host)?;
        if channel.token != lease.token {
            return Err(EscrowError::WrongToken { expected: lease.token, actual: channel.token });
        }
        if call.now > voucher.expires_at {
            return Err(EscrowError::VoucherExpired { expired_at: voucher.expires_at });
        }
        Ok(id)
    }

    /// The lane's counts after the claim: the voucher's, and the request in flight if its statement is there.
    fn counts_of(
        &self,
        claim: &Claim,
        lease: &LeaseAccount,
    ) -> Result<(UsageCounts, Option<StatementDigest>), EscrowError> {
        let voucher = &claim.voucher;
        let Some(InFlight { statement, signature }) = &claim.in_flight else { return Ok((voucher.counts, None)) };
        if statement.channel != Some(voucher.channel) {
            return Err(EscrowError::WrongChannel { expected: voucher.channel, actual: statement.channel });
        }
        if statement.lease != voucher.lease {
            return Err(EscrowError::WrongLease { expected: voucher.lease, actual: statement.lease });
        }
        if statement.lane != voucher.lane {
            return Err(EscrowError::WrongLane { expected: voucher.lane, actual: statement.lane });
        }
        if statement.previous != voucher.statements_head {
            let (expected, actual) = (voucher.statements_head, statement.previous);
            return Err(EscrowError::StatementOutOfOrder { expected, actual });
        }
        if statement.step.before() != voucher.counts {
            return Err(EscrowError::StatementCounts);
        }
        let digest = statement.digest(&self.statements);
        Signature::from_slice(signature)?.verify(digest.into(), lease.lease_key)?;
        let after = statement.step.after();
        let charge = lease.prices.charge(voucher.counts, after)?;
        if statement.charge != charge {
            return Err(EscrowError::StatementCharge { expected: charge, actual: statement.charge });
        }
        if charge > voucher.ceiling {
            return Err(EscrowError::CeilingExceeded { ceiling: voucher.ceiling, cost: charge });
        }
        Ok((after, Some(digest)))
    }

    /// Counts use as paid for: a lease is never paid for more than it reported.
    pub(super) fn settle(
        &mut self,
        surroundings: &impl Surroundings,
        lease: LeaseId,
        used: &UsageTotals,
    ) -> Result<(), EscrowError> {
        let settled = totals(self.settled(lease), *used)?;
        let reported = surroundings.reported(lease);
        if !reported.covers(&settled) {
            return Err(EscrowError::MoreThanReported { reported, settled });
        }
        self.settled.insert(lease, settled);
        Ok(())
    }
}

pub(super) fn require_splits(lease: &LeaseAccount, splits: &Splits) -> Result<(), EscrowError> {
    let (expected, actual) = (lease.splits, splits.root());
    if actual == expected { Ok(()) } else { Err(EscrowError::WrongSplits { expected, actual }) }
}

fn totals(a: UsageTotals, b: UsageTotals) -> Result<UsageTotals, EscrowError> {
    a.checked_add(b).map_err(|_| EscrowError::Overflow { what: "use" })
}
