//! A chain as one file.
//!
//! The file is JSON: what it is, its version, the keccak of the state's text, and the state. Blocks and transactions are
//! in it as the chain encodes them, so their hashes are computed again when the file is read.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use alloy::{
    consensus::{Header, ReceiptEnvelope, TxEnvelope, TxReceipt as _, transaction::Recovered},
    eips::eip2718::{Decodable2718 as _, Encodable2718 as _},
    primitives::{Address, B256, Bytes, U256, keccak256},
    rlp::{Decodable as _, Encodable as _},
};
use rand::rand_core::OsError;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    Config,
    block::{Block, Mined},
    chain::Chain,
    clock::{Randomness, Time},
    world::{Account, World},
};

const FORMAT: &str = "hallmark-devnet";
const VERSION: u32 = 1;

/// A chain cannot start, or cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system gives no randomness.
    #[error("failed to draw a seed")]
    Randomness(#[source] OsError),
    /// The file cannot be read.
    #[error("failed to read the chain in {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written; the old one is untouched.
    #[error("failed to write the chain to {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The file is no chain, or only a part of one.
    #[error("{path} holds no complete chain; move it away to start a new one")]
    Json {
        /// The file.
        path: PathBuf,
        /// Where it breaks off.
        #[source]
        source: serde_json::Error,
    },
    /// Another program's file, or a later version's.
    #[error("{path} is \"{format}\" version {version}, and not \"{FORMAT}\" version {VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// What it says that it is.
        format: String,
        /// Its version.
        version: u32,
    },
    /// The file was changed or damaged.
    #[error("{path} is damaged: {what}; move it away to start a new chain")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// The file is another chain's.
    #[error("{path} holds a chain with id {found}, and not {expected}")]
    ChainId {
        /// The file.
        path: PathBuf,
        /// In the file.
        found: u64,
        /// In the configuration.
        expected: u64,
    },
}

#[derive(Serialize, Deserialize)]
struct Envelope<'a> {
    format: String,
    version: u32,
    /// Keccak of `state` as it stands in the file.
    digest: B256,
    #[serde(borrow)]
    state: &'a RawValue,
}

/// Only what tells whether the rest can be read.
#[derive(Deserialize)]
struct Label {
    format: String,
    version: u32,
}

/// Everything of a chain that outlives its process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct State {
    chain_id: u64,
    base_fee: u64,
    time_offset_s: i64,
    randomness_draws: u64,
    automine: bool,
    accounts: BTreeMap<Address, AccountForm>,
    codes: Vec<Bytes>,
    blocks: Vec<BlockForm>,
    /// Waiting transactions, in the order of their arrival.
    pool: Vec<Bytes>,
}

#[derive(Debug, Serialize, Deserialize)]
struct AccountForm {
    balance: U256,
    nonce: u64,
    code_hash: B256,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    storage: BTreeMap<U256, U256>,
}

#[derive(Debug, Serialize, Deserialize)]
struct BlockForm {
    /// RLP.
    header: Bytes,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    transactions: Vec<TransactionForm>,
}

#[derive(Debug, Serialize, Deserialize)]
struct TransactionForm {
    /// EIP-2718.
    transaction: Bytes,
    /// Recovered once; recovering every sender again would take longer than everything else.
    sender: Address,
    /// EIP-2718.
    receipt: Bytes,
    gas_used: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<Address>,
}

/// Copies what is kept of a chain.
pub(super) fn capture(chain: &Chain) -> State {
    let accounts = chain.world.export().map(|(address, account, storage)| {
        let Account { balance, nonce, code_hash } = account;
        (address, AccountForm { balance, nonce, code_hash, storage })
    });
    State {
        chain_id: chain.config.chain_id,
        base_fee: chain.base_fee,
        time_offset_s: chain.time.offset_s(),
        randomness_draws: chain.randomness.draws(),
        automine: chain.automine,
        accounts: accounts.collect(),
        codes: chain.world.export_codes().into_values().collect(),
        blocks: chain.blocks.iter().map(BlockForm::of).collect(),
        pool: chain.pool.all().into_iter().map(|transaction| transaction.encoded_2718().into()).collect(),
    }
}

impl BlockForm {
    fn of(block: &Block) -> Self {
        let mut header = Vec::new();
        block.header().encode(&mut header);
        Self { header: header.into(), transactions: block.transactions.iter().map(TransactionForm::of).collect() }
    }

    fn restore(&self, world: &World) -> Result<Block, String> {
        let header = Header::decode(&mut self.header.as_ref()).map_err(|error| format!("a header: {error}"))?;
        let transactions = self.transactions.iter().map(TransactionForm::restore).collect::<Result<_, _>>()?;
        Ok(Block::restore(header, transactions, world.start()))
    }
}

impl TransactionForm {
    fn of(mined: &Mined) -> Self {
        Self {
            transaction: mined.transaction.encoded_2718().into(),
            sender: mined.transaction.signer(),
            receipt: mined.envelope().encoded_2718().into(),
            gas_used: mined.gas_used,
            created: mined.created,
        }
    }

    fn restore(&self) -> Result<Mined, String> {
        let transaction =
            TxEnvelope::decode_2718_exact(&self.transaction).map_err(|error| format!("a transaction: {error}"))?;
        let receipt =
            ReceiptEnvelope::decode_2718_exact(&self.receipt).map_err(|error| format!("a receipt: {error}"))?;
        Ok(Mined {
            transaction: Recovered::new_unchecked(transaction, self.sender),
            receipt: alloy::consensus::Receipt {
                status: receipt.status_or_post_state(),
                cumulative_gas_used: receipt.cumulative_gas_used(),
                logs: receipt.into_logs(),
            },
            gas_used: self.gas_used,
            created: self.created,
        })
    }
}

/// Reads a file; nothing when there is none.
pub(super) fn read(path: &Path) -> Result<Option<State>, StateError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Read { path: path.to_owned(), source }),
    };
    let json = |source| StateError::Json { path: path.to_owned(), source };
    let Label { format, version } = serde_json::from_str(&text).map_err(json)?;
    if format != FORMAT || version != VERSION {
        return Err(StateError::Version { path: path.to_owned(), format, version });
    }
    let envelope: Envelope<'_> = serde_json::from_str(&text).map_err(json)?;
    if keccak256(envelope.state.get()) != envelope.digest {
        let what = "its digest is another one".to_owned();
        return Err(StateError::Damaged { path: path.to_owned(), what });
    }
    serde_json::from_str(envelope.state.get()).map(Some).map_err(json)
}

/// A chain that goes on where `state`, which was read from `path`, ends.
pub(super) fn restore(config: Config, seed: B256, state: State, path: &Path) -> Result<Chain, StateError> {
    if state.chain_id != config.chain_id {
        let (found, expected) = (state.chain_id, config.chain_id);
        return Err(StateError::ChainId { path: path.to_owned(), found, expected });
    }
    assemble(config, seed, state).map_err(|what| StateError::Damaged { path: path.to_owned(), what })
}

fn assemble(config: Config, seed: B256, state: State) -> Result<Chain, String> {
    let accounts = state.accounts.into_iter().map(|(address, form)| {
        let AccountForm { balance, nonce, code_hash, storage } = form;
        (address, Account { balance, nonce, code_hash }, storage)
    });
    let world = World::restore(accounts, state.codes)?;
    let mut blocks: Vec<Block> = Vec::with_capacity(state.blocks.len());
    for form in &state.blocks {
        let block = form.restore(&world)?;
        let (number, parent) = (blocks.len(), blocks.last().map(Block::hash).unwrap_or_default());
        if usize::try_from(block.number()) != Ok(number) || block.header().parent_hash != parent {
            return Err(format!("block {number} does not follow on the one before"));
        }
        blocks.push(block);
    }
    let Some(head) = blocks.last_mut() else { return Err("it has no blocks".to_owned()) };
    head.undo = world.position();
    let time = Time::new(config.clock, state.time_offset_s);
    let randomness = Randomness::new(seed, state.randomness_draws);
    let mut chain = Chain::assemble(config, world, blocks, time, randomness);
    chain.base_fee = state.base_fee;
    chain.automine = state.automine;
    for raw in &state.pool {
        let waiting = chain.decode(raw).map_err(|error| format!("a waiting transaction: {error}"))?;
        let next = chain.nonce(waiting.signer());
        chain.pool.insert(waiting, next).map_err(|error| format!("a waiting transaction: {error}"))?;
    }
    Ok(chain)
}

/// Writes a file whole, in place of what was there.
pub(super) fn write(path: &Path, state: &State) -> Result<(), StateError> {
    let failed = |source| StateError::Write { path: path.to_owned(), source };
    let state = to_raw_value(state).map_err(|error| failed(error.into()))?;
    let envelope =
        Envelope { format: FORMAT.to_owned(), version: VERSION, digest: keccak256(state.get()), state: &state };
    let text = serde_json::to_vec(&envelope).map_err(|error| failed(error.into()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new().prefix(".hallmark-").suffix(".tmp").tempfile_in(folder).map_err(failed)?;
    file.write_all(&text).map_err(failed)?;
    file.as_file().sync_all().map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
