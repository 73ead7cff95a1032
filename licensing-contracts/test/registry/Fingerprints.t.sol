// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IModelRegistry} from "../../contracts/interfaces/IModelRegistry.sol";
import {BlockHeader} from "../../contracts/libraries/BlockHeader.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Fixture} from "../utils/Fixture.sol";
import {Rlp} from "../utils/Rlp.sol";

contract FingerprintsTest is Fixture {
    bytes32 internal constant ROOT = keccak256("fingerprints");
    bytes32 internal constant RANDOMNESS = keccak256("prevrandao");

    function commitFingerprints() internal returns (uint64 drawBlock) {
        vm.prank(creator.addr);
        registry.commitFingerprints(modelId, ROOT, 300);
        return registry.commitment(ROOT).drawBlock;
    }

    /// Mines the draw block, and returns its header.
    function draw() internal returns (bytes memory header) {
        uint64 drawBlock = registry.commitment(ROOT).drawBlock;
        header = Rlp.header(drawBlock, RANDOMNESS);
        vm.roll(drawBlock + 1);
        vm.setBlockhash(drawBlock, keccak256(header));
    }

    function record() internal {
        bytes memory header = draw();
        registry.recordBeacon(ROOT, header);
    }

    function test_a_commitment_names_the_block_that_draws() public {
        uint64 expected = uint64(block.number) + DRAW_DELAY_BLOCKS;
        vm.expectEmit(address(registry));
        emit IModelRegistry.FingerprintsCommitted(modelId, ROOT, 300, expected);
        assertEq(commitFingerprints(), expected, "the draw block");
        assertEq(registry.commitments(modelId), 1, "counted");
        assertEq(registry.commitment(ROOT).beacon, 0, "not drawn");
    }

    function test_a_root_is_committed_once_even_when_its_draw_lapsed() public {
        commitFingerprints();
        vm.roll(block.number + 10_000);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.AlreadyCommitted.selector, ROOT));
        commitFingerprints();
    }

    /// Grinding is visible: every try stays on record.
    function test_every_further_root_is_counted() public {
        vm.startPrank(creator.addr);
        for (uint256 i = 0; i < 3; ++i) {
            registry.commitFingerprints(modelId, keccak256(abi.encode("try", i)), 300);
        }
        vm.stopPrank();
        assertEq(registry.commitments(modelId), 3, "tries");
    }

    function test_commitments_are_the_creator_s_and_not_empty() public {
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.commitFingerprints(modelId, ROOT, 300);
        vm.startPrank(creator.addr);
        vm.expectRevert(IModelRegistry.Zero.selector);
        registry.commitFingerprints(modelId, 0, 300);
        vm.expectRevert(IModelRegistry.Zero.selector);
        registry.commitFingerprints(modelId, ROOT, 0);
        vm.stopPrank();
    }

    function test_anybody_records_the_beacon_of_the_draw_block() public {
        commitFingerprints();
        bytes memory header = draw();
        vm.expectEmit(address(registry));
        emit IModelRegistry.BeaconRecorded(ROOT, RANDOMNESS);
        vm.prank(stranger.addr);
        assertEq(registry.recordBeacon(ROOT, header), RANDOMNESS, "the block's randomness");
        assertEq(registry.commitment(ROOT).beacon, RANDOMNESS, "recorded");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.AlreadyRecorded.selector, ROOT));
        registry.recordBeacon(ROOT, header);
    }

    /// The creator cannot choose the randomness by choosing the block.
    function testFuzz_no_other_block_draws(uint64 away) public {
        away = uint64(bound(away, 1, 200));
        uint64 drawBlock = commitFingerprints();
        draw();
        vm.roll(drawBlock + 250);
        bytes memory other = Rlp.header(drawBlock + away, keccak256("better"));
        vm.setBlockhash(drawBlock + away, keccak256(other));
        bytes32 right = blockhash(drawBlock);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.WrongHeader.selector, right, keccak256(other)));
        registry.recordBeacon(ROOT, other);
    }

    function test_a_beacon_needs_a_commitment_and_a_block_that_is_there() public {
        bytes memory header = Rlp.header(5, RANDOMNESS);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownCommitment.selector, ROOT));
        registry.recordBeacon(ROOT, header);
        uint64 drawBlock = commitFingerprints();
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, drawBlock));
        registry.recordBeacon(ROOT, header);
        vm.roll(drawBlock + 257);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, drawBlock));
        registry.recordBeacon(ROOT, header);
    }

    function test_the_drawn_set_is_published_once_and_after_the_draw() public {
        commitFingerprints();
        vm.startPrank(creator.addr);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotDrawn.selector, ROOT));
        registry.publishSet(ROOT, "set");
        vm.stopPrank();
        record();
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.publishSet(ROOT, "set");
        vm.startPrank(creator.addr);
        vm.expectRevert(IModelRegistry.Zero.selector);
        registry.publishSet(ROOT, 0);
        vm.expectEmit(address(registry));
        emit IModelRegistry.SetPublished(ROOT, "set");
        registry.publishSet(ROOT, "set");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.AlreadyRecorded.selector, ROOT));
        registry.publishSet(ROOT, "another set");
        vm.stopPrank();
    }

    function test_nobody_publishes_for_a_root_that_is_unknown() public {
        // Its model is 0, which has no creator.
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 0));
        registry.publishSet(ROOT, "set");
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.UnknownModel.selector, 0));
        registry.burnOpened(ROOT, new uint32[](1));
    }

    function testFuzz_opened_leaves_stay_burned(uint32 first, uint32 second) public {
        first = uint32(bound(first, 0, 299));
        second = uint32(bound(second, 0, 299));
        commitFingerprints();
        uint32[] memory leaves = new uint32[](2);
        (leaves[0], leaves[1]) = (first, second);
        vm.expectEmit(address(registry));
        emit IModelRegistry.LeavesBurned(ROOT, leaves);
        vm.startPrank(creator.addr);
        registry.burnOpened(ROOT, leaves);
        registry.burnOpened(ROOT, leaves);
        vm.stopPrank();
        for (uint32 leaf = 0; leaf < 300; ++leaf) {
            assertEq(registry.isBurned(ROOT, leaf), leaf == first || leaf == second, "burned or not");
        }
    }

    function test_leaves_outside_of_the_set_are_refused() public {
        commitFingerprints();
        uint32[] memory leaves = new uint32[](1);
        leaves[0] = 300;
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.LeafOutOfRange.selector, 300, 300));
        vm.prank(creator.addr);
        registry.burnOpened(ROOT, leaves);
        vm.expectRevert(abi.encodeWithSelector(IModelRegistry.NotCreator.selector, stranger.addr));
        vm.prank(stranger.addr);
        registry.burnOpened(ROOT, leaves);
    }

    function test_commitments_go_with_the_model() public {
        commitFingerprints();
        record();
        vm.prank(creator.addr);
        registry.transferFrom(creator.addr, stranger.addr, ModelId.unwrap(modelId));
        vm.prank(stranger.addr);
        registry.publishSet(ROOT, "set");
    }
}
