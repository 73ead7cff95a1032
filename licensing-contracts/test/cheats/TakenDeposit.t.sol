// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {MerkleSum} from "../../contracts/libraries/MerkleSum.sol";
import {ModelId} from "../../contracts/types/Ids.sol";
import {Channel, LicenseTerms, SessionGrant, Split, Voucher} from "../../contracts/types/Messages.sol";
import {Auditing} from "../utils/Auditing.sol";

/// Everybody else tries to get at a payer's deposit: whoever deployed the contracts, the creator, the host, validators, the other
/// contracts and strangers, through every call that moves tokens. No owner can move funds, because there is none.
contract TakenDepositTest is Auditing {
    function attackers() internal view returns (address[10] memory) {
        return [
            address(this),
            creator.addr,
            host.addr,
            validatorAddresses[0],
            stranger.addr,
            address(registry),
            address(leases),
            address(usage),
            address(audit),
            address(court)
        ];
    }

    /// Every call that moves or unlocks tokens, as somebody would make it who wants the payer's.
    function attacks(address attacker) internal returns (bytes[] memory calls) {
        Channel memory own = channelOf(attacker);
        SessionGrant memory grant = SessionGrant(channelId, attacker, 100e6, 100e6, uint64(START) + 30 days, 1);
        bytes memory grantSignature = sign(stranger, escrow.grantDigest(grant));
        Voucher memory voucher = voucherFor(channelId, 0, type(uint128).max);
        (voucher.requests, voucher.completionTokens) = (1, 50_000_000);
        bytes memory voucherSignature = sign(stranger, escrow.voucherDigest(voucher));
        MerkleSum.Sums memory used = MerkleSum.Sums(1, 0, 0, 50_000_000, 60e6);
        calls = new bytes[](15);
        calls[0] = abi.encodeCall(escrow.initiateWithdraw, (channel, 100e6));
        calls[1] = abi.encodeCall(escrow.withdraw, (channel));
        calls[2] = abi.encodeCall(escrow.cancelWithdraw, (channel));
        calls[3] = abi.encodeCall(escrow.registerGrant, (channel, grant, grantSignature));
        calls[4] = abi.encodeCall(escrow.revokeGrant, (channel, attacker));
        calls[5] = abi.encodeCall(escrow.claimBatch, (batchOf(claimOf(channel, voucher, voucherSignature))));
        calls[6] = abi.encodeCall(escrow.settleRoyalty, (leaseId, used, noSplits()));
        calls[7] = abi.encodeCall(escrow.enforceRoyalty, (leaseId, 0, noSplits()));
        calls[8] = abi.encodeCall(escrow.credit, (address(token), attacker, 100e6));
        calls[9] = abi.encodeCall(escrow.payOut, (address(token), attacker));
        calls[10] = abi.encodeCall(escrow.collectDeposit, (own));
        calls[11] = abi.encodeCall(escrow.initiateWithdraw, (own, 100e6));
        calls[12] = abi.encodeCall(escrow.withdraw, (own));
        calls[13] = abi.encodeCall(escrow.deposit, (own, 100e6));
        calls[14] = abi.encodeWithSignature("transfer(address,uint256)", attacker, 100e6);
    }

    function testFuzz_nobody_but_the_payer_takes_a_deposit_back(uint256 seed) public {
        // There is something to lie about: the payer has announced a withdrawal, and the host has served and reported.
        vm.prank(payer.addr);
        escrow.initiateWithdraw(channel, 40e6);
        serve(0, 0, 50_000_000);
        report();
        later(WITHDRAW_DELAY + 1 days);
        for (uint256 i = 0; i < 12; ++i) {
            address attacker = attackers()[uint8(seed >> (16 * i)) % 10];
            bytes[] memory calls = attacks(attacker);
            vm.prank(attacker);
            (bool ignored,) = address(escrow).call(calls[uint8(seed >> (16 * i + 8)) % calls.length]);
            ignored;
            if (attacker != creator.addr) assertEq(balanceOf(attacker), 0, "nothing is credited");
        }
        IPaymentEscrow.ChannelState memory state = escrow.channelState(channelId);
        assertEq(state.deposited - state.spent, 100e6, "the deposit is whole");
        assertEq(state.withdrawal, 40e6, "as announced");
        assertGe(token.balanceOf(address(escrow)), 100e6, "and it is there");
        uint256 creators = balanceOf(creator.addr) + token.balanceOf(creator.addr);
        assertEq(creators, BOND - leases.lease(leaseId).bond, "royalty that was due came from the bond");
        vm.prank(payer.addr);
        assertEq(escrow.withdraw(channel), 40e6, "the payer takes what it announced");
    }

    /// The host may give it back: to the payer.
    function test_what_the_host_releases_goes_to_the_payer() public {
        vm.prank(host.addr);
        escrow.release(channel, 30e6);
        assertEq(token.balanceOf(payer.addr), 30e6, "to the payer");
        assertEq(token.balanceOf(host.addr), 1_000_000e6 - BOND, "and not to the host");
    }

    /// Whoever owns the model, its published terms stay as they are, for leases that run and for those to come.
    function test_a_new_owner_changes_nothing_that_is_published() public {
        LicenseTerms memory published = registry.terms(termsId);
        vm.prank(creator.addr);
        registry.transferFrom(creator.addr, stranger.addr, ModelId.unwrap(modelId));
        LicenseTerms memory worse = defaultTerms(modelId);
        worse.royaltyBps = 9_000;
        vm.prank(stranger.addr);
        registry.publishTerms(worse, new Split[](0));
        assertEq(keccak256(abi.encode(registry.terms(termsId))), keccak256(abi.encode(published)), "as published");
        assertEq(leases.account(leaseId).royaltyBps, published.royaltyBps, "and so is what the host pays");
        assertEq(leases.account(leaseId).creator, stranger.addr, "to the new owner");
    }
}
