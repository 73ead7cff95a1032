//! `hallmark host`

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, builder::FalseyValueParser};
use serde_json::json;
use serving::Limits;

use crate::{
    context::Context,
    failure::Advise as _,
    hosting::{self, HostPlan},
    models, progress,
};

/// Serve a model over an OpenAI-compatible API
///
/// Answers /v1/models, /v1/completions and /v1/chat/completions, streaming too. This version serves without metering.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  hallmark host --unmetered --model ./my-model --listen 127.0.0.1:8080")]
pub(crate) struct Host {
    /// The model: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", default_value = "bundled")]
    model: String,

    /// Serve without licence, vouchers and bills: the only way in this version
    #[arg(long, env = "HALLMARK_UNMETERED", value_parser = FalseyValueParser::new())]
    unmetered: bool,

    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "HALLMARK_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen_address)]
    listen: SocketAddr,

    /// The model's name in the API [default: the last part of --model]
    #[arg(long, env = "HALLMARK_MODEL_NAME", value_name = "NAME")]
    model_name: Option<String>,

    /// Requests that generate at the same time; more wait
    #[arg(long, env = "HALLMARK_STREAMS", value_name = "COUNT", default_value = "16")]
    streams: NonZeroUsize,

    /// Requests that wait; more are answered with 429
    #[arg(long, env = "HALLMARK_QUEUE", value_name = "COUNT", default_value_t = 64)]
    queue: usize,

    /// Most tokens that a request may ask for; memory for all of them is reserved while it runs
    // Not HALLMARK_MAX_TOKENS, which is how long an answer `prove` asks for.
    #[arg(long, env = "HALLMARK_HOST_MAX_TOKENS", value_name = "COUNT", default_value = "4096")]
    max_tokens: NonZeroUsize,

    /// Seconds after which an answer that is not complete is broken off, its time in the queue included
    #[arg(long, env = "HALLMARK_HOST_MAX_SECONDS", value_name = "SECONDS", default_value = "600")]
    max_seconds: NonZeroU32,
}

fn listen_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "give an IP address and a port, for example 127.0.0.1:8080".to_owned())
}

pub(crate) async fn run(arguments: Host, context: &Context) -> anyhow::Result<ExitCode> {
    if !arguments.unmetered {
        return Err(anyhow::anyhow!("the metered host is not part of this version"))
            .advise("add --unmetered to serve without licence, vouchers and bills");
    }
    let step = context.progress().step("load");
    let reference = arguments.model.clone();
    let model = context.compute(move || models::load(&reference)).await?;
    step.done(&models::summary(&model.config));
    let plan = HostPlan {
        name: arguments.model_name.unwrap_or_else(|| models::short_name(&arguments.model)),
        listen: arguments.listen,
        streams: arguments.streams,
        queue: arguments.queue,
        seed: context.seed()?,
    };
    let name = plan.name.clone();
    let limits = Limits {
        max_completion_tokens: arguments.max_tokens,
        generation_timeout: Duration::from_secs(arguments.max_seconds.get().into()),
        ..Limits::default()
    };
    let host = hosting::Host::bind_within(model, plan, limits).await?;
    let url = host.url().clone();
    // Printed when the port is open, so that a script that waits for the line can connect.
    context.output.finish(&format!("serving {name} at {url}"), &json!({ "url": url, "model": name }))?;
    progress::say("press Ctrl-C to stop");
    host.serve(context.interrupt().cancelled_owned()).await?;
    Ok(ExitCode::SUCCESS)
}
