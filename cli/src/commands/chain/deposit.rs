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

use super::{SendArguments, Token, duration, files::write_json};
use crate::{context::Context, failure::Advise as _};

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
    let Deposit { channel: file, host, amount, payment_token, withdraw_delay, salt, send } = arguments;
    let request = (&file, host, &amount, payment_token, withdraw_delay, salt);
    let mut session = send.open("deposit", &request).await?;
    let to = session.deployment.clone();
    let channel = match host {
        Some(host) => Channel {
            payer: session.account(),
            host,
            token: Token::find(session.client(), &to, payment_token).await?.address,
            withdraw_delay,
            salt,
        },
        None => read_channel(&file)?,
    };
    if host.is_some() && file.exists() && read_channel(&file).ok().as_ref() != Some(&channel) {
        anyhow::bail!("{} is another channel's file; name another one with --channel", file.display());
    }
    let token = Token::find(session.client(), &to, Some(channel.token)).await?;
    let units = token.amount(&amount)?;
    let sent =
        session.pay(&token, to.payment_escrow, units, &payments::deposit(&to, &channel, units)?).await?.is_some();
    if sent && host.is_some() {
        write_json(&file, &channel)?;
    }
    let id = channel_id(&to, &channel);
    let mut rows = vec![("channel", id.to_string()), ("deposited", token.show(units))];
    if sent {
        rows.push(("file", file.display().to_string()));
    }
    let object = json!({ "id": id, "channel": channel, "amount": units, "file": file });
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
        .advise("name the file that `hallmark deposit --host …` wrote, with --channel")?;
    serde_json::from_str(&text).with_context(|| format!("{} is not the file of a channel", path.display()))
}
