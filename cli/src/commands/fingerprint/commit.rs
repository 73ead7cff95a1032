//! `hallmark fingerprint commit`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use fingerprint::commitment::Commitment;
use serde_json::json;

use crate::{arguments::SetArguments, context::Context, output, secrets};

/// Fix keys and candidates under a public root
///
/// Publish the commitment before the draw: what is drawn later is then out of your hands, and a proof holds against
/// everybody. Of a set that is committed already, the file is written again, with the draw if there was one.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark fingerprint commit --set my-model.set --commitment commitment.json

Next: publish commitment.json, wait for public randomness, then hallmark fingerprint draw")]
pub(crate) struct Commit {
    #[command(flatten)]
    set: SetArguments,

    /// Where the public commitment is written
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE", default_value = "commitment.json")]
    commitment: PathBuf,
}

pub(crate) async fn run(arguments: Commit, context: &Context) -> anyhow::Result<ExitCode> {
    let Commit { set: set_arguments, commitment: path } = arguments;
    let (set_path, written) = (set_arguments.set.clone(), path.clone());
    let commitment = context
        .compute(move || {
            let (mut vault, mut set) = secrets::open(&set_arguments)?;
            if set.root().is_none() {
                set.commit()?;
                Commitment::of(&set)?.check_place(&path)?;
                // Before the file: a published root that the set does not know of could never be drawn.
                vault.save(&set)?;
            }
            let commitment = Commitment::of(&set)?;
            commitment.write(&path)?;
            Ok(commitment)
        })
        .await?;
    let root = commitment.root();
    let next = match commitment.draw() {
        None => format!("publish it, then hallmark fingerprint draw --set {} --beacon 0x…", set_path.display()),
        Some(_) => "publish it: the draw is in it".to_owned(),
    };
    let words =
        output::rows(&[("root", root.to_string()), ("commitment", written.display().to_string()), ("next", next)]);
    context.output.finish(&words, &json!({ "root": root, "commitment": commitment, "file": written }))?;
    Ok(ExitCode::SUCCESS)
}
