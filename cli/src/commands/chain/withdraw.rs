//! `hallmark withdraw`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use licensing_contracts::{actions::payments, bindings::PaymentEscrow};
use serde_json::json;

use super::{
    SendArguments, Token,
    deposit::{channel_id, read_channel},
};
use crate::{context::Context, failure::Advise as _};

/// Take unspent deposit back: announce it, and take it after the channel's delay
///
/// The delay gives the host time to claim what it was promised. Without --announce or --cancel, takes what was announced.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark withdraw --channel channel.json --announce 10
  hallmark withdraw --channel channel.json")]
pub(crate) struct Withdraw {
    /// The channel
    #[arg(long, env = "HALLMARK_CHANNEL", value_name = "FILE", default_value = "channel.json")]
    channel: PathBuf,

    /// Announce that this much is going to be taken
    #[arg(long, value_name = "AMOUNT", conflicts_with = "cancel")]
    announce: Option<String>,

    /// Take an announcement back
    #[arg(long)]
    cancel: bool,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: Withdraw, context: &Context) -> anyhow::Result<ExitCode> {
    let channel = read_channel(&arguments.channel)?;
    let mut session = arguments.send.open("withdraw", &(&channel, &arguments.announce, arguments.cancel)).await?;
    let to = session.deployment.clone();
    let token = Token::find(session.client(), &to, Some(channel.token)).await?;
    let action = match (&arguments.announce, arguments.cancel) {
        (Some(amount), _) => payments::announce_withdrawal(&to, &channel, token.amount(amount)?)?,
        (None, true) => payments::cancel_withdrawal(&to, &channel)?,
        (None, false) => payments::withdraw(&to, &channel)?,
    };
    session.act(&action).await.advise("see the channel with: hallmark status --channel FILE")?;
    let id = channel_id(&to, &channel);
    let call = PaymentEscrow::channelStateCall { id: id.word() };
    let state = session.client().call(to.payment_escrow, &call).await?;
    let mut rows = vec![
        ("channel", id.to_string()),
        ("deposit", token.show(protocol::units::Amount::new(state.deposited))),
        ("spent", token.show(protocol::units::Amount::new(state.spent))),
    ];
    if state.withdrawableAt != 0 {
        let at = crate::clock::date_and_time(std::time::Duration::from_secs(state.withdrawableAt));
        rows.push(("announced", token.show(protocol::units::Amount::new(state.withdrawal))));
        rows.push(("free from", format!("{at} UTC")));
    }
    let object = json!({
        "id": id,
        "deposited": state.deposited.to_string(),
        "spent": state.spent.to_string(),
        "announced": state.withdrawal.to_string(),
        "withdrawable_at": state.withdrawableAt,
    });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}
