//! How it all begins: tokens, stake, keys, models, leases and deposits.

use alloy::primitives::{B256, U256};
use licensing_contracts::{
    actions::{
        leases::{self, LeaseRequest},
        operators::{self, AuditSet},
        payments,
    },
    bindings::{LeaseManager, ModelRegistry, TestToken, same},
    deploy::ProtocolSetup,
};
use protocol::{
    audit::{AuditRules, AuditedLease, LeaseState, OperatorSet},
    ids::{ChainId, LeaseId, ManifestDigest, TermsVersion},
    messages::{Domain, LicenseTerms, Message as _, wire},
    money::{Prices, Shares},
    units::{Amount, BasisPoints, PricePerMillion, Seconds, StakeWeight, UnixSeconds},
};

use super::{
    CLAIM_INTERVAL, CREATORS, EPOCH, HOSTS, Models, PAYERS, STRANGER, VALIDATORS, WHOLE, World, lease_key_of, plan,
    secret,
};
use crate::differential::address;

const LEASE_LENGTH: u64 = 20_000;
const MIN_BOND: u128 = 15_000;
const BOND: u128 = 20_000;
const MIN_RESTAKE: u128 = 260_000;
/// Half of it is allocated.
const HOST_STAKE: u64 = 1_000_000;

fn bps(value: u16) -> BasisPoints {
    BasisPoints::new(value).unwrap()
}

fn prices(request: u128, prompt: u128, cached: u128, completion: u128) -> Prices {
    let [request, prompt, cached, completion] = [request, prompt, cached, completion].map(PricePerMillion::new);
    Prices { request, prompt, cached, completion }
}

pub(super) fn setup() -> ProtocolSetup {
    ProtocolSetup {
        ownership_window_s: 1_000_000,
        claim_delay_s: 5_000,
        claim_interval_s: CLAIM_INTERVAL,
        epoch_s: EPOCH,
        commit_grace_s: 300,
        answer_window_s: 500,
        verdict_window_s: 600,
        resolve_window_s: 200,
        task_bond: 50,
        challenge_bond: 5,
        validator_min_weight: 90_000,
        ..ProtocolSetup::development()
    }
}

pub(super) fn rules(setup: &ProtocolSetup) -> AuditRules {
    AuditRules {
        epoch: Seconds::new(setup.epoch_s),
        commit_grace: Seconds::new(setup.commit_grace_s),
        answer_window: Seconds::new(setup.answer_window_s),
        verdict_window: Seconds::new(setup.verdict_window_s),
        resolve_window: Seconds::new(setup.resolve_window_s),
        claim_delay: Seconds::new(setup.claim_delay_s),
        // The longest dispute window is on top: seven days.
        unbonding_delay: Seconds::new(setup.claim_delay_s + 7 * 86_400),
        task_bond: Amount::new(setup.task_bond),
        challenge_bond: Amount::new(setup.challenge_bond),
        min_weight: StakeWeight::new(setup.validator_min_weight),
    }
}

impl World {
    pub(super) fn fund(&mut self) {
        let to = self.chain.to().clone();
        for name in PAYERS.into_iter().chain(HOSTS).chain(VALIDATORS.map(|(name, _)| name)) {
            let mint = TestToken::mintCall { to: address(name), amount: U256::from(1_u128 << 100) };
            self.chain.must(STRANGER, self.token, &mint);
            for spender in [to.payment_escrow, to.lease_manager, to.eigenlayer.strategy_manager] {
                self.chain.must(name, self.token, &TestToken::approveCall { spender, value: U256::MAX });
            }
        }
    }

    /// Hosts with half of their stake allocated, validators with all of it.
    pub(super) fn restake(&mut self) {
        let to = self.chain.to().clone();
        let [strategy] = to.eigenlayer.strategies[..] else { panic!("one strategy") };
        let hosts = HOSTS.map(|name| (name, HOST_STAKE, AuditSet::Hosts, bps(5_000)));
        let validators = VALIDATORS.map(|(name, stake)| (name, stake, AuditSet::Validators, bps(10_000)));
        let all: Vec<_> = hosts.into_iter().chain(validators).collect();
        for (name, stake, ..) in &all {
            self.act(name, operators::register_as_operator(&to, ""));
            self.act(name, operators::deposit_stake(&to, strategy, self.token, U256::from(*stake)));
        }
        // A new operator's allocation delay is known after as many blocks.
        self.chain.mine(3);
        for (name, _, set, share) in &all {
            self.act(name, operators::allocate(&to, address(name), *set, *share));
            let magnitude = WHOLE / 10_000 * u64::from(share.get());
            let model_set = if *set == AuditSet::Hosts { OperatorSet::Hosts } else { OperatorSet::Validators };
            self.models.audit.set_allocation(address(name), model_set, magnitude);
        }
        for host in HOSTS {
            self.act(host, operators::join_hosts(&to, address(host)));
        }
        for (name, _) in &VALIDATORS[..4] {
            let key = secret(name);
            let possession = key.prove_possession(&self.domains.verdicts, address(name));
            self.act(name, operators::join_validators(&to, address(name), &key.public_key(), &possession));
            self.ask_eigenlayer();
            let Models { audit, others, .. } = &mut self.models;
            audit.join_validators(others, address(name), key.public_key(), &possession).unwrap();
        }
    }

    pub(super) fn register_models(&mut self) {
        let registry = self.chain.to().model_registry;
        for (number, creator) in CREATORS.into_iter().enumerate() {
            let call = ModelRegistry::registerCall {
                manifestDigest: ManifestDigest::from_bytes([number as u8 + 1; 32]).word(),
                parents: Vec::new(),
                uri: String::new(),
            };
            let made = self.chain.must(creator, registry, &call);
            self.model_ids[number] = B256::from(made).into();
            self.models.audit.set_creator(self.model_ids[number], address(creator));
        }
    }

    /// Publishes terms and opens a lease under them.
    pub(super) fn open(&mut self, lease: LeaseId) {
        let to = self.chain.to().clone();
        let now = self.chain.now();
        let (model, host) = plan(lease);
        let (prices, floors) = if lease.get() == 2 {
            (prices(123_457, 333_333, 33_333, 777_777), prices(10_000, 66_666, 6_666, 155_555))
        } else {
            (prices(1_000_000, 1_000_000, 500_000, 2_000_000), Prices::default())
        };
        let (royalty, validators) = (bps(1_500), bps(200));
        let version = (1..=lease.get()).filter(|other| plan(LeaseId::new(*other)).0 == model).count();
        let terms = LicenseTerms {
            model: self.model_ids[model],
            version: TermsVersion::new(version as u32),
            payment_token: self.token,
            royalty,
            floors,
            validators,
            splits: None,
            min_bond: Amount::new(MIN_BOND),
            min_restake: StakeWeight::new(MIN_RESTAKE),
            valid_from: now,
            valid_to: UnixSeconds::new(now.get() + 1_000_000),
            dispute_window: Seconds::new(86_400),
            tokenizer: B256::ZERO.into(),
            template: B256::ZERO.into(),
            legal_text: B256::ZERO.into(),
        };
        let publish = ModelRegistry::publishTermsCall {
            newTerms: same(&wire::LicenseTerms::from(&terms)).unwrap(),
            splits: Vec::new(),
        };
        self.chain.must(CREATORS[model], to.model_registry, &publish);
        let lease_key = address(&lease_key_of(host));
        let ends_at = UnixSeconds::new(now.get() + LEASE_LENGTH);
        let request = LeaseRequest {
            terms: terms.digest(&Domain::new(ChainId::new(to.chain_id), to.model_registry)),
            lease_key,
            variants: None,
            endpoint: String::new(),
            prices,
            to: ends_at,
            bond: Amount::new(BOND),
        };
        self.act(host, leases::open(&to, &request));
        assert_eq!(self.chain.read(to.lease_manager, &LeaseManager::leasesCall {}), lease.get());
        let record = AuditedLease {
            model: terms.model,
            host: address(host),
            lease_key,
            prices,
            shares: Shares::new(royalty, validators, floors).unwrap(),
            min_bond: terms.min_bond,
            min_restake: terms.min_restake,
            bond: request.bond,
            state: LeaseState::Open,
            ends_at,
        };
        self.models.audit.add_lease(lease, record);
    }

    pub(super) fn deposit(&mut self) {
        let to = self.chain.to().clone();
        for (payer, host) in PAYERS.into_iter().flat_map(|payer| HOSTS.map(|host| (payer, host))) {
            let (channel, amount) = (self.channel(payer, host), Amount::new(1_000_000));
            self.act(payer, payments::deposit(&to, &channel, amount).unwrap());
            self.models.escrow.deposit(&channel, amount).unwrap();
        }
    }
}
