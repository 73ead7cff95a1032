//! Deploying the core on a chain that does not have it.
//!
//! Every contract stands behind its own transparent proxy, as on the public chains. The deploying account owns everything
//! afterwards: proxies, pausing, the whitelist of strategies. That is for development chains; nothing of the protocol
//! relies on it.

use std::time::Duration;

use alloy::{
    network::TransactionBuilder as _,
    primitives::{Address, Bytes, TxHash, U256},
    providers::{PendingTransactionError, Provider},
    rpc::types::{TransactionReceipt, TransactionRequest},
    sol,
    sol_types::{SolCall, SolValue as _},
    transports::TransportError,
};
use serde::{Deserialize, Serialize};

use super::{
    core::{Contract, CoreBytecode},
    interfaces::StrategyManager,
};

/// What the contracts say when they are asked for their version. It is part of their EIP-712 domains.
const VERSION: &str = "v1.4.0";

/// How long a transaction may take to be mined.
const MINING_TIMEOUT: Duration = Duration::from_secs(120);

mod initializers {
    //! One for each shape of `initialize`.
    alloy::sol! {
        interface Owned { function initialize(address owner, uint256 paused) external; }
        interface Whitelisted { function initialize(address owner, address whitelister, uint256 paused) external; }
        interface Rewards {
            function initialize(address owner, uint256 paused, address updater, uint32 activationDelay, uint16 splitBips) external;
        }
        interface Strategy { function initialize(address token) external; }
    }
}

sol! {
    interface ProxyAdmin {
        function upgrade(address proxy, address implementation) external;
        function upgradeAndCall(address proxy, address implementation, bytes data) external;
    }

    struct RewardsConstructor {
        address delegationManager; address strategyManager; address allocationManager; address pauserRegistry;
        address permissionController; uint32 calculationInterval; uint32 maxDuration; uint32 maxRetroactive;
        uint32 maxFuture; uint32 genesis; string version;
    }
}

/// Delays and limits of the core. The defaults make a development chain quick; the public chains' are in the comments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreConfig {
    /// Blocks for which a deallocated or deregistered operator stays slashable (100,800: 14 days).
    pub deallocation_delay_blocks: u32,
    /// Blocks until a new allocation delay holds, a new operator's first one included (126,000: 17.5 days).
    pub allocation_configuration_delay_blocks: u32,
    /// Blocks between queuing and completing a withdrawal (100,800: 14 days).
    pub withdrawal_delay_blocks: u32,
    /// Periods of rewards start and end at multiples of it (86,400).
    pub rewards_interval_s: u32,
    /// Longest period of rewards (70 days).
    pub rewards_max_duration_s: u32,
    /// How long ago a period may have started (84 days).
    pub rewards_max_retroactive_s: u32,
    /// How far in the future a period may start (30 days).
    pub rewards_max_future_s: u32,
    /// Earliest start of a period, seconds since 1970; a multiple of the interval.
    pub rewards_genesis_s: u32,
    /// Delay until a root of rewards can be claimed (7 days).
    pub rewards_activation_delay_s: u32,
    /// An operator's share of rewards if it sets no other, of 10,000.
    pub rewards_split_bips: u16,
}

impl Default for CoreConfig {
    fn default() -> Self {
        const DAY: u32 = 86_400;
        Self {
            deallocation_delay_blocks: 50,
            allocation_configuration_delay_blocks: 5,
            withdrawal_delay_blocks: 50,
            rewards_interval_s: DAY,
            rewards_max_duration_s: 70 * DAY,
            rewards_max_retroactive_s: 84 * DAY,
            rewards_max_future_s: 30 * DAY,
            rewards_genesis_s: 1_710_979_200,
            rewards_activation_delay_s: 0,
            rewards_split_bips: 1_000,
        }
    }
}

/// Where the core is: proxies, except where it says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreAddresses {
    /// Owner of the proxies; no proxy itself.
    pub proxy_admin: Address,
    /// Who may pause; no proxy itself.
    pub pauser_registry: Address,
    /// Who may call for whom.
    pub permission_controller: Address,
    /// Operators, delegations, withdrawals.
    pub delegation_manager: Address,
    /// Deposits.
    pub strategy_manager: Address,
    /// Operator sets, allocations, slashing.
    pub allocation_manager: Address,
    /// Native restaking.
    pub eigen_pod_manager: Address,
    /// Rewards.
    pub rewards_coordinator: Address,
    /// The older registry of services.
    pub avs_directory: Address,
    /// Implementation behind the proxies of strategies.
    pub strategy_implementation: Address,
}

/// The core was not deployed, or only in part.
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The transaction was not sent.
    #[error("failed to send: {step}")]
    Send {
        /// What was attempted.
        step: &'static str,
        /// Why not.
        #[source]
        source: TransportError,
    },
    /// The transaction was not mined in time, or cannot be asked for.
    #[error("failed to follow: {step}")]
    Follow {
        /// What was attempted.
        step: &'static str,
        /// Why not.
        #[source]
        source: PendingTransactionError,
    },
    /// The transaction was mined and reverted.
    #[error("reverted in {transaction}: {step}")]
    Reverted {
        /// What was attempted.
        step: &'static str,
        /// Its hash.
        transaction: TxHash,
    },
    /// The chain says that a contract was created and not where.
    #[error("no address in the receipt of {transaction}: {step}")]
    NoAddress {
        /// What was attempted.
        step: &'static str,
        /// Its hash.
        transaction: TxHash,
    },
}

/// What a deployment cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Transactions sent.
    pub transactions: u32,
    /// Gas that they used.
    pub gas: u64,
}

/// Deploys contracts of the core from one account, which the provider signs for.
#[derive(Debug)]
pub struct Deployer<'a, P> {
    provider: &'a P,
    account: Address,
    bytecode: &'a CoreBytecode,
    cost: Cost,
}

impl<'a, P: Provider> Deployer<'a, P> {
    /// Nothing is sent yet.
    pub fn new(provider: &'a P, account: Address, bytecode: &'a CoreBytecode) -> Self {
        Self { provider, account, bytecode, cost: Cost::default() }
    }

    /// What was spent so far.
    pub const fn cost(&self) -> Cost {
        self.cost
    }

    /// Deploys the whole core, one transaction after another. The account is its owner afterwards.
    pub async fn core(&mut self, config: &CoreConfig) -> Result<CoreAddresses, DeployError> {
        let proxy_admin = self.create("create ProxyAdmin", Contract::ProxyAdmin, Vec::new()).await?;
        let empty = self.create("create EmptyContract", Contract::EmptyContract, Vec::new()).await?;
        let pausers = (vec![self.account], self.account).abi_encode_params();
        let pauser_registry = self.create("create PauserRegistry", Contract::PauserRegistry, pausers).await?;
        // The contracts know each other's addresses from their constructors, so all proxies come first.
        let mut addresses = CoreAddresses {
            proxy_admin,
            pauser_registry,
            permission_controller: self.proxy("create PermissionController's proxy", proxy_admin, empty).await?,
            delegation_manager: self.proxy("create DelegationManager's proxy", proxy_admin, empty).await?,
            strategy_manager: self.proxy("create StrategyManager's proxy", proxy_admin, empty).await?,
            allocation_manager: self.proxy("create AllocationManager's proxy", proxy_admin, empty).await?,
            eigen_pod_manager: self.proxy("create EigenPodManager's proxy", proxy_admin, empty).await?,
            rewards_coordinator: self.proxy("create RewardsCoordinator's proxy", proxy_admin, empty).await?,
            avs_directory: self.proxy("create AVSDirectory's proxy", proxy_admin, empty).await?,
            strategy_implementation: Address::ZERO,
        };
        self.permissions(&addresses).await?;
        self.staking(&addresses, config).await?;
        self.services(&addresses, config).await?;
        let arguments = (addresses.strategy_manager, pauser_registry, VERSION).abi_encode_params();
        addresses.strategy_implementation =
            self.create("create StrategyBase", Contract::StrategyBase, arguments).await?;
        Ok(addresses)
    }

    /// Deploys a strategy over the ERC-20 `token` and lets it take deposits. The account must own the core.
    pub async fn strategy(&mut self, core: &CoreAddresses, token: Address) -> Result<Address, DeployError> {
        let initialize = initializers::Strategy::initializeCall { token }.abi_encode();
        let arguments = (core.strategy_implementation, core.proxy_admin, Bytes::from(initialize)).abi_encode_params();
        let strategy = self.create("create a strategy", Contract::TransparentUpgradeableProxy, arguments).await?;
        let whitelist = StrategyManager::addStrategiesToDepositWhitelistCall { strategiesToWhitelist: vec![strategy] };
        self.call("let the strategy take deposits", core.strategy_manager, &whitelist).await?;
        Ok(strategy)
    }

    async fn permissions(&mut self, core: &CoreAddresses) -> Result<(), DeployError> {
        let arguments = (VERSION,).abi_encode_params();
        let implementation =
            self.create("create PermissionController", Contract::PermissionController, arguments).await?;
        let upgrade = ProxyAdmin::upgradeCall { proxy: core.permission_controller, implementation };
        self.call("install PermissionController", core.proxy_admin, &upgrade).await?;
        Ok(())
    }

    /// What holds stake: delegations, strategies and pods.
    async fn staking(&mut self, core: &CoreAddresses, config: &CoreConfig) -> Result<(), DeployError> {
        let owned = initializers::Owned::initializeCall { owner: self.account, paused: U256::ZERO };
        let arguments = (
            core.strategy_manager,
            core.eigen_pod_manager,
            core.allocation_manager,
            core.pauser_registry,
            core.permission_controller,
            config.withdrawal_delay_blocks,
            VERSION,
        );
        let implementation =
            self.create("create DelegationManager", Contract::DelegationManager, arguments.abi_encode_params()).await?;
        self.install("install DelegationManager", core, core.delegation_manager, implementation, &owned).await?;

        let arguments = (core.delegation_manager, core.pauser_registry, VERSION).abi_encode_params();
        let implementation = self.create("create StrategyManager", Contract::StrategyManager, arguments).await?;
        let whitelisted = initializers::Whitelisted::initializeCall {
            owner: self.account,
            whitelister: self.account,
            paused: U256::ZERO,
        };
        self.install("install StrategyManager", core, core.strategy_manager, implementation, &whitelisted).await?;

        // Without a beacon chain there are no pods: the deposit contract and the pods' beacon are nobody.
        let arguments =
            (Address::ZERO, Address::ZERO, core.delegation_manager, core.pauser_registry, VERSION).abi_encode_params();
        let implementation = self.create("create EigenPodManager", Contract::EigenPodManager, arguments).await?;
        self.install("install EigenPodManager", core, core.eigen_pod_manager, implementation, &owned).await
    }

    /// What services use: allocations, rewards and the older registry.
    async fn services(&mut self, core: &CoreAddresses, config: &CoreConfig) -> Result<(), DeployError> {
        let owned = initializers::Owned::initializeCall { owner: self.account, paused: U256::ZERO };
        let arguments = (
            core.delegation_manager,
            core.pauser_registry,
            core.permission_controller,
            config.deallocation_delay_blocks,
            config.allocation_configuration_delay_blocks,
            VERSION,
        );
        let implementation =
            self.create("create AllocationManager", Contract::AllocationManager, arguments.abi_encode_params()).await?;
        self.install("install AllocationManager", core, core.allocation_manager, implementation, &owned).await?;

        let arguments = RewardsConstructor {
            delegationManager: core.delegation_manager,
            strategyManager: core.strategy_manager,
            allocationManager: core.allocation_manager,
            pauserRegistry: core.pauser_registry,
            permissionController: core.permission_controller,
            calculationInterval: config.rewards_interval_s,
            maxDuration: config.rewards_max_duration_s,
            maxRetroactive: config.rewards_max_retroactive_s,
            maxFuture: config.rewards_max_future_s,
            genesis: config.rewards_genesis_s,
            version: VERSION.to_owned(),
        };
        let implementation =
            self.create("create RewardsCoordinator", Contract::RewardsCoordinator, arguments.abi_encode()).await?;
        let initialize = initializers::Rewards::initializeCall {
            owner: self.account,
            paused: U256::ZERO,
            updater: self.account,
            activationDelay: config.rewards_activation_delay_s,
            splitBips: config.rewards_split_bips,
        };
        self.install("install RewardsCoordinator", core, core.rewards_coordinator, implementation, &initialize).await?;

        let arguments = (core.delegation_manager, core.pauser_registry, VERSION).abi_encode_params();
        let implementation = self.create("create AVSDirectory", Contract::AVSDirectory, arguments).await?;
        self.install("install AVSDirectory", core, core.avs_directory, implementation, &owned).await
    }

    async fn proxy(&mut self, step: &'static str, admin: Address, empty: Address) -> Result<Address, DeployError> {
        let arguments = (empty, admin, Bytes::new()).abi_encode_params();
        self.create(step, Contract::TransparentUpgradeableProxy, arguments).await
    }

    async fn install(
        &mut self,
        step: &'static str,
        core: &CoreAddresses,
        proxy: Address,
        implementation: Address,
        initialize: &impl SolCall,
    ) -> Result<(), DeployError> {
        let data = initialize.abi_encode().into();
        self.call(step, core.proxy_admin, &ProxyAdmin::upgradeAndCallCall { proxy, implementation, data }).await?;
        Ok(())
    }

    async fn create(
        &mut self,
        step: &'static str,
        contract: Contract,
        arguments: Vec<u8>,
    ) -> Result<Address, DeployError> {
        let code = [self.bytecode.creation(contract).as_ref(), &arguments].concat();
        let receipt = self.send(step, TransactionRequest::default().with_deploy_code(code)).await?;
        let transaction = receipt.transaction_hash;
        receipt.contract_address.ok_or(DeployError::NoAddress { step, transaction })
    }

    async fn call(
        &mut self,
        step: &'static str,
        to: Address,
        call: &impl SolCall,
    ) -> Result<TransactionReceipt, DeployError> {
        self.send(step, TransactionRequest::default().with_to(to).with_input(call.abi_encode())).await
    }

    async fn send(
        &mut self,
        step: &'static str,
        request: TransactionRequest,
    ) -> Result<TransactionReceipt, DeployError> {
        let pending = self
            .provider
            .send_transaction(request.with_from(self.account))
            .await
            .map_err(|source| DeployError::Send { step, source })?;
        let receipt = pending
            .with_timeout(Some(MINING_TIMEOUT))
            .get_receipt()
            .await
            .map_err(|source| DeployError::Follow { step, source })?;
        self.cost.transactions = self.cost.transactions.saturating_add(1);
        self.cost.gas = self.cost.gas.saturating_add(receipt.gas_used);
        if !receipt.status() {
            return Err(DeployError::Reverted { step, transaction: receipt.transaction_hash });
        }
        Ok(receipt)
    }
}
