// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Merkle trees whose nodes carry sums
/// @notice One leaf is one statement; every node carries the counts and the charge of everything below it, so that a host
/// cannot report less in total than it reports leaf by leaf. Leaves are sorted by digest, which makes absence provable.
/// @dev The shape is that of RFC 6962 §2.1. All integers are big-endian and as wide as their types:
///
///   sums  = requests ‖ promptTokens ‖ cachedTokens ‖ completionTokens ‖ charge          (48 bytes)
///   leaf  = keccak256(0x00 ‖ digest ‖ promptTokens ‖ cachedTokens ‖ completionTokens ‖ charge), counting one request
///   node  = keccak256(0x01 ‖ left hash ‖ left sums ‖ right hash ‖ right sums)
///   root  = keccak256(0x02 ‖ top hash ‖ top sums);  0 when there are no leaves
///
/// What a proof shows about a tree that its host built wrongly (unsorted, false requests in an inner node): only that the
/// root commits to it. A host that cannot prove an inclusion loses by silence, so a wrong tree helps nobody but its payers.
library MerkleSum {
    /// @notice What lies below a node.
    struct Sums {
        uint64 requests;
        uint64 promptTokens; // cached ones included
        uint64 cachedTokens;
        uint64 completionTokens;
        uint128 charge;
    }

    /// @notice One statement.
    struct Leaf {
        bytes32 digest;
        uint64 promptTokens;
        uint64 cachedTokens;
        uint64 completionTokens;
        uint128 charge;
    }

    /// @notice A node beside the path from a leaf to the root.
    struct Sibling {
        bytes32 hash;
        Sums sums;
        bool left; // of the path
    }

    /// @notice A leaf with its path, from the leaf's level upwards.
    struct Neighbour {
        Leaf leaf;
        Sibling[] path;
    }

    /// @notice The path leads to another root.
    error WrongRoot(bytes32 expected, bytes32 actual);
    /// @notice The path leads to other sums than those that were reported.
    error WrongTotals(Sums expected, Sums actual);
    /// @notice The sums of two nodes do not fit into their types.
    error SumOverflow();
    /// @notice The statement is one of the leaves that were to prove its absence.
    error Included(bytes32 digest);
    /// @notice Absence is proven by no leaf in an empty tree, and by one or two in any other.
    error WrongNeighbourCount(uint256 found);
    /// @notice The leaves before and after the statement are not neighbours.
    error NotAdjacent(uint64 before, uint64 afterwards);
    /// @notice The leaves are not those between which the statement would stand.
    error NotBetween(bytes32 before, bytes32 digest, bytes32 afterwards);
    /// @notice The statement would stand before the leaf, which is not the first one.
    error NotFirst(uint64 index);
    /// @notice The statement would stand behind the leaf, which is not the last one.
    error NotLast(uint64 index, uint64 requests);

    /// @notice Proves that `leaf` is part of the tree, and returns its position from 0.
    /// @dev Reverts with `WrongTotals`, `WrongRoot` or `SumOverflow`.
    function verify(bytes32 root, Sums memory totals, Leaf calldata leaf, Sibling[] calldata path)
        internal
        pure
        returns (uint64 index)
    {
        bytes32 hash = leafHash(leaf);
        Sums memory sums = Sums(1, leaf.promptTokens, leaf.cachedTokens, leaf.completionTokens, leaf.charge);
        for (uint256 level = 0; level < path.length; ++level) {
            Sibling calldata sibling = path[level];
            Sums memory beside = sibling.sums;
            if (sibling.left) {
                // Cannot overflow unless the sum below does: everything to the left is part of it.
                index = sum64(index, beside.requests);
                hash = nodeHash(sibling.hash, beside, hash, sums);
            } else {
                hash = nodeHash(hash, sums, sibling.hash, beside);
            }
            sums = add(sums, beside);
        }
        require(equal(sums, totals), WrongTotals(totals, sums));
        bytes32 found = rootHash(hash, sums);
        require(found == root, WrongRoot(root, found));
    }

    /// @notice Proves that no leaf of the tree has this digest, by the leaves beside which it would stand: two adjacent
    /// ones, or the first, or the last; none in an empty tree.
    /// @dev Holds for sorted trees. Reverts as `verify` does, or with one of the errors above.
    function proveAbsence(bytes32 root, Sums memory totals, bytes32 digest, Neighbour[] calldata neighbours)
        internal
        pure
    {
        if (root == 0) {
            require(neighbours.length == 0, WrongNeighbourCount(neighbours.length));
            return;
        }
        require(neighbours.length == 1 || neighbours.length == 2, WrongNeighbourCount(neighbours.length));

        bytes32 first = neighbours[0].leaf.digest;
        require(first != digest, Included(digest));
        uint64 index = verify(root, totals, neighbours[0].leaf, neighbours[0].path);
        if (neighbours.length == 1) {
            if (digest < first) {
                require(index == 0, NotFirst(index));
            } else {
                // A verified leaf counts one request at least, so there is one to subtract.
                require(index == totals.requests - 1, NotLast(index, totals.requests));
            }
            return;
        }

        bytes32 second = neighbours[1].leaf.digest;
        require(second != digest, Included(digest));
        require(first < digest && digest < second, NotBetween(first, digest, second));
        uint64 next = verify(root, totals, neighbours[1].leaf, neighbours[1].path);
        // The position of a leaf is below the number of requests, so adding one cannot overflow.
        require(next == index + 1, NotAdjacent(index, next));
    }

    /// @notice Hash of a leaf.
    function leafHash(Leaf memory leaf) internal pure returns (bytes32) {
        return keccak256(
            abi.encodePacked(
                bytes1(0x00), leaf.digest, leaf.promptTokens, leaf.cachedTokens, leaf.completionTokens, leaf.charge
            )
        );
    }

    /// @notice Hash of an inner node.
    function nodeHash(bytes32 left, Sums memory leftSums, bytes32 right, Sums memory rightSums)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(
            abi.encodePacked(
                bytes1(0x01), left, counts(leftSums), leftSums.charge, right, counts(rightSums), rightSums.charge
            )
        );
    }

    /// @notice What is committed for a tree that has leaves.
    function rootHash(bytes32 top, Sums memory sums) internal pure returns (bytes32) {
        return keccak256(abi.encodePacked(bytes1(0x02), top, counts(sums), sums.charge));
    }

    /// @notice Sums of two nodes together.
    function add(Sums memory a, Sums memory b) internal pure returns (Sums memory sums) {
        sums.requests = sum64(a.requests, b.requests);
        sums.promptTokens = sum64(a.promptTokens, b.promptTokens);
        sums.cachedTokens = sum64(a.cachedTokens, b.cachedTokens);
        sums.completionTokens = sum64(a.completionTokens, b.completionTokens);
        uint256 charge = uint256(a.charge) + b.charge;
        require(charge <= type(uint128).max, SumOverflow());
        sums.charge = uint128(charge);
    }

    /// @notice Whether two sums are the same.
    function equal(Sums memory a, Sums memory b) internal pure returns (bool) {
        return counts(a) == counts(b) && a.charge == b.charge;
    }

    /// @dev The four counts in the order in which they are hashed, in one word.
    function counts(Sums memory sums) private pure returns (uint256) {
        return (uint256(sums.requests) << 192) | (uint256(sums.promptTokens) << 128)
            | (uint256(sums.cachedTokens) << 64) | sums.completionTokens;
    }

    function sum64(uint64 a, uint64 b) private pure returns (uint64) {
        uint256 sum = uint256(a) + b;
        require(sum <= type(uint64).max, SumOverflow());
        return uint64(sum);
    }
}
