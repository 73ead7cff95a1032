//! Whether a voucher is for this host, from somebody who may sign it, and good for long enough.

use std::sync::Arc;

use alloy_primitives::Address;
use protocol::{
    ids::ChannelId,
    messages::{Channel, Signed, Voucher},
    units::UnixSeconds,
};

use super::Refusal;
use crate::metering::{Metering, channel::ChannelAccount, lease::ServedLease};

/// The channel pays this host, in the lease's token, and the voucher is on it and under the lease.
pub(super) fn check_parties(
    lease: &ServedLease,
    channel: &Channel,
    id: ChannelId,
    voucher: &Voucher,
) -> Result<(), Refusal> {
    if channel.host != lease.host {
        return Err(Refusal::OtherHost { expected: lease.host });
    }
    if channel.token != lease.token {
        return Err(Refusal::OtherToken { expected: lease.token });
    }
    if voucher.channel != id {
        return Err(Refusal::OtherChannel { channel: id });
    }
    if voucher.lease != lease.id {
        return Err(Refusal::OtherLease { expected: lease.id, found: voucher.lease });
    }
    Ok(())
}

/// Whose key signed.
pub(super) fn signer(metering: &Metering, voucher: &Signed<Voucher>) -> Result<Address, Refusal> {
    voucher.signer(metering.escrow()).map_err(|error| Refusal::NotAVoucher { reason: error.to_string() })
}

/// The key is the payer's own, or has a grant whose caps cover the ceiling; voucher and grant outlive the claim.
pub(super) async fn check_signer(
    metering: &Metering,
    account: &ChannelAccount,
    voucher: &Voucher,
    signer: Address,
) -> Result<(), Refusal> {
    let now = metering.now().second_down();
    let spans = metering.chain().spans();
    let needed = now.checked_add(spans.to_claim()).unwrap_or(UnixSeconds::new(u64::MAX));
    if voucher.expires_at < needed {
        return Err(Refusal::ExpiresTooSoon { what: "the voucher", needed });
    }
    if signer == account.channel().payer {
        return Ok(());
    }
    let grant = match account.grant(signer) {
        Some(grant) => Some(grant),
        None => {
            let grant = metering.accounts().grant(metering.chain(), account, signer).await;
            grant.map_err(|error| Refusal::Unavailable(Arc::new(error)))?
        }
    };
    let grant = grant.filter(|grant| !grant.is_revoked).ok_or(Refusal::NotGranted { signer })?;
    if grant.expires_at < needed {
        return Err(Refusal::ExpiresTooSoon { what: "the grant of the session key", needed });
    }
    if voucher.ceiling > grant.per_request_cap {
        return Err(Refusal::RequestCap { ceiling: voucher.ceiling, cap: grant.per_request_cap });
    }
    Ok(())
}

/// The lane is one that these books know, or that was never claimed: a place that was stated once is not stated again.
pub(super) async fn check_lane(
    metering: &Metering,
    account: &ChannelAccount,
    voucher: &Voucher,
) -> Result<(), Refusal> {
    let used = metering.accounts().was_used_elsewhere(metering.chain(), account, voucher.lane).await;
    match used.map_err(|error| Refusal::Unavailable(Arc::new(error)))? {
        true => Err(Refusal::LaneUsed),
        false => Ok(()),
    }
}
