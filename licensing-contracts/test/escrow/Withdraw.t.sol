// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Channel} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

contract WithdrawTest is Serving {
    function test_an_announced_withdrawal_is_paid_after_its_delay() public {
        uint64 at = uint64(block.timestamp) + WITHDRAW_DELAY;
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.WithdrawalAnnounced(channelId, 30e6, at);
        announce(30e6);
        vm.warp(at - 1);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.WithdrawalTooEarly.selector, at));
        withdraw();
        vm.warp(at);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Withdrawn(channelId, 30e6);
        assertEq(withdraw(), 30e6, "withdrawn");
        assertEq(token.balanceOf(payer.addr), 30e6, "to the payer");
        assertEq(escrow.channelState(channelId).deposited, 70e6, "left");
        vm.expectRevert(IPaymentEscrow.NothingAnnounced.selector);
        withdraw();
    }

    function test_nothing_is_withdrawn_without_announcement() public {
        vm.expectRevert(IPaymentEscrow.NothingAnnounced.selector);
        withdraw();
        vm.expectRevert(IPaymentEscrow.Zero.selector);
        announce(0);
    }

    function test_a_second_announcement_starts_anew() public {
        announce(30e6);
        later(2 days);
        announce(40e6);
        uint64 at = uint64(block.timestamp) + WITHDRAW_DELAY;
        later(1 days);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.WithdrawalTooEarly.selector, at));
        withdraw();
    }

    function test_an_announcement_can_be_taken_back() public {
        announce(30e6);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.WithdrawalCancelled(channelId);
        vm.prank(payer.addr);
        escrow.cancelWithdraw(channel);
        later(WITHDRAW_DELAY);
        vm.expectRevert(IPaymentEscrow.NothingAnnounced.selector);
        withdraw();
        vm.expectRevert(IPaymentEscrow.NothingAnnounced.selector);
        vm.prank(payer.addr);
        escrow.cancelWithdraw(channel);
    }

    /// Nobody but the payer can take back a deposit.
    function testFuzz_only_the_payer_withdraws(address caller) public {
        vm.assume(caller != payer.addr && caller != address(0));
        bytes memory refusal = abi.encodeWithSelector(IPaymentEscrow.NotPayer.selector, payer.addr, caller);
        announce(30e6);
        later(WITHDRAW_DELAY);
        vm.startPrank(caller);
        vm.expectRevert(refusal);
        escrow.withdraw(channel);
        vm.expectRevert(refusal);
        escrow.initiateWithdraw(channel, 1);
        vm.expectRevert(refusal);
        escrow.cancelWithdraw(channel);
        vm.stopPrank();
        // A channel of his own with this one's money in it does not exist.
        Channel memory theirs = defaultChannel();
        theirs.payer = caller;
        vm.prank(caller);
        escrow.initiateWithdraw(theirs, 30e6);
        later(WITHDRAW_DELAY);
        vm.prank(caller);
        assertEq(escrow.withdraw(theirs), 0, "an empty channel holds nothing");
    }

    function test_the_host_can_release_what_is_not_spent() public {
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Released(channelId, 60e6);
        vm.prank(host.addr);
        escrow.release(channel, 60e6);
        assertEq(token.balanceOf(payer.addr), 60e6, "to the payer, at once");
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.InsufficientDeposit.selector, 40e6, 40e6 + 1));
        vm.prank(host.addr);
        escrow.release(channel, 40e6 + 1);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotHost.selector, host.addr, payer.addr));
        vm.prank(payer.addr);
        escrow.release(channel, 1);
    }

    /// A host that gives back early what was announced has not to give it a second time.
    function test_what_is_released_counts_towards_the_announced_withdrawal() public {
        announce(30e6);
        vm.prank(host.addr);
        escrow.release(channel, 20e6);
        assertEq(escrow.channelState(channelId).withdrawal, 10e6, "10 are left of 30");
        vm.prank(host.addr);
        escrow.release(channel, 40e6);
        assertEq(escrow.channelState(channelId).withdrawal, 0, "nothing is left");
        later(WITHDRAW_DELAY);
        assertEq(withdraw(), 0, "nothing more is paid");
        assertEq(escrow.channelState(channelId).deposited, 40e6, "what vouchers are signed against");
    }

    function test_spent_money_cannot_be_withdrawn() public {
        serve(0, 0, 50_000_000);
        report();
        uint256 paid = claimAs(host.addr, batchOf(acceptedClaim()));
        announce(type(uint128).max);
        later(WITHDRAW_DELAY);
        assertEq(withdraw(), 100e6 - paid, "the rest");
        assertEq(escrow.channelState(channelId).deposited, paid, "what is spent stays deposited");
    }
}
