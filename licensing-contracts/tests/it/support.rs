//! Accounts, small contracts and providers for the tests.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718 as _,
    network::{EthereumWallet, TransactionBuilder as _, TxSignerSync as _},
    primitives::{Address, B256, Bytes, TxKind, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::{
        client::{ClientBuilder, RpcClient},
        types::{TransactionReceipt, TransactionRequest},
    },
    signers::local::PrivateKeySigner,
    sol,
    sol_types::SolCall,
};
use licensing_contracts::devchain::{Clock, Config, DevChain};

pub(crate) const CHAIN_ID: u64 = 31_337;

/// A second in 2026, where the fixed clock stands.
pub(crate) const NOW: u64 = 1_790_000_000;

sol! {
    #[derive(Debug, PartialEq, Eq)]
    interface Probe {
        error TooMuch(uint256 asked, string why);
        event Ping(address indexed who, uint256 indexed value, bytes data);
        function last() external view returns (uint256);
        function ping(uint256 value) external payable;
        function pingTwice(uint256 value) external;
        function facts() external view
            returns (uint256 number, uint256 timestamp, uint256 prevrandao, bytes32 parent, uint256 baseFee, uint256 chain);
        function hashOf(uint256 number) external view returns (bytes32);
        function caller() external view returns (address);
        function fail(uint256 asked) external pure;
        function failWithText() external pure;
        function failInside() external pure;
        function failSilently() external pure;
        function pingAndFail(uint256 value) external;
        function spin() external pure;
        function dive(uint256 depth) external returns (uint256);
    }

    interface Factory {
        function spawn(bytes32 salt) external returns (address child);
        function spawnAndKill(bytes32 salt) external payable returns (address child);
    }

    interface Token {
        function mint(address to, uint256 amount) external;
        function approve(address spender, uint256 amount) external returns (bool);
        function balanceOf(address account) external view returns (uint256);
    }

    interface Registrar {
        error Refused();
        event Registered(address operator, address avs, uint32[] operatorSetIds, bytes data);
        event Deregistered(address operator, address avs, uint32[] operatorSetIds);
        function refuse(bool yes) external;
    }
}

/// The account with this number; keys of tests, known to everybody.
pub(crate) fn signer(number: u8) -> PrivateKeySigner {
    PrivateKeySigner::from_bytes(&B256::repeat_byte(number)).unwrap()
}

pub(crate) fn address(number: u8) -> Address {
    signer(number).address()
}

pub(crate) fn ether(amount: u64) -> U256 {
    U256::from(amount) * U256::from(10).pow(U256::from(18))
}

/// Nine funded accounts, a clock that stands still, and the same randomness each time.
pub(crate) fn config() -> Config {
    Config {
        clock: Clock::Fixed(NOW),
        seed: Some(B256::repeat_byte(0x5e)),
        funded: (1..10).map(|number| (address(number), ether(1_000))).collect(),
        ..Config::default()
    }
}

pub(crate) fn chain() -> DevChain {
    DevChain::new(config()).unwrap()
}

/// Lets HTTP clients be made: the program that links them says which cryptography their TLS uses.
pub(crate) fn allow_http() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
}

/// A provider that signs for the nine accounts and finds receipts at once.
pub(crate) fn provider(client: RpcClient) -> DynProvider {
    let mut wallet = EthereumWallet::from(signer(1));
    for number in 2..10 {
        wallet.register_signer(signer(number));
    }
    let client = client.with_poll_interval(Duration::from_millis(2));
    ProviderBuilder::new().with_simple_nonce_management().wallet(wallet).connect_client(client).erased()
}

/// Creation bytecode of a contract of `fixtures/Fixtures.sol`.
pub(crate) fn fixture(name: &str) -> Bytes {
    let all: BTreeMap<String, Bytes> = serde_json::from_str(include_str!("fixtures/fixtures.json")).unwrap();
    all[name].clone()
}

pub(crate) async fn deploy(provider: &impl Provider, name: &str, arguments: &[u8]) -> Address {
    let code = [fixture(name).as_ref(), arguments].concat();
    let request = TransactionRequest::default().with_from(address(1)).with_deploy_code(code);
    let receipt = provider.send_transaction(request).await.unwrap().get_receipt().await.unwrap();
    assert!(receipt.status(), "deploying {name}");
    receipt.contract_address.unwrap()
}

pub(crate) fn request(from: u8, to: Address, call: &impl SolCall) -> TransactionRequest {
    TransactionRequest::default().with_from(address(from)).with_to(to).with_input(call.abi_encode())
}

/// Sends from one of the accounts and waits; the call must succeed.
pub(crate) async fn send(provider: &impl Provider, from: u8, to: Address, call: &impl SolCall) -> TransactionReceipt {
    let pending = provider.send_transaction(request(from, to, call)).await.unwrap();
    let receipt = pending.get_receipt().await.unwrap();
    assert!(receipt.status(), "{} reverted", std::any::type_name_of_val(call));
    receipt
}

pub(crate) async fn read<C: SolCall>(provider: &impl Provider, to: Address, call: &C) -> C::Return {
    // Alloy would ask for `pending`, the block that comes next.
    let output = provider.call(request(1, to, call)).latest().await.unwrap();
    C::abi_decode_returns(&output).unwrap()
}

/// A signed transfer whose every field the test chooses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transfer {
    pub(crate) from: u8,
    pub(crate) nonce: u64,
    pub(crate) to: Address,
    pub(crate) value: U256,
    pub(crate) max_fee: u128,
    pub(crate) tip: u128,
    pub(crate) gas_limit: u64,
    pub(crate) chain_id: u64,
}

impl Transfer {
    pub(crate) fn new(from: u8, nonce: u64, to: Address, value: U256) -> Self {
        let (max_fee, tip) = (20_000_000_000, 1_000_000_000);
        Self { from, nonce, to, value, max_fee, tip, gas_limit: 21_000, chain_id: CHAIN_ID }
    }

    pub(crate) fn envelope(self) -> TxEnvelope {
        self.with_input(Bytes::new())
    }

    pub(crate) fn with_input(self, input: Bytes) -> TxEnvelope {
        let mut transaction = TxEip1559 {
            chain_id: self.chain_id,
            nonce: self.nonce,
            gas_limit: self.gas_limit,
            max_fee_per_gas: self.max_fee,
            max_priority_fee_per_gas: self.tip,
            to: TxKind::Call(self.to),
            value: self.value,
            access_list: Default::default(),
            input,
        };
        let signature = signer(self.from).sign_transaction_sync(&mut transaction).unwrap();
        transaction.into_signed(signature).into()
    }

    pub(crate) fn raw(self) -> Bytes {
        self.envelope().encoded_2718().into()
    }

    pub(crate) fn hash(self) -> B256 {
        *self.envelope().tx_hash()
    }
}

pub(crate) async fn rpc<T: serde::de::DeserializeOwned + Send + Sync + Unpin + Clone + std::fmt::Debug + 'static>(
    provider: &impl Provider,
    method: &'static str,
    params: impl serde::Serialize + Clone + Send + Sync + Unpin + std::fmt::Debug + 'static,
) -> T {
    provider.raw_request(method.into(), params).await.unwrap_or_else(|error| panic!("{method}: {error}"))
}

/// The code and text of the error that a request must give.
pub(crate) async fn rpc_error(
    provider: &impl Provider,
    method: &'static str,
    params: impl serde::Serialize + Clone + Send + Sync + Unpin + std::fmt::Debug + 'static,
) -> (i64, String) {
    let answer: Result<serde_json::Value, _> = provider.raw_request(method.into(), params).await;
    let error = answer.expect_err(method);
    let payload = error.as_error_resp().unwrap_or_else(|| panic!("{method}: {error}"));
    (payload.code, payload.message.to_string())
}

pub(crate) async fn mine(provider: &impl Provider, blocks: u64) {
    let _: serde_json::Value = rpc(provider, "anvil_mine", (U256::from(blocks),)).await;
}

/// An anvil that runs already, or one that is started and ends with the test.
#[derive(Debug)]
pub(crate) struct Anvil {
    url: String,
    started: Option<Child>,
}

impl Anvil {
    /// `HALLMARK_ANVIL_URL` names a running one, `HALLMARK_ANVIL` a program. Returns when it answers.
    pub(crate) async fn find() -> Self {
        let set = |name| env::var_os(name).filter(|value| !value.is_empty());
        let anvil = match (set("HALLMARK_ANVIL_URL"), set("HALLMARK_ANVIL")) {
            (Some(url), _) => Self { url: url.into_string().unwrap(), started: None },
            (None, Some(program)) => Self::start(&program),
            (None, None) => panic!("set HALLMARK_ANVIL or HALLMARK_ANVIL_URL"),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        while anvil.client().request::<_, serde_json::Value>("eth_chainId", ()).await.is_err() {
            assert!(Instant::now() < deadline, "anvil does not answer at {}", anvil.url);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        anvil
    }

    fn start(program: &OsStr) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let started = Command::new(program)
            .args(["--silent", "--port", &port.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        Self { url: format!("http://127.0.0.1:{port}"), started: Some(started) }
    }

    pub(crate) fn client(&self) -> RpcClient {
        allow_http();
        ClientBuilder::default().http(self.url())
    }

    pub(crate) fn url(&self) -> url::Url {
        self.url.parse().unwrap()
    }
}

impl Drop for Anvil {
    fn drop(&mut self) {
        if let Some(started) = &mut self.started {
            // It may have ended by itself; there is nothing to do about either.
            drop(started.kill());
            drop(started.wait());
        }
    }
}
