// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ILeaseManager} from "../../contracts/interfaces/ILeaseManager.sol";
import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {Counts, Pricing} from "../../contracts/libraries/Pricing.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId, LeaseId, ModelId} from "../../contracts/types/Ids.sol";
import {Channel, LicenseTerms, Split, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

contract ClaimTest is Serving {
    uint256 internal constant CURVE_ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141;

    function expectRefusal(IPaymentEscrow.LeaseClaims[] memory batch, bytes memory error) internal {
        vm.expectRevert(error);
        claimAs(host.addr, batch);
    }

    /// The accepted voucher of lane 0, changed, and signed by the payer all the same.
    function resign(Voucher memory voucher) internal returns (IPaymentEscrow.LeaseClaims[] memory) {
        return batchOf(claimOf(channel, voucher, sign(payer, escrow.voucherDigest(voucher))));
    }

    function balanceOf(address account) internal view returns (uint256) {
        return escrow.balance(address(token), account);
    }

    function test_a_claim_pays_creator_validators_and_host_and_nobody_else() public {
        serve(1_000_000, 400_000, 250_000);
        serve(2_000_000, 0, 1_500_000);
        report();
        // 10 + 1,040,000 + 16,000 + 2,100,000 = 3,156,010 millionths of a dollar.
        uint256 all = cost(2, 3_000_000, 400_000, 1_750_000);
        assertEq(all, 3_156_010, "the price of the lane");
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());

        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Claimed(
            channelId,
            leaseId,
            0,
            IPaymentEscrow.Lane(leaseId, 2, 3_000_000, 400_000, 1_750_000),
            all,
            315_601,
            31_560,
            0
        );
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Credited(address(token), address(audit), 31_560);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Credited(address(token), creator.addr, 315_601);
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.Credited(address(token), host.addr, all - 315_601 - 31_560);
        assertEq(claimAs(host.addr, batch), all, "paid");

        assertEq(escrow.channelState(channelId).spent, all, "spent by the channel");
        assertEq(escrow.settled(leaseId).charge, all, "counted as paid for");
        assertEq(balanceOf(creator.addr) + balanceOf(host.addr) + balanceOf(address(audit)), all, "parts sum to it");
    }

    function test_a_later_claim_pays_only_the_difference() public {
        serve(1_000, 0, 500);
        report();
        uint256 first = claimAs(host.addr, batchOf(acceptedClaim()));
        serve(3_333, 111, 777);
        report();
        uint256 second = claimAs(host.addr, batchOf(acceptedClaim()));
        assertEq(first + second, cost(2, 4_333, 111, 1_277), "both together are the lane's cost");
    }

    function test_a_claim_that_is_made_twice_is_refused_the_second_time() public {
        serve(1_000, 0, 500);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        claimAs(host.addr, batch);
        expectRefusal(batch, abi.encodeWithSelector(IPaymentEscrow.NotNewer.selector, 1, 1));
    }

    function test_an_older_voucher_is_refused_after_a_newer_one() public {
        serve(1_000, 0, 500);
        IPaymentEscrow.LeaseClaims[] memory older = batchOf(acceptedClaim());
        serve(1_000, 0, 500);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        expectRefusal(older, abi.encodeWithSelector(IPaymentEscrow.NotNewer.selector, 2, 1));
    }

    /// Invariant 2: however vouchers are grouped into claims, the same is paid in the end.
    function testFuzz_invariant_2_the_sum_of_claims_does_not_depend_on_how_they_are_cut(uint256 seed, uint8 claims)
        public
    {
        uint256 paid = 0;
        for (uint256 i = 0; i < 6; ++i) {
            uint256 noise = uint256(keccak256(abi.encode(seed, i)));
            uint48 prompt = uint48(bound(noise, 0, 50_000));
            serve(prompt, uint48(bound(noise >> 64, 0, prompt)), uint48(bound(noise >> 128, 0, 50_000)));
            report();
            if ((claims >> i) & 1 == 1) paid += claimAs(host.addr, batchOf(acceptedClaim()));
        }
        if ((claims >> 5) & 1 == 0) paid += claimAs(host.addr, batchOf(acceptedClaim()));
        Counts memory counts = laneStates[channelId][0].counts;
        assertEq(paid, Pricing.costUp(counts, leases.lease(leaseId).prices), "paid in all");
        assertEq(
            balanceOf(creator.addr) + balanceOf(host.addr) + balanceOf(address(audit)),
            paid,
            "and shared out to the unit"
        );
    }

    function test_a_batch_claims_under_several_leases() public {
        serve(1_000, 0, 500);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = new IPaymentEscrow.LeaseClaims[](2);
        batch[0] = batchOf(acceptedClaim())[0];
        LeaseId first = leaseId;
        leaseId = openLease(termsId);
        serveOn(channelId, 1, 2_000, 0, 700);
        report();
        Voucher memory voucher = voucherFor(channelId, 1, 0);
        batch[1] = resign(voucher)[0];
        uint256 paid = claimAs(host.addr, batch);
        assertEq(paid, uint256(cost(1, 1_000, 0, 500)) + cost(1, 2_000, 0, 700), "both leases");
        assertEq(escrow.settled(first).requests, 1, "the first lease's use");
        assertEq(escrow.settled(leaseId).requests, 1, "the second lease's use");
    }

    function test_the_royalty_is_shared_as_the_terms_say() public {
        Split[] memory splits = twoSplits();
        leaseId = openLease(publishTerms(defaultTerms(modelId), splits));
        serve(1_000_000, 0, 1_000_000);
        report();
        uint256 all = claimAs(host.addr, batchOf(acceptedClaim(), splits));
        uint256 royalty = all / 10;
        assertEq(balanceOf(splits[0].recipient), royalty * 2_500 / 10_000, "the parent");
        assertEq(balanceOf(splits[1].recipient), royalty * 1_000 / 10_000, "the contributor");
        assertEq(
            balanceOf(creator.addr), royalty - royalty * 2_500 / 10_000 - royalty * 1_000 / 10_000, "the creator's rest"
        );
    }

    /// Invariant 3: a host that names other recipients, or none, is not paid.
    function test_recipients_that_the_terms_do_not_name_are_refused() public {
        Split[] memory splits = twoSplits();
        leaseId = openLease(publishTerms(defaultTerms(modelId), splits));
        serve(1_000_000, 0, 1_000_000);
        report();
        bytes32 right = keccak256(abi.encode(splits));
        expectRefusal(
            batchOf(acceptedClaim()), abi.encodeWithSelector(IPaymentEscrow.WrongSplits.selector, right, bytes32(0))
        );
        splits[0].recipient = host.addr;
        expectRefusal(
            batchOf(acceptedClaim(), splits),
            abi.encodeWithSelector(IPaymentEscrow.WrongSplits.selector, right, keccak256(abi.encode(splits)))
        );
    }

    function test_the_royalty_is_at_least_the_floor() public {
        LicenseTerms memory terms = defaultTerms(modelId);
        (terms.royaltyBps, terms.floorRequest) = (1, 1_000_000);
        leaseId = openLease(publishTerms(terms));
        serve(1_000_000, 500_000, 1_000_000);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        // 1 + 500,000 · 0.02 + 500,000 · 0.002 + 1,000,000 · 0.06 dollars per million.
        assertEq(balanceOf(creator.addr), 1 + 10_000 + 1_000 + 60_000, "the floor");
    }

    function test_the_creator_of_the_moment_is_paid() public {
        serve(1_000, 0, 500);
        report();
        address buyer = makeAddr("buyer");
        vm.prank(creator.addr);
        registry.transferFrom(creator.addr, buyer, ModelId.unwrap(modelId));
        claimAs(host.addr, batchOf(acceptedClaim()));
        assertEq(balanceOf(creator.addr), 0, "the seller");
        assertGt(balanceOf(buyer), 0, "the buyer");
    }

    function test_only_the_host_claims() public {
        serve(1_000, 0, 500);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotHost.selector, host.addr, stranger.addr));
        claimAs(stranger.addr, batch);
    }

    function test_nothing_is_claimed_under_a_lease_that_is_unknown() public {
        serve(1_000, 0, 500);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        batch[0].leaseId = LeaseId.wrap(9);
        expectRefusal(batch, abi.encodeWithSelector(ILeaseManager.UnknownLease.selector, 9));
    }

    function test_nothing_is_claimed_after_the_lease_s_claim_delay() public {
        serve(1_000, 0, 500);
        report();
        vm.prank(host.addr);
        leases.close(leaseId);
        uint64 until = uint64(block.timestamp) + CLAIM_DELAY;
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        IPaymentEscrow.LeaseClaims[] memory batch = resign(voucher);
        vm.warp(until + 1);
        expectRefusal(batch, abi.encodeWithSelector(IPaymentEscrow.LeaseNotClaimable.selector, until));
        vm.warp(until);
        claimAs(host.addr, batch);
    }

    function test_a_voucher_counts_for_its_own_channel_only() public {
        serve(1_000, 0, 500);
        report();
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        voucher.channelId = ChannelId.wrap(keccak256("another channel"));
        expectRefusal(
            resign(voucher), abi.encodeWithSelector(IPaymentEscrow.WrongChannel.selector, channelId, voucher.channelId)
        );
    }

    function test_a_voucher_counts_for_its_own_lease_only() public {
        serve(1_000, 0, 500);
        report();
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        voucher.leaseId = LeaseId.wrap(2);
        expectRefusal(resign(voucher), abi.encodeWithSelector(IPaymentEscrow.WrongLease.selector, 1, 2));
    }

    function test_a_lane_belongs_to_the_lease_of_its_first_claim() public {
        serve(1_000, 0, 500);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        leaseId = openLease(termsId);
        serve(1_000, 0, 500);
        report();
        expectRefusal(batchOf(acceptedClaim()), abi.encodeWithSelector(IPaymentEscrow.WrongLease.selector, 1, 2));
    }

    function test_a_channel_with_another_host_does_not_pay_this_one() public {
        Channel memory foreign = defaultChannel();
        foreign.host = stranger.addr;
        ChannelId id = deposit(foreign, 10e6);
        serve(1_000, 0, 500);
        report();
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        voucher.channelId = id;
        IPaymentEscrow.Claim memory claim = claimOf(foreign, voucher, sign(payer, escrow.voucherDigest(voucher)));
        expectRefusal(batchOf(claim), abi.encodeWithSelector(IPaymentEscrow.NotHost.selector, stranger.addr, host.addr));
    }

    function test_a_channel_in_another_token_does_not_pay_this_lease() public {
        Channel memory foreign = defaultChannel();
        foreign.token = address(stakeToken);
        ChannelId id = deposit(foreign, 10e6);
        serve(1_000, 0, 500);
        report();
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        voucher.channelId = id;
        IPaymentEscrow.Claim memory claim = claimOf(foreign, voucher, sign(payer, escrow.voucherDigest(voucher)));
        expectRefusal(
            batchOf(claim),
            abi.encodeWithSelector(IPaymentEscrow.WrongToken.selector, address(token), address(stakeToken))
        );
    }

    function test_an_expired_voucher_is_refused() public {
        serve(1_000, 0, 500);
        report();
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        voucher.expiresAt = uint64(block.timestamp);
        IPaymentEscrow.LeaseClaims[] memory batch = resign(voucher);
        vm.warp(voucher.expiresAt + 1);
        expectRefusal(batch, abi.encodeWithSelector(IPaymentEscrow.VoucherExpired.selector, voucher.expiresAt));
        vm.warp(voucher.expiresAt);
        claimAs(host.addr, batch);
    }

    function test_counts_that_decrease_are_refused() public {
        serve(1_000, 0, 500);
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        (voucher.requests, voucher.completionTokens) = (2, 499);
        expectRefusal(
            resign(voucher),
            abi.encodeWithSelector(Pricing.CountsDecrease.selector, Counts(1, 1_000, 0, 500), Counts(2, 1_000, 0, 499))
        );
    }

    function test_more_cached_tokens_than_prompt_tokens_are_refused() public {
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        (voucher.requests, voucher.promptTokens, voucher.cachedTokens) = (1, 10, 11);
        expectRefusal(
            resign(voucher),
            abi.encodeWithSelector(Pricing.CountsDecrease.selector, Counts(0, 0, 0, 0), Counts(1, 10, 11, 0))
        );
    }

    /// Invariant 2, last part: what was not reported is not paid.
    function test_use_that_was_not_reported_is_not_paid() public {
        serve(1_000, 0, 500);
        uint128 charge = cost(1, 1_000, 0, 500);
        MerkleSum.Sums memory none;
        expectRefusal(
            batchOf(acceptedClaim()),
            abi.encodeWithSelector(
                IPaymentEscrow.MoreThanReported.selector, none, MerkleSum.Sums(1, 1_000, 0, 500, charge)
            )
        );
        report();
        claimAs(host.addr, batchOf(acceptedClaim()));
    }

    function test_reporting_less_in_any_count_keeps_the_claim_back() public {
        serve(1_000, 100, 500);
        MerkleSum.Leaf memory leaf = pending[0];
        uint256 clean = vm.snapshotState();
        for (uint256 what = 0; what < 4; ++what) {
            MerkleSum.Leaf[] memory leaves = new MerkleSum.Leaf[](1);
            leaves[0] =
                MerkleSum.Leaf(leaf.digest, leaf.promptTokens, leaf.cachedTokens, leaf.completionTokens, leaf.charge);
            if (what == 0) --leaves[0].promptTokens;
            else if (what == 1) --leaves[0].cachedTokens;
            else if (what == 2) --leaves[0].completionTokens;
            else --leaves[0].charge;
            uint64 epoch = currentEpoch();
            toEndOf(epoch);
            commitLeaves(epoch, leaves);
            IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
            vm.expectPartialRevert(IPaymentEscrow.MoreThanReported.selector);
            claimAs(host.addr, batch);
            vm.revertToState(clean);
        }
    }

    // Invariant 8

    function test_a_stranger_s_signature_pays_nothing() public {
        serve(1_000, 0, 500);
        report();
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        IPaymentEscrow.Claim memory claim = claimOf(channel, voucher, sign(stranger, escrow.voucherDigest(voucher)));
        expectRefusal(
            batchOf(claim), abi.encodeWithSelector(IPaymentEscrow.UnknownGrant.selector, channelId, stranger.addr)
        );
    }

    function testFuzz_a_voucher_that_was_altered_pays_nothing(uint256 what, uint48 change) public {
        what = bound(what, 0, 5);
        change = uint48(bound(change, 1, 1_000));
        serve(10_000, 5_000, 500);
        serveOn(channelId, 1, 10_000, 5_000, 500);
        report();
        IPaymentEscrow.Claim memory claim = acceptedClaim();
        if (what == 0) claim.voucher.lane = 1;
        else if (what == 1) claim.voucher.requests += change;
        else if (what == 2) claim.voucher.promptTokens += change;
        else if (what == 3) claim.voucher.cachedTokens -= change;
        else if (what == 4) claim.voucher.completionTokens += change;
        else claim.voucher.expiresAt += change;
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(claim);
        vm.expectPartialRevert(IPaymentEscrow.UnknownGrant.selector);
        claimAs(host.addr, batch);
    }
}
