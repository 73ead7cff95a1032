//! `hallmark replay`

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Args;
use model::ComputeDevice;
use protocol::messages::{Signed, Statement};
use serde_json::{Value, json};
use serving::{AppState, Limits, engine::builtin::BuiltinSettings, replay::replay, state::system_clock};

use crate::{context::Context, failure::Advise as _, hosting::Loaded, output};

/// Exit code of an answer that the model does not give.
const DIFFERS: u8 = 2;

/// Do a stated request again and compare the answer, byte by byte
///
/// Takes the request's body as it was sent and the answer as it came, whole or as a stream. The built-in engine gives the same
/// bytes for the same request, whatever else it was doing, so an honest host's answer is found again. Exits 2 if it is not.
/// Who signed the statement, and whether it charges what the lease says, is not looked at: that needs the chain.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark replay --request request.json --answer answer.json --model ./my-model")]
pub(crate) struct Replay {
    /// The request's body
    #[arg(long, value_name = "FILE")]
    request: PathBuf,

    /// The answer with its statement
    #[arg(long, value_name = "FILE")]
    answer: PathBuf,

    /// The model that was leased: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", default_value = "bundled")]
    model: String,

    /// What computes: cpu, cuda or cuda:1. It must be the kind of device that the host has
    #[arg(long, env = "HALLMARK_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,
}

pub(crate) async fn run(arguments: Replay, context: &Context) -> anyhow::Result<ExitCode> {
    let body = read(&arguments.request)?;
    let request: Value = serde_json::from_str(&body)
        .with_context(|| format!("{} is not a request's body", arguments.request.display()))?;
    let name = request.get("model").and_then(Value::as_str).context("the request names no model")?.to_owned();
    let hallmark = hallmark(&read(&arguments.answer)?)
        .with_context(|| format!("{} has no statement", arguments.answer.display()))
        .advise("give the whole answer of a metered host, as it came")?;
    let statement: Signed<Statement> =
        serde_json::from_value(hallmark["statement"].clone()).context("the statement cannot be read")?;
    let record = hallmark["record"].as_str().context("there is no record beside the statement")?;

    let (reference, device) = (arguments.model.clone(), arguments.device);
    let model = context.compute(move || Loaded::load(&reference, device)).await?;
    let served = model.serve(name, &BuiltinSettings::default())?;
    let state = AppState::new(vec![served], Limits::default(), system_clock, 0);
    let replayed = replay(&state, &body, &statement.message, record).await?;

    let verdict = if replayed.is_same { "the same bytes" } else { "other bytes" };
    let mut rows = vec![("answer", verdict.to_owned())];
    rows.push(("stated", statement.message.response_hash.to_string()));
    rows.push(("replayed", replayed.response_hash.to_string()));
    let object = json!({
        "same": replayed.is_same,
        "stated": statement.message.response_hash,
        "replayed": replayed.response_hash,
        "texts": replayed.texts,
    });
    context.output.finish(&output::rows(&rows), &object)?;
    Ok(if replayed.is_same { ExitCode::SUCCESS } else { ExitCode::from(DIFFERS) })
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))
}

/// What the last JSON of an answer says of its statement.
fn hallmark(answer: &str) -> Option<Value> {
    if let Ok(mut whole) = serde_json::from_str::<Value>(answer) {
        return whole.get_mut("hallmark").map(Value::take).filter(|value| !value.is_null());
    }
    let events = answer.lines().filter_map(|line| line.strip_prefix("data: "));
    let objects = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    objects.filter_map(|mut object| object.get_mut("hallmark").map(Value::take)).next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_found_in_answers_and_streams() {
        let whole = r#"{"id":"a","hallmark":{"record":"r"}}"#;
        let stream = "data: {\"id\":\"a\"}\n\ndata: {\"hallmark\":{\"record\":\"r\"}}\n\ndata: [DONE]\n\n";
        for answer in [whole, stream] {
            assert_eq!(hallmark(answer).unwrap()["record"], "r");
        }
        assert_eq!(hallmark(r#"{"id":"a"}"#), None);
        assert_eq!(hallmark("nothing"), None);
    }
}
