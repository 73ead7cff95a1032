// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

/// @title RLP for tests: block headers
library Rlp {
    /// A header of the current kind, with 21 fields; everything that is not an argument is filler of the right size.
    function header(uint256 number, bytes32 randomness) internal pure returns (bytes memory) {
        return list(fields(number, randomness));
    }

    function fields(uint256 number, bytes32 randomness) internal pure returns (bytes[] memory parts) {
        parts = new bytes[](21);
        parts[0] = text(abi.encode(keccak256("parent")));
        parts[1] = text(abi.encode(keccak256("no uncles")));
        parts[2] = text(abi.encodePacked(address(0xc0ffee)));
        parts[3] = text(abi.encode(keccak256("state")));
        parts[4] = text(abi.encode(keccak256("transactions")));
        parts[5] = text(abi.encode(keccak256("receipts")));
        parts[6] = text(new bytes(256));
        parts[7] = integer(0);
        parts[8] = integer(number);
        parts[9] = integer(30_000_000);
        parts[10] = integer(21_000);
        parts[11] = integer(1_800_000_000);
        parts[12] = text("hallmark");
        parts[13] = text(abi.encode(randomness));
        parts[14] = text(new bytes(8));
        parts[15] = integer(7);
        parts[16] = text(abi.encode(keccak256("withdrawals")));
        parts[17] = integer(131_072);
        parts[18] = integer(0);
        parts[19] = text(abi.encode(keccak256("beacon root")));
        parts[20] = text(abi.encode(keccak256("requests")));
    }

    function list(bytes[] memory items) internal pure returns (bytes memory) {
        bytes memory payload;
        for (uint256 i = 0; i < items.length; ++i) {
            payload = bytes.concat(payload, items[i]);
        }
        return bytes.concat(prefix(payload.length, 0xc0), payload);
    }

    function text(bytes memory payload) internal pure returns (bytes memory) {
        if (payload.length == 1 && uint8(payload[0]) < 0x80) return payload;
        return bytes.concat(prefix(payload.length, 0x80), payload);
    }

    function integer(uint256 value) internal pure returns (bytes memory) {
        return text(bigEndian(value));
    }

    function bigEndian(uint256 value) internal pure returns (bytes memory digits) {
        while (value != 0) {
            digits = bytes.concat(bytes1(uint8(value)), digits);
            value >>= 8;
        }
    }

    function prefix(uint256 length, uint8 base) internal pure returns (bytes memory) {
        if (length <= 55) return abi.encodePacked(uint8(base + length));
        bytes memory digits = bigEndian(length);
        return bytes.concat(bytes1(uint8(base + 55 + digits.length)), digits);
    }
}
