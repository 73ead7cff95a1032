//! Blocks, transactions, accounts and calls.

use alloy::{
    eips::{BlockId, eip2718::Encodable2718 as _},
    primitives::{Address, B256, Bytes, U256},
    rpc::types::TransactionRequest,
};
use revm::context::BlockEnv;

use super::{
    Answer, json,
    params::{Params, Place, Quantity, find, place},
    quantity,
};
use crate::devchain::{
    block::{Block, environment, pending_to_rpc},
    chain::Chain,
    error::RpcError,
    execute,
};

pub(super) fn answer(chain: &mut Chain, method: &str, params: &Params<'_>) -> Answer {
    if let Some(answer) = blocks(chain, method, params)? {
        return Ok(Some(answer));
    }
    if let Some(answer) = transactions(chain, method, params)? {
        return Ok(Some(answer));
    }
    accounts(chain, method, params)
}

fn blocks(chain: &Chain, method: &str, params: &Params<'_>) -> Answer {
    match method {
        "eth_getBlockByNumber" | "eth_getBlockByHash" => {
            let full = params.optional(1, "full transactions")?.unwrap_or(false);
            json(&named(chain, method, params)?.map(|block| block.to_rpc(full)))
        }
        "eth_getBlockReceipts" => json(&find(chain, params.required(0, "block")?).map(Block::receipts)),
        "eth_getBlockTransactionCountByNumber" | "eth_getBlockTransactionCountByHash" => {
            json(&named(chain, method, params)?.map(|block| U256::from(block.transactions.len())))
        }
        "eth_getTransactionByBlockNumberAndIndex" | "eth_getTransactionByBlockHashAndIndex" => {
            let Quantity(index) = params.required(1, "index")?;
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            json(&named(chain, method, params)?.and_then(|block| block.transaction(index)))
        }
        _ => Ok(None),
    }
}

/// The block of a method whose first parameter is a number or a hash, as its name says.
fn named<'a>(chain: &'a Chain, method: &str, params: &Params<'_>) -> Result<Option<&'a Block>, RpcError> {
    let id = if method.contains("Number") {
        BlockId::Number(params.required(0, "block number")?)
    } else {
        BlockId::from(params.required::<B256>(0, "block hash")?)
    };
    Ok(find(chain, id))
}

fn transactions(chain: &Chain, method: &str, params: &Params<'_>) -> Answer {
    match method {
        "eth_getTransactionByHash" => {
            let hash = params.required(0, "transaction hash")?;
            json(&mined(chain, &hash).or_else(|| chain.pool.get(&hash).map(pending_to_rpc)))
        }
        "eth_getRawTransactionByHash" => {
            let hash = params.required(0, "transaction hash")?;
            let mined = chain.location(&hash).and_then(|at| chain.blocks.get(at.block)?.transactions.get(at.index));
            let transaction = mined.map(|mined| &mined.transaction).or_else(|| chain.pool.get(&hash));
            json(&transaction.map(|transaction| Bytes::from(transaction.encoded_2718())))
        }
        "eth_getTransactionReceipt" => {
            let location = chain.location(&params.required(0, "transaction hash")?);
            let receipt = location.and_then(|at| chain.blocks.get(at.block)?.receipts().into_iter().nth(at.index));
            json(&receipt)
        }
        "eth_getTransactionBySenderAndNonce" => {
            let sender: Address = params.required(0, "sender")?;
            let nonce = params.number(1, "nonce")?;
            if let Some(waiting) = chain.pool.at(sender, nonce) {
                return json(&pending_to_rpc(waiting));
            }
            json(&by_nonce(chain, sender, nonce).and_then(|hash| mined(chain, &hash)))
        }
        _ => Ok(None),
    }
}

fn mined(chain: &Chain, hash: &B256) -> Option<alloy::rpc::types::Transaction> {
    let at = chain.location(hash)?;
    chain.blocks.get(at.block)?.transaction(at.index)
}

/// Looks from the head down, as what is asked for is mostly recent.
fn by_nonce(chain: &Chain, sender: Address, nonce: u64) -> Option<B256> {
    use alloy::consensus::Transaction as _;

    let mut all = chain.blocks.iter().rev().flat_map(|block| &block.transactions);
    let found = all.find(|mined| mined.transaction.signer() == sender && mined.transaction.nonce() == nonce);
    found.map(|mined| mined.hash())
}

fn accounts(chain: &Chain, method: &str, params: &Params<'_>) -> Answer {
    let address = || params.required::<Address>(0, "address");
    match method {
        "eth_getBalance" => {
            place(chain, params, 1, BlockId::latest())?;
            json(&chain.world.account(address()?).balance)
        }
        "eth_getTransactionCount" => {
            let (place, address) = (place(chain, params, 1, BlockId::latest())?, address()?);
            let next = chain.nonce(address);
            quantity(if place == Place::Next { chain.pool.nonce_after(address, next) } else { next })
        }
        "eth_getCode" => {
            place(chain, params, 1, BlockId::latest())?;
            json(&chain.world.code(address()?))
        }
        "eth_getStorageAt" => {
            place(chain, params, 2, BlockId::latest())?;
            json(&B256::from(chain.world.slot(address()?, params.required(1, "slot")?)))
        }
        "eth_call" => {
            let (request, environment) = simulation(chain, params, BlockId::latest())?;
            json(&execute::call(chain, &environment, &request)?)
        }
        // The transaction will be in the next block, so that is where it is tried unless another place is named.
        "eth_estimateGas" => {
            let (request, environment) = simulation(chain, params, BlockId::pending())?;
            quantity(execute::estimate(chain, &environment, &request)?)
        }
        _ => Ok(None),
    }
}

fn simulation(
    chain: &Chain,
    params: &Params<'_>,
    default: BlockId,
) -> Result<(TransactionRequest, BlockEnv), RpcError> {
    params.refuse(2, "state overrides")?;
    params.refuse(3, "block overrides")?;
    let request = params.required(0, "transaction")?;
    let environment = match place(chain, params, 1, default)? {
        Place::Head => environment(chain.head().header()),
        Place::Next => chain.simulated_next(),
    };
    Ok((request, environment))
}
