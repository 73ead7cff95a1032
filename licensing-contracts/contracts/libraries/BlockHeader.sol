// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title Randomness of past blocks
/// @notice Reads the randomness (`prevrandao`) of a named block out of its header, so that a draw can name its block
/// beforehand and be opened whenever somebody comes by.
/// @dev The header is bound to the chain by its hash: the last 256 blocks through `blockhash`, older ones through the
/// history contract of EIP-2935 where the chain has it. Assumes a proof-of-stake header, whose mix hash is the
/// randomness; whoever proposes the block can bias it by one bit for the price of a missed block.
library BlockHeader {
    /// @notice The history contract of EIP-2935: answers a block number with its hash, for the last 8,191 blocks.
    address internal constant HISTORY = 0x0000F90827F1C53a10cb7A02335B175320002935;

    // Positions in the header (Ethereum yellow paper §4.3.4, EIP-4399).
    uint256 private constant NUMBER_FIELD = 8;
    uint256 private constant RANDOMNESS_FIELD = 13;

    /// @notice The chain no longer has, or does not yet have, the hash of this block.
    error BlockHashUnavailable(uint256 blockNumber);
    /// @notice The header is that of another block.
    error WrongHeader(bytes32 expected, bytes32 actual);
    /// @notice The header is not the RLP of one list with the fields that are needed; `offset` is where it fails.
    error MalformedHeader(uint256 offset);
    /// @notice The header names another number than its place in the chain.
    error WrongBlockNumber(uint256 expected, uint256 actual);

    /// @notice The randomness of block `blockNumber`, out of the header of that block.
    function randomness(bytes calldata headerRlp, uint256 blockNumber) internal view returns (bytes32 mixHash) {
        bytes32 expected = hashOf(blockNumber);
        bytes32 actual = keccak256(headerRlp);
        require(actual == expected, WrongHeader(expected, actual));

        (bool isList, uint256 cursor, uint256 end) = item(headerRlp, 0, headerRlp.length);
        require(isList && end == headerRlp.length, MalformedHeader(0));
        for (uint256 field = 0; field <= RANDOMNESS_FIELD; ++field) {
            (bool nested, uint256 start, uint256 next) = item(headerRlp, cursor, end);
            require(!nested, MalformedHeader(cursor));
            if (field == NUMBER_FIELD) {
                uint256 number = integer(headerRlp, start, next);
                require(number == blockNumber, WrongBlockNumber(blockNumber, number));
            } else if (field == RANDOMNESS_FIELD) {
                require(next - start == 32, MalformedHeader(cursor));
                mixHash = bytes32(headerRlp[start:next]);
            }
            cursor = next;
        }
    }

    /// @notice Hash of a past block, reverting with `BlockHashUnavailable` when the chain cannot tell.
    function hashOf(uint256 blockNumber) internal view returns (bytes32 hash) {
        hash = blockhash(blockNumber);
        if (hash == 0 && HISTORY.code.length != 0) {
            // The history contract takes a bare word, without a selector, and reverts outside of its window.
            (bool success, bytes memory answer) = HISTORY.staticcall(abi.encode(blockNumber));
            if (success && answer.length == 32) hash = abi.decode(answer, (bytes32));
        }
        require(hash != 0, BlockHashUnavailable(blockNumber));
    }

    /// @dev The item at `cursor`: whether it is a list, where its payload starts and where it ends. Refuses everything
    /// that has a shorter encoding or does not end within `limit`.
    function item(bytes calldata rlp, uint256 cursor, uint256 limit)
        private
        pure
        returns (bool isList, uint256 start, uint256 end)
    {
        require(cursor < limit, MalformedHeader(cursor));
        uint8 prefix = uint8(rlp[cursor]);
        // A byte below 0x80 is its own encoding.
        if (prefix < 0x80) return (false, cursor, cursor + 1);

        isList = prefix >= 0xc0;
        uint256 short = prefix - (isList ? 0xc0 : 0x80);
        uint256 length = short;
        start = cursor + 1;
        if (short > 55) {
            uint256 lengthBytes = short - 55;
            start += lengthBytes;
            require(start <= limit, MalformedHeader(cursor));
            length = integer(rlp, cursor + 1, start);
            require(length > 55, MalformedHeader(cursor));
        }
        require(length <= limit - start, MalformedHeader(cursor));
        end = start + length;
        if (!isList && length == 1) require(uint8(rlp[start]) >= 0x80, MalformedHeader(cursor));
    }

    /// @dev A big-endian integer of at most eight bytes without leading zeros.
    function integer(bytes calldata rlp, uint256 start, uint256 end) private pure returns (uint256 value) {
        uint256 length = end - start;
        require(length <= 8 && (length == 0 || rlp[start] != 0), MalformedHeader(start));
        return length == 0 ? 0 : uint256(bytes32(rlp[start:end])) >> (256 - 8 * length);
    }
}
