// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {LicenseTerms, Split} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

/// Use that is reported owes its royalty, claimed or not.
contract RoyaltyTest is Serving {
    uint64 internal constant DISPUTE_WINDOW = 3 days;

    function setUp() public override {
        super.setUp();
        approve(host.addr, address(escrow));
    }

    /// Serves a customer that pays in money, outside of the escrow.
    function serveOutside(uint48 prompt, uint48 cached, uint48 completion) internal {
        serveOn(ChannelId.wrap(0), 1, prompt, cached, completion);
    }

    function balanceOf(address account) internal view returns (uint256) {
        return escrow.balance(address(token), account);
    }

    function test_royalty_on_use_billed_elsewhere_is_settled_by_the_host() public {
        serveOutside(1_000_000, 0, 500_000);
        report();
        MerkleSum.Sums memory use = usage.reported(leaseId);
        assertEq(use.charge, 1_000_005, "the charge");
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.RoyaltySettled(leaseId, use, 100_000);
        vm.prank(host.addr);
        assertEq(escrow.settleRoyalty(leaseId, use, noSplits()), 100_000, "a tenth");
        assertEq(balanceOf(creator.addr), 100_000, "credited");
        assertEq(escrow.settled(leaseId).charge, use.charge, "settled");
        later(DISPUTE_WINDOW + 1);
        vm.expectRevert(IPaymentEscrow.NothingOwed.selector);
        escrow.enforceRoyalty(leaseId, 0, noSplits());
    }

    /// What is settled cannot be claimed: a payer could otherwise pay the royalty instead of the bill.
    function test_only_the_host_settles() public {
        serve(1_000_000, 0, 500_000);
        report();
        MerkleSum.Sums memory use = usage.reported(leaseId);
        token.mint(payer.addr, 10e6);
        approve(payer.addr, address(escrow));
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotHost.selector, host.addr, payer.addr));
        vm.prank(payer.addr);
        escrow.settleRoyalty(leaseId, use, noSplits());
    }

    function test_cached_tokens_that_are_missing_count_as_no_more_than_the_prompt_tokens_that_are() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.royaltyBps = 0;
        leaseId = openLease(publishTerms(terms));
        serveOutside(1_000_000, 500_000, 0);
        report();
        // The host settles 800,000 prompt tokens as if none of them had been cached: of 200,000 that are missing, no
        // 500,000 can be cached.
        MerkleSum.Sums memory part = usage.reported(leaseId);
        (part.promptTokens, part.cachedTokens) = (800_000, 0);
        vm.prank(host.addr);
        assertEq(escrow.settleRoyalty(leaseId, part, noSplits()), 16_000, "800,000 at 0.02");
        later(DISPUTE_WINDOW + 1);
        assertEq(escrow.enforceRoyalty(leaseId, 0, noSplits()), 400, "200,000 at 0.002");
    }

    function test_what_is_settled_cannot_be_claimed_as_well() public {
        serve(1_000_000, 0, 500_000);
        report();
        MerkleSum.Sums memory use = usage.reported(leaseId);
        vm.prank(host.addr);
        escrow.settleRoyalty(leaseId, use, noSplits());
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        vm.expectPartialRevert(IPaymentEscrow.MoreThanReported.selector);
        claimAs(host.addr, batch);
    }

    function test_more_than_was_reported_is_not_settled() public {
        serveOutside(1_000, 0, 500);
        report();
        MerkleSum.Sums memory reported = usage.reported(leaseId);
        MerkleSum.Sums memory more = usage.reported(leaseId);
        ++more.completionTokens;
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.MoreThanReported.selector, reported, more));
        vm.prank(host.addr);
        escrow.settleRoyalty(leaseId, more, noSplits());
    }

    function test_settled_royalty_follows_the_terms_splits() public {
        Split[] memory splits = twoSplits();
        leaseId = openLease(publishTerms(defaultTerms(modelId), splits));
        serveOutside(1_000_000, 0, 500_000);
        report();
        MerkleSum.Sums memory use = usage.reported(leaseId);
        vm.expectRevert(
            abi.encodeWithSelector(IPaymentEscrow.WrongSplits.selector, keccak256(abi.encode(splits)), bytes32(0))
        );
        vm.prank(host.addr);
        escrow.settleRoyalty(leaseId, use, noSplits());
        vm.prank(host.addr);
        escrow.settleRoyalty(leaseId, use, splits);
        assertEq(balanceOf(splits[0].recipient), 25_000, "the parent");
        assertEq(balanceOf(splits[1].recipient), 10_000, "the contributor");
        assertEq(balanceOf(creator.addr), 65_000, "the creator");
    }

    function test_royalty_that_is_not_paid_in_time_is_taken_from_the_bond() public {
        serveOutside(1_000_000, 0, 500_000);
        report();
        uint64 due = uint64(block.timestamp) + DISPUTE_WINDOW;
        vm.warp(due);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotDue.selector, due));
        escrow.enforceRoyalty(leaseId, 0, noSplits());
        vm.warp(due + 1);
        vm.expectEmit(address(leases));
        emit ILeaseManager.LeaseStateChanged(leaseId, ILeaseManager.LeaseState.Suspended);
        vm.expectEmit(address(leases));
        emit ILeaseManager.BondCollected(leaseId, 100_000);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.RoyaltyEnforced(leaseId, 0, 100_000, 100_000);
        vm.prank(stranger.addr);
        assertEq(escrow.enforceRoyalty(leaseId, 0, noSplits()), 100_000, "collected");
        assertEq(balanceOf(creator.addr), 100_000, "credited");
        assertFalse(leases.isActive(leaseId), "the lease is suspended");
        vm.expectRevert(IPaymentEscrow.NothingOwed.selector);
        escrow.enforceRoyalty(leaseId, 0, noSplits());
    }

    function test_claimed_use_owes_nothing_more() public {
        serve(1_000_000, 0, 500_000);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        later(DISPUTE_WINDOW + 1);
        vm.expectRevert(IPaymentEscrow.NothingOwed.selector);
        escrow.enforceRoyalty(leaseId, 0, noSplits());
        assertTrue(leases.isActive(leaseId), "an honest host keeps its lease");
    }

    function test_use_that_is_not_due_yet_is_not_collected_with_what_is() public {
        serveOutside(1_000_000, 0, 500_000);
        report();
        later(2 days);
        serveOutside(5_000_000, 0, 500_000);
        report();
        later(1 days);
        assertEq(escrow.enforceRoyalty(leaseId, 0, noSplits()), 100_000, "the first report only");
        vm.expectPartialRevert(IPaymentEscrow.NotDue.selector);
        escrow.enforceRoyalty(leaseId, 1, noSplits());
    }

    function test_what_the_bond_cannot_pay_stays_owed() public {
        // Royalty of 1,200 dollars, and a bond of 1,000.
        serveOutside(0, 0, 10_000_000_000);
        report();
        later(DISPUTE_WINDOW + 1);
        uint256 owed = usage.reported(leaseId).charge / 10;
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.RoyaltyEnforced(leaseId, 0, owed, BOND);
        assertEq(escrow.enforceRoyalty(leaseId, 0, noSplits()), BOND, "the whole bond");
        assertEq(escrow.royaltyDebt(leaseId), owed - BOND, "the rest is owed");

        vm.prank(host.addr);
        leases.addBond(leaseId, BOND);
        assertEq(escrow.enforceRoyalty(leaseId, 0, noSplits()), owed - BOND, "collected when there is a bond again");
        assertEq(escrow.royaltyDebt(leaseId), 0, "nothing is owed");
        assertEq(balanceOf(creator.addr), owed, "the creator has all of it");
    }

    function test_an_empty_bond_suspends_the_lease_all_the_same() public {
        serveOutside(0, 0, 10_000_000_000);
        report();
        later(DISPUTE_WINDOW + 1);
        escrow.enforceRoyalty(leaseId, 0, noSplits());
        uint256 debt = escrow.royaltyDebt(leaseId);
        assertEq(escrow.enforceRoyalty(leaseId, 0, noSplits()), 0, "nothing to take");
        assertEq(escrow.royaltyDebt(leaseId), debt, "the debt stays");
    }

    function test_a_report_that_does_not_exist_owes_nothing() public {
        vm.expectRevert(abi.encodeWithSelector(IUsageLog.UnknownReport.selector, leaseId, 0));
        escrow.enforceRoyalty(leaseId, 0, noSplits());
    }

    /// However reports, claims and enforcement follow one another, the creator has the royalty of all reported use.
    function testFuzz_no_reported_use_escapes_its_royalty(uint48[4] memory tokens, uint8 claimed) public {
        for (uint256 i = 0; i < tokens.length; ++i) {
            uint48 completion = uint48(bound(tokens[i], 1_000, 10_000_000));
            if ((claimed >> i) & 1 == 1) {
                serve(0, 0, completion);
                report();
                claimAs(host.addr, batchOf(acceptedClaim()));
            } else {
                serveOutside(0, 0, completion);
                report();
            }
        }
        later(DISPUTE_WINDOW + 1);
        uint256 last = usage.reports(leaseId) - 1;
        if (escrow.settled(leaseId).charge != usage.reported(leaseId).charge) {
            escrow.enforceRoyalty(leaseId, last, noSplits());
        }
        uint256 least = usage.reported(leaseId).charge / 10;
        // Shares of five parts round down, each by less than a unit.
        assertGe(balanceOf(creator.addr) + tokens.length, least, "royalty of everything that was reported");
        assertEq(escrow.settled(leaseId).charge, usage.reported(leaseId).charge, "everything is settled");
    }

    function test_terms_without_a_floor_and_a_share_owe_nothing() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        (terms.royaltyBps, terms.floorPrompt, terms.floorCached, terms.floorCompletion) = (0, 0, 0, 0);
        leaseId = openLease(publishTerms(terms));
        serveOutside(1_000_000, 0, 500_000);
        report();
        later(DISPUTE_WINDOW + 1);
        vm.expectRevert(IPaymentEscrow.NothingOwed.selector);
        escrow.enforceRoyalty(leaseId, 0, noSplits());
    }
}
