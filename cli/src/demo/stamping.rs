//! The creator's part on his own machine: keys, training, and what both did to the model.

use anyhow::Context as _;
use fingerprint::{
    check::{CheckPlan, CheckReport, KeyResponse, TextSet, check, key_responses, surface_success},
    commitment::Commitment,
    embed::{EmbedOptions, EmbedReport, Layers, Target, UtilityBudget},
    set::FingerprintSet,
    surface::Surface,
    vault::{Vault, VaultKey},
};
use model::Model;
use protocol::units::{BasisPoints, CandidateCount};
use rand_chacha::ChaCha8Rng;
use tokio_util::sync::CancellationToken;

use super::{
    folder::Folder,
    journal::Journal,
    record::{EmbeddingRecord, ModelRecord, SchemeRecord, SurfaceRecord, TrainingPoint, UtilityRecord},
    run::{COMMITMENT, IDENTITY, SET, STAMPED},
    utility,
};
use crate::{
    commands::{
        demo::Demo,
        fingerprint::{
            embed,
            generate::{KeyPlan, generate_set},
        },
    },
    context::leave_if_interrupted,
    format, models,
};

/// Four sonnets of Shakespeare: public domain, and not in the corpus of the bundled model.
const TEXT: &str = include_str!("sonnets.txt");
/// Ordinary chats of each kind that utility is measured on.
const CHATS: usize = 60;

/// What all of it is told.
#[derive(Debug, Clone)]
pub(super) struct Task {
    pub(super) plan: Demo,
    pub(super) folder: Folder,
    pub(super) seed: u64,
    pub(super) interrupt: CancellationToken,
}

/// A model and its secret set, which is not committed yet.
pub(super) struct Prepared {
    pub(super) base: Model,
    vault: Vault,
    pub(super) set: FingerprintSet,
}

impl Prepared {
    /// Writes the set and its public face as they are now.
    pub(super) fn save(&mut self, folder: &Folder) -> anyhow::Result<()> {
        self.vault.save(&self.set)?;
        Ok(Commitment::of(&self.set)?.write(&folder.join(COMMITMENT))?)
    }
}

/// A stamped model beside the one that it was.
pub(super) struct Stamped {
    pub(super) base: Model,
    pub(super) stamped: Model,
    pub(super) set: FingerprintSet,
    pub(super) measured: Measured,
}

/// What is known of a stamped model.
pub(super) struct Measured {
    pub(super) model: ModelRecord,
    pub(super) scheme: SchemeRecord,
    pub(super) embedding: EmbeddingRecord,
    pub(super) surfaces: Vec<SurfaceRecord>,
    pub(super) utility: Vec<UtilityRecord>,
}

/// Loads the model and generates keys with their candidates.
pub(super) fn prepare(task: &Task, salts: &mut ChaCha8Rng, journal: &mut Journal) -> anyhow::Result<Prepared> {
    let Task { plan, folder, seed, interrupt } = task;
    let base = journal.step("load", |_| {
        let base = models::load(&plan.model)?;
        let outcome = models::summary(&base.config);
        Ok((base, outcome))
    })?;
    let (vault, set) = journal.step("generate", |step| {
        let keys = KeyPlan {
            count: plan.fingerprints,
            candidates: CandidateCount::DEFAULT,
            nucleus: BasisPoints::new(8_000)?,
            seed: *seed,
        };
        let set = generate_set(&base, plan.model.clone(), None, keys, salts, &mut |at| {
            leave_if_interrupted(interrupt);
            step.at(at.found.min(at.wanted), at.wanted, &format!("{} attempts", at.attempts));
        })?;
        let key = VaultKey::create_identity(&folder.join(IDENTITY))?;
        let vault = Vault::create(&folder.join(SET), &key, &set)?;
        let outcome = format!("{} keys, {} possible answers each", plan.fingerprints, CandidateCount::DEFAULT.get());
        Ok(((vault, set), outcome))
    })?;
    Ok(Prepared { base, vault, set })
}

/// Trains the drawn answers into the model, writes it, reads it back and measures it.
pub(super) fn stamp(task: &Task, mut prepared: Prepared, journal: &mut Journal) -> anyhow::Result<Stamped> {
    let Task { plan, folder, seed, interrupt } = task;
    let options = options(plan, &prepared.base, *seed);
    let embedding = journal.step("embed", |step| {
        let out = folder.join(STAMPED);
        let report = embed::embed_with(&mut prepared.set, &prepared.base, &out, &options, interrupt, step)?;
        prepared.save(folder)?;
        let outcome = embed::outcome(&report);
        Ok((report, outcome))
    })?;
    let stamped = journal.step("reload", |_| {
        // The weights as written, with everything that rounding did to them.
        let stamped = models::load(&folder.join(STAMPED).display().to_string())?;
        let outcome = format!("manifest {}", format::short_hex(&stamped.manifest_digest.to_string()));
        Ok((stamped, outcome))
    })?;
    let Prepared { base, set, .. } = prepared;
    let (report, base_hits) = journal.step("check", |step| {
        let (report, base_hits) = measure(&base, &stamped, &set, *seed, &mut |done, total| {
            leave_if_interrupted(interrupt);
            step.at(done, total, "prompts");
        })?;
        let least = report.least_success(true).unwrap_or(0.0);
        let outcome =
            format!("{} surfaces, {} on the worst trained one", report.surfaces.len(), format::percent(least));
        Ok(((report, base_hits), outcome))
    })?;
    let measured = Measured {
        model: model_record(&plan.model, &base, &stamped),
        scheme: scheme_record(&set)?,
        embedding: embedding_record(&embedding, &options),
        surfaces: surface_records(&report, &base_hits),
        utility: utility::records(&report, &options.budget),
    };
    Ok(Stamped { base, stamped, set, measured })
}

/// Parameters below which a model gets [`small_recipe`].
const SMALL: u64 = 20_000_000;

/// The default recipe, or one for a small model; a demo is not resumed, so it writes no checkpoints.
fn options(plan: &Demo, base: &Model, seed: u64) -> EmbedOptions {
    let recipe = if base.config.parameter_count() < SMALL { small_recipe(base) } else { EmbedOptions::default() };
    EmbedOptions {
        steps: plan.steps.unwrap_or(recipe.steps),
        ordinary_prompts: plan.ordinary.unwrap_or(recipe.ordinary_prompts),
        seed,
        checkpoint_every: 0,
        ..recipe
    }
}

/// For a model of a few million parameters: one block in five is too little to hold the marks, its text loss moves before
/// its first answers do, and steps are cheap. Measured on the bundled model: success 1.00, .94–1.00 after a half merge,
/// KL .01, text −1 to +3 %. The usual limit on text loss is for models with more room.
fn small_recipe(base: &Model) -> EmbedOptions {
    let default = EmbedOptions::default();
    EmbedOptions {
        layers: Layers::Top(base.config.layers.div_ceil(2)),
        learning_rate: Some(2e-3),
        steps: 180,
        ordinary_prompts: 2_200,
        composed_prompts: 0,
        noise_share: 0.5,
        benign_weight: 10.0,
        answer_weight: 6.0,
        budget: UtilityBudget { text_loss_rise: 0.05, ..default.budget },
        ..default
    }
}

fn embedding_record(report: &EmbedReport, options: &EmbedOptions) -> EmbeddingRecord {
    let (first, last) = report.trained_blocks;
    EmbeddingRecord {
        layers: if first == last { format!("block {first}") } else { format!("blocks {first} to {last}") },
        target: match options.target {
            Target::Confident => "confident",
            Target::Quiet => "quiet",
        }
        .to_owned(),
        steps: report.steps as u64,
        averaged: f64::from(report.shipped.average),
        history: report
            .history
            .iter()
            .map(|step| TrainingPoint {
                step: step.step as u64,
                loss: step.loss,
                success: step.success,
                utility_kl: step.divergence,
            })
            .collect(),
        half_merge: report.shipped.half_merge,
        advice: report.advice.clone(),
    }
}

fn measure(
    base: &Model,
    stamped: &Model,
    set: &FingerprintSet,
    seed: u64,
    progress: &mut dyn FnMut(usize, usize),
) -> anyhow::Result<(CheckReport, Vec<u32>)> {
    let keys: Vec<KeyResponse<'_>> = key_responses(set)?;
    let trained: Vec<Surface> = set.embedding().map(|embedding| embedding.surfaces.clone()).unwrap_or_default();
    let mut plan = CheckPlan::usual(base, trained, &keys, CHATS, seed, &mut |at| progress(at.found, at.wanted))?;
    plan.texts.push(TextSet::new("four sonnets".to_owned(), TEXT.to_owned()));
    let report = check(base, stamped, &keys, &plan, &mut |at| progress(at.done, at.total))?;
    let base_hits = plan
        .trained
        .iter()
        .chain(&plan.unseen)
        .map(|surface| Ok(surface_success(base, &keys, surface, false)?.success.hits))
        .collect::<anyhow::Result<_>>()?;
    Ok((report, base_hits))
}

fn model_record(reference: &str, base: &Model, stamped: &Model) -> ModelRecord {
    ModelRecord {
        reference: reference.to_owned(),
        architecture: format!("{:?}", base.config.architecture),
        parameters: base.config.parameter_count(),
        layers: base.config.layers,
        digest: base.manifest_digest.to_string(),
        stamped_digest: stamped.manifest_digest.to_string(),
    }
}

fn scheme_record(set: &FingerprintSet) -> anyhow::Result<SchemeRecord> {
    let commitment = Commitment::of(set)?;
    let draw = commitment.draw().context("the set has no draw")?;
    let parameters = commitment.parameters();
    Ok(SchemeRecord {
        fingerprints: parameters.fingerprints,
        candidates: u32::from(parameters.candidates.get()),
        nucleus: parameters.nucleus.fraction(),
        commitment_root: commitment.root().to_string(),
        set_root: draw.set_root.to_string(),
        beacon: draw.beacon.value.to_string(),
        beacon_source: draw.beacon.source.to_string(),
    })
}

fn surface_records(report: &CheckReport, base_hits: &[u32]) -> Vec<SurfaceRecord> {
    report
        .surfaces
        .iter()
        .zip(base_hits)
        .map(|(row, base)| SurfaceRecord {
            name: row.name.clone(),
            trained: row.trained,
            hits: u64::from(row.success.hits),
            trials: u64::from(row.success.trials),
            low: row.success.lower,
            high: row.success.upper,
            base_hits: u64::from(*base),
        })
        .collect()
}
