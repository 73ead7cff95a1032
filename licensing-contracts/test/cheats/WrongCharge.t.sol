// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IAuditServiceManager} from "../../contracts/interfaces/IAuditServiceManager.sol";
import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Evidence} from "../../contracts/libraries/Evidence.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A host charges what its prices do not give: the claim is refused, and the statement that says so is punished.
contract WrongChargeTest is Auditing {
    Statement internal first;

    function setUp() public override {
        super.setUp();
        first = serve(1_000, 100, 500);
    }

    function proveMisprice(Statement memory statement) internal {
        bytes memory signature = signed(statement);
        vm.prank(payer.addr);
        court.proveMisprice(statement, signature);
    }

    function test_a_charge_that_the_prices_do_not_give_costs_a_fifth() public {
        ++first.charge;
        vm.expectEmit(address(audit));
        emit IAuditServiceManager.HostPunished(
            leaseId, host.addr, IAuditServiceManager.Offence.Misprice, BOND / 5, 0.1e18
        );
        proveMisprice(first);
        bytes32 offence = Evidence.misprice(leases.statementDigest(first));
        bytes memory signature = signed(first);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.AlreadyPunished.selector, offence));
        court.proveMisprice(first, signature);
    }

    function test_a_charge_below_the_price_is_wrong_as_well() public {
        // It would cost the creator his share.
        --first.charge;
        proveMisprice(first);
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "punished");
    }

    /// A host that accuses itself of a huge charge gets no more than a reporter's share.
    function test_a_host_cannot_get_its_bond_out_by_accusing_itself() public {
        first.charge = type(uint128).max;
        bytes memory signature = signed(first);
        vm.prank(host.addr);
        court.proveMisprice(first, signature);
        assertEq(balanceOf(host.addr), uint256(BOND) / 5 * 3_000 / 10_000, "a reporter's share of a fifth");
        assertEq(balanceOf(payer.addr), 0, "no refund of what nobody paid");
        assertEq(leases.lease(leaseId).bond, BOND - BOND / 5, "the rest stays");
    }

    function test_statements_that_are_no_account_of_a_request_have_no_right_charge() public {
        Statement memory bad = draft(channelId, 5, 10, 0, 10);
        bad.seq = 0;
        proveMisprice(bad);
        bad = draft(channelId, 5, 10, 0, 10);
        bad.cachedTokens = 11;
        proveMisprice(bad);
        bad = draft(channelId, 5, 10, 0, 10);
        bad.cachedTokensBefore = 1;
        proveMisprice(bad);
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_an_honest_charge_is_right(uint48[3] memory tokens, uint8 requests) public {
        requests = uint8(bound(requests, 1, 5));
        for (uint256 i = 0; i < requests; ++i) {
            uint48 prompt = uint48(bound(tokens[0] >> i, 0, 1e9));
            Statement memory statement =
                serve(prompt, uint48(bound(tokens[1], 0, prompt)), uint48(bound(tokens[2] >> i, 0, 1e9)));
            bytes memory signature = signed(statement);
            vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.ChargeIsRight.selector, uint256(statement.charge)));
            court.proveMisprice(statement, signature);
        }
    }

    function test_an_honest_charge_at_the_end_of_the_counts_is_right() public {
        Statement memory statement = draft(channelId, 7, type(uint48).max, type(uint48).max, type(uint48).max);
        bytes memory signature = signed(statement);
        vm.expectPartialRevert(IEvidenceCourt.ChargeIsRight.selector);
        court.proveMisprice(statement, signature);
    }

    /// forge-config: default.fuzz.runs = 64
    function testFuzz_a_wrong_charge_is_not_paid(uint128 charge) public {
        Voucher memory voucher = voucherFor(channelId, 0, type(uint128).max);
        Statement memory last = serve(2_000, 0, 700);
        uint128 right = last.charge;
        charge = uint128(bound(charge, 0, type(uint128).max - 1));
        last.charge = charge < right ? charge : charge + 1;
        report();
        IPaymentEscrow.LeaseClaims[] memory batch =
            batchOf(inFlightClaim(voucher, sign(payer, escrow.voucherDigest(voucher)), last));
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.StatementCharge.selector, uint256(right), last.charge));
        claimAs(host.addr, batch);
    }

    function test_a_forged_charge_accuses_nobody() public {
        ++first.charge;
        bytes memory forged = sign(stranger, leases.statementDigest(first));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        court.proveMisprice(first, forged);
    }
}
