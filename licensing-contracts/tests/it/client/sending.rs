//! Transactions on their way: fees that rise, nonces that others take, accounts without coins.

use std::time::Duration;

use alloy::{
    consensus::Transaction as _,
    eips::Encodable2718 as _,
    primitives::{B256, Bytes, U256},
    providers::Provider as _,
};
use licensing_contracts::client::{Action, ChainError, FeePolicy, SenderSettings, TransactionJournal};
use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::world::{SENDER, World, journal, quick, until};
use crate::support::{Anvil, CHAIN_ID, Transfer, address, mine, rpc, signer};

/// What holds on every chain, one after another.
async fn sends(world: &World) {
    twice_on_purpose_is_two(world).await;
    a_transaction_that_waits_is_found_again(world).await;
    fees_rise_with_the_base_fee(world).await;
    an_older_version_may_be_the_one_that_is_mined(world).await;
    another_transaction_takes_the_nonce(world).await;
    confirmations_are_waited_for(world).await;
}

async fn twice_on_purpose_is_two(world: &World) {
    let nonce = world.nonce().await;
    let mut sender = world.sender().await;
    let first = sender.send(&world.ping(1)).await.unwrap();
    let second = sender.send(&world.ping(1)).await.unwrap();
    assert_ne!(first.transaction_hash, second.transaction_hash);
    drop(sender);
    let third = world.sender().await.send(&world.ping(1)).await.unwrap();
    assert_ne!(second.transaction_hash, third.transaction_hash);
    assert_eq!((world.pings().await, world.nonce().await), (vec![1, 1, 1], nonce + 3));
}

async fn a_transaction_that_waits_is_found_again(world: &World) {
    let (nonce, before) = (world.nonce().await, world.pings().await.len());
    world.automine(false).await;
    let impatient = SenderSettings { give_up_after: Duration::from_millis(30), ..quick() };
    let error = world.sender_with(impatient).await.send(&world.ping(2)).await.unwrap_err();
    let ChainError::NotMined { transaction, refusal: None, .. } = &error else { panic!("{error}") };
    assert!(error.is_retryable() && error.to_string().contains("run the same command again"), "{error}");
    world.automine(true).await;
    mine(&world.provider, 1).await;
    let receipt = world.sender().await.send(&world.ping(2)).await.unwrap();
    assert_eq!(receipt.transaction_hash, *transaction);
    assert_eq!((world.pings().await.len(), world.nonce().await), (before + 1, nonce + 1));
}

async fn fees_rise_with_the_base_fee(world: &World) {
    let (nonce, before) = (world.nonce().await, world.pings().await.len());
    world.automine(false).await;
    let mut sender = world.sender().await;
    let action = world.ping(3);
    let tracker = TaskTracker::new();
    let sending = tracker.spawn(async move { sender.send(&action).await });
    world.pooled(1).await;
    // What was offered allows for twice the base fee. It rises tenfold, and nothing is mined until the offer follows.
    let head = world.provider.get_block_by_number(Default::default()).await.unwrap().unwrap();
    let risen = head.header.base_fee_per_gas.unwrap() * 10;
    until(async || {
        world.base_fee(risen).await;
        mine(&world.provider, 1).await;
        sending.is_finished()
    })
    .await;
    let receipt = sending.await.unwrap().unwrap();
    assert!(receipt.effective_gas_price >= u128::from(risen) / 2, "{}", receipt.effective_gas_price);
    let mined = world.provider.get_transaction_by_hash(receipt.transaction_hash).await.unwrap().unwrap();
    assert!(mined.max_fee_per_gas() <= SenderSettings::default().fees.max_fee_per_gas);
    assert_eq!((mined.nonce(), world.nonce().await), (nonce, nonce + 1));
    assert_eq!(world.pings().await.len(), before + 1);
    world.base_fee(head.header.base_fee_per_gas.unwrap()).await;
    mine(&world.provider, 1).await;
    world.automine(true).await;
}

/// The raw transactions that the journal holds.
fn journalled(world: &World) -> Vec<Bytes> {
    let path = world.journals.path().join(format!("transactions-{CHAIN_ID}-{:#x}.jsonl", address(SENDER)));
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| Some(line["signed"]["raw"].as_str()?.parse().unwrap())).collect()
}

async fn an_older_version_may_be_the_one_that_is_mined(world: &World) {
    let (nonce, before, known) = (world.nonce().await, world.pings().await.len(), journalled(world).len());
    world.automine(false).await;
    let mut sender = world.sender().await;
    let action = world.ping(4);
    let sending = TaskTracker::new().spawn(async move { sender.send(&action).await });
    until(async || journalled(world).len() >= known + 3).await;
    // The network forgets the newer ones, and a miner still has the first.
    let versions = journalled(world).split_off(known);
    for version in &versions {
        let hash = alloy::primitives::keccak256(version);
        let _: Value = rpc(&world.provider, "anvil_dropTransaction", (hash,)).await;
    }
    let first: B256 = rpc(&world.provider, "eth_sendRawTransaction", (versions[0].clone(),)).await;
    mine(&world.provider, 1).await;
    let receipt = sending.await.unwrap().unwrap();
    assert!(versions.iter().map(alloy::primitives::keccak256).any(|hash| hash == receipt.transaction_hash));
    // A version may have been offered once more before the block: one of them is mined, and only one.
    assert!(receipt.transaction_hash == first || world.receipt(first).await.is_none());
    assert_eq!((world.pings().await.len(), world.nonce().await), (before + 1, nonce + 1));
    world.automine(true).await;
}

async fn another_transaction_takes_the_nonce(world: &World) {
    let (nonce, before) = (world.nonce().await, world.pings().await.len());
    world.automine(false).await;
    let patient = SenderSettings { replace_after: Duration::from_secs(30), ..quick() };
    let mut sender = world.sender_with(patient).await;
    let action = world.ping(5);
    let sending = TaskTracker::new().spawn(async move { (sender.send(&action).await, sender) });
    world.pooled(1).await;
    // A wallet with the same key pays more.
    let tip = 400_000_000_000;
    let other = Transfer { max_fee: 2 * tip, tip, ..Transfer::new(SENDER, nonce, address(3), U256::ONE) };
    let by: B256 = rpc(&world.provider, "eth_sendRawTransaction", (other.raw(),)).await;
    mine(&world.provider, 1).await;
    let (outcome, mut sender) = sending.await.unwrap();
    let error = outcome.unwrap_err();
    assert!(matches!(&error, ChainError::Displaced { by: found, .. } if *found == by), "{error}");
    assert!(!error.is_retryable() && error.to_string().contains(&by.to_string()), "{error}");
    assert_eq!(world.pings().await.len(), before, "nothing is sent in its place");
    world.automine(true).await;
    // The nonce is lost and the account is not.
    sender.send(&world.ping(5)).await.unwrap();
    assert_eq!((world.pings().await.len(), world.nonce().await), (before + 1, nonce + 2));
}

async fn confirmations_are_waited_for(world: &World) {
    let careful = SenderSettings { confirmations: 4, ..quick() };
    let mut sender = world.sender_with(careful).await;
    let (action, before) = (world.ping(6), world.nonce().await);
    let sending = TaskTracker::new().spawn(async move { sender.send(&action).await });
    until(async || world.nonce().await > before).await;
    for _ in 0..2 {
        mine(&world.provider, 1).await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert!(!sending.is_finished());
    }
    mine(&world.provider, 1).await;
    let receipt = sending.await.unwrap().unwrap();
    assert_eq!(world.provider.get_block_number().await.unwrap(), receipt.block_number.unwrap() + 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_arrive_on_the_embedded_chain() {
    sends(&World::new().await).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs anvil: set HALLMARK_ANVIL to its program, or HALLMARK_ANVIL_URL to where one listens"]
async fn transactions_arrive_on_anvil() {
    let anvil = Anvil::find().await;
    sends(&World::at(anvil.url()).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_of_fees_is_kept_and_what_waits_below_it_is_mined_later() {
    let world = World::new().await;
    let limit = 3_000_000_000;
    let fees = FeePolicy { max_fee_per_gas: limit, ..FeePolicy::default() };
    let settings = SenderSettings { fees, give_up_after: Duration::from_millis(300), ..quick() };
    world.base_fee(4_000_000_000).await;
    mine(&world.provider, 1).await;
    let mut sender = world.sender_with(settings.clone()).await;
    let error = sender.send(&world.ping(1)).await.unwrap_err();
    assert!(matches!(error, ChainError::FeeTooHigh { .. }) && error.is_retryable(), "{error}");
    assert!(error.to_string().contains("the limit is 3: "), "{error}");
    drop(sender);
    assert_eq!(std::fs::metadata(journal(world.journals.path()).path()).unwrap().len(), 0, "nothing was signed");

    world.base_fee(2_000_000_000).await;
    mine(&world.provider, 1).await;
    world.automine(false).await;
    let mut sender = world.sender_with(settings.clone()).await;
    let tracker = TaskTracker::new();
    let action = world.ping(1);
    let sending = tracker.spawn(async move { sender.send(&action).await });
    world.pooled(1).await;
    world.base_fee(9_000_000_000).await;
    mine(&world.provider, 1).await;
    let error = sending.await.unwrap().unwrap_err();
    assert!(matches!(error, ChainError::NotMined { .. }), "{error}");
    let pool: Value = rpc(&world.provider, "txpool_status", ()).await;
    assert_eq!(pool["pending"], "0x1");
    world.base_fee(1_000_000_000).await;
    mine(&world.provider, 1).await;
    let receipt = world.sender_with(settings).await.send(&world.ping(1)).await.unwrap();
    assert!(receipt.effective_gas_price <= limit);
    assert_eq!((world.pings().await, world.nonce().await), (vec![1], 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_coins_is_told_what_it_needs() {
    let world = World::new().await;
    let mut sender = world.sender().await;
    let too_much = Action { to: Some(address(3)), value: crate::support::ether(1_001), ..world.ping(1) };
    let error = sender.send(&too_much).await.unwrap_err();
    assert!(matches!(error, ChainError::Unfunded { .. }) && !error.is_retryable(), "{error}");
    let all = Action { to: Some(address(3)), data: Bytes::new(), value: crate::support::ether(1_000), ..world.ping(1) };
    let error = sender.send(&all).await.unwrap_err();
    assert!(matches!(error, ChainError::Unfunded { .. }), "gas costs something too: {error}");
    let _: Value = rpc(&world.provider, "anvil_setBalance", (address(SENDER), U256::ZERO)).await;
    let text = sender.send(&world.ping(1)).await.unwrap_err().to_string();
    assert!(text.contains("has 0.0") && text.contains("send it some"), "{text}");
    assert_eq!(world.nonce().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_when_it_is_mined_is_an_error_and_is_not_on_its_way() {
    let world = World::new().await;
    world.automine(false).await;
    let mut sender = world.sender().await;
    let action = world.ping(1);
    let sending = TaskTracker::new().spawn(async move { (sender.send(&action).await, sender) });
    world.pooled(1).await;
    // Meanwhile the contract becomes one that refuses everything.
    let code: Bytes = world.provider.get_code_at(world.probe).await.unwrap();
    let refuses = Bytes::from_static(&[0x5f, 0x5f, 0xfd]);
    let _: Value = rpc(&world.provider, "anvil_setCode", (world.probe, refuses)).await;
    mine(&world.provider, 1).await;
    let (outcome, mut sender) = sending.await.unwrap();
    let error = outcome.unwrap_err();
    assert!(matches!(error, ChainError::Failed { .. }) && error.to_string().contains("gave no reason"), "{error}");
    let _: Value = rpc(&world.provider, "anvil_setCode", (world.probe, code)).await;
    world.automine(true).await;
    sender.send(&world.ping(1)).await.unwrap();
    assert_eq!((world.pings().await, world.nonce().await), (vec![1], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wallets_own_transactions_with_the_account_are_counted() {
    let world = World::new().await;
    world.automine(false).await;
    let theirs = Transfer::new(SENDER, 0, address(3), U256::ONE).envelope().encoded_2718();
    let _: B256 = rpc(&world.provider, "eth_sendRawTransaction", (Bytes::from(theirs),)).await;
    let mut sender = world.sender().await;
    let action = world.ping(1);
    let sending = TaskTracker::new().spawn(async move { sender.send(&action).await });
    world.pooled(2).await;
    mine(&world.provider, 1).await;
    sending.await.unwrap().unwrap();
    assert_eq!((world.pings().await, world.nonce().await), (vec![1], 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_and_chains_have_journals_of_their_own() {
    let world = World::new().await;
    let folder = world.journals.path();
    let one = journal(folder);
    let other_account = TransactionJournal::open(folder, CHAIN_ID, signer(3).address()).unwrap();
    let other_chain = TransactionJournal::open(folder, CHAIN_ID + 1, address(SENDER)).unwrap();
    let paths = [one.path(), other_account.path(), other_chain.path()];
    assert!(paths[0] != paths[1] && paths[1] != paths[2] && paths[0] != paths[2]);
}
