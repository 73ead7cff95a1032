//! Why a request fails, and how JSON-RPC says so.

use alloy::{
    consensus::crypto::RecoveryError,
    eips::{BlockId, eip2718::Eip2718Error},
    primitives::{B256, Bytes, U256},
    rpc::json_rpc::ErrorPayload,
    sol_types::{Panic, Revert, SolError as _},
};
use revm::context::result::{HaltReason, InvalidTransaction};

use super::pool::PoolError;

/// Why a request to the development chain fails.
#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    /// No such method.
    #[error("the method {0} does not exist on the development chain")]
    UnknownMethod(String),
    /// The parameters are no array.
    #[error("params must be an array")]
    ParamsShape(#[source] serde_json::Error),
    /// A parameter is absent.
    #[error("missing value for required argument {position}: {name}")]
    MissingParam {
        /// Counted from zero.
        position: usize,
        /// What it is for.
        name: &'static str,
    },
    /// A parameter is not of its type.
    #[error("invalid argument {position} ({name})")]
    Param {
        /// Counted from zero.
        position: usize,
        /// What it is for.
        name: &'static str,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// A parameter that other chains know is not understood here.
    #[error("{0} are not supported by the development chain")]
    Unsupported(&'static str),
    /// A call, or the transaction that is estimated, reverts.
    #[error("{}", reverted(.output))]
    Reverted {
        /// What the contract returned.
        output: Bytes,
    },
    /// A call ended in an exceptional halt.
    #[error("{0}")]
    Halted(String),
    /// A call that no transaction could make.
    #[error("{0}")]
    InvalidCall(Box<InvalidTransaction>),
    /// The gas that the sender can pay for is not enough.
    #[error("gas required exceeds allowance ({0})")]
    GasAllowance(u64),
    /// State is kept at the head only.
    #[error("no state of block {block}: the development chain keeps the state of its head, {head}, only")]
    PastState {
        /// Asked for.
        block: u64,
        /// The head.
        head: u64,
    },
    /// No such block, for instance because it was replaced.
    #[error("unknown block {0:?}")]
    UnknownBlock(BlockId),
    /// The first block asked for is after the last.
    #[error("invalid block range: {from} is after {to}")]
    BlockRange {
        /// First block.
        from: u64,
        /// Last block.
        to: u64,
    },
    /// No such filter; an unused one is dropped after five minutes.
    #[error("filter not found")]
    UnknownFilter,
    /// The bytes are no signed transaction.
    #[error("the transaction cannot be decoded")]
    Decode(#[source] Eip2718Error),
    /// Its signature is none.
    #[error("the transaction's signature is invalid")]
    Signature(#[source] RecoveryError),
    /// The transaction is for another chain.
    #[error("invalid chain id for signer: have {found} want {expected}")]
    WrongChain {
        /// In the transaction.
        found: u64,
        /// Of this chain.
        expected: u64,
    },
    /// A signature that is valid on every chain is refused, as by go-ethereum.
    #[error("only replay-protected (EIP-155) transactions allowed over RPC")]
    Unprotected,
    /// Balance is below value and the most that gas can cost.
    #[error("insufficient funds for gas * price + value: balance {balance}, tx cost {cost}")]
    InsufficientFunds {
        /// In wei.
        balance: U256,
        /// In wei.
        cost: U256,
    },
    /// The transaction pool does not take it.
    #[error(transparent)]
    Pool(#[from] PoolError),
    /// The rules of the chain forbid it.
    #[error("{0}")]
    Refused(Box<InvalidTransaction>),
    /// A timestamp before the head's.
    #[error("timestamp {asked} is before the head's, {head}")]
    Timestamp {
        /// Asked for.
        asked: u64,
        /// Of the head.
        head: u64,
    },
    /// The chain cannot go back so far.
    #[error("cannot replace {depth} blocks: {most} is the most now")]
    ReorgDepth {
        /// Asked for.
        depth: usize,
        /// Possible.
        most: usize,
    },
    /// A transaction is to go into a block that is not among the new ones.
    #[error("a transaction is for replaced block {offset}, but only {depth} blocks are replaced, counted from zero")]
    ReorgOffset {
        /// Asked for.
        offset: usize,
        /// Blocks replaced.
        depth: usize,
    },
    /// A transaction of the new blocks cannot be executed; nothing was changed.
    #[error("transaction {hash} cannot be in a replaced block")]
    ReorgTransaction {
        /// The transaction.
        hash: B256,
        /// Why not.
        source: Box<InvalidTransaction>,
    },
    /// Too many blocks at once.
    #[error("cannot mine {asked} blocks at once: {most} is the most")]
    TooManyBlocks {
        /// Asked for.
        asked: u64,
        /// Allowed.
        most: u64,
    },
    /// Bytes that claim to be a delegation (EIP-7702) and are none.
    #[error("the code cannot be installed")]
    Code(#[source] revm::bytecode::BytecodeDecodeError),
    /// An answer could not be written as JSON.
    #[error("failed to encode the answer")]
    Encode(#[source] serde_json::Error),
}

impl RpcError {
    pub(super) fn halted(reason: &HaltReason) -> Self {
        Self::Halted(match reason {
            HaltReason::OutOfGas(_) => "out of gas".to_owned(),
            reason => format!("execution halted: {reason:?}"),
        })
    }

    const fn code(&self) -> i64 {
        match self {
            Self::Reverted { .. } => 3,
            Self::UnknownMethod(_) => -32601,
            Self::ParamsShape(_)
            | Self::MissingParam { .. }
            | Self::Param { .. }
            | Self::Unsupported(_)
            | Self::BlockRange { .. }
            | Self::ReorgOffset { .. }
            | Self::Decode(_) => -32602,
            Self::Encode(_) => -32603,
            _ => -32000,
        }
    }
}

impl From<RpcError> for ErrorPayload {
    fn from(error: RpcError) -> Self {
        let code = error.code();
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message = format!("{message}: {cause}");
            source = cause.source();
        }
        let data = match &error {
            RpcError::Reverted { output } => serde_json::value::to_raw_value(output).ok(),
            _ => None,
        };
        Self { code, message: message.into(), data }
    }
}

/// Solidity's own two errors are told in words; all others are data that the caller knows how to read.
fn reverted(output: &Bytes) -> String {
    if let Ok(error) = Revert::abi_decode(output) {
        return format!("execution reverted: {}", error.reason);
    }
    if let Ok(panic) = Panic::abi_decode(output) {
        return format!("execution reverted: {panic}");
    }
    "execution reverted".to_owned()
}
