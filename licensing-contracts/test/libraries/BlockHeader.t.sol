// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Test} from "forge-std/Test.sol";

import {BlockHeader} from "../../contracts/libraries/BlockHeader.sol";
import {Rlp} from "../utils/Rlp.sol";

contract BlockHeaderHarness {
    function randomness(bytes calldata headerRlp, uint256 blockNumber) external view returns (bytes32) {
        return BlockHeader.randomness(headerRlp, blockNumber);
    }
}

contract BlockHeaderTest is Test {
    BlockHeaderHarness internal harness = new BlockHeaderHarness();

    uint256 internal constant NUMBER = 1_000;
    bytes32 internal constant RANDOMNESS = keccak256("prevrandao");
    /// The code that EIP-2935 puts at its address.
    bytes internal constant HISTORY_CODE =
        hex"3373fffffffffffffffffffffffffffffffffffffffe14604657602036036042575f35600143038111604257611fff81430311604257611fff9006545f5260205ff35b5f5ffd5b5f35611fff60014303065500";

    function setUp() public {
        vm.roll(NUMBER + 10);
    }

    /// Makes `header` that of block `NUMBER`, whatever is wrong with it.
    function chain(bytes memory header) internal {
        vm.setBlockhash(NUMBER, keccak256(header));
    }

    function expectMalformed(bytes memory header, uint256 offset) internal {
        chain(header);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.MalformedHeader.selector, offset));
        harness.randomness(header, NUMBER);
    }

    function history(uint256 number, bytes32 hash) internal {
        vm.etch(BlockHeader.HISTORY, HISTORY_CODE);
        vm.store(BlockHeader.HISTORY, bytes32(number % 8191), hash);
    }

    function testFuzz_the_randomness_of_a_header_is_read(bytes32 randomness, uint256 number) public {
        number = bound(number, 1, type(uint64).max - 1);
        vm.roll(number + 1);
        bytes memory header = Rlp.header(number, randomness);
        vm.setBlockhash(number, keccak256(header));
        assertEq(harness.randomness(header, number), randomness, "the block's randomness");
    }

    function test_a_header_of_the_first_proof_of_stake_fork_is_read() public {
        // 15 fields with the base fee as the last but one: the randomness is where it was.
        bytes[] memory all = Rlp.fields(NUMBER, RANDOMNESS);
        bytes[] memory fields = new bytes[](16);
        for (uint256 i = 0; i < fields.length; ++i) {
            fields[i] = all[i];
        }
        bytes memory header = Rlp.list(fields);
        chain(header);
        assertEq(harness.randomness(header, NUMBER), RANDOMNESS, "the block's randomness");
    }

    function test_the_header_of_another_block_is_refused() public {
        bytes memory header = Rlp.header(NUMBER, RANDOMNESS);
        bytes memory other = Rlp.header(NUMBER, keccak256("better for me"));
        chain(header);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.WrongHeader.selector, keccak256(header), keccak256(other)));
        harness.randomness(other, NUMBER);
    }

    function test_a_header_with_another_number_is_refused() public {
        bytes memory header = Rlp.header(NUMBER + 1, RANDOMNESS);
        chain(header);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.WrongBlockNumber.selector, NUMBER, NUMBER + 1));
        harness.randomness(header, NUMBER);
    }

    function test_a_block_to_come_has_no_randomness() public {
        bytes memory header = Rlp.header(NUMBER + 10, RANDOMNESS);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, NUMBER + 10));
        harness.randomness(header, NUMBER + 10);
        history(NUMBER + 10, keccak256(header));
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, NUMBER + 10));
        harness.randomness(header, NUMBER + 10);
    }

    function test_an_old_block_is_unavailable_without_the_history_contract() public {
        bytes memory header = Rlp.header(NUMBER, RANDOMNESS);
        vm.roll(NUMBER + 257);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, NUMBER));
        harness.randomness(header, NUMBER);
    }

    function test_an_old_block_is_found_in_the_history_contract() public {
        bytes memory header = Rlp.header(NUMBER, RANDOMNESS);
        history(NUMBER, keccak256(header));
        vm.roll(NUMBER + 8191);
        assertEq(harness.randomness(header, NUMBER), RANDOMNESS, "the oldest block of the history");
        vm.roll(NUMBER + 8192);
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, NUMBER));
        harness.randomness(header, NUMBER);
    }

    function test_a_history_contract_that_answers_otherwise_is_not_believed() public {
        bytes memory header = Rlp.header(NUMBER, RANDOMNESS);
        vm.roll(NUMBER + 257);
        // Answers every call with an empty result.
        vm.etch(BlockHeader.HISTORY, hex"00");
        vm.expectRevert(abi.encodeWithSelector(BlockHeader.BlockHashUnavailable.selector, NUMBER));
        harness.randomness(header, NUMBER);
    }

    function test_a_header_that_is_no_list_is_malformed() public {
        expectMalformed(Rlp.text(new bytes(600)), 0);
        expectMalformed("", 0);
    }

    function test_bytes_behind_the_header_are_malformed() public {
        expectMalformed(bytes.concat(Rlp.header(NUMBER, RANDOMNESS), hex"00"), 0);
    }

    function test_a_header_that_is_cut_short_is_malformed() public {
        bytes memory header = Rlp.header(NUMBER, RANDOMNESS);
        bytes memory cut = new bytes(header.length - 1);
        for (uint256 i = 0; i < cut.length; ++i) {
            cut[i] = header[i];
        }
        expectMalformed(cut, 0);
        expectMalformed(hex"f902", 0);
    }

    function test_a_header_with_too_few_fields_is_malformed() public {
        bytes[] memory fields = new bytes[](13);
        bytes[] memory all = Rlp.fields(NUMBER, RANDOMNESS);
        for (uint256 i = 0; i < fields.length; ++i) {
            fields[i] = all[i];
        }
        bytes memory header = Rlp.list(fields);
        expectMalformed(header, header.length);
    }

    function test_fields_of_the_wrong_kind_are_malformed() public {
        bytes[] memory fields = Rlp.fields(NUMBER, RANDOMNESS);
        uint256 offset = 3;
        for (uint256 i = 0; i <= 13; ++i) {
            bytes memory right = fields[i];
            fields[i] = Rlp.list(new bytes[](0));
            expectMalformed(Rlp.list(fields), offset);
            fields[i] = right;
            offset += right.length;
        }
    }

    function test_randomness_that_is_not_a_word_is_malformed() public {
        bytes[] memory fields = Rlp.fields(NUMBER, RANDOMNESS);
        uint256 offset = 3;
        for (uint256 i = 0; i < 13; ++i) {
            offset += fields[i].length;
        }
        fields[13] = Rlp.text(new bytes(31));
        expectMalformed(Rlp.list(fields), offset);
        fields[13] = Rlp.text(new bytes(33));
        expectMalformed(Rlp.list(fields), offset);
    }

    function test_numbers_with_leading_zeros_or_too_many_digits_are_malformed() public {
        bytes[] memory fields = Rlp.fields(NUMBER, RANDOMNESS);
        uint256 offset = 3;
        for (uint256 i = 0; i < 8; ++i) {
            offset += fields[i].length;
        }
        fields[8] = hex"830003e8";
        expectMalformed(Rlp.list(fields), offset + 1);
        fields[8] = hex"89010000000000000000";
        expectMalformed(Rlp.list(fields), offset + 1);
    }

    function test_longer_encodings_than_needed_are_malformed() public {
        bytes[] memory fields = Rlp.fields(NUMBER, RANDOMNESS);
        // One byte that is its own encoding, written as a string of length one.
        bytes memory right = fields[0];
        fields[0] = hex"8101";
        expectMalformed(Rlp.list(fields), 3);
        // A short string written as a long one, and a length with a leading zero.
        fields[0] = bytes.concat(hex"b820", abi.encode(RANDOMNESS));
        expectMalformed(Rlp.list(fields), 3);
        fields[0] = bytes.concat(hex"b90020", abi.encode(RANDOMNESS));
        expectMalformed(Rlp.list(fields), 4);
        // A length that runs past the end of the header.
        fields[0] = right;
        fields[6] = hex"bfffffffffffffffff";
        uint256 offset = 3;
        for (uint256 i = 0; i < 6; ++i) {
            offset += fields[i].length;
        }
        expectMalformed(Rlp.list(fields), offset);
    }
}
