//! The real contracts on the embedded chain, driven one call at a time so that a model can be compared with them.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718 as _,
    json_abi::JsonAbi,
    network::TxSignerSync as _,
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    rpc::{json_rpc::ErrorPayload, types::TransactionReceipt},
    signers::local::PrivateKeySigner,
    sol,
    sol_types::SolCall,
};
use licensing_contracts::{
    bindings::ARTIFACTS,
    client::Revert,
    deploy::ProtocolSetup,
    deployment::Deployment,
    devchain::{Clock, Config},
    devnet::Devnet,
};
use protocol::{
    signature::SigningKey,
    units::{Seconds, UnixSeconds},
};
use serde::de::DeserializeOwned;
use serde_json::{json, value::to_raw_value};

use crate::{
    eigenlayer::core,
    support::{CHAIN_ID, NOW, ether, fixture},
};

sol! {
    interface Reader {
        function read(address[] targets, bytes[] questions) external view returns (bytes[] answers);
    }

    interface Wallet {
        function execute(address target, bytes data) external;
    }
}

/// Enough for every call here, and less than one transaction may have.
const GAS: u64 = 12_000_000;
const MAX_FEE: u128 = 10_000_000_000;

/// The account that deploys what only the tests need.
const TESTER: &str = "tester";

/// A key that everybody here knows.
pub(crate) fn key(name: &str) -> SigningKey {
    SigningKey::from_bytes(&keccak256(name).0).unwrap()
}

pub(crate) fn address(name: &str) -> Address {
    key(name).address()
}

/// What a call that succeeded did.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) output: Bytes,
    pub(crate) receipt: TransactionReceipt,
}

/// Something that a contract shows: a question, and the answer that is right.
#[derive(Debug)]
pub(crate) struct Fact {
    pub(crate) what: String,
    pub(crate) contract: Address,
    pub(crate) question: Vec<u8>,
    pub(crate) answer: Vec<u8>,
}

impl Fact {
    pub(crate) fn new(what: impl Into<String>, contract: Address, question: &impl SolCall, answer: Vec<u8>) -> Self {
        Self { what: what.into(), contract, question: question.abi_encode(), answer }
    }
}

/// What came of all calls: successes by call, refusals by error.
#[derive(Debug, Default)]
pub(crate) struct Outcomes {
    pub(crate) done: BTreeMap<&'static str, u32>,
    pub(crate) refused: BTreeMap<String, u32>,
}

impl Outcomes {
    /// How many calls there were.
    pub(crate) fn count(&self) -> u32 {
        self.done.values().chain(self.refused.values()).sum()
    }

    pub(crate) fn note(&mut self, call: &'static str, really: &Result<Done, Revert>) {
        match really {
            Ok(_) => *self.done.entry(call).or_default() += 1,
            Err(refused) => *self.refused.entry(refused.name.clone()).or_default() += 1,
        }
    }
}

/// Names of the errors in a contract's interface.
pub(crate) fn declared_errors(contract: &str) -> BTreeSet<String> {
    let (_, artifact) = ARTIFACTS.iter().find(|(name, _)| *name == contract).unwrap();
    let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
    let abi: JsonAbi = serde_json::from_value(artifact["abi"].clone()).unwrap();
    abi.errors.into_keys().collect()
}

/// The chain. Every call is a transaction in a block of its own, at a time that the test says.
#[derive(Debug)]
pub(crate) struct RealChain {
    devnet: Devnet,
    signers: BTreeMap<String, PrivateKeySigner>,
    nonces: BTreeMap<Address, u64>,
    wallets: BTreeMap<String, Address>,
    reader: Address,
    now: u64,
    snapshot: Option<U256>,
}

impl RealChain {
    pub(crate) async fn start(setup: &ProtocolSetup) -> Self {
        let config = Config { clock: Clock::Fixed(NOW), seed: Some(B256::repeat_byte(0x5e)), ..Config::default() };
        let devnet = Devnet::start(config, core(), setup).await.unwrap();
        let mut chain = Self {
            devnet,
            signers: BTreeMap::new(),
            nonces: BTreeMap::new(),
            wallets: BTreeMap::new(),
            reader: Address::ZERO,
            now: NOW,
            snapshot: None,
        };
        chain.reader = chain.create(fixture("Reader").into());
        chain
    }

    pub(crate) fn to(&self) -> &Deployment {
        self.devnet.deployment()
    }

    pub(crate) fn now(&self) -> UnixSeconds {
        UnixSeconds::new(self.now)
    }

    /// The next call is made as much later.
    pub(crate) fn pass(&mut self, time: Seconds) {
        self.now += time.get();
    }

    /// Blocks without transactions, for what EigenLayer counts in blocks.
    pub(crate) fn mine(&mut self, blocks: u64) {
        let () = self.ask("evm_setNextBlockTimestamp", json!([self.now])).unwrap();
        let () = self.ask("anvil_mine", json!([blocks, 0])).unwrap();
    }

    /// From here [`Self::go_back`] goes on.
    pub(crate) fn remember(&mut self) {
        self.snapshot = Some(self.ask("evm_snapshot", json!([])).unwrap());
    }

    pub(crate) fn go_back(&mut self, now: UnixSeconds) {
        let back: bool = self.ask("evm_revert", json!([self.snapshot])).unwrap();
        assert!(back, "the snapshot is there");
        (self.now, self.nonces) = (now.get(), BTreeMap::new());
        self.remember();
    }

    /// A wallet contract that obeys the account `name`; calls by `wallet` go through it.
    pub(crate) fn make_wallet(&mut self, wallet: &str, owner: &str) -> Address {
        let owner_word = address(owner).into_word();
        let made = self.create([fixture("Wallet").as_ref(), owner_word.as_slice()].concat());
        self.wallets.insert(wallet.to_owned(), made);
        self.signers.insert(wallet.to_owned(), signer(owner));
        made
    }

    /// Makes a contract.
    pub(crate) fn create(&mut self, code: Vec<u8>) -> Address {
        let (_, receipt) = self.transact(TESTER, TxKind::Create, U256::ZERO, code);
        assert!(receipt.status());
        receipt.contract_address.unwrap()
    }

    /// Sends a call that must succeed.
    pub(crate) fn must<C: SolCall>(&mut self, by: &str, to: Address, call: &C) -> C::Return {
        let done = self.submit(by, to, U256::ZERO, call.abi_encode());
        let done = done.unwrap_or_else(|refused| panic!("{}: {refused}", C::SIGNATURE));
        C::abi_decode_returns(&done.output).unwrap()
    }

    /// Sends a call. What it returns, or why it is refused, is asked beforehand in the same block: receipts do not say.
    pub(crate) fn submit(&mut self, by: &str, to: Address, value: U256, data: Vec<u8>) -> Result<Done, Revert> {
        let (to, data) = match self.wallets.get(by) {
            Some(wallet) => (*wallet, Wallet::executeCall { target: to, data: data.into() }.abi_encode()),
            None => (to, data),
        };
        let (said, receipt) = self.transact(by, to.into(), value, data);
        assert_eq!(said.is_ok(), receipt.status(), "a call does what its simulation did: {said:?}");
        said.map(|output| Done { output, receipt })
    }

    /// Asks all at once, and says which answers are others than they should be.
    pub(crate) fn differences(&self, facts: &[Fact]) -> Vec<String> {
        let call = Reader::readCall {
            targets: facts.iter().map(|fact| fact.contract).collect(),
            questions: facts.iter().map(|fact| fact.question.clone().into()).collect(),
        };
        let answers = self.read(self.reader, &call);
        let pairs = facts.iter().zip(answers);
        let wrong = pairs.filter(|(fact, answer)| fact.answer != answer.as_ref());
        wrong
            .map(|(fact, answer)| {
                let expected = Bytes::copy_from_slice(&fact.answer);
                format!("{}: the model has {expected}, the chain {answer}", fact.what)
            })
            .collect()
    }

    pub(crate) fn read<C: SolCall>(&self, contract: Address, call: &C) -> C::Return {
        self.read_at("latest", contract, call)
    }

    /// All answers at once, as the next call will find them.
    pub(crate) fn read_all_next(&self, questions: &[(Address, Vec<u8>)]) -> Vec<Bytes> {
        let (targets, questions) = questions.iter().map(|(to, data)| (*to, Bytes::from(data.clone()))).unzip();
        self.read_at("pending", self.reader, &Reader::readCall { targets, questions })
    }

    fn read_at<C: SolCall>(&self, block: &str, contract: Address, call: &C) -> C::Return {
        let request = json!({ "to": contract, "input": Bytes::from(call.abi_encode()) });
        let output: Bytes = self.ask("eth_call", json!([request, block])).unwrap();
        C::abi_decode_returns(&output).unwrap()
    }

    pub(crate) fn coins(&self, account: Address) -> U256 {
        self.ask("eth_getBalance", json!([account, "latest"])).unwrap()
    }

    /// The number of the newest block.
    pub(crate) fn height(&self) -> u64 {
        let height: U256 = self.ask("eth_blockNumber", json!([])).unwrap();
        height.to()
    }

    fn transact(
        &mut self,
        by: &str,
        to: TxKind,
        value: U256,
        data: Vec<u8>,
    ) -> (Result<Bytes, Revert>, TransactionReceipt) {
        let signer = self.signer(by);
        let (from, input) = (signer.address(), Bytes::from(data));
        let nonce = *self.nonces.entry(from).or_insert_with(|| {
            let nonce: U256 = ask(&self.devnet, "eth_getTransactionCount", json!([from, "latest"])).unwrap();
            nonce.to()
        });
        let () = self.ask("evm_setNextBlockTimestamp", json!([self.now])).unwrap();
        let mut request = json!({ "from": from, "value": value, "gas": U256::from(GAS), "input": input });
        if let TxKind::Call(to) = to {
            request["to"] = json!(to);
        }
        let said = self.ask("eth_call", json!([request, "pending"])).map_err(|payload| {
            let data = payload.as_revert_data();
            Revert::decode(data.unwrap_or_else(|| panic!("{payload:?}")))
        });
        let mut transaction = TxEip1559 {
            chain_id: CHAIN_ID,
            nonce,
            gas_limit: GAS,
            max_fee_per_gas: MAX_FEE,
            max_priority_fee_per_gas: 0,
            to,
            value,
            access_list: Default::default(),
            input,
        };
        let signature = signer.sign_transaction_sync(&mut transaction).unwrap();
        let raw = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
        let hash: B256 = self.ask("eth_sendRawTransaction", json!([Bytes::from(raw)])).unwrap();
        self.nonces.insert(from, nonce + 1);
        (said, self.ask("eth_getTransactionReceipt", json!([hash])).unwrap())
    }

    /// The signer of this name, with enough coins for anything.
    fn signer(&mut self, name: &str) -> PrivateKeySigner {
        if !self.signers.contains_key(name) {
            self.signers.insert(name.to_owned(), signer(name));
        }
        let signer = self.signers[name].clone();
        // Again after going back.
        if !self.nonces.contains_key(&signer.address()) {
            let _: bool = self.ask("anvil_setBalance", json!([signer.address(), ether(1_000_000)])).unwrap();
        }
        signer
    }

    fn ask<T: DeserializeOwned>(&self, method: &str, params: serde_json::Value) -> Result<T, ErrorPayload> {
        ask(&self.devnet, method, params)
    }
}

fn ask<T: DeserializeOwned>(devnet: &Devnet, method: &str, params: serde_json::Value) -> Result<T, ErrorPayload> {
    let params = to_raw_value(&params).unwrap();
    let answer = devnet.chain().request(method, Some(&params))?;
    Ok(serde_json::from_str(answer.get()).unwrap_or_else(|error| panic!("{method}: {error}")))
}

fn signer(name: &str) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&keccak256(name)).unwrap()
}
