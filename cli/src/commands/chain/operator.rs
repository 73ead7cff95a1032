//! `hallmark operator register | allocate | deregister | new-bls-key`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use alloy::primitives::{Address, U256};
use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use licensing_contracts::{
    actions::operators::{self, AuditSet},
    bindings::AuditServiceManager,
    client::ChainError,
    eigenlayer::interfaces::{AllocationManager, DelegationManager, Strategy, StrategyManager},
};
use protocol::{
    ids::ChainId,
    messages::Domain,
    units::{Amount, BasisPoints},
};
use serde::Serialize;
use serde_json::json;

use super::{SendArguments, Session, Token, terms::basis_points};
use crate::{context::Context, output, secrets};

/// Restaked operators: hosts, who can be slashed, and validators, who audit
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Register(Register),
    Allocate(Allocate),
    Deregister(Deregister),
    NewBlsKey(NewBlsKey),
}

/// An operator set of the audit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
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
/// Does what is missing: registers the account as an operator, deposits up to --stake, and joins the set. Who is to be a
/// validator must have allocated first: run this, then `operator allocate`, then this again.
#[derive(Debug, Args, Serialize)]
#[command(after_help = "Examples:
  hallmark operator register --set hosts --stake 1000
  hallmark operator register --set validators --stake 1000 --bls-keystore bls.json")]
pub(crate) struct Register {
    /// The set
    #[arg(long, value_enum)]
    set: Set,

    /// Have this much of the strategy's token at stake; what is missing is deposited
    #[arg(long, value_name = "AMOUNT")]
    stake: Option<String>,

    /// Strategy to deposit into [default: the first that the audit counts]
    #[arg(long, env = "HALLMARK_STRATEGY", value_name = "ADDRESS")]
    strategy: Option<Address>,

    /// Encrypted keystore file of a validator's BLS key; its password is in HALLMARK_BLS_KEYSTORE_PASSWORD [default: the key in HALLMARK_BLS_PRIVATE_KEY]
    #[arg(long, env = "HALLMARK_BLS_KEYSTORE", value_name = "FILE")]
    bls_keystore: Option<PathBuf>,

    /// Where others can read about the operator
    #[arg(long, value_name = "URL", default_value = "")]
    uri: String,

    #[command(flatten)]
    #[serde(skip)]
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

/// Make a validator's BLS key, in an encrypted keystore file
#[derive(Debug, Args)]
#[command(after_help = "Example:
  HALLMARK_BLS_KEYSTORE_PASSWORD=… hallmark operator new-bls-key --out bls.json")]
pub(crate) struct NewBlsKey {
    /// The file, which must not exist
    #[arg(long, value_name = "FILE", default_value = "bls.json")]
    out: PathBuf,
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Register(arguments) => register(arguments, context).await,
        Command::Allocate(Allocate { set, share, send }) => {
            let mut session = send.open("operator allocate", &(set, share)).await?;
            let action = operators::allocate(&session.deployment, session.account(), set.into(), share);
            session.act(&action).await?;
            finish(session, set, context).await
        }
        Command::Deregister(Deregister { set, send }) => {
            let mut session = send.open("operator deregister", &set).await?;
            let action = operators::leave(&session.deployment, session.account(), set.into());
            session.act(&action).await?;
            finish(session, set, context).await
        }
        Command::NewBlsKey(NewBlsKey { out }) => new_bls_key(&out, context),
    }
}

async fn register(arguments: Register, context: &Context) -> anyhow::Result<ExitCode> {
    let set: AuditSet = arguments.set.into();
    let key = match set {
        AuditSet::Validators => Some(secrets::bls_key(arguments.bls_keystore.as_deref())?),
        AuditSet::Hosts => None,
    };
    let mut session = arguments.send.open("operator register", &arguments).await?;
    let (to, account) = (session.deployment.clone(), session.account());
    let delegation = to.eigenlayer.delegation_manager;
    let known = session.client().call(delegation, &DelegationManager::isOperatorCall { operator: account }).await?;
    if !known {
        session.act(&operators::register_as_operator(&to, &arguments.uri)).await?;
    }
    if let Some(stake) = &arguments.stake {
        let strategy = arguments.strategy.or_else(|| to.eigenlayer.strategies.first().copied());
        stake_up_to(&mut session, stake, strategy.context("the deployment names no strategy")?).await?;
    }
    let call = AllocationManager::isMemberOfOperatorSetCall { operator: account, operatorSet: set.of(&to) };
    if session.client().call(to.eigenlayer.allocation_manager, &call).await? {
        return finish(session, arguments.set, context).await;
    }
    let action = match &key {
        Some(key) => {
            let domain = Domain::new(ChainId::new(to.chain_id), to.audit_service_manager);
            operators::join_validators(&to, account, &key.public_key(), &key.prove_possession(&domain, account))
        }
        None => operators::join_hosts(&to, account),
    };
    match session.act(&action).await {
        Ok(_) => finish(session, arguments.set, context).await,
        // Allocating takes an operator with a stake, and joining takes an allocation.
        Err(error) if is_without_allocation(&error) => {
            let next = "hallmark operator allocate --set validators --share 5000, then this command again";
            let rows = [("operator", account.to_string()), ("member", "not yet".to_owned()), ("next", next.to_owned())];
            session.finish(context, &rows, json!({ "operator": account, "member": false }))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(error),
    }
}

/// Deposits what the account's stake in a strategy lacks.
async fn stake_up_to(session: &mut Session, stake: &str, strategy: Address) -> anyhow::Result<()> {
    let (to, account) = (session.deployment.clone(), session.account());
    let underlying = session.client().call(strategy, &Strategy::underlyingTokenCall {}).await;
    let underlying = underlying.with_context(|| format!("{strategy} is no strategy of EigenLayer's"))?;
    let token = Token::find(session.client(), &to, Some(underlying)).await?;
    let call = StrategyManager::stakerDepositSharesCall { staker: account, strategy };
    let shares = session.client().call(to.eigenlayer.strategy_manager, &call).await?;
    let staked =
        session.client().call(strategy, &Strategy::sharesToUnderlyingViewCall { amountShares: shares }).await?;
    let missing = token.amount(stake)?.saturating_sub(Amount::new(staked.saturating_to()));
    if missing == Amount::ZERO {
        return Ok(());
    }
    let deposit = operators::deposit_stake(&to, strategy, token.address, U256::from(missing.get()));
    session.pay(&token, to.eigenlayer.strategy_manager, missing, &deposit).await.map(drop)
}

fn is_without_allocation(error: &anyhow::Error) -> bool {
    let refusal = error.downcast_ref::<ChainError>();
    matches!(refusal, Some(ChainError::Reverted { revert, .. }) if revert.name == "WeightTooSmall")
}

fn new_bls_key(out: &Path, context: &Context) -> anyhow::Result<ExitCode> {
    let key = secrets::new_bls_key(out)?.public_key();
    let words = key.g1.to_words().map(|word| format!("{word:#066x}"));
    let rows = [("file", out.display().to_string()), ("public key", format!("({}, {})", words[0], words[1]))];
    context.output.finish(&output::rows(&rows), &json!({ "file": out, "public_key_g1": words }))?;
    Ok(ExitCode::SUCCESS)
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
