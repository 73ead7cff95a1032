//! `hallmark commit-fingerprints`

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use fingerprint::commitment::Commitment;
use licensing_contracts::{
    actions::registry::{self, OnChainCommitment},
    deployment::Deployment,
};
use protocol::ids::{CommitmentRoot, ModelId};
use serde_json::json;

use super::{SendArguments, Session};
use crate::{
    context::Context,
    failure::{Advise as _, Interrupted},
};

/// Between two looks at the chain's height.
const LOOK: Duration = Duration::from_millis(500);

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
    let mut session = arguments.send.open().await?;
    let to = session.deployment.clone();

    let mut known = registry::commitment(session.client(), &to, root).await?;
    if known.is_none() {
        session.act(&registry::commit_fingerprints(&to, arguments.model_id, root, fingerprints)).await?;
        known = registry::commitment(session.client(), &to, root).await?;
    }
    if let Some(found) = known.filter(|found| found.beacon.is_none() && !arguments.no_wait) {
        record_beacon(&mut session, &to, root, found, context).await?;
        known = registry::commitment(session.client(), &to, root).await?;
    }
    let drawn = commitment.draw().filter(|_| known.is_some_and(|found| found.beacon.is_some() && found.set.is_none()));
    if let Some(draw) = drawn {
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

/// Waits for the draw block and one more, whose contracts can see its hash, and records its randomness.
async fn record_beacon(
    session: &mut Session,
    to: &Deployment,
    root: CommitmentRoot,
    found: OnChainCommitment,
    context: &Context,
) -> anyhow::Result<()> {
    let mut step = context.progress().step("draw block");
    let interrupt = context.interrupt();
    loop {
        let height = session.client().head().await?.number;
        if height > found.draw_block {
            break;
        }
        step.at_u64(height.min(found.draw_block), found.draw_block, "blocks");
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
    session.act(&registry::record_beacon(to, root, header)).await?;
    Ok(())
}
