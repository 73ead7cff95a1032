// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {Test} from "forge-std/Test.sol";

import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {IUsageLog} from "../../contracts/interfaces/IUsageLog.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {EscrowHandler} from "./EscrowHandler.sol";

/// Invariants 1, 2, 3, 4 and 7 of the design, after any sequence of what `EscrowHandler` can do.
contract EscrowInvariants is Test {
    EscrowHandler internal handler;
    IPaymentEscrow internal escrow;
    ILeaseManager internal leases;
    IUsageLog internal usage;
    IERC20 internal token;

    function setUp() public {
        handler = new EscrowHandler();
        (address escrowAt, address leasesAt, address usageAt, address tokenAt) = handler.contracts();
        (escrow, leases) = (IPaymentEscrow(escrowAt), ILeaseManager(leasesAt));
        (usage, token) = (IUsageLog(usageAt), IERC20(tokenAt));
        bytes4[] memory calls = new bytes4[](14);
        calls[0] = handler.doDeposit.selector;
        calls[1] = handler.doAnnounce.selector;
        calls[2] = handler.doCancel.selector;
        calls[3] = handler.doWithdraw.selector;
        calls[4] = handler.doServe.selector;
        calls[5] = handler.doServeOutside.selector;
        calls[6] = handler.doPass.selector;
        calls[7] = handler.doClaim.selector;
        calls[8] = handler.doClaimAgain.selector;
        calls[9] = handler.doRelease.selector;
        calls[10] = handler.doSettle.selector;
        calls[11] = handler.doPayOut.selector;
        calls[12] = handler.doSlash.selector;
        calls[13] = handler.doAddBond.selector;
        targetSelector(FuzzSelector(address(handler), calls));
        targetContract(address(handler));
    }

    /// The invariants would say little if the handler seldom got anywhere.
    function test_the_handler_claims_settles_and_withdraws() public {
        for (uint256 i = 0; i < 400; ++i) {
            uint256 noise = uint256(keccak256(abi.encode("walk", i)));
            uint256 choice = noise % 8;
            noise >>= 8;
            if (choice < 2) handler.doServe(noise, uint64(noise >> 8), 1_000_000, 200_000, uint48(noise >> 72));
            else if (choice == 2) handler.doPass(noise);
            else if (choice == 3) handler.doAnnounce(noise, uint128(noise >> 8));
            else if (choice == 4) handler.doWithdraw(noise);
            else if (choice == 5) handler.doServeOutside(100, 100);
            else if (choice == 6) handler.doSettle();
            else handler.doClaimAgain(noise, uint64(noise >> 8));
        }
        assertGt(handler.claimsMade(), 20, "claims");
        assertGt(handler.withdrawalsMade(), 3, "withdrawals");
        assertGt(handler.settlementsMade(), 10, "settlements");
        assertGt(handler.replaysRefused(), 10, "replays");
    }

    function unspent(ChannelId id) internal view returns (uint256) {
        IPaymentEscrow.ChannelState memory state = escrow.channelState(id);
        return state.deposited - state.spent;
    }

    function invariant_1_conservation_tokens_held_are_unspent_deposits_and_balances() public view {
        uint256 owned = unspent(handler.fixtureChannel());
        for (uint256 i = 0; i < handler.partyCount(); ++i) {
            owned += unspent(handler.partyId(i)) + escrow.balance(address(token), handler.partyAccount(i));
        }
        for (uint256 i = 0; i < 6; ++i) {
            owned += escrow.balance(address(token), handler.accounts(i));
        }
        assertEq(token.balanceOf(address(escrow)), owned, "held is owned by somebody");
        assertEq(token.balanceOf(address(escrow)), handler.tokensIn() - handler.tokensOut(), "in less out is held");
    }

    function invariant_2_counts_of_a_lane_never_decrease_and_are_the_claimed_ones() public view {
        for (uint256 i = 0; i < handler.partyCount(); ++i) {
            for (uint64 number = 0; number < handler.laneCount(); ++number) {
                IPaymentEscrow.Lane memory lane = escrow.lane(handler.partyId(i), number);
                (uint48 requests, uint48 prompt, uint48 cached, uint48 completion) = handler.claimedCounts(i, number);
                assertEq(lane.requests, requests, "requests");
                assertEq(lane.promptTokens, prompt, "prompt tokens");
                assertEq(lane.cachedTokens, cached, "cached tokens");
                assertEq(lane.completionTokens, completion, "completion tokens");
            }
        }
    }

    function invariant_2_what_a_channel_spent_is_the_cost_of_its_lanes_and_within_its_deposit() public view {
        for (uint256 i = 0; i < handler.partyCount(); ++i) {
            uint256 cost = 0;
            for (uint64 number = 0; number < handler.laneCount(); ++number) {
                cost += handler.costOf(escrow.lane(handler.partyId(i), number));
            }
            IPaymentEscrow.ChannelState memory state = escrow.channelState(handler.partyId(i));
            assertEq(state.spent, cost, "spent");
            assertLe(state.spent, state.deposited, "within the deposit");
        }
    }

    function invariant_2_a_lease_is_paid_for_no_more_than_it_reported() public view {
        MerkleSum.Sums memory settled = escrow.settled(handler.lease());
        MerkleSum.Sums memory reported = usage.reported(handler.lease());
        assertLe(settled.requests, reported.requests, "requests");
        assertLe(settled.promptTokens, reported.promptTokens, "prompt tokens");
        assertLe(settled.cachedTokens, reported.cachedTokens, "cached tokens");
        assertLe(settled.completionTokens, reported.completionTokens, "completion tokens");
        assertLe(settled.charge, reported.charge, "charge");
    }

    function invariant_3_everybody_has_exactly_what_the_registered_terms_give() public view {
        for (uint256 i = 0; i < 6; ++i) {
            address account = handler.accounts(i);
            assertEq(
                escrow.balance(address(token), account) + handler.takenOut(account), handler.earned(account), "earned"
            );
        }
    }

    function invariant_4_what_payers_accepted_is_covered_until_the_host_claims_it() public view {
        for (uint256 i = 0; i < handler.partyCount(); ++i) {
            assertGe(unspent(handler.partyId(i)), handler.unclaimed(i), "covered");
        }
    }

    function invariant_7_bonds_held_are_bonds_paid_in_less_what_was_slashed() public view {
        uint256 bond = leases.lease(handler.lease()).bond;
        assertEq(bond, handler.bonded() - handler.slashed(), "slashed no more than there was");
        // The fixture's first lease has a bond too.
        assertEq(token.balanceOf(address(leases)), bond + 1_000e6, "held");
    }
}
