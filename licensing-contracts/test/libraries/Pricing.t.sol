// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";

import {Counts, Pricing} from "../../contracts/libraries/Pricing.sol";
import {Prices} from "../../contracts/types/Messages.sol";

contract PricingHarness {
    function costUp(Counts memory counts, Prices memory prices) external pure returns (uint128) {
        return Pricing.costUp(counts, prices);
    }

    function difference(Counts memory before, Counts memory afterwards) external pure returns (Counts memory) {
        return Pricing.difference(before, afterwards);
    }
}

contract PricingTest is Test {
    PricingHarness internal harness = new PricingHarness();

    function boundCounts(Counts memory counts, uint48 most) internal pure returns (Counts memory) {
        return Counts({
            requests: uint48(bound(counts.requests, 0, most)),
            promptTokens: uint48(bound(counts.promptTokens, 0, most)),
            cachedTokens: uint48(bound(counts.cachedTokens, 0, bound(counts.promptTokens, 0, most))),
            completionTokens: uint48(bound(counts.completionTokens, 0, most))
        });
    }

    function boundPrices(Prices memory prices) internal pure returns (Prices memory) {
        // The sum of four products over a million must stay below 2^128.
        uint128 most = type(uint80).max;
        return Prices({
            request: uint128(bound(prices.request, 0, most)),
            prompt: uint128(bound(prices.prompt, 0, most)),
            cached: uint128(bound(prices.cached, 0, most)),
            completion: uint128(bound(prices.completion, 0, most))
        });
    }

    function plus(Counts memory a, Counts memory b) internal pure returns (Counts memory) {
        return Counts(
            a.requests + b.requests,
            a.promptTokens + b.promptTokens,
            a.cachedTokens + b.cachedTokens,
            a.completionTokens + b.completionTokens
        );
    }

    function test_a_worked_example() public pure {
        // 3 · 2 + 600 · 0.0006 + 400 · 0.00006 + 250 · 0.0024 = 6 + 0.36 + 0.024 + 0.6 = 6.984
        Counts memory counts = Counts(3, 1000, 400, 250);
        Prices memory prices = Prices(2_000_000, 600, 60, 2_400);
        assertEq(Pricing.costUp(counts, prices), 7, "6.984 rounded up");
    }

    function testFuzz_the_cost_is_the_smallest_amount_that_covers_the_use(Counts memory counts, Prices memory prices)
        public
        pure
    {
        counts = boundCounts(counts, type(uint48).max);
        prices = boundPrices(prices);
        uint256 exact = uint256(counts.requests) * prices.request + uint256(counts.promptTokens - counts.cachedTokens)
            * prices.prompt + uint256(counts.cachedTokens) * prices.cached + uint256(counts.completionTokens)
            * prices.completion;
        uint256 cost = Pricing.costUp(counts, prices);
        assertGe(cost * 1e6, exact, "covers the use");
        assertLt(cost * 1e6, exact + 1e6, "and no more than that");
    }

    function testFuzz_charges_add_up_to_the_cost_however_use_is_cut(
        Counts memory first,
        Counts memory second,
        Counts memory third,
        Prices memory prices
    ) public pure {
        uint48 most = type(uint48).max / 4;
        prices = boundPrices(prices);
        Counts memory a = boundCounts(first, most);
        Counts memory b = plus(a, boundCounts(second, most));
        Counts memory c = plus(b, boundCounts(third, most));
        uint256 atOnce = Pricing.costUp(c, prices);
        uint256 charges = Pricing.costUp(a, prices) + (Pricing.costUp(b, prices) - Pricing.costUp(a, prices))
            + (Pricing.costUp(c, prices) - Pricing.costUp(b, prices));
        assertEq(charges, atOnce, "one request or many cost the same");
    }

    /// What makes the host's remainder of a claim never negative.
    function testFuzz_royalty_and_validators_never_take_more_than_the_claim(
        Counts memory first,
        Counts memory second,
        Prices memory prices,
        Prices memory floors,
        uint16 royaltyBps,
        uint16 validatorBps
    ) public pure {
        validatorBps = uint16(bound(validatorBps, 0, 10_000));
        royaltyBps = uint16(bound(royaltyBps, 0, 10_000 - validatorBps));
        uint48 most = type(uint48).max / 2;
        prices = boundPrices(prices);
        floors = leaveRoom(floors, prices, validatorBps);
        Counts memory before = boundCounts(first, most);
        Counts memory used = boundCounts(second, most);
        uint256 cost = Pricing.costUp(plus(before, used), prices) - Pricing.costUp(before, prices);
        uint256 royalty = Pricing.shareDown(cost, royaltyBps);
        uint256 floor = Pricing.floorDown(used, floors);
        if (floor > royalty) royalty = floor;
        assertLe(royalty + Pricing.shareDown(cost, validatorBps), cost, "shares of a claim");
    }

    /// Floors as `LeaseManager.open` admits them: price · (1 − validators' share) ≥ floor.
    function leaveRoom(Prices memory floors, Prices memory prices, uint256 validatorBps)
        internal
        pure
        returns (Prices memory)
    {
        uint256 rest = 10_000 - validatorBps;
        return Prices({
            request: uint128(bound(floors.request, 0, uint256(prices.request) * rest / 10_000)),
            prompt: uint128(bound(floors.prompt, 0, uint256(prices.prompt) * rest / 10_000)),
            cached: uint128(bound(floors.cached, 0, uint256(prices.cached) * rest / 10_000)),
            completion: uint128(bound(floors.completion, 0, uint256(prices.completion) * rest / 10_000))
        });
    }

    function test_a_cost_that_no_payment_could_have_is_refused() public {
        Counts memory counts = Counts(type(uint48).max, 0, 0, 0);
        Prices memory prices = Prices(type(uint128).max, 0, 0, 0);
        uint256 cost = (uint256(type(uint48).max) * type(uint128).max + 999_999) / 1e6;
        vm.expectRevert(abi.encodeWithSelector(Pricing.CostTooLarge.selector, cost));
        harness.costUp(counts, prices);
    }

    function testFuzz_the_difference_of_two_states_is_what_was_used(Counts memory first, Counts memory second)
        public
        view
    {
        uint48 most = type(uint48).max / 2;
        Counts memory before = boundCounts(first, most);
        Counts memory used = boundCounts(second, most);
        assertEq(
            abi.encode(harness.difference(before, plus(before, used))),
            abi.encode(used),
            "before and after differ by it"
        );
    }

    function test_counts_that_decrease_are_refused() public {
        Counts memory before = Counts(5, 50, 5, 500);
        for (uint256 what = 0; what < 5; ++what) {
            Counts memory afterwards = Counts(6, 60, 6, 600);
            if (what == 0) afterwards.requests = 4;
            else if (what == 1) afterwards.promptTokens = 49;
            else if (what == 2) afterwards.cachedTokens = 4;
            else if (what == 3) afterwards.completionTokens = 499;
            else afterwards.cachedTokens = 16; // eleven more, of ten more prompt tokens
            vm.expectRevert(abi.encodeWithSelector(Pricing.CountsDecrease.selector, before, afterwards));
            harness.difference(before, afterwards);
        }
    }
}
