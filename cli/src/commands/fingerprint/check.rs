//! `hallmark fingerprint check`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use fingerprint::check::{CheckPlan, CheckReport, Rate, SamplingSetting, TextSet, check, key_responses};
use serde_json::json;

use crate::{
    arguments::{SetArguments, share_f32},
    commands::fingerprint::show,
    context::{Context, leave_if_interrupted},
    format,
    models::{self, Renderer},
    secrets,
};

/// Measure success and utility of a stamped model
///
/// Success under every trained surface and under system prompts that were not trained, greedy and sampled; utility as
/// first-answer-token KL, top-1 agreement and text loss beside the base. All with intervals.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark fingerprint check --set my-model.set --model ./my-model-stamped --base ./my-model --text held-out.txt")]
pub(crate) struct Check {
    /// The stamped model
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: String,

    /// The base model that the set was generated for
    #[arg(long, env = "HALLMARK_BASE", value_name = "PATH|ORG/NAME")]
    base: String,

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
    let Check { model, base, set: set_arguments, text, chats, temperature, top_p, draws } = arguments;
    let text = text.map(read_text).transpose()?;
    let seed = context.seed()?;
    let (progress, interrupt) = (context.progress(), context.interrupt());
    let report = context
        .compute(move || {
            let (_, set) = secrets::open(&set_arguments)?;
            let step = progress.step("load");
            let base_model = models::load_base(&base, &set)?;
            let stamped = models::load(&model)?;
            models::require_tokenizer(&stamped.tokenizer.digest(), &set)
                .with_context(|| format!("{model} does not carry this set"))?;
            step.done(&models::summary(&stamped.config));
            let mut step = progress.step("check");
            let keys = key_responses(&set)?;
            let renderer = Renderer { tokenizer: base_model.tokenizer.clone(), chat: base_model.chat.clone() };
            let mut plan = CheckPlan::usual(&base_model, show::surfaces(&set, &renderer)?, &keys, chats, seed)?;
            plan.sampling =
                temperature.iter().map(|&temperature| SamplingSetting { temperature, top_p, draws }).collect();
            plan.texts.extend(text);
            let report = check(&base_model, &stamped, &keys, &plan, &mut |at| {
                leave_if_interrupted(&interrupt);
                step.at(at.done, at.total, "prompts");
            })?;
            step.done(&format!("{} surfaces", report.surfaces.len()));
            Ok(report)
        })
        .await?;
    context.output.finish(&words(&report), &json!({ "report": report }))?;
    Ok(ExitCode::SUCCESS)
}

fn read_text(path: PathBuf) -> anyhow::Result<TextSet> {
    let text = std::fs::read_to_string(&path).with_context(|| format!("failed to read the text {}", path.display()))?;
    Ok(TextSet::new(path.display().to_string(), text))
}

/// The report as tables.
fn words(report: &CheckReport) -> String {
    let mut text = format!("Success of {} keys (95 % interval)\n", report.keys);
    for row in &report.surfaces {
        let note = if row.trained { "" } else { "  not trained" };
        text.push_str(&format!("  {:<32} {}{note}\n", row.name, rate(&row.success)));
    }
    for row in &report.sampling {
        let name = format!("all, temperature {}, top-p {}", row.temperature, row.top_p);
        text.push_str(&format!("  {name:<32} {}\n", rate(&row.success)));
    }
    text.push_str("\nUtility beside the base (95 % interval)\n");
    for row in &report.chats {
        text.push_str(&format!(
            "  {:<32} {} chats, first-answer-token KL {:.4} [{:.4}, {:.4}] nats, agreement {}\n",
            row.name,
            row.prompts,
            row.divergence.mean,
            row.divergence.lower,
            row.divergence.upper,
            rate(&row.agreement)
        ));
    }
    for row in &report.texts {
        text.push_str(&format!(
            "  {:<32} loss {:.4} -> {:.4} nats, {:+.2} % [{:+.2}, {:+.2}]\n",
            row.name,
            row.base_loss,
            row.stamped_loss,
            row.relative.mean * 100.0,
            row.relative.lower * 100.0,
            row.relative.upper * 100.0
        ));
    }
    text
}

fn rate(rate: &Rate) -> String {
    format!(
        "{:>5}/{:<5} {:>7}  [{:.3}, {:.3}]",
        rate.hits,
        rate.trials,
        format::percent(rate.rate),
        rate.lower,
        rate.upper
    )
}
