//! An Ethereum chain inside the process, for tests, for the demo and for `hallmark devnet`.
//!
//! [`DevChain`] answers JSON-RPC: to an alloy provider in the same process through [`DevChain::client`], and to every
//! wallet and library over HTTP through [`DevChain::serve`]. Everything else in the project sees a provider only, so what
//! is tested here also runs on anvil and on a real chain.
//!
//! A block is mined for each transaction as it arrives, or by hand after `evm_setAutomine(false)`. Beyond the usual
//! methods there are those of anvil and hardhat that tests need: snapshots, time, prevrandao, balances, code, storage,
//! base fee, and `anvil_reorg`, which replaces up to 64 blocks and really takes back what they did.
//!
//! What differs from a main network:
//!
//! - State is kept at the head only. A call at any other block is an error, never an answer from the head.
//! - There is no state trie: `stateRoot` is zero and `eth_getProof` does not exist. A block's hash is the keccak of its
//!   header all the same, and `blockhash` knows the last 256.
//! - The base fee stays as it is until `anvil_setNextBlockBaseFeePerGas` changes it. There are no withdrawals, no blobs,
//!   and no system contracts (EIP-2935, EIP-4788).
//! - Blocks of one second share its timestamp.

mod block;
mod chain;
mod clock;
mod error;
mod execute;
mod filters;
mod json_rpc;
mod pool;
mod rpc;
mod server;
mod state_file;
mod transport;
mod world;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use alloy::{
    primitives::{Address, B256, U256},
    rpc::{client::RpcClient, json_rpc::ErrorPayload},
};
use rand::{TryRngCore as _, rngs::OsRng};
use serde_json::value::RawValue;

use self::chain::Chain;
pub use self::{
    clock::Clock,
    error::RpcError,
    pool::PoolError,
    server::{ServeError, Server},
    state_file::StateError,
    transport::DevTransport,
};

/// How often [`DevChain::client`] looks whether something that waits is mined. What is mined as it is sent is there at once.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// How a chain starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Most gas in a block.
    pub block_gas_limit: u64,
    /// Base fee of every block, in wei for each unit of gas.
    pub base_fee: u64,
    /// Where time comes from.
    pub clock: Clock,
    /// What `prevrandao` follows from. Without one it is the operating system's, and nobody can foresee it.
    pub seed: Option<B256>,
    /// Accounts with a balance, in wei, in the first block. A chain that is read from a file has its own.
    pub funded: Vec<(Address, U256)>,
    /// When the head is older than this, a request for the chain's state seals an empty block first, so that `latest`
    /// keeps up with the clock although nobody sends anything. Not while mining is manual.
    pub idle_block_after: Option<Duration>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            chain_id: 31_337,
            block_gas_limit: 60_000_000,
            base_fee: 1_000_000_000,
            clock: Clock::System,
            seed: None,
            funded: Vec::new(),
            idle_block_after: None,
        }
    }
}

/// A chain. Clones are handles to the same one.
#[derive(Clone)]
pub struct DevChain(Arc<Mutex<Chain>>);

impl fmt::Debug for DevChain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DevChain").finish_non_exhaustive()
    }
}

impl DevChain {
    /// A new chain with its first block.
    pub fn new(config: Config) -> Result<Self, StateError> {
        let seed = seed(&config)?;
        Ok(Self::from_chain(Chain::new(config, seed)))
    }

    /// The chain that [`DevChain::save`] wrote to `path`, or a new one when there is no such file.
    ///
    /// Fails when the file is damaged, of another version, or of a chain with another id. Blocks that come from the file
    /// cannot be replaced by `anvil_reorg`; filters and snapshots are gone.
    pub fn open(config: Config, path: &Path) -> Result<Self, StateError> {
        let seed = seed(&config)?;
        Ok(match state_file::read(path)? {
            Some(state) => Self::from_chain(state_file::restore(config, seed, state, path)?),
            None => Self::from_chain(Chain::new(config, seed)),
        })
    }

    /// Writes the chain to `path`, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), StateError> {
        // The lock is held while the state is copied, not while it is written.
        let state = state_file::capture(&self.lock());
        state_file::write(path, &state)
    }

    fn from_chain(chain: Chain) -> Self {
        Self(Arc::new(Mutex::new(chain)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Chain> {
        // A panic while the chain was locked is a fault of ours; what it was doing is undone by nobody, but the chain
        // is for development, and going on beats every later request failing for another reason than the first.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers one JSON-RPC request, given its parameters as JSON.
    pub fn request(&self, method: &str, params: Option<&RawValue>) -> Result<Box<RawValue>, ErrorPayload> {
        Ok(rpc::answer(&mut self.lock(), method, params)?)
    }

    /// An alloy transport in the same process.
    pub fn transport(&self) -> DevTransport {
        DevTransport::new(self.clone())
    }

    /// A client in the same process, ready for `ProviderBuilder::connect_client`.
    pub fn client(&self) -> RpcClient {
        RpcClient::new(self.transport(), true).with_poll_interval(POLL_INTERVAL)
    }
}

fn seed(config: &Config) -> Result<B256, StateError> {
    if let Some(seed) = config.seed {
        return Ok(seed);
    }
    let mut seed = B256::ZERO;
    OsRng.try_fill_bytes(seed.as_mut_slice()).map_err(StateError::Randomness)?;
    Ok(seed)
}
