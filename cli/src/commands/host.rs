//! `hallmark host`

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, builder::FalseyValueParser};
use model::ComputeDevice;
use protocol::{
    money::Prices,
    units::{Amount, PricePerMillion},
};
use serde_json::json;
use serving::Limits;

use crate::{
    context::Context,
    failure::Advise as _,
    hosting::{self, EXAMPLE, HostPlan, Loaded, config::HostConfig, metered::Metered},
    models, output, progress,
};

/// Serve models over an OpenAI-compatible API, paid by vouchers or API keys
///
/// Answers /v1/models, /v1/completions and /v1/chat/completions, streaming too. With --config, models are served under their
/// leases: nothing is generated before it is paid for, every answer ends with a signed statement, and what was served is
/// reported and claimed on the chain. With --unmetered, one model is served to anybody.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  hallmark host --example > host.toml
  hallmark host --config host.toml
  hallmark host --unmetered --model ./my-model --listen 127.0.0.1:8080")]
pub(crate) struct Host {
    /// The configuration of a metered host
    #[arg(long, env = "HALLMARK_HOST_CONFIG", value_name = "FILE", conflicts_with = "unmetered")]
    config: Option<PathBuf>,

    /// Print a configuration that starts as it is beside `hallmark devnet`
    #[arg(long, conflicts_with_all = ["config", "unmetered"])]
    example: bool,

    /// The model: a folder in Hugging Face layout, org/name, or `bundled`
    #[arg(long, env = "HALLMARK_MODEL", value_name = "PATH|ORG/NAME", default_value = "bundled")]
    model: String,

    /// Serve one model without licence, vouchers and bills; the arguments below are for this
    #[arg(long, env = "HALLMARK_UNMETERED", value_parser = FalseyValueParser::new())]
    unmetered: bool,

    /// What computes: cpu, cuda or cuda:1
    #[arg(long, env = "HALLMARK_DEVICE", value_name = "DEVICE", default_value = "cpu")]
    device: ComputeDevice,

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
    if arguments.example {
        context.output.finish(EXAMPLE.trim_end(), &json!({ "example": EXAMPLE }))?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(config) = &arguments.config {
        return metered(config, context).await;
    }
    if !arguments.unmetered {
        return Err(anyhow::anyhow!("nothing to serve"))
            .advise("name a configuration with --config, or serve without licence and bills with --unmetered");
    }
    let step = context.progress().step("load");
    let (reference, device) = (arguments.model.clone(), arguments.device);
    let model = context.compute(move || Loaded::load(&reference, device)).await?;
    step.done(&model.summary());
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

async fn metered(config: &Path, context: &Context) -> anyhow::Result<ExitCode> {
    let host = Metered::open(HostConfig::read(config)?, context).await?;
    let url = host.url().clone();
    let mut rows = vec![("serving at", url.to_string())];
    for offer in &host.offers {
        let price = |price: PricePerMillion| offer.token.show(Amount::new(price.get()));
        let Prices { request, prompt, cached, completion } = offer.prices;
        rows.push(("model", format!("{}, under lease {}", offer.name, offer.lease)));
        rows.push(("  a million", format!("requests {}, prompt tokens {}", price(request), price(prompt))));
        rows.push(("", format!("cached ones {}, completion tokens {}", price(cached), price(completion))));
    }
    rows.extend(host.operator_url.clone().map(|url| ("status page", url)));
    let models: Vec<_> = host
        .offers
        .iter()
        .map(|offer| json!({ "name": offer.name, "lease": offer.lease, "prices": offer.prices }))
        .collect();
    // Printed when the port is open, so that a script that waits for the line can connect.
    context.output.finish(&output::rows(&rows), &json!({ "url": url, "models": models }))?;
    progress::say("press Ctrl-C to stop");
    host.serve(context.interrupt().cancelled_owned()).await?;
    Ok(ExitCode::SUCCESS)
}
