//! Who pays for a request.

use std::sync::Arc;

use alloy_primitives::B256;
use axum::http::{HeaderMap, HeaderName, header};
use base64::{Engine as _, engine::general_purpose};
use protocol::messages::{Channel, Message as _, Signed, Voucher};
use serde::Deserialize;

use super::{Refusal, voucher};
use crate::{
    books::{Books, owner_of},
    metering::{AccountError, Metering, channel::ChannelAccount, customer::CustomerAccount, lease::ServedLease},
};

/// Base64 of a [`VoucherHeader`] in JSON.
pub(crate) const VOUCHER_HEADER: HeaderName = HeaderName::from_static("hallmark-voucher");
/// Where x402 (version 2) has its payment; ours is inside.
pub(crate) const PAYMENT_HEADER: HeaderName = HeaderName::from_static("payment-signature");

/// Longest header that is looked into.
const LONGEST: usize = 8 << 10;

/// What a payer sends with each request.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct VoucherHeader {
    /// The channel that pays.
    channel: Channel,
    /// The lane's next voucher.
    voucher: Signed<Voucher>,
}

/// x402's payment payload, as far as it concerns us.
#[derive(Debug, Deserialize)]
struct PaymentHeader {
    payload: VoucherHeader,
}

/// Who pays, found out and allowed to.
#[derive(Debug)]
pub(crate) enum Payer {
    /// A channel.
    Channel(Box<ChannelPayer>),
    /// A customer who is billed in money.
    Customer(Arc<CustomerAccount>),
}

impl Payer {
    /// Under what this payer's answers are kept.
    pub(crate) fn owner(&self) -> B256 {
        match self {
            Self::Channel(payer) => owner_of(Some(payer.account.id()), None),
            Self::Customer(account) => owner_of(None, Some(account.id())),
        }
    }

    /// A name that no other payer has.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Channel(payer) => payer.account.id().to_string(),
            Self::Customer(account) => account.id().to_string(),
        }
    }
}

/// A channel and the voucher that it pays with.
#[derive(Debug)]
pub(crate) struct ChannelPayer {
    pub(super) account: Arc<ChannelAccount>,
    pub(super) voucher: Signed<Voucher>,
    pub(super) signer: alloy_primitives::Address,
}

/// Finds out who pays: by a voucher if there is one, else by an API key.
pub(crate) async fn identify(metering: &Metering, lease: &ServedLease, headers: &HeaderMap) -> Result<Payer, Refusal> {
    if let Some(sent) = read_voucher(headers)? {
        let VoucherHeader { channel, voucher } = sent;
        let id = channel.digest(metering.escrow());
        voucher::check_parties(lease, &channel, id, &voucher.message)?;
        let signer = voucher::signer(metering, &voucher)?;
        let account = metering.accounts().channel(metering.chain(), id, &channel).await;
        let account = account.map_err(|error| match error {
            AccountError::NoDeposit => Refusal::NoDeposit,
            error => Refusal::Unavailable(Arc::new(error)),
        })?;
        voucher::check_signer(metering, &account, &voucher.message, signer).await?;
        voucher::check_lane(metering, &account, &voucher.message).await?;
        return Ok(Payer::Channel(Box::new(ChannelPayer { account, voucher, signer })));
    }
    let Some(key) = bearer(headers) else { return Err(Refusal::Unpaid) };
    let account = metering.accounts().customer(Books::key_digest(key)).await;
    let account = account.map_err(|error| Refusal::Unavailable(Arc::new(error)))?.ok_or(Refusal::UnknownKey)?;
    account.count(metering.now()).map_err(|retry_after_s| Refusal::Rate { retry_after_s })?;
    Ok(Payer::Customer(account))
}

fn read_voucher(headers: &HeaderMap) -> Result<Option<VoucherHeader>, Refusal> {
    let not_one = |reason: &str| Refusal::NotAVoucher { reason: reason.to_owned() };
    let (value, is_x402) = match (headers.get(VOUCHER_HEADER), headers.get(PAYMENT_HEADER)) {
        (Some(_), Some(_)) => return Err(not_one("two headers have one: send one of them")),
        (Some(value), None) => (value, false),
        (None, Some(value)) => (value, true),
        (None, None) => return Ok(None),
    };
    if value.len() > LONGEST {
        return Err(not_one("the header is too long"));
    }
    let json = decode(value.as_bytes()).ok_or_else(|| not_one("the header is not base64"))?;
    // Parsers quote what they stumble over, and that may be a signature.
    let wrong = |_| not_one("it has not the members {\"channel\", \"voucher\": {\"message\", \"signature\"}}");
    let sent = if is_x402 {
        serde_json::from_slice::<PaymentHeader>(&json).map(|payment| payment.payload)
    } else {
        serde_json::from_slice(&json)
    };
    sent.map(Some).map_err(wrong)
}

/// Both alphabets of base64, padded or not.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last.saturating_add(1));
    let (text, _) = text.split_at(end);
    let is_url_safe = text.iter().any(|byte| matches!(byte, b'-' | b'_'));
    let engine = if is_url_safe { &general_purpose::URL_SAFE_NO_PAD } else { &general_purpose::STANDARD_NO_PAD };
    engine.decode(text).ok()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !key.trim().is_empty()).then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_base64_is_read() {
        let bytes = [0xfb_u8, 0xff, 0xfe, 0x00, 0x3e];
        for text in ["+//+AD4=", "+//+AD4", "-__-AD4=", "-__-AD4"] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(&bytes[..]), "{text}");
        }
        assert_eq!(decode(b"{\"channel\"}"), None);
    }

    #[test]
    fn a_key_is_what_follows_bearer() {
        let key = |value: &str| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().unwrap())]);
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(key("Bearer abc"), Some("abc".to_owned()));
        assert_eq!(key("bearer  abc "), Some("abc".to_owned()));
        assert_eq!([key("Basic abc"), key("Bearer"), key("Bearer  ")], [None, None, None]);
    }
}
