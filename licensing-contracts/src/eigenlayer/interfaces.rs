//! The part of the core's interfaces that the protocol uses, in version 1.4: names, argument types and events as released.
//!
//! In this version there is no redistribution (slashed shares are burnt), `slashOperator` returns nothing, and a registrar
//! is told the service's address.

use alloy::sol;

sol! {
    /// A set of operators that a service made.
    #[derive(Debug, PartialEq, Eq)]
    struct OperatorSet { address avs; uint32 id; }

    /// Operator sets, allocations and slashing.
    #[derive(Debug, PartialEq, Eq)]
    interface AllocationManager {
        struct Allocation { uint64 currentMagnitude; int128 pendingDiff; uint32 effectBlock; }
        struct AllocateParams { OperatorSet operatorSet; address[] strategies; uint64[] newMagnitudes; }
        struct CreateSetParams { uint32 operatorSetId; address[] strategies; }
        struct RegisterParams { address avs; uint32[] operatorSetIds; bytes data; }
        struct DeregisterParams { address operator; address avs; uint32[] operatorSetIds; }
        struct SlashingParams {
            address operator; uint32 operatorSetId; address[] strategies; uint256[] wadsToSlash; string description;
        }

        error AlreadyMemberOfSet();
        error CurrentlyPaused();
        error InsufficientMagnitude();
        error InvalidAVSRegistrar();
        error InvalidCaller();
        error InvalidOperator();
        error InvalidOperatorSet();
        error InvalidPermissions();
        error InvalidWadToSlash();
        error InputArrayLengthMismatch();
        error ModificationAlreadyPending();
        error NonexistentAVSMetadata();
        error NotMemberOfSet();
        error OperatorNotSlashable();
        error SameMagnitude();
        error StrategiesMustBeInAscendingOrder();
        error StrategyAlreadyInOperatorSet();
        error StrategyNotInOperatorSet();
        error UninitializedAllocationDelay();

        event AllocationUpdated(address operator, OperatorSet operatorSet, address strategy, uint64 magnitude, uint32 effectBlock);
        event OperatorAddedToOperatorSet(address indexed operator, OperatorSet operatorSet);
        event OperatorRemovedFromOperatorSet(address indexed operator, OperatorSet operatorSet);
        event OperatorSetCreated(OperatorSet operatorSet);
        event OperatorSlashed(address operator, OperatorSet operatorSet, address[] strategies, uint256[] wadSlashed, string description);

        function ALLOCATION_CONFIGURATION_DELAY() external view returns (uint32);
        function DEALLOCATION_DELAY() external view returns (uint32);
        function createOperatorSets(address avs, CreateSetParams[] params) external;
        function deregisterFromOperatorSets(DeregisterParams params) external;
        function getAVSRegistrar(address avs) external view returns (address);
        function getAllocatableMagnitude(address operator, address strategy) external view returns (uint64);
        function getAllocation(address operator, OperatorSet operatorSet, address strategy) external view returns (Allocation);
        function getAllocationDelay(address operator) external view returns (bool isSet, uint32 delay);
        function getMaxMagnitude(address operator, address strategy) external view returns (uint64);
        function getMembers(OperatorSet operatorSet) external view returns (address[]);
        function getMinimumSlashableStake(OperatorSet operatorSet, address[] operators, address[] strategies, uint32 futureBlock)
            external view returns (uint256[][] slashableStake);
        function isMemberOfOperatorSet(address operator, OperatorSet operatorSet) external view returns (bool);
        function isOperatorSet(OperatorSet operatorSet) external view returns (bool);
        function isOperatorSlashable(address operator, OperatorSet operatorSet) external view returns (bool);
        function modifyAllocations(address operator, AllocateParams[] params) external;
        function registerForOperatorSets(address operator, RegisterParams params) external;
        function setAVSRegistrar(address avs, address registrar) external;
        function slashOperator(address avs, SlashingParams params) external;
        function updateAVSMetadataURI(address avs, string metadataURI) external;
    }

    /// Operators, delegations and withdrawals.
    #[derive(Debug, PartialEq, Eq)]
    interface DelegationManager {
        struct SignatureWithExpiry { bytes signature; uint256 expiry; }
        struct QueuedWithdrawalParams { address[] strategies; uint256[] depositShares; address __deprecated_withdrawer; }
        struct Withdrawal {
            address staker; address delegatedTo; address withdrawer; uint256 nonce; uint32 startBlock;
            address[] strategies; uint256[] scaledShares;
        }

        error ActivelyDelegated();
        error CurrentlyPaused();
        error FullySlashed();
        error InvalidPermissions();
        error NotActivelyDelegated();
        error OperatorNotRegistered();
        error OperatorsCannotUndelegate();
        error WithdrawalDelayNotElapsed();
        error WithdrawalNotQueued();
        error WithdrawerNotCaller();

        event OperatorRegistered(address indexed operator, address delegationApprover);
        event OperatorSharesSlashed(address indexed operator, address strategy, uint256 totalSlashedShares);
        event SlashingWithdrawalCompleted(bytes32 withdrawalRoot);
        event SlashingWithdrawalQueued(bytes32 withdrawalRoot, Withdrawal withdrawal, uint256[] sharesToWithdraw);
        event StakerDelegated(address indexed staker, address indexed operator);

        function completeQueuedWithdrawal(Withdrawal withdrawal, address[] tokens, bool receiveAsTokens) external;
        function delegateTo(address operator, SignatureWithExpiry approverSignatureAndExpiry, bytes32 approverSalt) external;
        function delegatedTo(address staker) external view returns (address operator);
        function getOperatorShares(address operator, address[] strategies) external view returns (uint256[] shares);
        function getQueuedWithdrawals(address staker)
            external view returns (Withdrawal[] withdrawals, uint256[][] shares);
        function getWithdrawableShares(address staker, address[] strategies)
            external view returns (uint256[] withdrawableShares, uint256[] depositShares);
        function isOperator(address operator) external view returns (bool);
        function minWithdrawalDelayBlocks() external view returns (uint32);
        function queueWithdrawals(QueuedWithdrawalParams[] params) external returns (bytes32[] roots);
        function registerAsOperator(address initDelegationApprover, uint32 allocationDelay, string metadataURI) external;
        function undelegate(address staker) external returns (bytes32[] withdrawalRoots);
    }

    /// Deposits, and burning what was slashed.
    #[derive(Debug, PartialEq, Eq)]
    interface StrategyManager {
        error CurrentlyPaused();
        error OnlyStrategyWhitelister();
        error SharesAmountZero();
        error StrategyNotWhitelisted();

        event BurnableSharesDecreased(address strategy, uint256 shares);
        event BurnableSharesIncreased(address strategy, uint256 shares);
        event Deposit(address staker, address strategy, uint256 shares);

        function DEFAULT_BURN_ADDRESS() external view returns (address);
        function addStrategiesToDepositWhitelist(address[] strategiesToWhitelist) external;
        function burnShares(address strategy) external;
        function depositIntoStrategy(address strategy, address token, uint256 amount) external returns (uint256 depositShares);
        function getBurnableShares(address strategy) external view returns (uint256);
        function stakerDepositShares(address staker, address strategy) external view returns (uint256);
        function strategyIsWhitelistedForDeposit(address strategy) external view returns (bool whitelisted);
    }

    /// A strategy over one ERC-20.
    #[derive(Debug, PartialEq, Eq)]
    interface Strategy {
        function sharesToUnderlyingView(uint256 amountShares) external view returns (uint256);
        function totalShares() external view returns (uint256);
        function underlyingToken() external view returns (address);
    }

    /// Payments to operators and their stakers for work that is done.
    #[derive(Debug, PartialEq, Eq)]
    interface RewardsCoordinator {
        struct StrategyAndMultiplier { address strategy; uint96 multiplier; }
        struct RewardsSubmission {
            StrategyAndMultiplier[] strategiesAndMultipliers; address token; uint256 amount; uint32 startTimestamp; uint32 duration;
        }
        struct OperatorReward { address operator; uint256 amount; }
        struct OperatorDirectedRewardsSubmission {
            StrategyAndMultiplier[] strategiesAndMultipliers; address token; OperatorReward[] operatorRewards;
            uint32 startTimestamp; uint32 duration; string description;
        }

        error AmountIsZero();
        error DurationExceedsMax();
        error DurationIsZero();
        error InvalidDurationRemainder();
        error InvalidOperatorSet();
        error InvalidPermissions();
        error InvalidStartTimestampRemainder();
        error OperatorsNotInAscendingOrder();
        error StartTimestampTooFarInFuture();
        error StartTimestampTooFarInPast();
        error StrategiesNotInAscendingOrder();
        error StrategyNotWhitelisted();
        error SubmissionNotRetroactive();

        event OperatorDirectedOperatorSetRewardsSubmissionCreated(
            address indexed caller, bytes32 indexed operatorDirectedRewardsSubmissionHash, OperatorSet operatorSet,
            uint256 submissionNonce, OperatorDirectedRewardsSubmission operatorDirectedRewardsSubmission
        );

        function CALCULATION_INTERVAL_SECONDS() external view returns (uint32);
        function GENESIS_REWARDS_TIMESTAMP() external view returns (uint32);
        function MAX_REWARDS_DURATION() external view returns (uint32);
        function MAX_RETROACTIVE_LENGTH() external view returns (uint32);
        function createAVSRewardsSubmission(RewardsSubmission[] rewardsSubmissions) external;
        function createOperatorDirectedAVSRewardsSubmission(address avs, OperatorDirectedRewardsSubmission[] submissions) external;
        function createOperatorDirectedOperatorSetRewardsSubmission(OperatorSet operatorSet, OperatorDirectedRewardsSubmission[] submissions) external;
    }

    /// Who may call for whom.
    #[derive(Debug, PartialEq, Eq)]
    interface PermissionController {
        function canCall(address account, address caller, address target, bytes4 selector) external view returns (bool);
        function setAppointee(address account, address appointee, address target, bytes4 selector) external;
    }

    /// What a service's registrar answers.
    #[derive(Debug, PartialEq, Eq)]
    interface AVSRegistrar {
        function deregisterOperator(address operator, address avs, uint32[] operatorSetIds) external;
        function registerOperator(address operator, address avs, uint32[] operatorSetIds, bytes data) external;
        function supportsAVS(address avs) external view returns (bool);
    }
}

#[cfg(test)]
mod tests {
    use alloy::{hex, sol_types::SolCall as _};

    use super::*;

    /// Selectors as they stand in the released bytecode.
    #[test]
    fn selectors_are_those_of_the_released_core() {
        let selectors = [
            (AVSRegistrar::registerOperatorCall::SELECTOR, "c63fd502"),
            (AVSRegistrar::deregisterOperatorCall::SELECTOR, "303ca956"),
            (AVSRegistrar::supportsAVSCall::SELECTOR, "b5265787"),
        ];
        for (selector, expected) in selectors {
            assert_eq!(hex::encode(selector), expected);
        }
    }
}
