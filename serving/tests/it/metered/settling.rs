//! From statements to money.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use alloy::{primitives::Bytes, providers::Provider as _};
use licensing_contracts::{
    bindings::{EvidenceCourt, PaymentEscrow, UsageLog},
    client::{Action, SenderSettings},
    deploy::ProtocolSetup,
    devnet::{CONTRIBUTOR, CREATOR, HOST, PAYER, sender_settings},
};
use protocol::{
    messages::{Channel, Signed, Statement, wire},
    units::{Seconds, UnixMilliseconds},
};
use serde_json::{Value, json};
use serving::books::{Books, ClaimedLane};

use super::world::{Options, Payer, World, clock, eventually};
use crate::support::{Ending, ScriptedEngine, byte_model, chat_body};

const ENOUGH: u128 = 1_000_000;

/// Epochs of two seconds, so that nobody waits.
fn quick() -> ProtocolSetup {
    ProtocolSetup { epoch_s: 2, claim_interval_s: 30, commit_grace_s: 2, ..ProtocolSetup::development() }
}

async fn spent(world: &World, channel: protocol::ids::ChannelId) -> u128 {
    let call = PaymentEscrow::channelStateCall { id: channel.word() };
    world.client().call(world.to().payment_escrow, &call).await.unwrap().spent
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_served_is_reported_and_claimed_to_the_unit() {
    let world = World::with(quick()).await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    let mut other = payer.on_lane(77);
    for _ in 0..5 {
        host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
        host.chat(&mut other, ENOUGH, &chat_body("a longer question")).await;
    }
    let total = payer.charged + other.charged;
    eventually("claims", || async { spent(&world, payer.id).await == total }).await;
    let earned = async |account| world.earned(account).await;
    let (creator, contributor) = (earned(CREATOR.address).await, earned(CONTRIBUTOR.address).await);
    let host_share = earned(HOST.address).await;
    // 10 % of each lane's claim, rounded down, of which a quarter goes on; 1 % to the validators.
    assert!(creator + contributor <= total / 10 && creator + contributor + 4 >= total / 10, "{creator} {contributor}");
    assert!(host_share >= total * 89 / 100, "{host_share} of {total}");
    // Nothing more is claimed for nothing.
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("the next claim", || async { spent(&world, payer.id).await == payer.charged + other.charged }).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_again_goes_on_where_it_was() {
    let world = World::with(quick()).await;
    let model = || byte_model(ScriptedEngine::saying("hello there", Ending::Finish));
    let mut payer = world.payer(20_000_000).await;
    for round in 1..=3 {
        let host = world.host(model()).await;
        host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
        host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
        assert_eq!(payer.counts.requests(), round * 2);
        host.stop().await;
    }
    let host = world.host(model()).await;
    eventually("claims", || async { spent(&world, payer.id).await == payer.charged }).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn small_change_is_not_claimed_before_it_must_be() {
    let world = World::with(ProtocolSetup { claim_interval_s: 120, ..quick() }).await;
    let options = Options { claim_from: 100_000, ..Options::default() };
    let host = world.host_with(byte_model(ScriptedEngine::saying("hello", Ending::Finish)), options).await;
    let channel = Channel { withdraw_delay: Seconds::new(240), ..world.payer(0).await.channel };
    world.deposit(&channel, 20_000_000).await;
    let mut payer = Payer::new(&world, channel, &PAYER);
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    let reports = || async {
        let call = UsageLog::reportsCall { leaseId: world.market.lease.get() };
        world.client().call(world.to().usage_log, &call).await.unwrap().to::<u64>()
    };
    eventually("a report", || async { reports().await == 1 }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(spent(&world, payer.id).await, 0, "not worth the gas");
    while payer.charged < 100_000 {
        host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    }
    eventually("a claim", || async { spent(&world, payer.id).await == payer.charged }).await;
    host.stop().await;
}

/// The system's clock, set back by what [`SET_BACK_MS`] says. Of one test.
fn clock_that_is_set_back() -> UnixMilliseconds {
    UnixMilliseconds::new(clock().get() - SET_BACK_MS.load(Ordering::SeqCst))
}

static SET_BACK_MS: AtomicU64 = AtomicU64::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_back_does_not_stop_settlement() {
    let world = World::with(quick()).await;
    let model = || byte_model(ScriptedEngine::saying("hello there", Ending::Finish));
    let options = || Options { clock: clock_that_is_set_back, ..Options::default() };
    let host = world.host_with(model(), options()).await;
    let mut payer = world.payer(20_000_000).await;
    let epoch = |answer: &Value| {
        let signed: Signed<Statement> = serde_json::from_value(answer["hallmark"]["statement"].clone()).unwrap();
        signed.message.ended.get() / 2_000
    };
    let first = host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("a claim", || async { spent(&world, payer.id).await == payer.charged }).await;
    // Over two epochs, of which one is reported.
    SET_BACK_MS.store(5_000, Ordering::SeqCst);
    // What was heard of the chain has a time that is yet to come, until it is heard of again.
    eventually("the host is ready", || async { host.get("/readyz").await.0 == 200 }).await;
    let second = host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    assert!(epoch(&second) > epoch(&first), "the reported epoch is over, whatever the clock says");
    eventually("the next claim", || async { spent(&world, payer.id).await == payer.charged }).await;
    host.stop().await;
    // A host that is started with a clock that was set back once more.
    SET_BACK_MS.store(9_000, Ordering::SeqCst);
    let host = world.host_with(model(), options()).await;
    let third = host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    assert!(epoch(&third) > epoch(&second));
    eventually("the last claim", || async { spent(&world, payer.id).await == payer.charged }).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_for_a_statement_on_the_chain_is_answered() {
    let world = World::with(quick()).await;
    let host = world.host(byte_model(ScriptedEngine::saying("hello there", Ending::Finish))).await;
    let mut payer = world.payer(20_000_000).await;
    let mut statements: Vec<(Value, Signed<Statement>)> = Vec::new();
    for _ in 0..7 {
        let answer = host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
        let signed = serde_json::from_value(answer["hallmark"]["statement"].clone()).unwrap();
        statements.push((answer["hallmark"]["statement_id"].clone(), signed));
    }
    eventually("claims", || async { spent(&world, payer.id).await == payer.charged }).await;
    world.wait(10).await;
    let (id, signed) = &statements[3];
    let call = EvidenceCourt::challengeInclusionCall {
        statement: licensing_contracts::bindings::same(&wire::Statement::from(&signed.message)).unwrap(),
        signature: signed.signature.as_bytes().to_vec().into(),
    };
    let bond = ProtocolSetup::development().challenge_bond;
    let demand =
        Action::call("demand", world.to().evidence_court, &call).with_value(alloy::primitives::U256::from(bond));
    world.send(&PAYER, &demand).await;
    let digest: protocol::ids::StatementDigest = serde_json::from_value(id.clone()).unwrap();
    let open = || async {
        let call = EvidenceCourt::inclusionChallengeCall { statementDigest: digest.word() };
        world.client().call(world.to().evidence_court, &call).await.unwrap().open
    };
    eventually("an answer", || async { !open().await }).await;
    host.stop().await;
}

/// Does not wait long for a node whose chain went back to come forth again.
fn hasty() -> Options {
    let sender = SenderSettings { replace_after: Duration::from_millis(100), ..sender_settings() };
    Options { sender, ..Options::default() }
}

async fn in_books(world: &World) -> Vec<ClaimedLane> {
    let mut claimed = Books::open(&world.books()).await.unwrap().claimed(world.market.lease).await.unwrap();
    claimed.sort_by_key(|lane| lane.lane.get());
    claimed
}

/// Whether books and chain say the same, and every unit went to somebody once.
async fn agrees(world: &World, payers: &[&Payer]) -> bool {
    let charged: u128 = payers.iter().map(|payer| payer.charged).sum();
    let claimed = in_books(world).await;
    let sum =
        |part: fn(&ClaimedLane) -> protocol::units::Amount| claimed.iter().map(|lane| part(lane).get()).sum::<u128>();
    let creators = world.earned(CREATOR.address).await + world.earned(CONTRIBUTOR.address).await;
    spent(world, payers[0].id).await == charged
        && sum(|lane| lane.cost) == charged
        && sum(|lane| lane.host_share) == world.earned(HOST.address).await
        && sum(|lane| lane.royalty) == creators
        && claimed.iter().zip(payers).all(|(lane, payer)| lane.requests == payer.counts.requests())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_the_chain_took_back_is_made_again() {
    let world = World::with(quick()).await;
    let host = world.host_with(byte_model(ScriptedEngine::saying("hello there", Ending::Finish)), hasty()).await;
    let mut payer = world.payer(20_000_000).await;
    let mut other = payer.on_lane(77);
    let before_all = world.newest_block().await;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    host.chat(&mut other, ENOUGH, &chat_body("a longer question")).await;
    eventually("claims", || async { agrees(&world, &[&payer, &other]).await }).await;

    // Everything: reports and the only claims of both lanes.
    world.take_back_to(before_all).await;
    assert_eq!(spent(&world, payer.id).await, 0);
    eventually("the claims again", || async { agrees(&world, &[&payer, &other]).await }).await;
    let claimed = in_books(&world).await;

    // The second claim of one lane: what the first one paid is paid.
    let before_second = world.newest_block().await;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("the second claim", || async { agrees(&world, &[&payer, &other]).await }).await;
    world.take_back_to(before_second).await;
    assert!(spent(&world, payer.id).await < payer.charged + other.charged);
    // Meanwhile the lane goes on.
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("the second claim again", || async { agrees(&world, &[&payer, &other]).await }).await;
    assert_eq!(in_books(&world).await[1], claimed[1], "the other lane was not touched");
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_is_taken_back_while_nobody_looks_is_made_again_at_the_start() {
    let world = World::with(quick()).await;
    let model = || byte_model(ScriptedEngine::saying("hello there", Ending::Finish));
    let host = world.host_with(model(), hasty()).await;
    let mut payer = world.payer(20_000_000).await;
    let before = world.newest_block().await;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("claims", || async { agrees(&world, &[&payer]).await }).await;
    host.stop().await;
    world.take_back_to(before).await;
    assert_eq!(spent(&world, payer.id).await, 0);
    // The chain goes on without the host, for longer than it may take back.
    let _: Value = world.client().provider().raw_request("anvil_mine".into(), (json!(100),)).await.unwrap();
    let host = world.host_with(model(), hasty()).await;
    eventually("claims", || async { agrees(&world, &[&payer]).await }).await;
    host.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_that_comes_back_in_another_block_is_not_made_twice() {
    let world = World::with(quick()).await;
    let host = world.host_with(byte_model(ScriptedEngine::saying("hello there", Ending::Finish)), hasty()).await;
    let mut payer = world.payer(20_000_000).await;
    let before = world.newest_block().await;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("claims", || async { agrees(&world, &[&payer]).await }).await;
    // What the host sent in the blocks that go: they come again behind three that hold nothing.
    let (client, head) = (world.client(), world.client().head().await.unwrap().number);
    let mut sent: Vec<Bytes> = Vec::new();
    for number in before + 1..=head {
        let block = client.provider().get_block_by_number(number.into()).await.unwrap().unwrap();
        for hash in block.transactions.hashes() {
            sent.push(client.provider().raw_request("eth_getRawTransactionByHash".into(), (hash,)).await.unwrap());
        }
    }
    assert!(sent.len() >= 2, "a report and a claim");
    let _: Value = client.provider().raw_request("anvil_mine".into(), (json!(5),)).await.unwrap();
    let depth = client.head().await.unwrap().number - before;
    let last = depth - 1;
    let pairs: Vec<_> = sent.iter().map(|raw| json!([raw, last])).collect();
    let _: Value = client.provider().raw_request("anvil_reorg".into(), (depth, pairs)).await.unwrap();
    assert!(agrees(&world, &[&payer]).await, "it was there all the time");
    let claimed = in_books(&world).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(agrees(&world, &[&payer]).await);
    assert_eq!(in_books(&world).await[0].cost, claimed[0].cost);

    // Gone for as long as the host needs to see it, and then there again, before or after the host claims by itself.
    let depth = client.head().await.unwrap().number - before;
    let _: Value = client.provider().raw_request("anvil_reorg".into(), (depth, json!([]))).await.unwrap();
    eventually("the host sees it", || async { in_books(&world).await.is_empty() || spent(&world, payer.id).await > 0 })
        .await;
    for raw in &sent {
        // Refused where the host was faster.
        drop(client.provider().send_raw_transaction(raw).await);
    }
    eventually("one claim", || async { agrees(&world, &[&payer]).await }).await;
    host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    eventually("the next claim", || async { agrees(&world, &[&payer]).await }).await;
    host.stop().await;
}
