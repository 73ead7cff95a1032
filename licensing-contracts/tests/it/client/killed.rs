//! A real process, killed at every point of its way: exactly one transaction for each thing that was wanted.

use std::{
    env,
    io::Read as _,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use licensing_contracts::client::Sender;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    hostile::{Fault, Hostile},
    world::{SENDER, World, connect, journal, ping, quick},
};
use crate::support::{mine, signer};

const URL: &str = "HALLMARK_TEST_URL";
const PROBE: &str = "HALLMARK_TEST_PROBE";
const FOLDER: &str = "HALLMARK_TEST_FOLDER";
const VALUE: &str = "HALLMARK_TEST_VALUE";

/// What it prints once it knows that the thing is done.
const DONE: &str = "it is done";

/// The process that is killed: does one thing, says so, and ends.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "is run by the tests beside it, as a process of its own"]
async fn process() {
    // With everything that is ignored, it runs without anybody to do something for.
    if env::var_os(URL).is_none() {
        return;
    }
    let variable = |name| env::var_os(name).unwrap_or_else(|| panic!("{name} is not set")).into_string().unwrap();
    let value: u64 = variable(VALUE).parse().unwrap();
    let client = connect(&[variable(URL).parse().unwrap()]).await;
    let mut sender = Sender::new(client, signer(SENDER), journal(Path::new(&variable(FOLDER))), quick());
    let work = B256::from(alloy::primitives::U256::from(value));
    sender.settle_others(work).await.unwrap();
    sender.send_in(work, &ping(variable(PROBE).parse().unwrap(), value)).await.unwrap();
    eprintln!("{DONE}");
    sender.finish(work).unwrap();
}

fn start(world: &World, url: &str, value: u64) -> Child {
    Command::new(env::current_exe().unwrap())
        .args(["client::killed::process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env(URL, url)
        .env(PROBE, world.probe.to_string())
        .env(FOLDER, world.journals.path())
        .env(VALUE, value.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the end of a process that may be killed meanwhile; whether it said that the thing is done.
async fn outcome(child: Child) -> bool {
    let ended = TaskTracker::new().spawn_blocking(move || child.wait_with_output().unwrap()).await.unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    let said = told.contains(DONE);
    // It ends well, or by the signal; a failure of its own is a failure of the test.
    assert!(said || ended.status.code().is_none(), "{told}");
    said
}

/// Kills the process with this number, which may have ended by itself.
fn kill(id: u32) {
    Command::new("kill").args(["-9", &id.to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Blocks come on their own, as on a real chain.
fn mining(world: &World, stop: &CancellationToken, every: Duration) -> TaskTracker {
    let (provider, tracker) = (world.provider.clone(), TaskTracker::new());
    tracker.spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            tokio::time::sleep(every).await;
            mine(&provider, 1).await;
        }
    }));
    tracker
}

/// Each thing happened once, and no nonce was left out or used for something else.
async fn check(world: &World, wanted: u64) {
    let pings = world.pings().await;
    assert_eq!(pings, (0..wanted).collect::<Vec<_>>(), "each once, in the order in which they were wanted");
    assert_eq!(world.nonce().await, wanted, "nonces are consecutive and none is spent twice");
}

/// What happens to the process at one of its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Killed {
    /// Before the node gets the request.
    Before,
    /// After the node did what was asked, before the process knows.
    After,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_any_of_its_requests_sends_once() {
    let world = World::new().await;
    world.automine(false).await;
    let stop = CancellationToken::new();
    let miner = mining(&world, &stop, Duration::from_millis(40));
    let mut kills_at_send = 0;
    let mut wanted = 0;
    for when in [Killed::Before, Killed::After] {
        // The request at which it dies; the runs after that one are left alone.
        for target in 1.. {
            let child: Arc<Mutex<Option<u32>>> = Arc::default();
            let reached: Arc<Mutex<Option<String>>> = Arc::default();
            let (victim, at) = (Arc::clone(&child), Arc::clone(&reached));
            let mut count = 0;
            let node = Hostile::new(world.url.as_str(), move |method, _| {
                count += 1;
                if count != target {
                    return Fault::None;
                }
                *at.lock().unwrap_or_else(PoisonError::into_inner) = Some(method.to_owned());
                if when == Killed::After {
                    return Fault::CutAfterwards;
                }
                kill(victim.lock().unwrap_or_else(PoisonError::into_inner).unwrap());
                Fault::Cut
            })
            .await;
            let mut tries = 0;
            loop {
                let process = {
                    // Its first request may come at once: whoever kills it waits until it is known.
                    let mut child = child.lock().unwrap();
                    let process = start(&world, node.url().as_str(), wanted);
                    *child = Some(process.id());
                    process
                };
                let id = process.id();
                if when == Killed::After && tries == 0 {
                    // Killed as soon as the node has done it: the answer never comes, so nothing else can happen first.
                    let reached = Arc::clone(&reached);
                    TaskTracker::new().spawn(async move {
                        let deadline = Instant::now() + Duration::from_secs(20);
                        while reached.lock().unwrap().is_none() && Instant::now() < deadline {
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                        kill(id);
                    });
                }
                tries += 1;
                if outcome_or_failure(process).await {
                    break;
                }
                assert!(tries < 20, "it never succeeds");
            }
            let method = reached.lock().unwrap().clone();
            wanted += 1;
            check(&world, wanted).await;
            match method.as_deref() {
                Some("eth_sendRawTransaction") => kills_at_send += 1,
                Some(_) => {}
                // It made fewer requests than that: every one has had its turn.
                None => break,
            }
        }
    }
    assert!(kills_at_send >= 2, "before and after it was sent: {kills_at_send}");
    stop.cancel();
    miner.close();
    miner.wait().await;
    eprintln!("{wanted} actions, killed at each request");
}

/// As [`outcome`]; a process whose connection was cut may also fail before the signal comes.
async fn outcome_or_failure(mut child: Child) -> bool {
    let read = move || {
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        text.contains(DONE)
    };
    TaskTracker::new().spawn_blocking(read).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_is_killed_at_random_moments_sends_once() {
    let world = World::new().await;
    world.automine(false).await;
    let stop = CancellationToken::new();
    let miner = mining(&world, &stop, Duration::from_millis(15));
    let mut random = StdRng::seed_from_u64(7);
    // How long one takes on this machine, so that the signals fall into all of it.
    let began = Instant::now();
    assert!(outcome(start(&world, world.url.as_str(), 0)).await);
    let usual = began.elapsed();
    let (mut kills, wanted) = (0, 30);
    for value in 1..wanted {
        loop {
            let process = start(&world, world.url.as_str(), value);
            let id = process.id();
            let moment = usual.mul_f64(random.random_range(0.0..1.5));
            let killer = TaskTracker::new().spawn(async move {
                tokio::time::sleep(moment).await;
                kill(id);
            });
            let done = outcome(process).await;
            killer.abort();
            if done {
                break;
            }
            kills += 1;
        }
        check(&world, value + 1).await;
    }
    assert!(kills > 5, "{kills}");
    stop.cancel();
    miner.close();
    miner.wait().await;
    eprintln!("{wanted} actions, {kills} processes killed; one takes {usual:?}");
}
