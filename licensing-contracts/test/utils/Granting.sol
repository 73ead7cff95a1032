// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IPaymentEscrow} from "../../contracts/interfaces/IPaymentEscrow.sol";
import {SessionGrant, Voucher} from "../../contracts/types/Messages.sol";
import {Serving} from "./Serving.sol";

/// @title A payer that lets a session key sign
abstract contract Granting is Serving {
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
}
