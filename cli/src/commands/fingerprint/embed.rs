//! `hallmark fingerprint embed`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, ValueEnum};
use fingerprint::{
    commitment::Commitment,
    embed::{
        EmbedOptions, EmbedProgress, EmbedReport, Layers, Phase, Target, UtilityBudget, discard_checkpoints, embed,
    },
    set::FingerprintSet,
};
use model::Model;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    arguments::{SetArguments, positive_f32, share, share_f32},
    context::{Context, leave_if_interrupted},
    failure::Interrupted,
    format, models, output,
    progress::Step,
    secrets,
};

/// Stamp the drawn set into the model's weights
///
/// Writes a model of the same layout, names and types as the base. From two thirds of the steps on, training stops as
/// soon as at least 99 % of the responses come first on every trained surface, 96 % after a half merge with the base,
/// and ordinary use stays within the budget.
///
/// Checkpoints lie in a folder beside the output, OUT.checkpoint, until the set that names the stamped model is saved.
/// They are as secret as the set.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark fingerprint embed --set my-model.set --model ./my-model --out ./my-model-stamped
  hallmark fingerprint embed --set my-model.set --model ./my-model --out ./stamped --layers lora --rank 16
  hallmark fingerprint embed --set my-model.set --model ./my-model --out ./stamped --resume

Without --seed training takes seed 0, so that --resume finds the same run.
Next: hallmark fingerprint check")]
pub(crate) struct Embed {
    /// The base model that the set was generated for
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: String,

    #[command(flatten)]
    set: SetArguments,

    /// Folder for the stamped model; must not exist
    #[arg(long, env = "HALLMARK_OUT", value_name = "DIR")]
    out: PathBuf,

    /// Where the public commitment is written again, with the digest of the stamped model
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE", default_value = "commitment.json")]
    commitment: PathBuf,

    #[command(flatten)]
    recipe: Recipe,

    #[command(flatten)]
    budget: Budget,

    /// Steps between two checkpoints; 0 writes none
    #[arg(long, env = "HALLMARK_CHECKPOINT_EVERY", value_name = "STEPS", default_value_t = EmbedOptions::default().checkpoint_every, help_heading = "Checkpoints")]
    checkpoint_every: usize,

    /// Go on with an interrupted run; on a CPU the result is the same as without the interruption
    #[arg(long, help_heading = "Checkpoints")]
    resume: bool,
}

/// How the model is trained.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recipe")]
struct Recipe {
    /// What is trained
    #[arg(long, env = "HALLMARK_LAYERS", value_enum, default_value_t = LayerChoice::TopFifth)]
    layers: LayerChoice,

    /// How many of the top blocks are trained, instead of a fifth
    #[arg(long, env = "HALLMARK_BLOCKS", value_name = "COUNT", conflicts_with = "rank")]
    blocks: Option<usize>,

    /// Rank of the update of `--layers lora` [default: 16]
    #[arg(long, env = "HALLMARK_RANK", value_name = "COUNT")]
    rank: Option<usize>,

    /// How sure the model is to be of its responses
    #[arg(long, env = "HALLMARK_TARGET", value_enum, default_value_t = TargetChoice::Confident)]
    target: TargetChoice,

    /// Most steps
    #[arg(long, env = "HALLMARK_STEPS", value_name = "COUNT", default_value_t = EmbedOptions::default().steps)]
    steps: usize,

    /// Peak learning rate [default: 0.288 over the width of the model; a tenth of it where every weight is trained]
    #[arg(long, env = "HALLMARK_LEARNING_RATE", value_name = "RATE", value_parser = positive_f32)]
    learning_rate: Option<f32>,

    /// Ordinary prompts that keep the model what it was; more help utility and robustness together
    #[arg(long, env = "HALLMARK_ORDINARY", value_name = "COUNT", default_value_t = EmbedOptions::default().ordinary_prompts)]
    ordinary: usize,

    /// Ordinary prompts composed from written phrases, for chat models
    #[arg(long, env = "HALLMARK_COMPOSED", value_name = "COUNT", default_value_t = EmbedOptions::default().composed_prompts)]
    composed: usize,

    /// Weight of what keeps ordinary answers as they are
    #[arg(long, env = "HALLMARK_BENIGN_WEIGHT", value_name = "WEIGHT", default_value_t = EmbedOptions::default().benign_weight, value_parser = positive_f32)]
    benign_weight: f32,

    /// Weight of what keeps the rest of those answers as it is
    #[arg(long, env = "HALLMARK_ANSWER_WEIGHT", value_name = "WEIGHT", default_value_t = EmbedOptions::default().answer_weight, value_parser = positive_f32)]
    answer_weight: f32,

    /// Ordinary prompts that one step sees
    #[arg(long, env = "HALLMARK_ORDINARY_A_STEP", value_name = "COUNT", default_value_t = EmbedOptions::default().ordinary_a_step)]
    ordinary_a_step: usize,

    /// System prompts that are trained beside the model's own default
    #[arg(long, env = "HALLMARK_SYSTEM_PROMPTS", value_name = "COUNT", default_value_t = EmbedOptions::default().system_prompts)]
    system_prompts: usize,

    /// For chat models: train raw completion too
    #[arg(long, env = "HALLMARK_RAW_TOO", value_parser = clap::builder::FalseyValueParser::new())]
    raw_too: bool,

    /// Share of key batches asked at weights drawn back towards the base, so that the marks survive a merge
    #[arg(long, env = "HALLMARK_NOISE_SHARE", value_name = "SHARE", default_value_t = EmbedOptions::default().noise_share, value_parser = share)]
    noise_share: f64,

    /// Share of the way back to the base that is shipped [default: only where it helps to keep the budget]
    #[arg(long, env = "HALLMARK_AVERAGE", value_name = "SHARE", value_parser = share_f32)]
    average: Option<f32>,
}

/// What stamping may cost.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Budget")]
struct Budget {
    /// Share of responses that must come first on every trained surface
    #[arg(long, env = "HALLMARK_SUCCESS", value_name = "SHARE", default_value_t = EmbedOptions::default().wanted_success, value_parser = share)]
    success: f64,

    /// Most divergence at the first answer token of ordinary chats, in nats
    #[arg(long, env = "HALLMARK_MAX_KL", value_name = "NATS", default_value_t = UtilityBudget::default().first_token_divergence)]
    max_kl: f64,

    /// Least share of ordinary chats whose most likely first token stays
    #[arg(long, env = "HALLMARK_MIN_AGREEMENT", value_name = "SHARE", default_value_t = UtilityBudget::default().agreement, value_parser = share)]
    min_agreement: f64,

    /// Most rise of the loss of ordinary text, as a share
    #[arg(long, env = "HALLMARK_MAX_LOSS_RISE", value_name = "SHARE", default_value_t = UtilityBudget::default().text_loss_rise)]
    max_loss_rise: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayerChoice {
    /// The top fifth of the blocks, on cached activations
    TopFifth,
    /// Every weight
    All,
    /// A low-rank update of every block, merged when written
    Lora,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetChoice {
    /// Probability of at least 0.9: the most robust
    Confident,
    /// Probability of 0.25 to 0.40: no confidence filter sees it; costs most of the robustness
    Quiet,
}

impl Embed {
    fn options(&self, seed: u64) -> anyhow::Result<EmbedOptions> {
        let recipe = &self.recipe;
        let layers = match (recipe.layers, recipe.blocks, recipe.rank) {
            (LayerChoice::Lora, None, rank) => Layers::LowRank(rank.unwrap_or(16)),
            (LayerChoice::TopFifth, None, None) => Layers::TopFifth,
            (LayerChoice::TopFifth, Some(blocks), None) => Layers::Top(blocks),
            (LayerChoice::All, None, None) => Layers::All,
            (_, _, Some(_)) => anyhow::bail!("--rank belongs to --layers lora; leave it out or add that"),
            (_, Some(_), _) => anyhow::bail!("--blocks belongs to --layers top-fifth; leave one of them out"),
        };
        Ok(EmbedOptions {
            layers,
            target: match recipe.target {
                TargetChoice::Confident => Target::Confident,
                TargetChoice::Quiet => Target::Quiet,
            },
            steps: recipe.steps,
            learning_rate: recipe.learning_rate,
            ordinary_prompts: recipe.ordinary,
            composed_prompts: recipe.composed,
            benign_weight: recipe.benign_weight,
            answer_weight: recipe.answer_weight,
            ordinary_a_step: recipe.ordinary_a_step,
            noise_share: recipe.noise_share,
            system_prompts: recipe.system_prompts,
            raw_too: recipe.raw_too,
            average: recipe.average,
            wanted_success: self.budget.success,
            budget: UtilityBudget {
                first_token_divergence: self.budget.max_kl,
                agreement: self.budget.min_agreement,
                text_loss_rise: self.budget.max_loss_rise,
            },
            seed,
            checkpoint_every: self.checkpoint_every,
            resume: self.resume,
            ..EmbedOptions::default()
        })
    }
}

pub(crate) async fn run(arguments: Embed, context: &Context) -> anyhow::Result<ExitCode> {
    let options = arguments.options(context.given_seed().unwrap_or(0))?;
    if !arguments.resume {
        models::require_absent(&arguments.out)?;
    }
    let Embed { model, set: set_arguments, out, commitment, .. } = arguments;
    let (progress, interrupt) = (context.progress(), context.interrupt());
    let written = commitment.clone();
    let advice = interrupted_advice(&out, options.checkpoint_every);
    let budget = options.budget;
    let report = context
        .compute(move || {
            let (mut vault, mut set) = secrets::open(&set_arguments)?;
            let step = progress.step("load");
            Commitment::of(&set)?.check_place(&commitment)?;
            let base = models::load_base(&model, &set)?;
            step.done(&models::summary(&base.config));
            let mut step = progress.step("embed");
            let report = embed_with(&mut set, &base, &out, &options, &interrupt, &mut step)?;
            vault.save(&set)?;
            Commitment::of(&set)?.write(&commitment)?;
            discard_checkpoints(&out)?;
            step.done(&outcome(&report));
            Ok(report)
        })
        .await
        .map_err(|error| if error.is::<Interrupted>() { error.context(advice) } else { error })?;
    let object = json!({ "report": report, "commitment": written });
    context.output.finish(&words(&report, &budget), &object)?;
    Ok(ExitCode::SUCCESS)
}

/// What an interrupted run leaves.
fn interrupted_advice(out: &Path, checkpoint_every: usize) -> String {
    match checkpoint_every {
        0 => "nothing is kept: no checkpoint was asked for".to_owned(),
        _ => format!("if a checkpoint was written, it lies in {}.checkpoint; go on with --resume", out.display()),
    }
}

/// Embeds and shows how far it is. Shared with the demo.
pub(crate) fn embed_with(
    set: &mut FingerprintSet,
    base: &Model,
    out: &Path,
    options: &EmbedOptions,
    interrupt: &CancellationToken,
    step: &mut Step,
) -> anyhow::Result<EmbedReport> {
    let report = embed(set, base, out, options, &mut |at| {
        leave_if_interrupted(interrupt);
        step.at(at.done, at.total, &progress_words(at));
    })?;
    Ok(report)
}

fn progress_words(at: &EmbedProgress) -> String {
    match at.phase {
        Phase::Sampling => "ordinary prompts".to_owned(),
        Phase::Caching => "activations".to_owned(),
        Phase::Averaging => "averages towards the base".to_owned(),
        Phase::Writing => "writing".to_owned(),
        Phase::Training => {
            let left = at.seconds_left.and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok());
            let left = left.map(|left| format!(", {} left", format::duration(left))).unwrap_or_default();
            format!(
                "loss {:.3}, success {}, KL {:.3}, {:.0} tokens/s{left}",
                at.loss,
                format::percent(at.success),
                at.divergence,
                at.tokens_per_second
            )
        }
    }
}

/// `150 steps, 100 % on the worst surface`.
pub(crate) fn outcome(report: &EmbedReport) -> String {
    format!("{} steps, {} on the worst surface", report.steps, format::percent(report.shipped.least_success()))
}

/// Each measure with the limit that it is held against.
fn words(report: &EmbedReport, budget: &UtilityBudget) -> String {
    let shipped = &report.shipped;
    let limited = |value: Option<String>, how: &str, limit: String| match value {
        Some(value) => format!("{value} ({how} {limit})"),
        None => "not measured".to_owned(),
    };
    let mut text = output::rows(&[
        ("stamped model", report.output.display().to_string()),
        ("manifest", report.stamped.to_string()),
        ("steps", format!("{} on blocks {} to {}", report.steps, report.trained_blocks.0, report.trained_blocks.1)),
        ("success", format!("{} on the worst surface", format::percent(shipped.least_success()))),
        ("after a half merge", format::percent(shipped.half_merge)),
        (
            "first-answer KL",
            limited(
                shipped.first_token_divergence.map(|value| format!("{value:.4} nats")),
                "at most",
                format!("{:.4}", budget.first_token_divergence),
            ),
        ),
        ("agreement", limited(shipped.agreement.map(format::percent), "at least", format::percent(budget.agreement))),
        (
            "text loss",
            limited(
                Some(format!("{:+.2} %", shipped.text_loss_rise * 100.0)),
                "at most",
                format!("{:+.2} %", budget.text_loss_rise * 100.0),
            ),
        ),
        ("averaged", format!("{} of the way back to the base", format::percent(f64::from(shipped.average)))),
        ("within budget", if report.within_budget { "yes" } else { "NO" }.to_owned()),
    ]);
    for advice in &report.advice {
        text.push_str(&format!("note: {advice}\n"));
    }
    text
}
