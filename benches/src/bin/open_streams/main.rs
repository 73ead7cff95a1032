//! A thousand open streams: what they cost the host in memory, and whether readers who do not read hold the others up.
//!
//! The host is the `hallmark` binary in a process of its own, so that its memory is its own. The chain and all customers are in
//! this one.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod host;
mod load;
mod slow;

use std::{path::PathBuf, time::Duration};

use alloy_primitives::keccak256;
use anyhow::{Context as _, ensure};
use benches::world::World;
use clap::Parser;
use licensing_contracts::devnet::market::Offered;
use model::{ChatTemplate, Config, Manifest, Tokenizer, hub};
use protocol::B256;
use serde_json::{Value, json};
use tokio::time;

use self::{
    host::HostProcess,
    load::{Load, Readers, Seen},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Opens many streams at once at a metered host with the built-in engine
#[derive(Debug, Parser)]
struct Arguments {
    /// The `hallmark` binary [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    hallmark: Option<PathBuf>,

    /// The model
    #[arg(long, default_value = "bundled")]
    model: String,

    /// Streams that are opened at once; the host has as many places for them
    #[arg(long, default_value_t = 1000)]
    open: usize,

    /// Of them, those that ask for long answers with log-probabilities
    #[arg(long, default_value_t = 100)]
    long: usize,

    /// Tokens of the other answers
    #[arg(long, default_value_t = 32)]
    tokens: usize,

    /// Tokens of the long answers
    #[arg(long, default_value_t = 480)]
    long_tokens: usize,

    /// Streams that the host generates at the same time
    #[arg(long, default_value_t = 16)]
    streams: usize,

    /// Times that everything is done, to see whether what the host holds goes on growing
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().map_err(|_| anyhow::anyhow!("a TLS provider twice"))?;
    ensure!(arguments.long < arguments.open && arguments.streams < arguments.open, "--open is the greatest number");
    require_files(arguments.open * 2)?;
    let folder = hub::resolve(&arguments.model)?;
    let template = ChatTemplate::load(&folder)?.map_or(B256::ZERO, |template| keccak256(template.source()));
    let offered = Offered {
        manifest: Manifest::of(&folder)?.digest(),
        tokenizer: Tokenizer::load(&folder)?.digest(),
        template: template.into(),
    };
    // Whoever hung up may still be on its lane: nobody comes twice.
    let lanes = arguments.streams + arguments.rounds * (2 * arguments.open + arguments.open * 3 / 2);
    let world = World::new(&offered, u64::try_from(lanes)?).await?;
    let binary = match &arguments.hallmark {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.parent().context("a folder of programs")?.join("hallmark"),
    };
    let host = HostProcess::start(&binary, &world, &folder, arguments.streams, arguments.open).await?;
    println!(
        "{} of places: {} generate, {} wait",
        arguments.open,
        arguments.streams,
        arguments.open - arguments.streams
    );
    println!("started: {} MiB resident", host.memory()?.resident_mib());
    let mut load = Load::new(&arguments, &host, &world, &Config::load(&folder)?)?;

    // The engine's own memory, which does not depend on how many wait: every slot with a long answer.
    load.warm_up().await?;
    let idle = host.memory()?.resident_mib();
    println!("idle after {} long answers at once: {idle} MiB resident", arguments.streams);

    let mut figures = Vec::new();
    for _ in 0..arguments.rounds {
        figures.push(round(&arguments, &mut load, &host, idle).await?);
    }
    println!("{}", json!({ "idle_mib": idle, "rounds": figures }));
    Ok(())
}

/// All readers read, then some do not, then there are too many.
async fn round(arguments: &Arguments, load: &mut Load<'_>, host: &HostProcess, idle: u64) -> anyhow::Result<Value> {
    let read = load.run("all are read", arguments.open, Readers::AllRead).await?;
    read.print(idle)?;
    let lagging = load.run("the long ones are not read", arguments.open, Readers::LongOnesLag).await?;
    lagging.print(idle)?;
    let (alone, beside) = (read.last_short(), lagging.last_short());
    println!(
        "  the short answers were all there after {:.1} s, and after {:.1} s where all are read: {:.3} of the speed",
        beside.as_secs_f64(),
        alone.as_secs_f64(),
        alone.as_secs_f64() / beside.as_secs_f64()
    );
    let over = load.run("more than there are places", arguments.open * 3 / 2, Readers::ShortOnly).await?;
    over.print(idle)?;
    time::sleep(Duration::from_secs(2)).await;
    let after = host.memory()?.resident_mib();
    println!("\nidle again: {after} MiB resident, {} requests open", host.operator().open_requests().await?);
    let parts: Vec<_> = [&read, &lagging, &over].into_iter().map(Seen::json).collect();
    Ok(json!({ "after_mib": after, "parts": parts }))
}

/// A connection is a file, here and in the host.
fn require_files(needed: usize) -> anyhow::Result<()> {
    let Ok(limits) = std::fs::read_to_string("/proc/self/limits") else { return Ok(()) };
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let allowed = line.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    match allowed {
        Some(allowed) if allowed < needed => {
            anyhow::bail!("only {allowed} files may be open at once; allow {needed} with `ulimit -n {needed}`")
        }
        _ => Ok(()),
    }
}
