//! What is taken, what waits, and what is refused.

use alloy::{
    consensus::{SignableTransaction as _, TxEnvelope, TxLegacy},
    eips::eip2718::Encodable2718 as _,
    network::TxSignerSync as _,
    primitives::{Address, B256, Bytes, TxKind, U64, U256},
    providers::Provider as _,
    sol_types::SolCall as _,
};
use serde_json::{Value, json};

use crate::support::{
    CHAIN_ID, Probe, Transfer, address, chain, deploy, ether, mine, provider, rpc, rpc_error, signer,
};

fn legacy(chain_id: Option<u64>) -> Bytes {
    let mut transaction = TxLegacy {
        chain_id,
        nonce: 0,
        gas_price: 2_000_000_000,
        gas_limit: 21_000,
        to: TxKind::Call(address(2)),
        value: U256::ONE,
        input: Bytes::new(),
    };
    let signature = signer(1).sign_transaction_sync(&mut transaction).unwrap();
    TxEnvelope::from(transaction.into_signed(signature)).encoded_2718().into()
}

#[tokio::test]
async fn each_fault_of_a_transaction_has_its_own_refusal_and_changes_nothing() {
    let provider = provider(chain().client());
    let good = Transfer::new(1, 0, address(2), U256::ONE);
    let unfunded = Transfer::new(0x66, 0, address(2), U256::ZERO);
    let mut cut = good.raw().to_vec();
    cut.pop();
    let trailing = [good.raw().as_ref(), &[0]].concat();
    for (raw, expected) in [
        (Bytes::new(), "cannot be decoded"),
        (Bytes::from(cut), "cannot be decoded"),
        (Bytes::from(trailing), "cannot be decoded"),
        (Transfer { chain_id: 1, ..good }.raw(), "invalid chain id for signer: have 1 want 31337"),
        (legacy(None), "replay-protected"),
        (Transfer { gas_limit: 20_999, ..good }.raw(), "call gas cost"),
        (Transfer { gas_limit: 17_000_000, ..good }.raw(), "gas limit"),
        (Transfer { tip: good.max_fee + 1, ..good }.raw(), "priority fee"),
        (Transfer { value: ether(1_000), ..good }.raw(), "insufficient funds"),
        (unfunded.raw(), "insufficient funds"),
    ] {
        let (_, message) = rpc_error(&provider, "eth_sendRawTransaction", (raw,)).await;
        assert!(message.contains(expected), "{expected}: {message}");
    }
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    assert_eq!(rpc::<Value>(&provider, "txpool_status", ()).await, json!({ "pending": "0x0", "queued": "0x0" }));
    let sent: B256 = rpc(&provider, "eth_sendRawTransaction", (good.raw(),)).await;
    assert_eq!(sent, good.hash());
    let (_, message) = rpc_error(&provider, "eth_sendRawTransaction", (good.raw(),)).await;
    assert_eq!(message, "already known");
    let _: B256 = rpc(&provider, "eth_sendRawTransaction", (Transfer { nonce: 1, ..good }.raw(),)).await;
    let other = Transfer { value: U256::ZERO, ..good };
    let (_, message) = rpc_error(&provider, "eth_sendRawTransaction", (other.raw(),)).await;
    assert_eq!(message, "nonce too low: next nonce 2, tx nonce 0");
}

#[tokio::test]
async fn a_protected_legacy_transaction_is_taken() {
    let provider = provider(chain().client());
    let hash: B256 = rpc(&provider, "eth_sendRawTransaction", (legacy(Some(CHAIN_ID)),)).await;
    let receipt = provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    assert_eq!((receipt.status(), receipt.effective_gas_price), (true, 2_000_000_000));
}

#[tokio::test]
async fn a_fee_below_the_base_fee_waits_until_the_base_fee_falls_or_it_is_replaced() {
    let provider = provider(chain().client());
    let _: Value = rpc(&provider, "anvil_setNextBlockBaseFeePerGas", ("0xba43b7400",)).await;
    let cheap = [Transfer::new(1, 0, address(2), U256::ONE), Transfer::new(3, 0, address(2), U256::ONE)];
    for transfer in &cheap {
        let _: B256 = rpc(&provider, "eth_sendRawTransaction", (transfer.raw(),)).await;
    }
    assert_eq!(rpc::<U64>(&provider, "eth_blockNumber", ()).await, U64::ZERO);
    let dearer = Transfer { max_fee: 60_000_000_000, tip: 2_000_000_000, ..cheap[0] };
    let hash: B256 = rpc(&provider, "eth_sendRawTransaction", (dearer.raw(),)).await;
    let receipt = provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    assert_eq!(receipt.effective_gas_price, 52_000_000_000);
    // The other one is mined with the first block that it can pay for.
    let other = cheap[1].hash();
    assert!(provider.get_transaction_receipt(other).await.unwrap().is_none());
    let _: Value = rpc(&provider, "anvil_setNextBlockBaseFeePerGas", ("0x3b9aca00",)).await;
    mine(&provider, 1).await;
    assert!(provider.get_transaction_receipt(other).await.unwrap().unwrap().status());
}

#[tokio::test]
async fn a_block_takes_the_best_paying_first_and_counts_gas_and_logs_through() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let _: Value = rpc(&provider, "evm_setAutomine", (false,)).await;
    let mut hashes: Vec<B256> = Vec::new();
    for (from, tip) in [(2, 1_000_000_000), (3, 3_000_000_000), (4, 2_000_000_000)] {
        let input = Probe::pingTwiceCall { value: U256::from(from) }.abi_encode().into();
        let ping = Transfer { tip, gas_limit: 100_000, ..Transfer::new(from, 0, probe, U256::ZERO) };
        let raw: Bytes = ping.with_input(input).encoded_2718().into();
        hashes.push(rpc(&provider, "eth_sendRawTransaction", (raw,)).await);
    }
    mine(&provider, 1).await;
    let receipts = provider.get_block_receipts(2.into()).await.unwrap().unwrap();
    let order: Vec<Address> = receipts.iter().map(|receipt| receipt.from).collect();
    assert_eq!(order, [address(3), address(4), address(2)]);
    let mut gas = 0;
    let logs = receipts.iter().flat_map(|receipt| receipt.logs());
    assert_eq!(logs.map(|log| log.log_index.unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    for (receipt, index) in receipts.iter().zip(0..) {
        gas += receipt.gas_used;
        assert_eq!((receipt.inner.cumulative_gas_used(), receipt.transaction_index), (gas, Some(index)));
    }
    let block = provider.get_block_by_number(2.into()).full().await.unwrap().unwrap();
    assert_eq!((block.header.gas_used, block.transactions.len()), (gas, 3));
    let second: Value = rpc(&provider, "eth_getTransactionByBlockNumberAndIndex", ("0x2", "0x1")).await;
    assert_eq!(second["hash"], json!(hashes[2]));
    let found: Value = rpc(&provider, "eth_getTransactionBySenderAndNonce", (address(2), "0x0")).await;
    assert_eq!(found["hash"], json!(hashes[0]));
}

#[tokio::test]
async fn a_block_is_never_fuller_than_its_gas_limit() {
    let provider = provider(chain().client());
    let _: Value = rpc(&provider, "evm_setAutomine", (false,)).await;
    // Each could use 16 million of the 60.
    for from in 1..6 {
        let large = Transfer { gas_limit: 16_000_000, ..Transfer::new(from, 0, address(9), U256::ONE) };
        let _: B256 = rpc(&provider, "eth_sendRawTransaction", (large.raw(),)).await;
    }
    let probe_status = async || rpc::<Value>(&provider, "txpool_status", ()).await;
    assert_eq!(probe_status().await, json!({ "pending": "0x5", "queued": "0x0" }));
    mine(&provider, 1).await;
    // What counts is what was used: all five fit.
    assert_eq!(probe_status().await, json!({ "pending": "0x0", "queued": "0x0" }));
    let ahead = Transfer::new(1, 5, address(9), U256::ONE);
    let hash: B256 = rpc(&provider, "eth_sendRawTransaction", (ahead.raw(),)).await;
    assert_eq!(probe_status().await, json!({ "pending": "0x0", "queued": "0x1" }));
    assert_eq!(rpc::<B256>(&provider, "anvil_dropTransaction", (hash,)).await, hash);
    assert_eq!(probe_status().await, json!({ "pending": "0x0", "queued": "0x0" }));
    assert!(provider.get_transaction_by_hash(hash).await.unwrap().is_none());
}

#[tokio::test]
async fn what_can_no_longer_be_paid_leaves_the_pool_when_its_turn_comes() {
    let provider = provider(chain().client());
    let _: Value = rpc(&provider, "evm_setAutomine", (false,)).await;
    let both = [Transfer::new(1, 0, address(2), ether(600)), Transfer::new(1, 1, address(2), ether(600))];
    for transfer in &both {
        let _: B256 = rpc(&provider, "eth_sendRawTransaction", (transfer.raw(),)).await;
    }
    let pending: Vec<B256> = both.iter().map(|transfer| transfer.hash()).collect();
    mine(&provider, 1).await;
    assert!(provider.get_transaction_receipt(pending[0]).await.unwrap().unwrap().status());
    assert!(provider.get_transaction_by_hash(pending[1]).await.unwrap().is_none());
    assert_eq!(provider.get_balance(address(2)).await.unwrap(), ether(1_600));
}

#[tokio::test]
async fn automine_mines_what_waited_when_it_is_turned_on() {
    let provider = provider(chain().client());
    let _: Value = rpc(&provider, "evm_setAutomine", (false,)).await;
    let filter: U256 = rpc(&provider, "eth_newPendingTransactionFilter", ()).await;
    for nonce in 0..3 {
        let _: B256 =
            rpc(&provider, "eth_sendRawTransaction", (Transfer::new(1, nonce, address(2), U256::ONE).raw(),)).await;
    }
    let seen: Vec<B256> = rpc(&provider, "eth_getFilterChanges", (filter,)).await;
    assert_eq!(seen.len(), 3);
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    assert!(!rpc::<bool>(&provider, "anvil_getAutomine", ()).await);
    let _: Value = rpc(&provider, "evm_setAutomine", (true,)).await;
    assert_eq!(provider.get_block_number().await.unwrap(), 3);
}
