//! `hallmark lease open | renew | revoke | close | withdraw-bond`

use std::process::ExitCode;

use alloy::primitives::{Address, B256};
use anyhow::Context as _;
use clap::{Args, Subcommand};
use licensing_contracts::{
    actions::{event, leases},
    bindings::{LeaseManager, ModelRegistry},
};
use protocol::{
    ids::{LeaseId, TermsId},
    money::Prices,
    units::{PricePerMillion, Seconds, UnixSeconds},
};
use serde::Serialize;
use serde_json::json;

use super::{SendArguments, Token, duration, status::time};
use crate::context::Context;

/// Leases: who may serve which model, at what price
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Open(Box<Open>),
    Renew(Renew),
    Revoke(Revoke),
    Close(Close),
    WithdrawBond(WithdrawBond),
}

/// Open a lease under a model's terms, with a bond
///
/// The sender must be a member of the hosts' operator set with enough stake: see `hallmark operator`. Prices are in whole
/// tokens per million, and never change.
#[derive(Debug, Args, Serialize)]
#[command(after_help = "Example:
  hallmark lease open --terms-id 0x… --lease-key 0x… --endpoint https://host.example/v1 --price-prompt 0.2 --price-completion 0.6 --bond 100")]
pub(crate) struct Open {
    /// The terms
    #[arg(long, env = "HALLMARK_TERMS_ID", value_name = "0xHEX")]
    terms_id: TermsId,

    /// Address of the key that signs statements
    #[arg(long, env = "HALLMARK_LEASE_KEY_ADDRESS", value_name = "ADDRESS")]
    lease_key: Address,

    /// Where customers reach the host
    #[arg(long, value_name = "URL")]
    endpoint: String,

    /// Price of a million requests, in tokens
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    price_request: String,

    /// Price of a million prompt tokens
    #[arg(long, value_name = "AMOUNT")]
    price_prompt: String,

    /// Price of a million cached prompt tokens [default: that of others]
    #[arg(long, value_name = "AMOUNT")]
    price_cached: Option<String>,

    /// Price of a million completion tokens
    #[arg(long, value_name = "AMOUNT")]
    price_completion: String,

    /// The bond, in tokens
    #[arg(long, value_name = "AMOUNT", default_value = "0")]
    bond: String,

    /// How long the lease runs
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = duration)]
    length: Seconds,

    /// Commitment to copies of the weights that are the host's own [default: the shared copy]
    #[arg(long, value_name = "0xHEX")]
    variants: Option<B256>,

    #[command(flatten)]
    #[serde(skip)]
    send: SendArguments,
}

/// Extend a lease, at the same prices
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark lease renew --lease 1 --for 30d")]
pub(crate) struct Renew {
    #[command(flatten)]
    lease: LeaseArgument,

    /// How long it runs from its present end
    #[arg(long = "for", value_name = "TIME", default_value = "30d", value_parser = duration)]
    length: Seconds,

    #[command(flatten)]
    send: SendArguments,
}

/// End a lease of your model, with notice
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark lease revoke --lease 1")]
pub(crate) struct Revoke {
    #[command(flatten)]
    lease: LeaseArgument,
    #[command(flatten)]
    send: SendArguments,
}

/// End your own lease now
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark lease close --lease 1")]
pub(crate) struct Close {
    #[command(flatten)]
    lease: LeaseArgument,
    #[command(flatten)]
    send: SendArguments,
}

/// Take the bond of an ended lease back, when its time has come
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark lease withdraw-bond --lease 1")]
pub(crate) struct WithdrawBond {
    #[command(flatten)]
    lease: LeaseArgument,
    #[command(flatten)]
    send: SendArguments,
}

#[derive(Debug, Clone, Args)]
struct LeaseArgument {
    /// The lease
    #[arg(long = "lease", env = "HALLMARK_LEASE", value_name = "NUMBER", value_parser = lease_id)]
    id: LeaseId,
}

/// A lease's number.
pub(crate) fn lease_id(text: &str) -> Result<LeaseId, String> {
    text.parse().map(LeaseId::new).map_err(|_| "give the lease's number, from 1".to_owned())
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Open(arguments) => open(*arguments, context).await,
        Command::Renew(Renew { lease, length, send }) => {
            let mut session = send.open("lease renew", &(lease.id, length)).await?;
            let call = LeaseManager::leaseCall { leaseId: lease.id.get() };
            let present = session.client().call(session.deployment.lease_manager, &call).await?;
            let until = UnixSeconds::new(present.to).checked_add(length).context("--for is longer than time lasts")?;
            let action = leases::renew(&session.deployment, lease.id, until);
            let receipt = session.act(&action).await?;
            let log = session.deployment.lease_manager;
            let renewed = receipt.and_then(|receipt| event::<LeaseManager::LeaseRenewed>(&receipt, log));
            let until = renewed.map_or(until, |renewed| UnixSeconds::new(renewed.to));
            let rows = [("lease", lease.id.to_string()), ("runs until", time(until.get()))];
            session.finish(context, &rows, json!({ "lease": lease.id, "to": until }))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Revoke(Revoke { lease, send }) => {
            simple("lease revoke", lease.id, &send, context, leases::revoke).await
        }
        Command::Close(Close { lease, send }) => simple("lease close", lease.id, &send, context, leases::close).await,
        Command::WithdrawBond(WithdrawBond { lease, send }) => {
            simple("lease withdraw-bond", lease.id, &send, context, leases::withdraw_bond).await
        }
    }
}

type LeaseAction = fn(&licensing_contracts::deployment::Deployment, LeaseId) -> licensing_contracts::client::Action;

async fn simple(
    command: &str,
    lease: LeaseId,
    send: &SendArguments,
    context: &Context,
    action: LeaseAction,
) -> anyhow::Result<ExitCode> {
    let mut session = send.open(command, &lease).await?;
    let action = action(&session.deployment, lease);
    session.act(&action).await?;
    session.finish(context, &[("lease", lease.to_string())], json!({ "lease": lease }))?;
    Ok(ExitCode::SUCCESS)
}

async fn open(arguments: Open, context: &Context) -> anyhow::Result<ExitCode> {
    let mut session = arguments.send.open("lease open", &arguments).await?;
    let to = session.deployment.clone();
    let call = ModelRegistry::termsCall { termsId: arguments.terms_id.word() };
    let terms = session.client().call(to.model_registry, &call).await?;
    let token = Token::find(session.client(), &to, Some(terms.paymentToken)).await?;
    let price = |text: &str| anyhow::Ok(PricePerMillion::new(token.amount(text)?.get()));
    let now = UnixSeconds::new(session.client().head().await?.timestamp_s);
    let request = leases::LeaseRequest {
        terms: arguments.terms_id,
        lease_key: arguments.lease_key,
        variants: arguments.variants,
        endpoint: arguments.endpoint,
        prices: Prices {
            request: price(&arguments.price_request)?,
            prompt: price(&arguments.price_prompt)?,
            cached: price(arguments.price_cached.as_ref().unwrap_or(&arguments.price_prompt))?,
            completion: price(&arguments.price_completion)?,
        },
        to: now.checked_add(arguments.length).context("--for is longer than time lasts")?,
        bond: token.amount(&arguments.bond)?,
    };
    let receipt = session.pay(&token, to.lease_manager, request.bond, &leases::open(&to, &request)).await?;
    let opened = receipt.as_ref().and_then(|receipt| event::<LeaseManager::LeaseOpened>(receipt, to.lease_manager));
    let lease = receipt.as_ref().and_then(|receipt| leases::opened(&to, receipt));
    let model = registry_id(terms.modelId);
    let until = opened.map_or(request.to.get(), |opened| opened.to);
    let mut rows = vec![("model", model.to_string()), ("bond", token.show(request.bond))];
    rows.extend(lease.map(|lease| ("lease", lease.to_string())));
    rows.push(("runs until", time(until)));
    let object = json!({ "lease": lease, "model": model, "bond": request.bond, "prices": request.prices, "to": until });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}

fn registry_id(number: alloy::primitives::U256) -> protocol::ids::ModelId {
    B256::from(number).into()
}
