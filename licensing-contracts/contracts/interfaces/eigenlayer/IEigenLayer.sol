// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

// The calls of the EigenLayer core (slashing release, v1.4 line) that Hallmark makes, written from its published ABI.

/// A group of operators of one service that are slashable together.
struct OperatorSet {
    address avs;
    uint32 id;
}

interface IAllocationManager {
    struct CreateSetParams {
        uint32 operatorSetId;
        address[] strategies;
    }

    struct SlashingParams {
        address operator;
        uint32 operatorSetId;
        address[] strategies; // ascending
        uint256[] wadsToSlash; // of what is allocated, 1e18 is all
        string description;
    }

    function updateAVSMetadataURI(address avs, string calldata metadataURI) external;
    function createOperatorSets(address avs, CreateSetParams[] calldata params) external;
    function slashOperator(address avs, SlashingParams calldata params) external;
    function isOperatorSlashable(address operator, OperatorSet calldata operatorSet) external view returns (bool);
    function isMemberOfOperatorSet(address operator, OperatorSet calldata operatorSet) external view returns (bool);
    function getMinimumSlashableStake(
        OperatorSet calldata operatorSet,
        address[] calldata operators,
        address[] calldata strategies,
        uint32 futureBlock
    ) external view returns (uint256[][] memory stake);
    /// Blocks for which an operator stays slashable after it began to leave.
    function DEALLOCATION_DELAY() external view returns (uint32);
}

interface IAVSRegistrar {
    function registerOperator(address operator, address avs, uint32[] calldata operatorSetIds, bytes calldata data)
        external;
    function deregisterOperator(address operator, address avs, uint32[] calldata operatorSetIds) external;
    function supportsAVS(address avs) external view returns (bool);
}

interface IRewardsCoordinator {
    struct StrategyAndMultiplier {
        address strategy;
        uint96 multiplier;
    }

    struct OperatorReward {
        address operator;
        uint256 amount;
    }

    struct OperatorDirectedRewardsSubmission {
        StrategyAndMultiplier[] strategiesAndMultipliers;
        address token;
        OperatorReward[] operatorRewards; // ascending by operator
        uint32 startTimestamp;
        uint32 duration;
        string description;
    }

    function createOperatorDirectedOperatorSetRewardsSubmission(
        OperatorSet calldata operatorSet,
        OperatorDirectedRewardsSubmission[] calldata submissions
    ) external;
    function CALCULATION_INTERVAL_SECONDS() external view returns (uint32);
}
