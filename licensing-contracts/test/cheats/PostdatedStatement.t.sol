// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {Evidence} from "../../contracts/libraries/Evidence.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A host dates a statement in the future, so that no report which can be demanded has to hold it.
contract PostdatedStatementTest is Auditing {
    Statement internal postdated;
    bytes32 internal digest;

    function setUp() public override {
        super.setUp();
        postdated = draft(channelId, 9, 50_000, 0, 20_000);
        date(uint256(block.timestamp) + 3650 days);
    }

    function date(uint256 endedAt) internal {
        postdated.endedMs = uint64(endedAt * 1000);
        digest = leases.statementDigest(postdated);
    }

    function prove() internal {
        bytes memory signature = signed(postdated);
        vm.prank(payer.addr);
        court.provePostdating(postdated, signature);
    }

    function test_a_statement_that_is_there_before_its_time_is_punished_at_once() public {
        // Asking for it would take ten years.
        bytes memory signature = signed(postdated);
        vm.expectPartialRevert(IEvidenceCourt.NotChallengeable.selector);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(postdated, signature);

        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Omission, BOND / 5, 0.1e18
        );
        prove();
        uint256 reward = (BOND / 5 - uint256(postdated.charge) / 10) * 3_000 / 10_000;
        assertEq(balanceOf(payer.addr), reward, "the reporter");
        assertEq(balanceOf(creator.addr), BOND / 5 - reward, "the creator is whole, and has the rest");
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, Evidence.omission(digest)));
        court.provePostdating(postdated, signature);
    }

    /// When its time has come, it is the same omission: punished once.
    function test_postdating_and_omission_are_one_offence() public {
        date(uint256(block.timestamp) + 1 days);
        prove();
        later(2 days);
        bytes memory signature = signed(postdated);
        IEvidenceCourt.Absence memory nothing;
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, Evidence.omission(digest)));
        court.proveOmission(postdated, signature, nothing);
    }

    /// Clocks differ: an honest host is not punished for a quarter of an hour, nor for what it did in the past.
    function testFuzz_an_honest_host_s_clock_may_be_ahead(uint256 endedAt) public {
        endedAt = bound(endedAt, 0, block.timestamp + 15 minutes);
        date(endedAt);
        bytes memory signature = signed(postdated);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.NotPostdated.selector, endedAt));
        court.provePostdating(postdated, signature);
    }

    function test_a_second_more_is_too_much() public {
        date(block.timestamp + 15 minutes + 1);
        prove();
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }

    function test_a_forged_date_accuses_nobody() public {
        bytes memory forged = sign(stranger, digest);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.provePostdating(postdated, forged);
    }

    /// The other way round there is nothing to gain: an epoch of the past can be demanded at once.
    function testFuzz_a_statement_that_is_dated_back_is_missing_at_once(uint256 endedAt) public {
        serve(1_000, 0, 100);
        report();
        date(bound(endedAt, 0, START - 2 * EPOCH_LENGTH));
        bytes memory signature = signed(postdated);
        IEvidenceCourt.Absence memory absence;
        vm.prank(payer.addr);
        court.proveOmission(postdated, signature, absence);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }
}
