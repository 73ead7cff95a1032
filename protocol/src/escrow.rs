//! What `PaymentEscrow.sol` does, as a pure state machine: channels and their deposits, lanes, session grants, timed
//! withdrawals, claims and balances. It is what the contract is compared with, call by call, and what says beforehand
//! how a call will end.
//!
//! Callers, the time and what other contracts say are arguments. Checks come in the contract's order, so the same call is
//! refused for the same reason. A call that is refused changes nothing.
//!
//! What is left out: the ways by which tokens come in (every one books the same deposit) and events. Amounts have 128
//! bits, so a token of more units than that has no model.

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256};

pub use self::{
    claims::{Claim, InFlight, LeaseClaims, Payment},
    error::EscrowError,
    grants::Grant,
    royalty::{Enforced, Report},
};
use crate::{
    counts::{UsageCounts, UsageTotals},
    ids::{ChannelId, Lane, LeaseId, SplitRoot},
    messages::{Channel, Domain, LeaseManager, Message as _, PaymentEscrow},
    money::{Prices, Shares},
    splits::Splits,
    units::{Amount, Seconds, UnixSeconds},
};

mod claims;
mod error;
mod grants;
mod royalty;

/// Who calls, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller.
    pub caller: Address,
    /// The block's time.
    pub now: UnixSeconds,
}

/// What other contracts answer the escrow.
pub trait Surroundings {
    /// `LeaseManager.account`; `None` for a lease that was never opened.
    fn lease(&self, lease: LeaseId) -> Option<LeaseAccount>;

    /// `UsageLog.reported`: everything that a lease ever reported.
    fn reported(&self, lease: LeaseId) -> UsageTotals;

    /// Whether a wallet contract accepts the signature (ERC-1271); `None` where the account has a key of its own.
    fn wallet_accepts(&self, account: Address, digest: B256, signature: &[u8]) -> Option<bool>;
}

/// All that paying under a lease depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseAccount {
    /// Who serves and is paid.
    pub host: Address,
    /// Whose key signs statements.
    pub lease_key: Address,
    /// Owner of the model.
    pub creator: Address,
    /// What is paid in.
    pub token: Address,
    /// Until when vouchers can be claimed.
    pub claimable_until: UnixSeconds,
    /// How long reported usage may stay unpaid.
    pub dispute_window: Seconds,
    /// Who is paid how much.
    pub shares: Shares,
    /// Who shares the royalty.
    pub splits: Option<SplitRoot>,
    /// What is charged.
    pub prices: Prices,
}

/// Money of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelState {
    /// In what.
    pub token: Address,
    /// Everything that ever came in, less what was taken out again.
    pub deposited: Amount,
    /// Everything that was claimed.
    pub spent: Amount,
    /// What is announced to be taken out.
    pub withdrawal: Option<Withdrawal>,
}

impl ChannelState {
    /// What is there and not claimed.
    pub const fn unspent(&self) -> Amount {
        // Claims take no more than is there, and withdrawals no more than is left.
        self.deposited.saturating_sub(self.spent)
    }
}

/// A withdrawal that is announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// How much.
    pub amount: Amount,
    /// From when.
    pub withdrawable_at: UnixSeconds,
}

/// A lane with a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneState {
    /// The lease of its first claim, to which it belongs.
    pub lease: LeaseId,
    /// What is claimed.
    pub counts: UsageCounts,
}

/// The escrow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Escrow {
    domain: Domain<PaymentEscrow>,
    statements: Domain<LeaseManager>,
    audit: Address,
    claim_interval: Seconds,
    channels: BTreeMap<ChannelId, ChannelState>,
    lanes: BTreeMap<(ChannelId, Lane), LaneState>,
    grants: BTreeMap<(ChannelId, Address), Grant>,
    settled: BTreeMap<LeaseId, UsageTotals>,
    royalty_debt: BTreeMap<LeaseId, Amount>,
    balances: BTreeMap<(Address, Address), Amount>,
    held: BTreeMap<Address, Amount>,
}

impl Escrow {
    /// The longest delay of withdrawals: 30 days.
    pub const MAX_WITHDRAW_DELAY: Seconds = Seconds::new(30 * 24 * 60 * 60);

    /// An escrow without deposits. `statements` is the domain of the lease manager, under which hosts sign; `audit` receives
    /// the validators' shares; hosts are expected to claim within `claim_interval`.
    pub fn new(
        domain: Domain<PaymentEscrow>,
        statements: Domain<LeaseManager>,
        audit: Address,
        claim_interval: Seconds,
    ) -> Self {
        Self {
            domain,
            statements,
            audit,
            claim_interval,
            channels: BTreeMap::new(),
            lanes: BTreeMap::new(),
            grants: BTreeMap::new(),
            settled: BTreeMap::new(),
            royalty_debt: BTreeMap::new(),
            balances: BTreeMap::new(),
            held: BTreeMap::new(),
        }
    }

    /// Money of a channel; `None` before its first deposit or announcement.
    pub fn channel(&self, channel: ChannelId) -> Option<&ChannelState> {
        self.channels.get(&channel)
    }

    /// A lane; `None` before its first claim.
    pub fn lane(&self, channel: ChannelId, lane: Lane) -> Option<&LaneState> {
        self.lanes.get(&(channel, lane))
    }

    /// A key's grant.
    pub fn grant(&self, channel: ChannelId, key: Address) -> Option<&Grant> {
        self.grants.get(&(channel, key))
    }

    /// Use of a lease that was claimed or settled.
    pub fn settled(&self, lease: LeaseId) -> UsageTotals {
        self.settled.get(&lease).copied().unwrap_or_default()
    }

    /// Royalty that a lease's bond could not pay.
    pub fn royalty_debt(&self, lease: LeaseId) -> Amount {
        self.royalty_debt.get(&lease).copied().unwrap_or_default()
    }

    /// What an account can take out.
    pub fn balance(&self, token: Address, account: Address) -> Amount {
        self.balances.get(&(token, account)).copied().unwrap_or_default()
    }

    /// Tokens that the escrow holds: by conservation, the unspent deposits and the balances in this token.
    pub fn held(&self, token: Address) -> Amount {
        self.held.get(&token).copied().unwrap_or_default()
    }

    /// All channels.
    pub fn channels(&self) -> impl Iterator<Item = (ChannelId, &ChannelState)> {
        self.channels.iter().map(|(channel, state)| (*channel, state))
    }

    /// All lanes.
    pub fn lanes(&self) -> impl Iterator<Item = (ChannelId, Lane, &LaneState)> {
        self.lanes.iter().map(|((channel, lane), state)| (*channel, *lane, state))
    }

    /// All balances, as (token, account, amount).
    pub fn balances(&self) -> impl Iterator<Item = (Address, Address, Amount)> {
        self.balances.iter().map(|((token, account), amount)| (*token, *account, *amount))
    }

    /// Deposits into a channel. Anybody may; the deposit is the payer's.
    pub fn deposit(&mut self, channel: &Channel, amount: Amount) -> Result<ChannelId, EscrowError> {
        if channel.payer.is_zero() || channel.host.is_zero() || amount == Amount::ZERO {
            return Err(EscrowError::Zero);
        }
        let (least, longest) = (self.notice(), Self::MAX_WITHDRAW_DELAY);
        if !(least..=longest).contains(&channel.withdraw_delay) {
            return Err(EscrowError::WithdrawDelay { least, longest, actual: channel.withdraw_delay });
        }
        self.attempt(|next| {
            let id = next.id(channel);
            let state = next.state(channel, id);
            state.deposited = sum("deposits", state.deposited, amount)?;
            next.receive(channel.token, amount)?;
            Ok(id)
        })
    }

    /// Announces a withdrawal; the payer calls. A second announcement replaces the first.
    pub fn initiate_withdraw(&mut self, call: Call, channel: &Channel, amount: Amount) -> Result<(), EscrowError> {
        require_payer(call, channel)?;
        if amount == Amount::ZERO {
            return Err(EscrowError::Zero);
        }
        let withdrawable_at =
            call.now.checked_add(channel.withdraw_delay).ok_or(EscrowError::Overflow { what: "times" })?;
        let id = self.id(channel);
        self.state(channel, id).withdrawal = Some(Withdrawal { amount, withdrawable_at });
        Ok(())
    }

    /// Takes an announcement back; the payer calls.
    pub fn cancel_withdraw(&mut self, call: Call, channel: &Channel) -> Result<(), EscrowError> {
        require_payer(call, channel)?;
        let state = self.channels.get_mut(&channel.digest(&self.domain));
        let announced = state.and_then(|state| state.withdrawal.take());
        announced.map(drop).ok_or(EscrowError::NothingAnnounced)
    }

    /// Takes out what was announced, or what is left of it, once the delay is over; the payer calls and is paid.
    pub fn withdraw(&mut self, call: Call, channel: &Channel) -> Result<Amount, EscrowError> {
        require_payer(call, channel)?;
        self.attempt(|next| {
            let id = next.id(channel);
            let state = next.state(channel, id);
            let Withdrawal { amount, withdrawable_at } = state.withdrawal.ok_or(EscrowError::NothingAnnounced)?;
            if call.now < withdrawable_at {
                return Err(EscrowError::WithdrawalTooEarly { withdrawable_at });
            }
            let amount = amount.min(state.unspent());
            state.deposited = state.deposited.saturating_sub(amount);
            state.withdrawal = None;
            next.send(channel.token, amount)?;
            Ok(amount)
        })
    }

    /// Gives unspent deposit back to the payer without delay; the host calls. What was announced is served by it first.
    pub fn release(&mut self, call: Call, channel: &Channel, amount: Amount) -> Result<(), EscrowError> {
        require_host(channel.host, call.caller)?;
        self.attempt(|next| {
            let id = next.id(channel);
            let state = next.state(channel, id);
            let available = state.unspent();
            if amount > available {
                return Err(EscrowError::InsufficientDeposit { available, needed: amount });
            }
            state.deposited = state.deposited.saturating_sub(amount);
            if let Some(withdrawal) = &mut state.withdrawal {
                withdrawal.amount = withdrawal.amount.saturating_sub(amount);
            }
            next.send(channel.token, amount)
        })
    }

    /// Adds the caller's tokens to an account's balance. Nothing is nobody's error.
    pub fn credit(&mut self, token: Address, account: Address, amount: Amount) -> Result<(), EscrowError> {
        if amount == Amount::ZERO {
            return Ok(());
        }
        if account.is_zero() {
            return Err(EscrowError::Zero);
        }
        self.attempt(|next| {
            next.add_to_balance(token, account, amount)?;
            next.receive(token, amount)
        })
    }

    /// Sends an account its balance. Anybody may call.
    pub fn pay_out(&mut self, token: Address, account: Address) -> Result<Amount, EscrowError> {
        self.attempt(|next| {
            let amount = next.balances.remove(&(token, account)).ok_or(EscrowError::NothingToPay { token, account })?;
            next.send(token, amount)?;
            Ok(amount)
        })
    }

    /// Two claim intervals: the least delay of withdrawals, and the time that a revoked grant still counts.
    fn notice(&self) -> Seconds {
        Seconds::new(self.claim_interval.get().saturating_mul(2))
    }

    fn id(&self, channel: &Channel) -> ChannelId {
        channel.digest(&self.domain)
    }

    fn state(&mut self, channel: &Channel, id: ChannelId) -> &mut ChannelState {
        self.channels.entry(id).or_insert(ChannelState {
            token: channel.token,
            deposited: Amount::ZERO,
            spent: Amount::ZERO,
            withdrawal: None,
        })
    }

    /// Does all of it or nothing, as a transaction does.
    fn attempt<T>(&mut self, change: impl FnOnce(&mut Self) -> Result<T, EscrowError>) -> Result<T, EscrowError> {
        let mut next = self.clone();
        let value = change(&mut next)?;
        *self = next;
        Ok(value)
    }

    fn add_to_balance(&mut self, token: Address, account: Address, amount: Amount) -> Result<(), EscrowError> {
        if amount != Amount::ZERO {
            let balance = self.balances.entry((token, account)).or_default();
            *balance = sum("balances", *balance, amount)?;
        }
        Ok(())
    }

    /// Shares round down; the creator takes what is left of the royalty.
    fn credit_royalty(&mut self, lease: &LeaseAccount, splits: &Splits, royalty: Amount) -> Result<(), EscrowError> {
        let (parts, left) = splits.divide_down(royalty);
        for (recipient, part) in parts {
            self.add_to_balance(lease.token, recipient, part)?;
        }
        self.add_to_balance(lease.token, lease.creator, left)
    }

    fn receive(&mut self, token: Address, amount: Amount) -> Result<(), EscrowError> {
        let held = self.held.entry(token).or_default();
        *held = sum("tokens", *held, amount)?;
        Ok(())
    }

    fn send(&mut self, token: Address, amount: Amount) -> Result<(), EscrowError> {
        let held = self.held.entry(token).or_default();
        // By conservation there is always enough.
        *held = held.checked_sub(amount).ok_or(EscrowError::Overflow { what: "tokens" })?;
        Ok(())
    }
}

fn sum(what: &'static str, a: Amount, b: Amount) -> Result<Amount, EscrowError> {
    a.checked_add(b).ok_or(EscrowError::Overflow { what })
}

fn require_payer(call: Call, channel: &Channel) -> Result<(), EscrowError> {
    let (expected, actual) = (channel.payer, call.caller);
    if actual == expected { Ok(()) } else { Err(EscrowError::NotPayer { expected, actual }) }
}

fn require_host(expected: Address, actual: Address) -> Result<(), EscrowError> {
    if actual == expected { Ok(()) } else { Err(EscrowError::NotHost { expected, actual }) }
}
