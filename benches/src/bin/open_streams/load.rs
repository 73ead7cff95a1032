//! The customers of a part, and what they see.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use benches::{
    client::{self, Answer, Reply},
    percentile,
    world::{Payer, World},
};
use model::Config;
use reqwest::Client;
use serde_json::{Map, Value, json};
use tokio::time;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Arguments,
    host::HostProcess,
    slow::{Pace, Reader},
};

const PROMPT: &str = "Once upon a time there was";
/// Between two looks at what is open.
const LOOK: Duration = Duration::from_millis(100);
/// In which the engine ends the long answers that nobody reads.
const SETTLE: Duration = Duration::from_secs(10);

/// Who asks for what, and reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readers {
    /// Some answers are long; all are read as they come.
    AllRead,
    /// Of the long ones half are read slowly, and half not at all.
    LongOnesLag,
    /// All answers are short, and read as they come.
    ShortOnly,
}

/// Asks the host.
pub(crate) struct Load<'a> {
    arguments: &'a Arguments,
    host: &'a HostProcess,
    world: &'a World,
    client: Client,
    /// Without a token that ends them, all answers are as long as they may be.
    ends: Map<String, Value>,
    next_lane: u64,
}

/// What became of a part.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    name: &'static str,
    asked: usize,
    /// With the time at which they ended, and whether they were short.
    answers: Vec<(Answer, Duration, bool)>,
    refusals: BTreeMap<String, usize>,
    /// In milliseconds.
    refused_after: Vec<f64>,
    broken: BTreeMap<String, usize>,
    lag: Option<Lag>,
    most_open: u64,
    peak_mib: u64,
}

/// What became of those who do not read.
#[derive(Clone, Copy, Debug, Default)]
struct Lag {
    begun: usize,
    slow: usize,
    read_to_the_end: usize,
    /// Streams that the host still held for them when the engine was done.
    held: u64,
    /// Streams that it held once they had hung up.
    held_afterwards: u64,
}

impl<'a> Load<'a> {
    pub(crate) fn new(
        arguments: &'a Arguments,
        host: &'a HostProcess,
        world: &'a World,
        config: &Config,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            arguments,
            host,
            world,
            // Connections end with their streams, so that none of one part is held in the next.
            client: Client::builder().no_proxy().pool_max_idle_per_host(0).build()?,
            ends: config.eos_token_ids.iter().map(|id| (id.to_string(), json!(-100))).collect(),
            next_lane: 0,
        })
    }

    /// Long answers in all of the engine's places.
    pub(crate) async fn warm_up(&mut self) -> anyhow::Result<()> {
        let body = self.body(true);
        let mut requests = Vec::new();
        for _ in 0..self.arguments.streams {
            let voucher = self.payer()?.header();
            requests.push(self.request(&body, &voucher));
        }
        for reply in client::streams(requests).await? {
            reply.answered()?;
        }
        Ok(())
    }

    /// Opens so many streams at once, and waits until those that are read have ended.
    pub(crate) async fn run(&mut self, name: &'static str, count: usize, readers: Readers) -> anyhow::Result<Seen> {
        let bodies = [self.body(false), self.body(true)];
        let mut customers = Vec::with_capacity(count);
        for index in 0..count {
            let is_long = readers != Readers::ShortOnly && self.is_long(index);
            // Signing takes as much time as admission: it is done before.
            customers.push((is_long, self.payer()?.header()));
        }
        self.host.forget_peak()?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let watch = tasks.spawn(most_open(self.host.operator().clone(), stop.clone()));
        let began = Instant::now();
        let (mut reading, mut lagging) = (Vec::new(), Vec::new());
        for (is_long, voucher) in customers {
            let body = &bodies[usize::from(is_long)];
            if is_long && readers == Readers::LongOnesLag {
                let pace = if lagging.len() % 2 == 0 { Pace::Slow } else { Pace::Stalled };
                let (url, body) = (self.host.url.clone(), body.to_string());
                let opening = tasks.spawn(async move { Reader::open(&url, &body, &voucher, pace).await });
                lagging.push((pace, opening));
            } else {
                let stream = client::stream(self.request(body, &voucher));
                reading.push((!is_long, tasks.spawn(async move { (stream.await, began.elapsed()) })));
            }
        }
        let mut seen = Seen { name, asked: count, ..Seen::default() };
        for (is_short, reading) in reading {
            let (reply, at) = reading.await?;
            seen.note(reply, at, is_short);
        }
        if !lagging.is_empty() {
            seen.lag = Some(self.wait_for(lagging, &tasks, &mut seen.broken).await?);
        }
        stop.cancel();
        seen.most_open = watch.await??;
        seen.peak_mib = self.host.memory()?.peak_mib();
        Ok(seen)
    }

    /// Lets those who lag read until the engine has nothing more to do, and hangs up.
    async fn wait_for(
        &self,
        lagging: Vec<(Pace, tokio::task::JoinHandle<anyhow::Result<Reader>>)>,
        tasks: &TaskTracker,
        broken: &mut BTreeMap<String, usize>,
    ) -> anyhow::Result<Lag> {
        let mut lag = Lag::default();
        let mut running = Vec::new();
        for (pace, opening) in lagging {
            match opening.await? {
                Ok(reader) => {
                    lag.begun += 1;
                    lag.slow += usize::from(pace == Pace::Slow);
                    running.push(tasks.spawn(reader.read()));
                }
                Err(error) => *broken.entry(format!("{error:#}")).or_default() += 1,
            }
        }
        time::sleep(SETTLE).await;
        lag.held = self.host.operator().open_requests().await?;
        for reading in running {
            if reading.is_finished() {
                match reading.await? {
                    Ok(true) => lag.read_to_the_end += 1,
                    Ok(false) => *broken.entry("a slow stream ended without [DONE]".to_owned()).or_default() += 1,
                    Err(error) => *broken.entry(format!("{error:#}")).or_default() += 1,
                }
            } else {
                reading.abort();
            }
        }
        time::sleep(Duration::from_secs(1)).await;
        lag.held_afterwards = self.host.operator().open_requests().await?;
        Ok(lag)
    }

    /// A customer who has not asked before.
    fn payer(&mut self) -> anyhow::Result<Payer> {
        let payer = self.world.payer(self.next_lane)?;
        self.next_lane += 1;
        Ok(payer)
    }

    /// Long ones stand between the others.
    fn is_long(&self, index: usize) -> bool {
        let (long, open) = (self.arguments.long, self.arguments.open);
        (index + 1) * long / open > index * long / open
    }

    fn body(&self, is_long: bool) -> Value {
        let tokens = if is_long { self.arguments.long_tokens } else { self.arguments.tokens };
        let mut body = json!({
            "model": "model", "prompt": PROMPT, "max_tokens": tokens, "stream": true,
            "stream_options": {"include_usage": true}, "temperature": 1, "seed": 7, "logit_bias": self.ends,
        });
        if is_long {
            // The most that a token can be to a host whose client does not take it.
            body["logprobs"] = json!(5);
        }
        body
    }

    fn request(&self, body: &Value, voucher: &str) -> reqwest::RequestBuilder {
        let request = self.client.post(format!("{}/completions", self.host.url)).json(body);
        request.header("hallmark-voucher", voucher)
    }
}

async fn most_open(operator: super::host::Operator, stop: CancellationToken) -> anyhow::Result<u64> {
    let mut most = 0;
    while !stop.is_cancelled() {
        most = operator.open_requests().await?.max(most);
        time::sleep(LOOK).await;
    }
    Ok(most)
}

impl Seen {
    fn note(&mut self, reply: Reply, at: Duration, is_short: bool) {
        match reply {
            Reply::Answered(answer) => self.answers.push((answer, at, is_short)),
            Reply::Refused { status, code, took } => {
                *self.refusals.entry(format!("{status} {code}")).or_default() += 1;
                self.refused_after.push(took.as_secs_f64() * 1e3);
            }
            Reply::BrokenOff { why } => *self.broken.entry(why).or_default() += 1,
        }
    }

    /// When the last of the short answers was there.
    pub(crate) fn last_short(&self) -> Duration {
        let short = self.answers.iter().filter(|(.., is_short)| *is_short);
        short.map(|(_, at, _)| *at).max().unwrap_or_default()
    }

    fn tokens_per_s(&self) -> f64 {
        let tokens: u64 = self.answers.iter().map(|(answer, ..)| answer.tokens).sum();
        let last = self.answers.iter().map(|(_, at, _)| *at).max().unwrap_or_default();
        tokens as f64 / last.as_secs_f64()
    }

    /// Of the short answers: seconds to the first text, and from it to the end.
    fn waits(&self) -> [Vec<f64>; 2] {
        let short = || self.answers.iter().filter(|(.., is_short)| *is_short).map(|(answer, ..)| answer);
        let mut waits = [
            short().map(|answer| answer.first.as_secs_f64()).collect::<Vec<_>>(),
            short().map(|answer| (answer.took - answer.first).as_secs_f64()).collect(),
        ];
        waits.iter_mut().for_each(|waits| waits.sort_unstable_by(f64::total_cmp));
        waits
    }

    /// Memory that the streams took, in KiB for each.
    fn kib_a_stream(&self, idle_mib: u64) -> u64 {
        self.peak_mib.saturating_sub(idle_mib) * 1024 / u64::try_from(self.asked).unwrap_or(u64::MAX).max(1)
    }

    pub(crate) fn print(&self, idle_mib: u64) -> anyhow::Result<()> {
        let Self { name, asked, answers, refusals, broken, most_open, peak_mib, .. } = self;
        println!("\n{name}: {asked} streams, {most_open} open at once");
        print!("  answered {}", answers.len());
        for (what, count) in refusals.iter().chain(broken) {
            print!(", {count} × {what}");
        }
        println!();
        if !self.refused_after.is_empty() {
            let mut after = self.refused_after.clone();
            after.sort_unstable_by(f64::total_cmp);
            let slowest = after.last().context("a refusal")?;
            println!("  refused after p50 {:.0} ms, at most {slowest:.0} ms", percentile(&after, 0.5));
        }
        if let Some(Lag { begun, slow, read_to_the_end, held, held_afterwards }) = self.lag {
            println!("  {slow} read slowly ({read_to_the_end} to the end), {} not at all", begun - slow);
            println!(
                "  {held} of them held by the host when the engine was done, {held_afterwards} once they had hung up"
            );
        }
        let [first, rest] = self.waits();
        println!("  {:.0} tokens/s to those who read", self.tokens_per_s());
        for (what, waits) in [("first text, the queue included", first), ("from there to the end", rest)] {
            println!("  {what}: p50 {:.2} s, p99 {:.2} s", percentile(&waits, 0.5), percentile(&waits, 0.99));
        }
        println!(
            "  peak {peak_mib} MiB, {:.2} of idle, {} KiB a stream",
            *peak_mib as f64 / idle_mib as f64,
            self.kib_a_stream(idle_mib)
        );
        Ok(())
    }

    pub(crate) fn json(&self) -> Value {
        let [first, rest] = self.waits();
        json!({
            "name": self.name,
            "asked": self.asked,
            "answered": self.answers.len(),
            "refused": self.refusals,
            "broken": self.broken,
            "most_open": self.most_open,
            "peak_mib": self.peak_mib,
            "tokens_per_s": self.tokens_per_s(),
            "last_short_s": self.last_short().as_secs_f64(),
            "first_text_p50_s": percentile(&first, 0.5),
            "first_text_p99_s": percentile(&first, 0.99),
            "rest_p99_s": percentile(&rest, 0.99),
        })
    }
}
