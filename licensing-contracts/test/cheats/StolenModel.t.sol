// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {ModelId, TaskId} from "../../contracts/types/Ids.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A thief registers somebody else's weights. Whether he did is for validators to say; that they are asked is for the registry.
contract StolenModelTest is Auditing {
    function challenge() internal returns (TaskId) {
        return challengeAs(stranger.addr);
    }

    function challengeAs(address challenger) internal returns (TaskId) {
        vm.deal(challenger, 10 ether);
        vm.prank(challenger);
        return registry.challenge{value: TASK_BOND}(modelId, keccak256("evidence"));
    }

    /// The thief challenges himself, and would be the only one to do so until the window is over.
    function test_a_thief_that_challenges_himself_keeps_nobody_out() public {
        TaskId his = challengeAs(creator.addr);
        TaskId theirs = challenge();
        assertEq(registry.model(modelId).openChallenges, 2, "both are open");
        decide(theirs, guilty());
        assertEq(registry.creatorOf(modelId), stranger.addr, "the maker has the model, whatever else is open");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ChallengeOpen.selector, 1));
        vm.prank(stranger.addr);
        registry.transferFrom(stranger.addr, payer.addr, ModelId.unwrap(modelId));
        later(VERDICT_WINDOW);
        audit.resolve(his);
        assertEq(registry.creatorOf(modelId), stranger.addr, "and keeps it");
        assertEq(registry.model(modelId).openChallenges, 0, "closed");
        vm.prank(stranger.addr);
        registry.transferFrom(stranger.addr, payer.addr, ModelId.unwrap(modelId));
    }

    /// The thief puts the stolen weights under a model of his that nobody can challenge any more.
    function test_stolen_weights_under_an_established_model_can_be_challenged() public {
        vm.warp(START + CHALLENGE_WINDOW + 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ChallengeWindowOver.selector, START + CHALLENGE_WINDOW));
        challenge();
        vm.prank(creator.addr);
        registry.publishManifest(modelId, keccak256("stolen"), "");
        uint64 until = uint64(block.timestamp) + CHALLENGE_WINDOW;
        assertEq(registry.model(modelId).publishedAt, block.timestamp, "the window begins again");
        vm.warp(until + 1);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.ChallengeWindowOver.selector, until));
        challenge();
        vm.warp(until);
        decide(challenge(), guilty());
        assertEq(registry.creatorOf(registry.modelOf(keccak256("stolen"))), stranger.addr, "the maker has them");
    }

    function test_a_creator_that_is_accused_wrongly_keeps_the_token_and_gets_the_bond() public {
        TaskId taskId = challenge();
        decide(taskId, notGuilty());
        assertEq(registry.creatorOf(modelId), creator.addr, "the creator keeps it");
        assertEq(audit.owed(creator.addr), TASK_BOND, "and gets the bond");
        vm.prank(creator.addr);
        registry.transferFrom(creator.addr, payer.addr, ModelId.unwrap(modelId));
    }

    /// An honest creator that is challenged by many at once keeps the model and has a bond of each.
    function testFuzz_an_honest_creator_survives_any_number_of_challenges(uint8 count) public {
        count = uint8(bound(count, 1, 6));
        TaskId[] memory tasks = new TaskId[](count);
        for (uint256 i = 0; i < count; ++i) {
            tasks[i] = challenge();
            submit(verdictOn(tasks[i], notGuilty()), 15);
        }
        later(RESOLVE_WINDOW + 1);
        for (uint256 i = 0; i < count; ++i) {
            audit.resolve(tasks[i]);
        }
        assertEq(registry.creatorOf(modelId), creator.addr, "the creator keeps it");
        assertEq(audit.owed(creator.addr), count * uint256(TASK_BOND), "and gets the bonds");
        assertEq(registry.model(modelId).openChallenges, 0, "closed");
    }
}
