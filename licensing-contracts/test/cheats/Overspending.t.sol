// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

/// A payer signs for more than it deposited, or takes its deposit back while its vouchers are out.
contract OverspendingTest is Serving {
    function acceptedOn(uint64 lane) internal returns (IPaymentEscrow.LeaseClaims[] memory) {
        Voucher memory voucher = voucherFor(channelId, lane, 0);
        return batchOf(claimOf(channel, voucher, sign(payer, escrow.voucherDigest(voucher))));
    }

    /// Any number of streams in parallel on any counts: their claims never come to more than the deposit, and each is paid in
    /// full or not at all.
    /// forge-config: default.fuzz.runs = 64
    function testFuzz_invariant_2_parallel_lanes_never_cost_more_than_the_deposit(uint48[8] memory tokens) public {
        for (uint64 lane = 0; lane < 8; ++lane) {
            serveOn(channelId, lane, 0, 0, uint48(bound(tokens[lane], 0, 60_000_000)));
        }
        report();
        uint256 paid = 0;
        for (uint64 lane = 0; lane < 8; ++lane) {
            IPaymentEscrow.LeaseClaims[] memory batch = acceptedOn(lane);
            uint256 owed = cost(1, 0, 0, laneStates[channelId][lane].counts.completionTokens);
            if (paid + owed > 100e6) {
                vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.InsufficientDeposit.selector, 100e6 - paid, owed));
                claimAs(host.addr, batch);
            } else {
                assertEq(claimAs(host.addr, batch), owed, "in full");
                paid += owed;
            }
        }
        assertEq(escrow.channelState(channelId).spent, paid, "spent");
    }

    /// Invariant 4: whatever the payer does after a voucher is signed, a host that claims within its interval is paid.
    function testFuzz_invariant_4_a_voucher_signed_before_the_announcement_is_paid_in_full(uint256 wait, uint128 amount)
        public
    {
        wait = bound(wait, 0, CLAIM_INTERVAL);
        amount = uint128(bound(amount, 1, type(uint128).max));
        serve(1_000_000, 0, 70_000_000);
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        announce(amount);
        report();
        later(wait);
        vm.expectPartialRevert(IPaymentEscrow.WithdrawalTooEarly.selector);
        withdraw();
        uint256 paid = claimAs(host.addr, batch);
        assertEq(paid, cost(1, 1_000_000, 0, 70_000_000), "the whole voucher");
        later(WITHDRAW_DELAY);
        uint256 unspent = 100e6 - paid;
        assertEq(withdraw(), amount < unspent ? amount : unspent, "and the payer gets what is left");
    }

    /// A payer that announces everything beforehand could take it at any time later. A host sees that before it serves: what
    /// is announced is not there to pay it.
    function test_a_standing_announcement_is_seen_before_anything_is_served() public {
        announce(type(uint128).max);
        later(WITHDRAW_DELAY);
        IPaymentEscrow.ChannelState memory state = escrow.channelState(channelId);
        assertGe(state.withdrawal, state.deposited - state.spent, "nothing is free of it");
        assertLe(state.withdrawableAt, block.timestamp, "and it can go at once");
        // A host that serves all the same is paid if it is first.
        serve(0, 0, 1_000_000);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        assertEq(withdraw(), 100e6 - cost(1, 0, 0, 1_000_000), "what is left");
    }

    function test_a_withdrawal_is_not_made_twice() public {
        announce(60e6);
        later(WITHDRAW_DELAY);
        withdraw();
        vm.expectRevert(IPaymentEscrow.NothingAnnounced.selector);
        withdraw();
    }

    /// An honest payer is accused of owing more: what it did not sign is not paid, and what it did not spend comes back.
    function test_an_honest_payer_owes_what_it_signed_and_no_more() public {
        serve(1_000_000, 0, 1_000_000);
        IPaymentEscrow.Claim memory signedFor = acceptedClaim();
        serve(1_000_000, 0, 50_000_000);
        report();
        // The host has served more, and the payer has not accepted it.
        IPaymentEscrow.LeaseClaims[] memory more =
            batchOf(claimOf(channel, voucherFor(channelId, 0, 0), signedFor.signature));
        vm.expectPartialRevert(IPaymentEscrow.UnknownGrant.selector);
        claimAs(host.addr, more);
        claimAs(host.addr, batchOf(signedFor));
        announce(type(uint128).max);
        later(WITHDRAW_DELAY);
        assertEq(withdraw(), 100e6 - cost(1, 1_000_000, 0, 1_000_000), "the rest is its own");
    }
}
