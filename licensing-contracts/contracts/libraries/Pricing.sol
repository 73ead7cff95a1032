// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Prices, Split} from "../types/Messages.sol";

/// Cumulative use of one lane.
struct Counts {
    uint48 requests;
    uint48 promptTokens; // cached ones included
    uint48 cachedTokens;
    uint48 completionTokens;
}

/// @title Money as a pure function of counts
/// @dev `cost` rounds up once, over everything that a lane ever used; a charge is a difference of two costs. Every product is
/// below 2^48 * 2^128, so the sum of four cannot overflow a word.
library Pricing {
    /// @notice A total that no payment could have.
    error CostTooLarge(uint256 cost);
    /// @notice Counts on a lane never decrease, and cached tokens grow no faster than the prompt tokens that they are part of.
    error CountsDecrease(Counts before, Counts afterwards);

    uint256 internal constant PER_MILLION = 1e6;
    uint256 internal constant WHOLE_BPS = 10_000;

    /// @dev What `counts` cost in all, rounded up.
    function costUp(Counts memory counts, Prices memory prices) internal pure returns (uint128) {
        uint256 cost = millionthsUp(_weigh(counts, prices));
        require(cost <= type(uint128).max, CostTooLarge(cost));
        return uint128(cost);
    }

    /// @dev The least royalty on `counts`, rounded down.
    function floorDown(Counts memory counts, Prices memory floors) internal pure returns (uint256) {
        return _weigh(counts, floors) / PER_MILLION;
    }

    /// @dev Prices times counts, in millionths of the smallest unit. Counts below 2^64 cannot overflow it; `cached` is at most
    /// `prompt`.
    function weigh(uint256 requests, uint256 prompt, uint256 cached, uint256 completion, Prices memory prices)
        internal
        pure
        returns (uint256)
    {
        return (requests * prices.request) + ((prompt - cached) * prices.prompt) + (cached * prices.cached)
            + (completion * prices.completion);
    }

    function millionthsUp(uint256 millionths) internal pure returns (uint256) {
        return (millionths + PER_MILLION - 1) / PER_MILLION;
    }

    /// @dev `amount * bps / 10000`, rounded down.
    function shareDown(uint256 amount, uint16 bps) internal pure returns (uint256) {
        return amount * bps / WHOLE_BPS;
    }

    /// @dev What a lane used between two states of it.
    function difference(Counts memory before, Counts memory afterwards) internal pure returns (Counts memory used) {
        require(
            afterwards.requests >= before.requests && afterwards.promptTokens >= before.promptTokens
                && afterwards.cachedTokens >= before.cachedTokens
                && afterwards.completionTokens >= before.completionTokens
                && afterwards.promptTokens - before.promptTokens >= afterwards.cachedTokens - before.cachedTokens,
            CountsDecrease(before, afterwards)
        );
        unchecked {
            // Each difference was just compared.
            used = Counts({
                requests: afterwards.requests - before.requests,
                promptTokens: afterwards.promptTokens - before.promptTokens,
                cachedTokens: afterwards.cachedTokens - before.cachedTokens,
                completionTokens: afterwards.completionTokens - before.completionTokens
            });
        }
    }

    function _weigh(Counts memory counts, Prices memory prices) private pure returns (uint256) {
        return weigh(counts.requests, counts.promptTokens, counts.cachedTokens, counts.completionTokens, prices);
    }
}
