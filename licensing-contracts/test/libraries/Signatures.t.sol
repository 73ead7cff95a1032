// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {Test, Vm} from "forge-std/Test.sol";

import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {KeyWallet, ReenteringWallet, ScriptedWallet} from "../utils/Wallets.sol";

contract SignaturesHarness {
    uint256 public touched;

    function touch() external {
        ++touched;
    }

    function recover(bytes32 digest, bytes calldata signature) external pure returns (address) {
        return Signatures.recover(digest, signature);
    }

    function requireKey(address signer, bytes32 digest, bytes calldata signature) external pure {
        Signatures.requireKey(signer, digest, signature);
    }

    function requireAccount(address account, bytes32 digest, bytes calldata signature) external view {
        Signatures.requireAccount(account, digest, signature);
    }
}

contract SignaturesTest is Test {
    uint256 internal constant ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;
    bytes32 internal constant DIGEST = keccak256("a voucher");

    SignaturesHarness internal harness = new SignaturesHarness();
    Vm.Wallet internal payer = vm.createWallet("payer");
    Vm.Wallet internal thief = vm.createWallet("thief");

    function sign(Vm.Wallet memory wallet) internal returns (bytes memory) {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(wallet, DIGEST);
        return abi.encodePacked(r, s, v);
    }

    function test_a_key_signs_for_itself_and_for_nobody_else() public {
        harness.requireKey(payer.addr, DIGEST, sign(payer));
        bytes memory foreign = sign(thief);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, payer.addr, thief.addr));
        harness.requireKey(payer.addr, DIGEST, foreign);
    }

    function testFuzz_signatures_of_another_length_are_refused(bytes memory signature) public {
        vm.assume(signature.length != 65);
        vm.expectRevert(abi.encodeWithSelector(Signatures.SignatureLength.selector, signature.length));
        harness.recover(DIGEST, signature);
    }

    function test_the_short_form_is_refused() public {
        // EIP-2098 would be a second form of the same signature.
        (bytes32 r, bytes32 vs) = vm.signCompact(payer, DIGEST);
        vm.expectRevert(abi.encodeWithSelector(Signatures.SignatureLength.selector, 64));
        harness.recover(DIGEST, abi.encodePacked(r, vs));
    }

    function test_the_upper_half_of_s_is_refused() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(payer, DIGEST);
        bytes32 high = bytes32(ORDER - uint256(s));
        assertEq(ecrecover(DIGEST, v == 27 ? 28 : 27, r, high), payer.addr, "the chain itself would take it");
        vm.expectRevert(abi.encodeWithSelector(Signatures.SignatureHighS.selector, high));
        harness.recover(DIGEST, abi.encodePacked(r, high, v == 27 ? 28 : 27));
    }

    function test_nobodys_signature_is_refused() public {
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(payer, DIGEST);
        bytes[4] memory malformed = [
            abi.encodePacked(r, s, v - 27), // the raw parity
            abi.encodePacked(r, s, uint8(29)),
            abi.encodePacked(bytes32(0), s, v),
            abi.encodePacked(bytes32(ORDER), s, v)
        ];
        for (uint256 i = 0; i < malformed.length; ++i) {
            vm.expectRevert(Signatures.SignatureMalformed.selector);
            harness.recover(DIGEST, malformed[i]);
            vm.expectRevert(Signatures.SignatureMalformed.selector);
            harness.requireKey(address(0), DIGEST, malformed[i]);
        }
    }

    function test_a_wallet_contract_answers_for_itself() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        harness.requireAccount(address(wallet), DIGEST, sign(payer));
        bytes memory foreign = sign(thief);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        harness.requireAccount(address(wallet), DIGEST, foreign);
    }

    function test_a_wallet_that_answers_anything_but_yes_refuses() public {
        ScriptedWallet wallet = new ScriptedWallet();
        bytes32 yes = bytes32(IERC1271.isValidSignature.selector);
        bytes[6] memory answers = [
            bytes(""),
            abi.encodePacked(IERC1271.isValidSignature.selector),
            abi.encode(uint256(1)),
            abi.encode(bytes32(0)),
            abi.encode(yes | bytes32(uint256(1))),
            abi.encodePacked(bytes31(yes))
        ];
        for (uint256 i = 0; i < answers.length; ++i) {
            wallet.script(answers[i], false);
            vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
            harness.requireAccount(address(wallet), DIGEST, "");
        }
        wallet.script(abi.encode(yes), true);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        harness.requireAccount(address(wallet), DIGEST, "");
        wallet.script(abi.encode(yes), false);
        harness.requireAccount(address(wallet), DIGEST, "");
    }

    function test_a_wallet_can_change_nothing_while_it_is_asked() public {
        ReenteringWallet wallet = new ReenteringWallet();
        wallet.arm(address(harness), abi.encodeCall(harness.touch, ()));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        harness.requireAccount(address(wallet), DIGEST, "");
        assertEq(harness.touched(), 0, "nothing was touched");
    }

    function test_a_key_whose_account_delegates_to_a_contract_keeps_signing() public {
        // EIP-7702: the account has code, and a key all the same.
        KeyWallet target = new KeyWallet(thief.addr);
        vm.etch(payer.addr, abi.encodePacked(hex"ef0100", address(target)));
        harness.requireAccount(payer.addr, DIGEST, sign(payer));
        bytes memory foreign = sign(thief);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, payer.addr, thief.addr));
        harness.requireAccount(payer.addr, DIGEST, foreign);
    }
}
