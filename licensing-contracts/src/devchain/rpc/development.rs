//! Methods that only a development chain has, under the names that anvil and hardhat gave them.

use alloy::primitives::{Address, B256, Bytes, U256};
use serde::Deserialize;
use serde_json::Value;

use super::{
    Answer, json,
    params::{Params, Quantity},
    quantity,
};
use crate::devchain::{chain::Chain, error::RpcError};

pub(super) fn answer(chain: &mut Chain, method: &str, params: &Params<'_>) -> Answer {
    let Some((space @ ("evm" | "anvil" | "hardhat" | "txpool"), name)) = method.split_once('_') else {
        return Ok(None);
    };
    match (space, name) {
        ("evm", "mine") => mine_one(chain, params),
        ("anvil" | "hardhat", "mine") => {
            let count = params.optional(0, "blocks")?.map_or(1, |Quantity(count)| count);
            let interval = params.optional(1, "interval")?.map(|Quantity(seconds)| seconds);
            chain.mine(count, interval)?;
            json(&Value::Null)
        }
        ("txpool", "status") => txpool(chain),
        (_, "snapshot") => quantity(chain.snapshot()),
        (_, "revert") => {
            let id = params.number(0, "snapshot")?;
            json(&chain.revert(id))
        }
        (_, "increaseTime") => {
            let seconds = params.number(0, "seconds")?;
            json(&chain.time.increase(seconds))
        }
        (_, "setNextBlockTimestamp") => {
            set_timestamp(chain, params.number(0, "timestamp")?)?;
            json(&Value::Null)
        }
        (_, "setPrevRandao") => {
            chain.randomness.set_next(params.required(0, "prevrandao")?);
            json(&true)
        }
        (_, "setAutomine") => {
            chain.automine = params.required(0, "automine")?;
            if chain.automine {
                chain.mine_waiting();
            }
            json(&true)
        }
        (_, "getAutomine") => json(&chain.automine),
        (_, "setNextBlockBaseFeePerGas") => {
            // Base fees are constant here, so this holds for all blocks to come.
            chain.base_fee = params.number(0, "base fee")?;
            json(&Value::Null)
        }
        (_, "dropTransaction") => {
            let hash: B256 = params.required(0, "transaction hash")?;
            json(&chain.pool.remove(&hash).map(|_| hash))
        }
        (_, "reorg") => reorganise(chain, params),
        _ => accounts(chain, name, params),
    }
}

/// Accounts are changed at the head, between blocks.
fn accounts(chain: &mut Chain, name: &str, params: &Params<'_>) -> Answer {
    let address = || params.required::<Address>(0, "address");
    match name {
        "setBalance" => chain.world.set_balance(address()?, params.required(1, "balance")?),
        "setNonce" => chain.world.set_nonce(address()?, params.number(1, "nonce")?),
        "setCode" => {
            let code: Bytes = params.required(1, "code")?;
            chain.world.set_code(address()?, code).map_err(RpcError::Code)?;
        }
        "setStorageAt" => {
            let (slot, value): (U256, U256) = (params.required(1, "slot")?, params.required(2, "value")?);
            chain.world.set_slot(address()?, slot, value);
        }
        _ => return Ok(None),
    }
    json(&true)
}

fn txpool(chain: &Chain) -> Answer {
    let pending = chain.pool.senders().into_iter().map(|sender| {
        let next = chain.nonce(sender);
        chain.pool.nonce_after(sender, next).saturating_sub(next)
    });
    let pending = pending.sum::<u64>();
    let all = u64::try_from(chain.pool.len()).unwrap_or(u64::MAX);
    json(&serde_json::json!({
        "pending": U256::from(pending),
        "queued": U256::from(all.saturating_sub(pending)),
    }))
}

fn set_timestamp(chain: &mut Chain, asked: u64) -> Result<(), RpcError> {
    let head = chain.head().header().timestamp;
    if asked < head {
        return Err(RpcError::Timestamp { asked, head });
    }
    chain.time.set_next(asked);
    Ok(())
}

/// The parameter of `evm_mine`: nothing, a timestamp, or both of these.
#[derive(Deserialize)]
#[serde(untagged)]
enum MineOptions {
    Timestamp(Quantity),
    Options { timestamp: Option<Quantity>, blocks: Option<Quantity> },
}

fn mine_one(chain: &mut Chain, params: &Params<'_>) -> Answer {
    let (timestamp, blocks) = match params.optional(0, "options")? {
        None => (None, None),
        Some(MineOptions::Timestamp(timestamp)) => (Some(timestamp), None),
        Some(MineOptions::Options { timestamp, blocks }) => (timestamp, blocks),
    };
    if let Some(Quantity(timestamp)) = timestamp {
        set_timestamp(chain, timestamp)?;
    }
    chain.mine(blocks.map_or(1, |Quantity(blocks)| blocks), None)?;
    json(&"0x0")
}

/// A transaction of `anvil_reorg`. Anvil also takes unsigned ones, of accounts whose keys it has.
#[derive(Deserialize)]
#[serde(untagged)]
enum Given {
    Raw(Bytes),
    Unsigned(serde::de::IgnoredAny),
}

/// `anvil_reorg(depth, [[transaction, offset], ..])`, or the same by name.
fn reorganise(chain: &mut Chain, params: &Params<'_>) -> Answer {
    let size = |Quantity(number)| usize::try_from(number).unwrap_or(usize::MAX);
    let depth = size(params.required(0, "depth")?);
    let pairs: Vec<(Given, Quantity)> = params.optional(1, "transactions")?.unwrap_or_default();
    let mut transactions = Vec::with_capacity(pairs.len());
    for (given, offset) in pairs {
        match given {
            Given::Raw(raw) => transactions.push((chain.decode(&raw)?, size(offset))),
            Given::Unsigned(_) => return Err(RpcError::Unsupported("transactions that are not signed")),
        }
    }
    chain.reorganise(depth, transactions)?;
    json(&Value::Null)
}
