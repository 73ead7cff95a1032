//! An operator's life on the released core: stake, allocate, register, be slashed; the staker leaves with the rest.

use std::time::Instant;

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    providers::{DynProvider, Provider as _},
    sol_types::{SolEvent as _, SolValue as _},
};
use licensing_contracts::eigenlayer::{
    deploy::{CoreAddresses, CoreConfig, Deployer},
    interfaces::{
        AllocationManager, DelegationManager, OperatorSet, PermissionController, RewardsCoordinator, Strategy,
        StrategyManager,
    },
};

use super::bytecode::core;
use crate::support::{
    Anvil, NOW, Registrar, Token, address, chain, deploy, ether, mine, provider, read, request, rpc, send,
};

const DEPLOYER: u8 = 1;
const OPERATOR: u8 = 2;
const STAKER: u8 = 3;
const SERVICE: u8 = 4;

/// Half of all magnitude.
const HALF: u64 = 500_000_000_000_000_000;

fn config() -> CoreConfig {
    CoreConfig {
        deallocation_delay_blocks: 10,
        allocation_configuration_delay_blocks: 10,
        withdrawal_delay_blocks: 5,
        ..CoreConfig::default()
    }
}

/// The core, a token with a strategy, and a service with one operator set and its registrar.
struct World {
    provider: DynProvider,
    core: CoreAddresses,
    token: Address,
    strategy: Address,
    registrar: Address,
    set: OperatorSet,
}

impl World {
    async fn new() -> Self {
        Self::on(provider(chain().client())).await
    }

    async fn on(provider: DynProvider) -> Self {
        let start = Instant::now();
        let mut deployer = Deployer::new(&provider, address(DEPLOYER), core());
        let addresses = deployer.core(&config()).await.unwrap();
        let (cost, took) = (deployer.cost(), start.elapsed());
        eprintln!("core deployed: {} transactions, {} gas, {took:?}", cost.transactions, cost.gas);
        let token = deploy(&provider, "Token", &[]).await;
        let strategy = deployer.strategy(&addresses, token).await.unwrap();
        let service = address(SERVICE);
        let registrar = deploy(&provider, "Registrar", &service.abi_encode()).await;
        let set = OperatorSet { avs: service, id: 1 };
        let world = Self { provider, core: addresses, token, strategy, registrar, set };
        world.create_set().await;
        world
    }

    /// Any account is a service once it has metadata; nothing says that it must be a contract.
    async fn create_set(&self) {
        let manager = self.core.allocation_manager;
        let avs = address(SERVICE);
        let set = AllocationManager::CreateSetParams { operatorSetId: 1, strategies: vec![self.strategy] };
        let create = AllocationManager::createOperatorSetsCall { avs, params: vec![set] };
        let error = self.provider.estimate_gas(request(SERVICE, manager, &create)).await.unwrap_err();
        error.as_error_resp().unwrap().as_decoded_error::<AllocationManager::NonexistentAVSMetadata>().unwrap();
        let metadata = AllocationManager::updateAVSMetadataURICall { avs, metadataURI: "ipfs://service".into() };
        send(&self.provider, SERVICE, manager, &metadata).await;
        send(&self.provider, SERVICE, manager, &create).await;
        let registrar = AllocationManager::setAVSRegistrarCall { avs, registrar: self.registrar };
        send(&self.provider, SERVICE, manager, &registrar).await;
    }

    /// 1,000 tokens of the staker, delegated to the operator, half of them allocated to the set, of which it is a member.
    async fn stake(&self) {
        let (provider, core) = (&self.provider, &self.core);
        let register = DelegationManager::registerAsOperatorCall {
            initDelegationApprover: Address::ZERO,
            allocationDelay: 0,
            metadataURI: "ipfs://operator".into(),
        };
        let gas = send(provider, OPERATOR, core.delegation_manager, &register).await.gas_used;
        eprintln!("registerAsOperator {gas}");
        let amount = ether(1_000);
        send(provider, STAKER, self.token, &Token::mintCall { to: address(STAKER), amount }).await;
        send(provider, STAKER, self.token, &Token::approveCall { spender: core.strategy_manager, amount }).await;
        let deposit = StrategyManager::depositIntoStrategyCall { strategy: self.strategy, token: self.token, amount };
        let gas = send(provider, STAKER, core.strategy_manager, &deposit).await.gas_used;
        eprintln!("depositIntoStrategy {gas}");
        let delegate = DelegationManager::delegateToCall {
            operator: address(OPERATOR),
            approverSignatureAndExpiry: DelegationManager::SignatureWithExpiry {
                signature: Bytes::new(),
                expiry: U256::ZERO,
            },
            approverSalt: B256::ZERO,
        };
        let gas = send(provider, STAKER, core.delegation_manager, &delegate).await.gas_used;
        eprintln!("delegateTo {gas}");
        self.allocate().await;
    }

    async fn allocate(&self) {
        let (provider, manager) = (&self.provider, self.core.allocation_manager);
        let allocate = AllocationManager::AllocateParams {
            operatorSet: self.set.clone(),
            strategies: vec![self.strategy],
            newMagnitudes: vec![HALF],
        };
        let allocate = AllocationManager::modifyAllocationsCall { operator: address(OPERATOR), params: vec![allocate] };
        // A new operator's delay is not known before the configuration delay has passed.
        let error = provider.estimate_gas(request(OPERATOR, manager, &allocate)).await.unwrap_err();
        error.as_error_resp().unwrap().as_decoded_error::<AllocationManager::UninitializedAllocationDelay>().unwrap();
        mine(provider, u64::from(config().allocation_configuration_delay_blocks)).await;
        let gas = send(provider, OPERATOR, manager, &allocate).await.gas_used;
        eprintln!("modifyAllocations {gas}");
        let register = AllocationManager::RegisterParams {
            avs: self.set.avs,
            operatorSetIds: vec![1],
            data: Bytes::from_static(b"key"),
        };
        let register = AllocationManager::registerForOperatorSetsCall { operator: address(OPERATOR), params: register };
        let receipt = send(provider, OPERATOR, manager, &register).await;
        eprintln!("registerForOperatorSets {}", receipt.gas_used);
        let told = receipt.logs().iter().find(|log| log.address() == self.registrar).unwrap();
        let told = Registrar::Registered::decode_log(&told.inner).unwrap();
        assert_eq!(
            (told.operator, told.avs, told.data.data.as_ref()),
            (address(OPERATOR), self.set.avs, b"key".as_ref())
        );
    }

    fn slash(&self, wad: U256) -> AllocationManager::slashOperatorCall {
        AllocationManager::slashOperatorCall {
            avs: self.set.avs,
            params: AllocationManager::SlashingParams {
                operator: address(OPERATOR),
                operatorSetId: 1,
                strategies: vec![self.strategy],
                wadsToSlash: vec![wad],
                description: "served without a licence".into(),
            },
        }
    }

    async fn operator_shares(&self) -> U256 {
        let call =
            DelegationManager::getOperatorSharesCall { operator: address(OPERATOR), strategies: vec![self.strategy] };
        read(&self.provider, self.core.delegation_manager, &call).await[0]
    }

    async fn withdrawable(&self) -> U256 {
        let call =
            DelegationManager::getWithdrawableSharesCall { staker: address(STAKER), strategies: vec![self.strategy] };
        read(&self.provider, self.core.delegation_manager, &call).await.withdrawableShares[0]
    }

    async fn balance(&self, account: Address) -> U256 {
        read(&self.provider, self.token, &Token::balanceOfCall { account }).await
    }

    async fn is_slashable(&self) -> bool {
        let call =
            AllocationManager::isOperatorSlashableCall { operator: address(OPERATOR), operatorSet: self.set.clone() };
        read(&self.provider, self.core.allocation_manager, &call).await
    }
}

#[tokio::test]
async fn slashed_stake_is_burnt_and_the_staker_withdraws_the_rest() {
    let world = World::new().await;
    world.stake().await;
    let (provider, core) = (&world.provider, &world.core);
    assert!(world.is_slashable().await);
    let head = u32::try_from(provider.get_block_number().await.unwrap()).unwrap();
    let stake = AllocationManager::getMinimumSlashableStakeCall {
        operatorSet: world.set.clone(),
        operators: vec![address(OPERATOR)],
        strategies: vec![world.strategy],
        futureBlock: head + 1,
    };
    assert_eq!(read(provider, core.allocation_manager, &stake).await, vec![vec![ether(500)]]);

    // A tenth of the allocated half: 50 of 1,000.
    let receipt = send(provider, SERVICE, core.allocation_manager, &world.slash(ether(1) / U256::from(10))).await;
    eprintln!("slashOperator {}", receipt.gas_used);
    let slashed = receipt.logs().iter().find_map(|log| AllocationManager::OperatorSlashed::decode_log(&log.inner).ok());
    assert_eq!(slashed.unwrap().operator, address(OPERATOR));
    assert_eq!((world.operator_shares().await, world.withdrawable().await), (ether(950), ether(950)));
    let allocation = AllocationManager::getAllocationCall {
        operator: address(OPERATOR),
        operatorSet: world.set.clone(),
        strategy: world.strategy,
    };
    assert_eq!(read(provider, core.allocation_manager, &allocation).await.currentMagnitude, HALF / 10 * 9);

    let burnable = StrategyManager::getBurnableSharesCall { strategy: world.strategy };
    assert_eq!(read(provider, core.strategy_manager, &burnable).await, ether(50));
    send(provider, STAKER, core.strategy_manager, &StrategyManager::burnSharesCall { strategy: world.strategy }).await;
    let grave = read(provider, core.strategy_manager, &StrategyManager::DEFAULT_BURN_ADDRESSCall {}).await;
    assert_eq!((world.balance(grave).await, world.balance(world.strategy).await), (ether(50), ether(950)));
    assert_eq!(read(provider, world.strategy, &Strategy::totalSharesCall {}).await, ether(950));

    withdraw_everything(&world).await;
    assert_eq!((world.balance(address(STAKER)).await, world.operator_shares().await), (ether(950), U256::ZERO));
}

async fn withdraw_everything(world: &World) {
    let (provider, manager) = (&world.provider, world.core.delegation_manager);
    let shares =
        DelegationManager::getWithdrawableSharesCall { staker: address(STAKER), strategies: vec![world.strategy] };
    let deposits = read(provider, manager, &shares).await.depositShares;
    let queue = DelegationManager::QueuedWithdrawalParams {
        strategies: vec![world.strategy],
        depositShares: deposits,
        __deprecated_withdrawer: address(STAKER),
    };
    let queue = DelegationManager::queueWithdrawalsCall { params: vec![queue] };
    let gas = send(provider, STAKER, manager, &queue).await.gas_used;
    eprintln!("queueWithdrawals {gas}");
    let queued =
        read(provider, manager, &DelegationManager::getQueuedWithdrawalsCall { staker: address(STAKER) }).await;
    let complete = DelegationManager::completeQueuedWithdrawalCall {
        withdrawal: queued.withdrawals[0].clone(),
        tokens: vec![world.token],
        receiveAsTokens: true,
    };
    let error = provider.estimate_gas(request(STAKER, manager, &complete)).await.unwrap_err();
    error.as_error_resp().unwrap().as_decoded_error::<DelegationManager::WithdrawalDelayNotElapsed>().unwrap();
    mine(provider, u64::from(config().withdrawal_delay_blocks)).await;
    let gas = send(provider, STAKER, manager, &complete).await.gas_used;
    eprintln!("completeQueuedWithdrawal {gas}");
}

#[tokio::test]
async fn only_the_service_or_its_appointee_slashes_and_only_within_bounds() {
    let world = World::new().await;
    world.stake().await;
    let (provider, manager) = (&world.provider, world.core.allocation_manager);
    let refused = async |from: u8, wad: U256| {
        let error = provider.estimate_gas(request(from, manager, &world.slash(wad))).await.unwrap_err();
        error.as_error_resp().unwrap().clone()
    };
    refused(STAKER, ether(1)).await.as_decoded_error::<AllocationManager::InvalidPermissions>().unwrap();
    for wad in [U256::ZERO, ether(1) + U256::ONE] {
        refused(SERVICE, wad).await.as_decoded_error::<AllocationManager::InvalidWadToSlash>().unwrap();
    }
    let selector = <AllocationManager::slashOperatorCall as alloy::sol_types::SolCall>::SELECTOR.into();
    let appoint = PermissionController::setAppointeeCall {
        account: address(SERVICE),
        appointee: address(9),
        target: manager,
        selector,
    };
    send(provider, SERVICE, world.core.permission_controller, &appoint).await;
    send(provider, 9, manager, &world.slash(ether(1))).await;
    assert_eq!(world.operator_shares().await, ether(500));
    // Everything allocated is gone; another slash finds nothing and takes nothing.
    send(provider, SERVICE, manager, &world.slash(ether(1))).await;
    assert_eq!(world.operator_shares().await, ether(500));
}

#[tokio::test]
async fn a_deregistered_operator_stays_slashable_for_the_delay() {
    let world = World::new().await;
    world.stake().await;
    let (provider, manager) = (&world.provider, world.core.allocation_manager);
    let leave = AllocationManager::DeregisterParams {
        operator: address(OPERATOR),
        avs: world.set.avs,
        operatorSetIds: vec![1],
    };
    let leave = AllocationManager::deregisterFromOperatorSetsCall { params: leave };
    // A registrar that reverts can hold an operator: the core does not go on without it.
    send(provider, SERVICE, world.registrar, &Registrar::refuseCall { yes: true }).await;
    let error = provider.estimate_gas(request(OPERATOR, manager, &leave)).await.unwrap_err();
    error.as_error_resp().unwrap().as_decoded_error::<Registrar::Refused>().unwrap();
    send(provider, SERVICE, world.registrar, &Registrar::refuseCall { yes: false }).await;
    send(provider, OPERATOR, manager, &leave).await;
    let member =
        AllocationManager::isMemberOfOperatorSetCall { operator: address(OPERATOR), operatorSet: world.set.clone() };
    assert!(!read(provider, manager, &member).await);
    assert!(world.is_slashable().await);
    mine(provider, u64::from(config().deallocation_delay_blocks) - 1).await;
    send(provider, SERVICE, manager, &world.slash(ether(1) / U256::from(2))).await;
    assert_eq!(world.operator_shares().await, ether(750));
    mine(provider, 2).await;
    assert!(!world.is_slashable().await);
    let error = provider.estimate_gas(request(SERVICE, manager, &world.slash(ether(1)))).await.unwrap_err();
    error.as_error_resp().unwrap().as_decoded_error::<AllocationManager::OperatorNotSlashable>().unwrap();
}

#[tokio::test]
async fn rewards_are_directed_to_operators_of_a_set_for_a_time_that_is_over() {
    let world = World::new().await;
    world.stake().await;
    let (provider, rewards) = (&world.provider, world.core.rewards_coordinator);
    let interval = read(provider, rewards, &RewardsCoordinator::CALCULATION_INTERVAL_SECONDSCall {}).await;
    let now = u32::try_from(NOW).unwrap();
    let start = now / interval * interval;
    send(provider, SERVICE, world.token, &Token::mintCall { to: address(SERVICE), amount: ether(5) }).await;
    send(provider, SERVICE, world.token, &Token::approveCall { spender: rewards, amount: ether(5) }).await;
    let submission = RewardsCoordinator::OperatorDirectedRewardsSubmission {
        strategiesAndMultipliers: vec![RewardsCoordinator::StrategyAndMultiplier {
            strategy: world.strategy,
            multiplier: alloy::primitives::aliases::U96::from(HALF),
        }],
        token: world.token,
        operatorRewards: vec![RewardsCoordinator::OperatorReward { operator: address(OPERATOR), amount: ether(5) }],
        startTimestamp: start,
        duration: interval,
        description: "audits".into(),
    };
    let call = RewardsCoordinator::createOperatorDirectedOperatorSetRewardsSubmissionCall {
        operatorSet: world.set.clone(),
        submissions: vec![submission],
    };
    let error = provider.estimate_gas(request(SERVICE, rewards, &call)).await.unwrap_err();
    error.as_error_resp().unwrap().as_decoded_error::<RewardsCoordinator::SubmissionNotRetroactive>().unwrap();
    let _: serde_json::Value = rpc(provider, "evm_increaseTime", (86_400,)).await;
    let gas = send(provider, SERVICE, rewards, &call).await.gas_used;
    eprintln!("createOperatorDirectedOperatorSetRewardsSubmission {gas}");
    assert_eq!((world.balance(address(SERVICE)).await, world.balance(rewards).await), (U256::ZERO, ether(5)));
}

#[tokio::test]
#[ignore = "needs anvil: set HALLMARK_ANVIL to its program, or HALLMARK_ANVIL_URL to where one listens"]
async fn the_core_works_on_anvil() {
    let anvil = Anvil::find().await;
    let provider = provider(anvil.client());
    for number in 1..10 {
        let _: serde_json::Value = rpc(&provider, "anvil_setBalance", (address(number), ether(1_000))).await;
    }
    let world = World::on(provider).await;
    world.stake().await;
    send(&world.provider, SERVICE, world.core.allocation_manager, &world.slash(ether(1) / U256::from(10))).await;
    assert_eq!(world.operator_shares().await, ether(950));
    withdraw_everything(&world).await;
    assert_eq!(world.balance(address(STAKER)).await, ether(950));
}
