//! Who is there: tokens, models, terms and leases on the chain, and the same as the model of the escrow is told it.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256, U256};
use licensing_contracts::{
    actions::{
        leases::{self, LeaseRequest},
        operators,
    },
    bindings::{LeaseManager, ModelRegistry, TestToken, registry, same},
    client::Action,
    deploy::ProtocolSetup,
};
use protocol::{
    counts::UsageTotals,
    escrow::{Escrow, LeaseAccount, Report, Surroundings},
    ids::{ChainId, EpochCommitDigest, LeaseId, ManifestDigest, ModelId, TermsVersion},
    messages::{self, Domain, LicenseTerms, Message as _, wire},
    money::{Prices, Shares},
    signature::Signature,
    splits::{Split, Splits},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, StakeWeight, UnixSeconds},
};

use crate::differential::{RealChain, address};

pub(super) const CLAIM_INTERVAL: u64 = 3_600;
pub(super) const CLAIM_DELAY: u64 = 10_000;
pub(super) const DISPUTE_WINDOW: u64 = 20_000;
pub(super) const LEASE_LENGTH: u64 = 60_000;
pub(super) const EPOCH: u64 = 60;
const BOND: u128 = 6_000;

pub(super) const PAYERS: [&str; 3] = ["payer", "other payer", "wallet"];
pub(super) const HOSTS: [&str; 2] = ["host", "other host"];
pub(super) const STRANGER: &str = "stranger";
pub(super) const CREATORS: [&str; 2] = ["creator", "buyer"];
pub(super) const PARENT: &str = "parent";
/// The first three are what people use. Under the fourth a request costs more than anybody has.
pub(super) const LEASES: u64 = 4;
pub(super) const DEAR: LeaseId = LeaseId::new(4);

/// What other contracts say to the escrow.
#[derive(Clone, Debug, Default)]
pub(super) struct Others {
    pub(super) leases: BTreeMap<LeaseId, LeaseAccount>,
    pub(super) reports: BTreeMap<LeaseId, Vec<Report>>,
    pub(super) bonds: BTreeMap<LeaseId, Amount>,
    pub(super) suspended: BTreeMap<LeaseId, bool>,
    pub(super) last_reports: BTreeMap<LeaseId, EpochCommitDigest>,
    wallet: Address,
}

impl Surroundings for Others {
    fn lease(&self, lease: LeaseId) -> Option<LeaseAccount> {
        self.leases.get(&lease).cloned()
    }

    fn reported(&self, lease: LeaseId) -> UsageTotals {
        self.reports.get(&lease).and_then(|reports| reports.last()).map(|last| last.cumulative).unwrap_or_default()
    }

    fn wallet_accepts(&self, account: Address, digest: B256, signature: &[u8]) -> Option<bool> {
        let own = |signature: Signature| signature.recover(digest).is_ok_and(|key| key == address("wallet owner"));
        (account == self.wallet).then(|| Signature::from_slice(signature).is_ok_and(own))
    }
}

/// The chain and the model side by side.
#[derive(Debug)]
pub(super) struct World {
    pub(super) chain: RealChain,
    pub(super) others: Others,
    pub(super) escrow: Escrow,
    pub(super) domain: Domain<messages::PaymentEscrow>,
    pub(super) statements: Domain<messages::LeaseManager>,
    pub(super) tokens: [Address; 2],
    pub(super) models: [ModelId; 2],
}

fn bps(value: u16) -> BasisPoints {
    BasisPoints::new(value).unwrap()
}

fn prices(request: u128, prompt: u128, cached: u128, completion: u128) -> Prices {
    let [request, prompt, cached, completion] = [request, prompt, cached, completion].map(PricePerMillion::new);
    Prices { request, prompt, cached, completion }
}

pub(super) fn splits_of(lease: LeaseId) -> Splits {
    let split = Split { recipient: address(PARENT), share: bps(2_500) };
    if lease == LeaseId::new(1) { Splits::new(vec![split]).unwrap() } else { Splits::default() }
}

/// One lease, and the terms that are published for it.
struct Plan {
    model: usize,
    host: &'static str,
    token: usize,
    royalty: u16,
    validators: u16,
    floors: Prices,
    prices: Prices,
}

fn plans() -> [Plan; LEASES as usize] {
    let unit = prices(1_000_000, 1_000_000, 1_000_000, 1_000_000);
    let odd = prices(123_457, 333_333, 33_333, 777_777);
    let dear = prices(1 << 127, 0, 0, 0);
    let (none, floors) = (Prices::default(), prices(10_000, 66_666, 6_666, 155_555));
    let plan = |model, host, token, royalty, validators, floors, prices| Plan {
        model,
        host,
        token,
        royalty,
        validators,
        floors,
        prices,
    };
    [
        plan(0, HOSTS[0], 0, 1_000, 100, none, unit),
        plan(0, HOSTS[0], 0, 500, 300, floors, odd),
        plan(1, HOSTS[1], 1, 2_000, 0, floors, odd),
        plan(1, HOSTS[1], 1, 0, 0, none, dear),
    ]
}

impl World {
    pub(super) async fn new() -> Self {
        let setup = ProtocolSetup {
            claim_interval_s: CLAIM_INTERVAL,
            claim_delay_s: CLAIM_DELAY,
            epoch_s: EPOCH,
            ..ProtocolSetup::development()
        };
        let mut chain = RealChain::start(&setup).await;
        let to = chain.to().clone();
        let id = ChainId::new(to.chain_id);
        let (domain, statements) = (Domain::new(id, to.payment_escrow), Domain::new(id, to.lease_manager));
        let tokens = [to.test_token.unwrap(), chain.create(TestToken::BYTECODE.to_vec())];
        let wallet = chain.make_wallet("wallet", "wallet owner");
        let mut world = Self {
            others: Others { wallet, ..Others::default() },
            escrow: Escrow::new(domain, statements, to.audit_service_manager, Seconds::new(CLAIM_INTERVAL)),
            chain,
            domain,
            statements,
            tokens,
            models: [ModelId::from_bytes([0; 32]); 2],
        };
        world.fund();
        world.register_models();
        HOSTS.into_iter().for_each(|host| world.join(host));
        for (plan, number) in plans().iter().zip(1..) {
            world.open(plan, LeaseId::new(number));
        }
        world.chain.remember();
        world
    }

    /// The account that this name stands for.
    pub(super) fn account(&self, name: &str) -> Address {
        if name == "wallet" { self.others.wallet } else { address(name) }
    }

    /// Who owns a model now.
    pub(super) fn creator(&self, model: usize) -> &'static str {
        let mut leases = self.others.leases.iter().filter(|(lease, _)| model_of(**lease) == model);
        let owner = leases.next().map(|(_, account)| account.creator);
        CREATORS.into_iter().find(|name| Some(address(name)) == owner).unwrap()
    }

    /// Whether a lease still lasts when so much time has passed.
    pub(super) fn may_close(&self, lease: LeaseId, after: Seconds) -> bool {
        let end = self.others.leases[&lease].claimable_until.get() - CLAIM_DELAY;
        self.chain.now().get() + after.get() < end
    }

    /// Everybody has tokens, and lets the contracts take them.
    fn fund(&mut self) {
        let to = self.chain.to().clone();
        for name in PAYERS.into_iter().chain(HOSTS).chain([STRANGER]) {
            for token in self.tokens {
                let mint = TestToken::mintCall { to: self.account(name), amount: U256::from(u128::MAX) };
                self.chain.must(STRANGER, token, &mint);
                for spender in [to.payment_escrow, to.lease_manager] {
                    self.chain.must(name, token, &TestToken::approveCall { spender, value: U256::MAX });
                }
            }
        }
    }

    fn register_models(&mut self) {
        let registry = self.chain.to().model_registry;
        for (number, model) in (1_u8..).zip(0..2) {
            let call = ModelRegistry::registerCall {
                manifestDigest: ManifestDigest::from_bytes([number; 32]).word(),
                parents: Vec::new(),
                uri: String::new(),
            };
            let made = self.chain.must(CREATORS[0], registry, &call);
            self.models[model] = B256::from(made).into();
        }
    }

    /// Makes a host a member of the operator set; these terms ask for no stake.
    fn join(&mut self, host: &str) {
        let to = self.chain.to().clone();
        let actions = [operators::register_as_operator(&to, ""), operators::join_hosts(&to, address(host))];
        for Action { to, data, value, what } in actions {
            let done = self.chain.submit(host, to.unwrap(), value, data.to_vec());
            done.unwrap_or_else(|refused| panic!("{what}: {refused}"));
        }
    }

    fn open(&mut self, plan: &Plan, lease: LeaseId) {
        let to = self.chain.to().clone();
        let now = self.chain.now();
        let splits = splits_of(lease);
        let version = plans()[..lease.get() as usize].iter().filter(|other| other.model == plan.model).count();
        let terms = LicenseTerms {
            model: self.models[plan.model],
            version: TermsVersion::new(version as u32),
            payment_token: self.tokens[plan.token],
            royalty: bps(plan.royalty),
            floors: plan.floors,
            validators: bps(plan.validators),
            splits: splits.root(),
            min_bond: Amount::ZERO,
            min_restake: StakeWeight::ZERO,
            valid_from: now,
            valid_to: UnixSeconds::new(now.get() + 1_000_000),
            dispute_window: Seconds::new(DISPUTE_WINDOW),
            tokenizer: B256::ZERO.into(),
            template: B256::ZERO.into(),
            legal_text: B256::ZERO.into(),
        };
        let publish = ModelRegistry::publishTermsCall {
            newTerms: same(&wire::LicenseTerms::from(&terms)).unwrap(),
            splits: splits
                .iter()
                .map(|split| registry::ModelRegistry::Split { recipient: split.recipient, bps: split.share.get() })
                .collect(),
        };
        self.chain.must(CREATORS[0], to.model_registry, &publish);
        let lease_key = address(&lease_key_of(plan.host));
        let request = LeaseRequest {
            terms: terms.digest(&Domain::new(ChainId::new(to.chain_id), to.model_registry)),
            lease_key,
            variants: None,
            endpoint: String::new(),
            prices: plan.prices,
            to: UnixSeconds::new(now.get() + LEASE_LENGTH),
            bond: Amount::new(BOND),
        };
        let Action { data, .. } = leases::open(&to, &request);
        self.chain.submit(plan.host, to.lease_manager, U256::ZERO, data.to_vec()).unwrap();
        let account = LeaseAccount {
            host: address(plan.host),
            lease_key,
            creator: address(CREATORS[0]),
            token: self.tokens[plan.token],
            claimable_until: UnixSeconds::new(request.to.get() + CLAIM_DELAY),
            dispute_window: terms.dispute_window,
            shares: Shares::new(bps(plan.royalty), bps(plan.validators), plan.floors).unwrap(),
            splits: splits.root(),
            prices: plan.prices,
        };
        self.others.leases.insert(lease, account);
        self.others.bonds.insert(lease, Amount::new(BOND));
        self.others.suspended.insert(lease, false);
        assert_eq!(self.chain.read(to.lease_manager, &LeaseManager::leasesCall {}), lease.get());
    }
}

/// The number of a lease's model.
pub(super) fn model_of(lease: LeaseId) -> usize {
    plans()[lease.get() as usize - 1].model
}

/// The name of a host's key for statements.
pub(super) fn lease_key_of(host: &str) -> String {
    format!("{host}'s lease key")
}
