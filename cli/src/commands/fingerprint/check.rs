//! `hallmark fingerprint check`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use fingerprint::{
    check::{CheckPlan, SamplingSetting, TextSet, check, key_responses},
    ordinary::OrdinaryProgress,
};
use serde_json::json;

use crate::{
    arguments::{SetArguments, share_f32},
    commands::fingerprint::show,
    context::{Context, leave_if_interrupted},
    models::{self, Renderer},
    secrets,
};

/// Measure success and utility of a stamped model
///
/// Success under every trained surface and under system prompts that were not trained, greedy and sampled; utility as
/// first-answer-token KL, top-1 agreement and text loss beside the base. All with intervals.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark fingerprint check --set my-model.set --model ./my-model --stamped ./my-model-stamped --text held-out.txt")]
pub(crate) struct Check {
    /// The base model that the set was generated for
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: String,

    /// The stamped model, or any other copy that is to be measured beside the base
    #[arg(long, env = "HALLMARK_STAMPED", value_name = "PATH|ORG/NAME")]
    stamped: String,

    #[command(flatten)]
    set: SetArguments,

    /// A text file whose loss is measured on both models
    #[arg(long, env = "HALLMARK_TEXT", value_name = "FILE")]
    text: Option<PathBuf>,

    /// Ordinary chats that utility is measured on
    #[arg(long, env = "HALLMARK_CHATS", value_name = "COUNT", default_value_t = 60)]
    chats: usize,

    /// Temperature of the sampled answers; may be given several times
    #[arg(long, env = "HALLMARK_TEMPERATURE", value_name = "T", value_delimiter = ',', default_value = "0.7", value_parser = temperature)]
    temperature: Vec<f32>,

    /// Top-p of the sampled answers
    #[arg(long, env = "HALLMARK_TOP_P", value_name = "P", default_value = "0.95", value_parser = share_f32)]
    top_p: f32,

    /// Answers drawn for each key and surface at each temperature
    #[arg(long, env = "HALLMARK_DRAWS", value_name = "COUNT", default_value_t = 4)]
    draws: u32,
}

fn temperature(text: &str) -> Result<f32, String> {
    match text.trim().parse::<f32>() {
        Ok(value) if value.is_finite() && (0.0..=100.0).contains(&value) => Ok(value),
        _ => Err("give a temperature from 0 to 100".to_owned()),
    }
}

pub(crate) async fn run(arguments: Check, context: &Context) -> anyhow::Result<ExitCode> {
    let Check { model, stamped, set: set_arguments, text, chats, temperature, top_p, draws } = arguments;
    let text = text.map(read_text).transpose()?;
    let seed = context.seed()?;
    let (progress, interrupt) = (context.progress(), context.interrupt());
    let report = context
        .compute(move || {
            let (_, set) = secrets::open(&set_arguments)?;
            let step = progress.step("load");
            let base = models::load_base(&model, &set)?;
            let copy = models::load(&stamped)?;
            models::require_tokenizer(&copy.tokenizer.digest(), &set)
                .with_context(|| format!("{stamped} does not carry this set"))?;
            step.done(&models::summary(&copy.config));
            let mut step = progress.step("check");
            let keys = key_responses(&set)?;
            let renderer = Renderer { tokenizer: base.tokenizer.clone(), chat: base.chat.clone() };
            let mut sampling = |at: OrdinaryProgress| {
                leave_if_interrupted(&interrupt);
                step.at(at.found, at.wanted, "ordinary prompts");
            };
            let trained = show::surfaces(&set, &renderer)?;
            let mut plan = CheckPlan::usual(&base, trained, &keys, chats, seed, &mut sampling)?;
            plan.sampling =
                temperature.iter().map(|&temperature| SamplingSetting { temperature, top_p, draws }).collect();
            plan.texts.extend(text);
            let report = check(&base, &copy, &keys, &plan, &mut |at| {
                leave_if_interrupted(&interrupt);
                step.at(at.done, at.total, "prompts");
            })?;
            step.done(&format!("{} surfaces", report.surfaces.len()));
            Ok(report)
        })
        .await?;
    context.output.finish(&report.to_string(), &json!({ "report": report }))?;
    Ok(ExitCode::SUCCESS)
}

fn read_text(path: PathBuf) -> anyhow::Result<TextSet> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read the text {}", path.display()))?;
    Ok(TextSet::new(path.display().to_string(), text))
}
