//! What metering costs: the metered host beside the same engine without vouchers, statements and journal.
//!
//! The hosts serve over HTTP in this process, by turns, to the same client. The chain is a development chain; the books are in
//! SQLite on the disk, synced at each commit.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod engine;
mod hosts;
mod settled;

use clap::Parser;
use reqwest::Url;
use serde_json::json;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures S1, S2 and M2 of the design's targets
#[derive(Debug, Parser)]
struct Arguments {
    /// The model of S1 and S2; of an upstream's only tokenizer, template and end tokens are used
    #[arg(long, default_value = "bundled")]
    model: String,

    /// Another server that runs the model, `/v1` included: S1 and S2 in front of it and straight at it, and no M2
    #[arg(long, value_name = "URL")]
    upstream: Option<Url>,

    /// Rounds; each measures all sides
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Tokens of an answer in S1
    #[arg(long, default_value_t = 64)]
    tokens: usize,

    /// Requests of S2, of each side in each round
    #[arg(long, default_value_t = 100)]
    requests: usize,

    /// Seconds of M2
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Connections of M2
    #[arg(long, default_value_t = 64)]
    connections: u64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().map_err(|_| anyhow::anyhow!("a TLS provider twice"))?;
    let engine = engine::figures(&arguments).await?;
    let settled = match arguments.upstream {
        Some(_) => None,
        None => Some(settled::figures(&arguments).await?),
    };
    println!("{}", json!({ "engine": engine, "m2": settled }));
    Ok(())
}
