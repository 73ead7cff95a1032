// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Channel, SessionGrant, Statement, Voucher} from "../../contracts/types/Messages.sol";
import {Granting} from "../utils/Granting.sol";

/// A thief has a session key, and a host that is his friend.
contract StolenSessionKeyTest is Granting {
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
        IPaymentEscrow.LeaseClaims[] memory batch =
            batchOf(inFlightClaim(voucher, sign(session, escrow.voucherDigest(voucher)), last));
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
    function test_invariant_4_a_revoked_key_thaws() public {
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

    /// The payer revokes the stolen key, and goes on with another one at once.
    function test_another_key_of_the_payer_is_not_touched() public {
        register(defaultGrant());
        SessionGrant memory fresh = defaultGrant();
        fresh.key = stranger.addr;
        register(fresh);
        revoke();
        later(2 * CLAIM_INTERVAL + 1);
        serve(0, 0, 1_000);
        report();
        IPaymentEscrow.LeaseClaims[] memory stolen = sessionBatch(0);
        vm.expectPartialRevert(IPaymentEscrow.GrantExpired.selector);
        claimAs(host.addr, stolen);
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        assertEq(
            claimAs(host.addr, batchOf(claimOf(channel, voucher, sign(stranger, escrow.voucherDigest(voucher))))),
            cost(1, 0, 0, 1_000),
            "paid"
        );
    }
}
