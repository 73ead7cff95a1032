//! A chain with a leased model, a host that serves it, and a payer.

use std::{
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use alloy::{primitives::U256, providers::Provider as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use licensing_contracts::{
    actions::{self, payments},
    bindings::PaymentEscrow,
    client::{Action, ChainClient, Sender, SenderSettings, TransactionJournal},
    deploy::ProtocolSetup,
    deployment::Deployment,
    devchain::{Config, Server},
    devnet::{
        DevAccount, Devnet, HOST, LEASE_KEY, PAYER, SESSION_KEY,
        market::{Market, Offered},
        sender_settings, signer,
    },
    eigenlayer::core::{Cargo, CoreBytecode},
};
use model::chat::UnixSeconds as Seconds1970;
use protocol::{
    Address, B256,
    counts::UsageCounts,
    ids::{ChainId, ChannelId, Lane, LeaseId, StatementDigest},
    messages::{Channel, Domain, Message as _, SessionGrant, Signed, Statement, Voucher},
    money::Prices,
    signature::SigningKey,
    units::{Amount, Seconds, UnixMilliseconds, UnixSeconds},
};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use serving::{
    AppState, Limits, ServedModel,
    chain::WatchSettings,
    host::{HostSetup, LeaseSetup, Listeners, MeteredHost},
    settlement::SettlementSettings,
    tls::Tls,
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::{Ending, ScriptedEngine, byte_model, install_tls};

/// EigenLayer's bytecode, from where the command line keeps it.
fn core() -> &'static CoreBytecode {
    static CORE: OnceLock<CoreBytecode> = OnceLock::new();
    CORE.get_or_init(|| {
        let home = std::env::home_dir().unwrap();
        let cache = variable("XDG_CACHE_HOME").unwrap_or_else(|| home.join(".cache")).join("hallmark");
        let cargo_home = variable("CARGO_HOME").unwrap_or_else(|| home.join(".cargo"));
        let cargo = Cargo { program: env!("CARGO").into(), home: Some(cargo_home) };
        CoreBytecode::load(&cache, &cargo).unwrap()
    })
}

fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// The system's clock.
pub(crate) fn clock() -> UnixMilliseconds {
    #[expect(clippy::disallowed_methods, reason = "blocks have the system's time")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UnixMilliseconds::new(u64::try_from(now.as_millis()).unwrap())
}

/// A chain on which a model is leased by the host.
pub(crate) struct World {
    pub(crate) devnet: Devnet,
    pub(crate) market: Market,
    folder: TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ProtocolSetup::development()).await
    }

    pub(crate) async fn with(setup: ProtocolSetup) -> Self {
        Self::of(setup, &byte_model(ScriptedEngine::saying("", Ending::Finish))).await
    }

    /// A world in which this model is leased.
    pub(crate) async fn of(setup: ProtocolSetup, model: &ServedModel) -> Self {
        install_tls();
        let config = Config { idle_block_after: Some(Duration::from_secs(1)), ..Config::default() };
        let devnet = Devnet::start(config, core(), &setup).await.unwrap();
        let offered = Offered {
            manifest: model.manifest.unwrap_or(B256::repeat_byte(1).into()),
            tokenizer: model.tokenizer.digest(),
            template: model.template_digest(),
        };
        let market = devnet.open_market(&offered).await.unwrap();
        Self { devnet, market, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn client(&self) -> ChainClient {
        self.devnet.client()
    }

    /// Serves the chain over HTTP until the token is cancelled.
    pub(crate) async fn serve(&self, port: u16) -> (u16, CancellationToken, Server) {
        let stop = CancellationToken::new();
        let server = self.devnet.chain().serve(([127, 0, 0, 1], port).into(), &stop).await.unwrap();
        let url: url::Url = server.url().parse().unwrap();
        (url.port().unwrap(), stop, server)
    }

    pub(crate) fn to(&self) -> &Deployment {
        self.devnet.deployment()
    }

    pub(crate) fn token(&self) -> Address {
        self.to().test_token.unwrap()
    }

    pub(crate) fn books(&self) -> String {
        format!("sqlite:{}", self.folder.path().join("books.sqlite").display())
    }

    pub(crate) fn sender(&self, account: &DevAccount) -> Sender {
        self.sender_with(account, sender_settings())
    }

    fn sender_with(&self, account: &DevAccount, settings: SenderSettings) -> Sender {
        let client = self.client();
        let journal = TransactionJournal::open(self.folder.path(), client.chain_id(), account.address).unwrap();
        Sender::new(client, signer(account), journal, settings)
    }

    /// Takes the newest blocks back, down to this one, with everything that was in them.
    pub(crate) async fn take_back_to(&self, block: u64) {
        let depth = self.client().head().await.unwrap().number - block;
        let _: Value = self.client().provider().raw_request("anvil_reorg".into(), (depth, json!([]))).await.unwrap();
    }

    /// The newest block, with one on top of it that holds nothing.
    pub(crate) async fn newest_block(&self) -> u64 {
        let block = self.client().head().await.unwrap().number;
        let _: Value = self.client().provider().raw_request("evm_mine".into(), ()).await.unwrap();
        block
    }

    pub(crate) async fn send(&self, account: &DevAccount, action: &Action) {
        self.sender(account).send(action).await.unwrap();
    }

    /// Lets time pass on the chain.
    pub(crate) async fn wait(&self, seconds: u64) {
        let client = self.client();
        let _: Value = client.provider().raw_request("evm_increaseTime".into(), (U256::from(seconds),)).await.unwrap();
        let _: Value = client.provider().raw_request("evm_mine".into(), ()).await.unwrap();
    }

    /// What the escrow holds for an account.
    pub(crate) async fn earned(&self, account: Address) -> u128 {
        let call = PaymentEscrow::balanceCall { token: self.token(), account };
        self.client().call(self.to().payment_escrow, &call).await.unwrap().to()
    }

    /// A payer with a deposit of its own.
    pub(crate) async fn payer(&self, deposit: u128) -> Payer {
        static SALT: AtomicU64 = AtomicU64::new(1);
        let salt = SALT.fetch_add(1, Ordering::Relaxed);
        let channel = Channel {
            payer: PAYER.address,
            host: HOST.address,
            token: self.token(),
            withdraw_delay: Seconds::new(120),
            salt: B256::from(U256::from(salt)),
        };
        if deposit > 0 {
            self.deposit(&channel, deposit).await;
        }
        Payer::new(self, channel, &PAYER)
    }

    pub(crate) async fn deposit(&self, channel: &Channel, deposit: u128) {
        let mut sender = self.sender(&PAYER);
        let (to, amount) = (self.to(), Amount::new(deposit));
        let steps = actions::allow(&self.client(), self.token(), PAYER.address, to.payment_escrow, amount).await;
        for step in steps.unwrap() {
            sender.send(&step).await.unwrap();
        }
        sender.send(&payments::deposit(to, channel, amount).unwrap()).await.unwrap();
    }

    /// Lets the session key sign for a channel.
    pub(crate) async fn grant(&self, channel: &Channel, cap: u128, per_request_cap: u128) {
        let escrow = self.escrow();
        let grant = SessionGrant {
            channel: channel.digest(&escrow),
            key: SESSION_KEY.address,
            cap: Amount::new(cap),
            per_request_cap: Amount::new(per_request_cap),
            expires_at: UnixSeconds::new(clock().get() / 1_000 + 86_400),
            nonce: clock().get(),
        };
        let signed = Signed::sign(grant.clone(), &escrow, &SigningKey::from_bytes(&PAYER.key.0).unwrap());
        let action = payments::grant(self.to(), channel, &grant, &signed.signature).unwrap();
        self.send(&PAYER, &action).await;
    }

    pub(crate) fn escrow(&self) -> Domain<protocol::messages::PaymentEscrow> {
        Domain::new(ChainId::new(self.to().chain_id), self.to().payment_escrow)
    }

    pub(crate) fn manager(&self) -> Domain<protocol::messages::LeaseManager> {
        Domain::new(ChainId::new(self.to().chain_id), self.to().lease_manager)
    }

    /// Starts a host of the leased model.
    pub(crate) async fn host(&self, model: ServedModel) -> MeteredServer {
        self.host_with(model, Options::default()).await
    }

    pub(crate) async fn host_with(&self, model: ServedModel, options: Options) -> MeteredServer {
        let setup = HostSetup {
            books: options.books.unwrap_or_else(|| self.books()),
            client: options.client.unwrap_or_else(|| self.client()),
            deployment: self.to().clone(),
            watch: WatchSettings { poll: Duration::from_millis(50), most_age: options.most_age },
            sender: self.sender_with(&HOST, options.sender),
            settlement: SettlementSettings { every: Duration::from_millis(50) },
            leases: vec![LeaseSetup {
                id: self.market.lease,
                key: SigningKey::from_bytes(&LEASE_KEY.key.0).unwrap(),
                claim_from: Amount::new(options.claim_from),
                claim_least: Amount::new(1),
            }],
            journal_patience: Duration::from_secs(5),
            clock: options.clock,
        };
        let host = MeteredHost::open(setup).await.unwrap();
        let model = host.under(self.market.lease, model).await.unwrap();
        let seconds = || Seconds1970(clock().get() / 1_000);
        let state = AppState::metered(vec![model], options.limits, seconds, rand::random(), host.metering().clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let operator = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let operator_url = format!("http://{}", operator.local_addr().unwrap());
        let listeners = Listeners { customers: listener, tls: options.tls, operator: Some(operator) };
        let (shutdown, stopped) = oneshot::channel();
        let tasks = TaskTracker::new();
        let serving = host.serve(listeners, state, async {
            stopped.await.ok();
        });
        tasks.spawn(async { serving.await.unwrap() });
        let client = Client::builder().timeout(Duration::from_secs(60)).no_proxy().build().unwrap();
        MeteredServer { url, operator_url, client, shutdown: Some(shutdown), tasks }
    }
}

pub(crate) struct Options {
    pub(crate) books: Option<String>,
    pub(crate) client: Option<ChainClient>,
    pub(crate) tls: Option<Tls>,
    pub(crate) most_age: Duration,
    pub(crate) sender: SenderSettings,
    pub(crate) claim_from: u128,
    pub(crate) limits: Limits,
    pub(crate) clock: fn() -> UnixMilliseconds,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            books: None,
            client: None,
            tls: None,
            most_age: Duration::from_secs(60),
            sender: sender_settings(),
            claim_from: 1,
            limits: Limits::default(),
            clock,
        }
    }
}

/// A metered host on a free port.
pub(crate) struct MeteredServer {
    pub(crate) url: String,
    pub(crate) operator_url: String,
    pub(crate) client: Client,
    shutdown: Option<oneshot::Sender<()>>,
    tasks: TaskTracker,
}

impl MeteredServer {
    pub(crate) async fn post(&self, path: &str, headers: &[(&str, String)], body: &Value) -> Response {
        let request = self.client.post(format!("{}{path}", self.url)).json(body);
        headers.iter().fold(request, |request, (name, value)| request.header(*name, value)).send().await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.client.get(format!("{}{path}", self.url)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// A chat, paid by the payer's next voucher; the payer accepts the statement.
    pub(crate) async fn chat(&self, payer: &mut Payer, ceiling: u128, body: &Value) -> Value {
        let response = self.post("/v1/chat/completions", &[payer.header(ceiling)], body).await;
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(status, 200, "{answer}");
        payer.accept(&answer["hallmark"]);
        answer
    }

    /// Status and body of a chat that is refused.
    pub(crate) async fn refused(&self, headers: &[(&str, String)], body: &Value) -> (u16, Value) {
        let response = self.post("/v1/chat/completions", headers, body).await;
        (response.status().as_u16(), response.json().await.unwrap())
    }

    pub(crate) async fn stop(mut self) {
        self.shutdown.take().unwrap().send(()).unwrap();
        self.tasks.close();
        tokio::time::timeout(Duration::from_secs(60), self.tasks.wait()).await.unwrap();
    }
}

/// One lane of a channel, and what its payer accepted.
#[derive(Clone)]
pub(crate) struct Payer {
    pub(crate) channel: Channel,
    pub(crate) id: ChannelId,
    pub(crate) lease: LeaseId,
    pub(crate) lane: Lane,
    pub(crate) counts: UsageCounts,
    pub(crate) head: Option<StatementDigest>,
    pub(crate) charged: u128,
    pub(crate) expires_in_s: u64,
    pub(crate) prices: Prices,
    key: B256,
    escrow: Domain<protocol::messages::PaymentEscrow>,
    manager: Domain<protocol::messages::LeaseManager>,
}

impl Payer {
    pub(crate) fn new(world: &World, channel: Channel, key: &DevAccount) -> Self {
        Self {
            id: channel.digest(&world.escrow()),
            channel,
            lease: world.market.lease,
            lane: Lane::new(0),
            counts: UsageCounts::default(),
            head: None,
            charged: 0,
            expires_in_s: 86_400,
            prices: world.market.prices,
            key: key.key,
            escrow: world.escrow(),
            manager: world.manager(),
        }
    }

    /// The same channel on another lane, on which nothing happened yet.
    pub(crate) fn on_lane(&self, lane: u64) -> Self {
        Self { lane: Lane::new(lane), counts: UsageCounts::default(), head: None, charged: 0, ..self.clone() }
    }

    /// A lane of the channel that was never used.
    pub(crate) fn on_new_lane(&self) -> Self {
        static LANE: AtomicU64 = AtomicU64::new(1 << 32);
        self.on_lane(LANE.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn with_key(&self, key: &DevAccount) -> Self {
        Self { key: key.key, ..self.clone() }
    }

    pub(crate) fn voucher(&self, ceiling: u128) -> Signed<Voucher> {
        let voucher = Voucher {
            channel: self.id,
            lease: self.lease,
            lane: self.lane,
            counts: self.counts,
            ceiling: Amount::new(ceiling),
            statements_head: self.head,
            expires_at: UnixSeconds::new(clock().get() / 1_000 + self.expires_in_s),
        };
        Signed::sign(voucher, &self.escrow, &SigningKey::from_bytes(&self.key.0).unwrap())
    }

    pub(crate) fn header(&self, ceiling: u128) -> (&'static str, String) {
        let sent = json!({ "channel": self.channel, "voucher": self.voucher(ceiling) });
        ("hallmark-voucher", STANDARD.encode(sent.to_string()))
    }

    /// Checks a statement as a gateway would, and accepts it.
    pub(crate) fn accept(&mut self, hallmark: &Value) -> Signed<Statement> {
        let signed: Signed<Statement> =
            serde_json::from_value(hallmark["statement"].clone()).unwrap_or_else(|error| panic!("{error}: {hallmark}"));
        signed.verify(&self.manager, LEASE_KEY.address).unwrap();
        let statement = &signed.message;
        assert_eq!((statement.channel, statement.lease, statement.lane), (Some(self.id), self.lease, self.lane));
        assert_eq!((statement.step.before(), statement.previous), (self.counts, self.head));
        let due = self.prices.charge(statement.step.before(), statement.step.after()).unwrap();
        assert_eq!(statement.charge, due, "what the lease's prices give");
        let record = hallmark["record"].as_str().unwrap();
        assert_eq!(statement.request_hash, protocol::transcript::request_hash(record));
        let digest = statement.digest(&self.manager);
        assert_eq!(hallmark["statement_id"], json!(digest));
        (self.counts, self.head) = (statement.step.after(), Some(digest));
        self.charged += statement.charge.get();
        signed
    }
}

/// Waits until something holds, for as long as anybody would.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    for _ in 0..400 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("waited in vain: {what}");
}
