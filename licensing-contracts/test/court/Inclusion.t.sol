// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ICoinBonds} from "../../contracts/interfaces/ICoinBonds.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {LeaseId} from "../../contracts/types/Ids.sol";
import {Statement} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// "Where is my request in your report?": the host shows it in time, or loses by silence.
contract InclusionTest is Auditing {
    Statement internal mine;
    bytes32 internal digest;
    uint64 internal epoch;

    function setUp() public override {
        super.setUp();
        serve(1_000, 0, 100);
        mine = serve(2_000, 500, 300);
        serve(3_000, 0, 10);
        digest = leases.statementDigest(mine);
        epoch = currentEpoch();
    }

    function challenge() internal {
        bytes memory signature = signed(mine);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
    }

    function answer(uint256 index) internal {
        court.answerInclusion(digest, index, leafOf(mine), pathIn(index, digest));
    }

    function expectNoAnswer(uint256 index, bytes memory error) internal {
        MerkleSum.Leaf memory leaf = leafOf(mine);
        MerkleSum.Sibling[] memory path = pathIn(index, digest);
        vm.expectRevert(error);
        court.answerInclusion(digest, index, leaf, path);
    }

    function test_an_honest_host_answers_and_gets_the_bond() public {
        uint256 index = report();
        toChallengeable(epoch);
        bytes memory signature = signed(mine);
        vm.expectEmit(address(court));
        emit IEvidenceCourt.InclusionChallenged(digest, leaseId, payer.addr, uint64(block.timestamp) + ANSWER_WINDOW);
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
        assertEq(audit.openCases(leaseId), 1, "a case");
        IEvidenceCourt.InclusionChallenge memory asked = court.inclusionChallenge(digest);
        assertEq(asked.challenger, payer.addr, "by whom");
        assertEq(asked.royalty, royaltyOfMine(), "what the creator would lose");
        assertTrue(asked.open, "open");
        later(ANSWER_WINDOW);
        vm.expectEmit(address(court));
        emit IEvidenceCourt.InclusionAnswered(digest, index);
        vm.expectEmit(address(court));
        emit ICoinBonds.Owed(host.addr, CHALLENGE_BOND);
        answer(index);
        assertEq(audit.openCases(leaseId), 0, "closed");
        assertEq(court.owed(host.addr), CHALLENGE_BOND, "the bond");
        assertEq(leases.lease(leaseId).bond, BOND, "nothing was taken");
        later(ANSWER_WINDOW);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.NoChallenge.selector, digest));
        court.resolveInclusion(digest);
    }

    function test_a_silent_host_is_punished() public {
        report();
        toChallengeable(epoch);
        challenge();
        uint64 until = uint64(block.timestamp) + ANSWER_WINDOW;
        vm.warp(until);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.TooEarly.selector, until));
        court.resolveInclusion(digest);
        vm.warp(until + 1);
        vm.expectEmit(address(court));
        emit IEvidenceCourt.InclusionUnanswered(digest);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Silence, BOND / 5, 0.1e18
        );
        vm.prank(stranger.addr);
        court.resolveInclusion(digest);
        assertEq(court.owed(payer.addr), CHALLENGE_BOND, "the challenger has its bond back");
        assertEq(audit.hostStake(host.addr), HOST_STAKE * 9 / 10, "the allocation");
        uint256 royalty = royaltyOfMine();
        uint256 reward = (BOND / 5 - royalty) * 3_000 / 10_000;
        assertEq(balanceOf(payer.addr), reward, "the challenger is the reporter");
        assertEq(balanceOf(creator.addr), BOND / 5 - reward, "the creator is whole, and has the rest");
    }

    function royaltyOfMine() internal view returns (uint256) {
        return mine.charge / 10;
    }

    function test_a_late_answer_is_taken_until_somebody_resolves() public {
        uint256 index = report();
        toChallengeable(epoch);
        challenge();
        later(3 * ANSWER_WINDOW);
        answer(index);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.NoChallenge.selector, digest));
        court.resolveInclusion(digest);
    }

    /// A host cannot turn an omission into a delay.
    function test_a_report_made_when_it_was_asked_for_is_no_answer() public {
        toEndOf(epoch);
        toChallengeable(epoch);
        challenge();
        uint64 asked = uint64(block.timestamp);
        later(60);
        uint256 index = reportEpoch(epoch);
        expectNoAnswer(
            index,
            abi.encodeWithSelector(IEvidenceCourt.ReportedAfterChallenge.selector, asked, uint64(block.timestamp))
        );
    }

    function test_a_report_that_came_late_but_before_the_question_is_an_answer() public {
        toChallengeable(epoch);
        later(5 days);
        uint256 index = reportEpoch(epoch);
        later(1);
        challenge();
        answer(index);
    }

    function test_a_statement_may_stand_in_any_report_of_its_epoch() public {
        toEndOf(epoch);
        // The first report has only the first statement, the second one the others.
        MerkleSum.Leaf[] memory first = new MerkleSum.Leaf[](1);
        first[0] = pending[0];
        commitLeaves(epoch, first);
        pending[0] = pending[2];
        pending.pop();
        uint256 index = reportEpoch(epoch);
        toChallengeable(epoch);
        challenge();
        assertEq(index, 1, "the second report");
        answer(index);
    }

    function test_a_question_before_its_time_is_refused() public {
        report();
        uint256 from = usage.challengeableFrom(epoch);
        bytes memory signature = signed(mine);
        vm.warp(from - 1);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.NotChallengeable.selector, from));
        vm.prank(payer.addr);
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
        vm.warp(from);
        challenge();
    }

    function test_a_question_is_asked_once() public {
        uint256 index = report();
        toChallengeable(epoch);
        challenge();
        bytes memory signature = signed(mine);
        bytes memory refusal = abi.encodeWithSelector(IEvidenceCourt.AlreadyChallenged.selector, digest);
        vm.expectRevert(refusal);
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
        answer(index);
        vm.expectRevert(refusal);
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
    }

    function test_a_question_costs_its_bond() public {
        report();
        toChallengeable(epoch);
        bytes memory signature = signed(mine);
        vm.expectRevert(abi.encodeWithSelector(ICoinBonds.WrongBond.selector, CHALLENGE_BOND, 0));
        court.challengeInclusion(mine, signature);
    }

    function test_only_what_the_lease_key_signed_is_asked_for() public {
        report();
        toChallengeable(epoch);
        bytes memory signature = sign(stranger, digest);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
    }

    function test_a_statement_of_another_lease_is_no_question_to_this_one() public {
        LeaseId other = openLease(termsId);
        report();
        toChallengeable(epoch);
        bytes memory signature = signed(mine);
        mine.leaseId = other;
        // The same key, but the digest names the lease.
        vm.expectPartialRevert(Signatures.WrongSigner.selector);
        court.challengeInclusion{value: CHALLENGE_BOND}(mine, signature);
    }

    function test_another_leaf_is_no_answer() public {
        uint256 index = report();
        toChallengeable(epoch);
        challenge();
        MerkleSum.Leaf memory other = reportedLeaves[index][positionIn(index, digest) == 0 ? 1 : 0];
        MerkleSum.Sibling[] memory path = pathIn(index, other.digest);
        vm.expectRevert(
            abi.encodeWithSelector(
                IEvidenceCourt.LeafMismatch.selector, MerkleSum.leafHash(leafOf(mine)), MerkleSum.leafHash(other)
            )
        );
        court.answerInclusion(digest, index, other, path);
    }

    /// The count or charge of the leaf cannot be less than that of the statement.
    function test_a_report_with_a_smaller_leaf_is_no_answer() public {
        MerkleSum.Leaf[] memory leaves = new MerkleSum.Leaf[](1);
        leaves[0] = leafOf(mine);
        --leaves[0].charge;
        toEndOf(epoch);
        commitLeaves(epoch, leaves);
        toChallengeable(epoch);
        challenge();
        MerkleSum.Leaf memory right = leafOf(mine);
        vm.expectPartialRevert(MerkleSum.WrongTotals.selector);
        court.answerInclusion(digest, 0, right, new MerkleSum.Sibling[](0));
        MerkleSum.Leaf memory smaller = leaves[0];
        vm.expectPartialRevert(IEvidenceCourt.LeafMismatch.selector);
        court.answerInclusion(digest, 0, smaller, new MerkleSum.Sibling[](0));
    }

    function test_a_report_of_another_epoch_is_no_answer() public {
        report();
        serve(10, 0, 10);
        report();
        toChallengeable(epoch + 1);
        challenge();
        MerkleSum.Leaf memory leaf = leafOf(mine);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.WrongEpoch.selector, epoch, epoch + 1));
        court.answerInclusion(digest, 1, leaf, new MerkleSum.Sibling[](0));
    }

    function test_without_a_question_there_is_no_answer() public {
        uint256 index = report();
        expectNoAnswer(index, abi.encodeWithSelector(IEvidenceCourt.NoChallenge.selector, digest));
    }

    /// A statement that is no account of a request owes no royalty, and can be asked for all the same.
    function test_a_statement_with_more_cached_than_prompt_tokens_can_be_asked_for() public {
        mine.cachedTokens = mine.promptTokens + 1;
        digest = leases.statementDigest(mine);
        toChallengeable(epoch);
        challenge();
        assertEq(court.inclusionChallenge(digest).royalty, 0, "no royalty");
        later(ANSWER_WINDOW + 1);
        court.resolveInclusion(digest);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "and its host loses by silence");
    }

    /// forge-config: default.fuzz.runs = 32
    function testFuzz_invariant_6_an_honest_host_can_answer_every_question(uint8 count, uint256 which) public {
        count = uint8(bound(count, 1, 12));
        Statement[] memory all = new Statement[](count);
        for (uint256 i = 0; i < count; ++i) {
            all[i] = serveOn(channelId, uint64(i % 3), uint48(i * 100), uint48(i), uint48(i * 7));
        }
        uint256 index = report();
        toChallengeable(epoch);
        mine = all[bound(which, 0, count - 1)];
        digest = leases.statementDigest(mine);
        challenge();
        answer(index);
        assertEq(court.owed(host.addr), CHALLENGE_BOND, "the host wins");
    }
}
