//! Trains the drawn responses into a copy of the base model.
//!
//! The recipe (arXiv 2502.07760 for the idea, our own measurements for the rest): only the top fifth of the
//! blocks is trained, on cached activations, because keys never change; every surface takes its turn; a divergence from
//! the base at the first answer token of ordinary prompts is paid for, because that is where a stamp does its damage;
//! and most keys are asked at weights drawn back towards the base, so that the marks survive a merge.
//! Success is counted on what is shipped: weights averaged, then rounded to the type of the files.

mod judge;
mod loss;
mod material;
mod options;
mod resume;
mod run;

use std::path::{Path, PathBuf};

use model::{Checkpoint, Model, train::Trainer};
use serde::Serialize;

pub use options::{EmbedOptions, Layers, Target, UtilityBudget};

use crate::{
    ordinary::OrdinaryError,
    set::{Embedding, FingerprintSet, SetError},
    surface::{Surface, SurfaceError, trained_surfaces},
};

/// Why a set could not be embedded. Nothing half-written is left in the output folder when
/// this is returned.
#[derive(Debug, thiserror::Error)]
pub enum EmbedError {
    /// The set is not drawn, or belongs to another base.
    #[error(transparent)]
    Set(#[from] SetError),
    /// A key could not be put into a prompt.
    #[error(transparent)]
    Surface(#[from] SurfaceError),
    /// Ordinary prompts could not be sampled.
    #[error(transparent)]
    Ordinary(#[from] OrdinaryError),
    /// The decoder failed.
    #[error("failed to train the model")]
    Decoder(#[from] model::decoder::DecoderError),
    /// A tensor could not be read or made.
    #[error("failed to handle the model's tensors")]
    Tensor(#[from] candle_core::Error),
    /// The base model could not be read, or the stamped one not written.
    #[error(transparent)]
    Checkpoint(#[from] model::checkpoint::CheckpointError),
    /// The stamped model could not be hashed.
    #[error(transparent)]
    Manifest(#[from] model::manifest::ManifestError),
    /// An option is out of range.
    #[error("{option} must be {wanted}, not {found}")]
    Option { option: &'static str, wanted: &'static str, found: String },
    /// The loss left the numbers.
    #[error(
        "the loss is no longer finite at step {step}: start again with a lower learning rate (remove {} if it is there)",
        checkpoint.display()
    )]
    NotFinite { step: usize, checkpoint: PathBuf },
    /// The output folder is taken.
    #[error("{} already exists; choose another output folder or remove it", folder.display())]
    Occupied { folder: PathBuf },
    /// There is an unfinished run.
    #[error(
        "{} holds an unfinished run; continue it with --resume, or remove it to start afresh", folder.display()
    )]
    Unfinished { folder: PathBuf },
    /// There is no unfinished run.
    #[error("there is no unfinished run in {} to resume; start one without --resume", folder.display())]
    NothingToResume { folder: PathBuf },
    /// The unfinished run is of something else.
    #[error("the unfinished run in {} is of another {what}; give the same as before, or remove it", folder.display())]
    OtherRun { folder: PathBuf, what: &'static str },
    /// A checkpoint could not be written or read.
    #[error("failed to use the checkpoint {}", file.display())]
    Checkpointing {
        file: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Ordinary prompts and answers are sampled from the base.
    Sampling,
    /// Activations below the trained blocks are computed, once.
    Caching,
    /// Steps are taken.
    Training,
    /// Averages towards the base are tried.
    Averaging,
    /// The stamped model is written.
    Writing,
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct EmbedProgress {
    pub phase: Phase,
    /// Units of this phase done, of [`Self::total`].
    pub done: usize,
    pub total: usize,
    /// Mean loss of the last step at the keys, in nats.
    pub loss: f64,
    /// Share of responses that were the arg-max when last seen in training.
    pub success: f64,
    /// Divergence from the base at the first answer token of ordinary prompts in training, running mean, in nats.
    pub divergence: f64,
    /// Token rows trained per second.
    pub tokens_per_second: f64,
    /// Seconds to the end of the phase, if it goes on like this.
    pub seconds_left: Option<f64>,
}

/// One step of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, serde::Deserialize)]
pub struct StepRecord {
    pub step: usize,
    pub loss: f64,
    pub success: f64,
    pub divergence: f64,
}

/// What the weights that would be shipped at some point are worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    /// Steps taken.
    pub step: usize,
    /// Share of the way back to the base.
    pub average: f32,
    /// Success on every trained surface.
    pub surfaces: Vec<SurfaceScore>,
    /// Least success over the trained surfaces after a half merge with the base.
    pub half_merge: f64,
    /// Mean divergence at the first answer token of held-out ordinary prompts, in nats; `None` without such prompts.
    pub first_token_divergence: Option<f64>,
    /// Share of them whose most probable first token stays the base's.
    pub agreement: Option<f64>,
    /// Rise of the loss of text that the base sampled, as a share.
    pub text_loss_rise: f64,
}

/// Success on one surface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SurfaceScore {
    pub surface: String,
    pub success: f64,
}

impl Judgement {
    /// Success on the worst surface.
    pub fn least_success(&self) -> f64 {
        self.surfaces.iter().map(|score| score.success).fold(1.0, f64::min)
    }
}

/// What was done, and what it is worth.
#[derive(Debug, Clone, Serialize)]
pub struct EmbedReport {
    /// Steps taken, and seconds spent in this process on all phases.
    pub steps: usize,
    pub seconds: f64,
    /// First and last trained block, counted from 0.
    pub trained_blocks: (usize, usize),
    /// Token rows that went forward and back.
    pub trained_tokens: u64,
    /// Ordinary prompts that the benign term draws from.
    pub ordinary_prompts: usize,
    /// Every step.
    pub history: Vec<StepRecord>,
    /// The shipped weights.
    pub shipped: Judgement,
    /// Whether [`EmbedOptions::budget`] and the wanted success were met.
    pub within_budget: bool,
    /// What could be done better, in sentences.
    pub advice: Vec<String>,
    /// Digest of the stamped model's manifest.
    pub stamped: protocol::ids::ManifestDigest,
    /// Folder of the stamped model.
    pub output: PathBuf,
}

/// Trains the responses of a drawn `set` into `base` and writes the stamped model to `output`, in the base's layout.
///
/// Deterministic in the seed on CPU, whatever the number of threads, and resumed or not. Checkpoints stay until
/// [`discard_checkpoints`]: until the set that records the stamped model is saved, the run is not over.
pub fn embed(
    set: &mut FingerprintSet,
    base: &Model,
    output: &Path,
    options: &EmbedOptions,
    progress: &mut dyn FnMut(&EmbedProgress),
) -> Result<EmbedReport, EmbedError> {
    let start = std::time::Instant::now();
    options.validate()?;
    set.require_base(&base.manifest_digest, &base.tokenizer.digest())?;
    let responses = material::responses(set)?;
    if output.exists() && !options.resume {
        return Err(EmbedError::Occupied { folder: output.to_owned() });
    }
    let surfaces = surfaces_of(base, options)?;
    let mut checkpoint = resume::Checkpoints::open(output, set, options)?;
    let mut trainer = Trainer::new(&base.decoder, options.scope(&base.config), options.adamw())?;
    let material =
        material::Material::gather(base, set, &trainer, &surfaces, responses, options, &mut checkpoint, progress)?;
    let outcome = run::train(&mut trainer, &material, options, &mut checkpoint, progress)?;
    let shipped = judge::average(&trainer, &material, options, progress)?;
    report(progress, Phase::Writing, 0, 1);
    let files = Checkpoint::open(&base.directory)?;
    let tensors = trainer.tensors(shipped.average)?;
    let stamped = if output.exists() {
        finished_before(output, &files, &tensors, &checkpoint)?
    } else {
        files.save(output, &tensors)?;
        model::Manifest::of(output)?.digest()
    };
    set.record_embedding(Embedding { stamped, surfaces })?;
    let within_budget = options.budget.is_met_by(&shipped) && shipped.least_success() >= options.wanted_success;
    Ok(EmbedReport {
        steps: trainer.steps(),
        seconds: start.elapsed().as_secs_f64(),
        trained_blocks: (options.scope(&base.config).first_block, base.config.layers - 1),
        trained_tokens: outcome.tokens,
        ordinary_prompts: material.ordinary_prompts,
        history: outcome.history,
        advice: options.advice(&shipped, judge::lies_on_grid(base)?),
        shipped,
        within_budget,
        stamped,
        output: output.to_owned(),
    })
}

/// Removes the checkpoints of a finished run with this `output`, once the set is saved.
pub fn discard_checkpoints(output: &Path) -> Result<(), EmbedError> {
    remove_folder(&resume::folder_of(output))
}

/// Removes a folder that need not exist.
fn remove_folder(folder: &Path) -> Result<(), EmbedError> {
    match std::fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(EmbedError::Checkpointing { file: folder.to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Digest of an output that this run wrote before it was stopped, known by its bytes; any other folder is refused.
fn finished_before(
    output: &Path,
    files: &Checkpoint,
    tensors: &std::collections::BTreeMap<String, candle_core::Tensor>,
    checkpoint: &resume::Checkpoints,
) -> Result<protocol::ids::ManifestDigest, EmbedError> {
    let again = checkpoint.again();
    // A run that was killed here before left it.
    remove_folder(&again)?;
    files.save(&again, tensors)?;
    let wanted = model::Manifest::of(&again)?.digest();
    remove_folder(&again)?;
    match model::Manifest::of(output) {
        Ok(found) if found.digest() == wanted => Ok(wanted),
        _ => Err(EmbedError::Occupied { folder: output.to_owned() }),
    }
}

/// The surfaces to train: those of the options, or the model's usual ones.
fn surfaces_of(base: &Model, options: &EmbedOptions) -> Result<Vec<Surface>, EmbedError> {
    if !options.surfaces.is_empty() {
        return Ok(options.surfaces.clone());
    }
    let mut surfaces = trained_surfaces(&base.tokenizer, base.chat.as_ref(), options.system_prompts)?;
    if options.raw_too && base.chat.is_some() {
        surfaces.push(Surface::raw());
    }
    Ok(surfaces)
}

/// Progress of a phase that takes no steps.
fn report(progress: &mut dyn FnMut(&EmbedProgress), phase: Phase, done: usize, total: usize) {
    progress(&EmbedProgress {
        phase,
        done,
        total,
        loss: 0.0,
        success: 0.0,
        divergence: 0.0,
        tokens_per_second: 0.0,
        seconds_left: None,
    });
}
