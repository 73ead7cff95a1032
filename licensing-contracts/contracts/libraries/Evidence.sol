// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILeaseManager} from "../interfaces/ILeaseManager.sol";
import {Prices, Statement} from "../types/Messages.sol";
import {MerkleSum} from "./MerkleSum.sol";
import {Counts, Pricing} from "./Pricing.sol";

/// @title What signed statements show by themselves
library Evidence {
    /// @dev What a statement should have charged. A statement that is no account of a request has no right charge: requests are
    /// numbered from 1, and cached tokens are prompt tokens.
    function chargeOf(Statement calldata statement, Prices memory prices) internal pure returns (uint256) {
        if (
            statement.seq == 0 || statement.cachedTokens > statement.promptTokens
                || statement.cachedTokensBefore > statement.promptTokensBefore
        ) return type(uint256).max;
        uint256 afterwards = Pricing.weigh(
            statement.seq,
            uint256(statement.promptTokensBefore) + statement.promptTokens,
            uint256(statement.cachedTokensBefore) + statement.cachedTokens,
            uint256(statement.completionTokensBefore) + statement.completionTokens,
            prices
        );
        uint256 before = Pricing.weigh(
            statement.seq - 1,
            statement.promptTokensBefore,
            statement.cachedTokensBefore,
            statement.completionTokensBefore,
            prices
        );
        return Pricing.millionthsUp(afterwards) - Pricing.millionthsUp(before);
    }

    /// @dev The royalty that is due on a statement.
    function royaltyOn(Statement calldata statement, ILeaseManager.LeaseAccount memory lease)
        internal
        pure
        returns (uint128)
    {
        if (statement.cachedTokens > statement.promptTokens) return 0;
        uint256 share = Pricing.shareDown(statement.charge, lease.royaltyBps);
        uint256 floor = Pricing.floorDown(
            Counts(1, statement.promptTokens, statement.cachedTokens, statement.completionTokens), lease.floors
        );
        uint256 royalty = share > floor ? share : floor;
        return royalty > type(uint128).max ? type(uint128).max : uint128(royalty);
    }

    function leafHash(Statement calldata statement, bytes32 digest) internal pure returns (bytes32) {
        return MerkleSum.leafHash(
            MerkleSum.Leaf(
                digest, statement.promptTokens, statement.cachedTokens, statement.completionTokens, statement.charge
            )
        );
    }

    /// @dev Two statements of one request that differ, or one that does not go on where the one before it ended.
    function contradict(Statement calldata first, bytes32 firstDigest, Statement calldata second, bytes32 secondDigest)
        internal
        pure
        returns (bool)
    {
        bool sameLane =
            first.leaseId == second.leaseId && first.channelId == second.channelId && first.lane == second.lane;
        if (!sameLane || firstDigest == secondDigest) return false;
        if (first.seq == second.seq) return true;
        if (uint256(first.seq) + 1 != second.seq) return false;
        return second.previous != firstDigest
            || second.promptTokensBefore != uint256(first.promptTokensBefore) + first.promptTokens
            || second.cachedTokensBefore != uint256(first.cachedTokensBefore) + first.cachedTokens
            || second.completionTokensBefore != uint256(first.completionTokensBefore) + first.completionTokens;
    }

    // Names of offences, each of which is punished once.

    function omission(bytes32 statementDigest) internal pure returns (bytes32) {
        return keccak256(abi.encode("omission", statementDigest));
    }

    function misprice(bytes32 statementDigest) internal pure returns (bytes32) {
        return keccak256(abi.encode("misprice", statementDigest));
    }

    /// @dev The request that a statement accounts for, of which there can be several accounts.
    function request(Statement calldata statement) internal pure returns (bytes32) {
        return keccak256(abi.encode("request", statement.leaseId, statement.channelId, statement.lane, statement.seq));
    }

    /// @dev By request: a host that signs three accounts of one request contradicts itself once.
    function equivocation(Statement calldata statement) internal pure returns (bytes32) {
        return
            keccak256(abi.encode("equivocation", statement.leaseId, statement.channelId, statement.lane, statement.seq));
    }
}
