//! What holds on every chain that tests may run on: the embedded one in process and over HTTP, and anvil.

use std::time::{Duration, Instant};

use alloy::{
    consensus::constants::EMPTY_OMMER_ROOT_HASH,
    eips::BlockNumberOrTag,
    network::TransactionBuilder as _,
    primitives::{B256, U64, U256, keccak256},
    providers::{DynProvider, Provider},
    rlp::Encodable as _,
    rpc::{
        client::{ClientBuilder, RpcClient},
        types::{Filter, TransactionRequest},
    },
    sol_types::SolEvent as _,
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::support::{
    Anvil, Probe, Transfer, address, allow_http, chain, deploy, ether, mine, provider, read, request, rpc, rpc_error,
    send,
};

/// Everything, one after another on one chain. Nothing here relies on how the chain started.
async fn behaves_like_a_chain(client: RpcClient) {
    let provider = provider(client);
    for number in 1..10 {
        let _: Value = rpc(&provider, "anvil_setBalance", (address(number), ether(1_000))).await;
    }
    transfers_are_paid_for(&provider).await;
    failures_carry_their_data(&provider).await;
    logs_are_found_and_polled(&provider).await;
    headers_hash_to_their_hash(&provider).await;
    fees_are_told(&provider).await;
    snapshots_go_back(&provider).await;
    time_moves_as_asked(&provider).await;
    waiting_transactions_can_be_replaced(&provider).await;
    nonces_ahead_wait_for_the_gap(&provider).await;
    five_blocks_are_replaced(&provider).await;
}

async fn transfers_are_paid_for(provider: &DynProvider) {
    let to = address(0x77);
    let before = provider.get_balance(address(2)).await.unwrap();
    let at_target = provider.get_balance(to).await.unwrap();
    let transfer = TransactionRequest::default().with_from(address(2)).with_to(to).with_value(ether(3));
    let receipt = provider.send_transaction(transfer).await.unwrap().get_receipt().await.unwrap();
    assert!(receipt.status());
    assert_eq!(receipt.gas_used, 21_000);
    let fee = U256::from(receipt.gas_used) * U256::from(receipt.effective_gas_price);
    assert_eq!(provider.get_balance(to).await.unwrap(), at_target + ether(3));
    assert_eq!(provider.get_balance(address(2)).await.unwrap(), before - ether(3) - fee);
    let found = provider.get_transaction_by_hash(receipt.transaction_hash).await.unwrap().unwrap();
    assert_eq!(found.block_hash, receipt.block_hash);
    let receipts = provider.get_block_receipts(receipt.block_number.unwrap().into()).await.unwrap().unwrap();
    assert_eq!(receipts, [receipt]);
}

async fn failures_carry_their_data(provider: &DynProvider) {
    let probe = deploy(provider, "Probe", &[]).await;
    let error = provider.call(request(1, probe, &Probe::failCall { asked: U256::from(9) })).await.unwrap_err();
    assert_eq!(error.as_error_resp().unwrap().code, 3);
    let decoded = error.as_error_resp().unwrap().as_decoded_error::<Probe::TooMuch>().unwrap();
    assert_eq!(decoded, Probe::TooMuch { asked: U256::from(9), why: "as asked".into() });
    // An estimate fails in the same way, so nothing that reverts is sent unseen.
    let error = provider.estimate_gas(request(1, probe, &Probe::failCall { asked: U256::from(8) })).await.unwrap_err();
    let decoded = error.as_error_resp().unwrap().as_decoded_error::<Probe::TooMuch>().unwrap();
    assert_eq!(decoded.asked, U256::from(8));
    let error = provider.call(request(1, probe, &Probe::failWithTextCall {})).await.unwrap_err();
    assert!(error.to_string().contains("as asked"), "{error}");
    // One that is sent all the same is mined; its receipt says that it failed, and what it did did not happen.
    let sent = request(1, probe, &Probe::pingAndFailCall { value: U256::from(5) }).with_gas_limit(100_000);
    let receipt = provider.send_transaction(sent).await.unwrap().get_receipt().await.unwrap();
    assert!(!receipt.status());
    assert_eq!(receipt.logs(), []);
    assert_eq!(provider.get_logs(&Filter::new().at_block_hash(receipt.block_hash.unwrap())).await.unwrap(), []);
    assert_eq!(read(provider, probe, &Probe::lastCall {}).await, U256::ZERO);
}

async fn logs_are_found_and_polled(provider: &DynProvider) {
    let probe = deploy(provider, "Probe", &[]).await;
    let start = provider.get_block_number().await.unwrap();
    let all = Filter::new().address(probe).from_block(start);
    let id: U256 = rpc(provider, "eth_newFilter", (all.clone(),)).await;
    let blocks: U256 = rpc(provider, "eth_newBlockFilter", ()).await;
    send(provider, 2, probe, &Probe::pingCall { value: U256::from(5) }).await;
    let receipt = send(provider, 3, probe, &Probe::pingTwiceCall { value: U256::from(6) }).await;
    let logs = provider.get_logs(&all).await.unwrap();
    assert_eq!(logs.len(), 3);
    let [_, first, second] = logs.as_slice() else { unreachable!() };
    assert_eq!((first.log_index, second.log_index), (Some(0), Some(1)));
    assert_eq!((first.transaction_hash, first.block_hash), (Some(receipt.transaction_hash), receipt.block_hash));
    let event = Probe::Ping::decode_log(&second.inner).unwrap();
    assert_eq!((event.who, event.value, event.data.data.as_ref()), (address(3), U256::from(6), b"second".as_ref()));
    // By topic, by block and by a topic that is not there.
    let by_value = |value: u64| all.clone().topic2(U256::from(value));
    assert_eq!(provider.get_logs(&by_value(5)).await.unwrap().len(), 1);
    assert_eq!(provider.get_logs(&by_value(7)).await.unwrap(), []);
    let in_block = Filter::new().at_block_hash(receipt.block_hash.unwrap());
    assert_eq!(provider.get_logs(&in_block).await.unwrap(), [first.clone(), second.clone()]);
    // A poll brings what is new once.
    let polled: Vec<alloy::rpc::types::Log> = rpc(provider, "eth_getFilterChanges", (id,)).await;
    assert_eq!(polled, logs);
    let polled: Vec<Value> = rpc(provider, "eth_getFilterChanges", (id,)).await;
    assert_eq!(polled.len(), 0);
    let hashes: Vec<B256> = rpc(provider, "eth_getFilterChanges", (blocks,)).await;
    assert_eq!((hashes.len(), hashes.last()), (2, receipt.block_hash.as_ref()));
    assert!(rpc::<bool>(provider, "eth_uninstallFilter", (id,)).await);
    rpc_error(provider, "eth_getFilterChanges", (id,)).await;
    // A block that nobody knows is an error and not a block without logs.
    rpc_error(provider, "eth_getLogs", (Filter::new().at_block_hash(B256::repeat_byte(9)),)).await;
}

async fn headers_hash_to_their_hash(provider: &DynProvider) {
    let transfer = TransactionRequest::default().with_from(address(2)).with_to(address(3)).with_value(U256::ONE);
    provider.send_transaction(transfer).await.unwrap().get_receipt().await.unwrap();
    let mut parent = None;
    let head = provider.get_block_number().await.unwrap();
    for number in head - 3..=head {
        let block = provider.get_block_by_number(number.into()).await.unwrap().unwrap();
        let mut rlp = Vec::new();
        block.header.inner.encode(&mut rlp);
        assert_eq!(keccak256(&rlp), block.header.hash);
        assert_eq!(block.header.ommers_hash, EMPTY_OMMER_ROOT_HASH);
        assert!(parent.is_none_or(|parent| parent == block.header.parent_hash));
        parent = Some(block.header.hash);
    }
    // Contracts see the same hash.
    let probe = deploy(provider, "Probe", &[]).await;
    mine(provider, 1).await;
    assert_eq!(read(provider, probe, &Probe::hashOfCall { number: U256::from(head) }).await, parent.unwrap());
}

async fn fees_are_told(provider: &DynProvider) {
    let history = provider.get_fee_history(4, BlockNumberOrTag::Latest, &[0.0, 50.0, 100.0]).await.unwrap();
    assert_eq!((history.base_fee_per_gas.len(), history.gas_used_ratio.len()), (5, 4));
    assert!(history.reward.unwrap().iter().all(|rewards| rewards.len() == 3 && rewards.is_sorted()));
    let probe = deploy(provider, "Probe", &[]).await;
    // An estimate is enough, and a little less would not be far too little.
    let dive = request(1, probe, &Probe::diveCall { depth: U256::from(20) });
    let estimate = provider.estimate_gas(dive.clone()).await.unwrap();
    let receipt = provider.send_transaction(dive.clone().with_gas_limit(estimate)).await.unwrap().get_receipt().await;
    assert!(receipt.unwrap().status());
    let starved = dive.with_gas_limit(estimate / 2);
    assert!(!provider.send_transaction(starved).await.unwrap().get_receipt().await.unwrap().status());
}

async fn snapshots_go_back(provider: &DynProvider) {
    let probe = deploy(provider, "Probe", &[]).await;
    send(provider, 1, probe, &Probe::pingCall { value: U256::from(1) }).await;
    let (head, nonce) =
        (provider.get_block_number().await.unwrap(), provider.get_transaction_count(address(1)).await.unwrap());
    let snapshot: U256 = rpc(provider, "evm_snapshot", ()).await;
    let lost = send(provider, 1, probe, &Probe::pingCall { value: U256::from(2) }).await;
    mine(provider, 3).await;
    assert!(rpc::<bool>(provider, "evm_revert", (snapshot,)).await);
    assert_eq!(provider.get_block_number().await.unwrap(), head);
    assert_eq!(provider.get_transaction_count(address(1)).await.unwrap(), nonce);
    assert_eq!(read(provider, probe, &Probe::lastCall {}).await, U256::from(1));
    assert!(provider.get_transaction_receipt(lost.transaction_hash).await.unwrap().is_none());
    // Used up.
    let again: Result<bool, _> = provider.raw_request("evm_revert".into(), (snapshot,)).await;
    assert!(!again.unwrap_or(false));
}

async fn time_moves_as_asked(provider: &DynProvider) {
    let timestamp =
        async || provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap().header.timestamp;
    let start = timestamp().await;
    let _: Value = rpc(provider, "evm_increaseTime", (86_400,)).await;
    mine(provider, 1).await;
    let moved = timestamp().await - start;
    assert!((86_400..86_460).contains(&moved), "{moved}");
    let exact = timestamp().await + 12_345;
    let _: Value = rpc(provider, "evm_setNextBlockTimestamp", (exact,)).await;
    mine(provider, 1).await;
    assert_eq!(timestamp().await, exact);
    mine(provider, 1).await;
    assert!((exact..exact + 60).contains(&timestamp().await));
    rpc_error(provider, "evm_setNextBlockTimestamp", (exact - 1,)).await;
}

async fn waiting_transactions_can_be_replaced(provider: &DynProvider) {
    let _: Value = rpc(provider, "evm_setAutomine", (false,)).await;
    let nonce = provider.get_transaction_count(address(4)).await.unwrap();
    let first = Transfer::new(4, nonce, address(5), U256::from(1));
    let hash = *provider.send_raw_transaction(&first.raw()).await.unwrap().tx_hash();
    assert!(provider.get_transaction_by_hash(hash).await.unwrap().unwrap().block_hash.is_none());
    assert!(provider.get_transaction_receipt(hash).await.unwrap().is_none());
    assert_eq!(provider.get_transaction_count(address(4)).await.unwrap(), nonce);
    assert_eq!(provider.get_transaction_count(address(4)).pending().await.unwrap(), nonce + 1);
    // The same fees replace nothing; ten per cent more do.
    let same = Transfer { value: U256::from(2), ..first };
    let (_, message) = rpc_error(provider, "eth_sendRawTransaction", (same.raw(),)).await;
    assert!(message.contains("underpriced"), "{message}");
    let more = Transfer { max_fee: first.max_fee * 12 / 10, tip: first.tip * 12 / 10, ..same };
    let replacement = *provider.send_raw_transaction(&more.raw()).await.unwrap().tx_hash();
    mine(provider, 1).await;
    assert!(provider.get_transaction_receipt(replacement).await.unwrap().unwrap().status());
    assert!(provider.get_transaction_receipt(hash).await.unwrap().is_none());
    assert!(provider.get_transaction_by_hash(hash).await.unwrap().is_none());
    let (_, message) = rpc_error(provider, "eth_sendRawTransaction", (first.raw(),)).await;
    assert!(message.contains("nonce too low"), "{message}");
    let _: Value = rpc(provider, "evm_setAutomine", (true,)).await;
}

async fn nonces_ahead_wait_for_the_gap(provider: &DynProvider) {
    let nonce = provider.get_transaction_count(address(6)).await.unwrap();
    let transfers: Vec<Transfer> = (0..3).map(|ahead| Transfer::new(6, nonce + ahead, address(5), U256::ONE)).collect();
    for ahead in [&transfers[2], &transfers[1]] {
        let hash = *provider.send_raw_transaction(&ahead.raw()).await.unwrap().tx_hash();
        assert!(provider.get_transaction_receipt(hash).await.unwrap().is_none());
    }
    assert_eq!(provider.get_transaction_count(address(6)).pending().await.unwrap(), nonce);
    let _: B256 = rpc(provider, "eth_sendRawTransaction", (transfers[0].raw(),)).await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while provider.get_transaction_count(address(6)).await.unwrap() < nonce + 3 {
        assert!(Instant::now() < deadline, "transactions behind the gap are never mined");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn five_blocks_are_replaced(provider: &DynProvider) {
    let probe = deploy(provider, "Probe", &[]).await;
    send(provider, 1, probe, &Probe::pingCall { value: U256::from(1) }).await;
    mine(provider, 2).await;
    let base = provider.get_block_number().await.unwrap();
    let (balance, nonce) =
        (provider.get_balance(address(7)).await.unwrap(), provider.get_transaction_count(address(1)).await.unwrap());
    let mut lost = Vec::new();
    for value in 2..6 {
        lost.push(send(provider, 1, probe, &Probe::pingCall { value: U256::from(value) }).await.transaction_hash);
    }
    let transfer = TransactionRequest::default().with_from(address(2)).with_to(address(7)).with_value(ether(1));
    lost.push(provider.send_transaction(transfer).await.unwrap().get_receipt().await.unwrap().transaction_hash);
    let old = provider.get_block_by_number((base + 3).into()).await.unwrap().unwrap().header;

    // One of the replaced transactions comes again, later; the others are lost.
    let again = Transfer::new(7, provider.get_transaction_count(address(7)).await.unwrap(), address(8), ether(2));
    let _: Value = rpc(provider, "anvil_reorg", (5, vec![(again.raw(), 2)])).await;

    assert_eq!(provider.get_block_number().await.unwrap(), base + 5);
    let new = provider.get_block_by_number((base + 3).into()).await.unwrap().unwrap().header;
    assert_ne!(new.hash, old.hash);
    assert_eq!(read(provider, probe, &Probe::lastCall {}).await, U256::from(1));
    assert_eq!(provider.get_transaction_count(address(1)).await.unwrap(), nonce);
    for hash in lost {
        assert!(provider.get_transaction_receipt(hash).await.unwrap().is_none());
    }
    let receipt = provider.get_transaction_receipt(again.hash()).await.unwrap().unwrap();
    assert_eq!((receipt.block_number, receipt.block_hash), (Some(base + 3), Some(new.hash)));
    assert!(provider.get_balance(address(7)).await.unwrap() < balance - ether(2));
    rpc_error(provider, "eth_getLogs", (Filter::new().at_block_hash(old.hash),)).await;
    // And it goes on.
    send(provider, 1, probe, &Probe::pingCall { value: U256::from(9) }).await;
    assert_eq!(rpc::<U64>(provider, "eth_blockNumber", ()).await, U64::from(base + 6));
}

#[tokio::test]
async fn the_embedded_chain_behaves_like_a_chain_in_process() {
    behaves_like_a_chain(chain().client()).await;
}

#[tokio::test]
async fn the_embedded_chain_behaves_like_a_chain_over_http() {
    allow_http();
    let server = chain().serve("127.0.0.1:0".parse().unwrap(), &CancellationToken::new()).await.unwrap();
    behaves_like_a_chain(ClientBuilder::default().http(server.url().parse().unwrap())).await;
    server.stop().await;
}

#[tokio::test]
#[ignore = "needs anvil: set HALLMARK_ANVIL to its program, or HALLMARK_ANVIL_URL to where one listens"]
async fn anvil_behaves_like_a_chain() {
    let anvil = Anvil::find().await;
    behaves_like_a_chain(anvil.client()).await;
}
