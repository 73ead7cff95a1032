//! `hallmark fingerprint show`

use std::process::ExitCode;

use clap::Args;
use fingerprint::{
    set::FingerprintSet,
    show::{Revealed, Summary, SurfacePrompt},
    surface::{DEFAULT_SYSTEM_PROMPTS, Surface, trained_surfaces},
};

use crate::{arguments::SetArguments, context::Context, models::Renderer, secrets};

/// Show what a set is and how far it has come
///
/// With --reveal also its keys and responses, which must then be treated like the set itself.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark fingerprint show --set my-model.set
  hallmark fingerprint show --set my-model.set --reveal --json > secrets.json")]
pub(crate) struct Show {
    #[command(flatten)]
    set: SetArguments,

    /// Print the keys, candidates and responses
    #[arg(long)]
    reveal: bool,

    /// The model that renders the prompts of --reveal [default: the base model as it was named when the set was generated]
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME")]
    model: Option<String>,
}

pub(crate) async fn run(arguments: Show, context: &Context) -> anyhow::Result<ExitCode> {
    let Show { set: set_arguments, reveal, model } = arguments;
    let output = context.output;
    context
        .compute(move || {
            let (_, set) = secrets::open(&set_arguments)?;
            if !reveal {
                let summary = Summary::of(&set);
                return output.finish(&summary.to_string(), &summary);
            }
            let reference = model.unwrap_or_else(|| set.base().name);
            let renderer = Renderer::load(&reference, &set)?;
            let surfaces = surfaces(&set, &renderer)?;
            let revealed = Revealed::of(&set, prompts(&set, &renderer, &surfaces)?)?;
            output.finish(&if output.is_json() { String::new() } else { words(&set, &surfaces) }, &revealed)
        })
        .await?;
    Ok(ExitCode::SUCCESS)
}

/// The surfaces that were trained, or those that will be by default.
pub(crate) fn surfaces(set: &FingerprintSet, renderer: &Renderer) -> anyhow::Result<Vec<Surface>> {
    match set.embedding() {
        Some(embedding) => Ok(embedding.surfaces.clone()),
        None => Ok(trained_surfaces(&renderer.tokenizer, renderer.chat.as_ref(), DEFAULT_SYSTEM_PROMPTS)?),
    }
}

fn prompts(set: &FingerprintSet, renderer: &Renderer, surfaces: &[Surface]) -> anyhow::Result<Vec<Vec<SurfacePrompt>>> {
    let prompt = |surface: &Surface, key: &str| -> anyhow::Result<SurfacePrompt> {
        let prompt_ids = surface.ids(&renderer.tokenizer, renderer.chat.as_ref(), key)?;
        Ok(SurfacePrompt { name: surface.name().to_owned(), prompt_ids })
    };
    set.fingerprints()
        .iter()
        .map(|fingerprint| surfaces.iter().map(|surface| prompt(surface, fingerprint.key_text())).collect())
        .collect()
}

/// One block for each fingerprint; token ids are left to `--json`.
fn words(set: &FingerprintSet, surfaces: &[Surface]) -> String {
    let mut text = String::new();
    for (fingerprint, index) in set.fingerprints().iter().zip(0_u32..) {
        let response = fingerprint.response().map_or("not drawn yet".to_owned(), |drawn| format!("{:?}", drawn.text));
        text.push_str(&format!("{index:>5}  key       {:?}\n       response  {response}\n", fingerprint.key_text()));
    }
    let names: Vec<&str> = surfaces.iter().map(Surface::name).collect();
    text.push_str(&format!("\nsurfaces  {}\n", names.join(", ")));
    text
}
