//! `Messages.sol` word by word. A test compares the two files.
//!
//! Types of Solidity's that only name another one (`ModelId`, `LeaseId` …) appear as what they name: EIP-712 knows no
//! others. Anything that fits into the members is a value here, whether or not it makes sense; that is what a signature
//! and a digest are over, also for evidence of a host that signed nonsense.

use alloy_primitives::B256;
use alloy_sol_types::{SolStruct as _, sol};

use super::{AuditServiceManager, LeaseManager, Message, ModelRegistry, PaymentEscrow, UsageLog};
use crate::ids::{
    ChannelId, EpochCommitDigest, GrantDigest, LeaseDigest, StatementDigest, TermsId, VerdictDigest, VoucherDigest,
};

sol! {
    /// One version of a model's licence.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct LicenseTerms {
        uint256 modelId;
        uint32 version;
        address paymentToken;
        uint16 royaltyBps;
        uint128 floorRequest;
        uint128 floorPrompt;
        uint128 floorCached;
        uint128 floorCompletion;
        uint16 validatorBps;
        bytes32 splitRoot;
        uint128 minBond;
        uint128 minRestake;
        uint64 validFrom;
        uint64 validTo;
        uint64 disputeWindow;
        bytes32 tokenizerDigest;
        bytes32 templateDigest;
        bytes32 legalTextDigest;
    }

    /// One recipient of a royalty.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Split {
        address recipient;
        uint16 bps;
    }

    /// What a host charges, per million of each.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Prices {
        uint128 request;
        uint128 prompt;
        uint128 cached;
        uint128 completion;
    }

    /// A host's lease as it was opened.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Lease {
        uint64 leaseId;
        bytes32 termsId;
        address host;
        address leaseKey;
        bytes32 variantRoot;
        string endpoint;
        uint128 priceRequest;
        uint128 pricePrompt;
        uint128 priceCached;
        uint128 priceCompletion;
        uint64 from;
        uint64 to;
    }

    /// An escrow relation.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Channel {
        address payer;
        address host;
        address token;
        uint64 withdrawDelay;
        bytes32 salt;
    }

    /// A payer's permission for a key to sign vouchers.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct SessionGrant {
        bytes32 channelId;
        address key;
        uint128 cap;
        uint128 perRequestCap;
        uint64 expiresAt;
        uint64 nonce;
    }

    /// A payer's cumulative promise on one lane.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Voucher {
        bytes32 channelId;
        uint64 leaseId;
        uint64 lane;
        uint48 requests;
        uint48 promptTokens;
        uint48 cachedTokens;
        uint48 completionTokens;
        uint128 ceiling;
        bytes32 statementsHead;
        uint64 expiresAt;
    }

    /// A host's account of one request.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Statement {
        bytes32 channelId;
        uint64 leaseId;
        uint64 lane;
        uint48 seq;
        uint48 promptTokensBefore;
        uint48 cachedTokensBefore;
        uint48 completionTokensBefore;
        uint48 promptTokens;
        uint48 cachedTokens;
        uint48 completionTokens;
        uint128 charge;
        bytes32 requestHash;
        bytes32 responseHash;
        uint64 startedMs;
        uint64 endedMs;
        uint8 finishReason;
        bytes32 execRoot;
        bytes32 previous;
    }

    /// A host's report of the statements that ended within one epoch.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct EpochCommit {
        uint64 leaseId;
        uint64 epoch;
        bytes32 root;
        uint64 requests;
        uint64 promptTokens;
        uint64 cachedTokens;
        uint64 completionTokens;
        uint128 charge;
        bytes32 previous;
    }

    /// What validators found.
    #[derive(Debug, Default, PartialEq, Eq, Hash)]
    struct Verdict {
        uint64 taskId;
        uint64 leaseId;
        uint8 kind;
        uint8 outcome;
        uint32 eValueLog2;
        bytes32 evidenceRoot;
        uint64 epoch;
    }
}

macro_rules! message {
    ($($name:ident, $contract:ident, $digest:ident;)*) => {$(
        impl Message for $name {
            type Contract = $contract;
            type Digest = $digest;

            fn struct_hash(&self) -> B256 {
                self.eip712_hash_struct()
            }
        }
    )*};
}

message! {
    LicenseTerms, ModelRegistry, TermsId;
    Lease, LeaseManager, LeaseDigest;
    Channel, PaymentEscrow, ChannelId;
    SessionGrant, PaymentEscrow, GrantDigest;
    Voucher, PaymentEscrow, VoucherDigest;
    Statement, LeaseManager, StatementDigest;
    EpochCommit, UsageLog, EpochCommitDigest;
    Verdict, AuditServiceManager, VerdictDigest;
}
