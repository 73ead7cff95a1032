// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {ChannelId} from "../../contracts/types/Ids.sol";
import {Channel, SessionGrant, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";
import {BombWallet, KeyWallet} from "../utils/Wallets.sol";

/// Payers that want to spoil a host's claims: with channels of next to nothing, or with a voucher that turns bad between the
/// host's simulation and its transaction. Batches are all or nothing; the error names the culprit, and nobody else is paid less.
contract PoisonedBatchTest is Serving {
    function setUp() public override {
        super.setUp();
        serve(0, 0, 1_000_000);
    }

    function signedWith(Channel memory from, ChannelId id, bytes memory signature)
        internal
        view
        returns (IPaymentEscrow.Claim memory)
    {
        return claimOf(from, voucherFor(id, 0, 0), signature);
    }

    /// The honest payer's claim, and behind it that of a wallet which signs in a form of its own.
    function batchWith(address wallet) internal returns (IPaymentEscrow.LeaseClaims[] memory batch) {
        Channel memory theirs = channelOf(wallet);
        ChannelId id = deposit(theirs, 1e6);
        serveOn(id, 0, 0, 0, 1_000);
        report();
        batch = batchOf(acceptedClaim());
        IPaymentEscrow.Claim[] memory claims = new IPaymentEscrow.Claim[](2);
        claims[0] = batch[0].claims[0];
        claims[1] = signedWith(theirs, id, sign(payer, escrow.voucherDigest(voucherFor(id, 0, 0))));
        batch[0].claims = claims;
    }

    /// A thousand channels of one unit cost those who open them, and a claim of a real one not a unit of gas more.
    function test_channels_of_next_to_nothing_are_in_nobody_s_way() public {
        report();
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(acceptedClaim());
        uint256 before = vm.snapshotState();
        claimAs(host.addr, batch);
        uint256 alone = vm.lastCallGas().gasTotalUsed;
        vm.revertToState(before);
        for (uint256 i = 0; i < 1_000; ++i) {
            Channel memory spam = channelOf(address(uint160(uint256(keccak256(abi.encode("spam", i))))));
            deposit(spam, 1);
        }
        assertEq(claimAs(host.addr, batch), cost(1, 0, 0, 1_000_000), "paid");
        assertLe(vm.lastCallGas().gasTotalUsed, alone, "no dearer than without them");
    }

    function test_a_wallet_that_changes_its_mind_is_named_and_left_out() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        IPaymentEscrow.LeaseClaims[] memory batch = batchWith(address(wallet));
        uint256 before = vm.snapshotState();
        claimAs(host.addr, batch);
        vm.revertToState(before);
        // Simulated; and now the wallet is first.
        wallet.setRefusing(true);
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        claimAs(host.addr, batch);
        IPaymentEscrow.Claim[] memory others = new IPaymentEscrow.Claim[](1);
        others[0] = batch[0].claims[0];
        batch[0].claims = others;
        assertEq(claimAs(host.addr, batch), cost(1, 0, 0, 1_000_000), "the others are paid");
    }

    /// Nobody can do that who signs with a key, his own or a granted one: until it thaws, what it signed is paid.
    function test_a_key_cannot_change_its_mind() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        IPaymentEscrow.LeaseClaims[] memory batch = batchWith(address(wallet));
        Channel memory theirs = batch[0].claims[1].channel;
        SessionGrant memory grant = defaultGrant();
        grant.channelId = escrow.channelId(theirs);
        escrow.registerGrant(theirs, grant, sign(payer, escrow.grantDigest(grant)));
        Voucher memory voucher = batch[0].claims[1].voucher;
        batch[0].claims[1].signature = sign(session, escrow.voucherDigest(voucher));
        wallet.setRefusing(true);
        vm.startPrank(address(wallet));
        escrow.revokeGrant(theirs, session.addr);
        escrow.initiateWithdraw(theirs, 1e6);
        vm.stopPrank();
        claimAs(host.addr, batch);
        assertEq(escrow.channelState(escrow.channelId(theirs)).spent, cost(1, 0, 0, 1_000), "paid");
    }

    /// A wallet that burns all gas spoils its own claim and takes no money of anybody's.
    function test_a_wallet_that_burns_gas_costs_gas_and_nothing_else() public {
        BombWallet wallet = new BombWallet(0);
        IPaymentEscrow.LeaseClaims[] memory batch = batchWith(address(wallet));
        bytes memory call = abi.encodeCall(escrow.claimBatch, (batch));
        vm.prank(host.addr);
        (bool claimed,) = address(escrow).call{gas: 5_000_000}(call);
        assertFalse(claimed, "spoilt");
        assertEq(escrow.channelState(channelId).spent, 0, "nothing was taken");
        IPaymentEscrow.Claim[] memory others = new IPaymentEscrow.Claim[](1);
        others[0] = batch[0].claims[0];
        batch[0].claims = others;
        assertEq(claimAs(host.addr, batch), cost(1, 0, 0, 1_000_000), "the others are paid");
    }

    /// A wallet that answers with a megabyte pays for it out of its own call: nobody copies it.
    function test_a_wallet_with_a_long_answer_costs_no_more_than_its_own_call() public {
        BombWallet wallet = new BombWallet(1_000_000);
        IPaymentEscrow.LeaseClaims[] memory batch = batchWith(address(wallet));
        claimAs(host.addr, batch);
        // A megabyte of memory costs 2.2 million where it is made; copied, it would cost as much again.
        assertLt(vm.lastCallGas().gasTotalUsed, 2_700_000, "once");
    }
}
