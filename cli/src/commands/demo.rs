//! `hallmark demo`

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use fingerprint::prove::Outcome;
use secrecy::ExposeSecret as _;

use crate::{
    clock,
    context::Context,
    demo::{self, folder::Folder},
    failure::FAILURE,
    progress,
};

/// Register and stamp a model, serve it, prove it, fail to prove the original, and be paid
///
/// Everything on this machine: starts a chain with EigenLayer's core, registers the model with its licence and its
/// fingerprint commitment, draws from the chain, and stamps. A host with collateral takes a lease and serves the stamped
/// model, metered; somebody else serves the original. Ownership of the first is proved over HTTP, and of the second it
/// cannot be. A customer pays the host by voucher, and the host's claim pays the creator. Ends with a report and a page. EigenLayer's bytecode is fetched
/// once, through cargo; from then on everything is offline.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  hallmark demo
  hallmark demo --model HuggingFaceTB/SmolLM2-135M-Instruct --fingerprints 64 --out ./demo
  hallmark demo --keep")]
pub(crate) struct Demo {
    /// The model: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", default_value = "bundled")]
    pub(crate) model: String,

    /// How many fingerprints, at least 24: both servers are asked, and no question twice
    #[arg(long, short = 'n', env = "HALLMARK_FINGERPRINTS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(24..=100_000))]
    pub(crate) fingerprints: u32,

    /// Most steps of training [default: as many as the recipe says]
    #[arg(long, env = "HALLMARK_STEPS", value_name = "COUNT")]
    pub(crate) steps: Option<usize>,

    /// Ordinary prompts that keep the model what it was [default: as many as the recipe says]
    ///
    /// Fewer make the demo of a large model shorter and cost utility.
    #[arg(long, env = "HALLMARK_ORDINARY", value_name = "COUNT")]
    pub(crate) ordinary: Option<usize>,

    /// EigenLayer's bytecode, as another machine has it in its cache [default: fetched once, through cargo]
    #[arg(long, env = "HALLMARK_EIGENLAYER_CORE", value_name = "FILE")]
    pub(crate) eigenlayer_core: Option<PathBuf>,

    /// Leave both servers and the chain up until Ctrl-C
    #[arg(long, env = "HALLMARK_KEEP", value_parser = FalseyValueParser::new())]
    pub(crate) keep: bool,

    /// Folder for everything that the demo writes; must not exist or be empty [default: a new ./hallmark-demo-…]
    #[arg(long, env = "HALLMARK_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}

pub(crate) async fn run(arguments: Demo, context: &Context) -> anyhow::Result<ExitCode> {
    let folder = Folder::create(arguments.out.as_deref(), clock::now())?;
    let place = folder.path().display().to_string();
    progress::say(&format!("hallmark demo, into {place}"));
    let finished = Box::pin(demo::run::run(&arguments, &folder, context)).await;
    let demo::run::Finished { record, servers, chain } =
        finished.with_context(|| format!("the demo did not finish; what it wrote so far is in {place}"))?;
    let text = demo::write_reports(&record, &folder)?;
    progress::say("");
    context.output.finish(&text, &record)?;
    if arguments.keep {
        progress::say(&format!("\nstamped model   {}", servers.stamped));
        progress::say(&format!("its API key     {}", servers.api_key.expose_secret()));
        progress::say(&format!("original model  {}", servers.base));
        let stop = context.interrupt();
        let rpc = chain.devnet().chain().serve(SocketAddr::from(([127, 0, 0, 1], 0)), &stop).await?;
        progress::say(&format!("chain           {}", rpc.url()));
        progress::say("press Ctrl-C to stop all three");
        rpc.stopped().await;
    }
    servers.stop.cancel();
    context.tracker.close();
    context.tracker.wait().await;
    // The object or the text is out already, so a surprise is told by a line and the exit code alone.
    match (record.stamped.verdict, record.base.verdict) {
        (Outcome::Proved, Outcome::NotThisModel | Outcome::Undecided) => return Ok(ExitCode::SUCCESS),
        (Outcome::Proved, Outcome::Proved) => {
            progress::say(&format!(
                "error: the model that was never stamped was proved too; see the report in {place}"
            ));
        }
        _ => progress::say(&format!("error: the stamped model was not proved; see the report in {place}")),
    }
    Ok(ExitCode::from(FAILURE))
}
