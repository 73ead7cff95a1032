// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {LeaseId, TaskId} from "../../contracts/types/Ids.sol";
import {Verdict} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";
import {Bls} from "../utils/Bls.sol";

contract VerdictsTest is Auditing {
    TaskId internal taskId;

    function setUp() public override {
        super.setUp();
        taskId = openTask(IAuditServiceManager.TaskKind.Substitution);
    }

    function expectRefusal(Verdict memory verdict, uint256 signers, bytes memory error) internal {
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), signers);
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(signers);
        vm.expectRevert(error);
        audit.submitVerdict(verdict, signature, keyG2, absent);
    }

    /// Submits with a list of non-signers that is not what it should be.
    function expectRefusedList(IAuditServiceManager.NonSigner[] memory absent, bytes memory error) internal {
        Verdict memory verdict = verdictOn(taskId, guilty());
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), 7);
        vm.expectRevert(error);
        audit.submitVerdict(verdict, signature, keyG2, absent);
    }

    function test_a_quorum_decides() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), 7);
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(7);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.VerdictSubmitted(taskId, verdict, 3 * VALIDATOR_STAKE, 4 * VALIDATOR_STAKE);
        vm.prank(stranger.addr);
        audit.submitVerdict(verdict, signature, keyG2, absent);
        IAuditServiceManager.Task memory task = audit.task(taskId);
        assertTrue(task.state == IAuditServiceManager.TaskState.Decided, "decided");
        assertTrue(task.outcome == IAuditServiceManager.Outcome.Guilty, "guilty");
        assertEq(task.deadline, block.timestamp + RESOLVE_WINDOW, "and open to contradiction");
    }

    /// forge-config: default.fuzz.runs = 48
    function testFuzz_two_thirds_of_the_weight_decide_and_less_does_not(uint256 signers) public {
        signers = bound(signers, 0, 15);
        uint256 count = 0;
        for (uint256 i = 0; i < 4; ++i) {
            count += (signers >> i) & 1;
        }
        Verdict memory verdict = verdictOn(taskId, notGuilty());
        if (count >= 3) {
            submit(verdict, signers);
        } else {
            expectRefusal(
                verdict,
                signers,
                abi.encodeWithSelector(
                    IAuditServiceManager.QuorumMissed.selector, count * VALIDATOR_STAKE, 4 * VALIDATOR_STAKE
                )
            );
        }
    }

    function test_weight_counts_and_not_heads() public {
        // 700 of 1,100: one with 300, and the four with 100 each.
        addValidator(4, 300 ether);
        Verdict memory verdict = verdictOn(taskId, guilty());
        expectRefusal(
            verdict,
            15,
            abi.encodeWithSelector(IAuditServiceManager.QuorumMissed.selector, 4 * VALIDATOR_STAKE, 700 ether)
        );
        submit(verdict, 16 + 3);
    }

    function test_whoever_is_not_named_as_absent_must_have_signed() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) = aggregate(audit.verdictDigest(verdict), 7);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.submitVerdict(verdict, signature, keyG2, nobody);
    }

    function test_a_signature_on_another_verdict_does_not_count() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        (BN254.G1Point memory signature, BN254.G2Point memory keyG2) =
            aggregate(audit.verdictDigest(verdictOn(taskId, notGuilty())), 15);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.submitVerdict(verdict, signature, keyG2, nobody);
    }

    function test_strangers_keys_do_not_count() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        bytes32 digest = audit.verdictDigest(verdict);
        BN254.G1Point memory signature = Bls.sign(12345, digest);
        BN254.G2Point memory keyG2 = Bls.publicKeyG2(12345);
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.submitVerdict(verdict, signature, keyG2, nobody);
    }

    function test_absent_validators_are_listed_once_and_in_order() public {
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(3);
        (absent[0], absent[1]) = (absent[1], absent[0]);
        expectRefusedList(absent, abi.encodeWithSelector(IAuditServiceManager.NonSignerOrder.selector, 4, 3));
        absent[1] = absent[0];
        expectRefusedList(absent, abi.encodeWithSelector(IAuditServiceManager.NonSignerOrder.selector, 4, 4));
        absent[0].number = 0;
        expectRefusedList(absent, abi.encodeWithSelector(IAuditServiceManager.NonSignerOrder.selector, 0, 0));
    }

    function testFuzz_absent_validators_are_those_that_are_stored(uint256 what) public {
        what = bound(what, 0, 4);
        IAuditServiceManager.NonSigner[] memory absent = nonSigners(7);
        if (what == 0) absent[0].number = 5;
        else if (what == 1) absent[0].number = 3;
        else if (what == 2) absent[0].operator = stranger.addr;
        else if (what == 3) --absent[0].weight;
        else absent[0].key = Bls.publicKey(5);
        expectRefusedList(
            absent, abi.encodeWithSelector(IAuditServiceManager.NonSignerUnknown.selector, absent[0].number)
        );
    }

    function test_an_aggregate_of_nobody_decides_nothing() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        BN254.G1Point memory nothing;
        BN254.G2Point memory nothingG2;
        IAuditServiceManager.NonSigner[] memory everybody = nonSigners(0);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.QuorumMissed.selector, 0, 4 * VALIDATOR_STAKE));
        audit.submitVerdict(verdict, nothing, nothingG2, everybody);
    }

    function test_without_validators_nothing_is_decided() public {
        for (uint256 i = 0; i < 4; ++i) {
            leaveSet(validatorAddresses[i], validatorSet());
        }
        Verdict memory verdict = verdictOn(taskId, guilty());
        BN254.G1Point memory nothing;
        BN254.G2Point memory nothingG2;
        IAuditServiceManager.NonSigner[] memory nobody = new IAuditServiceManager.NonSigner[](0);
        vm.expectRevert(abi.encodeWithSelector(IAuditServiceManager.QuorumMissed.selector, 0, 0));
        audit.submitVerdict(verdict, nothing, nothingG2, nobody);
    }

    function test_a_verdict_fits_its_task() public {
        bytes memory refusal = abi.encodeWithSelector(IAuditServiceManager.VerdictMismatch.selector);
        Verdict memory verdict = verdictOn(taskId, guilty());
        verdict.leaseId = LeaseId.wrap(2);
        expectRefusal(verdict, 15, refusal);
        verdict = verdictOn(taskId, guilty());
        verdict.kind = uint8(IAuditServiceManager.TaskKind.TokenCount);
        expectRefusal(verdict, 15, refusal);
        expectRefusal(verdictOn(taskId, 0), 15, refusal);
        expectRefusal(verdictOn(taskId, 3), 15, refusal);
        expectRefusal(verdictOn(taskId, 255), 15, refusal);
        verdict = verdictOn(taskId, guilty());
        verdict.taskId = TaskId.wrap(9);
        expectRefusal(verdict, 15, abi.encodeWithSelector(IAuditServiceManager.UnknownTask.selector, 9));
    }

    function test_a_verdict_comes_in_time() public {
        uint64 deadline = audit.task(taskId).deadline;
        Verdict memory verdict = verdictOn(taskId, guilty());
        vm.warp(deadline + 1);
        expectRefusal(verdict, 15, abi.encodeWithSelector(IAuditServiceManager.TooLate.selector, deadline));
        vm.warp(deadline);
        submit(verdict, 15);
    }

    function test_a_second_verdict_that_says_the_same_changes_nothing() public {
        submit(verdictOn(taskId, guilty()), 15);
        uint64 deadline = audit.task(taskId).deadline;
        later(1 hours);
        expectRefusal(
            verdictOn(taskId, guilty()), 15, abi.encodeWithSelector(IAuditServiceManager.VerdictMismatch.selector)
        );
        assertEq(audit.task(taskId).deadline, deadline, "the window is not lengthened");
    }

    function test_a_quorum_that_contradicts_itself_voids_the_task() public {
        submit(verdictOn(taskId, guilty()), 7);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.VerdictContradicted(taskId);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.TaskClosed(taskId, IAuditServiceManager.Outcome.Void);
        submit(verdictOn(taskId, notGuilty()), 14);
        assertEq(audit.owed(stranger.addr), TASK_BOND, "the opener has its bond back");
        assertEq(audit.openCases(leaseId), 0, "closed");
        assertTrue(leases.isActive(leaseId), "nobody was punished");
        expectRefusal(
            verdictOn(taskId, guilty()),
            15,
            abi.encodeWithSelector(
                IAuditServiceManager.WrongTaskState.selector,
                IAuditServiceManager.TaskState.Open,
                IAuditServiceManager.TaskState.Closed
            )
        );
    }

    function test_a_contradiction_comes_in_time() public {
        submit(verdictOn(taskId, guilty()), 7);
        uint64 deadline = audit.task(taskId).deadline;
        vm.warp(deadline + 1);
        expectRefusal(
            verdictOn(taskId, notGuilty()), 14, abi.encodeWithSelector(IAuditServiceManager.TooLate.selector, deadline)
        );
    }
}
