//! `hallmark commit-fingerprints`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use fingerprint::commitment::Commitment;
use licensing_contracts::{
    actions::registry::{self, OnChainCommitment},
    deployment::Deployment,
};
use protocol::ids::{Beacon, CommitmentRoot, ModelId};
use serde_json::json;

use super::{SendArguments, Session};
use crate::{
    context::Context,
    failure::{Advise as _, Interrupted},
};

/// Between two looks at the chain's height.
const LOOK: Duration = Duration::from_millis(500);
/// Looks for what a receipt says is there: half a minute.
const PATIENCE: u32 = 60;

/// Commit to fingerprints on the chain, and record the randomness that draws them
///
/// Takes the file that `hallmark fingerprint commit` wrote. The chain fixes a later block; when that is there, its
/// randomness is recorded and printed for `hallmark fingerprint draw`. Run again at any time: what is done is not done
/// twice. After the draw it publishes the root of the drawn set.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark commit-fingerprints --model-id 0x… --commitment commitment.json")]
pub(crate) struct CommitFingerprints {
    /// The model
    #[arg(long, env = "HALLMARK_MODEL_ID", value_name = "0xHEX")]
    model_id: ModelId,

    /// The commitment of the fingerprint set
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE", default_value = "commitment.json")]
    commitment: PathBuf,

    /// Do not wait for the block that draws
    #[arg(long, env = "HALLMARK_NO_WAIT", value_parser = FalseyValueParser::new())]
    no_wait: bool,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: CommitFingerprints, context: &Context) -> anyhow::Result<ExitCode> {
    let commitment = Commitment::read(&arguments.commitment)?;
    let (root, fingerprints) = (commitment.root(), commitment.parameters().fingerprints);
    let mut session =
        arguments.send.open("commit-fingerprints", &(arguments.model_id, root, commitment.draw().is_some())).await?;
    let to = session.deployment.clone();

    let mut known = registry::commitment(session.client(), &to, root).await?;
    if known.is_none() {
        let action = registry::commit_fingerprints(&to, arguments.model_id, root, fingerprints);
        if session.act(&action).await?.is_some() {
            known = Some(after_mining(&session, &to, root, |_| true).await?);
        }
    }
    if let Some(found) = &known {
        check(found, arguments.model_id, fingerprints)?;
    }
    if let Some(found) = known.filter(|found| found.beacon.is_none() && !arguments.no_wait) {
        let confirmations = arguments.send.confirmations();
        if record_beacon(&mut session, &to, root, found, confirmations, context).await? {
            known = Some(after_mining(&session, &to, root, |found| found.beacon.is_some()).await?);
        }
    }
    if let (Some(found), Some(draw)) = (known, commitment.draw())
        && let (Some(beacon), None) = (found.beacon, found.set)
    {
        // What is published stays: a set that another beacon drew must never get there.
        ensure_drawn_by(beacon, draw.beacon.value)?;
        session.act(&registry::publish_set(&to, root, draw.set_root)).await?;
    }

    let mut rows = vec![("root", root.to_string())];
    if let Some(found) = known {
        rows.push(("draw block", found.draw_block.to_string()));
        let source = format!("chain {}, prevrandao of block {}", to.chain_id, found.draw_block);
        if let Some(beacon) = found.beacon {
            rows.push(("beacon", beacon.to_string()));
            rows.push(("source", source.clone()));
            if commitment.draw().is_none() {
                rows.push(("next", format!("hallmark fingerprint draw --beacon {beacon} --beacon-source '{source}'")));
            }
        }
    }
    let object = json!({
        "root": root,
        "draw_block": known.map(|found| found.draw_block),
        "beacon": known.and_then(|found| found.beacon),
    });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}

/// Roots are unique in a registry, so one that is taken may be somebody else's copy.
fn check(found: &OnChainCommitment, model: ModelId, fingerprints: u32) -> anyhow::Result<()> {
    let problem = if found.model != model {
        format!("this root is committed for model {} and not for {model}", found.model)
    } else if found.fingerprints != fingerprints {
        format!("this root is committed for {} fingerprints and not for {fingerprints}", found.fingerprints)
    } else {
        return Ok(());
    };
    Err(anyhow::anyhow!(problem)).advise("check --model-id; if another account copied the root, generate a new set")
}

fn ensure_drawn_by(recorded: Beacon, drawn: Beacon) -> anyhow::Result<()> {
    if recorded == drawn {
        return Ok(());
    }
    Err(anyhow::anyhow!("the set was drawn by beacon {drawn}, and the chain recorded {recorded}"))
        .advise("draw a copy of the set from before its draw with the recorded beacon; this one proves nothing here")
}

/// The commitment as a transaction that was just mined left it, from a node that may not have its block yet.
async fn after_mining(
    session: &Session,
    to: &Deployment,
    root: CommitmentRoot,
    is_there: fn(&OnChainCommitment) -> bool,
) -> anyhow::Result<OnChainCommitment> {
    for _ in 0..PATIENCE {
        let found = registry::commitment(session.client(), to, root).await?;
        if let Some(found) = found.filter(is_there) {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(anyhow::anyhow!("the transaction was mined, and the node does not show what it did"))
        .advise("run the same command again, with another --rpc if need be")
}

/// Waits for the draw block and for those on top of it (one at least, whose contracts can see its hash), and records its
/// randomness. Whether it was sent.
async fn record_beacon(
    session: &mut Session,
    to: &Deployment,
    root: CommitmentRoot,
    found: OnChainCommitment,
    confirmations: u64,
    context: &Context,
) -> anyhow::Result<bool> {
    let mut step = context.progress().step("draw block");
    let interrupt = context.interrupt();
    loop {
        let height = session.client().head().await?.number;
        let awaited = found.draw_block.saturating_add(confirmations);
        if height >= awaited {
            break;
        }
        step.at_u64(height, awaited, "blocks");
        tokio::select! {
            biased;
            () = interrupt.cancelled() => {
                return Err(Interrupted).context("the commitment stands; run the same command again for the draw");
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    step.done(&format!("block {} is there", found.draw_block));
    let header = registry::header(session.client(), found.draw_block)
        .await?
        .with_context(|| format!("block {} is gone", found.draw_block))
        .advise("the chain was reorganised: run the same command again")?;
    Ok(session.act(&registry::record_beacon(to, root, header)).await?.is_some())
}
