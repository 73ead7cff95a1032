//! Who is there: hosts with leases and restaked stake, validators with keys, payers with deposits; and what the models are told.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    primitives::{Address, B256, U256},
    sol_types::{SolCall as _, SolValue as _},
};
use licensing_contracts::{
    actions::operators::AuditSet,
    client::Action,
    eigenlayer::interfaces::{AllocationManager, DelegationManager},
};
use protocol::{
    audit::{Audit, AuditDomains, AuditRules, OperatorSet, Request, StatementEvidence, Surroundings, UsageReport},
    bls::SecretKey,
    counts::{UsageCounts, UsageTotals},
    escrow::{self, Escrow, LaneState, LeaseAccount},
    ids::{ChainId, ChannelId, EpochCommitDigest, Lane, LeaseId, ModelId, StatementDigest},
    merkle_sum::MerkleSumTree,
    messages::{Channel, Domain, Message as _, Statement, UsageLog},
    splits::Splits,
    units::{Amount, Seconds, StakeWeight},
};

use super::step::Act;
use crate::differential::{RealChain, address};

mod founding;

pub(super) const EPOCH: u64 = 600;
const CLAIM_INTERVAL: u64 = 600;
pub(super) const HOSTS: [&str; 2] = ["host", "other host"];
pub(super) const PAYERS: [&str; 2] = ["payer", "other payer"];
pub(super) const CREATORS: [&str; 2] = ["creator", "other creator"];
pub(super) const STRANGER: &str = "stranger";
pub(super) const REPORTER: &str = "reporter";
/// With their stake. The last two are no validators at first, and the last one has too little to be one.
pub(super) const VALIDATORS: [(&str, u64); 6] = [
    ("first", 100_000),
    ("second", 200_000),
    ("third", 300_000),
    ("fourth", 400_000),
    ("fifth", 250_000),
    ("sixth", 80_000),
];
pub(super) const LEASES: u64 = 3;
/// All of magnitude.
pub(super) const WHOLE: u64 = 1_000_000_000_000_000_000;

/// One of a payer's lanes under a lease, as an honest host keeps it.
#[derive(Clone, Debug, Default)]
pub(super) struct LaneBook {
    pub(super) counts: UsageCounts,
    pub(super) head: Option<StatementDigest>,
    pub(super) last: Option<Statement>,
}

/// What people know that is not on the chain.
#[derive(Clone, Debug, Default)]
pub(super) struct Book {
    pub(super) lanes: BTreeMap<(LeaseId, &'static str, Lane), LaneBook>,
    /// Every statement that a host signed.
    pub(super) statements: Vec<Statement>,
    /// Those that are in no report yet.
    pub(super) unreported: Vec<Statement>,
    /// The trees of a lease's reports.
    pub(super) trees: BTreeMap<LeaseId, Vec<MerkleSumTree>>,
    pub(super) last_reports: BTreeMap<LeaseId, EpochCommitDigest>,
    /// What was ever held against a host: a call that is refused must leave these as they were, too.
    pub(super) held_against: BTreeMap<StatementDigest, Request>,
    /// What the last call held against one.
    pub(super) lately: BTreeMap<StatementDigest, Request>,
}

impl Book {
    pub(super) fn note(&mut self, act: &Act, domains: &AuditDomains) {
        let shown = match act {
            Act::Ask { evidence, .. }
            | Act::Omission { evidence, .. }
            | Act::Misprice { evidence }
            | Act::Postdating { evidence } => vec![evidence],
            Act::Equivocation { first, second } => vec![first, second],
            _ => Vec::new(),
        };
        self.lately.clear();
        for StatementEvidence { statement, .. } in shown {
            let request = Request {
                lease: LeaseId::new(statement.leaseId),
                channel: statement.channelId.into(),
                lane: Lane::new(statement.lane),
                sequence: statement.seq.to(),
            };
            self.lately.insert(statement.digest(&domains.statements), request);
        }
        self.held_against.extend(&self.lately);
        if let Act::Answer { statement, .. } | Act::ResolveInclusion { statement } = act {
            let known = self.held_against.get(statement).map(|request| (*statement, *request));
            self.lately.extend(known);
        }
    }
}

/// What other contracts say.
#[derive(Clone, Debug, Default)]
pub(super) struct Others {
    pub(super) reports: BTreeMap<LeaseId, Vec<UsageReport>>,
    pub(super) stakes: BTreeMap<(Address, OperatorSet), StakeWeight>,
    pub(super) members: BTreeSet<(Address, OperatorSet)>,
    pub(super) slashable: BTreeSet<(Address, OperatorSet)>,
    pub(super) lanes: BTreeMap<(ChannelId, Lane), LaneState>,
    pub(super) settled: BTreeMap<LeaseId, UsageTotals>,
}

impl Others {
    /// Everything that a lease reported.
    pub(super) fn reported(&self, lease: LeaseId) -> UsageTotals {
        self.reports(lease).last().map_or(UsageTotals::ZERO, |last| last.cumulative)
    }
}

impl Surroundings for Others {
    fn reports(&self, lease: LeaseId) -> &[UsageReport] {
        self.reports.get(&lease).map_or(&[], Vec::as_slice)
    }

    fn lane(&self, channel: ChannelId, lane: Lane) -> Option<LaneState> {
        self.lanes.get(&(channel, lane)).copied()
    }

    fn settled(&self, lease: LeaseId) -> UsageTotals {
        self.settled.get(&lease).copied().unwrap_or_default()
    }

    fn royalty_debt(&self, _: LeaseId) -> Amount {
        // Nobody enforces royalty here.
        Amount::ZERO
    }

    fn stake(&self, operator: Address, set: OperatorSet) -> StakeWeight {
        self.stakes.get(&(operator, set)).copied().unwrap_or_default()
    }

    fn is_member(&self, operator: Address, set: OperatorSet) -> bool {
        self.members.contains(&(operator, set))
    }

    fn is_slashable(&self, operator: Address, set: OperatorSet) -> bool {
        self.slashable.contains(&(operator, set))
    }
}

/// The models, and what they are told: what a run begins with anew.
#[derive(Clone, Debug)]
pub(super) struct Models {
    pub(super) audit: Audit,
    pub(super) escrow: Escrow,
    pub(super) others: Others,
    pub(super) book: Book,
}

/// The chain beside them.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chain: RealChain,
    pub(super) models: Models,
    pub(super) domains: AuditDomains,
    pub(super) log: Domain<UsageLog>,
    pub(super) token: Address,
    pub(super) model_ids: [ModelId; 2],
}

pub(super) fn secret(operator: &str) -> SecretKey {
    SecretKey::from_entropy(alloy::primitives::keccak256(operator).as_slice()).unwrap()
}

/// A lease's model and host.
pub(super) const fn plan(lease: LeaseId) -> (usize, &'static str) {
    match lease.get() {
        1 => (0, HOSTS[0]),
        2 => (1, HOSTS[0]),
        _ => (1, HOSTS[1]),
    }
}

pub(super) fn lease_key_of(host: &str) -> String {
    format!("{host}'s lease key")
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With a model that is told other rules than the contracts have.
    pub(super) async fn with(change: fn(&mut AuditRules)) -> Self {
        let setup = founding::setup();
        let mut rules = founding::rules(&setup);
        change(&mut rules);
        let chain = RealChain::start(&setup).await;
        let to = chain.to().clone();
        let id = ChainId::new(to.chain_id);
        let domains = AuditDomains {
            statements: Domain::new(id, to.lease_manager),
            channels: Domain::new(id, to.payment_escrow),
            verdicts: Domain::new(id, to.audit_service_manager),
        };
        let interval = Seconds::new(CLAIM_INTERVAL);
        let models = Models {
            audit: Audit::new(domains, rules),
            escrow: Escrow::new(domains.channels, domains.statements, to.audit_service_manager, interval),
            others: Others::default(),
            book: Book::default(),
        };
        let mut world = Self {
            chain,
            models,
            domains,
            log: Domain::new(id, to.usage_log),
            token: to.test_token.unwrap(),
            model_ids: [ModelId::from_bytes([0; 32]); 2],
        };
        world.fund();
        world.restake();
        world.register_models();
        for lease in (1..=LEASES).map(LeaseId::new) {
            world.open(lease);
        }
        world.deposit();
        world.chain.remember();
        world
    }

    pub(super) fn channel(&self, payer: &str, host: &str) -> Channel {
        Channel {
            payer: address(payer),
            host: address(host),
            token: self.token,
            withdraw_delay: Seconds::new(2 * CLAIM_INTERVAL),
            salt: B256::ZERO,
        }
    }

    /// Sends an action that must succeed.
    pub(super) fn act(&mut self, by: &str, action: Action) {
        let Action { to, data, value, what } = action;
        let done = self.chain.submit(by, to.unwrap(), value, data.to_vec());
        done.unwrap_or_else(|refused| panic!("{what}: {refused}"));
    }

    /// What EigenLayer says of everybody's stake in the block that comes next.
    pub(super) fn ask_eigenlayer(&mut self) {
        let manager = self.chain.to().eigenlayer.allocation_manager;
        let strategies = self.chain.to().eigenlayer.strategies.clone();
        let sets = [(OperatorSet::Hosts, AuditSet::Hosts), (OperatorSet::Validators, AuditSet::Validators)];
        let names = HOSTS.into_iter().chain(VALIDATORS.map(|(name, _)| name));
        let operators: Vec<Address> = names.map(address).collect();
        let next_block = self.chain.height() + 1;
        let mut questions = Vec::new();
        for (_, on_chain) in sets {
            let operator_set = on_chain.of(self.chain.to());
            let stakes = AllocationManager::getMinimumSlashableStakeCall {
                operatorSet: operator_set.clone(),
                operators: operators.clone(),
                strategies: strategies.clone(),
                futureBlock: next_block as u32,
            };
            questions.push((manager, stakes.abi_encode()));
            for operator in operators.iter().copied() {
                let operator_set = operator_set.clone();
                let member =
                    AllocationManager::isMemberOfOperatorSetCall { operator, operatorSet: operator_set.clone() };
                let slashable = AllocationManager::isOperatorSlashableCall { operator, operatorSet: operator_set };
                questions.extend([(manager, member.abi_encode()), (manager, slashable.abi_encode())]);
            }
        }
        let mut answers = self.chain.read_all_next(&questions).into_iter();
        let mut next = || answers.next().unwrap();
        let others = &mut self.models.others;
        others.members.clear();
        others.slashable.clear();
        for (set, _) in sets {
            let stakes = AllocationManager::getMinimumSlashableStakeCall::abi_decode_returns(&next()).unwrap();
            for (operator, stakes) in operators.iter().zip(stakes) {
                let place = (*operator, set);
                others.stakes.insert(place, StakeWeight::new(stakes.into_iter().sum::<U256>().to()));
                if bool::abi_decode(&next()).unwrap() {
                    others.members.insert(place);
                }
                if bool::abi_decode(&next()).unwrap() {
                    others.slashable.insert(place);
                }
            }
        }
    }

    /// EigenLayer counts no stake of those that are no members. Whoever joins finds what it will be, by EigenLayer's formula.
    pub(super) fn foresee_stake(&mut self, operator: Address) {
        let to = self.chain.to();
        let (manager, strategy) = (to.eigenlayer.allocation_manager, to.eigenlayer.strategies[0]);
        let allocation =
            AllocationManager::getAllocationCall { operator, operatorSet: AuditSet::Validators.of(to), strategy };
        let allocated = self.chain.read(manager, &allocation).currentMagnitude;
        let most = self.chain.read(manager, &AllocationManager::getMaxMagnitudeCall { operator, strategy });
        let shares = DelegationManager::getOperatorSharesCall { operator, strategies: vec![strategy] };
        let shares = self.chain.read(to.eigenlayer.delegation_manager, &shares)[0];
        let wad = U256::from(WHOLE);
        let share = if most == 0 { U256::ZERO } else { U256::from(allocated) * wad / U256::from(most) };
        let stake = StakeWeight::new((shares * share / wad).to());
        self.models.others.stakes.insert((operator, OperatorSet::Validators), stake);
    }

    /// What the escrow is told of leases.
    pub(super) fn lease_account(&self, lease: LeaseId) -> Option<LeaseAccount> {
        let audit = &self.models.audit;
        let record = audit.lease(lease)?;
        Some(LeaseAccount {
            host: record.host,
            lease_key: record.lease_key,
            creator: audit.creator(record.model)?,
            token: self.token,
            claimable_until: audit.claimable_until(lease).ok()?,
            dispute_window: Seconds::new(86_400),
            shares: record.shares,
            splits: Splits::default().root(),
            prices: record.prices,
        })
    }
}

/// What the escrow asks, answered before it is called.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) lease: Option<LeaseAccount>,
    pub(super) reported: UsageTotals,
}

impl escrow::Surroundings for Told {
    fn lease(&self, _: LeaseId) -> Option<LeaseAccount> {
        self.lease.clone()
    }

    fn reported(&self, _: LeaseId) -> UsageTotals {
        self.reported
    }

    fn wallet_accepts(&self, _: Address, _: B256, _: &[u8]) -> Option<bool> {
        None
    }
}
