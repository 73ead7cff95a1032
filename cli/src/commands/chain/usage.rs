//! `hallmark usage record | accept`

mod accept;
mod record;

use std::{
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use alloy::primitives::Address;
use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use licensing_contracts::{bindings::LeaseManager, client::ChainClient, deployment::Deployment};
use protocol::{
    ids::{ChainId, LeaseId},
    messages::{self, Domain, Message as _, Signed, Statement},
    money::Prices,
    signature::SigningKey,
    units::PricePerMillion,
};

use super::ChainArguments;
use crate::{context::Context, failure::Advise as _, secrets};

/// Account for use by hand: state it as the host, accept it as the payer
///
/// What a metered host and a payer's gateway do for each request, one step at a time. Then the host reports the use
/// (`hallmark report`) and claims what the payer accepted (`hallmark claim`).
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Record(record::Record),
    Accept(accept::Accept),
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Record(arguments) => record::run(arguments, context).await,
        Command::Accept(arguments) => accept::run(arguments, context).await,
    }
}

/// Who signs, where nothing is sent.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Account")]
struct SignArguments {
    #[command(flatten)]
    chain: ChainArguments,

    /// Encrypted keystore file of the key; its password is in HALLMARK_KEYSTORE_PASSWORD [default: the key in HALLMARK_PRIVATE_KEY]
    #[arg(long, env = "HALLMARK_KEYSTORE", value_name = "FILE")]
    keystore: Option<PathBuf>,
}

impl SignArguments {
    fn key(&self) -> anyhow::Result<SigningKey> {
        let signer = secrets::signer(self.keystore.as_deref())?;
        Ok(SigningKey::from_bytes(&signer.to_bytes().0)?)
    }
}

/// A lease, as far as statements are about it.
pub(super) struct Terms {
    pub(super) key: Address,
    prices: Prices,
    token: Address,
}

impl Terms {
    pub(super) async fn of(client: &ChainClient, to: &Deployment, lease: LeaseId) -> anyhow::Result<Self> {
        let call = LeaseManager::leaseCall { leaseId: lease.get() };
        let found = client.call(to.lease_manager, &call).await?;
        let call = LeaseManager::accountCall { leaseId: lease.get() };
        let token = client.call(to.lease_manager, &call).await?.token;
        let price = PricePerMillion::new;
        let prices = Prices {
            request: price(found.prices.request),
            prompt: price(found.prices.prompt),
            cached: price(found.prices.cached),
            completion: price(found.prices.completion),
        };
        Ok(Self { key: found.leaseKey, prices, token })
    }

    /// Whether the statements are what the host may charge for: signed by it, at its prices, each after the one before.
    fn check(&self, statements: &[Signed<Statement>], domain: &Domain<messages::LeaseManager>) -> anyhow::Result<()> {
        let mut previous: Option<&Signed<Statement>> = None;
        for (number, signed) in (1_u32..).zip(statements) {
            let Statement { step, charge, .. } = signed.message;
            Self::check_signature(self.key, signed, domain, number)?;
            let due = self.prices.charge(step.before(), step.after())?;
            ensure!(charge == due, "statement {number} charges {charge} and not {due}, which the lease's prices give");
            let before = previous.map(|signed| signed.message.step.after()).unwrap_or_default();
            let follows = signed.message.previous == previous.map(|signed| signed.message.digest(domain));
            ensure!(follows && step.before() == before, "statement {number} does not follow the one before it");
            previous = Some(signed);
        }
        Ok(())
    }

    /// Whether the lease's key signed.
    pub(super) fn check_signature(
        key: Address,
        signed: &Signed<Statement>,
        domain: &Domain<messages::LeaseManager>,
        number: u32,
    ) -> anyhow::Result<()> {
        let verified = signed.verify(domain, key);
        verified.with_context(|| format!("statement {number} is not signed by the lease's key {key}"))
    }
}

pub(super) fn manager(to: &Deployment) -> Domain<messages::LeaseManager> {
    Domain::new(ChainId::new(to.chain_id), to.lease_manager)
}

/// The statements of a file: one list for one lane, in order.
pub(super) fn read_statements(path: &Path) -> anyhow::Result<Vec<Signed<Statement>>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("failed to read the statements {}", path.display()))
        .advise("name the file that the host or `hallmark usage record` wrote, with --statements")?;
    parse(path, &text)
}

/// As [`read_statements`]; a file that is not there yet has none.
fn statements_so_far(path: &Path) -> anyhow::Result<Vec<Signed<Statement>>> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("failed to read the statements {}", path.display())),
    }
}

fn parse(path: &Path, text: &str) -> anyhow::Result<Vec<Signed<Statement>>> {
    serde_json::from_str(text).with_context(|| format!("{} is not a list of statements", path.display()))
}
