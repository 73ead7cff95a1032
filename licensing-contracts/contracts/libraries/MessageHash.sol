// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {
    Channel,
    EpochCommit,
    Lease,
    LicenseTerms,
    SessionGrant,
    Split,
    Statement,
    Verdict,
    Voucher
} from "../types/Messages.sol";

/// @title EIP-712 struct hashes of the protocol's messages
/// @dev A struct of static members is ABI-encoded as EIP-712 encodes it: every member in a word of its own, in order.
/// So `abi.encode(typeHash, message)` is the preimage. `Lease` holds a string and is put together by hand.
/// Golden vectors from an independent implementation pin every one of them.
library MessageHash {
    bytes32 internal constant LICENSE_TERMS = keccak256(
        "LicenseTerms(uint256 modelId,uint32 version,address paymentToken,uint16 royaltyBps,uint128 floorRequest,uint128 floorPrompt,uint128 floorCached,uint128 floorCompletion,uint16 validatorBps,bytes32 splitRoot,uint128 minBond,uint128 minRestake,uint64 validFrom,uint64 validTo,uint64 disputeWindow,bytes32 tokenizerDigest,bytes32 templateDigest,bytes32 legalTextDigest)"
    );
    bytes32 internal constant LEASE = keccak256(
        "Lease(uint64 leaseId,bytes32 termsId,address host,address leaseKey,bytes32 variantRoot,string endpoint,uint128 priceRequest,uint128 pricePrompt,uint128 priceCached,uint128 priceCompletion,uint64 from,uint64 to)"
    );
    bytes32 internal constant CHANNEL =
        keccak256("Channel(address payer,address host,address token,uint64 withdrawDelay,bytes32 salt)");
    bytes32 internal constant SESSION_GRANT = keccak256(
        "SessionGrant(bytes32 channelId,address key,uint128 cap,uint128 perRequestCap,uint64 expiresAt,uint64 nonce)"
    );
    bytes32 internal constant VOUCHER = keccak256(
        "Voucher(bytes32 channelId,uint64 leaseId,uint64 lane,uint48 requests,uint48 promptTokens,uint48 cachedTokens,uint48 completionTokens,uint128 ceiling,bytes32 statementsHead,uint64 expiresAt)"
    );
    bytes32 internal constant STATEMENT = keccak256(
        "Statement(bytes32 channelId,uint64 leaseId,uint64 lane,uint48 seq,uint48 promptTokensBefore,uint48 cachedTokensBefore,uint48 completionTokensBefore,uint48 promptTokens,uint48 cachedTokens,uint48 completionTokens,uint128 charge,bytes32 requestHash,bytes32 responseHash,uint64 startedMs,uint64 endedMs,uint8 finishReason,bytes32 execRoot,bytes32 previous)"
    );
    bytes32 internal constant EPOCH_COMMIT = keccak256(
        "EpochCommit(uint64 leaseId,uint64 epoch,bytes32 root,uint64 requests,uint64 promptTokens,uint64 cachedTokens,uint64 completionTokens,uint128 charge,bytes32 previous)"
    );
    bytes32 internal constant VERDICT = keccak256(
        "Verdict(uint64 taskId,uint64 leaseId,uint8 kind,uint8 outcome,uint32 eValueLog2,bytes32 evidenceRoot,uint64 epoch)"
    );

    function hash(LicenseTerms memory terms) internal pure returns (bytes32) {
        return keccak256(abi.encode(LICENSE_TERMS, terms));
    }

    function hash(Lease memory lease) internal pure returns (bytes32) {
        return keccak256(
            bytes.concat(
                abi.encode(
                    LEASE,
                    lease.leaseId,
                    lease.termsId,
                    lease.host,
                    lease.leaseKey,
                    lease.variantRoot,
                    keccak256(bytes(lease.endpoint))
                ),
                abi.encode(
                    lease.priceRequest,
                    lease.pricePrompt,
                    lease.priceCached,
                    lease.priceCompletion,
                    lease.from,
                    lease.to
                )
            )
        );
    }

    function hash(Channel calldata channel) internal pure returns (bytes32) {
        return keccak256(abi.encode(CHANNEL, channel));
    }

    function hash(SessionGrant calldata grant) internal pure returns (bytes32) {
        return keccak256(abi.encode(SESSION_GRANT, grant));
    }

    function hash(Voucher calldata voucher) internal pure returns (bytes32) {
        return keccak256(abi.encode(VOUCHER, voucher));
    }

    function hash(Statement calldata statement) internal pure returns (bytes32) {
        return keccak256(abi.encode(STATEMENT, statement));
    }

    function hash(EpochCommit calldata report) internal pure returns (bytes32) {
        return keccak256(abi.encode(EPOCH_COMMIT, report));
    }

    function hash(Verdict memory verdict) internal pure returns (bytes32) {
        return keccak256(abi.encode(VERDICT, verdict));
    }

    /// Digest of the recipients of a royalty, as `LicenseTerms.splitRoot` names it: 0 for none.
    function splitRoot(Split[] memory splits) internal pure returns (bytes32) {
        return splits.length == 0 ? bytes32(0) : keccak256(abi.encode(splits));
    }
}
