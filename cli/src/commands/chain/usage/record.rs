//! `hallmark usage record`

use std::{path::PathBuf, process::ExitCode};

use alloy::primitives::B256;
use anyhow::Context as _;
use clap::Args;
use protocol::{
    counts::{LaneStep, RequestUsage},
    ids::{Lane, LeaseId},
    messages::{FinishReason, Message as _, Signed, Statement},
    units::UnixMilliseconds,
};
use serde_json::json;

use super::{SignArguments, Terms, manager, statements_so_far};
use crate::{
    commands::chain::{
        Token,
        deposit::{channel_id, read_channel},
        files::write_json,
        lease::lease_id,
    },
    context::Context,
};

/// State what one request used, as the host
///
/// Signs with the lease's key and adds the statement to a file. The charge follows from the lease's prices.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark usage record --lease 1 --channel channel.json --prompt-tokens 900 --completion-tokens 300")]
pub(crate) struct Record {
    /// The lease
    #[arg(long, env = "HALLMARK_LEASE", value_name = "NUMBER", value_parser = lease_id)]
    lease: LeaseId,

    /// The channel that pays
    #[arg(long, env = "HALLMARK_CHANNEL", value_name = "FILE", default_value = "channel.json")]
    channel: PathBuf,

    /// The lane of the channel; one file is for one lane
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    lane: u64,

    /// Tokens of the prompt, those that were cached included
    #[arg(long, value_name = "NUMBER")]
    prompt_tokens: u64,

    /// Tokens of the prompt that were not computed anew
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    cached_tokens: u64,

    /// Tokens of the answer
    #[arg(long, value_name = "NUMBER")]
    completion_tokens: u64,

    /// Digest of the request's bytes
    #[arg(long, value_name = "0xHEX", default_value_t = B256::ZERO)]
    request: B256,

    /// Digest of the answer's bytes
    #[arg(long, value_name = "0xHEX", default_value_t = B256::ZERO)]
    response: B256,

    /// The statements so far; made if it is not there
    #[arg(long, env = "HALLMARK_STATEMENTS", value_name = "FILE", default_value = "statements.json")]
    statements: PathBuf,

    #[command(flatten)]
    sign: SignArguments,
}

pub(super) async fn run(arguments: Record, context: &Context) -> anyhow::Result<ExitCode> {
    let key = arguments.sign.key()?;
    let channel = read_channel(&arguments.channel)?;
    let mut statements = statements_so_far(&arguments.statements)?;
    let (client, to) = arguments.sign.chain.connect().await?;
    let terms = Terms::of(&client, &to, arguments.lease).await?;
    let (domain, id, lane) = (manager(&to), channel_id(&to, &channel), Lane::new(arguments.lane));
    let last = statements.last().map(|signed| &signed.message);
    if last.is_some_and(|last| (last.lease, last.channel, last.lane) != (arguments.lease, Some(id), lane)) {
        anyhow::bail!(
            "{} is of another lease, channel or lane; name another file with --statements",
            arguments.statements.display()
        );
    }
    let before = last.map(|last| last.step.after()).unwrap_or_default();
    let used = RequestUsage::new(arguments.prompt_tokens, arguments.cached_tokens, arguments.completion_tokens)?;
    let step = LaneStep::new(before, used)?;
    let now_ms = client.head().await?.timestamp_s.checked_mul(1_000).context("the chain's clock is at its end")?;
    let statement = Statement {
        channel: Some(id),
        lease: arguments.lease,
        lane,
        step,
        charge: terms.prices.charge(before, step.after())?,
        request_hash: arguments.request,
        response_hash: arguments.response,
        started: UnixMilliseconds::new(now_ms),
        ended: UnixMilliseconds::new(now_ms),
        finish_reason: FinishReason::Stop,
        execution: None,
        previous: last.map(|last| last.digest(&domain)),
    };
    let digest = statement.digest(&domain);
    let charge = statement.charge;
    statements.push(Signed::sign(statement, &domain, &key));
    terms.check(&statements, &domain)?;
    write_json(&arguments.statements, &statements)?;
    let token = Token::find(&client, &to, Some(terms.token)).await?;
    let rows = [
        ("statement", digest.to_string()),
        ("charge", token.show(charge)),
        ("lane so far", step.after().to_string()),
        ("file", arguments.statements.display().to_string()),
    ];
    let object = json!({
        "statement": digest,
        "charge": charge,
        "requests": step.after().requests(),
        "file": arguments.statements,
    });
    context.output.finish(&crate::output::rows(&rows), &object)?;
    Ok(ExitCode::SUCCESS)
}
