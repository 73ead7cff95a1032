//! `hallmark register`

use std::process::ExitCode;

use clap::Args;
use licensing_contracts::actions::registry;
use protocol::ids::{ManifestDigest, ModelId};
use serde_json::json;

use super::{
    SendArguments,
    terms::{Rendering, TermsArguments, publish},
};
use crate::{context::Context, models};

/// Register a model on the chain, and publish its licence
///
/// The model becomes a token of the account that registers it: its owner is paid the royalties. What is registered is the
/// digest over its weights, tokenizer, chat template and configuration.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark register --model ./my-model-stamped --royalty 1000 --floor-prompt 0.02 --floor-completion 0.06 --min-bond 50
  hallmark register --manifest 0x… --uri https://example.com/manifest.json --no-terms")]
pub(crate) struct Register {
    /// The model: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", required_unless_present = "manifest")]
    model: Option<String>,

    /// The model's manifest digest, instead of a model that is not at hand
    #[arg(long, value_name = "0xHEX")]
    manifest: Option<ManifestDigest>,

    /// Where others can read about the model
    #[arg(long, value_name = "URL", default_value = "")]
    uri: String,

    /// A registered model that this one was made from; may be repeated
    #[arg(long = "parent", value_name = "0xHEX")]
    parents: Vec<ModelId>,

    /// Register only; publish terms later
    #[arg(long)]
    no_terms: bool,

    #[command(flatten)]
    terms: TermsArguments,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: Register, context: &Context) -> anyhow::Result<ExitCode> {
    let Register { model, manifest, uri, parents, no_terms, terms, send } = arguments;
    let (manifest, rendering) = identity(model, manifest, context).await?;
    let mut session = send.open("register", &(manifest, &parents, &uri, no_terms, &terms)).await?;
    let action = registry::register(&session.deployment, manifest, &parents, &uri);
    let receipt = session.act(&action).await?;
    let model_id = receipt.as_ref().and_then(|receipt| registry::registered(&session.deployment, receipt));
    let mut rows = vec![("manifest", manifest.to_string())];
    rows.extend(model_id.map(|id| ("model", id.to_string())));
    let mut object = json!({ "manifest": manifest, "model": model_id });
    if let (Some(id), false) = (model_id, no_terms) {
        let published = publish(&mut session, id, 1, &terms, rendering).await?;
        rows.extend(published.rows());
        object["terms"] = published.object();
    }
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}

/// What a model is registered by: the digest that is given, or that of the model, and how it makes tokens of a chat.
pub(super) async fn identity(
    model: Option<String>,
    manifest: Option<ManifestDigest>,
    context: &Context,
) -> anyhow::Result<(ManifestDigest, Option<Rendering>)> {
    match (model, manifest) {
        (_, Some(manifest)) => Ok((manifest, None)),
        (Some(reference), None) => {
            let step = context.progress().step("load");
            let model = context.compute(move || models::load(&reference)).await?;
            step.done(&models::summary(&model.config));
            Ok((model.manifest_digest, Some(Rendering::of(&model))))
        }
        // clap asks for one of them.
        (None, None) => anyhow::bail!("name the model"),
    }
}
