//! Events over chains that change under the reader.

use alloy::{
    primitives::{B256, U256},
    providers::Provider as _,
    rpc::types::{Filter, Log},
    sol_types::SolEvent as _,
};
use licensing_contracts::client::{ChainError, EventCursor, EventPage, EventReader};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use serde_json::{Value, json};

use super::{
    hostile::{Fault, Hostile},
    world::{World, connect},
};
use crate::support::{Anvil, Probe, mine, rpc, send};

/// What somebody made of the events: the events themselves, so that any one too many or too few shows.
#[derive(Debug, Default)]
struct State {
    applied: Vec<Log>,
    taken_back: usize,
}

impl State {
    fn apply(&mut self, page: EventPage) {
        if let Some(base) = page.rolled_back_to {
            let before = self.applied.len();
            self.applied.retain(|log| log.block_number.unwrap() <= base.number);
            self.taken_back += before - self.applied.len();
        }
        let place = |log: &Log| (log.block_number, log.log_index);
        for log in page.logs {
            assert!(self.applied.last().is_none_or(|last| place(last) < place(&log)), "delivered twice: {log:?}");
            self.applied.push(log);
        }
    }

    fn values(&self) -> Vec<u64> {
        self.applied.iter().map(|log| Probe::Ping::decode_log(&log.inner).unwrap().value.to()).collect()
    }
}

fn filter(world: &World) -> Filter {
    Filter::new().address(world.probe)
}

async fn reader(world: &World, depth: u64, page_blocks: u64) -> EventReader {
    EventReader::new(world.client().await, filter(world), Vec::new(), depth, page_blocks)
}

/// Reads until there is nothing newer.
async fn follow(reader: &mut EventReader, state: &mut State) {
    loop {
        let page = reader.next().await.unwrap();
        let at_head = page.at_head;
        state.apply(page);
        if at_head {
            return;
        }
    }
}

/// What a reader that begins now would find.
async fn from_genesis(world: &World) -> Vec<Log> {
    world.provider.get_logs(&filter(world).from_block(0)).await.unwrap()
}

async fn ping(world: &World, value: u64) {
    send(&world.provider, 1, world.probe, &Probe::pingCall { value: U256::from(value) }).await;
}

async fn reorganise(world: &World, depth: u64) {
    let _: Value = rpc(&world.provider, "anvil_reorg", json!([depth, []])).await;
}

async fn five_blocks_are_replaced(world: &World) {
    let (mut reader, mut state) = (reader(world, 8, 100).await, State::default());
    for value in 1..=3 {
        ping(world, value).await;
    }
    follow(&mut reader, &mut state).await;
    for value in 4..=8 {
        ping(world, value).await;
    }
    follow(&mut reader, &mut state).await;
    assert_eq!(state.values(), [1, 2, 3, 4, 5, 6, 7, 8]);
    reorganise(world, 5).await;
    let page = reader.next().await.unwrap();
    let head = world.provider.get_block_number().await.unwrap();
    assert_eq!(page.rolled_back_to.unwrap().number, head - 5, "no more is taken back than was replaced");
    state.apply(page);
    assert_eq!(state.values(), [1, 2, 3]);
    ping(world, 9).await;
    follow(&mut reader, &mut state).await;
    assert_eq!((state.values(), state.taken_back), (vec![1, 2, 3, 9], 5));
    assert_eq!(state.applied, from_genesis(world).await);
}

/// After any sequence of blocks, reorganisations and snapshots gone back to, what was applied is what is there.
async fn state_follows(world: &World, seed: u64, steps: usize) {
    const DEPTH: u64 = 8;
    let mut random = StdRng::seed_from_u64(seed);
    let (mut reader, mut state) = (reader(world, DEPTH, random.random_range(1..6)).await, State::default());
    let mut told = Vec::new();
    // Blocks since the last look: what is deeper than `DEPTH` below the newest block that was seen must stay.
    let first = world.provider.get_block_number().await.unwrap();
    let mut snapshot: Option<(U256, u64)> = None;
    let mut seen = first;
    for step in 0..steps {
        let head = world.provider.get_block_number().await.unwrap();
        match random.random_range(0..8) {
            0..3 => ping(world, step.try_into().unwrap()).await,
            3 => mine(&world.provider, random.random_range(1..12)).await,
            4 => {
                // Not deeper than the reader's memory, nor than this test's part of the chain.
                let lowest = seen.saturating_sub(DEPTH).max(first);
                let depth = random.random_range(0..=head.saturating_sub(lowest).min(DEPTH));
                if depth > 0 {
                    told.push(format!("{step}: {depth} of {head} blocks replaced"));
                    reorganise(world, depth).await;
                    snapshot = snapshot.filter(|(_, at)| *at <= head - depth);
                }
            }
            5 => snapshot = Some((rpc(&world.provider, "evm_snapshot", ()).await, head)),
            6 => {
                if let Some((id, at)) = snapshot.take().filter(|(_, at)| *at + DEPTH >= seen) {
                    told.push(format!("{step}: back from {head} to {at}"));
                    assert!(rpc::<bool>(&world.provider, "evm_revert", (id,)).await);
                }
            }
            _ => {
                follow(&mut reader, &mut state).await;
                seen = world.provider.get_block_number().await.unwrap();
                assert_eq!(state.applied, from_genesis(world).await, "seed {seed}, step {step}: {told:?}");
            }
        }
        if random.random_bool(0.1) {
            // A new process goes on from what was stored.
            let known: Vec<EventCursor> = reader.known().copied().collect();
            let stored: Vec<EventCursor> = serde_json::from_str(&serde_json::to_string(&known).unwrap()).unwrap();
            let pages = random.random_range(1..6);
            reader = EventReader::new(world.client().await, filter(world), stored, DEPTH, pages);
        }
    }
    follow(&mut reader, &mut state).await;
    assert_eq!(state.applied, from_genesis(world).await, "seed {seed}: {told:?}");
    assert!(!state.applied.is_empty() && state.taken_back > 0, "seed {seed}: {told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn five_replaced_blocks_are_taken_back_on_the_embedded_chain() {
    five_blocks_are_replaced(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn state_follows_any_sequence_of_blocks_and_reorganisations() {
    for seed in 0..12 {
        state_follows(&World::new().await, seed, 150).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs anvil: set HALLMARK_ANVIL to its program, or HALLMARK_ANVIL_URL to where one listens"]
async fn state_follows_on_anvil() {
    let anvil = Anvil::find().await;
    let world = World::at(anvil.url()).await;
    five_blocks_are_replaced(&world).await;
    let world = World::at(anvil.url()).await;
    state_follows(&world, 1, 150).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exactly_the_promised_depth_is_taken_back_and_one_more_is_an_error() {
    let world = World::new().await;
    for value in 0..30 {
        ping(&world, value).await;
    }
    for pages in [1, 7, 1_000] {
        let (mut reader, mut state) = (reader(&world, 6, pages).await, State::default());
        follow(&mut reader, &mut state).await;
        reorganise(&world, 6).await;
        follow(&mut reader, &mut state).await;
        assert_eq!(state.applied, from_genesis(&world).await, "pages of {pages}");
        reorganise(&world, 7).await;
        for _ in 0..2 {
            let error = reader.next().await.unwrap_err();
            assert!(matches!(error, ChainError::ReorganisedTooDeep { depth: 6 }), "{error}");
            assert!(!error.is_retryable() && error.to_string().contains("start again from a block"), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_is_shorter_than_all_that_is_remembered_is_an_error() {
    let world = World::new().await;
    let snapshot: U256 = rpc(&world.provider, "evm_snapshot", ()).await;
    let (mut reader, mut state) = (reader(&world, 4, 100).await, State::default());
    mine(&world.provider, 10).await;
    follow(&mut reader, &mut state).await;
    assert!(rpc::<bool>(&world.provider, "evm_revert", (snapshot,)).await);
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, ChainError::Behind { head: 1, delivered: 11, depth: 4 }), "{error}");
    assert!(error.is_retryable());
    mine(&world.provider, 10).await;
    assert!(matches!(reader.next().await.unwrap_err(), ChainError::ReorganisedTooDeep { .. }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_contradicts_itself_takes_nothing_back() {
    let world = World::new().await;
    for value in 0..12 {
        ping(&world, value).await;
    }
    let node = Hostile::new(world.url.as_str(), |_, _| Fault::None).await;
    let client = connect(&[node.url()]).await;
    let mut reader = EventReader::new(client, filter(&world), Vec::new(), 6, 100);
    let mut state = State::default();
    follow(&mut reader, &mut state).await;
    let known: Vec<EventCursor> = reader.known().copied().collect();
    ping(&world, 12).await;

    // It shows a head, and denies the blocks below.
    node.behave(|method, parameters| match (method, parameters[0].as_str()) {
        ("eth_getBlockByNumber", Some(number)) if number.starts_with("0x") => Fault::Result(Value::Null),
        _ => Fault::None,
    });
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, ChainError::Unsettled) && error.is_retryable(), "{error}");
    // It shows the blocks, and does not have the events.
    node.behave(|method, _| match method {
        "eth_getLogs" => Fault::Error(-32000, "unknown block"),
        _ => Fault::None,
    });
    assert!(matches!(reader.next().await.unwrap_err(), ChainError::Rpc { .. }));
    node.behave(|method, _| if method == "eth_getLogs" { Fault::Result(Value::Null) } else { Fault::None });
    assert!(matches!(reader.next().await.unwrap_err(), ChainError::Rpc { .. }));
    assert_eq!(reader.known().copied().collect::<Vec<_>>(), known, "an error changes nothing");
    node.behave(|_, _| Fault::None);
    follow(&mut reader, &mut state).await;
    assert_eq!((state.applied, state.taken_back), (from_genesis(&world).await, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn old_blocks_that_a_node_does_not_have_are_not_blocks_without_events() {
    let world = World::new().await;
    for value in 0..40 {
        ping(&world, value).await;
    }
    let head = world.provider.get_block_number().await.unwrap();
    // One node tells the head; the next, which lags, answers what it has of the rest, as many nodes do.
    let first = Hostile::new(world.url.as_str(), |method, parameters| match (method, parameters[0].as_str()) {
        ("eth_chainId", _) | ("eth_getBlockByNumber", Some("latest")) => Fault::None,
        _ => Fault::Cut,
    })
    .await;
    let lagging = Hostile::new(world.url.as_str(), |method, parameters| match method {
        "eth_getBlockByNumber" if block(parameters) > 10 => Fault::Result(Value::Null),
        "eth_getLogs" => Fault::Result(json!([])),
        _ => Fault::None,
    })
    .await;
    let client = connect(&[first.url(), lagging.url()]).await;
    let mut reader = EventReader::new(client, filter(&world), Vec::new(), 4, 100);
    let error = reader.next().await.unwrap_err();
    assert!(matches!(error, ChainError::Unsettled), "{error}");
    assert_eq!(reader.known().count(), 0);
    let mut reader =
        EventReader::new(connect(std::slice::from_ref(&world.url)).await, filter(&world), Vec::new(), 4, 100);
    let mut state = State::default();
    follow(&mut reader, &mut state).await;
    assert_eq!((state.applied.len(), reader.known().last().unwrap().number), (40, head));
}

fn block(parameters: &Value) -> u64 {
    let number = parameters[0].as_str().and_then(|number| number.strip_prefix("0x"));
    number.map_or(0, |number| u64::from_str_radix(number, 16).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_begins_behind_a_block_that_it_is_given() {
    let world = World::new().await;
    ping(&world, 1).await;
    let start = world.client().await.head().await.unwrap();
    ping(&world, 2).await;
    let client = world.client().await;
    let mut reader = EventReader::new(client.clone(), filter(&world), vec![start.into()], 4, 100);
    let mut state = State::default();
    follow(&mut reader, &mut state).await;
    assert_eq!(state.values(), [2]);
    // A block that never was.
    let nowhere = EventCursor { number: start.number, hash: B256::repeat_byte(1) };
    let mut reader = EventReader::new(client, filter(&world), vec![nowhere], 4, 100);
    assert!(matches!(reader.next().await.unwrap_err(), ChainError::ReorganisedTooDeep { .. }));
}
