//! `hallmark fingerprint embed`

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use fingerprint::set::FingerprintSet;
use model::Model;
use tokio_util::sync::CancellationToken;

use crate::{
    arguments::{SetArguments, positive, share},
    commands::demo::Demo,
    context::Context,
    demo::{record::EmbeddingRecord, utility::Budget},
    progress::Step,
};

/// Stamp the drawn set into the model's weights
///
/// Writes a model of the same layout, names and types as the base. Stops when at least 99 % of the responses come
/// first on every trained surface and ordinary use stays within the budget.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark fingerprint embed --set my-model.set --model ./my-model --out ./my-model-stamped
  hallmark fingerprint embed --set my-model.set --model ./my-model --out ./stamped --layers lora --rank 16
  hallmark fingerprint embed --set my-model.set --model ./my-model --out ./stamped --checkpoints ./work --resume

Next: hallmark fingerprint check")]
pub(crate) struct Embed {
    /// The base model that the set was generated for
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: String,

    #[command(flatten)]
    set: SetArguments,

    /// Folder for the stamped model; must not exist or be empty
    #[arg(long, env = "HALLMARK_OUT", value_name = "DIR")]
    out: PathBuf,

    /// Where the public commitment is written again, with the digest of the stamped model
    #[arg(long, env = "HALLMARK_COMMITMENT", value_name = "FILE", default_value = "commitment.json")]
    commitment: PathBuf,

    #[command(flatten)]
    recipe: Recipe,

    /// Folder for checkpoints. As secret as the set: it holds activations of the keys
    #[arg(long, env = "HALLMARK_CHECKPOINTS", value_name = "DIR", help_heading = "Checkpoints")]
    checkpoints: Option<PathBuf>,

    /// Steps between two checkpoints
    #[arg(
        long,
        env = "HALLMARK_CHECKPOINT_EVERY",
        value_name = "STEPS",
        default_value_t = 25,
        help_heading = "Checkpoints"
    )]
    checkpoint_every: usize,

    /// Go on from the last checkpoint; on a CPU the result is the same as without the interruption
    #[arg(long, requires = "checkpoints", help_heading = "Checkpoints")]
    resume: bool,
}

/// How the model is trained.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Recipe")]
struct Recipe {
    /// What is trained
    #[arg(long, env = "HALLMARK_LAYERS", value_enum, default_value_t = LayerChoice::TopFifth)]
    layers: LayerChoice,

    /// Rank of the low-rank update of `--layers lora`
    #[arg(long, env = "HALLMARK_RANK", value_name = "COUNT", default_value_t = 16)]
    rank: usize,

    /// How sure the model is to be of its responses
    #[arg(long, env = "HALLMARK_TARGET", value_enum, default_value_t = TargetChoice::Confident)]
    target: TargetChoice,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LayerChoice {
    /// The top fifth of the blocks, on cached activations
    TopFifth,
    /// Every block
    All,
    /// A low-rank update, merged when written
    Lora,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetChoice {
    /// Probability of at least 0.9: the most robust
    Confident,
    /// Probability of 0.25 to 0.40: no confidence filter sees it; costs most of the robustness
    Quiet,
}

pub(crate) async fn run(arguments: Embed, context: &Context) -> anyhow::Result<ExitCode> {
    anyhow::bail!("not wired {arguments:?} {context:?}")
}

pub(crate) fn demo(
    set: &mut FingerprintSet,
    base: &Model,
    out: &std::path::Path,
    plan: &Demo,
    seed: u64,
    interrupt: &CancellationToken,
    step: &mut Step,
) -> anyhow::Result<(EmbeddingRecord, String)> {
    anyhow::bail!("not wired")
}
pub(crate) fn demo_budget(plan: &Demo) -> anyhow::Result<Budget> {
    anyhow::bail!("not wired")
}
