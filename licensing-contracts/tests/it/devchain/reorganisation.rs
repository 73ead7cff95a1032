//! Snapshots and replaced blocks: what they take back, and what they leave alone.

use alloy::{
    primitives::{Address, B256, Bytes, U256},
    providers::{DynProvider, Provider as _},
    rpc::types::{Filter, Log},
};
use serde_json::{Value, json};

use crate::support::{NOW, Probe, Transfer, address, chain, deploy, ether, mine, provider, read, rpc, rpc_error, send};

async fn hash_at(provider: &DynProvider, number: u64) -> B256 {
    provider.get_block_by_number(number.into()).await.unwrap().unwrap().header.hash
}

/// Balances and nonces of everybody who takes part.
async fn fortunes(provider: &DynProvider) -> Vec<(U256, u64)> {
    let mut fortunes = Vec::new();
    for number in 1..10 {
        let who = address(number);
        fortunes.push((provider.get_balance(who).await.unwrap(), provider.get_transaction_count(who).await.unwrap()));
    }
    fortunes
}

#[tokio::test]
async fn sixty_four_blocks_can_be_replaced_and_state_follows_exactly() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let mut at = vec![(fortunes(&provider).await, U256::ZERO)];
    for block in 1..=80_u64 {
        let from = u8::try_from(block % 9 + 1).unwrap();
        send(&provider, from, probe, &Probe::pingCall { value: U256::from(block) }).await;
        at.push((fortunes(&provider).await, U256::from(block)));
    }
    assert!(rpc_error(&provider, "anvil_reorg", (65, json!([]))).await.1.contains("64 is the most"));
    for (depth, left) in [(1, 79), (5, 75), (64, 16)] {
        let head = provider.get_block_number().await.unwrap();
        let (kept, replaced) = (hash_at(&provider, head - depth).await, hash_at(&provider, head - depth + 1).await);
        let _: Value = rpc(&provider, "anvil_reorg", (depth, json!([]))).await;
        assert_eq!(provider.get_block_number().await.unwrap(), head);
        assert_eq!(hash_at(&provider, head - depth).await, kept);
        assert_ne!(hash_at(&provider, head - depth + 1).await, replaced);
        // Reorganising again starts from empty blocks: the state is that of the lowest block kept so far.
        let expected = &at[usize::try_from(left).unwrap()];
        assert_eq!(
            &(fortunes(&provider).await, read(&provider, probe, &Probe::lastCall {}).await),
            expected,
            "{depth}"
        );
    }
}

#[tokio::test]
async fn a_reorganisation_that_cannot_be_built_changes_nothing() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    for value in 1..6 {
        send(&provider, 1, probe, &Probe::pingCall { value: U256::from(value) }).await;
    }
    let (head, before) = (provider.get_block_number().await.unwrap(), fortunes(&provider).await);
    let hashes: Vec<B256> = vec![hash_at(&provider, head).await, hash_at(&provider, head - 2).await];
    let filter: U256 = rpc(&provider, "eth_newBlockFilter", ()).await;
    let good = Transfer::new(2, 0, address(3), ether(1));
    for (depth, transactions, expected) in [
        (3, json!([[good.raw(), 0], [Transfer { nonce: 7, ..good }.raw(), 1]]), "cannot be in a replaced block"),
        (
            3,
            json!([[good.raw(), 0], [Transfer { nonce: 1, value: ether(9_999), ..good }.raw(), 2]]),
            "cannot be in a replaced block",
        ),
        (3, json!([[good.raw(), 3]]), "only 3 blocks are replaced"),
        (3, json!([[{ "from": address(1) }, 0]]), "not signed"),
        (3, json!([["0x1234", 0]]), "cannot be decoded"),
        (99, json!([]), "is the most"),
    ] {
        let (_, message) = rpc_error(&provider, "anvil_reorg", (depth, transactions)).await;
        assert!(message.contains(expected), "{expected}: {message}");
        assert_eq!(vec![hash_at(&provider, head).await, hash_at(&provider, head - 2).await], hashes);
        assert_eq!(fortunes(&provider).await, before);
        assert_eq!(read(&provider, probe, &Probe::lastCall {}).await, U256::from(5));
    }
    assert_eq!(rpc::<Value>(&provider, "eth_getFilterChanges", (filter,)).await, json!([]));
    // Nor has it spoilt what can be taken back.
    let _: Value = rpc(&provider, "anvil_reorg", json!({ "depth": 3, "tx_block_pairs": [[good.raw(), 1]] })).await;
    assert_eq!(read(&provider, probe, &Probe::lastCall {}).await, U256::from(2));
    assert_eq!(provider.get_balance(address(3)).await.unwrap(), ether(1_001));
}

#[tokio::test]
async fn pollers_are_told_what_was_removed_and_what_came_instead() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let logs: U256 = rpc(&provider, "eth_newFilter", (Filter::new().address(probe),)).await;
    let blocks: U256 = rpc(&provider, "eth_newBlockFilter", ()).await;
    let first = send(&provider, 1, probe, &Probe::pingCall { value: U256::from(1) }).await;
    let second = send(&provider, 1, probe, &Probe::pingCall { value: U256::from(2) }).await;
    let seen: Vec<Log> = rpc(&provider, "eth_getFilterChanges", (logs,)).await;
    assert_eq!(seen.len(), 2);
    let _: Vec<B256> = rpc(&provider, "eth_getFilterChanges", (blocks,)).await;
    let _: Value = rpc(&provider, "anvil_reorg", (2, json!([]))).await;
    let changes: Vec<Log> = rpc(&provider, "eth_getFilterChanges", (logs,)).await;
    let removed: Vec<_> = changes.iter().map(|log| (log.removed, log.block_hash, log.transaction_hash)).collect();
    let gone =
        |receipt: &alloy::rpc::types::TransactionReceipt| (true, receipt.block_hash, Some(receipt.transaction_hash));
    assert_eq!(removed, [gone(&second), gone(&first)]);
    let new: Vec<B256> = rpc(&provider, "eth_getFilterChanges", (blocks,)).await;
    assert_eq!(new, [hash_at(&provider, 2).await, hash_at(&provider, 3).await]);
}

#[tokio::test]
async fn a_snapshot_outlives_what_comes_after_and_is_lost_with_what_is_below() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    send(&provider, 1, probe, &Probe::pingCall { value: U256::from(1) }).await;
    let old: U256 = rpc(&provider, "evm_snapshot", ()).await;
    // Far more blocks than can be replaced.
    for value in 0..100 {
        send(&provider, 2, probe, &Probe::pingCall { value: U256::from(value) }).await;
    }
    let young: U256 = rpc(&provider, "evm_snapshot", ()).await;
    let _: Value = rpc(&provider, "anvil_reorg", (3, json!([]))).await;
    assert!(!rpc::<bool>(&provider, "evm_revert", (young,)).await);
    assert!(rpc::<bool>(&provider, "evm_revert", (old,)).await);
    assert_eq!(read(&provider, probe, &Probe::lastCall {}).await, U256::from(1));
    assert_eq!(provider.get_transaction_count(address(2)).await.unwrap(), 0);
    assert_eq!(provider.get_block_number().await.unwrap(), 2);
}

#[tokio::test]
async fn a_snapshot_holds_arranged_accounts_time_fees_and_the_pool() {
    let provider = provider(chain().client());
    let anyone = Address::repeat_byte(0xaa);
    let _: Value = rpc(&provider, "anvil_setBalance", (anyone, U256::from(1))).await;
    let _: Value = rpc(&provider, "evm_setAutomine", (false,)).await;
    let waiting = Transfer::new(1, 0, address(2), U256::ONE);
    let hash: B256 = rpc(&provider, "eth_sendRawTransaction", (waiting.raw(),)).await;
    let snapshot: U256 = rpc(&provider, "evm_snapshot", ()).await;
    let _: Value = rpc(&provider, "anvil_setBalance", (anyone, U256::from(2))).await;
    let _: Value = rpc(&provider, "evm_increaseTime", (1_000_000,)).await;
    let _: Value = rpc(&provider, "anvil_setNextBlockBaseFeePerGas", (7,)).await;
    let _: Value = rpc(&provider, "evm_setAutomine", (true,)).await;
    assert!(provider.get_transaction_receipt(hash).await.unwrap().is_some());
    assert!(rpc::<bool>(&provider, "evm_revert", (snapshot,)).await);
    assert_eq!(provider.get_balance(anyone).await.unwrap(), U256::from(1));
    assert!(provider.get_transaction_by_hash(hash).await.unwrap().unwrap().block_hash.is_none());
    mine(&provider, 1).await;
    let block = provider.get_block_by_number(1.into()).await.unwrap().unwrap().header;
    assert_eq!((block.timestamp, block.base_fee_per_gas), (NOW, Some(1_000_000_000)));
    assert!(provider.get_transaction_receipt(hash).await.unwrap().unwrap().status());
}

#[tokio::test]
async fn a_replaced_transaction_can_come_again_in_another_block() {
    let provider = provider(chain().client());
    let transfer = Transfer::new(1, 0, address(2), ether(1));
    let hash: B256 = rpc(&provider, "eth_sendRawTransaction", (transfer.raw(),)).await;
    mine(&provider, 3).await;
    let first = provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    let raw: Bytes = rpc(&provider, "eth_getRawTransactionByHash", (hash,)).await;
    assert_eq!(raw, transfer.raw());
    let _: Value = rpc(&provider, "anvil_reorg", json!([4, [[raw, 2]]])).await;
    let again = provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    assert_eq!((first.block_number, again.block_number), (Some(1), Some(3)));
    assert_eq!(again.block_hash, Some(hash_at(&provider, 3).await));
    assert_eq!(provider.get_balance(address(2)).await.unwrap(), ether(1_001));
    // Lost once more, it can be sent by its owner, as it was.
    let _: Value = rpc(&provider, "anvil_reorg", json!([4, []])).await;
    assert!(provider.get_transaction_by_hash(hash).await.unwrap().is_none());
    let sent: B256 = rpc(&provider, "eth_sendRawTransaction", (transfer.raw(),)).await;
    assert_eq!(provider.get_transaction_receipt(sent).await.unwrap().unwrap().block_number, Some(5));
}
