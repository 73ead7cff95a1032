// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Counts, Pricing} from "../../contracts/libraries/Pricing.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId, LeaseId} from "../../contracts/types/Ids.sol";
import {Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

/// The payer is gone: the host claims the request that was in flight with its own statement.
contract ClaimInFlightTest is Serving {
    uint128 internal constant CEILING = 2_000_000;
    Statement internal last;
    Voucher internal voucher;

    function setUp() public override {
        super.setUp();
        serve(10_000, 1_000, 5_000);
        voucher = voucherFor(channelId, 0, CEILING);
        last = serve(20_000, 0, 700_000);
        report();
    }

    function batch() internal returns (IPaymentEscrow.LeaseClaims[] memory) {
        return batchOf(inFlightClaim(voucher, sign(payer, escrow.voucherDigest(voucher)), last));
    }

    function expectRefusal(bytes memory error) internal {
        IPaymentEscrow.LeaseClaims[] memory claims = batch();
        vm.expectRevert(error);
        claimAs(host.addr, claims);
    }

    function test_the_request_in_flight_is_paid_by_its_statement() public {
        IPaymentEscrow.LeaseClaims[] memory claims = batch();
        uint256 all = cost(2, 30_000, 1_000, 705_000);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Claimed(
            channelId,
            leaseId,
            0,
            IPaymentEscrow.Lane(leaseId, 2, 30_000, 1_000, 705_000),
            all,
            all / 10,
            all / 100,
            leases.statementDigest(last)
        );
        assertEq(claimAs(host.addr, claims), all, "the accepted request and the one in flight");
    }

    function test_without_a_statement_only_what_was_accepted_is_paid() public {
        IPaymentEscrow.Claim memory claim = claimOf(channel, voucher, sign(payer, escrow.voucherDigest(voucher)));
        assertEq(claimAs(host.addr, batchOf(claim)), cost(1, 10_000, 1_000, 5_000), "the accepted request");
    }

    function test_a_cost_above_the_ceiling_is_refused() public {
        voucher.ceiling = last.charge - 1;
        expectRefusal(
            abi.encodeWithSelector(IPaymentEscrow.CeilingExceeded.selector, last.charge - 1, uint256(last.charge))
        );
        voucher.ceiling = last.charge;
        claimAs(host.addr, batch());
    }

    function test_a_statement_that_the_lease_key_did_not_sign_is_refused() public {
        IPaymentEscrow.LeaseClaims[] memory claims = batch();
        bytes32 digest = leases.statementDigest(last);
        claims[0].claims[0].statementSignature = sign(stranger, digest);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, stranger.addr));
        claimAs(host.addr, claims);
        // Not even the host's own key: the lease names one key for statements.
        claims[0].claims[0].statementSignature = sign(host, digest);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, leaseKey.addr, host.addr));
        claimAs(host.addr, claims);
    }

    function test_two_statements_are_refused() public {
        IPaymentEscrow.LeaseClaims[] memory claims = batch();
        claims[0].claims[0].inFlight = new Statement[](2);
        claims[0].claims[0].inFlight[0] = last;
        claims[0].claims[0].inFlight[1] = last;
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.OneStatement.selector, 2));
        claimAs(host.addr, claims);
    }

    function test_a_statement_of_another_channel_is_refused() public {
        last.channelId = ChannelId.wrap(keccak256("another channel"));
        expectRefusal(abi.encodeWithSelector(IPaymentEscrow.WrongChannel.selector, channelId, last.channelId));
    }

    function test_a_statement_of_another_lease_is_refused() public {
        last.leaseId = LeaseId.wrap(7);
        expectRefusal(abi.encodeWithSelector(IPaymentEscrow.WrongLease.selector, 1, 7));
    }

    function test_a_statement_of_another_lane_is_refused() public {
        last.lane = 3;
        expectRefusal(abi.encodeWithSelector(IPaymentEscrow.WrongLane.selector, 0, 3));
    }

    function test_a_statement_that_does_not_follow_the_accepted_one_is_refused() public {
        bytes32 right = last.previous;
        last.previous = keccak256("a statement that nobody saw");
        expectRefusal(abi.encodeWithSelector(IPaymentEscrow.StatementOutOfOrder.selector, right, last.previous));
    }

    function testFuzz_a_statement_with_other_counts_before_it_is_refused(uint256 what) public {
        what = bound(what, 0, 3);
        if (what == 0) ++last.seq;
        else if (what == 1) ++last.promptTokensBefore;
        else if (what == 2) ++last.cachedTokensBefore;
        else ++last.completionTokensBefore;
        expectRefusal(abi.encodeWithSelector(IPaymentEscrow.StatementCounts.selector));
    }

    function test_more_cached_than_prompt_tokens_are_refused() public {
        last.cachedTokens = last.promptTokens + 1;
        expectRefusal(
            abi.encodeWithSelector(
                Pricing.CountsDecrease.selector,
                Counts(1, 10_000, 1_000, 5_000),
                Counts(2, 30_000, 1_000 + last.cachedTokens, 705_000)
            )
        );
    }
}
