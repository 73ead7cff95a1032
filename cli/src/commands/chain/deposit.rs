//! `hallmark deposit`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use alloy::primitives::{Address, B256};
use anyhow::Context as _;
use clap::Args;
use licensing_contracts::{actions::payments, deployment::Deployment};
use protocol::{
    ids::{ChainId, ChannelId},
    messages::{Channel, Domain, Message as _},
    units::Seconds,
};
use serde_json::json;

use super::{SendArguments, Token, duration};
use crate::{context::Context, failure::Advise as _, models};

/// Deposit into a channel with a host
///
/// The channel is the account's relation with one host in one token; its description is written to a file that the other
/// commands take. The deposit stays the payer's until the host claims vouchers against it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark deposit --host 0x… --amount 25 --channel host.channel.json
  hallmark deposit --channel host.channel.json --amount 10")]
pub(crate) struct Deposit {
    /// The channel's file; written if --host is given
    #[arg(long, env = "HALLMARK_CHANNEL", value_name = "FILE", default_value = "channel.json")]
    channel: PathBuf,

    /// Make a channel with this host
    #[arg(long, value_name = "ADDRESS")]
    host: Option<Address>,

    /// How much, in tokens
    #[arg(long, value_name = "AMOUNT")]
    amount: String,

    /// Payment token of a new channel [default: the development chain's test token]
    #[arg(long, env = "HALLMARK_PAYMENT_TOKEN", value_name = "ADDRESS", requires = "host")]
    payment_token: Option<Address>,

    /// Time between announcing a withdrawal from a new channel and taking it
    #[arg(long, value_name = "TIME", default_value = "2d", value_parser = duration)]
    withdraw_delay: Seconds,

    /// Tells several channels with the same host apart
    #[arg(long, value_name = "0xHEX", default_value_t = B256::ZERO)]
    salt: B256,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: Deposit, context: &Context) -> anyhow::Result<ExitCode> {
    if arguments.host.is_some() {
        models::require_absent(&arguments.channel)?;
    }
    let mut session = arguments.send.open().await?;
    let to = session.deployment.clone();
    let channel = match arguments.host {
        Some(host) => Channel {
            payer: session.account(),
            host,
            token: Token::find(session.client(), &to, arguments.payment_token).await?.address,
            withdraw_delay: arguments.withdraw_delay,
            salt: arguments.salt,
        },
        None => read_channel(&arguments.channel)?,
    };
    let token = Token::find(session.client(), &to, Some(channel.token)).await?;
    let amount = token.amount(&arguments.amount)?;
    session.allow(token.address, to.payment_escrow, amount).await?;
    let sent = session.act(&payments::deposit(&to, &channel, amount)?).await?.is_some();
    if sent && arguments.host.is_some() {
        write_channel(&arguments.channel, &channel)?;
    }
    let id = channel_id(&to, &channel);
    let rows = [
        ("channel", id.to_string()),
        ("deposited", token.show(amount)),
        ("file", arguments.channel.display().to_string()),
    ];
    let object = json!({ "id": id, "channel": channel, "amount": amount, "file": arguments.channel });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}

/// A channel's number on its chain.
pub(crate) fn channel_id(to: &Deployment, channel: &Channel) -> ChannelId {
    channel.digest(&Domain::new(ChainId::new(to.chain_id), to.payment_escrow))
}

pub(crate) fn read_channel(path: &Path) -> anyhow::Result<Channel> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the channel {}", path.display()))
        .advise("name the file that `hallmark deposit --host …` wrote")?;
    serde_json::from_str(&text).with_context(|| format!("{} is not the file of a channel", path.display()))
}

fn write_channel(path: &Path, channel: &Channel) -> anyhow::Result<()> {
    let text = serde_json::to_string_pretty(channel)?;
    std::fs::write(path, format!("{text}\n")).with_context(|| format!("failed to write {}", path.display()))
}
