// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {SessionGrant, Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Granting} from "../utils/Granting.sol";

/// Session keys: caps, expiry, revocation.
contract GrantsTest is Granting {
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

    function test_a_revocation_does_not_lengthen_a_grant() public {
        SessionGrant memory grant = defaultGrant();
        grant.expiresAt = uint64(block.timestamp) + 1 hours;
        register(grant);
        revoke();
        assertEq(escrow.grant(channelId, session.addr).expiresAt, grant.expiresAt, "as before");
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
}
