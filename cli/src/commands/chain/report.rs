//! `hallmark report`

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use clap::Args;
use licensing_contracts::{
    actions::usage,
    bindings::{LeaseManager, UsageLog},
};
use protocol::{
    ids::{ChainId, LeaseId},
    messages::{Domain, Signed, Statement},
    units::Seconds,
};
use serde_json::json;

use super::{SendArguments, lease::lease_id};
use crate::{context::Context, failure::Advise as _};

/// Report a lease's use, as its host: claims are paid for what was reported and no more
///
/// The file is a JSON list of statements that no report has yet: {"message": …, "signature": …}. Each epoch in which one of
/// their requests ended gets a report, once it is over.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark report --lease 1 --statements statements.json")]
pub(crate) struct Report {
    /// The lease
    #[arg(long, env = "HALLMARK_LEASE", value_name = "NUMBER", value_parser = lease_id)]
    lease: LeaseId,

    /// The statements
    #[arg(long, value_name = "FILE")]
    statements: PathBuf,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: Report, context: &Context) -> anyhow::Result<ExitCode> {
    let Report { lease, statements: file, send } = arguments;
    let text =
        std::fs::read_to_string(&file).with_context(|| format!("failed to read the statements {}", file.display()))?;
    let signed: Vec<Signed<Statement>> = serde_json::from_str(&text)
        .with_context(|| format!("{} is not a list of statements", file.display()))
        .advise("see --help for its form")?;
    let mut session = send.open().await?;
    let to = session.deployment.clone();
    let known = session.client().call(to.lease_manager, &LeaseManager::leaseCall { leaseId: lease.get() }).await?;
    let domain = Domain::new(ChainId::new(to.chain_id), to.lease_manager);
    for (number, statement) in (1_u32..).zip(&signed) {
        ensure!(statement.message.lease == lease, "statement {number} is of lease {}", statement.message.lease);
        let key = statement.verify(&domain, known.leaseKey);
        key.with_context(|| format!("statement {number} is not signed by the lease's key {}", known.leaseKey))?;
    }
    let statements: Vec<Statement> = signed.into_iter().map(|statement| statement.message).collect();
    let client = session.client();
    let epoch_length = client.call(to.usage_log, &UsageLog::EPOCH_LENGTHCall {}).await?;
    let last = client.call(to.usage_log, &UsageLog::lastDigestCall(lease.get())).await?;
    let previous = (!last.is_zero()).then(|| last.into());
    let reports = usage::reports(&to, lease, Seconds::new(epoch_length), previous, &statements)?;
    ensure!(!reports.is_empty(), "{} holds no statement", file.display());
    for report in &reports {
        session.act(&usage::report(&to, report)?).await?;
    }
    let rows = [
        ("lease", lease.to_string()),
        ("reports", reports.len().to_string()),
        ("statements", statements.len().to_string()),
    ];
    session.finish(context, &rows, json!({ "lease": lease, "reports": reports }))?;
    Ok(ExitCode::SUCCESS)
}
