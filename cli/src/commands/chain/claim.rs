//! `hallmark claim`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use licensing_contracts::{
    actions::{event, payments, registry},
    bindings::{LeaseManager, PaymentEscrow},
    client::ChainClient,
    deployment::Deployment,
};
use protocol::{
    ids::LeaseId,
    splits::{Split, Splits},
    units::Amount,
};
use serde_json::json;

use super::{SendArguments, Token, lease::lease_id, terms::split};
use crate::{context::Context, failure::Advise as _};

/// Turn vouchers into money; the creator is paid in the same transaction
///
/// The file is a JSON list of claims: the channel, the voucher with the payer's signature, and, if the payer went away during
/// a request, the host's statement of that one. `hallmark usage accept` writes it, and so does `hallmark demo`. The use must
/// have been reported before, with `hallmark report`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark claim --lease 1 --vouchers vouchers.json")]
pub(crate) struct Claim {
    /// The lease
    #[arg(long, env = "HALLMARK_LEASE", value_name = "NUMBER", value_parser = lease_id)]
    lease: LeaseId,

    /// The vouchers
    #[arg(long, value_name = "FILE")]
    vouchers: PathBuf,

    /// Someone who shares the royalty under the lease's terms, in their order; may be repeated [default: as the chain's events say]
    #[arg(long = "split", value_name = "ADDRESS=BP", value_parser = split)]
    splits: Vec<Split>,

    /// Have the balance sent to the host afterwards
    #[arg(long)]
    pay_out: bool,

    #[command(flatten)]
    send: SendArguments,
}

/// Who shares the royalty under the lease's terms.
async fn published(client: &ChainClient, to: &Deployment, lease: LeaseId) -> anyhow::Result<Splits> {
    let call = LeaseManager::leaseCall { leaseId: lease.get() };
    let terms = client.call(to.lease_manager, &call).await?.termsId;
    let splits = registry::splits(client, to, terms.into()).await?;
    splits
        .with_context(|| format!("the node does not have the event in which terms {terms} were published"))
        .advise("name who shares the royalty with --split, in the terms' order, or another node with --rpc")
}

pub(crate) async fn run(arguments: Claim, context: &Context) -> anyhow::Result<ExitCode> {
    let file = arguments.vouchers.display();
    let text =
        std::fs::read_to_string(&arguments.vouchers).with_context(|| format!("failed to read the vouchers {file}"))?;
    let claims: Vec<payments::Claim> = serde_json::from_str(&text)
        .with_context(|| format!("{file} is not a list of claims"))
        .advise("see --help for its form")?;
    let named = Splits::new(arguments.splits.clone())?;
    let mut session = arguments.send.open("claim", &(arguments.lease, &named, &claims, arguments.pay_out)).await?;
    let to = session.deployment.clone();
    let splits =
        if arguments.splits.is_empty() { published(session.client(), &to, arguments.lease).await? } else { named };
    let call = LeaseManager::accountCall { leaseId: arguments.lease.get() };
    let account = session.client().call(to.lease_manager, &call).await?;
    let token = Token::find(session.client(), &to, Some(account.token)).await?;
    let receipt = session.act(&payments::claim(&to, arguments.lease, &splits, &claims)?).await?;
    let mut rows = vec![("lease", arguments.lease.to_string())];
    let mut paid = None;
    if let Some(receipt) = &receipt {
        let claimed = payments::claimed(&to, receipt);
        let sum = |part: fn(&PaymentEscrow::Claimed) -> alloy::primitives::U256| {
            Amount::new(claimed.iter().map(|one| part(one).saturating_to::<u128>()).fold(0, u128::saturating_add))
        };
        let (cost, royalty, validators) = (sum(|one| one.cost), sum(|one| one.royalty), sum(|one| one.validatorShare));
        let host = cost.saturating_sub(royalty).saturating_sub(validators);
        rows.push(("claimed", token.show(cost)));
        rows.push(("royalty", token.show(royalty)));
        rows.push(("validators", token.show(validators)));
        rows.push(("host", token.show(host)));
        paid = Some(json!({ "claimed": cost, "royalty": royalty, "validators": validators, "host": host }));
        if arguments.pay_out {
            let receipt = session.act(&payments::pay_out(&to, account.token, account.host)).await?;
            let sent = receipt
                .as_ref()
                .and_then(|receipt| event::<PaymentEscrow::PaidOut>(receipt, to.payment_escrow))
                .map(|sent| sent.amount);
            rows.extend(sent.map(|amount| ("sent to the host", token.show(Amount::new(amount.saturating_to())))));
        }
    }
    let object = json!({ "lease": arguments.lease, "vouchers": claims.len(), "paid": paid });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}
