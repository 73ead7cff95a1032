//! What metering costs: the metered host beside the same engine without vouchers, statements and journal.
//!
//! Both serve over HTTP in this process, by turns, to the same client. The chain is a development chain; the books are in SQLite
//! on the disk, synced at each commit.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::{
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use benches::median;
use clap::Parser;
use licensing_contracts::{
    actions::{self, payments},
    client::{Sender, TransactionJournal},
    deploy::ProtocolSetup,
    devchain::Config,
    devnet::{
        DevAccount, Devnet, HOST, LEASE_KEY, PAYER,
        market::{Market, Offered},
        sender_settings, signer,
    },
    eigenlayer::core::{Cargo, CoreBytecode},
};
use model::{Model, chat::UnixSeconds as ModelSeconds};
use protocol::{
    B256,
    counts::UsageCounts,
    ids::{ChainId, ChannelId, Lane, StatementDigest},
    messages::{Channel, Domain, Message as _, Signed, Statement, Voucher},
    signature::SigningKey,
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use reqwest::Client;
use serde_json::{Value, json};
use serving::{
    AppState, Limits, ServedModel,
    chain::WatchSettings,
    engine::{
        CompletionStream, Engine, EngineError, FinishReason, GeneratedToken, GenerationRequest,
        builtin::BuiltinSettings, completion_channel,
    },
    host::{HostSetup, LeaseSetup, Listeners, MeteredHost},
    settlement::SettlementSettings,
};
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures S1, S2 and M2 of the design's targets
#[derive(Debug, Parser)]
struct Arguments {
    /// The model of S1 and S2
    #[arg(long, default_value = "bundled")]
    model: String,

    /// Rounds; each measures both hosts
    #[arg(long, default_value_t = 5)]
    rounds: usize,

    /// Tokens of an answer in S1
    #[arg(long, default_value_t = 64)]
    tokens: usize,

    /// Requests of S2, on each host in each round
    #[arg(long, default_value_t = 100)]
    requests: usize,

    /// Seconds of M2
    #[arg(long, default_value_t = 10)]
    seconds: u64,

    /// Connections of M2
    #[arg(long, default_value_t = 64)]
    connections: u64,
}

fn now() -> UnixMilliseconds {
    #[expect(clippy::disallowed_methods, reason = "blocks have the system's time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMilliseconds::new(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn seconds() -> ModelSeconds {
    ModelSeconds(now().second_down().get())
}

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

/// A chain with a lease, and a deposit that no bench can spend.
struct World {
    devnet: Devnet,
    market: Market,
    channel: Channel,
    folder: tempfile::TempDir,
}

impl World {
    async fn new(model: &ServedModel) -> anyhow::Result<Self> {
        let home = std::env::home_dir().context("a home folder")?;
        let cargo = Cargo { program: "cargo".into(), home: Some(home.join(".cargo")) };
        let core = CoreBytecode::load(&home.join(".cache/hallmark"), &cargo)?;
        let config = Config { idle_block_after: Some(Duration::from_secs(1)), ..Config::default() };
        let devnet = Devnet::start(config, &core, &ProtocolSetup::development()).await?;
        let manifest = model.manifest.context("a manifest")?;
        let offered = Offered { manifest, tokenizer: model.tokenizer.digest(), template: model.template_digest() };
        let market = devnet.open_market(&offered).await?;
        let to = devnet.deployment().clone();
        let token = to.test_token.context("a test token")?;
        let channel = Channel {
            payer: PAYER.address,
            host: HOST.address,
            token,
            withdraw_delay: Seconds::new(120),
            salt: B256::ZERO,
        };
        let world = Self { devnet, market, channel, folder: tempfile::tempdir()? };
        let deposit = Amount::new(900_000_000_000);
        let mut payer = world.sender(&PAYER)?;
        let client = world.devnet.client();
        for step in actions::allow(&client, token, PAYER.address, to.payment_escrow, deposit).await? {
            payer.send(&step).await?;
        }
        payer.send(&payments::deposit(&to, &world.channel, deposit)?).await?;
        Ok(world)
    }

    fn sender(&self, account: &DevAccount) -> anyhow::Result<Sender> {
        let client = self.devnet.client();
        let journal = TransactionJournal::open(self.folder.path(), client.chain_id(), account.address)?;
        Ok(Sender::new(client, signer(account), journal, sender_settings()))
    }

    /// Puts a model up twice: under the lease, and without.
    async fn serve(
        &self,
        model: ServedModel,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> anyhow::Result<[String; 2]> {
        let setup = HostSetup {
            books: format!("sqlite:{}", self.folder.path().join(format!("{}.sqlite", model.id)).display()),
            client: self.devnet.client(),
            deployment: self.devnet.deployment().clone(),
            watch: WatchSettings { poll: Duration::from_secs(1), most_age: Duration::from_secs(60) },
            sender: self.sender(&HOST)?,
            settlement: SettlementSettings { every: Duration::from_secs(3_600) },
            leases: vec![LeaseSetup {
                id: self.market.lease,
                key: SigningKey::from_bytes(&LEASE_KEY.key.0)?,
                claim_from: Amount::MAX,
                claim_least: Amount::MAX,
            }],
            journal_patience: Duration::from_secs(10),
            clock: now,
        };
        let host = MeteredHost::open(setup).await?;
        let metered = host.under(self.market.lease, model.clone()).await?;
        let state = AppState::metered(vec![metered], Limits::default(), seconds, 1, host.metering().clone());
        let bare = AppState::new(vec![model], Limits::default(), seconds, 2);
        let (first, second) = (TcpListener::bind("127.0.0.1:0").await?, TcpListener::bind("127.0.0.1:0").await?);
        let urls = [first.local_addr()?, second.local_addr()?].map(|address| format!("http://{address}"));
        let listeners = Listeners { customers: first, tls: None, operator: None };
        tasks.spawn(host.serve(listeners, state, stop.clone().cancelled_owned()));
        tasks.spawn(serving::serve(second, bare, stop.clone().cancelled_owned()));
        Ok(urls)
    }

    fn payer(&self, lane: u64) -> anyhow::Result<Payer> {
        let to = self.devnet.deployment();
        let escrow = Domain::new(ChainId::new(to.chain_id), to.payment_escrow);
        Ok(Payer {
            id: self.channel.digest(&escrow),
            channel: serde_json::to_value(&self.channel)?,
            lease: self.market.lease,
            lane: Lane::new(lane),
            counts: UsageCounts::ZERO,
            head: None,
            key: SigningKey::from_bytes(&PAYER.key.0)?,
            escrow,
            manager: Domain::new(ChainId::new(to.chain_id), to.lease_manager),
        })
    }
}

/// One lane's customer.
struct Payer {
    id: ChannelId,
    channel: Value,
    lease: protocol::ids::LeaseId,
    lane: Lane,
    counts: UsageCounts,
    head: Option<StatementDigest>,
    key: SigningKey,
    escrow: Domain<protocol::messages::PaymentEscrow>,
    manager: Domain<protocol::messages::LeaseManager>,
}

impl Payer {
    fn header(&self) -> String {
        let voucher = Voucher {
            channel: self.id,
            lease: self.lease,
            lane: self.lane,
            counts: self.counts,
            ceiling: Amount::new(1_000_000),
            statements_head: self.head,
            expires_at: UnixSeconds::new(now().second_down().get() + 86_400),
        };
        let voucher = Signed::sign(voucher, &self.escrow, &self.key);
        STANDARD.encode(json!({ "channel": self.channel, "voucher": voucher }).to_string())
    }

    fn accept(&mut self, hallmark: &Value) -> anyhow::Result<()> {
        let signed: Signed<Statement> = serde_json::from_value(hallmark["statement"].clone())?;
        self.counts = signed.message.step.after();
        self.head = Some(signed.message.digest(&self.manager));
        Ok(())
    }
}

/// One stream: the time to its first text, its whole time, and its tokens.
async fn stream(
    client: &Client,
    url: &str,
    body: &Value,
    payer: Option<&mut Payer>,
) -> anyhow::Result<(Duration, Duration, u64)> {
    let mut request = client.post(format!("{url}/v1/completions")).json(body);
    if let Some(payer) = &payer {
        request = request.header("hallmark-voucher", payer.header());
    }
    let began = Instant::now();
    let mut response = request.send().await?;
    ensure!(response.status() == 200, "{}", response.text().await?);
    let mut first = None;
    let mut text = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        first.get_or_insert_with(|| began.elapsed());
        text.extend_from_slice(&chunk);
    }
    let took = began.elapsed();
    let text = String::from_utf8(text)?;
    let last = text.lines().filter_map(|line| line.strip_prefix("data: ")).rfind(|data| *data != "[DONE]");
    let last: Value = serde_json::from_str(last.context("an event")?)?;
    if let Some(payer) = payer {
        payer.accept(&last["hallmark"])?;
    }
    let tokens = last["usage"]["completion_tokens"].as_u64().context("usage")?;
    Ok((first.context("a first event")?, took, tokens))
}

/// S1: tokens per second over all streams.
async fn throughput(
    client: &Client,
    url: &str,
    body: &Value,
    payers: Option<&mut [Payer]>,
    streams: usize,
) -> anyhow::Result<f64> {
    let began = Instant::now();
    let mut tokens = 0;
    match payers {
        Some(payers) => {
            let all = payers.iter_mut().take(streams).map(|payer| stream(client, url, body, Some(payer)));
            for done in futures(all).await {
                tokens += done?.2;
            }
        }
        None => {
            for done in futures((0..streams).map(|_| stream(client, url, body, None))).await {
                tokens += done?.2;
            }
        }
    }
    Ok(tokens as f64 / began.elapsed().as_secs_f64())
}

/// Runs all at once on this task.
async fn futures<F: Future>(all: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    let mut set: Vec<_> = all.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        let mut is_pending = false;
        for (future, done) in &mut set {
            if done.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => is_pending = true,
                }
            }
        }
        if is_pending { std::task::Poll::Pending } else { std::task::Poll::Ready(()) }
    })
    .await;
    set.into_iter().filter_map(|(_, done)| done).collect()
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(index.saturating_sub(1).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

async fn engine_figures(arguments: &Arguments) -> anyhow::Result<Value> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let model = Arc::new(Model::load(&arguments.model)?);
    // Prefixes are kept for nobody, so that both hosts compute the same.
    let settings = BuiltinSettings { reuse_prefixes: false, ..BuiltinSettings::default() };
    let served = ServedModel::builtin("model", model, seconds(), &settings)?;
    let world = World::new(&served).await?;
    let [metered, bare] = world.serve(served, &tasks, &stop).await?;
    let client = Client::builder().no_proxy().build()?;
    let mut payers = (0..32).map(|lane| world.payer(lane)).collect::<anyhow::Result<Vec<_>>>()?;
    let body = |tokens: usize| {
        json!({
            "model": "model", "prompt": "Once upon a time there was", "max_tokens": tokens, "stream": true,
            "stream_options": {"include_usage": true}, "temperature": 1, "seed": 7,
        })
    };
    let answer = body(arguments.tokens);
    let mut figures = serde_json::Map::new();
    for streams in [1, 8, 32] {
        let mut ratios = Vec::new();
        let mut speeds = [Vec::new(), Vec::new()];
        for round in 0..=arguments.rounds {
            let ours = throughput(&client, &metered, &answer, Some(&mut payers), streams).await?;
            let theirs = throughput(&client, &bare, &answer, None, streams).await?;
            // The first one warms caches and connections.
            if round > 0 {
                ratios.push(ours / theirs);
                speeds[0].push(ours);
                speeds[1].push(theirs);
            }
        }
        println!(
            "S1  {streams:>2} streams   metered {:>8.1} tok/s   bare {:>8.1} tok/s   ratio {:.3}",
            median(&speeds[0]),
            median(&speeds[1]),
            median(&ratios)
        );
        figures.insert(format!("s1_{streams}"), json!({ "ratio": median(&ratios), "metered": median(&speeds[0]) }));
    }
    let short = body(1);
    let mut waits = [Vec::new(), Vec::new()];
    for _ in 0..arguments.rounds * arguments.requests {
        let (ours, ..) = stream(&client, &metered, &short, payers.first_mut()).await?;
        let (theirs, ..) = stream(&client, &bare, &short, None).await?;
        waits[0].push(ours.as_secs_f64() * 1e3);
        waits[1].push(theirs.as_secs_f64() * 1e3);
    }
    waits.iter_mut().for_each(|waits| waits.sort_unstable_by(f64::total_cmp));
    for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
        let (ours, theirs) = (percentile(&waits[0], share), percentile(&waits[1], share));
        println!("S2  {name}   metered {ours:.3} ms   bare {theirs:.3} ms   added {:.3} ms", ours - theirs);
        figures.insert(format!("s2_{name}"), json!({ "metered_ms": ours, "bare_ms": theirs }));
    }
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(figures.into())
}

/// M2: whole requests per second, each with a voucher, a statement and a synced journal.
async fn settled(arguments: &Arguments) -> anyhow::Result<Value> {
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
    let model = Model::load("bundled")?;
    let settings = BuiltinSettings { streams: NonZeroUsize::MIN, ..BuiltinSettings::default() };
    let served = ServedModel::builtin("instant", Arc::new(model), seconds(), &settings)?;
    let served = ServedModel { engine: Arc::new(Instantly), ..served };
    let world = World::new(&served).await?;
    let [metered, bare] = world.serve(served, &tasks, &stop).await?;
    let body = Arc::new(json!({ "model": "instant", "prompt": "Once upon", "max_tokens": 1 }));
    let mut rates = Vec::new();
    for (url, is_paid) in [(metered, true), (bare, false)] {
        let until = Instant::now() + Duration::from_secs(arguments.seconds);
        let began = Instant::now();
        let mut customers = Vec::new();
        for lane in 0..arguments.connections {
            let (url, body, mut payer) = (url.clone(), body.clone(), world.payer(1_000_000 + lane)?);
            customers.push(tasks.spawn(async move {
                let client = Client::builder().no_proxy().build()?;
                let mut done = 0_u64;
                while Instant::now() < until {
                    let mut request = client.post(format!("{url}/v1/completions")).json(&*body);
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
        for customer in customers {
            done += customer.await??;
        }
        rates.push(done as f64 / began.elapsed().as_secs_f64());
    }
    let [ours, theirs] = rates[..] else { anyhow::bail!("two rates") };
    let connections = arguments.connections;
    println!(
        "M2  {connections} connections   metered {ours:.0} requests/s   bare {theirs:.0} requests/s   (their client on the same cores)"
    );
    stop.cancel();
    tasks.close();
    tasks.wait().await;
    Ok(json!({ "requests_per_s": ours, "bare": theirs }))
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    rustls::crypto::ring::default_provider().install_default().map_err(|_| anyhow::anyhow!("a TLS provider twice"))?;
    let engine = engine_figures(&arguments).await?;
    let settled = settled(&arguments).await?;
    println!("{}", json!({ "engine": engine, "m2": settled }));
    Ok(())
}
