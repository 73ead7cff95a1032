//! Why a request is not admitted, and what whoever sent it can do.

use std::sync::Arc;

use alloy_primitives::Address;
use licensing_contracts::client::StaleError;
use protocol::{
    counts::UsageCounts,
    ids::{ChannelId, LeaseId, StatementDigest},
    units::{Amount, UnixSeconds},
};

use crate::metering::untaken::TooManyUntaken;

impl Refusal {
    /// For the operator: why nobody is admitted.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Storage => "the journal cannot be written".to_owned(),
            Self::Stale(stale) => stale.to_string(),
            Self::LeaseOver { lease } => format!("lease {lease} is not active"),
            _ => "requests are refused".to_owned(),
        }
    }
}

/// A refusal. What is asked for and what is there are in the smallest unit of the lease's token.
#[derive(Clone, Debug)]
pub(crate) enum Refusal {
    /// The journal cannot be written.
    Storage,
    /// What is known of the chain is too old.
    Stale(StaleError),
    /// The lease ended or was suspended.
    LeaseOver { lease: LeaseId },
    /// The books or a node could not be asked.
    Unavailable(Arc<dyn std::error::Error + Send + Sync>),
    /// No voucher and no key.
    Unpaid,
    /// The header is not a voucher.
    NotAVoucher { reason: String },
    /// Nobody has this API key, or it was revoked.
    UnknownKey,
    /// The channel pays somebody else.
    OtherHost { expected: Address },
    /// The channel is in another token.
    OtherToken { expected: Address },
    /// The voucher names another channel than the one beside it.
    OtherChannel { channel: ChannelId },
    /// The voucher pays under another lease.
    OtherLease { expected: LeaseId, found: LeaseId },
    /// Signed by somebody who may not.
    NotGranted { signer: Address },
    /// It, or the grant of its key, would be worthless before it could be claimed.
    ExpiresTooSoon { what: &'static str, needed: UnixSeconds },
    /// The ceiling is above what the key may promise for one request.
    RequestCap { ceiling: Amount, cap: Amount },
    /// A request runs on the lane.
    LaneBusy,
    /// The channel has as many lanes as it may.
    TooManyLanes,
    /// The lane was claimed, and the books know nothing of it.
    LaneUsed,
    /// The lane belongs to another lease.
    LaneLease { lease: LeaseId },
    /// The lane has another key.
    LaneSigner { signer: Address },
    /// The newest statement is not accepted yet.
    LaneBehind { counts: UsageCounts, head: Option<StatementDigest> },
    /// More is accepted than was stated.
    LaneAhead { counts: UsageCounts, head: Option<StatementDigest> },
    /// Another statement is accepted than the newest one.
    LaneHead { head: Option<StatementDigest> },
    /// The ceiling does not cover the request.
    Ceiling { required: Amount, ceiling: Amount },
    /// Nothing was ever deposited.
    NoDeposit,
    /// The deposit does not.
    Deposit { required: Amount, available: Amount },
    /// The session key's cap does not.
    Cap { required: Amount, available: Amount },
    /// The customer's budget does not.
    Budget { required: Amount, available: Amount },
    /// Too many answers were made and not taken.
    Untaken(TooManyUntaken),
    /// Too many requests in this minute.
    Rate { retry_after_s: u64 },
    /// Counts or costs beyond what there are numbers for.
    TooLarge,
}
