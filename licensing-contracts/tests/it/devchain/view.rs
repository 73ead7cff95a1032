//! What contracts and clients see of the embedded chain, and what it refuses to answer.

use std::time::{Duration, Instant};

use alloy::{
    consensus::{SignableTransaction as _, TxEip7702, TxEnvelope, TxType},
    eips::{BlockId, BlockNumberOrTag, eip2718::Encodable2718 as _, eip7702::Authorization},
    network::{TransactionBuilder as _, TxSignerSync as _},
    primitives::{Address, B256, Bytes, U256},
    providers::Provider as _,
    rpc::types::TransactionRequest,
    signers::SignerSync as _,
    sol_types::SolCall as _,
};
use licensing_contracts::devchain::{Clock, Config, DevChain};
use serde_json::{Value, json, value::to_raw_value};

use crate::support::{
    CHAIN_ID, Factory, NOW, Probe, Transfer, address, chain, config, deploy, ether, fixture, mine, provider, read,
    request, rpc, rpc_error, send, signer,
};

#[tokio::test]
async fn contracts_see_the_block_that_is_shown() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let head = provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap().header;
    let facts = read(&provider, probe, &Probe::factsCall {}).await;
    assert_eq!(facts.number, U256::from(head.number));
    assert_eq!(facts.timestamp, U256::from(head.timestamp));
    assert_eq!(B256::from(facts.prevrandao), head.mix_hash);
    assert_eq!(facts.parent, head.parent_hash);
    assert_eq!(facts.baseFee, U256::from(head.base_fee_per_gas.unwrap()));
    assert_eq!(facts.chain, U256::from(CHAIN_ID));
    // `pending` is the block that comes next.
    let _: Value = rpc(&provider, "evm_setNextBlockTimestamp", (NOW + 500,)).await;
    let _: Value = rpc(&provider, "hardhat_setPrevRandao", (B256::repeat_byte(7),)).await;
    let call = request(1, probe, &Probe::factsCall {});
    let output = provider.call(call).block(BlockId::pending()).await.unwrap();
    let next = Probe::factsCall::abi_decode_returns(&output).unwrap();
    assert_eq!((next.number, next.timestamp), (U256::from(head.number + 1), U256::from(NOW + 500)));
    assert_eq!((B256::from(next.prevrandao), next.parent), (B256::repeat_byte(7), head.hash));
    mine(&provider, 1).await;
    let mined = provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap().header;
    assert_eq!((mined.timestamp, mined.mix_hash), (NOW + 500, B256::repeat_byte(7)));
}

#[tokio::test]
async fn the_hashes_of_256_blocks_are_known_and_no_more() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    mine(&provider, 300).await;
    let head = provider.get_block_number().await.unwrap();
    for (back, known) in [(1, true), (255, true), (256, true), (257, false), (0, false)] {
        let number = head - back;
        let expected = provider.get_block_by_number(number.into()).await.unwrap().unwrap().header.hash;
        let seen = read(&provider, probe, &Probe::hashOfCall { number: U256::from(number) }).await;
        assert_eq!(seen, if known { expected } else { B256::ZERO }, "{back} blocks back");
    }
}

#[tokio::test]
async fn state_of_another_block_than_the_head_is_never_answered() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    send(&provider, 1, probe, &Probe::pingCall { value: U256::from(1) }).await;
    let call = request(1, probe, &Probe::lastCall {});
    let parent = provider.get_block_by_number(1.into()).await.unwrap().unwrap().header.hash;
    for block in [json!("0x1"), json!("earliest"), json!("finalized"), json!("safe"), json!({ "blockHash": parent })] {
        for (method, params) in [
            ("eth_call", json!([call, block])),
            ("eth_estimateGas", json!([call, block])),
            ("eth_getBalance", json!([probe, block])),
            ("eth_getCode", json!([probe, block])),
            ("eth_getTransactionCount", json!([probe, block])),
            ("eth_getStorageAt", json!([probe, "0x0", block])),
        ] {
            let (code, message) = rpc_error(&provider, method, params).await;
            assert!(code == -32000 && message.contains("no state of block"), "{method} {block}: {message}");
        }
    }
    for unknown in [json!("0x99"), json!({ "blockHash": B256::repeat_byte(1) })] {
        let (_, message) = rpc_error(&provider, "eth_call", json!([call, unknown])).await;
        assert!(message.contains("unknown block"), "{message}");
    }
    let head = provider.get_block_by_number(2.into()).await.unwrap().unwrap().header.hash;
    for head in [json!("latest"), json!("0x2"), json!({ "blockHash": head }), Value::Null] {
        let last: U256 = rpc(&provider, "eth_call", json!([call, head])).await;
        assert_eq!(last, U256::from(1));
    }
    let refused = json!([call, "latest", { (probe.to_string()): { "balance": "0x1" } }]);
    assert_eq!(rpc_error(&provider, "eth_call", refused).await.0, -32602);
}

#[tokio::test]
async fn what_does_not_exist_is_null_and_what_is_wrong_is_an_error() {
    let provider = provider(chain().client());
    let hash = B256::repeat_byte(1);
    for (method, params) in [
        ("eth_getBlockByNumber", json!(["0x99", false])),
        ("eth_getBlockByNumber", json!(["pending", false])),
        ("eth_getBlockByHash", json!([hash, false])),
        ("eth_getBlockReceipts", json!(["0x99"])),
        ("eth_getTransactionByHash", json!([hash])),
        ("eth_getTransactionReceipt", json!([hash])),
        ("eth_getTransactionByBlockNumberAndIndex", json!(["0x0", "0x0"])),
        ("eth_getTransactionBySenderAndNonce", json!([address(1), "0x0"])),
    ] {
        assert_eq!(rpc::<Value>(&provider, method, params).await, Value::Null, "{method}");
    }
    for (method, params, code) in [
        ("eth_mystery", json!([]), -32601),
        ("eth_getProof", json!([address(1), [], "latest"]), -32601),
        ("eth_getBalance", json!([]), -32602),
        ("eth_getBalance", json!(["0x12"]), -32602),
        ("eth_getBalance", json!({ "address": address(1) }), -32602),
        ("eth_getBlockByNumber", json!(["newest", false]), -32602),
        ("eth_getLogs", json!([{ "fromBlock": "0x5", "toBlock": "0x1" }]), 0),
        ("eth_feeHistory", json!(["0x1", "latest", [50, 10]]), -32602),
        ("eth_getFilterChanges", json!(["0x77"]), -32000),
        ("eth_sendRawTransaction", json!(["0x1234"]), -32602),
        ("anvil_mine", json!(["0xffffffffffff"]), -32000),
        ("anvil_setCode", json!([address(1), "0xef0100"]), -32000),
    ] {
        if code == 0 {
            // Above the head there is nothing yet: no error for a cursor that waits.
            assert_eq!(rpc::<Value>(&provider, method, params).await, json!([]));
        } else {
            assert_eq!(rpc_error(&provider, method, params).await.0, code, "{method}");
        }
    }
    mine(&provider, 6).await;
    let reversed = json!([{ "fromBlock": "0x5", "toBlock": "0x1" }]);
    assert_eq!(rpc_error(&provider, "eth_getLogs", reversed).await.0, -32602);
    assert_eq!(rpc::<Value>(&provider, "eth_accounts", ()).await, json!([]));
    assert_eq!(rpc::<Value>(&provider, "eth_syncing", ()).await, json!(false));
    assert_eq!(rpc::<Value>(&provider, "net_version", ()).await, json!("31337"));
    assert!(rpc::<String>(&provider, "web3_clientVersion", ()).await.starts_with("hallmark-devnet/"));
}

#[tokio::test]
async fn calls_are_as_strict_as_transactions_about_money_and_gas() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let ping = |value: U256| request(0x66, probe, &Probe::pingCall { value: U256::ONE }).with_value(value);
    let (code, message) = rpc_error(&provider, "eth_call", (ping(U256::ONE), "latest")).await;
    assert!(code == -32000 && message.contains("lack of funds"), "{message}");
    provider.call(ping(U256::ZERO)).await.unwrap();
    // Contracts may be the sender of a call, though never of a transaction.
    let from_contract = request(1, probe, &Probe::callerCall {}).with_from(probe);
    let output = provider.call(from_contract).await.unwrap();
    assert_eq!(Probe::callerCall::abi_decode_returns(&output).unwrap(), probe);
    let spin = request(1, probe, &Probe::spinCall {});
    let (_, message) = rpc_error(&provider, "eth_call", (spin.clone().with_gas_limit(1_000_000), "latest")).await;
    assert_eq!(message, "out of gas");
    let (_, message) = rpc_error(&provider, "eth_estimateGas", (spin,)).await;
    assert!(message.contains("out of gas"), "{message}");
    let (code, message) =
        rpc_error(&provider, "eth_call", (request(1, probe, &Probe::failInsideCall {}), "latest")).await;
    assert!(code == 3 && message.contains("assertion failed"), "{message}");
    let (code, message) =
        rpc_error(&provider, "eth_call", (request(1, probe, &Probe::failSilentlyCall {}), "latest")).await;
    assert_eq!((code, message.as_str()), (3, "execution reverted"));
    // With a price, gas is limited by what the sender has.
    let poor = Transfer::new(9, 0, address(1), ether(999));
    let _hash = provider.send_raw_transaction(&poor.raw()).await.unwrap();
    let priced =
        request(9, probe, &Probe::pingCall { value: U256::ONE }).with_max_fee_per_gas(ether(1).to::<u128>() / 1_000);
    let (_, message) = rpc_error(&provider, "eth_estimateGas", (priced,)).await;
    assert!(message.contains("allowance"), "{message}");
}

#[tokio::test]
async fn a_contract_made_and_unmade_in_one_transaction_leaves_nothing() {
    let provider = provider(chain().client());
    let factory = deploy(&provider, "Factory", &[]).await;
    let child = |salt| factory.create2_from_code(salt, fixture("Child"));
    let both = Factory::spawnAndKillCall { salt: B256::repeat_byte(1) };
    send(&provider, 1, factory, &both).await;
    assert_eq!(provider.get_code_at(child(B256::repeat_byte(1))).await.unwrap(), Bytes::new());
    assert_eq!(provider.get_storage_at(child(B256::repeat_byte(1)), U256::ZERO).await.unwrap(), U256::ZERO);
    assert_eq!(provider.get_transaction_count(child(B256::repeat_byte(1))).await.unwrap(), 0);
    // So it can be made again; one that exists cannot.
    send(&provider, 1, factory, &both).await;
    send(&provider, 1, factory, &Factory::spawnCall { salt: B256::repeat_byte(2) }).await;
    assert_eq!(provider.get_storage_at(child(B256::repeat_byte(2)), U256::ZERO).await.unwrap(), U256::from(7));
    rpc_error(
        &provider,
        "eth_call",
        (request(1, factory, &Factory::spawnCall { salt: B256::repeat_byte(2) }), "latest"),
    )
    .await;
}

#[tokio::test]
async fn accounts_can_be_arranged_for_a_test() {
    let provider = provider(chain().client());
    let anyone = Address::repeat_byte(0xaa);
    let code = Bytes::from_static(&[0x60, 0x2a, 0x60, 0x00, 0x52, 0x60, 0x20, 0x60, 0x00, 0xf3]);
    let _: Value = rpc(&provider, "anvil_setCode", (anyone, code.clone())).await;
    let _: Value = rpc(&provider, "anvil_setStorageAt", (anyone, U256::from(1), B256::repeat_byte(2))).await;
    let _: Value = rpc(&provider, "hardhat_setBalance", (anyone, U256::from(5))).await;
    let _: Value = rpc(&provider, "anvil_setNonce", (anyone, "0x9")).await;
    assert_eq!(provider.get_code_at(anyone).await.unwrap(), code);
    assert_eq!(B256::from(provider.get_storage_at(anyone, U256::from(1)).await.unwrap()), B256::repeat_byte(2));
    assert_eq!(provider.get_balance(anyone).await.unwrap(), U256::from(5));
    assert_eq!(provider.get_transaction_count(anyone).await.unwrap(), 9);
    let answer = provider.call(TransactionRequest::default().with_to(anyone)).await.unwrap();
    assert_eq!(U256::from_be_slice(&answer), U256::from(42));
}

#[tokio::test]
async fn an_account_can_delegate_to_a_contract_as_on_a_main_network() {
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let authorization = Authorization { chain_id: U256::from(CHAIN_ID), address: probe, nonce: 0 };
    let signature = signer(3).sign_hash_sync(&authorization.signature_hash()).unwrap();
    let mut transaction = TxEip7702 {
        chain_id: CHAIN_ID,
        nonce: 0,
        gas_limit: 200_000,
        max_fee_per_gas: 5_000_000_000,
        max_priority_fee_per_gas: 1,
        to: address(3),
        value: U256::ZERO,
        access_list: Default::default(),
        authorization_list: vec![authorization.into_signed(signature)],
        input: Probe::pingCall { value: U256::from(8) }.abi_encode().into(),
    };
    // What waits with the nonce that the delegation uses up can never be mined, and is dropped.
    let _: Value = rpc(&provider, "anvil_setNextBlockBaseFeePerGas", (4_000_000_000_u64,)).await;
    let cheap = Transfer { max_fee: 3_000_000_000, ..Transfer::new(3, 0, address(1), U256::ONE) };
    let waiting: B256 = rpc(&provider, "eth_sendRawTransaction", (cheap.raw(),)).await;
    let signed = signer(2).sign_transaction_sync(&mut transaction).unwrap();
    let raw = Bytes::from(TxEnvelope::from(transaction.into_signed(signed)).encoded_2718());
    let hash: B256 = rpc(&provider, "eth_sendRawTransaction", (raw,)).await;
    let receipt = provider.get_transaction_receipt(hash).await.unwrap().unwrap();
    assert!(receipt.status());
    assert_eq!((receipt.logs()[0].address(), receipt.transaction_type()), (address(3), TxType::Eip7702));
    assert_eq!(read(&provider, address(3), &Probe::lastCall {}).await, U256::from(8));
    let code = [&[0xef, 0x01, 0x00], probe.as_slice()].concat();
    assert_eq!(provider.get_code_at(address(3)).await.unwrap(), Bytes::from(code));
    assert_eq!(provider.get_transaction_count(address(3)).await.unwrap(), 1);
    assert!(provider.get_transaction_by_hash(waiting).await.unwrap().is_none());
}

/// Head hash after the same requests.
async fn hash_after_two_blocks(config: Config) -> B256 {
    let provider = provider(DevChain::new(config).unwrap().client());
    mine(&provider, 2).await;
    provider.get_block_by_number(2.into()).await.unwrap().unwrap().header.hash
}

#[tokio::test]
async fn a_seed_makes_runs_equal_and_without_one_nobody_can_foresee_randomness() {
    assert_eq!(hash_after_two_blocks(config()).await, hash_after_two_blocks(config()).await);
    let unseeded = || Config { seed: None, ..config() };
    assert_ne!(hash_after_two_blocks(unseeded()).await, hash_after_two_blocks(unseeded()).await);
    // Nor can a call tell what the next block will have.
    let provider = provider(chain().client());
    let probe = deploy(&provider, "Probe", &[]).await;
    let call = request(1, probe, &Probe::factsCall {});
    let output = provider.call(call).block(BlockId::pending()).await.unwrap();
    let foreseen = Probe::factsCall::abi_decode_returns(&output).unwrap().prevrandao;
    mine(&provider, 1).await;
    let head = provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap().header;
    assert_ne!(B256::from(foreseen), head.mix_hash);
}

#[tokio::test]
async fn an_idle_chain_keeps_up_with_the_clock_when_asked_to() {
    let idle = Config { idle_block_after: Some(Duration::from_secs(12)), ..config() };
    let provider = provider(DevChain::new(idle).unwrap().client());
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    let _: Value = rpc(&provider, "evm_increaseTime", (11,)).await;
    assert_eq!(provider.get_block_number().await.unwrap(), 0);
    let _: Value = rpc(&provider, "evm_increaseTime", (2,)).await;
    let head = provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap().header;
    assert_eq!((head.number, head.timestamp), (1, NOW + 13));
    assert_eq!(provider.get_block_number().await.unwrap(), 1);
    // A block that is prepared is not used up, and one mined by hand is not disturbed.
    let _: Value = rpc(&provider, "evm_setNextBlockTimestamp", (NOW + 1_000,)).await;
    assert_eq!(provider.get_block_number().await.unwrap(), 1);
    let _: Value = rpc(&provider, "evm_setAutomine", (false,)).await;
    mine(&provider, 1).await;
    let _: Value = rpc(&provider, "evm_increaseTime", (1_000,)).await;
    assert_eq!(provider.get_block_number().await.unwrap(), 2);
}

#[tokio::test]
async fn blocks_follow_the_clock_and_do_not_run_ahead_of_it() {
    let wall = Config { clock: Clock::System, ..config() };
    let provider = provider(DevChain::new(wall).unwrap().client());
    let genesis = provider.get_block_by_number(0.into()).await.unwrap().unwrap().header.timestamp;
    let start = Instant::now();
    for nonce in 0..50 {
        let transfer = Transfer::new(1, nonce, address(2), U256::ONE);
        let _hash = provider.send_raw_transaction(&transfer.raw()).await.unwrap();
    }
    let head = provider.get_block_by_number(BlockNumberOrTag::Latest).await.unwrap().unwrap().header;
    assert_eq!(head.number, 50);
    assert!(head.timestamp - genesis <= start.elapsed().as_secs() + 1);
}

#[test]
fn ten_thousand_transactions_take_far_less_than_a_minute() {
    let chain = chain();
    let transfers = (0..10_000)
        .map(|nonce| Transfer::new(1, nonce, Address::from_word(U256::from(nonce + 4_096).into()), U256::ONE));
    let requests: Vec<_> =
        transfers.map(|transfer| to_raw_value(&[Bytes::from(transfer.envelope().encoded_2718())]).unwrap()).collect();
    let start = Instant::now();
    for request in &requests {
        chain.request("eth_sendRawTransaction", Some(request)).unwrap();
    }
    let took = start.elapsed();
    eprintln!("10,000 transactions, a block each: {took:?}");
    assert_eq!(chain.request("eth_blockNumber", None).unwrap().get(), "\"0x2710\"");
    assert!(took < Duration::from_secs(20), "{took:?}");
}

#[test]
fn a_chain_is_ready_in_milliseconds() {
    let start = Instant::now();
    for _ in 0..100 {
        chain();
    }
    let took = start.elapsed() / 100;
    eprintln!("a new chain: {took:?}");
    assert!(took < Duration::from_millis(20), "{took:?}");
}
