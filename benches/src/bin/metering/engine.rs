//! S1 and S2: tokens per second, and the time to the first text, through a host that bills and beside it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use benches::{
    client::{self, Answer},
    median, percentile, processor_time,
    world::Payer,
};
use model::{Config, Manifest, Model, hub};
use reqwest::{Client, Url};
use serde_json::{Map, Value, json};
use serving::{
    ServedModel,
    engine::{builtin::BuiltinSettings, upstream::UpstreamSettings},
};

use crate::{
    Arguments,
    hosts::{Hosts, seconds},
};

const STREAMS: [usize; 3] = [1, 8, 32];
/// All streams continue it.
const PROMPT: &str = "Once upon a time there was";

/// A way to the engine.
struct Side {
    name: &'static str,
    url: String,
    /// What every request says, but for the number of tokens.
    body: Value,
    /// One for each stream; none where nothing is paid.
    payers: Vec<Payer>,
}

/// What so many streams at once gave.
#[derive(Default)]
struct Measured {
    tokens_per_s: Vec<f64>,
    tokens: u64,
    /// That this process, with the hosts and the client in it, spent on them.
    processor: Duration,
}

pub(crate) async fn figures(arguments: &Arguments) -> anyhow::Result<Value> {
    let folder = hub::resolve(&arguments.model)?;
    let served = match &arguments.upstream {
        Some(base) => ServedModel::upstream("model", &folder, seconds(), &UpstreamSettings::new(base.clone())).await?,
        None => {
            // Prefixes are kept for nobody, so that both hosts compute the same.
            let settings = BuiltinSettings { reuse_prefixes: false, ..BuiltinSettings::default() };
            ServedModel::builtin("model", Arc::new(Model::load(&arguments.model)?), seconds(), &settings)?
        }
    };
    println!("engine: {}", served.engine_name);
    let lanes = STREAMS.into_iter().max().unwrap_or_default();
    let hosts = Hosts::serve(served, Manifest::of(&folder)?, u64::try_from(lanes)?).await?;
    // A connection for each request: llama-server closes those that are idle at the moment in which they would be used again.
    let client = Client::builder().no_proxy().pool_max_idle_per_host(0).build()?;
    let mut sides = sides(arguments, &hosts, &Config::load(&folder)?, &client).await?;
    let mut figures = Map::new();
    for streams in STREAMS {
        figures.insert(format!("s1_{streams}"), throughput(&client, &mut sides, streams, arguments).await?);
    }
    figures.insert("s2".to_owned(), first_text(&client, &mut sides, arguments).await?);
    hosts.stop().await;
    Ok(figures.into())
}

/// The metered host, the bare one, and the other server itself if there is one.
async fn sides(arguments: &Arguments, hosts: &Hosts, config: &Config, client: &Client) -> anyhow::Result<Vec<Side>> {
    // Without a token that ends them, all answers are as long as they may be.
    let ends: Map<String, Value> = config.eos_token_ids.iter().map(|id| (id.to_string(), json!(-100))).collect();
    let body = json!({
        "model": "model", "prompt": PROMPT, "stream": true, "stream_options": {"include_usage": true},
        "temperature": 0, "logit_bias": ends,
    });
    let lanes = STREAMS.into_iter().max().unwrap_or_default();
    let payers = (0..u64::try_from(lanes)?).map(|lane| hosts.world.payer(lane)).collect::<anyhow::Result<_>>()?;
    let mut sides = vec![
        Side { name: "metered", url: hosts.metered.clone(), body: body.clone(), payers },
        Side { name: "bare", url: hosts.bare.clone(), body: body.clone(), payers: Vec::new() },
    ];
    if let Some(base) = &arguments.upstream {
        let url = base.as_str().trim_end_matches('/').to_owned();
        let body = upstream_body(body, &model_of(client, base).await?);
        sides.push(Side { name: "direct", url, body, payers: Vec::new() });
    }
    Ok(sides)
}

/// The same request as the host makes it: where servers have defaults of their own, it says what it means.
fn upstream_body(mut body: Value, model: &str) -> Value {
    body["model"] = json!(model);
    for (name, value) in [
        ("top_k", json!(-1)),
        ("top_p", json!(1)),
        ("min_p", json!(0)),
        ("repetition_penalty", json!(1)),
        ("repeat_penalty", json!(1)),
        ("cache_prompt", json!(false)),
    ] {
        body[name] = value;
    }
    body
}

/// The name of the only model there.
async fn model_of(client: &Client, base: &Url) -> anyhow::Result<String> {
    let url = format!("{}/models", base.as_str().trim_end_matches('/'));
    let listed: Value = client.get(url).send().await?.json().await?;
    Ok(listed["data"][0]["id"].as_str().context("a model")?.to_owned())
}

/// S1: all tokens of the streams over the time until the last one ends.
async fn throughput(
    client: &Client,
    sides: &mut [Side],
    streams: usize,
    arguments: &Arguments,
) -> anyhow::Result<Value> {
    let mut measured: Vec<Measured> = sides.iter().map(|_| Measured::default()).collect();
    for round in 0..=arguments.rounds {
        for at in turns(round, sides.len()) {
            let (began, spent) = (Instant::now(), processor_time()?.unwrap_or_default());
            let answers = sides[at].ask(client, streams, arguments.tokens).await?;
            let took = began.elapsed().as_secs_f64();
            // The first round warms caches.
            if round > 0 {
                let tokens = answers.iter().map(|answer| answer.tokens).sum::<u64>();
                measured[at].tokens += tokens;
                measured[at].tokens_per_s.push(tokens as f64 / took);
                measured[at].processor += processor_time()?.unwrap_or_default() - spent;
            }
        }
    }
    let mut line = format!("S1  {streams:>2} streams");
    let mut figures = Map::new();
    for (side, measured) in sides.iter().zip(&measured) {
        let speed = median(&measured.tokens_per_s);
        let processor_us = measured.processor.as_micros() as f64 / measured.tokens as f64;
        line += &format!("   {} {speed:.1} tok/s ({} tokens, {processor_us:.0} µs)", side.name, measured.tokens);
        let (speeds, tokens) = (&measured.tokens_per_s, measured.tokens);
        let found = json!({ "tokens_per_s": speeds, "tokens": tokens, "processor_us_a_token": processor_us });
        figures.insert(side.name.to_owned(), found);
    }
    for (above, beneath) in pairs(sides.len()) {
        let (ours, theirs) = (&measured[above].tokens_per_s, &measured[beneath].tokens_per_s);
        let ratios: Vec<f64> = ours.iter().zip(theirs).map(|(ours, theirs)| ours / theirs).collect();
        let name = format!("{}/{}", sides[above].name, sides[beneath].name);
        line += &format!("   {name} {:.3}", median(&ratios));
        figures.insert(name, json!(median(&ratios)));
    }
    println!("{line}");
    Ok(figures.into())
}

/// S2: one request at a time, until its first text is there.
async fn first_text(client: &Client, sides: &mut [Side], arguments: &Arguments) -> anyhow::Result<Value> {
    let mut waits: Vec<Vec<f64>> = vec![Vec::new(); sides.len()];
    for round in 0..arguments.rounds * arguments.requests {
        for at in turns(round, sides.len()) {
            let answers = sides[at].ask(client, 1, 1).await?;
            waits[at].extend(answers.iter().map(|answer| answer.first.as_secs_f64() * 1e3));
        }
    }
    waits.iter_mut().for_each(|waits| waits.sort_unstable_by(f64::total_cmp));
    let mut figures = Map::new();
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let at = |side: usize| percentile(&waits[side], share);
        let mut line = format!("S2  {name}");
        for (index, side) in sides.iter().enumerate() {
            line += &format!("   {} {:.3} ms", side.name, at(index));
            figures.insert(format!("{}_{name}_ms", side.name), json!(at(index)));
        }
        println!("{line}   added by metering {:.3} ms", at(0) - at(1));
    }
    Ok(figures.into())
}

impl Side {
    /// So many streams at once, each of so many tokens.
    async fn ask(&mut self, client: &Client, streams: usize, tokens: usize) -> anyhow::Result<Vec<Answer>> {
        self.body["max_tokens"] = json!(tokens);
        let requests = (0..streams).map(|stream| {
            let request = client.post(format!("{}/completions", self.url)).json(&self.body);
            let voucher = self.payers.get(stream).map(Payer::header);
            voucher.into_iter().fold(request, |request, voucher| request.header("hallmark-voucher", voucher))
        });
        let mut answers = Vec::with_capacity(streams);
        for reply in client::streams(requests).await? {
            let answer = reply.answered().with_context(|| format!("the {} side", self.name))?;
            ensure!(answer.is_full, "an answer of the {} side ended before its {tokens} tokens", self.name);
            answers.push(answer);
        }
        for (payer, answer) in self.payers.iter_mut().zip(&answers) {
            payer.accept(answer.hallmark.as_ref().context("a statement")?)?;
        }
        Ok(answers)
    }
}

/// The order of a round: each side is first as often as the others.
fn turns(round: usize, sides: usize) -> impl Iterator<Item = usize> {
    (0..sides).map(move |turn| (turn + round) % sides)
}

/// Each side over each one after it.
fn pairs(sides: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..sides).flat_map(move |above| (above + 1..sides).map(move |beneath| (above, beneath)))
}
