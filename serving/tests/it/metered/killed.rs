//! A host that is killed, again and again, at any moment, while customers use it.

use std::{
    collections::HashMap,
    env,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use licensing_contracts::{
    bindings::PaymentEscrow,
    client::{ChainClient, RpcSettings, Sender, TransactionJournal},
    deploy::ProtocolSetup,
    deployment::Deployment,
    devnet::{HOST, LEASE_KEY, sender_settings, signer},
};
use model::chat::UnixSeconds;
use protocol::{
    ids::{LeaseId, StatementDigest},
    messages::{Signed, Statement},
    signature::SigningKey,
    units::Amount,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};
use serving::{
    AppState, Limits,
    books::Books,
    chain::WatchSettings,
    host::{HostSetup, LeaseSetup, Listeners, MeteredHost},
    settlement::SettlementSettings,
};
use tokio::net::TcpListener;
use tokio_util::task::TaskTracker;

use super::world::{Payer, World, clock, eventually};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body, events, install_tls, with};

const KILLS: usize = 200;
const LANES: u64 = 6;
/// Where the process that is killed finds its folder.
const FOLDER: &str = "HALLMARK_TEST_KILLED_FOLDER";
/// Longest that it is left alone.
const LONGEST_LIFE_MS: u64 = 220;

/// The process that is killed: a whole metered host.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by the test beside it, as a process of its own"]
async fn process() {
    // With everything that is ignored, it runs without anybody to do something for.
    let Some(folder) = env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    install_tls();
    let deployment = Deployment::read(&folder.join("deployment.json")).unwrap();
    let rpc = std::fs::read_to_string(folder.join("rpc")).unwrap().parse().unwrap();
    let client = ChainClient::connect(&[rpc], Some(deployment.chain_id), &RpcSettings::default()).await.unwrap();
    let journal = TransactionJournal::open(folder, client.chain_id(), HOST.address).unwrap();
    let setup = HostSetup {
        books: format!("sqlite:{}", folder.join("books.sqlite").display()),
        sender: Sender::new(client.clone(), signer(&HOST), journal, sender_settings()),
        client,
        deployment,
        watch: WatchSettings { poll: Duration::from_millis(50), most_age: Duration::from_secs(60) },
        settlement: SettlementSettings { every: Duration::from_millis(20) },
        leases: vec![LeaseSetup {
            id: LeaseId::new(1),
            key: SigningKey::from_bytes(&LEASE_KEY.key.0).unwrap(),
            claim_from: Amount::new(1),
            claim_least: Amount::new(1),
        }],
        journal_patience: Duration::from_secs(5),
        clock,
    };
    let host = MeteredHost::open(setup).await.unwrap();
    let model = byte_model(ScriptedEngine::saying("an answer of some length", Ending::Finish));
    let model = host.under(LeaseId::new(1), model).await.unwrap();
    let seconds = || UnixSeconds(clock().get() / 1_000);
    let state = AppState::metered(vec![model], Limits::default(), seconds, rand::random(), host.metering().clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    #[expect(clippy::print_stdout, reason = "the test beside it reads this line")]
    {
        println!("\nlistening {}", listener.local_addr().unwrap());
    }
    let listeners = Listeners { customers: listener, tls: None, operator: None };
    host.serve(listeners, state, std::future::pending()).await.unwrap();
}

/// A host in a process of its own.
struct Victim {
    child: Child,
    address: String,
}

impl Victim {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["metered::killed::process", "--exact", "--ignored", "--nocapture"])
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address = lines.find_map(|line| line.unwrap().strip_prefix("listening ").map(str::to_owned));
        Self { child, address: address.expect("the host starts") }
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// What the customers saw, all together.
#[derive(Default)]
struct Seen {
    /// Statements that came with a whole answer.
    finished: Mutex<HashMap<StatementDigest, Signed<Statement>>>,
    /// Answers that broke off and turned out to be stated.
    recovered: AtomicUsize,
    broken: AtomicUsize,
}

/// Uses one lane as a gateway would, whatever becomes of the host.
async fn customer(mut payer: Payer, address: Arc<Mutex<String>>, seen: Arc<Seen>, stop: Arc<AtomicBool>) -> Payer {
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(10)).build().unwrap();
    let body = with(chat_body("hi"), json!({"stream": true, "max_tokens": 40}));
    while !stop.load(Ordering::Relaxed) {
        let base = format!("http://{}", address.lock().unwrap());
        let (name, value) = payer.header(1_000_000);
        let sent = client.post(format!("{base}/v1/chat/completions")).header(name, value).json(&body).send().await;
        let Ok(response) = sent else {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        };
        match response.status().as_u16() {
            200 => {
                let text = response.text().await.unwrap_or_default();
                if text.ends_with("data: [DONE]\n\n") {
                    let last = events(&text).pop().unwrap();
                    let statement = payer.accept(&last["hallmark"]);
                    seen.finished.lock().unwrap().insert(payer.head.unwrap(), statement);
                } else {
                    seen.broken.fetch_add(1, Ordering::Relaxed);
                }
            }
            409 => {
                // An answer that broke off was stated all the same: the host says which statement is to be accepted.
                let refused: Value = response.json().await.unwrap_or_default();
                let code = refused["error"]["code"].as_str().unwrap_or_default().to_owned();
                let Some(head) = refused["error"]["statements_head"].as_str() else {
                    assert!(matches!(code.as_str(), "lane_busy" | ""), "{refused}");
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                };
                assert_eq!(code, "statement_not_accepted", "{refused}");
                let found = client.get(format!("{base}/v1/statements/{head}")).send().await;
                // Stated, and perhaps not on the disk yet.
                let Ok(found) = found else { continue };
                if found.status() != 200 {
                    continue;
                }
                let Ok(found) = found.json::<Value>().await else { continue };
                let statement: Signed<Statement> = serde_json::from_value(found["statement"].clone()).unwrap();
                assert_eq!((statement.message.step.before(), statement.message.previous), (payer.counts, payer.head));
                payer.counts = statement.message.step.after();
                payer.head = Some(head.parse().unwrap());
                payer.charged += statement.message.charge.get();
                seen.recovered.fetch_add(1, Ordering::Relaxed);
            }
            503 => tokio::time::sleep(Duration::from_millis(5)).await,
            other => panic!("{other}: {}", response.text().await.unwrap()),
        }
    }
    payer
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_kills_lose_nothing_and_state_nothing_twice() {
    let setup = ProtocolSetup { epoch_s: 2, claim_interval_s: 30, commit_grace_s: 2, ..ProtocolSetup::development() };
    let world = World::with(setup).await;
    let folder = tempfile::tempdir().unwrap();
    let (port, _stop, _server) = world.serve(0).await;
    world.to().write(&folder.path().join("deployment.json")).unwrap();
    std::fs::write(folder.path().join("rpc"), format!("http://127.0.0.1:{port}")).unwrap();
    let payer = world.payer(500_000_000).await;

    let (seen, stop) = (Arc::new(Seen::default()), Arc::new(AtomicBool::new(false)));
    let victim = Victim::start(folder.path());
    let address = Arc::new(Mutex::new(victim.address.clone()));
    let customers: Vec<_> = (0..LANES)
        .map(|lane| {
            TaskTracker::new().spawn(customer(payer.on_lane(lane), address.clone(), seen.clone(), stop.clone()))
        })
        .collect();
    let mut random = StdRng::seed_from_u64(5);
    let mut victim = Some(victim);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(random.random_range(0..LONGEST_LIFE_MS))).await;
        victim.take().unwrap().kill();
        let next = Victim::start(folder.path());
        *address.lock().unwrap() = next.address.clone();
        victim = Some(next);
    }
    stop.store(true, Ordering::Relaxed);
    let mut payers = Vec::new();
    for customer in customers {
        payers.push(customer.await.unwrap());
    }

    let finished = std::mem::take(&mut *seen.finished.lock().unwrap());
    let (recovered, broken) = (seen.recovered.load(Ordering::Relaxed), seen.broken.load(Ordering::Relaxed));
    eprintln!("{} whole answers, {broken} broken off, {recovered} of them stated", finished.len());
    assert!(finished.len() > KILLS && broken > 0, "the load was real");

    // What the books say, read as another process would.
    let books = Books::open(&format!("sqlite:{}", folder.path().join("books.sqlite").display())).await.unwrap();
    for (digest, statement) in &finished {
        let kept = books.statement(*digest).await.unwrap();
        assert_eq!(kept.as_ref().map(|kept| &kept.statement), Some(statement), "seen and not in the journal");
    }
    let (lease, mut charged) = (world.market.lease, 0);
    for payer in &payers {
        let lane = books.statements_of_lane(lease, Some(payer.id), payer.lane).await.unwrap();
        for (sequence, entry) in (1..).zip(&lane) {
            assert_eq!(entry.statement.message.step.after().requests(), sequence, "each place is taken once");
        }
        assert!(lane.windows(2).all(|pair| pair[1].statement.message.previous == Some(pair[0].digest)));
        let sum: u128 = lane.iter().map(|entry| entry.statement.message.charge.get()).sum();
        assert_eq!(lane.last().unwrap().lane_cost.get(), sum, "charges add up to the lane's cost");
        // The last answer may have been stated without its customer knowing.
        let unknown = lane.len() as u64 - payer.counts.requests();
        assert!(unknown <= 1 && sum - payer.charged < 20_000, "{unknown} statements that nobody asked for");
        charged += sum;
    }

    // Left alone, the host is paid what the books say, to the unit.
    let spent = || async {
        let call = PaymentEscrow::channelStateCall { id: payer.id.word() };
        world.client().call(world.to().payment_escrow, &call).await.unwrap().spent
    };
    eventually("claims", || async { spent().await == charged }).await;
    let settled = PaymentEscrow::settledCall { leaseId: lease.get() };
    let settled = world.client().call(world.to().payment_escrow, &settled).await.unwrap();
    let totals = books.totals(lease).await.unwrap();
    assert_eq!(
        (settled.requests, settled.promptTokens, settled.cachedTokens, settled.completionTokens, settled.charge),
        (totals.requests, totals.prompt, totals.cached, totals.completion, charged)
    );
    victim.take().unwrap().kill();
}
