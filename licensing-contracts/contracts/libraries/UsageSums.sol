// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Prices} from "../types/Messages.sol";
import {MerkleSum} from "./MerkleSum.sol";
import {Counts, Pricing} from "./Pricing.sol";

/// @title Arithmetic on what a lease used in all
library UsageSums {
    /// @dev Adds one claim's use and cost to a running sum.
    function add(MerkleSum.Sums memory sums, Counts memory used, uint256 cost) internal pure {
        sums.requests += used.requests;
        sums.promptTokens += used.promptTokens;
        sums.cachedTokens += used.cachedTokens;
        sums.completionTokens += used.completionTokens;
        // One claim's cost fits 128 bits; the checked sum of them must too.
        sums.charge += uint128(cost);
    }

    function plus(MerkleSum.Sums memory a, MerkleSum.Sums memory b) internal pure returns (MerkleSum.Sums memory) {
        return MerkleSum.Sums(
            a.requests + b.requests,
            a.promptTokens + b.promptTokens,
            a.cachedTokens + b.cachedTokens,
            a.completionTokens + b.completionTokens,
            a.charge + b.charge
        );
    }

    /// @dev Whether `whole` is at least `part` in everything.
    function covers(MerkleSum.Sums memory whole, MerkleSum.Sums memory part) internal pure returns (bool) {
        return whole.requests >= part.requests && whole.promptTokens >= part.promptTokens
            && whole.cachedTokens >= part.cachedTokens && whole.completionTokens >= part.completionTokens
            && whole.charge >= part.charge;
    }

    /// @dev What `part` lacks of `whole`, each by itself; cached tokens at most the prompt tokens that they are part of.
    function missing(MerkleSum.Sums memory whole, MerkleSum.Sums memory part)
        internal
        pure
        returns (MerkleSum.Sums memory rest)
    {
        rest.requests = _less(whole.requests, part.requests);
        rest.promptTokens = _less(whole.promptTokens, part.promptTokens);
        rest.cachedTokens = _less(whole.cachedTokens, part.cachedTokens);
        if (rest.cachedTokens > rest.promptTokens) rest.cachedTokens = rest.promptTokens;
        rest.completionTokens = _less(whole.completionTokens, part.completionTokens);
        rest.charge = whole.charge > part.charge ? whole.charge - part.charge : 0;
    }

    /// @dev The larger of each.
    function larger(MerkleSum.Sums memory a, MerkleSum.Sums memory b) internal pure returns (MerkleSum.Sums memory) {
        return MerkleSum.Sums(
            a.requests > b.requests ? a.requests : b.requests,
            a.promptTokens > b.promptTokens ? a.promptTokens : b.promptTokens,
            a.cachedTokens > b.cachedTokens ? a.cachedTokens : b.cachedTokens,
            a.completionTokens > b.completionTokens ? a.completionTokens : b.completionTokens,
            a.charge > b.charge ? a.charge : b.charge
        );
    }

    /// @dev The least royalty on `sums`, rounded down. Products stay below 2^64 * 2^128.
    function floorDown(MerkleSum.Sums memory sums, Prices memory floors) internal pure returns (uint256) {
        return Pricing.weigh(sums.requests, sums.promptTokens, sums.cachedTokens, sums.completionTokens, floors)
            / Pricing.PER_MILLION;
    }

    /// @dev The royalty on `sums`: the share of what was charged, and the floors of what was used at least.
    function royaltyDown(MerkleSum.Sums memory sums, uint16 royaltyBps, Prices memory floors)
        internal
        pure
        returns (uint256)
    {
        uint256 share = Pricing.shareDown(sums.charge, royaltyBps);
        uint256 floor = floorDown(sums, floors);
        return share > floor ? share : floor;
    }

    function _less(uint64 a, uint64 b) private pure returns (uint64) {
        return a > b ? a - b : 0;
    }
}
