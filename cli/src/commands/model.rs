//! `hallmark model import | info`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use model::{ChatTemplate, Checkpoint, Config, Manifest, Tokenizer, hub};
use serde_json::json;

use crate::{context::Context, format, models, output};

/// Import a model, or say what it is
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Import(Import),
    Info(Info),
}

/// Turn a GGUF file into a folder in Hugging Face layout
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark model import SmolLM2-135M-Instruct-Q8_0.gguf --out ./smollm2")]
pub(crate) struct Import {
    /// The GGUF file: f32, f16, bf16, Q8_0, Q4_0, Q4_1, Q4_K or Q6_K weights
    #[arg(value_name = "FILE.gguf")]
    file: PathBuf,

    /// Folder to write; must not exist or be empty
    #[arg(long, env = "HALLMARK_OUT", value_name = "DIR")]
    out: PathBuf,
}

/// Print architecture, size, tokenizer, chat template and digests of a model
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark model info bundled
  hallmark model info ./my-model --json")]
pub(crate) struct Info {
    /// A folder in Hugging Face layout, org/name, or `bundled`
    #[arg(value_name = "PATH|ORG/NAME")]
    model: String,
}

pub(crate) async fn run(command: Command, context: &Context) -> anyhow::Result<ExitCode> {
    match command {
        Command::Import(arguments) => import(arguments, context).await,
        Command::Info(arguments) => info(arguments, context).await,
    }
}

async fn import(arguments: Import, context: &Context) -> anyhow::Result<ExitCode> {
    let Import { file, out } = arguments;
    models::require_free(&out)?;
    let progress = context.progress();
    let written = out.clone();
    let config = context
        .compute(move || {
            let step = progress.step("import");
            model::gguf::import(&file, &out).with_context(|| format!("failed to import {}", file.display()))?;
            let config = Config::load(&out)?;
            step.done(&models::summary(&config));
            Ok(config)
        })
        .await?;
    let words = format!("{}  {}", written.display(), models::summary(&config));
    let object = json!({
        "directory": written,
        "architecture": format!("{:?}", config.architecture),
        "parameters": config.parameter_count(),
    });
    context.output.finish(&words, &object)?;
    Ok(ExitCode::SUCCESS)
}

async fn info(arguments: Info, context: &Context) -> anyhow::Result<ExitCode> {
    let Info { model: reference } = arguments;
    let output = context.output;
    context
        .compute(move || {
            let directory = hub::resolve(&reference)?;
            let checkpoint = Checkpoint::open(&directory)?;
            let tokenizer = Tokenizer::load(&directory)?;
            let chat = ChatTemplate::load(&directory)?;
            let manifest = Manifest::of(&directory)?;
            let config = checkpoint.config();
            let bytes: u64 = manifest.files().iter().map(|file| file.bytes).sum();
            let words = output::rows(&[
                ("directory", directory.display().to_string()),
                ("model", models::summary(config)),
                (
                    "weights",
                    format!("{:?}, {} in {} files", checkpoint.dtype(), format::bytes(bytes), manifest.files().len()),
                ),
                ("positions", format::thousands(u64::try_from(config.max_positions)?)),
                ("vocabulary", format::thousands(u64::try_from(tokenizer.vocab_size())?)),
                ("chat", if chat.is_some() { "has a template" } else { "no template" }.to_owned()),
                ("manifest", manifest.digest().to_string()),
                ("tokenizer", tokenizer.digest().to_string()),
            ]);
            let files: Vec<_> = manifest
                .files()
                .iter()
                .map(|file| json!({ "name": file.name, "bytes": file.bytes, "digest": file.digest.to_string() }))
                .collect();
            let object = json!({
                "directory": directory,
                "architecture": format!("{:?}", config.architecture),
                "parameters": config.parameter_count(),
                "layers": config.layers,
                "hidden_size": config.hidden_size,
                "vocabulary": tokenizer.vocab_size(),
                "positions": config.max_positions,
                "dtype": format!("{:?}", checkpoint.dtype()),
                "tied_embeddings": config.tie_word_embeddings,
                "chat_template": chat.is_some(),
                "manifest": manifest.digest(),
                "tokenizer": tokenizer.digest(),
                "files": files,
            });
            output.finish(&words, &object)
        })
        .await?;
    Ok(ExitCode::SUCCESS)
}
