// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC1271} from "@openzeppelin/contracts/interfaces/IERC1271.sol";

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {Signatures} from "../../contracts/libraries/Signatures.sol";
import {SessionGrant, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "../utils/Serving.sol";
import {KeyWallet, ReenteringWallet, ScriptedWallet} from "../utils/Wallets.sol";

/// Payers that are wallet contracts (ERC-1271), honest and malicious.
contract WalletsTest is Serving {
    function openChannelOf(address wallet) internal {
        channel = channelOf(wallet);
        channelId = deposit(channel, 50e6);
        serve(0, 0, 1_000_000);
        report();
    }

    function batchSigned(bytes memory signature) internal view returns (IPaymentEscrow.LeaseClaims[] memory) {
        return batchOf(claimOf(channel, voucherFor(channelId, 0, 0), signature));
    }

    function voucherDigest() internal view returns (bytes32) {
        return escrow.voucherDigest(voucherFor(channelId, 0, 0));
    }

    function test_a_wallet_s_voucher_is_paid() public {
        openChannelOf(address(new KeyWallet(payer.addr)));
        uint256 paid = claimAs(host.addr, batchSigned(sign(payer, voucherDigest())));
        assertEq(paid, cost(1, 0, 0, 1_000_000), "paid");
    }

    function test_a_wallet_that_refuses_pays_nothing() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        openChannelOf(address(wallet));
        wallet.setRefusing(true);
        IPaymentEscrow.LeaseClaims[] memory batch = batchSigned(sign(payer, voucherDigest()));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        claimAs(host.addr, batch);
    }

    /// Why a host should take a wallet's vouchers only from a granted key.
    function test_a_wallet_cannot_take_back_what_its_granted_key_signed() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        openChannelOf(address(wallet));
        SessionGrant memory grant = defaultGrant();
        escrow.registerGrant(channel, grant, sign(payer, escrow.grantDigest(grant)));
        wallet.setRefusing(true);
        uint256 paid = claimAs(host.addr, batchSigned(sign(session, voucherDigest())));
        assertEq(paid, cost(1, 0, 0, 1_000_000), "paid");
    }

    function test_a_grant_that_the_wallet_does_not_sign_is_refused() public {
        KeyWallet wallet = new KeyWallet(payer.addr);
        openChannelOf(address(wallet));
        SessionGrant memory grant = defaultGrant();
        bytes memory signature = sign(stranger, escrow.grantDigest(grant));
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        escrow.registerGrant(channel, grant, signature);
    }

    function test_a_wallet_takes_signatures_of_any_length() public {
        ScriptedWallet wallet = new ScriptedWallet();
        openChannelOf(address(wallet));
        wallet.script(abi.encode(IERC1271.isValidSignature.selector), false);
        claimAs(host.addr, batchSigned("open sesame"));
    }

    function test_a_wallet_that_answers_nonsense_pays_nothing() public {
        ScriptedWallet wallet = new ScriptedWallet();
        openChannelOf(address(wallet));
        wallet.script(new bytes(4_096), false);
        IPaymentEscrow.LeaseClaims[] memory batch = batchSigned("open sesame");
        vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
        claimAs(host.addr, batch);
    }

    function test_a_wallet_cannot_move_its_deposit_while_it_is_asked() public {
        ReenteringWallet wallet = new ReenteringWallet();
        openChannelOf(address(wallet));
        vm.prank(address(wallet));
        escrow.initiateWithdraw(channel, 50e6);
        later(WITHDRAW_DELAY);
        Voucher memory voucher = voucherFor(channelId, 0, 0);
        IPaymentEscrow.LeaseClaims[] memory batch = batchOf(claimOf(channel, voucher, "let me in"));
        bytes[3] memory calls = [
            abi.encodeCall(escrow.withdraw, (channel)),
            abi.encodeCall(escrow.initiateWithdraw, (channel, 1)),
            abi.encodeCall(escrow.claimBatch, (batch))
        ];
        for (uint256 i = 0; i < calls.length; ++i) {
            wallet.arm(address(escrow), calls[i]);
            vm.expectRevert(abi.encodeWithSelector(Signatures.WalletRefused.selector, address(wallet)));
            claimAs(host.addr, batch);
        }
        assertEq(escrow.channelState(channelId).deposited, 50e6, "nothing moved");
    }
}
