//! `hallmark grant`

use std::{path::PathBuf, process::ExitCode};

use alloy::primitives::Address;
use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use licensing_contracts::{actions::payments, bindings::PaymentEscrow};
use protocol::{
    ids::ChainId,
    messages::{Domain, Message as _, SessionGrant},
    units::{Seconds, UnixSeconds},
};
use serde_json::json;

use super::{
    SendArguments, Token,
    deposit::{channel_id, read_channel},
    duration,
    status::time,
};
use crate::{context::Context, failure::Advise as _};

/// Let a session key sign vouchers for a channel, within caps
///
/// The payer's own key can then stay at home. A grant can be widened and not narrowed; --revoke ends it after a thaw, in
/// which the host claims what the key signed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark grant --channel channel.json --key 0x… --cap 5 --per-request-cap 0.05 --for 7d
  hallmark grant --channel channel.json --key 0x… --revoke")]
pub(crate) struct Grant {
    /// The channel
    #[arg(long, env = "HALLMARK_CHANNEL", value_name = "FILE", default_value = "channel.json")]
    channel: PathBuf,

    /// Address of the key
    #[arg(long, value_name = "ADDRESS")]
    key: Address,

    /// Everything that the key may spend, in tokens
    #[arg(long, value_name = "AMOUNT", required_unless_present = "revoke")]
    cap: Option<String>,

    /// The most that it may promise for one request [default: the cap]
    #[arg(long, value_name = "AMOUNT")]
    per_request_cap: Option<String>,

    /// How long the grant lasts
    #[arg(long = "for", value_name = "TIME", default_value = "7d", value_parser = duration)]
    length: Seconds,

    /// End the key's grant
    #[arg(long, value_parser = FalseyValueParser::new(), conflicts_with_all = ["cap", "per_request_cap"])]
    revoke: bool,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: Grant, context: &Context) -> anyhow::Result<ExitCode> {
    let channel = read_channel(&arguments.channel)?;
    let Grant { key, ref cap, ref per_request_cap, length, revoke, .. } = arguments;
    let request = (&channel, key, cap, per_request_cap, length, revoke);
    let mut session = arguments.send.open("grant", &request).await?;
    let to = session.deployment.clone();
    let id = channel_id(&to, &channel);
    let Some(cap) = &arguments.cap else {
        session.act(&payments::revoke_grant(&to, &channel, arguments.key)?).await?;
        let rows = [("channel", id.to_string()), ("key", arguments.key.to_string())];
        session.finish(context, &rows, json!({ "channel": id, "key": arguments.key }))?;
        return Ok(ExitCode::SUCCESS);
    };
    let token = Token::find(session.client(), &to, Some(channel.token)).await?;
    let call = PaymentEscrow::grantCall { id: id.word(), key: arguments.key };
    let present = session.client().call(to.payment_escrow, &call).await?;
    if present.nonce == u64::MAX {
        return Err(anyhow::anyhow!(
            "the grant of {key} was revoked, and a revoked key is never granted anything again"
        ))
        .advise("make a new key for the session");
    }
    let now = UnixSeconds::new(session.client().head().await?.timestamp_s);
    let grant = SessionGrant {
        channel: id,
        key: arguments.key,
        cap: token.amount(cap)?,
        per_request_cap: token.amount(arguments.per_request_cap.as_ref().unwrap_or(cap))?,
        expires_at: now.checked_add(arguments.length).context("--for is longer than time lasts")?,
        nonce: present.nonce.saturating_add(1),
    };
    let domain = Domain::new(ChainId::new(to.chain_id), to.payment_escrow);
    let signature = session.sign(grant.digest(&domain).word())?;
    let receipt = session.act(&payments::grant(&to, &channel, &grant, &signature)?).await?;
    let grant = receipt.and_then(|receipt| payments::granted(&to, &receipt)).unwrap_or(grant);
    let rows = [
        ("channel", id.to_string()),
        ("key", arguments.key.to_string()),
        ("cap", token.show(grant.cap)),
        ("a request", token.show(grant.per_request_cap)),
        ("until", time(grant.expires_at.get())),
    ];
    session.finish(context, &rows, json!({ "grant": grant }))?;
    Ok(ExitCode::SUCCESS)
}
