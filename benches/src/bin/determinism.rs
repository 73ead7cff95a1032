//! What it costs that a row's bytes depend on its own inputs alone.
//!
//! The decoder computes every output of a matrix product in one order, whatever is computed beside it; a general product
//! chooses its order by the size of the whole problem. Both do the products of one forward pass here, by turns, and the
//! whole pass is timed beside them: what determinism costs is the difference of the products over the whole pass without it.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::time::Instant;

use benches::median;
use candle_core::{Device, Tensor};
use clap::Parser;
use model::{Config, Decoder, Stream, WeightFiles, hub, row_products};
use serde_json::json;

/// As the `hallmark` binary has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Times forward passes with and without a fixed order of sums
#[derive(Debug, Parser)]
struct Arguments {
    /// The model; its shape is what counts
    #[arg(long, default_value = "bundled")]
    model: String,

    /// Rounds; each does everything once
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Only forward passes, of so many streams of one token each: for a profiler
    #[arg(long, value_name = "STREAMS")]
    profile: Option<usize>,
}

/// Matrices of a forward pass as (rows, columns, how many of them).
fn shapes(config: &Config) -> Vec<(usize, usize, usize)> {
    let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    let (hidden, wide) = (config.hidden_size, config.intermediate_size);
    let blocks = config.layers;
    vec![
        (queries, hidden, blocks),
        (2 * keys, hidden, blocks),
        (hidden, queries, blocks),
        (2 * wide, hidden, blocks),
        (hidden, wide, blocks),
    ]
}

/// Streams that hold something already, and the seconds of a pass that gives each `tokens` more.
struct Pass<'a> {
    decoder: &'a Decoder,
    streams: usize,
    tokens: Vec<u32>,
}

impl Pass<'_> {
    fn seconds(&self) -> anyhow::Result<f64> {
        let mut caches =
            (0..self.streams).map(|_| self.decoder.new_cache(64 + self.tokens.len())).collect::<Result<Vec<_>, _>>()?;
        let before: Vec<u32> = (1..33).collect();
        for cache in &mut caches {
            self.decoder.forward(&mut [Stream { tokens: &before, cache }])?;
        }
        let mut streams: Vec<_> = caches.iter_mut().map(|cache| Stream { tokens: &self.tokens, cache }).collect();
        let began = Instant::now();
        self.decoder.forward(&mut streams)?;
        Ok(began.elapsed().as_secs_f64())
    }
}

/// One product's operands, for both.
struct Product {
    x: Vec<f32>,
    weight: Vec<f32>,
    columns: usize,
    x_tensor: Tensor,
    transposed: Tensor,
}

/// Every product of a pass, each with a matrix of its own, so that none is found in a cache where a pass would not find it.
fn products(config: &Config, rows: usize) -> anyhow::Result<Vec<Product>> {
    let values = |count: usize| (0..count).map(|at| (at % 251) as f32 / 251.0 - 0.5).collect::<Vec<_>>();
    let mut products = Vec::new();
    for (n, k, count) in shapes(config) {
        for _ in 0..count {
            let (x, weight) = (values(rows * k), values(n * k));
            let x_tensor = Tensor::from_slice(&x, (rows, k), &Device::Cpu)?;
            let transposed = Tensor::from_slice(&weight, (n, k), &Device::Cpu)?.t()?;
            products.push(Product { x, weight, columns: k, x_tensor, transposed });
        }
    }
    Ok(products)
}

fn in_fixed_order(products: &[Product]) -> f64 {
    let began = Instant::now();
    for product in products {
        std::hint::black_box(row_products(&product.x, &product.weight, product.columns));
    }
    began.elapsed().as_secs_f64()
}

fn in_any_order(products: &[Product]) -> anyhow::Result<f64> {
    let began = Instant::now();
    for product in products {
        std::hint::black_box(product.x_tensor.matmul(&product.transposed)?);
    }
    Ok(began.elapsed().as_secs_f64())
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let weights = WeightFiles::open(&hub::resolve(&arguments.model)?)?;
    let (config, decoder) = (weights.config().clone(), weights.load()?);
    if let Some(streams) = arguments.profile {
        let pass = Pass { decoder: &decoder, streams, tokens: vec![7] };
        let seconds: Vec<f64> = (0..arguments.rounds).map(|_| pass.seconds()).collect::<Result<_, _>>()?;
        println!("{streams} streams: {:.2} ms a pass", median(&seconds) * 1e3);
        return Ok(());
    }
    let mut figures = serde_json::Map::new();
    println!("one forward pass                whole   products, fixed order   general product   cost of determinism");
    for (name, streams, tokens) in
        [("1 stream", 1, 1), ("8 streams", 8, 1), ("32 streams", 32, 1), ("a prompt of 128", 1, 128)]
    {
        let pass = Pass { decoder: &decoder, streams, tokens: vec![7; tokens] };
        let products = products(&config, streams * tokens)?;
        let (mut whole, mut ours, mut general) = (Vec::new(), Vec::new(), Vec::new());
        let mut costs = Vec::new();
        for round in 0..=arguments.rounds {
            let (a, b, c) = (pass.seconds()?, in_fixed_order(&products), in_any_order(&products)?);
            // The first one warms caches.
            if round > 0 {
                whole.push(a * 1e3);
                ours.push(b * 1e3);
                general.push(c * 1e3);
                costs.push((b - c) / (a - b + c));
            }
        }
        let cost = median(&costs);
        println!(
            "{name:<24} {:>9.2} ms   {:>17.2} ms   {:>12.2} ms   {:>+17.1} %",
            median(&whole),
            median(&ours),
            median(&general),
            cost * 100.0
        );
        figures.insert(
            name.to_owned(),
            json!({ "cost": cost, "whole_ms": whole, "ours_ms": ours, "general_ms": general }),
        );
    }
    println!("{}", serde_json::Value::from(figures));
    Ok(())
}
