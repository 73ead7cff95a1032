// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEvidenceCourt} from "../../contracts/interfaces/IEvidenceCourt.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// A host claims a voucher's ceiling for a request that it did not serve, or that was smaller than it says.
contract CeilingWithoutWorkTest is Auditing {
    uint128 internal constant CEILING = 2_000_000;
    Voucher internal voucher;
    /// What the host really delivered, and signed for its customer.
    Statement internal delivered;

    function setUp() public override {
        super.setUp();
        serve(10_000, 1_000, 5_000);
        voucher = voucherFor(channelId, 0, CEILING);
        delivered = draft(channelId, 0, 20_000, 0, 1_000);
    }

    /// The same request with as many tokens as the ceiling pays for.
    function blownUp() internal view returns (Statement memory statement) {
        statement = draft(channelId, 0, 20_000, 0, 1_600_000);
        assertLe(statement.charge, CEILING, "within the ceiling");
        assertGt(statement.charge, delivered.charge * 10, "much more than was delivered");
    }

    function claimWith(Statement memory last) internal returns (IPaymentEscrow.LeaseClaims[] memory) {
        return batchOf(inFlightClaim(voucher, sign(payer, escrow.voucherDigest(voucher)), last));
    }

    function test_a_ceiling_by_itself_pays_nothing() public {
        report();
        IPaymentEscrow.LeaseClaims[] memory batch =
            batchOf(claimOf(channel, voucher, sign(payer, escrow.voucherDigest(voucher))));
        assertEq(claimAs(host.addr, batch), cost(1, 10_000, 1_000, 5_000), "what was accepted, and no more");
        vm.expectPartialRevert(IPaymentEscrow.NotNewer.selector);
        claimAs(host.addr, batch);
    }

    /// Whoever says that it served must say so in its report too, and pays the royalty on it.
    function test_a_made_up_request_is_not_paid_unless_it_is_reported() public {
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = claimWith(blownUp());
        vm.expectPartialRevert(IPaymentEscrow.MoreThanReported.selector);
        claimAs(host.addr, batch);
    }

    /// Reported and paid, it costs many times what it brought: the customer has the true account of the same request.
    function test_a_made_up_account_is_paid_once_and_slashed() public {
        Statement memory made = blownUp();
        take(made);
        report();
        uint256 accepted = cost(1, 10_000, 1_000, 5_000);
        uint256 gained = claimAs(host.addr, claimWith(made)) - accepted;
        bytes memory first = signed(delivered);
        bytes memory second = signed(made);
        vm.prank(payer.addr);
        court.proveEquivocation(delivered, first, made, second);
        assertEq(leases.lease(leaseId).bond, BOND / 2, "half of the bond");
        assertEq(audit.hostStake(host.addr), HOST_STAKE / 2, "half of the allocation");
        assertGt(balanceOf(payer.addr), gained, "the customer has more than it lost");
        assertLt(gained, BOND / 2, "and the host much less");
    }

    /// A customer that has no account of its own has the one that the claim published, and the bytes that it got.
    function test_a_customer_without_a_statement_is_refunded_by_a_verdict() public {
        Statement memory made = blownUp();
        take(made);
        report();
        claimAs(host.addr, claimWith(made));
        decide(accuse(payer.addr, made), guilty());
        assertGe(balanceOf(payer.addr), made.charge, "refunded");
    }

    /// An honest host is paid for the request in flight, and nothing can be made of its statement.
    function test_an_honest_host_is_paid_and_cannot_be_accused() public {
        take(delivered);
        uint256 index = report();
        claimAs(host.addr, claimWith(delivered));
        bytes memory signature = signed(delivered);
        toChallengeable(usage.report(leaseId, index).epoch);
        IEvidenceCourt.Absence memory absence;
        absence.firstReport = index;
        absence.neighbours = new MerkleSum.Neighbour[][](1);
        absence.neighbours[0] = new MerkleSum.Neighbour[](1);
        absence.neighbours[0][0] =
            MerkleSum.Neighbour(leafOf(delivered), pathIn(index, leases.statementDigest(delivered)));
        vm.startPrank(payer.addr);
        vm.expectRevert(IEvidenceCourt.NoContradiction.selector);
        court.proveEquivocation(delivered, signature, delivered, signature);
        vm.expectRevert(abi.encodeWithSelector(IEvidenceCourt.ChargeIsRight.selector, delivered.charge));
        court.proveMisprice(delivered, signature);
        vm.expectPartialRevert(MerkleSum.Included.selector);
        court.proveOmission(delivered, signature, absence);
        vm.expectPartialRevert(IEvidenceCourt.NotPostdated.selector);
        court.provePostdating(delivered, signature);
        vm.stopPrank();
        assertEq(leases.lease(leaseId).bond, BOND, "nothing was taken");
    }
}
