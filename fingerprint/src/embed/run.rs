//! The training loop.

use std::time::Instant;

use model::train::Trainer;
use rand::{Rng, SeedableRng, seq::index};
use rand_chacha::ChaCha8Rng;

use super::{
    EmbedError, EmbedOptions, EmbedProgress, Phase, StepRecord,
    judge::judge,
    loss::key_gradient,
    material::{Batch, KeyBatch, Material, TaughtBatch},
    resume::Checkpoints,
};

/// Rows of whole answers that one step sees.
const ANSWER_ROWS_A_STEP: usize = 64;
/// Least and most of the way from the base at which a noisy loss is evaluated.
const NOISE: std::ops::Range<f32> = 0.3..1.0;
/// Steps between looks at the weights that would be shipped, once the benign term has its full weight.
const JUDGE_EVERY: usize = 25;

/// What a loop did.
pub(super) struct Outcome {
    pub(super) history: Vec<StepRecord>,
    /// Token rows, forward and back.
    pub(super) tokens: u64,
}

/// Takes steps until the weights to be shipped are good enough or the steps are used up.
pub(super) fn train(
    trainer: &mut Trainer<'_>,
    material: &Material,
    options: &EmbedOptions,
    checkpoint: &mut Checkpoints,
    progress: &mut dyn FnMut(&EmbedProgress),
) -> Result<Outcome, EmbedError> {
    let mut state = checkpoint.restore(trainer, material)?;
    let (start, first) = (Instant::now(), trainer.steps());
    let mut tokens = 0;
    for step in first..options.steps {
        // Before the step and not after it: a run that is resumed here looks again and decides the same.
        let full_weight = step * 3 >= options.steps * 2;
        if full_weight && step % JUDGE_EVERY == 0 {
            let judgement = judge(trainer, material, options.average.unwrap_or(0.0))?;
            if judgement.least_success() >= options.wanted_success
                && judgement.half_merge >= options.wanted_half_merge
                && options.budget.is_met_by(&judgement)
            {
                break;
            }
        }
        let record = take(trainer, material, options, step, &mut state, &mut tokens)?;
        if !record.loss.is_finite() || !record.divergence.is_finite() {
            return Err(EmbedError::NotFinite { step: step + 1, checkpoint: checkpoint.folder().to_owned() });
        }
        state.history.push(record);
        let seconds = start.elapsed().as_secs_f64();
        progress(&EmbedProgress {
            phase: Phase::Training,
            done: step + 1,
            total: options.steps,
            loss: record.loss,
            success: record.success,
            divergence: record.divergence,
            tokens_per_second: tokens as f64 / seconds,
            seconds_left: Some(seconds / (step + 1 - first) as f64 * (options.steps - step - 1) as f64),
        });
        let done = step + 1;
        if options.checkpoint_every > 0 && done % options.checkpoint_every == 0 && done < options.steps {
            checkpoint.write(trainer, &state)?;
        }
    }
    Ok(Outcome { history: state.history, tokens })
}

/// What a loop carries from step to step beside the weights.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct State {
    pub(super) history: Vec<StepRecord>,
    /// Whether each key's response was the arg-max when last asked, by surface.
    pub(super) hits: Vec<Vec<bool>>,
}

/// One step: keys, ordinary prompts, answers, then the optimiser.
fn take(
    trainer: &mut Trainer<'_>,
    material: &Material,
    options: &EmbedOptions,
    step: usize,
    state: &mut State,
    tokens: &mut u64,
) -> Result<StepRecord, EmbedError> {
    // A stream of its own for every step: a resumed run draws what the whole one would have drawn.
    let mut generator = ChaCha8Rng::seed_from_u64(options.seed);
    generator.set_stream(step as u64 + 1);
    let plain = trainer.effective(1.0)?;
    let surfaces = material.keys.len();
    let chunks = material.keys[0].len();
    let mut loss = 0.0;
    for chunk in 0..chunks {
        let surface = (chunk + step) % surfaces;
        let batch = &material.keys[surface][chunk];
        let noisy = generator.random_bool(options.noise_share);
        let alpha = generator.random_range(NOISE);
        let noisy = noisy.then(|| trainer.effective(alpha)).transpose()?;
        let weights = noisy.as_ref().unwrap_or(&plain);
        loss += learn_keys(trainer, weights, batch, material, options, &mut state.hits[surface])?;
        *tokens += batch.batch.pack.len() as u64;
    }
    let mut divergence = None;
    if !material.ordinary.is_empty() && options.ordinary_a_step > 0 {
        let per_step =
            options.ordinary_a_step.div_ceil(material.ordinary[0].batch.rows.len()).min(material.ordinary.len());
        let weight = options.benign_weight_at(step) / per_step as f32;
        let mut total = 0.0;
        for index in 0..per_step {
            let batch = &material.ordinary[(step * per_step + index) % material.ordinary.len()];
            let rows: Vec<usize> = (0..batch.teachers.len()).collect();
            total += stay(trainer, &plain, batch, &rows, weight)?;
            *tokens += batch.batch.pack.len() as u64;
        }
        divergence = Some(total / per_step as f64);
    }
    if options.answer_weight > 0.0 && !material.answers.is_empty() {
        let batch = &material.answers[step % material.answers.len()];
        let count = ANSWER_ROWS_A_STEP.min(batch.teachers.len());
        let mut rows = index::sample(&mut generator, batch.teachers.len(), count).into_vec();
        rows.sort_unstable();
        stay(trainer, &plain, batch, &rows, options.answer_weight)?;
        *tokens += batch.batch.pack.len() as u64;
    }
    // The optimiser changes the masters in place, which the plain weights share.
    drop(plain);
    trainer.step(options.learning_rate_at(step, material.width))?;
    let before = state.history.last().map(|record| record.divergence);
    let divergence = match (before, divergence) {
        (Some(before), Some(now)) => 0.8 * before + 0.2 * now,
        (before, now) => now.or(before).unwrap_or(0.0),
    };
    let asked = state.hits.iter().flatten();
    let success = asked.clone().filter(|hit| **hit).count() as f64 / asked.count() as f64;
    Ok(StepRecord { step: step + 1, loss, success, divergence })
}

/// Adds the gradient of a batch's part in the mean loss over all keys; returns that part.
fn learn_keys(
    trainer: &mut Trainer<'_>,
    weights: &model::train::Effective,
    batch: &KeyBatch,
    material: &Material,
    options: &EmbedOptions,
    hits: &mut [bool],
) -> Result<f64, EmbedError> {
    let scale = 1.0 / material.responses.len() as f32;
    let outcomes = std::sync::Mutex::new(Vec::with_capacity(batch.keys.len()));
    let Batch { pack, hidden, rows } = &batch.batch;
    let loss = trainer.accumulate(weights, hidden, pack, rows, &|row, logits| {
        let key = batch.keys[row];
        let outcome = key_gradient(options.target, material.responses[key], logits, scale);
        outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((key, outcome.hit));
        outcome.loss
    })?;
    for (key, hit) in outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        hits[key] = hit;
    }
    Ok(loss * f64::from(scale))
}

/// Adds the gradient of `weight` times the mean divergence from the base at some of a batch's rows; returns the mean.
fn stay(
    trainer: &mut Trainer<'_>,
    weights: &model::train::Effective,
    batch: &TaughtBatch,
    which: &[usize],
    weight: f32,
) -> Result<f64, EmbedError> {
    let rows: Vec<usize> = which.iter().map(|index| batch.batch.rows[*index]).collect();
    let scale = weight / rows.len() as f32;
    let total = trainer.accumulate(weights, &batch.batch.hidden, &batch.batch.pack, &rows, &|row, logits| {
        batch.teachers[which[row]].divergence_gradient(logits, scale)
    })?;
    Ok(total / rows.len() as f64)
}
