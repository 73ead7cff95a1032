//! Training speed and memory in the shape of published fingerprint embedding, to be set beside PyTorch by `compare.py`.
//!
//! What is timed: 64 sequences of 17 tokens (a start token and 16 of a key), every weight trained in float32, embeddings
//! and final norm included, AdamW, cross-entropy of one response token after each key. Ids are drawn at random, because
//! neither the time nor the memory depends on them. The number of threads is rayon's: set `RAYON_NUM_THREADS`.

use std::{
    io::{self, Write as _},
    time::Instant,
};

use anyhow::Context as _;
use benches::{CrossEntropy, peak_rss_mib};
use clap::Parser;
use model::{
    Model,
    decoder::Pack,
    train::{AdamW, Scope, Trainer},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// As the `hallmark` binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times training steps with every weight trained.
#[derive(Debug, Parser)]
struct Arguments {
    /// A folder in Hugging Face layout, org/name, or `bundled`.
    model: String,
    /// Sequences in a step.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    sequences: u32,
    /// Tokens of a sequence, start token included.
    #[arg(long, default_value_t = 17, value_parser = clap::value_parser!(u32).range(1..))]
    length: u32,
    /// Steps that are timed. All count, the first too, as in the PyTorch script.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Seeds the ids.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let model = Model::load(&arguments.model).with_context(|| format!("failed to load {}", arguments.model))?;
    let decoder = &model.decoder;
    let vocabulary = u32::try_from(decoder.config().vocab_size)?;
    let mut generator = ChaCha8Rng::seed_from_u64(arguments.seed);
    let mut id = || generator.random_range(0..vocabulary);
    let keys: Vec<Vec<u32>> = (0..arguments.sequences).map(|_| (0..arguments.length).map(|_| id()).collect()).collect();
    let responses: Vec<usize> = keys.iter().map(|_| usize::try_from(id())).collect::<Result<_, _>>()?;

    let mut pack = Pack::new();
    let ranges = pack.push(&[], keys.iter().map(Vec::as_slice));
    let rows: Vec<usize> = ranges.iter().map(|range| range.end - 1).collect();
    let loss = CrossEntropy::mean_of(keys.len());
    let cross_entropy = |row: usize, logits: &mut [f32]| loss.at(logits, responses[row]);

    let scope = Scope { first_block: 0, embeddings: true, low_rank: None };
    let mut trainer = Trainer::new(decoder, scope, AdamW::default())?;
    let hidden = trainer.boundary(&pack)?;
    let (mut seconds, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..arguments.steps {
        let start = Instant::now();
        let weights = trainer.effective(1.0)?;
        losses.push(trainer.accumulate(&weights, &hidden, &pack, &rows, &cross_entropy)?);
        // The optimiser moves the masters in place, which these weights share.
        drop(weights);
        trainer.step(1e-5)?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    anyhow::ensure!(losses.iter().all(|loss| loss.is_finite()), "the loss is not finite");

    let tokens = f64::from(arguments.sequences * arguments.length);
    let total: f64 = seconds.iter().sum();
    let mut sorted = seconds.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let (best, median) = (sorted[0], sorted[sorted.len() / 2]);
    let report = json!({
        "model": arguments.model,
        "sequences": arguments.sequences,
        "length": arguments.length,
        "steps": arguments.steps,
        "seconds": total,
        "best_step_s": best,
        "median_step_s": median,
        "train_tokens_per_s": tokens * f64::from(arguments.steps) / total,
        "median_tokens_per_s": tokens / median,
        "best_tokens_per_s": tokens / best,
        "peak_rss_mib": peak_rss_mib()?,
        "first_loss": losses.first(),
        "last_loss": losses.last(),
    });
    writeln!(io::stdout(), "{report}").context("failed to write to standard output")
}
