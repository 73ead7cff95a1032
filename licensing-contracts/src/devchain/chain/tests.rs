use alloy::{
    consensus::{SignableTransaction as _, TxEip1559},
    eips::eip2718::Encodable2718 as _,
    network::TxSignerSync as _,
    primitives::{Bytes, TxKind},
    signers::local::PrivateKeySigner,
};

use super::*;
use crate::devchain::{Clock, rpc};

/// Stores the second word of its input under the first.
const STORE: [u8; 8] = [0x60, 0x20, 0x35, 0x60, 0x00, 0x35, 0x55, 0x00];

const CONTRACT: Address = Address::repeat_byte(0xcc);

fn signer(number: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(number)).unwrap()
}

fn chain() -> Chain {
    let funded = (1..5).map(|number| (signer(number).address(), U256::from(10).pow(U256::from(20)))).collect();
    let mut chain = Chain::new(Config { clock: Clock::Fixed(1_000), funded, ..Config::default() }, B256::ZERO);
    chain.world.set_code(CONTRACT, Bytes::from_static(&STORE)).unwrap();
    chain
}

/// A transaction of the account with the nonce: a transfer, or a slot of the contract set.
fn raw(number: u8, nonce: u64, choice: u64) -> Bytes {
    let input = [U256::from(choice % 7).to_be_bytes::<32>(), U256::from(choice % 3).to_be_bytes()].concat();
    let store = choice.is_multiple_of(2);
    let mut transaction = TxEip1559 {
        chain_id: 31_337,
        nonce,
        gas_limit: 100_000,
        max_fee_per_gas: 5_000_000_000,
        max_priority_fee_per_gas: 1,
        to: TxKind::Call(if store { CONTRACT } else { Address::with_last_byte(u8::try_from(choice % 200).unwrap()) }),
        value: if store { U256::ZERO } else { U256::from(choice) },
        access_list: Default::default(),
        input: if store { input.into() } else { Bytes::new() },
    };
    let signature = signer(number).sign_transaction_sync(&mut transaction).unwrap();
    TxEnvelope::from(transaction.into_signed(signature)).encoded_2718().into()
}

fn contents(chain: &Chain) -> String {
    let accounts: Vec<_> = chain.world.export().collect();
    format!("{accounts:?}{:?}", chain.world.export_codes())
}

/// What must hold after everything.
fn check(chain: &Chain) {
    assert_eq!(chain.numbers.len(), chain.blocks.len());
    let transactions: usize = chain.blocks.iter().map(|block| block.transactions.len()).sum();
    assert_eq!(chain.locations.len(), transactions);
    for (number, block) in chain.blocks.iter().enumerate() {
        assert_eq!(block.number(), u64::try_from(number).unwrap());
        assert_eq!(chain.block_by_hash(&block.hash()).unwrap().number(), block.number());
        assert!(number == 0 || block.header().parent_hash == chain.blocks[number - 1].hash());
        for (index, mined) in block.transactions.iter().enumerate() {
            let location = chain.location(&mined.hash()).unwrap();
            assert_eq!((location.block, location.index), (number, index));
        }
    }
    assert!(chain.snapshots.values().all(|snapshot| snapshot.undo <= chain.world.position()));
}

/// Numbers that are the same in each run.
struct Draws(u64);

impl Draws {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// The chain beside a record of what the world held at each block and at each snapshot.
struct Recorded {
    chain: Chain,
    at_block: Vec<String>,
    at_snapshot: BTreeMap<u64, (usize, String)>,
}

impl Recorded {
    /// Every new block's state is that of the world right after it was sealed.
    fn record(&mut self) {
        while self.at_block.len() < self.chain.blocks.len() {
            self.at_block.push(contents(&self.chain));
        }
    }

    fn send(&mut self, draws: &mut Draws) {
        let number = u8::try_from(draws.next(4) + 1).unwrap();
        let nonce = self.chain.nonce(signer(number).address());
        self.chain.send(&raw(number, nonce, draws.next(1_000_000))).unwrap();
        self.record();
    }

    fn reorganise(&mut self, draws: &mut Draws) {
        let most = self.chain.deepest_reorganisation().min(12);
        if most == 0 {
            return;
        }
        let depth = usize::try_from(draws.next(u64::try_from(most).unwrap())).unwrap() + 1;
        let kept = self.chain.blocks.len() - depth;
        // A transaction that cannot be executed must change nothing; then the same without it.
        let before = (contents(&self.chain), self.chain.head().hash());
        let bad = self.chain.decode(&raw(1, 9_999, 1)).unwrap();
        self.chain.reorganise(depth, vec![(bad, depth - 1)]).unwrap_err();
        assert_eq!((contents(&self.chain), self.chain.head().hash()), before);
        check(&self.chain);
        self.chain.reorganise(depth, Vec::new()).unwrap();
        assert_eq!(contents(&self.chain), self.at_block[kept - 1]);
        self.at_block.truncate(kept);
        self.at_snapshot.retain(|id, _| self.chain.snapshots.contains_key(id));
        self.record();
    }

    fn revert(&mut self, draws: &mut Draws) {
        let known: Vec<u64> = self.at_snapshot.keys().copied().collect();
        if known.is_empty() {
            return;
        }
        let id = known[usize::try_from(draws.next(u64::try_from(known.len()).unwrap())).unwrap()];
        assert!(self.chain.revert(id));
        let (height, state) = self.at_snapshot.remove(&id).unwrap();
        assert_eq!((self.chain.blocks.len(), contents(&self.chain)), (height, state));
        self.at_block.truncate(height);
        self.at_snapshot.retain(|other, _| *other < id);
        assert!(!self.chain.revert(id));
    }
}

#[test]
fn the_world_follows_every_reorganisation_and_snapshot_exactly() {
    for seed in 0..8 {
        let mut draws = Draws(seed);
        let mut recorded = Recorded { chain: chain(), at_block: Vec::new(), at_snapshot: BTreeMap::new() };
        // The genesis block was sealed before the contract was put there.
        recorded.at_block.push(contents(&Chain::new(recorded.chain.config.clone(), B256::ZERO)));
        recorded.chain.mine(1, None).unwrap();
        recorded.record();
        for _ in 0..250 {
            match draws.next(12) {
                0..6 => recorded.send(&mut draws),
                6 => {
                    recorded.chain.mine(draws.next(3), None).unwrap();
                    recorded.record();
                }
                7 => recorded.chain.world.set_balance(Address::with_last_byte(9), U256::from(draws.next(3))),
                8 => recorded.chain.world.set_slot(CONTRACT, U256::from(draws.next(7)), U256::from(draws.next(3))),
                9 => {
                    let id = recorded.chain.snapshot();
                    recorded.at_snapshot.insert(id, (recorded.chain.blocks.len(), contents(&recorded.chain)));
                }
                10 => recorded.revert(&mut draws),
                _ => recorded.reorganise(&mut draws),
            }
            check(&recorded.chain);
        }
    }
}

#[test]
fn what_can_be_undone_does_not_grow_with_the_chain() {
    let mut chain = chain();
    let mut largest = 0;
    for block in 0..2_000_u64 {
        chain.world.set_slot(CONTRACT, U256::from(block), U256::from(1));
        chain.mine(1, None).unwrap();
        largest = largest.max(chain.world.undoable());
    }
    assert!(largest <= REORG_DEPTH + 2, "{largest}");
}

#[test]
fn a_prepared_block_survives_a_failed_reorganisation() {
    let mut chain = chain();
    chain.mine(3, None).unwrap();
    chain.time.set_next(5_000);
    chain.randomness.set_next(B256::repeat_byte(7));
    let bad = chain.decode(&raw(1, 9, 1)).unwrap();
    chain.reorganise(2, vec![(bad, 1)]).unwrap_err();
    chain.mine(1, None).unwrap();
    let head = chain.head().header();
    assert_eq!((head.timestamp, head.mix_hash), (5_000, B256::repeat_byte(7)));
}

#[test]
fn every_method_refuses_parameters_of_the_wrong_shape_without_panicking() {
    let methods = [
        "eth_call",
        "eth_estimateGas",
        "eth_getBalance",
        "eth_getCode",
        "eth_getStorageAt",
        "eth_getTransactionCount",
        "eth_getBlockByNumber",
        "eth_getBlockByHash",
        "eth_getBlockReceipts",
        "eth_getTransactionByHash",
        "eth_getTransactionReceipt",
        "eth_getTransactionBySenderAndNonce",
        "eth_getTransactionByBlockNumberAndIndex",
        "eth_getTransactionByBlockHashAndIndex",
        "eth_getBlockTransactionCountByHash",
        "eth_getLogs",
        "eth_newFilter",
        "eth_getFilterChanges",
        "eth_getFilterLogs",
        "eth_uninstallFilter",
        "eth_feeHistory",
        "eth_sendRawTransaction",
        "evm_revert",
        "evm_increaseTime",
        "evm_setNextBlockTimestamp",
        "evm_setAutomine",
        "hardhat_setPrevRandao",
        "anvil_setBalance",
        "anvil_setCode",
        "anvil_setNonce",
        "anvil_setStorageAt",
        "anvil_dropTransaction",
        "anvil_setNextBlockBaseFeePerGas",
        "anvil_reorg",
        "web3_sha3",
    ];
    let shapes = [
        "[[]]",
        "[{}]",
        "[{\"x\":[]},{}]",
        "[-1]",
        "[\"\"]",
        "[\"0x\"]",
        "[\"0xzz\",{}]",
        "{\"depth\":[]}",
        "7",
        "\"x\"",
        "[true]",
    ];
    let mut chain = chain();
    chain.mine(2, None).unwrap();
    let before = (contents(&chain), chain.head().hash());
    for method in methods {
        for shape in shapes {
            let params = serde_json::value::RawValue::from_string(shape.to_owned()).unwrap();
            // A few shapes are right for a few methods; most must fail, and none may panic or change the chain.
            let answer = rpc::answer(&mut chain, method, Some(&params));
            let harmless = answer.is_err()
                || ["eth_call", "eth_estimateGas", "eth_getLogs", "eth_newFilter", "evm_setAutomine", "web3_sha3"]
                    .contains(&method);
            assert!(harmless, "{method} {shape}: {answer:?}");
        }
    }
    assert_eq!((contents(&chain), chain.head().hash()), before);
}
