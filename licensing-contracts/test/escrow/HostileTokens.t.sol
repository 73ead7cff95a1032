// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {SafeERC20} from "@openzeppelin/contracts/token/ERC20/utils/SafeERC20.sol";

import {ExactTransfer} from "../../contracts/libraries/ExactTransfer.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Channel, LicenseTerms} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";
import {
    BlocklistToken,
    CallbackToken,
    FalseToken,
    FeeToken,
    LyingToken,
    RebasingToken,
    SilentToken
} from "../utils/Tokens.sol";

/// Tokens that take, shrink, lie, call back and refuse: turned away, or a harm to those who chose them and to nobody else.
contract HostileTokensTest is Serving {
    function channelIn(address currency) internal view returns (Channel memory hostile) {
        hostile = defaultChannel();
        hostile.token = currency;
    }

    function depositAs(address account, Channel memory into, uint128 amount) internal returns (ChannelId) {
        vm.prank(account);
        return escrow.deposit(into, amount);
    }

    function approveAll(address currency) internal {
        vm.prank(payer.addr);
        (bool success,) =
            currency.call(abi.encodeWithSignature("approve(address,uint256)", address(escrow), type(uint256).max));
        require(success, "the token does not approve");
    }

    function test_a_token_that_takes_a_fee_is_refused() public {
        FeeToken hostile = new FeeToken();
        hostile.mint(payer.addr, 1_000);
        approveAll(address(hostile));
        Channel memory into = channelIn(address(hostile));
        vm.expectRevert(abi.encodeWithSelector(ExactTransfer.TokenTookFee.selector, 1_000, 990));
        depositAs(payer.addr, into, 1_000);
    }

    function test_a_token_that_takes_a_fee_is_refused_at_a_deposit_address_too() public {
        FeeToken hostile = new FeeToken();
        Channel memory into = channelIn(address(hostile));
        hostile.mint(escrow.depositAddress(escrow.channelId(into)), 1_000);
        vm.expectRevert(abi.encodeWithSelector(ExactTransfer.TokenTookFee.selector, 1_000, 990));
        escrow.collectDeposit(into);
    }

    function test_a_token_that_says_false_is_refused() public {
        FalseToken hostile = new FalseToken();
        hostile.mint(payer.addr, 1_000);
        Channel memory into = channelIn(address(hostile));
        vm.expectRevert(abi.encodeWithSelector(SafeERC20.SafeERC20FailedOperation.selector, address(hostile)));
        depositAs(payer.addr, into, 1_000);
    }

    function test_a_token_that_says_true_and_moves_nothing_is_refused() public {
        LyingToken hostile = new LyingToken();
        hostile.mint(payer.addr, 1_000);
        Channel memory into = channelIn(address(hostile));
        vm.expectRevert(abi.encodeWithSelector(ExactTransfer.TokenTookFee.selector, 1_000, 0));
        depositAs(payer.addr, into, 1_000);
    }

    function test_an_address_without_code_is_no_token() public {
        Channel memory into = channelIn(makeAddr("no token"));
        vm.expectRevert();
        depositAs(payer.addr, into, 1_000);
    }

    function test_a_token_that_returns_nothing_is_taken_and_paid_out() public {
        SilentToken silent = new SilentToken();
        silent.mint(payer.addr, 1_000);
        approveAll(address(silent));
        Channel memory into = channelIn(address(silent));
        depositAs(payer.addr, into, 1_000);
        vm.prank(host.addr);
        escrow.release(into, 400);
        assertEq(silent.balanceOf(payer.addr), 400, "released");
        assertEq(silent.balanceOf(address(escrow)), 600, "held");
    }

    function test_a_token_that_shrinks_harms_its_own_depositors_only() public {
        RebasingToken hostile = new RebasingToken();
        hostile.mint(payer.addr, 1_000);
        approveAll(address(hostile));
        Channel memory into = channelIn(address(hostile));
        depositAs(payer.addr, into, 1_000);
        hostile.rebase(0.5e18);
        vm.startPrank(payer.addr);
        escrow.initiateWithdraw(into, 1_000);
        later(WITHDRAW_DELAY);
        // The token itself cannot give what it no longer has.
        vm.expectRevert();
        escrow.withdraw(into);
        // But what is there can be had, and other tokens are untouched.
        escrow.initiateWithdraw(into, 500);
        later(WITHDRAW_DELAY);
        assertEq(escrow.withdraw(into), 500, "what is left of it");
        vm.stopPrank();
        assertEq(token.balanceOf(address(escrow)), 100e6, "the dollars of another channel");
    }

    function test_a_token_that_grows_gives_the_growth_to_nobody() public {
        RebasingToken hostile = new RebasingToken();
        hostile.mint(payer.addr, 1_000);
        approveAll(address(hostile));
        Channel memory into = channelIn(address(hostile));
        ChannelId id = depositAs(payer.addr, into, 1_000);
        hostile.rebase(2e18);
        assertEq(escrow.channelState(id).deposited, 1_000, "the deposit is what came in");
    }

    function test_tokens_that_arrive_from_elsewhere_during_a_deposit_are_refused() public {
        CallbackToken hostile = new CallbackToken();
        hostile.mint(payer.addr, 10_000);
        hostile.mint(address(hostile), 50);
        approveAll(address(hostile));
        Channel memory into = channelIn(address(hostile));
        hostile.arm(address(hostile), abi.encodeCall(hostile.mint, (address(escrow), 50)));
        vm.expectRevert(abi.encodeWithSelector(ExactTransfer.TokenTookFee.selector, 100, 150));
        depositAs(payer.addr, into, 100);
    }

    /// Whoever is blocked by the token cannot be paid, and keeps nobody else from being paid.
    function test_a_blocked_account_stops_nobody_else() public {
        BlocklistToken hostile = new BlocklistToken();
        hostile.mint(payer.addr, 100e6);
        hostile.mint(host.addr, 10_000e6);
        approveAll(address(hostile));
        vm.prank(host.addr);
        hostile.approve(address(leases), type(uint256).max);
        LicenseTerms memory terms = defaultTerms(modelId);
        terms.paymentToken = address(hostile);
        leaseId = openLease(publishTerms(terms));
        channel = channelIn(address(hostile));
        channelId = depositAs(payer.addr, channel, 100e6);
        serve(1_000_000, 0, 1_000_000);
        report();
        hostile.setBlocked(creator.addr, true);
        uint256 paid = claimAs(host.addr, batchOf(acceptedClaim()));

        escrow.payOut(address(hostile), host.addr);
        vm.expectRevert(abi.encodeWithSelector(BlocklistToken.Blocked.selector, creator.addr));
        escrow.payOut(address(hostile), creator.addr);
        assertEq(escrow.balance(address(hostile), creator.addr), paid / 10, "kept for the creator");
        hostile.setBlocked(creator.addr, false);
        escrow.payOut(address(hostile), creator.addr);
        assertEq(hostile.balanceOf(creator.addr), paid / 10, "paid in the end");
    }
}
