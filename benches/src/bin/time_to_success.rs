//! Seconds from keys to 99 % success with the published objective, by training the top blocks on cached activations.
//!
//! Keys and responses are those that `torch_perinucleus.py --out DIR` chose and trained (`DIR/fingerprints.json`), so that
//! both sides learn the same: cross-entropy of the response token after each key, AdamW, no term for ordinary prompts,
//! until the response is the arg-max after at least 99 % of the keys. What differs is what this program saves: only the
//! top fifth of the blocks is trained, and the activations below are computed once. That computation is in the time;
//! loading the model is in neither side's. The number of threads is rayon's: set `RAYON_NUM_THREADS`.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::{Context as _, ensure};
use benches::{CrossEntropy, peak_rss_mib};
use candle_core::{DType, Tensor};
use clap::Parser;
use model::{
    Model,
    decoder::Pack,
    train::{AdamW, Effective, Scope, Trainer, top_fifth},
};
use serde::Deserialize;
use serde_json::json;

/// As the `hallmark` binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Sequences that share one forward pass, as in `hallmark fingerprint embed`.
const SEQUENCES_A_BATCH: usize = 16;
const WANTED: f64 = 0.99;
/// Steps over which the learning rate rises.
const WARM_UP: f32 = 3.0;

/// Times the way to 99 % success.
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder in Hugging Face layout, org/name, or `bundled`.
    model: String,
    /// What `torch_perinucleus.py --out` wrote.
    #[arg(long)]
    keys: PathBuf,
    /// Top blocks that are trained [default: a fifth of all].
    #[arg(long)]
    blocks: Option<usize>,
    /// Peak learning rate.
    #[arg(long, default_value_t = 5e-4)]
    learning_rate: f32,
    /// Most steps.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
}

#[derive(Deserialize)]
struct Keys {
    keys: Vec<Vec<u32>>,
    responses: Vec<u32>,
}

struct Batch {
    pack: Pack,
    hidden: Tensor,
    rows: Vec<usize>,
    responses: Vec<usize>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let text =
        fs::read_to_string(&arguments.keys).with_context(|| format!("failed to read {}", arguments.keys.display()))?;
    let Keys { keys, responses } = serde_json::from_str(&text)
        .with_context(|| format!("{} is not what torch_perinucleus.py writes", arguments.keys.display()))?;
    ensure!(!keys.is_empty() && keys.len() == responses.len(), "there must be one response for each of some keys");
    let model = Model::load(&arguments.model).with_context(|| format!("failed to load {}", arguments.model))?;
    let layers = model.config.layers;
    let first_block = arguments.blocks.map_or(top_fifth(layers).start, |blocks| layers.saturating_sub(blocks));

    let start = Instant::now();
    let scope = Scope { first_block, embeddings: false, low_rank: None };
    let mut trainer = Trainer::new(&model.decoder, scope, AdamW::default())?;
    let batches = batches(&trainer, &keys, &responses)?;
    let cached_s = start.elapsed().as_secs_f64();
    let mut reached_s = None;
    let mut hits = 0;
    while reached_s.is_none() && trainer.steps() < usize::try_from(arguments.steps)? {
        let rise = ((trainer.steps() + 1) as f32 / WARM_UP).min(1.0);
        hits = step(&mut trainer, &batches, keys.len(), arguments.learning_rate * rise)?;
        let success = hits as f64 / keys.len() as f64;
        writeln!(io::stderr(), "step {}: {hits} of {}, {:.2?}", trainer.steps(), keys.len(), start.elapsed())?;
        if success >= WANTED {
            reached_s = Some(start.elapsed().as_secs_f64());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    // Before the look at bf16 weights, as the PyTorch script counts its peak to the end of training.
    let peak = peak_rss_mib()?;
    let shipped = trainer.shipped(0.0, |_| Ok(DType::BF16))?;
    let report = json!({
        "model": arguments.model,
        "fingerprints": keys.len(),
        "blocks": layers - first_block,
        "learning_rate": arguments.learning_rate,
        "steps": trainer.steps(),
        "cached_s": cached_s,
        "seconds_to_99": reached_s,
        "seconds": seconds,
        "last_success": hits as f64 / keys.len() as f64,
        "success_in_bf16": success(&trainer, &shipped, &batches)? as f64 / keys.len() as f64,
        "peak_rss_mib": peak,
    });
    writeln!(io::stdout(), "{report}").context("failed to write to standard output")
}

fn batches(trainer: &Trainer<'_>, keys: &[Vec<u32>], responses: &[u32]) -> anyhow::Result<Vec<Batch>> {
    let mut batches = Vec::new();
    for (keys, responses) in keys.chunks(SEQUENCES_A_BATCH).zip(responses.chunks(SEQUENCES_A_BATCH)) {
        let mut pack = Pack::new();
        let ranges = pack.push(&[], keys.iter().map(Vec::as_slice));
        let rows = ranges.iter().map(|range| range.end - 1).collect();
        let responses = responses.iter().map(|id| usize::try_from(*id)).collect::<Result<_, _>>()?;
        batches.push(Batch { hidden: trainer.boundary(&pack)?, pack, rows, responses });
    }
    Ok(batches)
}

/// One step over all keys. Returns after how many of them the response was the arg-max before the step.
fn step(trainer: &mut Trainer<'_>, batches: &[Batch], keys: usize, learning_rate: f32) -> anyhow::Result<usize> {
    let weights = trainer.effective(1.0)?;
    let hits = AtomicUsize::new(0);
    for Batch { pack, hidden, rows, responses } in batches {
        let loss = CrossEntropy::mean_of(keys);
        trainer.accumulate(&weights, hidden, pack, rows, &|row, logits| {
            hits.fetch_add(usize::from(is_most_likely(logits, responses[row])), Ordering::Relaxed);
            loss.at(logits, responses[row])
        })?;
    }
    // The optimiser moves the masters in place, which these weights share.
    drop(weights);
    trainer.step(learning_rate)?;
    Ok(hits.into_inner())
}

fn success(trainer: &Trainer<'_>, weights: &Effective, batches: &[Batch]) -> anyhow::Result<usize> {
    let mut hits = 0;
    for Batch { pack, hidden, rows, responses } in batches {
        trainer.read_logits(weights, hidden, pack, rows, |row, logits| {
            hits += usize::from(is_most_likely(logits, responses[row]));
        })?;
    }
    Ok(hits)
}

fn is_most_likely(logits: &[f32], id: usize) -> bool {
    logits.iter().enumerate().all(|(other, value)| *value < logits[id] || other == id)
}
