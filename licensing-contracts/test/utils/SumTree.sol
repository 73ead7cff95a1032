// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";

/// @title Merkle-sum trees for tests
/// @dev Built from the definition (RFC 6962 §2.1: the left subtree is the largest power of two below the size), by
/// recursion and with a preimage of its own, so that a mistake in the library cannot hide in its test.
library SumTree {
    struct Node {
        bytes32 hash;
        MerkleSum.Sums sums;
    }

    function root(MerkleSum.Leaf[] memory leaves)
        internal
        pure
        returns (bytes32 committed, MerkleSum.Sums memory totals)
    {
        if (leaves.length == 0) return (0, totals);
        Node memory top = subtree(leaves, 0, leaves.length);
        return (keccak256(bytes.concat(hex"02", top.hash, encode(top.sums))), top.sums);
    }

    function path(MerkleSum.Leaf[] memory leaves, uint256 index)
        internal
        pure
        returns (MerkleSum.Sibling[] memory siblings)
    {
        siblings = new MerkleSum.Sibling[](depth(leaves.length, index));
        uint256 start = 0;
        uint256 size = leaves.length;
        for (uint256 level = siblings.length; level > 0; --level) {
            uint256 split = splitOf(size);
            Node memory beside;
            bool left = index - start >= split;
            if (left) {
                beside = subtree(leaves, start, split);
                start += split;
                size -= split;
            } else {
                beside = subtree(leaves, start + split, size - split);
                size = split;
            }
            siblings[level - 1] = MerkleSum.Sibling(beside.hash, beside.sums, left);
        }
    }

    /// Sorts by digest, as a host must.
    function sort(MerkleSum.Leaf[] memory leaves) internal pure {
        for (uint256 i = 1; i < leaves.length; ++i) {
            MerkleSum.Leaf memory leaf = leaves[i];
            uint256 j = i;
            for (; j > 0 && leaves[j - 1].digest > leaf.digest; --j) {
                leaves[j] = leaves[j - 1];
            }
            leaves[j] = leaf;
        }
    }

    function subtree(MerkleSum.Leaf[] memory leaves, uint256 start, uint256 size)
        internal
        pure
        returns (Node memory node)
    {
        if (size == 1) {
            MerkleSum.Leaf memory leaf = leaves[start];
            node.sums = MerkleSum.Sums(1, leaf.promptTokens, leaf.cachedTokens, leaf.completionTokens, leaf.charge);
            // A leaf's own bytes are its sums without the count of requests.
            bytes memory sums = encode(node.sums);
            bytes memory rest = new bytes(40);
            for (uint256 i = 0; i < 40; ++i) {
                rest[i] = sums[i + 8];
            }
            node.hash = keccak256(bytes.concat(hex"00", leaf.digest, rest));
            return node;
        }
        uint256 split = splitOf(size);
        Node memory left = subtree(leaves, start, split);
        Node memory right = subtree(leaves, start + split, size - split);
        node.hash = keccak256(bytes.concat(hex"01", left.hash, encode(left.sums), right.hash, encode(right.sums)));
        node.sums = MerkleSum.Sums(
            left.sums.requests + right.sums.requests,
            left.sums.promptTokens + right.sums.promptTokens,
            left.sums.cachedTokens + right.sums.cachedTokens,
            left.sums.completionTokens + right.sums.completionTokens,
            left.sums.charge + right.sums.charge
        );
    }

    function encode(MerkleSum.Sums memory sums) internal pure returns (bytes memory) {
        return bytes.concat(
            bytes8(sums.requests),
            bytes8(sums.promptTokens),
            bytes8(sums.cachedTokens),
            bytes8(sums.completionTokens),
            bytes16(sums.charge)
        );
    }

    function splitOf(uint256 size) private pure returns (uint256 split) {
        split = 1;
        while (split * 2 < size) split *= 2;
    }

    function depth(uint256 size, uint256 index) private pure returns (uint256 levels) {
        while (size > 1) {
            uint256 split = splitOf(size);
            if (index >= split) {
                index -= split;
                size -= split;
            } else {
                size = split;
            }
            ++levels;
        }
    }
}
