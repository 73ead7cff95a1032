//! `hallmark publish-manifest`

use std::process::ExitCode;

use clap::Args;
use licensing_contracts::{actions::registry, bindings::ModelRegistry};
use protocol::ids::{ManifestDigest, ModelId};
use serde_json::json;

use super::{SendArguments, register::identity};
use crate::context::Context;

/// Publish newer weights of your model, the stamped ones for example
///
/// Terms, leases and fingerprint commitments belong to the model and go on.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark publish-manifest --model-id 0x… --model ./my-model-stamped")]
pub(crate) struct PublishManifest {
    /// The registered model
    #[arg(long, env = "HALLMARK_MODEL_ID", value_name = "0xHEX")]
    model_id: ModelId,

    /// Its newer weights: a folder in Hugging Face layout, or org/name
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", required_unless_present = "manifest")]
    model: Option<String>,

    /// Their manifest digest, instead of weights that are not at hand
    #[arg(long, value_name = "0xHEX")]
    manifest: Option<ManifestDigest>,

    /// Where others can read about them
    #[arg(long, value_name = "URL", default_value = "")]
    uri: String,

    #[command(flatten)]
    send: SendArguments,
}

pub(crate) async fn run(arguments: PublishManifest, context: &Context) -> anyhow::Result<ExitCode> {
    let PublishManifest { model_id, model, manifest, uri, send } = arguments;
    let (manifest, _) = identity(model, manifest, context).await?;
    let mut session = send.open("publish-manifest", &(model_id, manifest, &uri)).await?;
    let to = session.deployment.clone();
    session.act(&registry::publish_manifest(&to, model_id, manifest, &uri)).await?;
    let call = ModelRegistry::modelCall { modelId: registry::number(model_id) };
    let version = session.client().call(to.model_registry, &call).await?.manifestVersion;
    let rows = [("model", model_id.to_string()), ("manifest", manifest.to_string()), ("version", version.to_string())];
    let object = json!({ "model": model_id, "manifest": manifest, "version": version });
    session.finish(context, &rows, object)?;
    Ok(ExitCode::SUCCESS)
}
