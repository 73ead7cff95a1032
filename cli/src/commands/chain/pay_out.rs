//! `hallmark pay-out`

use std::process::ExitCode;

use alloy::primitives::Address;
use clap::Args;
use licensing_contracts::{
    actions::{event, payments},
    bindings::PaymentEscrow,
};
use protocol::units::Amount;
use serde_json::json;

use super::{SendArguments, Token};
use crate::context::Context;

/// Have the escrow send what claims have earned: a creator's royalties, a host's income
///
/// Claims only note what each account is owed. Anybody can have anybody's balance sent to its owner.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark pay-out")]
pub(crate) struct PayOut {
    /// Whose balance [default: that of the account that sends]
    #[arg(long, value_name = "ADDRESS")]
    account: Option<Address>,

    /// Payment token [default: the development chain's test token]
    #[arg(long, env = "HALLMARK_PAYMENT_TOKEN", value_name = "ADDRESS")]
    payment_token: Option<Address>,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: PayOut, context: &Context) -> anyhow::Result<ExitCode> {
    let mut session = arguments.send.open("pay-out", &(arguments.account, arguments.payment_token)).await?;
    let to = session.deployment.clone();
    let account = arguments.account.unwrap_or_else(|| session.account());
    let token = Token::find(session.client(), &to, arguments.payment_token).await?;
    let call = PaymentEscrow::balanceCall { token: token.address, account };
    let owed = session.client().call(to.payment_escrow, &call).await?;
    let mut sent = Amount::ZERO;
    if !owed.is_zero() {
        let receipt = session.act(&payments::pay_out(&to, token.address, account)).await?;
        let paid = receipt.and_then(|receipt| event::<PaymentEscrow::PaidOut>(&receipt, to.payment_escrow));
        sent = paid.map_or(Amount::ZERO, |paid| Amount::new(paid.amount.saturating_to()));
    }
    let rows = [("account", account.to_string()), ("sent", token.show(sent))];
    session.finish(context, &rows, json!({ "account": account, "token": token.address, "sent": sent }))?;
    Ok(ExitCode::SUCCESS)
}
