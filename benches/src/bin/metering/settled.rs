//! M2: whole requests per second, each with a voucher, a statement and a synced journal.

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::ensure;
use model::{Manifest, Model, hub};
use reqwest::Client;
use serde_json::{Value, json};
use serving::{
    ServedModel,
    engine::{
        CompletionStream, Engine, EngineError, FinishReason, GeneratedToken, GenerationRequest,
        builtin::BuiltinSettings, completion_channel,
    },
};
use tokio_util::task::TaskTracker;

use crate::{
    Arguments,
    hosts::{Hosts, seconds},
};

/// Says one word at once, so that what is left is the host.
#[derive(Debug)]
struct Instantly;

impl Engine for Instantly {
    fn context_length(&self) -> usize {
        1 << 20
    }

    fn submit(&self, request: GenerationRequest) -> Result<Vec<CompletionStream>, EngineError> {
        let (sender, stream) = completion_channel(request.max_tokens);
        sender.token(GeneratedToken { id: request.prompt.last().copied().unwrap_or(0), likelihood: None });
        sender.finish(FinishReason::Length);
        Ok(vec![stream])
    }

    fn drain(&self) {}
}

pub(crate) async fn figures(arguments: &Arguments) -> anyhow::Result<Value> {
    let model = Model::load("bundled")?;
    let manifest = Manifest::of(&hub::resolve("bundled")?)?;
    let settings = BuiltinSettings { streams: NonZeroUsize::MIN, ..BuiltinSettings::default() };
    let served = ServedModel::builtin("instant", Arc::new(model), seconds(), &settings)?;
    let served = ServedModel { engine: Arc::new(Instantly), ..served };
    let hosts = Hosts::serve(served, manifest, arguments.connections).await?;
    let body = Arc::new(json!({ "model": "instant", "prompt": "Once upon", "max_tokens": 1 }));
    let mut rates = Vec::new();
    for (url, is_paid) in [(&hosts.metered, true), (&hosts.bare, false)] {
        let customers = TaskTracker::new();
        let began = Instant::now();
        let until = began + Duration::from_secs(arguments.seconds);
        let mut running = Vec::new();
        for lane in 0..arguments.connections {
            let (url, body, mut payer) = (url.clone(), body.clone(), hosts.world.payer(lane)?);
            running.push(customers.spawn(async move {
                let client = Client::builder().no_proxy().build()?;
                let mut done = 0_u64;
                while Instant::now() < until {
                    let mut request = client.post(format!("{url}/completions")).json(&*body);
                    if is_paid {
                        request = request.header("hallmark-voucher", payer.header());
                    }
                    let response = request.send().await?;
                    ensure!(response.status() == 200, "{}", response.text().await?);
                    let answer: Value = response.json().await?;
                    if is_paid {
                        payer.accept(&answer["hallmark"])?;
                    }
                    done += 1;
                }
                Ok(done)
            }));
        }
        let mut done = 0;
        for customer in running {
            done += customer.await??;
        }
        rates.push(done as f64 / began.elapsed().as_secs_f64());
    }
    let [ours, theirs] = rates[..] else { anyhow::bail!("two rates") };
    let connections = arguments.connections;
    println!(
        "M2  {connections} connections   metered {ours:.0} requests/s   bare {theirs:.0} requests/s   (their client on the same cores)"
    );
    hosts.stop().await;
    Ok(json!({ "requests_per_s": ours, "bare": theirs }))
}
