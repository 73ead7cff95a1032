// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {OperatorSet} from "../../contracts/interfaces/eigenlayer/IEigenLayer.sol";
import {BN254} from "../../contracts/libraries/BN254.sol";
import {TaskId} from "../../contracts/types/Ids.sol";
import {Verdict} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";
import {Bls} from "../utils/Bls.sol";

/// A validator says one thing to some and another to others: whoever has both takes its stake.
/// Invariant 9, its other side: the validator's own journal keeps an honest one from it.
contract TwoVerdictsTest is Auditing {
    TaskId internal taskId;
    address internal operator;
    uint256 internal secret;
    BN254.G2Point internal keyG2;

    function setUp() public override {
        super.setUp();
        taskId = openTask(IAuditServiceManager.TaskKind.Substitution);
        operator = validatorAddresses[0];
        secret = secrets[operator];
        keyG2 = Bls.publicKeyG2(secret);
    }

    function signatureOn(Verdict memory verdict) internal view returns (BN254.G1Point memory) {
        return Bls.sign(secret, audit.verdictDigest(verdict));
    }

    function prove(address accused, Verdict memory first, Verdict memory second) internal {
        BN254.G1Point memory firstSignature = signatureOn(first);
        BN254.G1Point memory secondSignature = signatureOn(second);
        audit.proveVerdictConflict(accused, keyG2, first, firstSignature, second, secondSignature);
    }

    function expectRefusal(address accused, Verdict memory first, Verdict memory second, bytes memory error) internal {
        BN254.G1Point memory firstSignature = signatureOn(first);
        BN254.G1Point memory secondSignature = signatureOn(second);
        vm.expectRevert(error);
        audit.proveVerdictConflict(accused, keyG2, first, firstSignature, second, secondSignature);
    }

    function test_invariant_9_two_verdicts_on_one_task_cost_the_whole_stake() public {
        Verdict memory first = verdictOn(taskId, guilty());
        Verdict memory second = verdictOn(taskId, notGuilty());
        BN254.G1Point memory firstSignature = signatureOn(first);
        BN254.G1Point memory secondSignature = signatureOn(second);
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.ValidatorPunished(operator, taskId, 1e18);
        vm.prank(stranger.addr);
        audit.proveVerdictConflict(operator, keyG2, first, firstSignature, second, secondSignature);
        assertEq(strategies.getBurnableShares(strategy), VALIDATOR_STAKE, "burned");
        // It has no weight as soon as anybody asks.
        audit.updateStakes(single(operator));
        assertEq(audit.validators(), 3, "no longer active");
        expectRefusal(
            operator,
            first,
            second,
            abi.encodeWithSelector(IAuditServiceManager.ConflictPunished.selector, operator, taskId)
        );
    }

    function test_verdicts_that_differ_in_anything_are_two() public {
        Verdict memory second = verdictOn(taskId, guilty());
        ++second.eValueLog2;
        prove(operator, verdictOn(taskId, guilty()), second);
        assertEq(strategies.getBurnableShares(strategy), VALIDATOR_STAKE, "burned");
    }

    function test_a_validator_that_left_is_still_accountable() public {
        leaveSet(operator, validatorSet());
        prove(operator, verdictOn(taskId, guilty()), verdictOn(taskId, notGuilty()));
        assertEq(strategies.getBurnableShares(strategy), VALIDATOR_STAKE, "burned");
    }

    function test_an_honest_validator_cannot_be_accused() public {
        Verdict memory verdict = verdictOn(taskId, guilty());
        bytes memory nothing = abi.encodeWithSelector(IAuditServiceManager.NoContradiction.selector);
        // The same verdict twice, and verdicts on two tasks.
        expectRefusal(operator, verdict, verdict, nothing);
        TaskId another = openTask(IAuditServiceManager.TaskKind.TokenCount);
        expectRefusal(operator, verdict, verdictOn(another, guilty()), nothing);
        // Somebody else's signatures.
        bytes memory foreign = abi.encodeWithSelector(IAuditServiceManager.AggregateSignature.selector);
        expectRefusal(validatorAddresses[1], verdict, verdictOn(taskId, notGuilty()), foreign);
        expectRefusal(
            stranger.addr,
            verdict,
            verdictOn(taskId, notGuilty()),
            abi.encodeWithSelector(IAuditServiceManager.NotValidator.selector, stranger.addr)
        );
    }

    function test_one_genuine_signature_is_no_contradiction() public {
        Verdict memory first = verdictOn(taskId, guilty());
        Verdict memory second = verdictOn(taskId, notGuilty());
        BN254.G1Point memory genuine = signatureOn(first);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.proveVerdictConflict(operator, keyG2, first, genuine, second, genuine);
        vm.expectRevert(IAuditServiceManager.AggregateSignature.selector);
        audit.proveVerdictConflict(operator, keyG2, second, genuine, first, genuine);
    }

    /// Its key is its own for ever: what it signed before it left is held against it when it is back.
    function test_a_validator_does_not_come_back_with_another_key() public {
        leaveSet(operator, validatorSet());
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        bytes memory another = joiningWith(77, operator);
        OperatorSet memory set = validatorSet();
        vm.expectRevert(
            abi.encodeWithSelector(
                IAuditServiceManager.OtherKey.selector,
                keccak256(abi.encode(Bls.publicKey(secret))),
                keccak256(abi.encode(Bls.publicKey(77)))
            )
        );
        register(operator, set, another);
        register(operator, set, joining(operator));
        prove(operator, verdictOn(taskId, guilty()), verdictOn(taskId, notGuilty()));
        assertEq(strategies.getBurnableShares(strategy), VALIDATOR_STAKE, "burned");
    }

    /// Nor can it use the evidence up while there is nothing to slash.
    function test_evidence_keeps_until_there_is_something_to_slash() public {
        leaveSet(operator, validatorSet());
        vm.roll(block.number + DEALLOCATION_DELAY_BLOCKS + 1);
        Verdict memory first = verdictOn(taskId, guilty());
        Verdict memory second = verdictOn(taskId, notGuilty());
        expectRefusal(
            operator, first, second, abi.encodeWithSelector(IAuditServiceManager.NotSlashable.selector, operator)
        );
        register(operator, validatorSet(), joining(operator));
        prove(operator, first, second);
        assertEq(strategies.getBurnableShares(strategy), VALIDATOR_STAKE, "burned");
    }

    /// Rubber stamps: a quorum that contradicts itself decides nothing, and the host that it accused keeps everything.
    function test_a_quorum_that_says_both_convicts_nobody_and_can_be_slashed() public {
        submit(verdictOn(taskId, guilty()), 15);
        submit(verdictOn(taskId, notGuilty()), 15);
        assertEq(uint8(audit.task(taskId).outcome), uint8(IAuditServiceManager.Outcome.Void), "void");
        assertEq(leases.lease(leaseId).bond, BOND, "the bond");
        assertEq(audit.hostStake(host.addr), HOST_STAKE, "the allocation");
        prove(operator, verdictOn(taskId, guilty()), verdictOn(taskId, notGuilty()));
        assertEq(strategies.getBurnableShares(strategy), VALIDATOR_STAKE, "burned");
    }
}
