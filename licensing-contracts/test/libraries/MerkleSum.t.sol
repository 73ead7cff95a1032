// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";

import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {SumTree} from "../utils/SumTree.sol";

contract MerkleSumHarness {
    function verify(
        bytes32 root,
        MerkleSum.Sums memory totals,
        MerkleSum.Leaf calldata leaf,
        MerkleSum.Sibling[] calldata path
    ) external pure returns (uint64) {
        return MerkleSum.verify(root, totals, leaf, path);
    }

    function proveAbsence(
        bytes32 root,
        MerkleSum.Sums memory totals,
        bytes32 digest,
        MerkleSum.Neighbour[] calldata neighbours
    ) external pure {
        MerkleSum.proveAbsence(root, totals, digest, neighbours);
    }
}

contract MerkleSumTest is Test {
    MerkleSumHarness internal harness = new MerkleSumHarness();

    /// Leaves with digests spread out and sorted, and counts of every size up to 32 bits.
    function tree(uint256 seed, uint256 size) internal pure returns (MerkleSum.Leaf[] memory leaves) {
        leaves = new MerkleSum.Leaf[](size);
        for (uint256 i = 0; i < size; ++i) {
            uint256 noise = uint256(keccak256(abi.encode(seed, i)));
            leaves[i] = MerkleSum.Leaf({
                digest: bytes32(noise),
                promptTokens: uint32(noise >> 32),
                cachedTokens: uint32(noise >> 64) >> uint8(noise % 32),
                completionTokens: uint32(noise >> 96),
                charge: uint64(noise >> 128)
            });
        }
        SumTree.sort(leaves);
    }

    function neighbour(MerkleSum.Leaf[] memory leaves, uint256 index)
        internal
        pure
        returns (MerkleSum.Neighbour memory)
    {
        return MerkleSum.Neighbour(leaves[index], SumTree.path(leaves, index));
    }

    function one(MerkleSum.Leaf[] memory leaves, uint256 index)
        internal
        pure
        returns (MerkleSum.Neighbour[] memory neighbours)
    {
        neighbours = new MerkleSum.Neighbour[](1);
        neighbours[0] = neighbour(leaves, index);
    }

    function two(MerkleSum.Leaf[] memory leaves, uint256 first, uint256 second)
        internal
        pure
        returns (MerkleSum.Neighbour[] memory neighbours)
    {
        neighbours = new MerkleSum.Neighbour[](2);
        neighbours[0] = neighbour(leaves, first);
        neighbours[1] = neighbour(leaves, second);
    }

    function after_(bytes32 digest) internal pure returns (bytes32) {
        return bytes32(uint256(digest) + 1);
    }

    /// forge-config: default.fuzz.runs = 48
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_every_leaf_is_proven_at_its_own_position(uint256 seed, uint256 size) public view {
        size = bound(size, 1, 20);
        MerkleSum.Leaf[] memory leaves = tree(seed, size);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        assertEq(totals.requests, size, "one request a leaf");
        for (uint256 i = 0; i < size; ++i) {
            uint64 index = harness.verify(root, totals, leaves[i], SumTree.path(leaves, i));
            assertEq(index, i, "position of the leaf");
        }
    }

    function testFuzz_an_altered_leaf_is_not_part_of_the_tree(uint256 seed, uint256 size, uint256 index, uint256 what)
        public
    {
        size = bound(size, 1, 20);
        index = bound(index, 0, size - 1);
        what = bound(what, 0, 4);
        MerkleSum.Leaf[] memory leaves = tree(seed, size);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Sibling[] memory path = SumTree.path(leaves, index);
        MerkleSum.Leaf memory leaf = leaves[index];
        if (what == 0) leaf.digest ^= bytes32(uint256(1));
        else if (what == 1) ++leaf.promptTokens;
        else if (what == 2) ++leaf.cachedTokens;
        else if (what == 3) ++leaf.completionTokens;
        else ++leaf.charge;
        // Another digest leads to another root; other sums are noticed before that.
        vm.expectPartialRevert(what == 0 ? MerkleSum.WrongRoot.selector : MerkleSum.WrongTotals.selector);
        harness.verify(root, totals, leaf, path);
    }

    function testFuzz_an_altered_sibling_is_noticed(
        uint256 seed,
        uint256 size,
        uint256 index,
        uint256 level,
        uint256 what
    ) public {
        size = bound(size, 2, 20);
        index = bound(index, 0, size - 1);
        what = bound(what, 0, 6);
        MerkleSum.Leaf[] memory leaves = tree(seed, size);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Sibling[] memory path = SumTree.path(leaves, index);
        MerkleSum.Sibling memory sibling = path[bound(level, 0, path.length - 1)];
        if (what == 0) sibling.hash ^= bytes32(uint256(1));
        else if (what == 1) ++sibling.sums.requests;
        else if (what == 2) ++sibling.sums.promptTokens;
        else if (what == 3) ++sibling.sums.cachedTokens;
        else if (what == 4) ++sibling.sums.completionTokens;
        else if (what == 5) ++sibling.sums.charge;
        else sibling.left = !sibling.left;
        vm.expectPartialRevert(what == 0 || what == 6 ? MerkleSum.WrongRoot.selector : MerkleSum.WrongTotals.selector);
        harness.verify(root, totals, leaves[index], path);
    }

    function test_a_request_cannot_be_moved_between_subtrees() public {
        // Totals stay right, so only the hashes can tell that one subtree says less and another one more.
        MerkleSum.Leaf[] memory leaves = tree(1, 8);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Sibling[] memory path = SumTree.path(leaves, 5);
        ++path[0].sums.requests;
        --path[1].sums.requests;
        vm.expectPartialRevert(MerkleSum.WrongRoot.selector);
        harness.verify(root, totals, leaves[5], path);
    }

    function test_the_error_names_both_roots() public {
        MerkleSum.Leaf[] memory leaves = tree(2, 3);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Sibling[] memory path = SumTree.path(leaves, 0);
        bytes32 other = keccak256("another tree");
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.WrongRoot.selector, other, root));
        harness.verify(other, totals, leaves[0], path);
    }

    function test_the_error_names_both_totals() public {
        MerkleSum.Leaf[] memory leaves = tree(3, 3);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Sibling[] memory path = SumTree.path(leaves, 0);
        MerkleSum.Sums memory less =
            MerkleSum.Sums(2, totals.promptTokens, totals.cachedTokens, totals.completionTokens, totals.charge);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.WrongTotals.selector, less, totals));
        harness.verify(root, less, leaves[0], path);
    }

    function test_an_inner_node_does_not_pass_for_a_leaf() public {
        // The path of leaf 0 from its second level on would prove the node above it, if a node could be a leaf.
        MerkleSum.Leaf[] memory leaves = tree(4, 4);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        SumTree.Node memory node = SumTree.subtree(leaves, 0, 2);
        MerkleSum.Sibling[] memory above = new MerkleSum.Sibling[](1);
        above[0] = SumTree.path(leaves, 0)[1];
        above[0].sums.requests += 1; // so that the totals agree
        MerkleSum.Leaf memory leaf = MerkleSum.Leaf(
            node.hash, node.sums.promptTokens, node.sums.cachedTokens, node.sums.completionTokens, node.sums.charge
        );
        vm.expectPartialRevert(MerkleSum.WrongRoot.selector);
        harness.verify(root, totals, leaf, above);
    }

    function test_sums_that_do_not_fit_are_refused() public {
        MerkleSum.Leaf[] memory leaves = tree(5, 2);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        for (uint256 what = 0; what < 5; ++what) {
            MerkleSum.Sibling[] memory path = SumTree.path(leaves, 1);
            if (what == 0) path[0].sums.requests = type(uint64).max;
            else if (what == 1) path[0].sums.promptTokens = type(uint64).max;
            else if (what == 2) path[0].sums.cachedTokens = type(uint64).max;
            else if (what == 3) path[0].sums.completionTokens = type(uint64).max;
            else path[0].sums.charge = type(uint128).max;
            leaves[1].cachedTokens = 1;
            vm.expectRevert(MerkleSum.SumOverflow.selector);
            harness.verify(root, totals, leaves[1], path);
        }
    }

    /// forge-config: default.fuzz.runs = 48
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_a_digest_between_two_leaves_is_proven_absent(uint256 seed, uint256 size, uint256 index)
        public
        view
    {
        size = bound(size, 2, 30);
        index = bound(index, 0, size - 2);
        MerkleSum.Leaf[] memory leaves = tree(seed, size);
        vm.assume(after_(leaves[index].digest) != leaves[index + 1].digest);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        harness.proveAbsence(root, totals, after_(leaves[index].digest), two(leaves, index, index + 1));
    }

    /// forge-config: default.fuzz.runs = 48
    /// forge-config: long.fuzz.runs = 1000
    function testFuzz_digests_before_the_first_and_behind_the_last_leaf_are_proven_absent(uint256 seed, uint256 size)
        public
        view
    {
        size = bound(size, 1, 30);
        MerkleSum.Leaf[] memory leaves = tree(seed, size);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        harness.proveAbsence(root, totals, bytes32(uint256(leaves[0].digest) - 1), one(leaves, 0));
        harness.proveAbsence(root, totals, after_(leaves[size - 1].digest), one(leaves, size - 1));
    }

    function test_everything_is_absent_from_an_empty_epoch() public view {
        MerkleSum.Sums memory none;
        harness.proveAbsence(0, none, keccak256("anything"), new MerkleSum.Neighbour[](0));
    }

    function test_an_empty_epoch_has_no_neighbours() public {
        MerkleSum.Leaf[] memory leaves = tree(6, 1);
        MerkleSum.Sums memory none;
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.WrongNeighbourCount.selector, 1));
        harness.proveAbsence(0, none, keccak256("anything"), one(leaves, 0));
    }

    /// Invariant 6: whatever an accuser puts together from an honest tree, a statement that is in it stays in it.
    function testFuzz_an_included_statement_is_never_proven_absent(
        uint256 seed,
        uint256 size,
        uint256 target,
        uint256 first,
        uint256 second,
        bool single
    ) public view {
        size = bound(size, 1, 12);
        MerkleSum.Leaf[] memory leaves = tree(seed, size);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        bytes32 digest = leaves[bound(target, 0, size - 1)].digest;
        first = bound(first, 0, size - 1);
        second = bound(second, 0, size - 1);
        MerkleSum.Neighbour[] memory neighbours = single ? one(leaves, first) : two(leaves, first, second);
        (bool proven,) =
            address(harness).staticcall(abi.encodeCall(harness.proveAbsence, (root, totals, digest, neighbours)));
        assertFalse(proven, "an included statement was proven absent");
    }

    function test_an_included_statement_is_refused_by_name() public {
        MerkleSum.Leaf[] memory leaves = tree(7, 5);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Neighbour[] memory neighbours = two(leaves, 2, 3);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.Included.selector, leaves[2].digest));
        harness.proveAbsence(root, totals, leaves[2].digest, neighbours);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.Included.selector, leaves[3].digest));
        harness.proveAbsence(root, totals, leaves[3].digest, neighbours);
    }

    function test_leaves_with_another_between_them_prove_nothing() public {
        MerkleSum.Leaf[] memory leaves = tree(8, 5);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Neighbour[] memory neighbours = two(leaves, 1, 3);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.NotAdjacent.selector, 1, 3));
        harness.proveAbsence(root, totals, leaves[2].digest, neighbours);
    }

    function test_leaves_on_one_side_prove_nothing() public {
        MerkleSum.Leaf[] memory leaves = tree(9, 5);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Neighbour[] memory neighbours = two(leaves, 1, 2);
        bytes32 digest = after_(leaves[3].digest);
        vm.expectRevert(
            abi.encodeWithSelector(MerkleSum.NotBetween.selector, leaves[1].digest, digest, leaves[2].digest)
        );
        harness.proveAbsence(root, totals, digest, neighbours);
        neighbours = two(leaves, 3, 2);
        vm.expectRevert(
            abi.encodeWithSelector(MerkleSum.NotBetween.selector, leaves[3].digest, digest, leaves[2].digest)
        );
        harness.proveAbsence(root, totals, digest, neighbours);
    }

    function test_one_leaf_proves_only_what_lies_outside() public {
        MerkleSum.Leaf[] memory leaves = tree(10, 5);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Neighbour[] memory second = one(leaves, 1);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.NotFirst.selector, 1));
        harness.proveAbsence(root, totals, leaves[0].digest, second);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.NotLast.selector, 1, 5));
        harness.proveAbsence(root, totals, leaves[4].digest, second);
    }

    function test_a_filled_epoch_needs_one_or_two_leaves() public {
        MerkleSum.Leaf[] memory leaves = tree(11, 5);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.WrongNeighbourCount.selector, 0));
        harness.proveAbsence(root, totals, keccak256("anything"), new MerkleSum.Neighbour[](0));
        MerkleSum.Neighbour[] memory three = new MerkleSum.Neighbour[](3);
        for (uint256 i = 0; i < 3; ++i) {
            three[i] = neighbour(leaves, i);
        }
        vm.expectRevert(abi.encodeWithSelector(MerkleSum.WrongNeighbourCount.selector, 3));
        harness.proveAbsence(root, totals, keccak256("anything"), three);
    }

    function test_neighbours_from_another_tree_prove_nothing() public {
        MerkleSum.Leaf[] memory leaves = tree(12, 5);
        MerkleSum.Leaf[] memory others = tree(13, 5);
        (bytes32 root, MerkleSum.Sums memory totals) = SumTree.root(leaves);
        MerkleSum.Neighbour[] memory neighbours = two(others, 2, 3);
        vm.expectPartialRevert(MerkleSum.WrongTotals.selector);
        harness.proveAbsence(root, totals, after_(others[2].digest), neighbours);
    }
}
