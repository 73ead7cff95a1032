// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {Evidence} from "../../contracts/libraries/Evidence.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A host hides a request from the creator: it is missing from its epoch's reports, which the leaves prove between which it would
/// stand.
contract HiddenRequestTest is Auditing {
    Statement internal hidden;
    bytes32 internal digest;
    uint64 internal epoch;

    function setUp() public override {
        super.setUp();
        for (uint64 lane = 0; lane < 4; ++lane) {
            serveOn(channelId, lane, 1_000, 0, 100);
        }
        // Signed for the customer, and kept out of the report.
        hidden = draft(channelId, 9, 50_000, 0, 20_000);
        digest = leases.statementDigest(hidden);
        epoch = currentEpoch();
    }

    function absenceIn(uint256 first, uint256 count) internal view returns (IEvidenceCourt.Absence memory absence) {
        absence.firstReport = first;
        absence.neighbours = new MerkleSum.Neighbour[][](count);
        for (uint256 i = 0; i < count; ++i) {
            absence.neighbours[i] = neighboursIn(first + i, digest);
        }
    }

    function prove(IEvidenceCourt.Absence memory absence) internal {
        bytes memory signature = signed(hidden);
        vm.prank(payer.addr);
        court.proveOmission(hidden, signature, absence);
    }

    function expectNoProof(IEvidenceCourt.Absence memory absence, bytes memory error) internal {
        bytes memory signature = signed(hidden);
        vm.expectRevert(error);
        court.proveOmission(hidden, signature, absence);
    }

    function test_a_hidden_request_is_proven_and_punished_at_once() public {
        report();
        toChallengeable(epoch);
        IEvidenceCourt.Absence memory absence = absenceIn(0, 1);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Omission, BOND / 5, 0.1e18
        );
        prove(absence);
        uint256 royalty = hidden.charge / 10;
        uint256 reward = (BOND / 5 - royalty) * 3_000 / 10_000;
        assertEq(balanceOf(payer.addr), reward, "the reporter");
        assertEq(balanceOf(creator.addr), BOND / 5 - reward, "the creator is whole, and has the rest");
        assertTrue(court.punished(Evidence.omission(digest)), "on record");
        expectNoProof(
            absence, abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, Evidence.omission(digest))
        );
    }

    function test_hiding_much_costs_at_least_what_the_creator_lost() public {
        hidden = draft(channelId, 9, 0, 0, 20_000_000_000);
        digest = leases.statementDigest(hidden);
        report();
        toChallengeable(epoch);
        prove(absenceIn(0, 1));
        assertEq(leases.lease(leaseId).bond, 0, "a royalty of 2,400 dollars takes the whole bond");
        assertEq(balanceOf(creator.addr), BOND, "and it is the creator's");
        assertFalse(leases.isActive(leaseId), "suspended");
    }

    function test_an_epoch_that_was_not_reported_hides_everything() public {
        toChallengeable(epoch);
        prove(absenceIn(0, 0));
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }

    function test_an_epoch_that_was_reported_as_empty_hides_everything() public {
        toEndOf(epoch);
        commitLeaves(epoch, new MerkleSum.Leaf[](0));
        toChallengeable(epoch);
        prove(absenceIn(0, 1));
    }

    function test_an_epoch_between_reports_of_others_is_found_empty() public {
        report();
        uint64 skipped = currentEpoch();
        hidden = draft(channelId, 9, 50_000, 0, 20_000);
        digest = leases.statementDigest(hidden);
        later(EPOCH_LENGTH);
        serve(10, 0, 10);
        report();
        toChallengeable(skipped);
        prove(absenceIn(1, 0));
    }

    function test_every_report_of_the_epoch_must_be_looked_through() public {
        toEndOf(epoch);
        MerkleSum.Leaf[] memory first = new MerkleSum.Leaf[](1);
        first[0] = pending[0];
        reportedLeaves[0].push(first[0]);
        commitLeaves(epoch, first);
        pending[0] = pending[3];
        pending.pop();
        reportEpoch(epoch);
        toChallengeable(epoch);
        expectNoProof(absenceIn(0, 1), abi.encodeWithSelector(IEvidenceCourt.WrongEpoch.selector, epoch, epoch));
        expectNoProof(absenceIn(1, 1), abi.encodeWithSelector(IEvidenceCourt.WrongEpoch.selector, epoch, epoch));
        prove(absenceIn(0, 2));
    }

    function test_reports_of_other_epochs_prove_nothing() public {
        report();
        serve(10, 0, 10);
        report();
        toChallengeable(epoch + 1);
        expectNoProof(absenceIn(1, 1), abi.encodeWithSelector(IEvidenceCourt.WrongEpoch.selector, epoch, epoch));
        expectNoProof(absenceIn(0, 2), abi.encodeWithSelector(IEvidenceCourt.WrongEpoch.selector, epoch, epoch + 1));
        expectNoProof(absenceIn(0, 0), abi.encodeWithSelector(IEvidenceCourt.WrongEpoch.selector, epoch, epoch));
    }

    function test_a_report_that_does_not_exist_proves_nothing() public {
        toChallengeable(epoch);
        IEvidenceCourt.Absence memory absence;
        absence.firstReport = 5;
        expectNoProof(absence, abi.encodeWithSelector(IUsageLog.UnknownReport.selector, leaseId, 4));
    }

    function test_a_proof_before_its_time_is_refused() public {
        report();
        IEvidenceCourt.Absence memory absence = absenceIn(0, 1);
        uint256 from = usage.challengeableFrom(epoch);
        vm.warp(from - 1);
        expectNoProof(absence, abi.encodeWithSelector(IEvidenceCourt.NotChallengeable.selector, from));
    }

    function test_a_statement_that_the_host_did_not_sign_accuses_nobody() public {
        report();
        toChallengeable(epoch);
        IEvidenceCourt.Absence memory absence = absenceIn(0, 1);
        bytes memory forged = sign(stranger, digest);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.proveOmission(hidden, forged, absence);
    }

    /// Invariant 6, on the real contracts: no list of neighbours whatsoever proves an included statement omitted.
    /// forge-config: default.fuzz.runs = 64
    function testFuzz_invariant_6_an_included_statement_is_never_proven_omitted(
        uint256 which,
        uint256 a,
        uint256 b,
        uint8 shape
    ) public {
        MerkleSum.Leaf[] memory leaves = pending;
        report();
        toChallengeable(epoch);
        uint64 lane = uint64(bound(which, 0, 3));
        digest = leaves[lane].digest;
        IEvidenceCourt.Absence memory absence;
        absence.neighbours = new MerkleSum.Neighbour[][](shape % 3);
        for (uint256 i = 0; i < absence.neighbours.length; ++i) {
            absence.neighbours[i] = anyNeighbours(a, b, shape);
        }
        // The lane's first and only request, as it was signed.
        hidden = statementOf(lane);
        assertEq(leases.statementDigest(hidden), digest, "the statement that is in the report");
        bytes memory signature = signed(hidden);
        vm.prank(payer.addr);
        (bool proven,) = address(court).call(abi.encodeCall(court.proveOmission, (hidden, signature, absence)));
        assertFalse(proven, "an honest host was convicted");
        assertEq(leases.lease(leaseId).bond, BOND, "nothing was taken");
    }

    function anyNeighbours(uint256 a, uint256 b, uint8 shape)
        internal
        view
        returns (MerkleSum.Neighbour[] memory neighbours)
    {
        neighbours = new MerkleSum.Neighbour[](shape / 3 % 3);
        for (uint256 i = 0; i < neighbours.length; ++i) {
            uint256 place = bound(i == 0 ? a : b, 0, 3);
            MerkleSum.Leaf memory leaf = reportedLeaves[0][place];
            neighbours[i] = MerkleSum.Neighbour(leaf, pathIn(0, leaf.digest));
        }
    }

    function statementOf(uint64 lane) internal returns (Statement memory statement) {
        uint256 now_ = block.timestamp;
        delete laneStates[channelId][lane];
        vm.warp(START);
        statement = draft(channelId, lane, 1_000, 0, 100);
        vm.warp(now_);
    }

    function test_silence_and_absence_are_one_offence() public {
        report();
        toChallengeable(epoch);
        bytes memory signature = signed(hidden);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(hidden, signature);
        prove(absenceIn(0, 1));
        later(ANSWER_WINDOW + 1);
        court.resolveInclusion(digest);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished once");
        assertEq(court.owed(payer.addr), CHALLENGE_BOND, "and the challenger has its bond back");
        assertEq(audit.openCases(leaseId), 0, "closed");
    }
}
