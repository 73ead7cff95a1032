// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Granting} from "../utils/Granting.sol";

/// A payer takes the answer to its last request and is never seen again.
contract UnpaidLastRequestTest is Granting {
    uint128 internal constant CEILING = 900_000;
    Voucher internal voucher;
    Statement internal last;

    function setUp() public override {
        super.setUp();
        serve(10_000, 1_000, 5_000);
        voucher = voucherFor(channelId, 0, CEILING);
        last = serve(20_000, 0, 700_000);
    }

    function claimLast(bytes memory signature) internal returns (uint256) {
        return claimAs(host.addr, batchOf(inFlightClaim(voucher, signature, last)));
    }

    function everything() internal view returns (uint256) {
        return cost(2, 30_000, 1_000, 705_000);
    }

    /// Whatever the payer does meanwhile, its last voucher and the host's statement are enough.
    function testFuzz_the_last_request_is_paid_without_the_payer(uint256 wait, uint128 announced) public {
        bytes memory signature = sign(payer, escrow.voucherDigest(voucher));
        vm.prank(payer.addr);
        escrow.initiateWithdraw(channel, uint128(bound(announced, 1, type(uint128).max)));
        report();
        later(bound(wait, 0, CLAIM_INTERVAL));
        assertEq(claimLast(signature), everything(), "both requests");
    }

    function test_the_last_request_of_a_revoked_key_is_paid_while_it_thaws() public {
        register(defaultGrant());
        bytes memory signature = sign(session, escrow.voucherDigest(voucher));
        revoke();
        report();
        later(CLAIM_INTERVAL);
        assertEq(claimLast(signature), everything(), "both requests");
    }

    /// An honest payer that comes back and accepts the request after all is not charged a second time.
    function test_a_payer_that_settles_after_all_pays_once() public {
        report();
        claimLast(sign(payer, escrow.voucherDigest(voucher)));
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotNewer.selector, 2, 2));
        claimAs(host.addr, batch);
        assertEq(escrow.channelState(channelId).spent, everything(), "once");
    }

    /// An honest payer owes no more for it than the ceiling that it signed.
    function testFuzz_the_last_request_costs_no_more_than_its_ceiling(uint128 ceiling) public {
        voucher.ceiling = uint128(bound(ceiling, 0, last.charge - 1));
        report();
        IPaymentEscrow.LeaseClaims[] memory batch =
            batchOf(inFlightClaim(voucher, sign(payer, escrow.voucherDigest(voucher)), last));
        vm.expectRevert(
            abi.encodeWithSelector(IPaymentEscrow.CeilingExceeded.selector, voucher.ceiling, uint256(last.charge))
        );
        claimAs(host.addr, batch);
    }
}
