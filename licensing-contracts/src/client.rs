//! The typed chain client: reads that say how old they are, transactions that are never sent twice, and reverts that name the
//! contracts' own errors.
//!
//! A failed request to a node is an error and never "absent": a function that returns `None` was told so by the chain.

mod action;
mod events;
mod failover;
mod fees;
mod fresh;
mod journal;
mod revert;
mod sender;

use std::time::Duration;

use alloy::{
    eips::{BlockId, BlockNumberOrTag},
    primitives::{
        Address, B256, Bytes, ChainId, TxKind, U256,
        utils::{format_ether, format_units},
    },
    providers::{DynProvider, Provider, ProviderBuilder},
    rpc::{client::RpcClient, types::TransactionRequest},
    sol_types::SolCall,
    transports::{RpcError, TransportError, TransportErrorKind},
};
use url::Url;

pub use self::{
    action::{Action, Simulation},
    events::{EventCursor, EventPage, EventReader},
    failover::RpcSettings,
    fees::FeePolicy,
    fresh::{Fresh, StaleError},
    journal::{JournalError, TransactionJournal},
    revert::Revert,
    sender::{Leftover, Sender, SenderSettings},
};

/// Times that something is read again because the chain changed meanwhile.
const ATTEMPTS: usize = 5;

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
    #[error(
        "{what} was mined in transaction {transaction} and refused: {}",
        revert.as_ref().map_or_else(|| "it would not be refused now; try again".to_owned(), ToString::to_string)
    )]
    Failed {
        /// The action.
        what: String,
        /// Hash of the transaction.
        transaction: B256,
        /// What the contract says to the same call now, if it still refuses.
        revert: Option<Box<Revert>>,
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
        "{what} is sent but not mined after {waited_s} s (transaction {transaction}{}); run the same command again to go on \
         waiting",
        refusal.as_ref().map(|refusal| format!("; the node says: {refusal}")).unwrap_or_default()
    )]
    NotMined {
        /// The action.
        what: String,
        /// Hash of the newest version of the transaction.
        transaction: B256,
        /// Seconds.
        waited_s: u64,
        /// Why the node did not take it, if it did not.
        refusal: Option<String>,
    },
    /// Something has the transaction's nonce, and the node does not show what. It is in the journal and will be looked for again.
    #[error(
        "nonce {nonce} of {account}, which {what} was sent with, is used, but the node does not show by what: run the same \
         command again, or name another node"
    )]
    Unseen {
        /// The action.
        what: String,
        /// The sender.
        account: Address,
        /// The nonce.
        nonce: u64,
    },
    /// The account sent something else with the same nonce, and that was mined.
    #[error(
        "transaction {by} of {account} took nonce {nonce}, which {what} was sent with; check what it did before you try again"
    )]
    Displaced {
        /// The action.
        what: String,
        /// The sender.
        account: Address,
        /// The nonce.
        nonce: u64,
        /// Hash of the other transaction.
        by: B256,
    },
    /// More than the policy allows.
    #[error(
        "the chain asks for {} gwei a unit of gas, and the limit is {}: wait, or raise the limit (--max-fee)",
        gwei(*asked), gwei(*limit)
    )]
    FeeTooHigh {
        /// Base fee and tip, in wei.
        asked: u128,
        /// The policy's limit, in wei.
        limit: u128,
    },
    /// The account cannot pay.
    #[error(
        "{account} has {} coins and needs {} for value and gas: send it some",
        format_ether(*balance), format_ether(*needed)
    )]
    Unfunded {
        /// The sender.
        account: Address,
        /// What it has, in wei.
        balance: U256,
        /// What it needs, in wei.
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
    /// The node's newest block is before those whose events were delivered.
    #[error(
        "the node is at block {head}, and events up to block {delivered} were delivered: it is behind, or the chain went back by \
         more than {depth} blocks"
    )]
    Behind {
        /// The node's newest block.
        head: u64,
        /// The last block whose events were delivered.
        delivered: u64,
        /// Blocks remembered.
        depth: u64,
    },
    /// The chain went back further than this client remembers.
    #[error("the chain was reorganised by more than {depth} blocks: start again from a block that is final")]
    ReorganisedTooDeep {
        /// Blocks remembered.
        depth: u64,
    },
}

impl ChainError {
    /// Whether the same call may succeed later, with nothing changed by the caller.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            Self::Rpc { .. }
                | Self::NotMined { .. }
                | Self::Unseen { .. }
                | Self::FeeTooHigh { .. }
                | Self::Unsettled
                | Self::Behind { .. }
        )
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
        let nodes = failover::nodes(urls, settings)?;
        let mut chain_id = expected;
        let mut last_failure = None;
        let mut alive = 0_usize;
        for node in &nodes {
            match node.chain_id().await {
                Ok(found) if chain_id.is_none_or(|expected| expected == found) => {
                    node.verified();
                    chain_id = Some(found);
                    alive = alive.saturating_add(1);
                }
                Ok(found) => {
                    let expected = chain_id.unwrap_or(found);
                    return Err(ChainError::WrongChain { url: node.name().to_owned(), expected, found });
                }
                // Others may answer. This one may come back, and is asked for its chain before it is asked for anything else.
                Err(failure) => last_failure = Some(TransportErrorKind::custom(failure)),
            }
        }
        match (chain_id, last_failure) {
            (Some(chain_id), _) if alive > 0 => Ok(Self::over(failover::client(nodes, chain_id, settings), chain_id)),
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
        // alloy would ask about the block that comes next.
        self.call_at(contract, call, BlockId::latest()).await
    }

    /// Calls a function at the newest block, and says which that was and when.
    pub async fn read<C: SolCall>(
        &self,
        contract: Address,
        call: &C,
        now: Duration,
    ) -> Result<Fresh<C::Return>, ChainError> {
        let mut failure = ChainError::Unsettled;
        for _ in 0..ATTEMPTS {
            let block = self.head().await?;
            // Named by its hash: a node that does not have the block says so, and does not answer from another one.
            match self.call_at(contract, call, BlockId::hash(block.hash)).await {
                Ok(value) => return Ok(Fresh { value, block, observed_at: now }),
                Err(error @ ChainError::Rpc { .. }) => failure = error,
                Err(error) => return Err(error),
            }
        }
        Err(failure)
    }

    async fn call_at<C: SolCall>(&self, contract: Address, call: &C, at: BlockId) -> Result<C::Return, ChainError> {
        let request = TransactionRequest {
            to: Some(TxKind::Call(contract)),
            input: Bytes::from(call.abi_encode()).into(),
            ..TransactionRequest::default()
        };
        let called = format!("a call of {}", C::SIGNATURE);
        let answer = self.provider.call(request).block(at).await.map_err(|error| refused(&called, error))?;
        C::abi_decode_returns(&answer).map_err(|_| ChainError::Answer { call: C::SIGNATURE, contract })
    }

    /// Hash of the first block: what tells two chains with one id apart.
    pub async fn genesis(&self) -> Result<B256, ChainError> {
        let first = self.block(BlockNumberOrTag::Number(0)).await?;
        first
            .map(|block| block.hash)
            .ok_or_else(|| ChainError::Rpc { attempted: "read the first block".to_owned(), source: RpcError::NullResp })
    }
}

fn gwei(wei: u128) -> String {
    let text = format_units(wei, "gwei").unwrap_or_else(|_| wei.to_string());
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Names what was attempted when a request failed.
fn rpc(attempted: &str) -> impl FnOnce(TransportError) -> ChainError + '_ {
    move |source| ChainError::Rpc { attempted: attempted.to_owned(), source }
}

/// A refusal by a contract is told from a failure of the node.
fn refused(what: &str, error: TransportError) -> ChainError {
    match Revert::of(&error) {
        Some(revert) => ChainError::Reverted { what: what.to_owned(), revert: Box::new(revert) },
        None => ChainError::Rpc { attempted: format!("try {what}"), source: error },
    }
}
