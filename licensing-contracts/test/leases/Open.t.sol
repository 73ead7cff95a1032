// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ExactTransfer} from "../../contracts/libraries/ExactTransfer.sol";
import {LeaseId, TermsId} from "../../contracts/types/Ids.sol";
import {LicenseTerms, Prices} from "../../contracts/types/Messages.sol";
import {Fixture} from "../utils/Fixture.sol";
import {FeeToken} from "../utils/Tokens.sol";

contract OpenTest is Fixture {
    function expectRefusal(ILeaseManager.OpenRequest memory opening, bytes memory error) internal {
        vm.expectRevert(error);
        openLease(opening);
    }

    function test_a_lease_is_what_was_asked_for() public {
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        uint256 held = token.balanceOf(address(leases));
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseOpened(
            LeaseId.wrap(2),
            termsId,
            host.addr,
            opening.leaseKey,
            opening.variantRoot,
            opening.endpoint,
            opening.prices,
            START,
            opening.to,
            BOND
        );
        LeaseId id = openLease(opening);
        assertEq(LeaseId.unwrap(id), 2, "numbered");
        assertEq(token.balanceOf(address(leases)), held + BOND, "the bond is held");
        ILeaseManager.LeaseRecord memory lease = leases.lease(id);
        assertEq(TermsId.unwrap(lease.termsId), TermsId.unwrap(termsId), "terms");
        assertEq(lease.host, host.addr, "host");
        assertEq(lease.leaseKey, leaseKey.addr, "lease key");
        assertEq(lease.from, START, "from");
        assertEq(lease.to, opening.to, "to");
        assertEq(lease.bond, BOND, "bond");
        assertEq(lease.variantRoot, opening.variantRoot, "variant");
        assertEq(abi.encode(lease.prices), abi.encode(opening.prices), "prices");
        assertTrue(lease.state == ILeaseManager.LeaseState.Open, "open");
        assertTrue(leases.isActive(id), "active");
    }

    function test_the_account_is_what_paying_depends_on() public view {
        ILeaseManager.LeaseAccount memory account = leases.account(leaseId);
        assertEq(account.host, host.addr, "host");
        assertEq(account.leaseKey, leaseKey.addr, "lease key");
        assertEq(account.creator, creator.addr, "creator");
        assertEq(account.token, address(token), "token");
        assertEq(account.claimableUntil, START + 90 days + CLAIM_DELAY, "claimable until");
        assertEq(account.disputeWindow, 3 days, "dispute window");
        assertEq(account.royaltyBps, 1_000, "royalty");
        assertEq(account.validatorBps, 100, "validators");
        assertEq(account.floors.completion, 60_000, "floor");
    }

    function test_terms_that_are_closed_take_no_lease() public {
        vm.prank(creator.addr);
        registry.closeTerms(termsId);
        expectRefusal(
            defaultOpening(termsId), abi.encodeWithSelector(ILeaseManager.TermsClosedForLeases.selector, termsId)
        );
    }

    function test_terms_that_are_unknown_take_no_lease() public {
        expectRefusal(
            defaultOpening(TermsId.wrap("unknown")),
            abi.encodeWithSelector(IModelRegistry.UnknownTerms.selector, bytes32("unknown"))
        );
    }

    function test_a_lease_lies_within_the_terms_validity() public {
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        opening.to = START + 365 days + 1;
        expectRefusal(opening, abi.encodeWithSelector(ILeaseManager.OutsideTerms.selector, START, START + 365 days));
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.validFrom = START + 1;
        opening = defaultOpening(publishTerms(terms));
        expectRefusal(opening, abi.encodeWithSelector(ILeaseManager.OutsideTerms.selector, START + 1, START + 365 days));
        vm.warp(START + 1);
        openLease(opening);
    }

    function test_a_lease_ends_in_the_future_and_has_a_key() public {
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        opening.to = START;
        expectRefusal(opening, abi.encodeWithSelector(ILeaseManager.NotLater.selector, START, START));
        opening = defaultOpening(termsId);
        opening.leaseKey = address(0);
        expectRefusal(opening, abi.encodeWithSelector(ILeaseManager.Zero.selector));
    }

    function test_prices_cover_the_floors_and_the_validators_share() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        // A tenth for the validators: a price of 1,000 covers a floor of 900.
        terms.validatorBps = 1_000;
        (terms.floorRequest, terms.floorPrompt, terms.floorCached, terms.floorCompletion) = (900, 900, 900, 900);
        TermsId strict = publishTerms(terms);
        for (uint256 item = 0; item < 4; ++item) {
            ILeaseManager.OpenRequest memory opening = defaultOpening(strict);
            opening.prices = Prices(1_000, 1_000, 1_000, 1_000);
            if (item == 0) opening.prices.request = 999;
            else if (item == 1) opening.prices.prompt = 999;
            else if (item == 2) opening.prices.cached = 999;
            else opening.prices.completion = 999;
            expectRefusal(opening, abi.encodeWithSelector(ILeaseManager.PriceBelowFloor.selector, item, 999, 900));
        }
        ILeaseManager.OpenRequest memory lowest = defaultOpening(strict);
        lowest.prices = Prices(1_000, 1_000, 1_000, 1_000);
        openLease(lowest);
    }

    function test_cached_tokens_cost_no_more_than_others() public {
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        opening.prices.cached = opening.prices.prompt + 1;
        expectRefusal(
            opening,
            abi.encodeWithSelector(
                ILeaseManager.CachedPriceAbovePrice.selector, opening.prices.cached, opening.prices.prompt
            )
        );
    }

    function test_a_bond_is_at_least_the_terms_minimum_and_is_really_paid() public {
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        opening.bond = 500e6 - 1;
        expectRefusal(opening, abi.encodeWithSelector(ILeaseManager.BondTooSmall.selector, 500e6, 500e6 - 1));

        FeeToken hostile = new FeeToken();
        hostile.mint(host.addr, 10_000e6);
        vm.prank(host.addr);
        hostile.approve(address(leases), type(uint256).max);
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.paymentToken = address(hostile);
        opening = defaultOpening(publishTerms(terms));
        expectRefusal(opening, abi.encodeWithSelector(ExactTransfer.TokenTookFee.selector, BOND, BOND - BOND / 100));
    }

    function test_an_excluded_host_opens_nothing_and_renews_nothing() public {
        vm.expectEmit(address(leases));
        emit ILeaseManager.ExclusionChanged(modelId, host.addr, true);
        vm.prank(creator.addr);
        leases.setExcluded(modelId, host.addr, true);
        bytes memory refusal = abi.encodeWithSelector(ILeaseManager.HostExcluded.selector, modelId, host.addr);
        expectRefusal(defaultOpening(termsId), refusal);
        vm.expectRevert(refusal);
        vm.prank(host.addr);
        leases.renew(leaseId, START + 100 days);
        vm.prank(creator.addr);
        leases.setExcluded(modelId, host.addr, false);
        openLease(termsId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.NotCreator.selector, creator.addr, stranger.addr));
        vm.prank(stranger.addr);
        leases.setExcluded(modelId, host.addr, true);
    }

    // The restaked allocation, on the real core

    function test_whoever_is_no_member_of_the_hosts_set_opens_nothing() public {
        token.mint(stranger.addr, BOND);
        approve(stranger.addr, address(leases));
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.RestakeTooSmall.selector, 100 ether, 0));
        vm.prank(stranger.addr);
        leases.open(opening);
    }

    function test_a_host_with_too_little_stake_opens_nothing() public {
        makeHost(stranger.addr, 100 ether - 1);
        token.mint(stranger.addr, BOND);
        approve(stranger.addr, address(leases));
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.RestakeTooSmall.selector, 100 ether, 100 ether - 1));
        vm.prank(stranger.addr);
        leases.open(opening);
        depositStake(stranger.addr, 1);
        vm.prank(stranger.addr);
        leases.open(opening);
    }

    function test_a_host_that_left_the_set_opens_nothing_although_it_can_still_be_slashed() public {
        leaveSet(host.addr, hosts());
        assertTrue(allocations.isOperatorSlashable(host.addr, hosts()), "slashable for the deallocation delay");
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        vm.expectPartialRevert(ILeaseManager.RestakeTooSmall.selector);
        openLease(opening);
    }

    // Renewal

    function test_a_lease_is_renewed_at_the_same_prices() public {
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseRenewed(leaseId, START + 200 days);
        vm.prank(host.addr);
        leases.renew(leaseId, START + 200 days);
        assertEq(leases.lease(leaseId).to, START + 200 days, "longer");
    }

    function test_renewals_are_refused_each_by_name() public {
        vm.startPrank(host.addr);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.NotLater.selector, START + 90 days, START + 90 days));
        leases.renew(leaseId, START + 90 days);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.OutsideTerms.selector, START, START + 365 days));
        leases.renew(leaseId, START + 366 days);
        vm.warp(START + 90 days);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.LeaseOver.selector, START + 90 days));
        leases.renew(leaseId, START + 91 days);
        vm.stopPrank();
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.NotHost.selector, host.addr, stranger.addr));
        vm.prank(stranger.addr);
        leases.renew(leaseId, START + 91 days);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.UnknownLease.selector, 7));
        leases.renew(LeaseId.wrap(7), START + 91 days);
    }

    /// The floors that `open` checks are exactly those under which a claim's parts fit into it.
    function test_price_vectors_are_accepted_and_refused_as_computed_elsewhere() public {
        string memory json = vm.readFile(string.concat(vm.projectRoot(), "/vectors/money.json"));
        uint256 checked = 0;
        uint256 accepted = 0;
        for (; vm.keyExistsJson(json, string.concat(".prices[", vm.toString(checked), "]")); ++checked) {
            string memory path = string.concat(".prices[", vm.toString(checked), "]");
            LicenseTerms memory terms = defaultTerms(modelId);
            terms.royaltyBps = 0;
            terms.validatorBps = uint16(vm.parseJsonUint(json, string.concat(path, ".validatorBps")));
            Prices memory floors = pricesOf(json, string.concat(path, ".floors"));
            terms.floorRequest = floors.request;
            terms.floorPrompt = floors.prompt;
            terms.floorCached = floors.cached;
            terms.floorCompletion = floors.completion;
            ILeaseManager.OpenRequest memory opening = defaultOpening(publishTerms(terms));
            opening.prices = pricesOf(json, string.concat(path, ".prices"));
            vm.prank(host.addr);
            (bool opened,) = address(leases).call(abi.encodeCall(leases.open, (opening)));
            assertEq(opened, vm.parseJsonBool(json, string.concat(path, ".accepted")), path);
            if (opened) ++accepted;
        }
        assertEq(checked, 40, "price vectors");
        assertTrue(accepted > 0 && accepted < checked, "of both kinds");
    }

    function pricesOf(string memory json, string memory path) internal pure returns (Prices memory) {
        return Prices(
            uint128(vm.parseJsonUint(json, string.concat(path, ".request"))),
            uint128(vm.parseJsonUint(json, string.concat(path, ".prompt"))),
            uint128(vm.parseJsonUint(json, string.concat(path, ".cached"))),
            uint128(vm.parseJsonUint(json, string.concat(path, ".completion")))
        );
    }
}
