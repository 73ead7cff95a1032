//! EigenLayer operators: hosts and validators.

use alloy::{
    primitives::{Address, Bytes, U256},
    sol_types::SolValue,
};
use protocol::{
    bls::{BlsSignature, PublicKey},
    units::BasisPoints,
};

use crate::{
    client::Action,
    deployment::Deployment,
    eigenlayer::interfaces::{AllocationManager, DelegationManager, OperatorSet, StrategyManager},
};

/// The audit's operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditSet {
    /// Those who sign verdicts.
    Validators,
    /// Those who serve, and can be slashed.
    Hosts,
}

impl AuditSet {
    /// Its number in the audit contract.
    pub const fn id(self) -> u32 {
        match self {
            Self::Validators => 0,
            Self::Hosts => 1,
        }
    }

    /// The set as EigenLayer names it.
    pub const fn of(self, to: &Deployment) -> OperatorSet {
        OperatorSet { avs: to.audit_service_manager, id: self.id() }
    }
}

/// Makes the sender an operator whose allocations take effect at once.
pub fn register_as_operator(to: &Deployment, metadata_uri: &str) -> Action {
    let call = DelegationManager::registerAsOperatorCall {
        initDelegationApprover: Address::ZERO,
        allocationDelay: 0,
        metadataURI: metadata_uri.to_owned(),
    };
    Action::call("registration as an operator", to.eigenlayer.delegation_manager, &call)
}

/// Deposits the sender's tokens into a strategy. The strategy manager takes them: allow it first.
pub fn deposit_stake(to: &Deployment, strategy: Address, token: Address, amount: U256) -> Action {
    let call = StrategyManager::depositIntoStrategyCall { strategy, token, amount };
    Action::call("deposit of stake", to.eigenlayer.strategy_manager, &call)
}

/// Allocates a share of the sender's stake, in every strategy that counts, to a set: what can be slashed.
pub fn allocate(to: &Deployment, operator: Address, set: AuditSet, share: BasisPoints) -> Action {
    // EigenLayer counts in wads: 1e18 is all of an operator's stake.
    let magnitude = u64::from(share.get()).saturating_mul(100_000_000_000_000);
    let strategies = to.eigenlayer.strategies.clone();
    let call = AllocationManager::modifyAllocationsCall {
        operator,
        params: vec![AllocationManager::AllocateParams {
            operatorSet: set.of(to),
            newMagnitudes: vec![magnitude; strategies.len()],
            strategies,
        }],
    };
    Action::call("allocation of stake", to.eigenlayer.allocation_manager, &call)
}

/// Makes the sender a member of the hosts.
pub fn join_hosts(to: &Deployment, operator: Address) -> Action {
    join(to, operator, AuditSet::Hosts, Bytes::new())
}

/// Makes the sender a member of the validators, with a BLS key and the proof that it is held.
pub fn join_validators(to: &Deployment, operator: Address, key: &PublicKey, possession: &BlsSignature) -> Action {
    let [x, y] = key.g1.to_words();
    let [x_imaginary, x_real, y_imaginary, y_real] = key.g2.to_words();
    let [proof_x, proof_y] = possession.0.to_words();
    let data = ([x, y], [[x_imaginary, x_real], [y_imaginary, y_real]], [proof_x, proof_y]).abi_encode_params();
    join(to, operator, AuditSet::Validators, data.into())
}

fn join(to: &Deployment, operator: Address, set: AuditSet, data: Bytes) -> Action {
    let what = match set {
        AuditSet::Validators => "joining of the validators",
        AuditSet::Hosts => "joining of the hosts",
    };
    let params =
        AllocationManager::RegisterParams { avs: to.audit_service_manager, operatorSetIds: vec![set.id()], data };
    let call = AllocationManager::registerForOperatorSetsCall { operator, params };
    Action::call(what, to.eigenlayer.allocation_manager, &call)
}

/// Takes the sender out of a set. It stays slashable for EigenLayer's deallocation delay.
pub fn leave(to: &Deployment, operator: Address, set: AuditSet) -> Action {
    let params =
        AllocationManager::DeregisterParams { operator, avs: to.audit_service_manager, operatorSetIds: vec![set.id()] };
    let call = AllocationManager::deregisterFromOperatorSetsCall { params };
    Action::call("leaving of the set", to.eigenlayer.allocation_manager, &call)
}
