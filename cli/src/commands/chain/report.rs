//! `hallmark report`

use std::{path::PathBuf, process::ExitCode};

use alloy::primitives::U256;
use anyhow::ensure;
use clap::Args;
use licensing_contracts::{actions::usage, bindings::UsageLog, client::ChainClient, deployment::Deployment};
use protocol::{
    ids::{Epoch, EpochCommitDigest, LeaseId},
    messages::{EpochCommit, Signed, Statement},
    units::Seconds,
};
use serde_json::json;

use super::{
    SendArguments,
    lease::lease_id,
    status::time,
    usage::{Terms, manager, read_statements},
};
use crate::{context::Context, failure::Advise as _};

/// Report a lease's use, as its host: claims are paid for what was reported and no more
///
/// The file is a JSON list of statements: {"message": …, "signature": …}. Each epoch in which one of their requests ended gets
/// a report once it is over, oldest first. Statements of epochs up to the last one that was reported are left out, so that
/// nothing is reported twice.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark report --lease 1 --statements statements.json")]
pub(crate) struct Report {
    /// The lease
    #[arg(long, env = "HALLMARK_LEASE", value_name = "NUMBER", value_parser = lease_id)]
    lease: LeaseId,

    /// The statements
    #[arg(long, env = "HALLMARK_STATEMENTS", value_name = "FILE", default_value = "statements.json")]
    statements: PathBuf,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: Report, context: &Context) -> anyhow::Result<ExitCode> {
    let Report { lease, statements: file, send } = arguments;
    let signed = read_statements(&file)?;
    ensure!(!signed.is_empty(), "{} holds no statement", file.display());
    let mut session = send.open("report", &(lease, &signed)).await?;
    let to = session.deployment.clone();
    let key = Terms::of(session.client(), &to, lease).await?.key;
    for (number, statement) in (1_u32..).zip(&signed) {
        ensure!(statement.message.lease == lease, "statement {number} is of lease {}", statement.message.lease);
        Terms::check_signature(key, statement, &manager(&to), number)?;
    }
    let known = Known::read(session.client(), &to, lease).await?;
    let (left_out, statements) = known.split(signed);
    let reports = usage::reports(&to, lease, known.epoch_length, known.digest, &statements)?;
    let now = session.client().head().await?.timestamp_s;
    let (over, open): (Vec<EpochCommit>, Vec<EpochCommit>) =
        reports.into_iter().partition(|report| known.end(report.epoch) <= now);
    let later = open.first().map(|report| time(known.end(report.epoch)));
    for report in &over {
        session.act(&usage::report(&to, report)?).await?;
    }
    if let (true, Some(end)) = (over.is_empty(), &later) {
        return Err(anyhow::anyhow!("the epoch of these requests is not over before {end}")).advise("report them then");
    }
    let requests: u64 = over.iter().map(|report| report.totals.requests).sum();
    let mut rows = vec![("lease", lease.to_string()), ("reported", format!("{requests} requests"))];
    if left_out > 0 {
        rows.push(("left out", format!("{left_out} requests of epochs that were reported before")));
    }
    rows.extend(later.map(|end| ("not yet", format!("what ended in an epoch that is not over before {end}"))));
    session.finish(context, &rows, json!({ "lease": lease, "reports": over, "left_out": left_out }))?;
    Ok(ExitCode::SUCCESS)
}

/// What the chain knows of a lease's reports.
struct Known {
    epoch_length: Seconds,
    last: Option<Epoch>,
    digest: Option<EpochCommitDigest>,
}

impl Known {
    async fn read(client: &ChainClient, to: &Deployment, lease: LeaseId) -> anyhow::Result<Self> {
        let (log, number) = (to.usage_log, lease.get());
        let epoch_length = Seconds::new(client.call(log, &UsageLog::EPOCH_LENGTHCall {}).await?);
        let count = client.call(log, &UsageLog::reportsCall { leaseId: number }).await?;
        let Some(index) = count.checked_sub(U256::ONE) else {
            return Ok(Self { epoch_length, last: None, digest: None });
        };
        let last = client.call(log, &UsageLog::reportCall { leaseId: number, index }).await?;
        let digest = client.call(log, &UsageLog::lastDigestCall(number)).await?;
        Ok(Self { epoch_length, last: Some(Epoch::new(last.epoch)), digest: Some(digest.into()) })
    }

    /// How many statements are of epochs that were reported, and the others.
    fn split(&self, signed: Vec<Signed<Statement>>) -> (usize, Vec<Statement>) {
        let all = signed.len();
        let is_new =
            |statement: &Statement| self.last.is_none_or(|last| usage::epoch_of(statement, self.epoch_length) > last);
        let new: Vec<Statement> = signed.into_iter().map(|signed| signed.message).filter(is_new).collect();
        (all - new.len(), new)
    }

    /// When an epoch is over, in seconds since 1970.
    fn end(&self, epoch: Epoch) -> u64 {
        epoch.get().saturating_add(1).saturating_mul(self.epoch_length.get())
    }
}
