// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {LeaseId} from "../../contracts/types/Ids.sol";
import {EpochCommit} from "../../contracts/types/Messages.sol";
import {Fixture} from "../utils/Fixture.sol";

contract CommitTest is Fixture {
    uint64 internal epoch;

    function setUp() public override {
        super.setUp();
        epoch = usage.epochOf(START * 1000);
        vm.warp(START + EPOCH_LENGTH);
    }

    function sample() internal view returns (EpochCommit memory) {
        return EpochCommit({
            leaseId: leaseId,
            epoch: epoch,
            root: keccak256("root"),
            requests: 3,
            promptTokens: 100,
            cachedTokens: 40,
            completionTokens: 50,
            charge: 700,
            previous: usage.lastDigest(leaseId)
        });
    }

    function commit(EpochCommit memory report) internal returns (uint256) {
        vm.prank(host.addr);
        return usage.commit(report, "");
    }

    function expectRefusal(EpochCommit memory report, bytes memory error) internal {
        vm.expectRevert(error);
        commit(report);
    }

    function test_a_report_is_kept_and_adds_up() public {
        EpochCommit memory first = sample();
        bytes32 digest = usage.reportDigest(first);
        vm.expectEmit(address(usage));
        emit IUsageLog.Reported(leaseId, epoch, 0, first, digest);
        assertEq(commit(first), 0, "the first");
        assertEq(usage.lastDigest(leaseId), digest, "what the next one follows");
        vm.warp(START + 2 * EPOCH_LENGTH);
        EpochCommit memory second = sample();
        second.epoch = epoch + 1;
        assertEq(commit(second), 1, "the second");
        assertEq(usage.reports(leaseId), 2, "both");

        IUsageLog.Report memory kept = usage.report(leaseId, 1);
        assertEq(kept.root, second.root, "root");
        assertEq(kept.epoch, epoch + 1, "epoch");
        assertEq(kept.committedAt, START + 2 * EPOCH_LENGTH, "time");
        assertEq(kept.cumulative.requests, 6, "requests");
        assertEq(kept.cumulative.promptTokens, 200, "prompt tokens");
        assertEq(kept.cumulative.cachedTokens, 80, "cached tokens");
        assertEq(kept.cumulative.completionTokens, 100, "completion tokens");
        assertEq(kept.cumulative.charge, 1_400, "charge");
        assertEq(abi.encode(usage.reported(leaseId)), abi.encode(kept.cumulative), "in all");
    }

    function test_an_epoch_is_reported_when_it_is_over() public {
        EpochCommit memory report = sample();
        report.epoch = epoch + 1;
        uint64 end = (epoch + 2) * EPOCH_LENGTH;
        vm.warp(end - 1);
        expectRefusal(report, abi.encodeWithSelector(IUsageLog.EpochNotOver.selector, end));
        vm.warp(end);
        commit(report);
    }

    function test_an_epoch_is_not_reported_after_a_later_one() public {
        vm.warp(START + 3 * EPOCH_LENGTH);
        EpochCommit memory report = sample();
        report.epoch = epoch + 1;
        commit(report);
        report = sample();
        expectRefusal(report, abi.encodeWithSelector(IUsageLog.EpochBeforeLast.selector, epoch + 1, epoch));
    }

    function test_an_epoch_is_reported_four_times_at_most() public {
        for (uint256 i = 0; i < 4; ++i) {
            commit(sample());
        }
        expectRefusal(sample(), abi.encodeWithSelector(IUsageLog.TooManyReports.selector, epoch));
        vm.warp(START + 2 * EPOCH_LENGTH);
        EpochCommit memory report = sample();
        report.epoch = epoch + 1;
        commit(report);
    }

    function test_reports_are_a_chain() public {
        EpochCommit memory first = sample();
        commit(first);
        EpochCommit memory fork = sample();
        fork.previous = 0;
        expectRefusal(
            fork, abi.encodeWithSelector(IUsageLog.PreviousReport.selector, usage.reportDigest(first), bytes32(0))
        );
        // The same report again does not follow itself.
        expectRefusal(
            first, abi.encodeWithSelector(IUsageLog.PreviousReport.selector, usage.reportDigest(first), bytes32(0))
        );
    }

    function test_reports_that_no_tree_could_have_are_refused() public {
        EpochCommit memory report = sample();
        report.cachedTokens = report.promptTokens + 1;
        expectRefusal(report, abi.encodeWithSelector(IUsageLog.CachedExceedsPrompt.selector, 101, 100));
        report = sample();
        report.root = 0;
        expectRefusal(report, abi.encodeWithSelector(IUsageLog.EmptyMismatch.selector, bytes32(0), 3));
        report = sample();
        report.requests = 0;
        expectRefusal(report, abi.encodeWithSelector(IUsageLog.EmptyMismatch.selector, report.root, 0));
        for (uint256 what = 0; what < 3; ++what) {
            report = sample();
            (report.root, report.requests, report.cachedTokens) = (0, 0, 0);
            report.promptTokens = what == 0 ? 1 : 0;
            report.completionTokens = what == 1 ? 1 : 0;
            report.charge = what == 2 ? 1 : 0;
            expectRefusal(report, abi.encodeWithSelector(IUsageLog.EmptyMismatch.selector, bytes32(0), 0));
        }
        (report.promptTokens, report.completionTokens, report.charge) = (0, 0, 0);
        commit(report);
    }

    function test_the_host_reports_or_whoever_holds_its_lease_key_s_signature() public {
        EpochCommit memory report = sample();
        vm.expectRevert(abi.encodeWithSelector(IUsageLog.NotHost.selector, host.addr, stranger.addr));
        vm.prank(stranger.addr);
        usage.commit(report, "");
        bytes memory signature = sign(stranger, usage.reportDigest(report));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        vm.prank(stranger.addr);
        usage.commit(report, signature);
        signature = sign(leaseKey, usage.reportDigest(report));
        vm.prank(stranger.addr);
        usage.commit(report, signature);
    }

    function test_a_lease_that_is_unknown_has_no_reports() public {
        EpochCommit memory report = sample();
        report.leaseId = LeaseId.wrap(7);
        expectRefusal(report, abi.encodeWithSelector(ILeaseManager.UnknownLease.selector, 7));
        vm.expectRevert(abi.encodeWithSelector(IUsageLog.UnknownReport.selector, leaseId, 0));
        usage.report(leaseId, 0);
        assertEq(usage.reported(LeaseId.wrap(7)).requests, 0, "nothing");
    }

    function testFuzz_a_moment_belongs_to_the_epoch_that_ends_after_it(uint64 timeMs) public view {
        timeMs = uint64(bound(timeMs, 0, type(uint64).max / 2));
        uint64 its = usage.epochOf(timeMs);
        assertLe(uint256(its) * EPOCH_LENGTH * 1000, timeMs, "it began");
        assertGt((uint256(its) + 1) * EPOCH_LENGTH * 1000, timeMs, "and is not over");
        assertEq(usage.challengeableFrom(its), (uint256(its) + 1) * EPOCH_LENGTH + COMMIT_GRACE, "demandable from");
    }

    function testFuzz_the_farthest_epoch_breaks_nothing(uint64 far) public {
        EpochCommit memory report = sample();
        report.epoch = uint64(bound(far, epoch + 1, type(uint64).max));
        vm.expectPartialRevert(IUsageLog.EpochNotOver.selector);
        commit(report);
    }
}
