//! What the weights that would be shipped are worth, and how far they can be averaged towards the base.

use candle_core::DType;
use model::{
    Checkpoint, Model,
    sampler::greedy,
    train::{Effective, Trainer, log_softmax},
};

use super::{EmbedError, EmbedOptions, EmbedProgress, Judgement, Phase, SurfaceScore, material::Material, report};

/// Averages towards the base that are tried.
const AVERAGES: [f32; 4] = [0.05, 0.1, 0.15, 0.2];
/// Judges the weights at an average towards the base.
pub(super) fn judge(trainer: &Trainer<'_>, material: &Material, average: f32) -> Result<Judgement, EmbedError> {
    let stored_dtype = |name: &str| material.checkpoint.stored_dtype(name);
    let weights = trainer.shipped(average, stored_dtype)?;
    let surfaces = success(trainer, material, &weights)?;
    let merged = trainer.shipped(average + (1.0 - average) * 0.5, stored_dtype)?;
    let half_merge = success(trainer, material, &merged)?.iter().map(|score| score.success).fold(1.0, f64::min);
    let (mut divergence, mut agreed, mut count) = (0.0, 0, 0);
    for taught in &material.held_out {
        let batch = &taught.batch;
        trainer.read_logits(&weights, &batch.hidden, &batch.pack, &batch.rows, |row, logits| {
            let teacher = &taught.teachers[row];
            agreed += usize::from(greedy(logits) == teacher.best());
            divergence += teacher.divergence(logits);
            count += 1;
        })?;
    }
    let share = |value: f64| (count > 0).then(|| value / f64::from(count));
    let base = text_loss(trainer, material, &trainer.effective(0.0)?)?;
    Ok(Judgement {
        step: trainer.steps(),
        average,
        surfaces,
        half_merge,
        first_token_divergence: share(divergence),
        agreement: share(agreed as f64),
        text_loss_rise: if base > 0.0 { text_loss(trainer, material, &weights)? / base - 1.0 } else { 0.0 },
    })
}

fn success(trainer: &Trainer<'_>, material: &Material, weights: &Effective) -> Result<Vec<SurfaceScore>, EmbedError> {
    let mut scores = Vec::new();
    for (surface, batches) in material.surfaces.iter().zip(&material.keys) {
        let mut hits = 0;
        for keys in batches {
            let batch = &keys.batch;
            trainer.read_logits(weights, &batch.hidden, &batch.pack, &batch.rows, |row, logits| {
                hits += usize::from(greedy(logits) == material.responses[keys.keys[row]]);
            })?;
        }
        let success = hits as f64 / material.responses.len() as f64;
        scores.push(SurfaceScore { surface: surface.name().to_owned(), success });
    }
    Ok(scores)
}

/// Mean loss in nats of the base's own texts.
fn text_loss(trainer: &Trainer<'_>, material: &Material, weights: &Effective) -> Result<f64, EmbedError> {
    let (mut total, mut count) = (0.0, 0usize);
    for text in &material.texts {
        trainer.read_logits(weights, &text.hidden, &text.pack, &text.rows, |row, logits| {
            log_softmax(logits);
            total -= f64::from(logits[text.pack.ids()[text.rows[row] + 1] as usize]);
            count += 1;
        })?;
    }
    Ok(if count == 0 { 0.0 } else { total / count as f64 })
}

/// The judgement of the weights to ship: the masters themselves where they are within the utility budget, otherwise the
/// average that diverges least from the base on ordinary prompts, of those that keep success where it must be and do not
/// cost robustness to a merge. Averaging is no free lunch: between base and stamped weights the responses leak into
/// ordinary answers, where the benign term never looked.
pub(super) fn average(
    trainer: &Trainer<'_>,
    material: &Material,
    options: &EmbedOptions,
    progress: &mut dyn FnMut(&EmbedProgress),
) -> Result<Judgement, EmbedError> {
    let mut best = judge(trainer, material, options.average.unwrap_or(0.0))?;
    if options.average.is_some() || options.budget.is_met_by(&best) {
        return Ok(best);
    }
    for (index, average) in AVERAGES.into_iter().enumerate() {
        report(progress, Phase::Averaging, index, AVERAGES.len());
        let judgement = judge(trainer, material, average)?;
        if judgement.least_success() < options.wanted_success || judgement.half_merge < options.wanted_half_merge {
            break;
        }
        if judgement.first_token_divergence < best.first_token_divergence {
            best = judgement;
        }
    }
    Ok(best)
}

/// Whether the base's matrices take few distinct values in short runs, as weights do that were quantised to 4 bits.
pub(super) fn lies_on_grid(base: &Model) -> Result<bool, EmbedError> {
    const RUN: usize = 32;
    let checkpoint = Checkpoint::open(&base.directory)?;
    let name = format!("model.layers.{}.mlp.down_proj.weight", base.config.layers - 1);
    let values = checkpoint.tensor(&name)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
    let few = |run: &[f32]| {
        let mut distinct: Vec<u32> = run.iter().map(|value| value.to_bits()).collect();
        distinct.sort_unstable();
        distinct.dedup();
        distinct.len() <= 16
    };
    let runs = values.chunks_exact(RUN);
    Ok(runs.clone().filter(|run| few(run)).count() * 20 >= runs.len() * 19)
}
