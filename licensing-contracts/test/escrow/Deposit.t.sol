// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";

import {DepositForwarder} from "../../contracts/DepositForwarder.sol";
import {TestToken} from "../../contracts/devnet/TestToken.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Channel} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";
import {KeyWallet, ScriptedWallet} from "../utils/Wallets.sol";

contract DepositTest is Serving {
    bytes32 internal constant PERMIT_TYPE =
        keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
    bytes32 internal constant RECEIVE_TYPE = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );

    function deposited() internal view returns (uint128) {
        return escrow.channelState(channelId).deposited;
    }

    function testFuzz_a_deposit_is_the_channel_s_and_moves_as_many_tokens(uint128 amount) public {
        amount = uint128(bound(amount, 1, type(uint96).max));
        token.mint(payer.addr, amount);
        vm.prank(payer.addr);
        token.approve(address(escrow), amount);
        uint128 before = deposited();
        uint256 held = token.balanceOf(address(escrow));
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Deposited(channelId, payer.addr, amount, channel);
        vm.prank(payer.addr);
        ChannelId id = escrow.deposit(channel, amount);
        assertEq(ChannelId.unwrap(id), ChannelId.unwrap(channelId), "the channel's id");
        assertEq(deposited(), before + amount, "booked");
        assertEq(token.balanceOf(address(escrow)), held + amount, "held");
    }

    function test_anybody_may_deposit_and_the_deposit_is_the_payer_s() public {
        token.mint(stranger.addr, 5e6);
        approve(stranger.addr, address(escrow));
        vm.prank(stranger.addr);
        escrow.deposit(channel, 5e6);
        assertEq(deposited(), 105e6, "booked for the payer");
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotPayer.selector, payer.addr, stranger.addr));
        vm.prank(stranger.addr);
        escrow.initiateWithdraw(channel, 5e6);
    }

    function test_a_channel_needs_payer_host_and_an_amount() public {
        Channel memory bad = defaultChannel();
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.deposit(bad, 0);
        bad.payer = address(0);
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.deposit(bad, 1);
        bad = defaultChannel();
        bad.host = address(0);
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.deposit(bad, 1);
    }

    function test_a_withdrawal_delay_is_at_least_two_claim_intervals() public {
        uint64 least = 2 * CLAIM_INTERVAL;
        uint64 most = escrow.MAX_WITHDRAW_DELAY();
        Channel memory bad = defaultChannel();
        bad.withdrawDelay = least - 1;
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.WithdrawDelay.selector, least, most, least - 1));
        escrow.deposit(bad, 1);
        bad.withdrawDelay = most + 1;
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.WithdrawDelay.selector, least, most, most + 1));
        escrow.deposit(bad, 1);
    }

    function testFuzz_channels_that_differ_in_anything_have_other_ids(uint256 what) public view {
        what = bound(what, 0, 4);
        Channel memory other = defaultChannel();
        if (what == 0) other.payer = stranger.addr;
        else if (what == 1) other.host = stranger.addr;
        else if (what == 2) other.token = address(stakeToken);
        else if (what == 3) other.withdrawDelay += 1;
        else other.salt = keccak256("another salt");
        assertNotEq(ChannelId.unwrap(escrow.channelId(other)), ChannelId.unwrap(channelId), "ids of different channels");
    }

    // ERC-2612

    function permit(uint256 amount, uint256 deadline) internal returns (uint8 v, bytes32 r, bytes32 s) {
        bytes32 content =
            keccak256(abi.encode(PERMIT_TYPE, payer.addr, address(escrow), amount, token.nonces(payer.addr), deadline));
        return vm.sign(payer, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), content)));
    }

    function test_a_permit_deposits_without_an_approval_before() public {
        token.mint(payer.addr, 7e6);
        (uint8 v, bytes32 r, bytes32 s) = permit(7e6, block.timestamp);
        vm.prank(payer.addr);
        escrow.depositWithPermit(channel, 7e6, block.timestamp, v, r, s);
        assertEq(deposited(), 107e6, "booked");
    }

    function test_a_permit_that_somebody_else_used_first_still_deposits() public {
        token.mint(payer.addr, 7e6);
        (uint8 v, bytes32 r, bytes32 s) = permit(7e6, block.timestamp);
        vm.prank(stranger.addr);
        token.permit(payer.addr, address(escrow), 7e6, block.timestamp, v, r, s);
        vm.prank(payer.addr);
        escrow.depositWithPermit(channel, 7e6, block.timestamp, v, r, s);
        assertEq(deposited(), 107e6, "booked");
    }

    function test_somebody_else_s_permit_moves_nothing() public {
        token.mint(payer.addr, 7e6);
        (uint8 v, bytes32 r, bytes32 s) = permit(7e6, block.timestamp);
        Channel memory theirs = channelOf(stranger.addr);
        vm.expectPartialRevert(bytes4(keccak256("ERC20InsufficientAllowance(address,uint256,uint256)")));
        vm.prank(stranger.addr);
        escrow.depositWithPermit(theirs, 7e6, block.timestamp, v, r, s);
    }

    // ERC-3009

    function authorize(Channel memory into, uint256 amount, bytes32 salt) internal returns (bytes memory) {
        bytes32 nonce = escrow.authorizationNonce(escrow.channelId(into), salt);
        bytes32 content = keccak256(
            abi.encode(RECEIVE_TYPE, into.payer, address(escrow), amount, START - 1, block.timestamp + 1 hours, nonce)
        );
        return sign(payer, keccak256(abi.encodePacked(hex"1901", token.DOMAIN_SEPARATOR(), content)));
    }

    function depositSigned(Channel memory into, bytes32 salt, bytes memory signature) internal {
        escrow.depositWithAuthorization(into, 9e6, START - 1, block.timestamp + 1 hours, salt, signature);
    }

    function test_a_signed_authorization_deposits_whoever_sends_it() public {
        token.mint(payer.addr, 9e6);
        bytes memory signature = authorize(channel, 9e6, "first");
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Deposited(channelId, payer.addr, 9e6, channel);
        vm.prank(stranger.addr);
        depositSigned(channel, "first", signature);
        assertEq(deposited(), 109e6, "booked");
        vm.expectPartialRevert(TestToken.AuthorizationIsUsed.selector);
        depositSigned(channel, "first", signature);
    }

    function test_an_authorization_cannot_be_turned_to_another_channel() public {
        token.mint(payer.addr, 9e6);
        bytes memory signature = authorize(channel, 9e6, "first");
        Channel memory theirs = defaultChannel();
        theirs.host = stranger.addr;
        vm.expectRevert(TestToken.InvalidAuthorization.selector);
        vm.prank(stranger.addr);
        depositSigned(theirs, "first", signature);
    }

    function test_an_authorization_counts_in_its_time_and_for_its_payee_only() public {
        token.mint(payer.addr, 9e6);
        bytes memory signature = authorize(channel, 9e6, "first");
        vm.expectRevert(abi.encodeWithSelector(TestToken.AuthorizationNotYetValid.selector, START));
        escrow.depositWithAuthorization(channel, 9e6, START, START + 1, "first", signature);
        vm.expectRevert(abi.encodeWithSelector(TestToken.AuthorizationExpired.selector, START));
        escrow.depositWithAuthorization(channel, 9e6, START - 1, START, "first", signature);
        vm.expectRevert(abi.encodeWithSelector(TestToken.CallerIsNotPayee.selector, address(escrow)));
        token.receiveWithAuthorization(payer.addr, address(escrow), 9e6, 0, START + 1, "nonce", signature);
    }

    function test_an_authorization_of_a_wallet_contract_deposits() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        Channel memory theirs = channelOf(address(wallet));
        token.mint(address(wallet), 9e6);
        // One byte more than a key's signature: the wallet knows what to do with it, or not.
        bytes memory signature = authorize(theirs, 9e6, "first");
        depositSigned(theirs, "first", signature);
        assertEq(escrow.channelState(escrow.channelId(theirs)).deposited, 9e6, "booked");
        vm.expectRevert(TestToken.InvalidAuthorization.selector);
        depositSigned(theirs, "second", bytes.concat(signature, hex"00"));
    }

    function test_a_wallet_may_sign_in_a_form_of_its_own() public {
        ScriptedWallet wallet = new ScriptedWallet();
        wallet.script(abi.encode(IERC1271.isValidSignature.selector), false);
        Channel memory theirs = channelOf(address(wallet));
        token.mint(address(wallet), 9e6);
        depositSigned(theirs, "first", "two of three owners agree");
        assertEq(escrow.channelState(escrow.channelId(theirs)).deposited, 9e6, "booked");
    }

    // Plain transfers

    function test_a_plain_transfer_reaches_its_channel() public {
        address at = escrow.depositAddress(channelId);
        token.mint(at, 3e6);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Deposited(channelId, at, 3e6, channel);
        vm.prank(stranger.addr);
        assertEq(escrow.collectDeposit(channel), 3e6, "collected");
        token.mint(at, 4e6);
        assertEq(escrow.collectDeposit(channel), 4e6, "collected the second time");
        assertEq(deposited(), 107e6, "booked");
        assertEq(token.balanceOf(at), 0, "nothing stays there");
    }

    function test_an_empty_deposit_address_books_nothing() public {
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.collectDeposit(channel);
    }

    function test_nobody_but_the_escrow_empties_a_deposit_address() public {
        address at = escrow.depositAddress(channelId);
        token.mint(at, 3e6);
        escrow.collectDeposit(channel);
        token.mint(at, 3e6);
        vm.expectRevert(abi.encodeWithSelector(DepositForwarder.NotEscrow.selector, stranger.addr));
        vm.prank(stranger.addr);
        DepositForwarder(at).forward(IERC20(address(token)));
    }

    function test_tokens_sent_straight_to_the_escrow_belong_to_no_channel() public {
        token.mint(address(escrow), 50e6);
        assertEq(deposited(), 100e6, "nothing is booked");
        // And they do not help a deposit that does not come.
        vm.expectPartialRevert(bytes4(keccak256("ERC20InsufficientAllowance(address,uint256,uint256)")));
        vm.prank(stranger.addr);
        escrow.deposit(channel, 1e6);
    }

    function test_a_balance_can_be_credited_and_is_paid_out_once() public {
        token.mint(stranger.addr, 2e6);
        approve(stranger.addr, address(escrow));
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Credited(address(token), creator.addr, 2e6);
        vm.prank(stranger.addr);
        escrow.credit(address(token), creator.addr, 2e6);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.PaidOut(address(token), creator.addr, 2e6);
        vm.prank(stranger.addr);
        assertEq(escrow.payOut(address(token), creator.addr), 2e6, "paid out");
        assertEq(token.balanceOf(creator.addr), 2e6, "to the account itself");
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NothingToPay.selector, address(token), creator.addr));
        escrow.payOut(address(token), creator.addr);
    }

    function test_nothing_is_credited_to_nobody() public {
        token.mint(stranger.addr, 2e6);
        approve(stranger.addr, address(escrow));
        vm.startPrank(stranger.addr);
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        escrow.credit(address(token), address(0), 2e6);
        // Crediting nothing is no error: a slashed bond has parts that are empty.
        escrow.credit(address(token), address(0), 0);
        vm.stopPrank();
    }
}
