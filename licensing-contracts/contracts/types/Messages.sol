// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ChannelId, LeaseId, ModelId, TaskId, TermsId} from "./Ids.sol";

// The signed messages of the protocol. Each is signed under the EIP-712 domain
// `{ name: "Hallmark", version: "1", chainId, verifyingContract }` of the contract that its comment names, and nowhere else.
// Amounts are in the smallest unit of the payment token; prices and floors are amounts per million.
// Counts on a lane have 48 bits: 2.8e14 tokens, and four of them with nothing else fill three quarters of a storage word.

/// One version of a model's licence. Domain: `ModelRegistry`.
struct LicenseTerms {
    ModelId modelId;
    uint32 version; // from 1
    address paymentToken;
    uint16 royaltyBps; // of what a claim pays
    uint128 floorRequest; // least royalty per million requests …
    uint128 floorPrompt; // … per million prompt tokens that were not cached
    uint128 floorCached;
    uint128 floorCompletion;
    uint16 validatorBps; // of what a claim pays
    bytes32 splitRoot; // digest of the recipients of the royalty, 0: the creator takes it all
    uint128 minBond;
    uint128 minRestake;
    uint64 validFrom; // seconds since 1970
    uint64 validTo;
    uint64 disputeWindow; // seconds
    bytes32 tokenizerDigest;
    bytes32 templateDigest;
    bytes32 legalTextDigest;
}

/// One recipient of a royalty: a parent model's owner, a contributor.
struct Split {
    address recipient;
    uint16 bps; // of the royalty
}

/// What a host charges, per million of each.
struct Prices {
    uint128 request;
    uint128 prompt; // prompt tokens that were not cached
    uint128 cached;
    uint128 completion;
}

/// A host's lease as it was opened. Domain: `LeaseManager`.
struct Lease {
    LeaseId leaseId;
    TermsId termsId;
    address host;
    address leaseKey; // signs statements
    bytes32 variantRoot; // commitment to the host's own copies of the weights, 0: the shared copy
    string endpoint;
    uint128 priceRequest;
    uint128 pricePrompt;
    uint128 priceCached;
    uint128 priceCompletion;
    uint64 from; // seconds since 1970
    uint64 to;
}

/// An escrow relation. Domain: `PaymentEscrow`; its digest is the `ChannelId`.
struct Channel {
    address payer;
    address host;
    address token;
    uint64 withdrawDelay; // seconds between announcing a withdrawal and taking it
    bytes32 salt;
}

/// A payer's permission for a key to sign vouchers. Domain: `PaymentEscrow`.
struct SessionGrant {
    ChannelId channelId;
    address key;
    uint128 cap; // everything that the key may spend
    uint128 perRequestCap;
    uint64 expiresAt; // seconds since 1970
    uint64 nonce; // a grant with a higher one replaces it
}

/// A payer's cumulative promise on one lane. Domain: `PaymentEscrow`.
/// The counts are those that the payer accepts; `ceiling` is the most that the one request in flight may cost beyond them.
struct Voucher {
    ChannelId channelId;
    LeaseId leaseId;
    uint64 lane;
    uint48 requests;
    uint48 promptTokens; // cached ones included
    uint48 cachedTokens;
    uint48 completionTokens;
    uint128 ceiling;
    bytes32 statementsHead; // digest of the last statement that the payer accepts, 0: none
    uint64 expiresAt; // seconds since 1970
}

/// A host's account of one request. Domain: `LeaseManager`; signed by the lease key.
/// It carries the lane's counts before the request, so that its charge can be checked with nothing else.
struct Statement {
    ChannelId channelId; // 0: a customer billed in money
    LeaseId leaseId;
    uint64 lane;
    uint48 seq; // number of the request on its lane, from 1
    uint48 promptTokensBefore;
    uint48 cachedTokensBefore;
    uint48 completionTokensBefore;
    uint48 promptTokens; // of this request, cached ones included
    uint48 cachedTokens;
    uint48 completionTokens;
    uint128 charge;
    bytes32 requestHash;
    bytes32 responseHash;
    uint64 startedMs; // milliseconds since 1970
    uint64 endedMs;
    uint8 finishReason; // 1 stop, 2 length, 3 cancelled by the client, 4 engine error
    bytes32 execRoot; // commitment to activations or the sampler's seed, 0: none
    bytes32 previous; // digest of the statement before it on the lane, 0: the first
}

/// A host's report of the statements that ended within one epoch. Domain: `UsageLog`.
struct EpochCommit {
    LeaseId leaseId;
    uint64 epoch;
    bytes32 root; // Merkle-sum root over the statements, sorted by digest
    uint64 requests;
    uint64 promptTokens;
    uint64 cachedTokens;
    uint64 completionTokens;
    uint128 charge;
    bytes32 previous; // digest of the lease's report before it, 0: the first
}

/// What validators found. Domain: `AuditServiceManager`; signed with BLS keys.
struct Verdict {
    TaskId taskId;
    LeaseId leaseId;
    uint8 kind;
    uint8 outcome; // 1 guilty, 2 not guilty
    uint32 eValueLog2; // evidence in bits, rounded down
    bytes32 evidenceRoot;
    uint64 epoch;
}
