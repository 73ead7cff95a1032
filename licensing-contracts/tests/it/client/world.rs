//! A chain with one contract on it, and senders with journals that outlive them.

use std::{path::Path, time::Duration};

use alloy::{
    primitives::{Address, B256, U256},
    providers::{DynProvider, Provider as _},
    rpc::{
        client::{ClientBuilder, RpcClient},
        types::{Filter, TransactionReceipt},
    },
    sol_types::SolEvent as _,
};
use licensing_contracts::{
    client::{Action, ChainClient, RpcSettings, Sender, SenderSettings, TransactionJournal},
    devchain::Server,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::support::{CHAIN_ID, Probe, address, allow_http, chain, deploy, ether, provider, rpc, signer};

/// The account that sends.
pub(super) const SENDER: u8 = 2;

/// A chain that answers at `url`, and in the tests through `provider`.
pub(super) struct World {
    pub(super) provider: DynProvider,
    pub(super) url: Url,
    pub(super) probe: Address,
    pub(super) journals: TempDir,
    /// Ends with the test.
    _server: Option<Server>,
}

impl World {
    /// On the embedded chain, over HTTP.
    pub(super) async fn new() -> Self {
        let server = chain().serve("127.0.0.1:0".parse().unwrap(), &CancellationToken::new()).await.unwrap();
        let url = server.url().parse().unwrap();
        Self { _server: Some(server), ..Self::at(url).await }
    }

    /// On any chain that has the methods of a development chain.
    pub(super) async fn at(url: Url) -> Self {
        allow_http();
        let provider = provider(http(&url));
        for number in 1..4 {
            let _: Value = rpc(&provider, "anvil_setBalance", (address(number), ether(1_000))).await;
        }
        let probe = deploy(&provider, "Probe", &[]).await;
        Self { provider, url, probe, journals: tempfile::tempdir().unwrap(), _server: None }
    }

    /// The contract's event with this value.
    pub(super) fn ping(&self, value: u64) -> Action {
        ping(self.probe, value)
    }

    pub(super) async fn client(&self) -> ChainClient {
        connect(std::slice::from_ref(&self.url)).await
    }

    /// A sender with the journal, as a new process would have it.
    pub(super) async fn sender(&self) -> Sender {
        self.sender_through(self.client().await)
    }

    pub(super) fn sender_through(&self, client: ChainClient) -> Sender {
        Sender::new(client, signer(SENDER), journal(self.journals.path()), quick())
    }

    pub(super) async fn sender_with(&self, settings: SenderSettings) -> Sender {
        Sender::new(self.client().await, signer(SENDER), journal(self.journals.path()), settings)
    }

    /// Values of all events, in order.
    pub(super) async fn pings(&self) -> Vec<u64> {
        let filter = Filter::new().address(self.probe).from_block(0);
        let logs = self.provider.get_logs(&filter).await.unwrap();
        logs.iter().map(|log| Probe::Ping::decode_log(&log.inner).unwrap().value.to()).collect()
    }

    pub(super) async fn nonce(&self) -> u64 {
        self.provider.get_transaction_count(address(SENDER)).await.unwrap()
    }

    pub(super) async fn automine(&self, on: bool) {
        let _: Value = rpc(&self.provider, "evm_setAutomine", (on,)).await;
    }

    pub(super) async fn base_fee(&self, wei: u64) {
        let _: Value = rpc(&self.provider, "anvil_setNextBlockBaseFeePerGas", (U256::from(wei),)).await;
    }

    pub(super) async fn receipt(&self, hash: B256) -> Option<TransactionReceipt> {
        self.provider.get_transaction_receipt(hash).await.unwrap()
    }

    /// Waits until this many of the sender's transactions wait to be mined, and returns the hash of the last.
    pub(super) async fn pooled(&self, count: u64) {
        let first = self.nonce().await;
        until(async || self.provider.get_transaction_count(address(SENDER)).pending().await.unwrap() >= first + count)
            .await;
    }
}

pub(super) fn ping(probe: Address, value: u64) -> Action {
    Action::call(format!("ping {value}"), probe, &Probe::pingCall { value: U256::from(value) })
}

pub(super) fn http(url: &Url) -> RpcClient {
    allow_http();
    ClientBuilder::default().http(url.clone())
}

/// One try, unless a test is about several.
pub(super) fn rpc_settings() -> RpcSettings {
    RpcSettings { timeout: Duration::from_secs(5), rounds: 1, backoff: Duration::from_millis(20) }
}

pub(super) async fn connect(urls: &[Url]) -> ChainClient {
    allow_http();
    ChainClient::connect(urls, Some(CHAIN_ID), &rpc_settings()).await.unwrap()
}

pub(super) fn journal(folder: &Path) -> TransactionJournal {
    TransactionJournal::open(folder, CHAIN_ID, address(SENDER)).unwrap()
}

/// Seconds where people have minutes.
pub(super) fn quick() -> SenderSettings {
    SenderSettings {
        poll: Duration::from_millis(3),
        replace_after: Duration::from_millis(60),
        give_up_after: Duration::from_secs(20),
        ..SenderSettings::default()
    }
}

/// Waits for something that must come true.
pub(super) async fn until(mut come_true: impl AsyncFnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while !come_true().await {
        assert!(std::time::Instant::now() < deadline, "it never came true");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
