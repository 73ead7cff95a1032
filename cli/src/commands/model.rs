//! `hallmark model import | info`

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use model::{
    ChatTemplate, Manifest, Tokenizer, WeightFiles,
    gguf::{self, WeightType},
    hub,
};
use serde_json::json;

use crate::{
    context::{Context, leave_if_interrupted},
    format, models, output,
};

/// Import a model, or say what it is
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Import(Import),
    Info(Info),
}

/// Turn a GGUF file into a folder in Hugging Face layout
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark model import SmolLM2-135M-Instruct-Q8_0.gguf --out ./smollm2
  hallmark model import SmolLM2-135M-Instruct-Q4_K_M.gguf --out ./smollm2-q4 --dtype stored")]
pub(crate) struct Import {
    /// The GGUF file: F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1 or Q2_K to Q6_K weights
    #[arg(value_name = "FILE.gguf")]
    file: PathBuf,

    /// Folder to write; must not exist or be empty
    #[arg(long, env = "HALLMARK_OUT", value_name = "DIR")]
    out: PathBuf,

    /// Type of the written weights
    #[arg(long, env = "HALLMARK_DTYPE", value_enum, default_value_t = Dtype::Bf16)]
    dtype: Dtype,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    /// Half the size; quantized weights lose nothing that matters
    Bf16,
    /// Every value as the file has it
    F32,
    /// The file itself: serves with its weights as they are, and cannot be stamped
    Stored,
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
    let Import { file, out, dtype } = arguments;
    models::require_free(&out)?;
    let dtype = match dtype {
        Dtype::Bf16 => WeightType::Bf16,
        Dtype::F32 => WeightType::F32,
        Dtype::Stored => WeightType::Stored,
    };
    let (progress, interrupt) = (context.progress(), context.interrupt());
    let written = out.clone();
    let report = context
        .compute(move || {
            let mut step = progress.step("import");
            let report = gguf::import(&file, &out, dtype, &mut |at| {
                leave_if_interrupted(&interrupt);
                step.at_u64(at.done_bytes >> 20, at.total_bytes >> 20, &format!("MiB  {}", at.tensor));
            })
            .with_context(|| format!("failed to import {}", file.display()))?;
            step.done(&format!("{} parameters", format::count_short(report.parameters)));
            Ok(report)
        })
        .await?;
    let mut words = output::rows(&[
        ("folder", written.display().to_string()),
        ("name", report.name.clone().unwrap_or_else(|| "not named".to_owned())),
        ("architecture", report.architecture.clone()),
        ("parameters", format::thousands(report.parameters)),
        ("weights", format::bytes(report.weight_bytes)),
        ("chat", if report.has_chat_template { "has a template" } else { "no template" }.to_owned()),
        ("licence", report.license.clone().unwrap_or_else(|| "not named".to_owned())),
    ]);
    for warning in &report.warnings {
        words.push_str(&format!("note: {warning}\n"));
    }
    context.output.finish(&words, &json!({ "directory": written, "report": report }))?;
    Ok(ExitCode::SUCCESS)
}

async fn info(arguments: Info, context: &Context) -> anyhow::Result<ExitCode> {
    let Info { model: reference } = arguments;
    let output = context.output;
    context
        .compute(move || {
            let directory = hub::resolve(&reference)?;
            let weights = WeightFiles::open(&directory)?;
            let tokenizer = Tokenizer::load(&directory)?;
            let chat = ChatTemplate::load(&directory)?;
            let manifest = Manifest::of(&directory)?;
            let config = weights.config();
            let bytes: u64 = manifest.files().iter().map(|file| file.bytes).sum();
            let words = output::rows(&[
                ("directory", directory.display().to_string()),
                ("model", models::summary(config)),
                (
                    "weights",
                    format!("{}, {} in {} files", weights.stored_as(), format::bytes(bytes), manifest.files().len()),
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
                "dtype": weights.stored_as(),
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
