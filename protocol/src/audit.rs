//! What the audit does to hosts that cheat, as a pure state machine: `EvidenceCourt.sol`, `AuditServiceManager.sol` and
//! `ValidatorSet.sol`, and what they touch in `LeaseManager.sol`. It is what the contracts are compared with, call by call,
//! and what says beforehand how a call will end, who will be paid, and how much will be slashed.
//!
//! Three ways lead to a punishment:
//!
//! - **Proof.** A statement convicts its host by itself: it is in none of its epoch's reports or dated in the future, where none
//!   has to hold it (omission), it contradicts another one (equivocation), or its charge is not what its prices give (misprice).
//!   Nobody votes.
//! - **Silence.** Who holds a statement and not the host's tree asks where it is ([`Audit::challenge_inclusion`]). The host
//!   shows it in a report that was there before the question, or is punished when its time is over.
//! - **Verdict.** What must be measured, validators decide: a quorum of their stake signs. A verdict is carried out when
//!   nobody has contradicted it in time; a quorum that says both has said nothing.
//!
//! Each offence is punished once. The bond pays those who were harmed, then the reporter, then the creator ([`BondShares`]);
//! the allocation that is slashed goes to nobody. Nothing is taken that is not there.
//!
//! Callers, coins that come with a call, the time and what other contracts say are arguments. Checks come in the contracts'
//! order, so the same call is refused for the same reason, and a call that is refused changes nothing. What is left out:
//! opening, renewing and revoking leases, the registry's rules on when an ownership may be challenged, rewards, and events.

use std::collections::{BTreeMap, BTreeSet};

use alloy_primitives::{Address, B256};

pub use self::{
    bonds::{BondShares, Compensation},
    coins::CoinBonds,
    court::InclusionChallenge,
    error::AuditError,
    evidence::{Fault, Request, StatementEvidence},
    leases::{AuditedLease, LeaseState},
    offences::{Offence, Penalty, Punishment},
    proofs::Absence,
    tasks::{Accusation, Bill, Closure, Decision, Subject, Task, TaskState},
    validators::{Conflict, NonSigner, QUORUM, QuorumSignature, Validator},
};
use crate::{
    bls::PublicKey,
    counts::UsageTotals,
    escrow::LaneState,
    ids::{ChannelId, Epoch, Lane, LeaseId, ModelId, StatementDigest, TaskId},
    messages::{AuditServiceManager, Domain, LeaseManager, PaymentEscrow},
    units::{Amount, Seconds, StakeWeight, UnixSeconds},
};

mod bonds;
mod coins;
mod court;
mod error;
mod evidence;
mod leases;
mod offences;
mod proofs;
mod tasks;
mod validators;

/// Delays and bonds of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRules {
    /// Length of an epoch of usage.
    pub epoch: Seconds,
    /// After an epoch, in which its host may report it unasked.
    pub commit_grace: Seconds,
    /// For a host to show a statement.
    pub answer_window: Seconds,
    /// For validators to agree on a verdict.
    pub verdict_window: Seconds,
    /// For a verdict to be contradicted.
    pub resolve_window: Seconds,
    /// After a lease's end, in which its vouchers can be claimed and its host accused.
    pub claim_delay: Seconds,
    /// After a lease's end, in which its bond is held.
    pub unbonding_delay: Seconds,
    /// What an accusation costs, in the chain's coin.
    pub task_bond: Amount,
    /// What a question for a statement costs, in the chain's coin.
    pub challenge_bond: Amount,
    /// Least weight of an active validator.
    pub min_weight: StakeWeight,
}

/// Under which domains things are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditDomains {
    /// Statements.
    pub statements: Domain<LeaseManager>,
    /// Channels.
    pub channels: Domain<PaymentEscrow>,
    /// Verdicts, and proofs that a validator's key is held.
    pub verdicts: Domain<AuditServiceManager>,
}

/// The audit's operator sets in EigenLayer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OperatorSet {
    /// Who signs verdicts.
    Validators,
    /// Who serves.
    Hosts,
}

/// What other contracts answer the audit.
pub trait Surroundings {
    /// `UsageLog`: everything that a lease reported, in order.
    fn reports(&self, lease: LeaseId) -> &[UsageReport];

    /// `PaymentEscrow.lane`; `None` before its first claim.
    fn lane(&self, channel: ChannelId, lane: Lane) -> Option<LaneState>;

    /// `PaymentEscrow.settled`: use of a lease that was claimed or settled.
    fn settled(&self, lease: LeaseId) -> UsageTotals;

    /// `PaymentEscrow.royaltyDebt`: royalty that a lease's bond could not pay.
    fn royalty_debt(&self, lease: LeaseId) -> Amount;

    /// EigenLayer: what of an operator's stake a set could slash now.
    fn stake(&self, operator: Address, set: OperatorSet) -> StakeWeight;

    /// EigenLayer: whether an operator is a member of a set.
    fn is_member(&self, operator: Address, set: OperatorSet) -> bool;

    /// EigenLayer: whether an operator is a member of a set, or left it so lately that it can be slashed.
    fn is_slashable(&self, operator: Address, set: OperatorSet) -> bool;
}

/// One report of a lease, as `UsageLog` keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageReport {
    /// Root of the [tree](crate::merkle_sum) over its statements; none when there were none.
    pub root: Option<B256>,
    /// Of which epoch.
    pub epoch: Epoch,
    /// When it was made.
    pub committed_at: UnixSeconds,
    /// Everything that the lease had reported then, this report included.
    pub cumulative: UsageTotals,
}

/// The audit, its court, and the collateral that they seize.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    domains: AuditDomains,
    rules: AuditRules,
    leases: BTreeMap<LeaseId, AuditedLease>,
    creators: BTreeMap<ModelId, Address>,
    open_cases: BTreeMap<LeaseId, u64>,
    allocations: BTreeMap<(Address, OperatorSet), u64>,
    challenges: BTreeMap<StatementDigest, InclusionChallenge>,
    punished: BTreeSet<Fault>,
    court_coins: CoinBonds,
    tasks: Vec<Task>,
    audit_coins: CoinBonds,
    active: Vec<Validator>,
    keys: BTreeMap<Address, PublicKey>,
    conflicts: BTreeSet<(Address, TaskId)>,
}

impl Audit {
    /// An audit of nobody yet. What leases, creators and allocations there are, it must be told.
    pub const fn new(domains: AuditDomains, rules: AuditRules) -> Self {
        Self {
            domains,
            rules,
            leases: BTreeMap::new(),
            creators: BTreeMap::new(),
            open_cases: BTreeMap::new(),
            allocations: BTreeMap::new(),
            challenges: BTreeMap::new(),
            punished: BTreeSet::new(),
            court_coins: CoinBonds::new(),
            tasks: Vec::new(),
            audit_coins: CoinBonds::new(),
            active: Vec::new(),
            keys: BTreeMap::new(),
            conflicts: BTreeSet::new(),
        }
    }

    /// The delays and bonds.
    pub const fn rules(&self) -> &AuditRules {
        &self.rules
    }

    /// Questions and accusations that are open against a lease. Its bond stays until there are none.
    pub fn open_cases(&self, lease: LeaseId) -> u64 {
        self.open_cases.get(&lease).copied().unwrap_or_default()
    }

    /// Coins that the court holds for those who asked and those who answered.
    pub const fn court_coins(&self) -> &CoinBonds {
        &self.court_coins
    }

    /// Coins that the audit holds for those who accused and those who were accused.
    pub const fn audit_coins(&self) -> &CoinBonds {
        &self.audit_coins
    }

    /// Sends an account the bonds of questions that are its own; anybody may call.
    pub fn withdraw_from_court(&mut self, account: Address) -> Result<Amount, AuditError> {
        self.court_coins.withdraw(account)
    }

    /// Sends an account the bonds of accusations that are its own; anybody may call.
    pub fn withdraw_from_audit(&mut self, account: Address) -> Result<Amount, AuditError> {
        self.audit_coins.withdraw(account)
    }

    /// What of an operator's stake is allocated to a set, of 10^18: what EigenLayer slashes a share of.
    pub fn allocation(&self, operator: Address, set: OperatorSet) -> u64 {
        self.allocations.get(&(operator, set)).copied().unwrap_or_default()
    }

    /// Tells the audit what an operator allocated to a set, of 10^18.
    pub fn set_allocation(&mut self, operator: Address, set: OperatorSet, magnitude: u64) {
        self.allocations.insert((operator, set), magnitude);
    }

    /// Tells the audit who owns a model, and is its creator from now on.
    pub fn set_creator(&mut self, model: ModelId, creator: Address) {
        self.creators.insert(model, creator);
    }

    /// Who owns a model.
    pub fn creator(&self, model: ModelId) -> Option<Address> {
        self.creators.get(&model).copied()
    }

    fn case_opened(&mut self, lease: LeaseId) {
        let cases = self.open_cases.entry(lease).or_default();
        *cases = cases.saturating_add(1);
    }

    fn case_closed(&mut self, lease: LeaseId) {
        let cases = self.open_cases.entry(lease).or_default();
        // Every case is closed once, after it was opened.
        *cases = cases.saturating_sub(1);
    }
}

/// The time after a delay; at the end of time where it would be later.
const fn after(time: UnixSeconds, delay: Seconds) -> UnixSeconds {
    UnixSeconds::new(time.get().saturating_add(delay.get()))
}
