//! A chain that outlives its process.

use std::{fs, path::Path};

use alloy::{
    consensus::Transaction as _,
    primitives::{B256, U256},
    providers::Provider as _,
    rpc::types::Filter,
};
use licensing_contracts::devchain::{Config, DevChain, StateError};
use serde_json::{Value, json};

use crate::support::{
    Factory, NOW, Probe, Transfer, address, chain, config, deploy, ether, mine, provider, read, rpc, rpc_error, send,
};

/// A chain with contracts, logs, failed and waiting transactions, saved to the file.
async fn saved(path: &Path) -> DevChain {
    let chain = chain();
    let provider = provider(chain.client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let factory = deploy(&provider, "Factory", &[]).await;
    send(&provider, 2, probe, &Probe::pingTwiceCall { value: U256::from(7) }).await;
    send(&provider, 2, factory, &Factory::spawnCall { salt: B256::ZERO }).await;
    let _: Value = rpc(&provider, "evm_increaseTime", (500,)).await;
    let _: Value = rpc(&provider, "anvil_setNextBlockBaseFeePerGas", (2_000_000_000,)).await;
    mine(&provider, 1).await;
    let ahead = Transfer::new(3, 1, address(4), ether(1));
    let _: B256 = rpc(&provider, "eth_sendRawTransaction", (ahead.raw(),)).await;
    chain.save(path).unwrap();
    chain
}

#[tokio::test]
async fn a_saved_chain_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.json");
    let before = provider(saved(&path).await.client());
    let after = provider(DevChain::open(Config { seed: None, ..config() }, &path).unwrap().client());
    let head = before.get_block_number().await.unwrap();
    for number in 0..=head {
        let block = async |provider: &alloy::providers::DynProvider| {
            let full: Value = rpc(provider, "eth_getBlockByNumber", (U256::from(number), true)).await;
            let receipts: Value = rpc(provider, "eth_getBlockReceipts", (U256::from(number),)).await;
            (full, receipts)
        };
        assert_eq!(block(&before).await, block(&after).await);
    }
    assert_eq!(after.get_block_number().await.unwrap(), head);
    let all = Filter::new().from_block(0);
    let logs = after.get_logs(&all).await.unwrap();
    assert_eq!((logs.len(), &logs), (2, &before.get_logs(&all).await.unwrap()));
    let probe = logs[0].address();
    assert_eq!(read(&after, probe, &Probe::lastCall {}).await, U256::from(7));
    for number in 1..10 {
        let who = address(number);
        assert_eq!(after.get_balance(who).await.unwrap(), before.get_balance(who).await.unwrap());
        assert_eq!(after.get_transaction_count(who).await.unwrap(), before.get_transaction_count(who).await.unwrap());
    }
    // It goes on: the gap is filled, time and base fee are kept, and contracts know the hashes of old blocks.
    let filling = Transfer::new(3, 0, address(4), ether(1));
    let _: B256 = rpc(&after, "eth_sendRawTransaction", (filling.raw(),)).await;
    assert_eq!(after.get_transaction_count(address(3)).await.unwrap(), 2);
    let new = after.get_block_by_number((head + 1).into()).full().await.unwrap().unwrap();
    assert_eq!((new.header.timestamp, new.header.base_fee_per_gas), (NOW + 500, Some(2_000_000_000)));
    assert_eq!(new.transactions.as_transactions().unwrap()[0].nonce(), 0);
    let old = after.get_block_by_number(head.into()).await.unwrap().unwrap().header;
    assert_eq!(new.header.parent_hash, old.hash);
    assert_eq!(read(&after, probe, &Probe::hashOfCall { number: U256::from(head) }).await, old.hash);
    // Blocks of before cannot be replaced, those of after can.
    assert!(rpc_error(&after, "anvil_reorg", (3, json!([]))).await.1.contains("2 is the most"));
    let _: Value = rpc(&after, "anvil_reorg", (2, json!([]))).await;
    assert_eq!(after.get_transaction_count(address(3)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_file_without_a_chain_starts_a_new_one_and_saving_twice_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.json");
    let first = DevChain::open(config(), &path).unwrap();
    assert!(!path.exists());
    first.save(&path).unwrap();
    mine(&provider(first.client()), 3).await;
    first.save(&path).unwrap();
    let second = provider(DevChain::open(config(), &path).unwrap().client());
    assert_eq!(second.get_block_number().await.unwrap(), 3);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["chain.json"]);
    let nowhere = folder.path().join("absent").join("chain.json");
    assert!(matches!(first.save(&nowhere), Err(StateError::Write { .. })));
}

fn refusal(path: &Path) -> String {
    let error = DevChain::open(config(), path).expect_err("a damaged file was read");
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[tokio::test]
async fn a_damaged_file_is_refused_with_its_name_and_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("chain.json");
    saved(&path).await;
    let whole = fs::read_to_string(&path).unwrap();
    let state = whole.find("\"state\"").unwrap();
    // Every place to break off, coarsely, and each of the first and last bytes.
    let cuts = (0..whole.len()).step_by(997).chain(0..200).chain(whole.len() - 50..whole.len());
    for cut in cuts {
        fs::write(&path, &whole[..cut]).unwrap();
        assert!(refusal(&path).contains("chain.json"), "cut at {cut}");
    }
    for (from, to, expected) in [
        ("\"hallmark-devnet\"", "\"other\"", "is \"other\" version 1"),
        ("\"version\":1", "\"version\":2", "version 2"),
        ("\"chain_id\":31337", "\"chain_id\":31338", "damaged"),
        ("\"base_fee\":2000000000", "\"base_fee\":2000000001", "damaged"),
    ] {
        assert!(whole.contains(from), "{from}");
        fs::write(&path, whole.replacen(from, to, 1)).unwrap();
        let text = refusal(&path);
        assert!(text.contains(expected), "{text}");
    }
    // One digit anywhere in the state.
    let mut bytes = whole.clone().into_bytes();
    let digit = (state + 300..bytes.len()).find(|at| bytes[*at] == b'1').unwrap();
    bytes[digit] = b'2';
    fs::write(&path, &bytes).unwrap();
    assert!(refusal(&path).contains("damaged"));
    assert_eq!(fs::read(&path).unwrap(), bytes);
    fs::write(&path, &whole).unwrap();
    let other = Config { chain_id: 1, ..config() };
    assert!(matches!(DevChain::open(other, &path), Err(StateError::ChainId { found: 31_337, expected: 1, .. })));
    DevChain::open(config(), &path).unwrap();
    assert!(matches!(DevChain::open(config(), folder.path()), Err(StateError::Read { .. })));
}
