// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {SessionGrant, Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";

/// Session keys: caps, expiry, revocation.
contract GrantsTest is Serving {
    function defaultGrant() internal view returns (SessionGrant memory) {
        return SessionGrant({
            channelId: channelId,
            key: session.addr,
            cap: 10e6,
            perRequestCap: 1e6,
            expiresAt: uint64(block.timestamp) + 30 days,
            nonce: 1
        });
    }

    function register(SessionGrant memory grant) internal {
        bytes memory signature = sign(payer, escrow.grantDigest(grant));
        escrow.registerGrant(channel, grant, signature);
    }

    function revoke() internal {
        vm.prank(payer.addr);
        escrow.revokeGrant(channel, session.addr);
    }

    function sessionBatch(uint128 ceiling) internal returns (IPaymentEscrow.LeaseClaims[] memory) {
        Voucher memory voucher = voucherFor(channelId, 0, ceiling);
        return batchOf(claimOf(channel, voucher, sign(session, escrow.voucherDigest(voucher))));
    }

    function expectRefusal(SessionGrant memory grant, bytes memory error) internal {
        bytes memory signature = sign(payer, escrow.grantDigest(grant));
        vm.expectRevert(error);
        escrow.registerGrant(channel, grant, signature);
    }

    function test_a_granted_key_pays_within_its_cap() public {
        SessionGrant memory grant = defaultGrant();
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.GrantRegistered(channelId, session.addr, grant);
        register(grant);
        serve(0, 0, 5_000_000);
        report();
        uint256 paid = claimAs(host.addr, sessionBatch(0));
        assertEq(escrow.grant(channelId, session.addr).spent, paid, "spent under the grant");
        // 6 dollars are spent, 4 are left, and 6 more are wanted.
        serve(0, 0, 5_000_000);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = sessionBatch(0);
        uint256 all = cost(2, 0, 0, 10_000_000);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.GrantCapExceeded.selector, 10e6, all));
        claimAs(host.addr, batch);
        // The payer itself accepts the same, with no cap.
        claimAs(host.addr, batchOf(acceptedClaim()));
    }

    /// A stolen session key costs its cap and no more.
    function testFuzz_a_stolen_key_never_spends_more_than_its_cap(uint48[6] memory tokens) public {
        register(defaultGrant());
        for (uint256 i = 0; i < tokens.length; ++i) {
            serve(0, 0, uint48(bound(tokens[i], 0, 6_000_000)));
            report();
            bytes memory call = abi.encodeCall(escrow.claimBatch, (sessionBatch(type(uint128).max)));
            vm.prank(host.addr);
            (bool claimed,) = address(escrow).call(call);
            assertLe(escrow.channelState(channelId).spent, 10e6, "spent with the key");
            if (!claimed) break;
        }
    }

    function test_a_request_in_flight_obeys_the_cap_per_request() public {
        register(defaultGrant());
        Voucher memory voucher = voucherFor(channelId, 0, 1e6 + 1);
        Statement memory last = serve(0, 0, 100_000);
        report();
        IPaymentEscrow.Claim memory claim = claimOf(channel, voucher, sign(session, escrow.voucherDigest(voucher)));
        claim.inFlight = new Statement[](1);
        claim.inFlight[0] = last;
        claim.statementSignature = signed(last);
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(claim);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.RequestCapExceeded.selector, 1e6, 1e6 + 1));
        claimAs(host.addr, batch);
    }

    function test_an_expired_key_pays_nothing() public {
        SessionGrant memory grant = defaultGrant();
        grant.expiresAt = uint64(block.timestamp) + 2 hours;
        register(grant);
        serve(0, 0, 1_000);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = sessionBatch(0);
        vm.warp(grant.expiresAt + 1);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.GrantExpired.selector, grant.expiresAt));
        claimAs(host.addr, batch);
        vm.warp(grant.expiresAt);
        claimAs(host.addr, batch);
    }

    /// Invariant 4, for keys: what a key signed before its revocation can be claimed for two intervals.
    function test_a_revoked_key_thaws() public {
        register(defaultGrant());
        serve(0, 0, 1_000);
        IPaymentEscrow.LeaseClaims[] memory batch = sessionBatch(0);
        uint64 thawed = uint64(block.timestamp) + 2 * CLAIM_INTERVAL;
        vm.expectEmit(address(escrow));
        emit IPaymentEscrow.GrantRevoked(channelId, session.addr, thawed);
        revoke();
        report();
        vm.warp(thawed + 1);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.GrantExpired.selector, thawed));
        claimAs(host.addr, batch);
        vm.warp(thawed);
        claimAs(host.addr, batch);
    }

    function test_a_revocation_does_not_lengthen_a_grant() public {
        SessionGrant memory grant = defaultGrant();
        grant.expiresAt = uint64(block.timestamp) + 1 hours;
        register(grant);
        revoke();
        assertEq(escrow.grant(channelId, session.addr).expiresAt, grant.expiresAt, "as before");
    }

    function test_a_revocation_cannot_be_lifted_with_an_older_signature() public {
        SessionGrant memory spare = defaultGrant();
        (spare.nonce, spare.expiresAt) = (type(uint64).max, uint64(block.timestamp) + 300 days);
        register(defaultGrant());
        bytes memory signature = sign(payer, escrow.grantDigest(spare));
        revoke();
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.GrantNonce.selector, type(uint64).max, type(uint64).max));
        vm.prank(host.addr);
        escrow.registerGrant(channel, spare, signature);
    }

    function test_only_the_payer_revokes_and_only_what_is_granted() public {
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.UnknownGrant.selector, channelId, session.addr));
        revoke();
        register(defaultGrant());
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.NotPayer.selector, payer.addr, stranger.addr));
        vm.prank(stranger.addr);
        escrow.revokeGrant(channel, session.addr);
    }

    function test_a_grant_is_replaced_by_a_wider_one_with_a_higher_nonce_only() public {
        register(defaultGrant());
        SessionGrant memory next = defaultGrant();
        expectRefusal(next, abi.encodeWithSelector(IPaymentEscrow.GrantNonce.selector, 1, 1));
        next.nonce = 2;
        --next.cap;
        expectRefusal(next, abi.encodeWithSelector(IPaymentEscrow.GrantReduced.selector));
        ++next.cap;
        --next.perRequestCap;
        expectRefusal(next, abi.encodeWithSelector(IPaymentEscrow.GrantReduced.selector));
        ++next.perRequestCap;
        --next.expiresAt;
        expectRefusal(next, abi.encodeWithSelector(IPaymentEscrow.GrantReduced.selector));
        ++next.expiresAt;
        next.cap += 5e6;
        register(next);
        assertEq(escrow.grant(channelId, session.addr).cap, 15e6, "wider");
    }

    function test_what_was_spent_counts_under_the_wider_grant() public {
        register(defaultGrant());
        serve(0, 0, 5_000_000);
        report();
        uint256 paid = claimAs(host.addr, sessionBatch(0));
        SessionGrant memory next = defaultGrant();
        (next.nonce, next.cap) = (2, 20e6);
        register(next);
        assertEq(escrow.grant(channelId, session.addr).spent, paid, "not forgotten");
    }

    function test_grants_are_refused_each_by_name() public {
        SessionGrant memory grant = defaultGrant();
        grant.channelId = ChannelId.wrap(keccak256("another channel"));
        expectRefusal(grant, abi.encodeWithSelector(IPaymentEscrow.WrongChannel.selector, channelId, grant.channelId));
        grant = defaultGrant();
        grant.key = address(0);
        expectRefusal(grant, abi.encodeWithSelector(IPaymentEscrow.Zero.selector));
        grant = defaultGrant();
        grant.expiresAt = uint64(block.timestamp);
        expectRefusal(grant, abi.encodeWithSelector(IPaymentEscrow.GrantExpired.selector, grant.expiresAt));
    }

    function test_only_the_payer_s_signature_grants() public {
        SessionGrant memory grant = defaultGrant();
        bytes memory signature = sign(session, escrow.grantDigest(grant));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WrongSigner.selector, payer.addr, session.addr));
        escrow.registerGrant(channel, grant, signature);
    }

    function test_a_key_that_is_granted_on_one_channel_signs_for_no_other() public {
        register(defaultGrant());
        channel.salt = keccak256("another channel of the same payer");
        channelId = deposit(channel, 50e6);
        serve(0, 0, 1_000);
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = sessionBatch(0);
        vm.expectRevert(abi.encodeWithSelector(IPaymentEscrow.UnknownGrant.selector, channelId, session.addr));
        claimAs(host.addr, batch);
    }
}
