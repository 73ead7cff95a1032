//! What a payer signs.

use alloy_primitives::{Address, B256, aliases::U48};
use serde::{Deserialize, Serialize};

use super::{MessageError, PaymentEscrow, wire, word_or_zero, zero_is_none};
use crate::{
    counts::UsageCounts,
    ids::{ChannelId, GrantDigest, Lane, LeaseId, StatementDigest, VoucherDigest},
    units::{Amount, Seconds, UnixSeconds},
};

/// An escrow relation. Its digest is the [`ChannelId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Channel", into = "wire::Channel")]
pub struct Channel {
    /// Whose deposit pays.
    pub payer: Address,
    /// Who is paid.
    pub host: Address,
    /// In what.
    pub token: Address,
    /// Between announcing a withdrawal and taking it.
    pub withdraw_delay: Seconds,
    /// Tells channels of the same parties apart.
    pub salt: B256,
}

/// A payer's permission for a key to sign vouchers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::SessionGrant", into = "wire::SessionGrant")]
pub struct SessionGrant {
    /// The channel that pays.
    pub channel: ChannelId,
    /// Who may sign.
    pub key: Address,
    /// Everything that the key may spend.
    pub cap: Amount,
    /// The highest ceiling that it may sign.
    pub per_request_cap: Amount,
    /// Until when.
    pub expires_at: UnixSeconds,
    /// A grant with a higher one replaces this.
    pub nonce: u64,
}

/// A payer's cumulative promise on one lane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "wire::Voucher", into = "wire::Voucher")]
pub struct Voucher {
    /// The channel that pays.
    pub channel: ChannelId,
    /// The lease that it pays under.
    pub lease: LeaseId,
    /// The lane.
    pub lane: Lane,
    /// What the payer accepts to have used on the lane so far.
    pub counts: UsageCounts,
    /// The most that the one request in flight may cost beyond that.
    pub ceiling: Amount,
    /// The last statement that the payer accepts.
    pub statements_head: Option<StatementDigest>,
    /// When it can no longer be claimed.
    pub expires_at: UnixSeconds,
}

/// A count as Solidity has it.
pub(super) fn count(value: u64) -> U48 {
    // Counts are below 2^48 by construction, so nothing saturates.
    U48::saturating_from(value)
}

impl From<&Channel> for wire::Channel {
    fn from(channel: &Channel) -> Self {
        Self {
            payer: channel.payer,
            host: channel.host,
            token: channel.token,
            withdrawDelay: channel.withdraw_delay.get(),
            salt: channel.salt,
        }
    }
}

impl TryFrom<wire::Channel> for Channel {
    type Error = MessageError;

    fn try_from(channel: wire::Channel) -> Result<Self, MessageError> {
        Ok(Self {
            payer: channel.payer,
            host: channel.host,
            token: channel.token,
            withdraw_delay: Seconds::new(channel.withdrawDelay),
            salt: channel.salt,
        })
    }
}

impl From<&SessionGrant> for wire::SessionGrant {
    fn from(grant: &SessionGrant) -> Self {
        Self {
            channelId: grant.channel.word(),
            key: grant.key,
            cap: grant.cap.get(),
            perRequestCap: grant.per_request_cap.get(),
            expiresAt: grant.expires_at.get(),
            nonce: grant.nonce,
        }
    }
}

impl TryFrom<wire::SessionGrant> for SessionGrant {
    type Error = MessageError;

    fn try_from(grant: wire::SessionGrant) -> Result<Self, MessageError> {
        Ok(Self {
            channel: grant.channelId.into(),
            key: grant.key,
            cap: Amount::new(grant.cap),
            per_request_cap: Amount::new(grant.perRequestCap),
            expires_at: UnixSeconds::new(grant.expiresAt),
            nonce: grant.nonce,
        })
    }
}

impl From<&Voucher> for wire::Voucher {
    fn from(voucher: &Voucher) -> Self {
        Self {
            channelId: voucher.channel.word(),
            leaseId: voucher.lease.get(),
            lane: voucher.lane.get(),
            requests: count(voucher.counts.requests()),
            promptTokens: count(voucher.counts.prompt().get()),
            cachedTokens: count(voucher.counts.cached().get()),
            completionTokens: count(voucher.counts.completion().get()),
            ceiling: voucher.ceiling.get(),
            statementsHead: word_or_zero(voucher.statements_head),
            expiresAt: voucher.expires_at.get(),
        }
    }
}

impl TryFrom<wire::Voucher> for Voucher {
    type Error = MessageError;

    fn try_from(voucher: wire::Voucher) -> Result<Self, MessageError> {
        Ok(Self {
            channel: voucher.channelId.into(),
            lease: LeaseId::new(voucher.leaseId),
            lane: Lane::new(voucher.lane),
            counts: UsageCounts::new(
                voucher.requests.saturating_to(),
                voucher.promptTokens.saturating_to(),
                voucher.cachedTokens.saturating_to(),
                voucher.completionTokens.saturating_to(),
            )?,
            ceiling: Amount::new(voucher.ceiling),
            statements_head: zero_is_none(voucher.statementsHead),
            expires_at: UnixSeconds::new(voucher.expiresAt),
        })
    }
}

super::typed! {
    Channel, PaymentEscrow, ChannelId;
    SessionGrant, PaymentEscrow, GrantDigest;
    Voucher, PaymentEscrow, VoucherDigest;
}
