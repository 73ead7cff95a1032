//! Several nodes, of which some fail, each in its own way.

use std::{
    error::Error as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::U256;
use licensing_contracts::{
    client::{ChainClient, ChainError, RpcSettings},
    devchain::{Config, DevChain},
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::{
    hostile::{BROKEN, BUSY, BUSY_FOR_A_SECOND, Fault, GARBAGE, Hostile, PAGE},
    world::World,
};
use crate::support::{CHAIN_ID, NOW, Probe, allow_http, config, mine, send};

const SETTINGS: RpcSettings =
    RpcSettings { timeout: Duration::from_millis(400), rounds: 2, backoff: Duration::from_millis(10) };

/// Everything that can come instead of an answer.
fn faults() -> Vec<Fault> {
    vec![
        Fault::Hang,
        Fault::Cut,
        Fault::CutAfterwards,
        Fault::CutInside,
        Fault::Http(PAGE),
        Fault::Http(GARBAGE),
        Fault::Http(BROKEN),
        Fault::Http(BUSY),
        Fault::Error(-32005, "limit exceeded"),
        Fault::Error(429, "slow down"),
        Fault::Anonymous(-32005, "limit exceeded"),
        Fault::WrongId,
    ]
}

fn told(error: &ChainError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

async fn connect(urls: &[Url], settings: &RpcSettings) -> Result<ChainClient, ChainError> {
    allow_http();
    ChainClient::connect(urls, Some(CHAIN_ID), settings).await
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_the_first_node_does_the_second_is_asked_and_kept() {
    let world = World::new().await;
    mine(&world.provider, 3).await;
    for fault in faults() {
        let first = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
        let second = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
        let client = connect(&[first.url(), second.url()], &SETTINGS).await.unwrap();
        assert_eq!(client.head().await.unwrap().number, 4);
        assert_eq!(second.asked("eth_getBlockByNumber"), 0, "one node is asked while it answers");

        let broken = fault.clone();
        first.behave(move |_, _| broken.clone());
        first.forget();
        for _ in 0..3 {
            let head = client.head().await.unwrap_or_else(|error| panic!("{fault:?}: {}", told(&error)));
            assert_eq!(head.number, 4, "{fault:?}");
        }
        assert_eq!(first.asked("eth_getBlockByNumber"), 1, "{fault:?}: the other one is kept");
        // And back, when the second fails.
        first.behave(|_, _| Fault::None);
        let broken = fault.clone();
        second.behave(move |_, _| broken.clone());
        assert_eq!(client.head().await.unwrap().number, 4, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_of_all_nodes_is_an_error_that_names_them_and_tells_no_key() {
    let world = World::new().await;
    for fault in faults() {
        let node = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
        let url: Url = format!("{}v3/path-key-81?apikey=query-key-82", node.url()).parse().unwrap();
        let client = connect(&[url], &SETTINGS).await.unwrap();
        let broken = fault.clone();
        node.behave(move |_, _| broken.clone());
        let error = client.head().await.unwrap_err();
        assert!(matches!(error, ChainError::Rpc { .. }) && error.is_retryable(), "{fault:?}: {error:?}");
        let text = told(&error);
        assert!(!text.contains("key-8"), "{fault:?}: {text}");
        if !matches!(fault, Fault::Error(..) | Fault::Anonymous(..)) {
            let port = node.url().port().unwrap().to_string();
            assert!(text.contains(&port), "{fault:?}: {text}");
        }
        assert_eq!(node.asked("eth_getBlockByNumber"), 2, "{fault:?}: once in each round");
    }
    let nobody: Url = "http://127.0.0.1:9/path-key-81".parse().unwrap();
    let text = told(&connect(&[nobody], &SETTINGS).await.unwrap_err());
    assert!(text.contains("127.0.0.1:9") && !text.contains("key-8"), "{text}");
    assert!(matches!(connect(&[], &SETTINGS).await, Err(ChainError::NoEndpoint)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_busy_is_asked_again_after_a_pause_that_grows() {
    let world = World::new().await;
    let node = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
    let settings = RpcSettings { rounds: 4, backoff: Duration::from_millis(40), ..SETTINGS };
    let client = connect(&[node.url()], &settings).await.unwrap();
    let busy_times = |times: u32, fault: Fault| {
        let left = AtomicU32::new(times);
        move |_: &str, _: &Value| {
            let is_busy = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if is_busy { fault.clone() } else { Fault::None }
        }
    };
    for fault in [Fault::Http(BUSY), Fault::Error(-32005, "limit exceeded")] {
        node.behave(busy_times(3, fault));
        let began = Instant::now();
        client.head().await.unwrap();
        // 40, 80 and 160 ms.
        assert!(began.elapsed() >= Duration::from_millis(280), "{:?}", began.elapsed());
    }
    node.behave(busy_times(1, Fault::Http(BUSY_FOR_A_SECOND)));
    let began = Instant::now();
    client.head().await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(1), "it said how long to wait: {:?}", began.elapsed());
    node.behave(busy_times(4, Fault::Error(-32005, "limit exceeded")));
    let text = told(&client.head().await.unwrap_err());
    assert!(text.contains("limit exceeded"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_another_chain_is_refused_also_when_it_comes_later() {
    let world = World::new().await;
    let stop = CancellationToken::new();
    let other = DevChain::new(Config { chain_id: 5, ..config() }).unwrap();
    let other = other.serve("127.0.0.1:0".parse().unwrap(), &stop).await.unwrap();
    let error = connect(&[other.url().parse().unwrap()], &SETTINGS).await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: CHAIN_ID, found: 5, .. }), "{error}");
    let urls = [world.url.clone(), other.url().parse().unwrap()];
    let error = ChainClient::connect(&urls, None, &SETTINGS).await.unwrap_err();
    assert!(matches!(error, ChainError::WrongChain { expected: CHAIN_ID, found: 5, .. }), "{error}");

    // Away while the client connects, and there when the first one goes.
    let first = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
    let second = Hostile::new(&other.url(), |_, _| Fault::Cut).await;
    let client = connect(&[second.url(), first.url()], &SETTINGS).await.unwrap();
    assert_eq!(client.head().await.unwrap().number, 1);
    second.behave(|_, _| Fault::None);
    first.behave(|_, _| Fault::Cut);
    let text = told(&client.head().await.unwrap_err());
    assert!(text.contains("failed to read a block"), "{text}");
    assert_eq!((second.asked("eth_getBlockByNumber"), second.asked("eth_chainId") > 0), (0, true));
    first.behave(|_, _| Fault::None);
    assert_eq!(client.head().await.unwrap().number, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_not_taken_for_a_value() {
    let world = World::new().await;
    let node = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
    let client = connect(&[node.url()], &SETTINGS).await.unwrap();
    for nothing in [json!(null), json!({}), json!([]), json!("")] {
        let result = nothing.clone();
        node.behave(move |_, _| Fault::Result(result.clone()));
        assert!(client.head().await.is_err(), "{nothing}");
        assert!(client.call(world.probe, &Probe::lastCall {}).await.is_err(), "{nothing}");
        assert!(client.read(world.probe, &Probe::lastCall {}, Duration::from_secs(NOW)).await.is_err(), "{nothing}");
        assert!(client.genesis().await.is_err(), "{nothing}");
    }
    node.behave(|_, _| Fault::None);
    assert_eq!(client.call(world.probe, &Probe::lastCall {}).await.unwrap(), U256::ZERO);
    // No contract is there.
    let error = client.call(crate::support::address(9), &Probe::lastCall {}).await.unwrap_err();
    assert!(matches!(error, ChainError::Answer { .. }), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_is_of_the_block_that_it_is_said_to_be_of() {
    let world = World::new().await;
    // A copy of the chain that does not follow.
    let stop = CancellationToken::new();
    let behind = DevChain::new(config()).unwrap();
    let server = behind.serve("127.0.0.1:0".parse().unwrap(), &stop).await.unwrap();
    let copy = World::at(server.url().parse().unwrap()).await;
    assert_eq!(copy.probe, world.probe);
    send(&world.provider, 1, world.probe, &Probe::pingCall { value: U256::from(7) }).await;

    let cut_calls = Arc::new(AtomicBool::new(true));
    let cuts = Arc::clone(&cut_calls);
    let rule = move |method: &str, _: &Value| {
        if method == "eth_call" && cuts.load(Ordering::Relaxed) { Fault::Cut } else { Fault::None }
    };
    let first = Hostile::new(world.url.as_str(), rule).await;
    let client = connect(&[first.url(), copy.url.clone()], &SETTINGS).await.unwrap();
    let now = Duration::from_secs(NOW);
    // The first tells the head, the second is asked for the value: it has the head's number neither in hash nor in height.
    let seen = client.read(world.probe, &Probe::lastCall {}, now).await.unwrap();
    assert_eq!((seen.block.number, seen.value), (1, U256::ZERO), "all of it is of the second node");
    assert_eq!(seen.at_most(Duration::from_secs(30), now).unwrap(), &U256::ZERO);
    cut_calls.store(false, Ordering::Relaxed);
    let client = connect(&[first.url(), copy.url.clone()], &SETTINGS).await.unwrap();
    let seen = client.read(world.probe, &Probe::lastCall {}, now).await.unwrap();
    assert_eq!((seen.block.number, seen.value), (2, U256::from(7)));
    // The clock goes on and the chain does not: its state is refused although it was read just now.
    let later = now + Duration::from_secs(600);
    let seen = client.read(world.probe, &Probe::lastCall {}, later).await.unwrap();
    let stale = seen.at_most(Duration::from_secs(30), later).unwrap_err();
    assert_eq!((stale.age_s, stale.block, stale.limit_s), (600, 2, 30));
    assert!(stale.to_string().contains("600 s old"), "{stale}");
}
