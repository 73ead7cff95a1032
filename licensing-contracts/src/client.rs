//! The typed chain client: reads that say how old they are, transactions that are never sent twice, and reverts that name the
//! contracts' own errors.
//!
//! A failed request to a node is an error and never "absent": a function that returns `None` was told so by the chain.

mod events;
mod failover;
mod fees;
mod fresh;
mod journal;
mod revert;
mod sender;

use std::time::Duration;

use alloy::{
    eips::BlockNumberOrTag,
    primitives::{Address, B256, Bytes, ChainId, TxKind, U256},
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::{client::RpcClient, types::TransactionRequest},
    sol_types::SolCall,
    transports::{RpcError, TransportError},
};
use url::Url;

pub use self::{
    events::{EventCursor, EventPage, EventReader},
    failover::RpcSettings,
    fees::FeePolicy,
    fresh::{Fresh, StaleError},
    journal::{JournalError, TransactionJournal},
    revert::Revert,
    sender::{Action, Sender, SenderSettings, Simulation},
};

/// Why something could not be done on the chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainError {
    /// No node answered, or none as the protocol demands. Says nothing about the chain's state.
    #[error("failed to {attempted} at the chain's RPC")]
    Rpc {
        /// What was asked.
        attempted: String,
        /// The last node's failure.
        #[source]
        source: TransportError,
    },
    /// The contract refused.
    #[error("{what} would be refused: {revert}")]
    Reverted {
        /// The action.
        what: String,
        /// What the contract said.
        revert: Box<Revert>,
    },
    /// The contract refused when the transaction was mined: the state had changed since it was simulated.
    #[error("{what} was mined in transaction {transaction} and refused: {revert}")]
    Failed {
        /// The action.
        what: String,
        /// Hash of the transaction.
        transaction: B256,
        /// What the contract says to the same call now.
        revert: Box<Revert>,
    },
    /// A node of another chain.
    #[error("the RPC at {url} serves chain {found} and not {expected}")]
    WrongChain {
        /// Its address.
        url: String,
        /// Chain of the deployment.
        expected: ChainId,
        /// Chain of the node.
        found: ChainId,
    },
    /// The answer has another form than the contract's interface.
    #[error(
        "the answer to {call} of {contract} is not what the contract would give: is the deployment file of this chain?"
    )]
    Answer {
        /// Signature of the function.
        call: &'static str,
        /// Its address.
        contract: Address,
    },
    /// No endpoint was given.
    #[error("no RPC endpoint was given")]
    NoEndpoint,
    /// Not mined for a long time; it is in the journal and will be found again.
    #[error(
        "{what} is sent but not mined after {waited_s} s (transaction {transaction}); run the same command again to go on waiting"
    )]
    NotMined {
        /// The action.
        what: String,
        /// Hash of the newest version of the transaction.
        transaction: B256,
        /// Seconds.
        waited_s: u64,
    },
    /// The account sent something else with the same nonce.
    #[error("another transaction of {account} took nonce {nonce} of {what}; check what it did before you try again")]
    Displaced {
        /// The action.
        what: String,
        /// The sender.
        account: Address,
        /// The nonce.
        nonce: u64,
    },
    /// More than the policy allows.
    #[error("the chain asks for {asked} wei a unit of gas; the limit is {limit}: raise --max-fee or wait")]
    FeeTooHigh {
        /// Base fee and tip, in wei.
        asked: u128,
        /// The policy's limit, in wei.
        limit: u128,
    },
    /// The account cannot pay.
    #[error("{account} has {balance} wei and needs {needed} for value and gas")]
    Unfunded {
        /// The sender.
        account: Address,
        /// What it has.
        balance: U256,
        /// What it needs.
        needed: U256,
    },
    /// The transaction could not be signed.
    #[error("failed to sign a transaction")]
    Sign {
        /// Why.
        #[source]
        source: alloy::signers::Error,
    },
    /// The journal of sent transactions.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The newest blocks changed whenever they were read.
    #[error("the chain's newest blocks keep changing; try again")]
    Unsettled,
    /// The chain went back further than this client remembers.
    #[error("the chain was reorganised by more than {depth} blocks: start again from a block that is final")]
    ReorganisedTooDeep {
        /// Blocks remembered.
        depth: usize,
    },
}

impl ChainError {
    /// Whether the same call may succeed later, with nothing changed by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Rpc { .. } | Self::NotMined { .. } | Self::FeeTooHigh { .. } | Self::Unsettled)
    }
}

/// A block as a reader refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Height.
    pub number: u64,
    /// Hash.
    pub hash: B256,
    /// Seconds since 1970, by the chain.
    pub timestamp_s: u64,
}

/// One chain, through one or more nodes.
#[derive(Clone, Debug)]
pub struct ChainClient {
    provider: DynProvider,
    chain_id: ChainId,
}

impl ChainClient {
    /// Connects over HTTP. All nodes must serve the same chain; `expected`, if given, names it.
    pub async fn connect(urls: &[Url], expected: Option<ChainId>, settings: &RpcSettings) -> Result<Self, ChainError> {
        let endpoints = failover::endpoints(urls, settings)?;
        let mut chain_id = expected;
        let mut last_failure = None;
        let mut alive = 0_usize;
        for endpoint in &endpoints {
            match endpoint.chain_id().await {
                Ok(found) if chain_id.is_none_or(|expected| expected == found) => {
                    chain_id = Some(found);
                    alive = alive.saturating_add(1);
                }
                Ok(found) => {
                    let expected = chain_id.unwrap_or(found);
                    return Err(ChainError::WrongChain { url: endpoint.name().to_owned(), expected, found });
                }
                // Others may answer; this one may come back.
                Err(source) => last_failure = Some(source),
            }
        }
        match (chain_id, last_failure) {
            (Some(chain_id), _) if alive > 0 => Ok(Self::over(failover::client(endpoints, settings), chain_id)),
            (_, Some(source)) => Err(ChainError::Rpc { attempted: "ask for the chain's id".to_owned(), source }),
            _ => Err(ChainError::NoEndpoint),
        }
    }

    /// Talks through any transport, such as that of a chain in this process.
    pub fn over(client: RpcClient, chain_id: ChainId) -> Self {
        Self { provider: ProviderBuilder::default().connect_client(client).erased(), chain_id }
    }

    /// The chain.
    pub const fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    /// alloy's provider, for what is not wrapped here.
    pub const fn provider(&self) -> &DynProvider {
        &self.provider
    }

    /// The newest block.
    pub async fn head(&self) -> Result<Head, ChainError> {
        self.block(BlockNumberOrTag::Latest).await?.ok_or_else(|| ChainError::Rpc {
            attempted: "read the newest block".to_owned(),
            source: RpcError::NullResp,
        })
    }

    /// A block, or `None` if the chain is not that long.
    pub async fn block(&self, number: BlockNumberOrTag) -> Result<Option<Head>, ChainError> {
        let block = self.provider.get_block_by_number(number).await.map_err(rpc("read a block"))?;
        Ok(block.map(|block| Head {
            number: block.header.number,
            hash: block.header.hash,
            timestamp_s: block.header.timestamp,
        }))
    }

    /// Calls a function that changes nothing, at the newest block.
    pub async fn call<C: SolCall>(&self, contract: Address, call: &C) -> Result<C::Return, ChainError> {
        let request = TransactionRequest {
            to: Some(TxKind::Call(contract)),
            input: Bytes::from(call.abi_encode()).into(),
            ..TransactionRequest::default()
        };
        // alloy would ask about the block that comes next.
        let answer = self.provider.call(request).latest().await.map_err(|error| refused(C::SIGNATURE, error))?;
        C::abi_decode_returns(&answer).map_err(|_| ChainError::Answer { call: C::SIGNATURE, contract })
    }

    /// Calls a function and says how old the answer is: it holds at `block` or later.
    pub async fn read<C: SolCall>(
        &self,
        contract: Address,
        call: &C,
        now: Duration,
    ) -> Result<Fresh<C::Return>, ChainError> {
        let block = self.head().await?;
        let value = self.call(contract, call).await?;
        Ok(Fresh { value, block, observed_at: now })
    }
}

/// Names what was attempted when a request failed.
fn rpc(attempted: &str) -> impl FnOnce(TransportError) -> ChainError + '_ {
    move |source| ChainError::Rpc { attempted: attempted.to_owned(), source }
}

/// A refusal by a contract is told from a failure of the node.
fn refused(what: &str, error: TransportError) -> ChainError {
    match Revert::of(&error) {
        Some(revert) => ChainError::Reverted { what: what.to_owned(), revert: Box::new(revert) },
        None => ChainError::Rpc { attempted: format!("call {what}"), source: error },
    }
}
