// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {EpochCommit, LicenseTerms, Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A host reports what it served when it suits it: in the moment it is asked, or so late that no bond is left to pay the royalty.
contract WithheldReportTest is Auditing {
    Statement internal served;
    uint64 internal epoch;

    function setUp() public override {
        super.setUp();
        approve(host.addr, address(escrow));
        // A customer that pays in money.
        served = serveOn(ChannelId.wrap(0), 1, 1_000_000, 0, 500_000);
        epoch = currentEpoch();
    }

    function ask() internal {
        bytes memory signature = signed(served);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(served, signature);
    }

    function answer(uint256 index) internal {
        bytes32 digest = leases.statementDigest(served);
        court.answerInclusion(digest, index, leafOf(served), pathIn(index, digest));
    }

    function royaltyDue() internal view returns (uint256) {
        return served.charge / 10;
    }

    // In the moment it is asked

    /// The host sees the question on its way and pays more to be first in the same block.
    function test_a_report_in_the_block_of_the_question_is_no_answer() public {
        toChallengeable(epoch);
        uint256 index = reportEpoch(epoch);
        ask();
        bytes32 digest = leases.statementDigest(served);
        MerkleSum.Sibling[] memory path = pathIn(index, digest);
        MerkleSum.Leaf memory leaf = leafOf(served);
        vm.expectRevert(
            abi.encodeWithSelector(IEvidenceCourt.ReportedAfterChallenge.selector, block.timestamp, block.timestamp)
        );
        court.answerInclusion(digest, index, leaf, path);
        later(ANSWER_WINDOW + 1);
        court.resolveInclusion(digest);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }

    /// Whoever reports within its time has an answer to every question, from the first moment on.
    function testFuzz_an_honest_host_s_report_answers_whenever_it_is_asked(uint256 reported, uint256 asked) public {
        toEndOf(epoch);
        uint256 from = usage.challengeableFrom(epoch);
        vm.warp(bound(reported, block.timestamp, from - 1));
        uint256 index = reportEpoch(epoch);
        vm.warp(bound(asked, from, from + 60 days));
        ask();
        answer(index);
        assertEq(court.owed(host.addr), CHALLENGE_BOND, "paid for its trouble");
        assertEq(leases.lease(leaseId).bond, BOND, "nothing was taken");
    }

    // So late that nothing is left

    function test_nothing_is_reported_when_the_time_for_claims_is_over() public {
        toEndOf(epoch);
        closeLease();
        uint64 until = leases.lease(leaseId).to + CLAIM_DELAY;
        EpochCommit memory late = commitOf(epoch, pending);
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(IUsageLog.TooLate.selector, until));
        vm.prank(host.addr);
        usage.commit(late, "");
        // What was never reported is missing, and says so for ever.
        bytes memory signature = signed(served);
        IEvidenceCourt.Absence memory nothing;
        vm.prank(payer.addr);
        court.proveOmission(served, signature, nothing);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }

    /// Invariant 5: what was reported in the last moment can still be collected, and the bond waits for it.
    function test_invariant_5_a_bond_waits_for_the_royalty_on_what_was_reported() public {
        toEndOf(epoch);
        closeLease();
        vm.warp(leases.lease(leaseId).to + CLAIM_DELAY);
        uint256 index = reportEpoch(epoch);
        vm.warp(leases.lease(leaseId).to + UNBONDING_DELAY);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.RoyaltyOwed.selector, royaltyDue()));
        withdrawBond();
        escrow.enforceRoyalty(leaseId, index, noSplits());
        assertEq(balanceOf(creator.addr), royaltyDue(), "the creator has its royalty");
        assertEq(withdrawBond(), BOND - royaltyDue(), "and the host the rest");
    }

    function test_a_host_that_settles_has_its_whole_bond_back() public {
        report();
        closeLease();
        MerkleSum.Sums memory used = usage.reported(leaseId);
        vm.prank(host.addr);
        escrow.settleRoyalty(leaseId, used, noSplits());
        later(UNBONDING_DELAY);
        assertEq(withdrawBond(), BOND, "all of it");
    }

    function test_a_host_whose_vouchers_are_claimed_has_its_whole_bond_back() public {
        delete pending;
        serve(1_000_000, 0, 500_000);
        report();
        closeLease();
        claimAs(host.addr, batchOf(acceptedClaim()));
        later(UNBONDING_DELAY);
        assertEq(withdrawBond(), BOND, "all of it");
    }

    /// Use that owes nothing holds no bond, paid or not.
    function test_terms_without_royalty_hold_no_bond() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        (terms.royaltyBps, terms.floorPrompt, terms.floorCached, terms.floorCompletion) = (0, 0, 0, 0);
        leaseId = openLease(publishTerms(terms));
        delete pending;
        serveOn(ChannelId.wrap(0), 2, 1_000_000, 0, 500_000);
        report();
        closeLease();
        later(UNBONDING_DELAY);
        assertEq(withdrawBond(), BOND, "all of it");
    }

    /// A debt that an empty bond left behind is paid before anything that is added to it is free.
    function test_a_debt_is_paid_before_the_bond_is_free() public {
        delete pending;
        // Royalty of 1,200 dollars, and a bond of 1,000.
        serveOn(ChannelId.wrap(0), 2, 0, 0, 10_000_000_000);
        report();
        later(3 days + 1);
        escrow.enforceRoyalty(leaseId, 0, noSplits());
        uint256 debt = escrow.royaltyDebt(leaseId);
        closeLease();
        vm.prank(host.addr);
        leases.addBond(leaseId, BOND);
        later(UNBONDING_DELAY);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.RoyaltyOwed.selector, debt));
        withdrawBond();
        escrow.enforceRoyalty(leaseId, 0, noSplits());
        assertEq(withdrawBond(), BOND - debt, "the rest");
    }

    // A host that is honest, and a payer that wants its vouchers void

    /// Enforced royalty counts the use as settled. A payer that enforces it as early as it can finds a host that claims every
    /// interval paid already, however early the terms let it.
    function testFuzz_a_host_that_claims_every_interval_is_not_robbed_by_enforcement(uint256 wait) public {
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.disputeWindow = MIN_DISPUTE_WINDOW;
        leaseId = openLease(publishTerms(terms));
        delete pending;
        serve(1_000_000, 0, 500_000);
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        uint256 index = report();
        uint256 from = block.timestamp;
        vm.warp(from + bound(wait, 0, CLAIM_INTERVAL));
        vm.expectPartialRevert(IPaymentEscrow.NotDue.selector);
        vm.prank(payer.addr);
        escrow.enforceRoyalty(leaseId, index, noSplits());
        claimAs(host.addr, batch);
        vm.warp(from + MIN_DISPUTE_WINDOW + 1);
        vm.expectRevert(IPaymentEscrow.NothingOwed.selector);
        vm.prank(payer.addr);
        escrow.enforceRoyalty(leaseId, index, noSplits());
    }
}
