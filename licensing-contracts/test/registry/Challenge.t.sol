// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {ICoinBonds} from "../../contracts/interfaces/ICoinBonds.sol";
import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ModelId, TaskId} from "../../contracts/types/Ids.sol";
import {Auditing} from "../utils/Auditing.sol";

/// Who made a model: decided by validators, within a window after its registration.
contract ChallengeTest is Auditing {
    function challenge() internal returns (TaskId) {
        vm.prank(stranger.addr);
        return registry.challenge{value: TASK_BOND}(modelId, keccak256("evidence"));
    }

    function test_a_challenge_that_is_upheld_moves_the_token() public {
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.TaskOpened(
            TaskId.wrap(1), noLease(), IAuditServiceManager.TaskKind.Ownership, stranger.addr, keccak256("evidence")
        );
        vm.expectEmit(address(registry));
        emit IModelRegistry.ChallengeOpened(modelId, TaskId.wrap(1), stranger.addr);
        TaskId taskId = challenge();
        assertEq(ModelId.unwrap(audit.task(taskId).modelId), ModelId.unwrap(modelId), "about the model");
        submit(verdictOn(taskId, guilty()), 15);
        later(RESOLVE_WINDOW + 1);
        vm.expectEmit(address(registry));
        emit IModelRegistry.ChallengeResolved(modelId, taskId, true);
        audit.resolve(taskId);
        assertEq(registry.creatorOf(modelId), stranger.addr, "the challenger has it");
        assertEq(audit.owed(stranger.addr), TASK_BOND, "and its bond");
        assertEq(registry.model(modelId).openChallenges, 0, "closed");
    }

    function test_without_a_verdict_everything_stays_as_it_was() public {
        TaskId taskId = challenge();
        later(VERDICT_WINDOW + 1);
        audit.resolve(taskId);
        assertEq(registry.creatorOf(modelId), creator.addr, "the creator keeps it");
        assertEq(audit.owed(stranger.addr), TASK_BOND, "the challenger has its bond back");
    }

    function test_a_challenged_token_does_not_move_and_takes_no_leases() public {
        vm.prank(creator.addr);
        registry.approve(payer.addr, ModelId.unwrap(modelId));
        challenge();
        bytes memory refusal = abi.encodeWithSelector(IModelRegistry.ChallengeOpen.selector, 1);
        vm.expectRevert(refusal);
        vm.prank(creator.addr);
        registry.transferFrom(creator.addr, payer.addr, ModelId.unwrap(modelId));
        vm.expectRevert(refusal);
        vm.prank(payer.addr);
        registry.transferFrom(creator.addr, payer.addr, ModelId.unwrap(modelId));
        ILeaseManager.OpenRequest memory opening = defaultOpening(termsId);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.OwnershipDisputed.selector, modelId));
        openLease(opening);
        vm.expectRevert(abi.encodeWithSelector(ILeaseManager.OwnershipDisputed.selector, modelId));
        vm.prank(host.addr);
        leases.renew(leaseId, START + 100 days);
    }

    function test_an_approval_of_the_thief_does_not_survive() public {
        vm.prank(creator.addr);
        registry.approve(payer.addr, ModelId.unwrap(modelId));
        decide(challenge(), guilty());
        assertEq(registry.getApproved(ModelId.unwrap(modelId)), address(0), "cleared");
        vm.expectRevert();
        vm.prank(payer.addr);
        registry.transferFrom(stranger.addr, payer.addr, ModelId.unwrap(modelId));
    }

    function test_a_challenger_that_takes_no_tokens_gets_it_all_the_same() public {
        // A contract without a receiver hook: the transfer does not ask it.
        address contractor = address(stakeToken);
        vm.deal(contractor, 1 ether);
        vm.prank(contractor);
        TaskId taskId = registry.challenge{value: TASK_BOND}(modelId, 0);
        decide(taskId, guilty());
        assertEq(registry.creatorOf(modelId), contractor, "moved");
    }

    function test_challenges_are_refused_each_by_name() public {
        vm.startPrank(stranger.addr);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 9));
        registry.challenge{value: TASK_BOND}(ModelId.wrap(9), 0);
        vm.expectRevert(abi.encodeWithSelector(ICoinBonds.WrongBond.selector, TASK_BOND, 0));
        registry.challenge(modelId, 0);
        vm.stopPrank();
    }

    function test_an_established_model_is_not_challenged() public {
        uint64 until = START + CHALLENGE_WINDOW;
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ChallengeWindowOver.selector, until));
        challenge();
        vm.warp(until);
        challenge();
    }

    function test_only_the_audit_ends_a_challenge_and_only_one_that_is_open() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotAuditor.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.resolveChallenge(modelId, TaskId.wrap(1), stranger.addr, true);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NoChallenge.selector, modelId));
        vm.prank(address(audit));
        registry.resolveChallenge(modelId, TaskId.wrap(1), stranger.addr, true);
    }
}
