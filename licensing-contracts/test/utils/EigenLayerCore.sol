// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CommonBase} from "forge-std/Base.sol";

import {IAllocationManager, OperatorSet} from "../../contracts/interfaces/eigenlayer/IEigenLayer.sol";

// The calls that only operators, stakers and whoever deploys make, written from the core's published ABI.

interface IAllocationManagerForOperators is IAllocationManager {
    struct AllocateParams {
        OperatorSet operatorSet;
        address[] strategies;
        uint64[] newMagnitudes;
    }

    struct RegisterParams {
        address avs;
        uint32[] operatorSetIds;
        bytes data;
    }

    struct DeregisterParams {
        address operator;
        address avs;
        uint32[] operatorSetIds;
    }

    function modifyAllocations(address operator, AllocateParams[] calldata params) external;
    function registerForOperatorSets(address operator, RegisterParams calldata params) external;
    function deregisterFromOperatorSets(DeregisterParams calldata params) external;
    function getMaxMagnitude(address operator, address strategy) external view returns (uint64);
    function ALLOCATION_CONFIGURATION_DELAY() external view returns (uint32);
}

interface IDelegationManager {
    struct SignatureWithExpiry {
        bytes signature;
        uint256 expiry;
    }

    struct QueuedWithdrawalParams {
        address[] strategies;
        uint256[] depositShares;
        address unused;
    }

    struct Withdrawal {
        address staker;
        address delegatedTo;
        address withdrawer;
        uint256 nonce;
        uint32 startBlock;
        address[] strategies;
        uint256[] scaledShares;
    }

    function queueWithdrawals(QueuedWithdrawalParams[] calldata params) external returns (bytes32[] memory roots);
    function getQueuedWithdrawals(address staker) external view returns (Withdrawal[] memory, uint256[][] memory shares);
    function completeQueuedWithdrawal(Withdrawal calldata withdrawal, address[] calldata tokens, bool receiveAsTokens)
        external;
    function registerAsOperator(address approver, uint32 allocationDelay, string calldata metadataURI) external;
    function delegateTo(address operator, SignatureWithExpiry calldata approval, bytes32 salt) external;
    function getOperatorShares(address operator, address[] calldata strategies) external view returns (uint256[] memory);
}

interface IStrategyManager {
    function addStrategiesToDepositWhitelist(address[] calldata strategies) external;
    function depositIntoStrategy(address strategy, address token, uint256 amount) external returns (uint256 shares);
    function getBurnableShares(address strategy) external view returns (uint256);
}

interface IProxyAdmin {
    function upgrade(address proxy, address implementation) external;
    function upgradeAndCall(address proxy, address implementation, bytes calldata data) external;
}

/// Argument of the rewards coordinator's constructor.
struct RewardsCoordinatorParams {
    address delegationManager;
    address strategyManager;
    address allocationManager;
    address pauserRegistry;
    address permissionController;
    uint32 calculationIntervalSeconds;
    uint32 maxRewardsDuration;
    uint32 maxRetroactiveLength;
    uint32 maxFutureLength;
    uint32 genesisRewardsTimestamp;
    string version;
}

/// @title The released EigenLayer core, deployed behind its own proxies
/// @dev The bytecode is data: a JSON object of names and creation bytecode, whose path `HALLMARK_EIGENLAYER_CORE` names.
abstract contract EigenLayerCore is CommonBase {
    uint32 internal constant MIN_WITHDRAWAL_DELAY_BLOCKS = 50_400;
    uint32 internal constant DEALLOCATION_DELAY_BLOCKS = 50_400;
    uint32 internal constant ALLOCATION_CONFIGURATION_DELAY_BLOCKS = 5;
    uint32 internal constant REWARDS_INTERVAL = 1 days;
    /// On a day's boundary, as the coordinator demands.
    uint32 internal constant REWARDS_GENESIS = 1_710_979_200;

    IAllocationManagerForOperators internal allocations;
    IDelegationManager internal delegations;
    IStrategyManager internal strategies;
    address internal rewards;

    address private _proxyAdmin;
    address private _pauser;
    string private _bytecodes;
    string private constant VERSION = "v1.4.0";

    /// Deploys everything with this contract as owner.
    function deployCore() internal {
        _bytecodes = vm.readFile(vm.envString("HALLMARK_EIGENLAYER_CORE"));
        _proxyAdmin = create("ProxyAdmin", "");
        address[] memory pausers = new address[](1);
        pausers[0] = address(this);
        _pauser = create("PauserRegistry", abi.encode(pausers, address(this)));

        address empty = create("EmptyContract", "");
        address delegation = proxy(empty);
        address strategy = proxy(empty);
        address allocation = proxy(empty);
        address pods = proxy(empty);
        address permissions = proxy(empty);
        rewards = proxy(empty);

        IProxyAdmin(_proxyAdmin).upgrade(permissions, create("PermissionController", abi.encode(VERSION)));
        bytes memory owned = abi.encodeWithSignature("initialize(address,uint256)", address(this), 0);
        upgrade(
            delegation,
            "DelegationManager",
            abi.encode(strategy, pods, allocation, _pauser, permissions, MIN_WITHDRAWAL_DELAY_BLOCKS, VERSION),
            owned
        );
        upgrade(
            strategy,
            "StrategyManager",
            abi.encode(delegation, _pauser, VERSION),
            abi.encodeWithSignature("initialize(address,address,uint256)", address(this), address(this), 0)
        );
        upgrade(
            allocation,
            "AllocationManager",
            abi.encode(
                delegation,
                _pauser,
                permissions,
                DEALLOCATION_DELAY_BLOCKS,
                ALLOCATION_CONFIGURATION_DELAY_BLOCKS,
                VERSION
            ),
            owned
        );
        upgrade(pods, "EigenPodManager", abi.encode(0, 0, delegation, _pauser, VERSION), owned);
        upgrade(
            rewards,
            "RewardsCoordinator",
            rewardsArguments(delegation, strategy, allocation, permissions),
            abi.encodeWithSignature(
                "initialize(address,uint256,address,uint32,uint16)", address(this), 0, address(this), 0, 1000
            )
        );
        allocations = IAllocationManagerForOperators(allocation);
        delegations = IDelegationManager(delegation);
        strategies = IStrategyManager(strategy);
        vm.label(allocation, "AllocationManager");
        vm.label(delegation, "DelegationManager");
        vm.label(strategy, "StrategyManager");
        vm.label(rewards, "RewardsCoordinator");
    }

    /// A whitelisted strategy over a token.
    function deployStrategy(address token) internal returns (address strategy) {
        address implementation = create("StrategyBase", abi.encode(address(strategies), _pauser, VERSION));
        strategy = create(
            "TransparentUpgradeableProxy",
            abi.encode(implementation, _proxyAdmin, abi.encodeWithSignature("initialize(address)", token))
        );
        strategies.addStrategiesToDepositWhitelist(single(strategy));
    }

    /// Makes `operator` an operator with an allocation delay of 0, which takes effect some blocks later.
    function becomeOperator(address operator) internal {
        vm.prank(operator);
        delegations.registerAsOperator(address(0), 0, "");
    }

    /// Allocates `magnitude` of 1e18 to a set, and registers for it.
    function joinSet(address operator, OperatorSet memory set, address strategy, uint64 magnitude, bytes memory data)
        internal
    {
        allocate(operator, set, strategy, magnitude);
        register(operator, set, data);
    }

    function register(address operator, OperatorSet memory set, bytes memory data) internal {
        uint32[] memory ids = new uint32[](1);
        ids[0] = set.id;
        vm.prank(operator);
        allocations.registerForOperatorSets(operator, IAllocationManagerForOperators.RegisterParams(set.avs, ids, data));
    }

    function allocate(address operator, OperatorSet memory set, address strategy, uint64 magnitude) internal {
        IAllocationManagerForOperators.AllocateParams[] memory params =
            new IAllocationManagerForOperators.AllocateParams[](1);
        uint64[] memory magnitudes = new uint64[](1);
        magnitudes[0] = magnitude;
        params[0] = IAllocationManagerForOperators.AllocateParams(set, single(strategy), magnitudes);
        vm.prank(operator);
        allocations.modifyAllocations(operator, params);
    }

    function leaveSet(address operator, OperatorSet memory set) internal {
        uint32[] memory ids = new uint32[](1);
        ids[0] = set.id;
        vm.prank(operator);
        allocations.deregisterFromOperatorSets(IAllocationManagerForOperators.DeregisterParams(operator, set.avs, ids));
    }

    function single(address item) internal pure returns (address[] memory items) {
        items = new address[](1);
        items[0] = item;
    }

    function create(string memory name, bytes memory arguments) internal returns (address deployed) {
        bytes memory code = vm.parseJsonBytes(_bytecodes, string.concat(".", name));
        code = bytes.concat(code, arguments);
        assembly ("memory-safe") {
            deployed := create(0, add(code, 0x20), mload(code))
        }
        require(deployed != address(0), string.concat("the core's ", name, " does not deploy"));
    }

    function proxy(address implementation) private returns (address) {
        return create("TransparentUpgradeableProxy", abi.encode(implementation, _proxyAdmin, ""));
    }

    function upgrade(address target, string memory name, bytes memory arguments, bytes memory call) private {
        IProxyAdmin(_proxyAdmin).upgradeAndCall(target, create(name, arguments), call);
    }

    function rewardsArguments(address delegation, address strategy, address allocation, address permissions)
        private
        view
        returns (bytes memory)
    {
        return abi.encode(
            RewardsCoordinatorParams({
                delegationManager: delegation,
                strategyManager: strategy,
                allocationManager: allocation,
                pauserRegistry: _pauser,
                permissionController: permissions,
                calculationIntervalSeconds: REWARDS_INTERVAL,
                maxRewardsDuration: 70 days,
                maxRetroactiveLength: 84 days,
                maxFutureLength: 30 days,
                genesisRewardsTimestamp: REWARDS_GENESIS,
                version: VERSION
            })
        );
    }
}
