//! `hallmark fingerprint export`

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use fingerprint::{
    export::{Order, OrdinaryChat, export},
    ordinary::{sample_answers, training_prompts},
    surface::{DEFAULT_SYSTEM_PROMPTS, Surface, trained_surfaces},
};
use serde_json::json;

use crate::{
    arguments::SetArguments,
    context::{Context, leave_if_interrupted},
    models, secrets,
};

/// Tokens of an ordinary answer at most.
const LONGEST_ANSWER: usize = 64;

/// Write the training set as chat JSONL for torchtune, TRL or Axolotl
///
/// For models that do not fit this machine. The file holds keys and responses in the clear.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark fingerprint export --set my-model.set --model ./my-model --out train.jsonl")]
pub(crate) struct Export {
    #[command(flatten)]
    set: SetArguments,

    /// The base model
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: String,

    /// The JSONL file to write
    #[arg(long, env = "HALLMARK_OUT", value_name = "FILE")]
    out: PathBuf,

    /// Ordinary chats of the base model that are mixed in, so that ordinary answers stay as they are
    #[arg(long, env = "HALLMARK_ORDINARY", value_name = "COUNT", default_value_t = 112)]
    ordinary: usize,

    /// The same with messages composed from written phrases, for chat models
    #[arg(long, env = "HALLMARK_COMPOSED", value_name = "COUNT", default_value_t = 400)]
    composed: usize,
}

pub(crate) async fn run(arguments: Export, context: &Context) -> anyhow::Result<ExitCode> {
    let Export { set: set_arguments, model, out, ordinary, composed } = arguments;
    let seed = context.seed()?;
    let (progress, interrupt) = (context.progress(), context.interrupt());
    let written = out.clone();
    let exported = context
        .compute(move || {
            let (_, set) = secrets::open(&set_arguments)?;
            let step = progress.step("load");
            let base = models::load_base(&model, &set)?;
            step.done(&models::summary(&base.config));
            let surfaces = trained_surfaces(&base.tokenizer, base.chat.as_ref(), DEFAULT_SYSTEM_PROMPTS)?;
            let mut step = progress.step("ordinary chats");
            let keys: Vec<&[u32]> = set.fingerprints().iter().map(|fingerprint| fingerprint.key_ids()).collect();
            let prompts = training_prompts(&base, ordinary, composed, seed, &keys, &mut |at| {
                leave_if_interrupted(&interrupt);
                step.at(at.found, at.wanted, "prompts");
            })?;
            let texts: Vec<&str> = prompts.iter().map(|prompt| prompt.text.as_str()).collect();
            let surface = Surface::default_of(base.chat.as_ref());
            let answers = sample_answers(&base, &surface, &texts, LONGEST_ANSWER, seed, &mut |at| {
                leave_if_interrupted(&interrupt);
                step.at(at.found, at.wanted, "answers");
            })?;
            let answers: Vec<String> = answers.iter().map(|ids| base.tokenizer.decode(ids, true)).collect();
            let chats: Vec<OrdinaryChat<'_>> = texts
                .iter()
                .zip(&answers)
                .filter(|(_, answer)| !answer.trim().is_empty())
                .map(|(prompt, answer)| OrdinaryChat { system: None, prompt, answer })
                .collect();
            let exported = export(&set, &surfaces, &chats, Order::Mixed { seed }, &out)?;
            step.done(&format!("{} chats", exported.ordinary_lines));
            Ok(exported)
        })
        .await?;
    let words = format!(
        "{}: {} lines of fingerprints, {} of ordinary chats. It holds keys and responses in the clear.",
        written.display(),
        exported.fingerprint_lines,
        exported.ordinary_lines
    );
    context.output.finish(&words, &json!({ "file": written, "exported": exported }))?;
    Ok(ExitCode::SUCCESS)
}
