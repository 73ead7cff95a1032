//! `hallmark operator register | allocate | deregister`

use std::{path::PathBuf, process::ExitCode};

use alloy::primitives::{Address, U256};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use licensing_contracts::{
    actions::operators::{self, AuditSet},
    bindings::AuditServiceManager,
    eigenlayer::interfaces::{AllocationManager, DelegationManager},
};
use protocol::{bls::SecretKey, ids::ChainId, messages::Domain, units::BasisPoints};
use serde_json::json;

use super::{SendArguments, Session, Token, terms::basis_points};
use crate::{context::Context, failure::Advise as _};

/// Restaked operators: hosts, who can be slashed, and validators, who audit
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Register(Register),
    Allocate(Allocate),
    Deregister(Deregister),
}

/// An operator set of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Set {
    /// Those who serve
    Hosts,
    /// Those who sign verdicts
    Validators,
}

impl From<Set> for AuditSet {
    fn from(set: Set) -> Self {
        match set {
            Set::Hosts => Self::Hosts,
            Set::Validators => Self::Validators,
        }
    }
}

/// Become an operator of EigenLayer, and a member of a set
///
/// Does what is missing: registers the account as an operator, deposits --stake, and joins the set. Allocate before or
/// afterwards; a validator must have allocated already.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark operator register --set hosts --stake 1000
  hallmark operator register --set validators --bls-key bls.key")]
pub(crate) struct Register {
    /// The set
    #[arg(long, value_enum)]
    set: Set,

    /// Deposit this much of the strategy's token first
    #[arg(long, value_name = "AMOUNT")]
    stake: Option<String>,

    /// Token that is staked [default: the development chain's test token]
    #[arg(long, env = "HALLMARK_PAYMENT_TOKEN", value_name = "ADDRESS")]
    payment_token: Option<Address>,

    /// A validator's BLS secret key: a file with 64 hexadecimal digits
    #[arg(long, env = "HALLMARK_BLS_KEY", value_name = "FILE", required_if_eq("set", "validators"))]
    bls_key: Option<PathBuf>,

    /// Where others can read about the operator
    #[arg(long, value_name = "URL", default_value = "")]
    uri: String,

    #[command(flatten)]
    send: SendArguments,
}

/// Allocate a share of the stake to a set: what can be slashed
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark operator allocate --set hosts --share 5000")]
pub(crate) struct Allocate {
    /// The set
    #[arg(long, value_enum)]
    set: Set,

    /// Share of all stake, in basis points
    #[arg(long, value_name = "BP", value_parser = basis_points)]
    share: BasisPoints,

    #[command(flatten)]
    send: SendArguments,
}

/// Leave a set; the stake stays slashable for EigenLayer's deallocation delay
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark operator deregister --set hosts")]
pub(crate) struct Deregister {
    /// The set
    #[arg(long, value_enum)]
    set: Set,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Register(arguments) => register(arguments, context).await,
        Command::Allocate(Allocate { set, share, send }) => {
            let mut session = send.open().await?;
            let action = operators::allocate(&session.deployment, session.account(), set.into(), share);
            session.act(&action).await.advise(
                "a new operator waits some blocks before it can allocate; the same share cannot be set twice",
            )?;
            finish(session, set, context).await
        }
        Command::Deregister(Deregister { set, send }) => {
            let mut session = send.open().await?;
            let action = operators::leave(&session.deployment, session.account(), set.into());
            session.act(&action).await?;
            finish(session, set, context).await
        }
    }
}

async fn register(arguments: Register, context: &Context) -> anyhow::Result<ExitCode> {
    let key = arguments.bls_key.as_deref().map(read_bls_key).transpose()?;
    let mut session = arguments.send.open().await?;
    let (to, account) = (session.deployment.clone(), session.account());
    let delegation = to.eigenlayer.delegation_manager;
    let known = session.client().call(delegation, &DelegationManager::isOperatorCall { operator: account }).await?;
    if !known {
        session.act(&operators::register_as_operator(&to, &arguments.uri)).await?;
    }
    if let Some(stake) = &arguments.stake {
        let token = Token::find(session.client(), &to, arguments.payment_token).await?;
        let amount = token.amount(stake)?;
        let strategy = *to.eigenlayer.strategies.first().context("the deployment names no strategy")?;
        session.allow(token.address, to.eigenlayer.strategy_manager, amount).await?;
        let units = U256::from(amount.get());
        session.act(&operators::deposit_stake(&to, strategy, token.address, units)).await?;
    }
    let set: AuditSet = arguments.set.into();
    let call = AllocationManager::isMemberOfOperatorSetCall { operator: account, operatorSet: set.of(&to) };
    if !session.client().call(to.eigenlayer.allocation_manager, &call).await? {
        let action = match &key {
            Some(key) if set == AuditSet::Validators => {
                let domain = Domain::new(ChainId::new(to.chain_id), to.audit_service_manager);
                operators::join_validators(&to, account, &key.public_key(), &key.prove_possession(&domain, account))
            }
            _ => operators::join_hosts(&to, account),
        };
        session.act(&action).await?;
    }
    finish(session, arguments.set, context).await
}

async fn finish(session: Session, set: Set, context: &Context) -> anyhow::Result<ExitCode> {
    let account = session.account();
    let call = AuditServiceManager::hostStakeCall { operator: account };
    let audit = session.deployment.audit_service_manager;
    let stake = match set {
        Set::Hosts => Some(session.client().call(audit, &call).await?),
        Set::Validators => None,
    };
    let mut rows = vec![("operator", account.to_string())];
    rows.extend(stake.map(|stake| ("slashable stake", stake.to_string())));
    let object = json!({ "operator": account, "slashable_stake": stake.map(|stake| stake.to_string()) });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}

fn read_bls_key(path: &std::path::Path) -> anyhow::Result<SecretKey> {
    let failed = || format!("failed to read the BLS key {}", path.display());
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).with_context(failed)?);
    // No error quotes what was read.
    let bytes: alloy::primitives::B256 =
        text.trim().parse().map_err(|_| anyhow::anyhow!("{} does not hold 64 hexadecimal digits", path.display()))?;
    Ok(SecretKey::from_bytes(&bytes.0)?)
}
