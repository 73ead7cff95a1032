//! From statements to money.

use licensing_contracts::{
    bindings::{EvidenceCourt, PaymentEscrow, UsageLog},
    client::Action,
    deploy::ProtocolSetup,
    devnet::{CONTRIBUTOR, CREATOR, HOST, PAYER},
};
use protocol::{
    messages::{Channel, Signed, Statement, wire},
    units::Seconds,
};
use serde_json::Value;

use super::world::{Options, Payer, World, eventually};
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
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    assert_eq!(spent(&world, payer.id).await, 0, "not worth the gas");
    while payer.charged < 100_000 {
        host.chat(&mut payer, ENOUGH, &chat_body("hi")).await;
    }
    eventually("a claim", || async { spent(&world, payer.id).await == payer.charged }).await;
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
