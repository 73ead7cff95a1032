//! What fees were paid. Ratios and percentiles are floats because JSON-RPC says so; no money is.

use alloy::{
    eips::{BlockId, BlockNumberOrTag},
    rpc::types::FeeHistory,
};

use super::{
    Answer, json,
    params::{Params, find},
    quantity,
};
use crate::devchain::{block::Block, chain::Chain, error::RpcError};

/// What clients that ask are told to pay above the base fee. Every tip is enough here.
pub(super) const SUGGESTED_TIP_WEI: u64 = 1_000_000;

/// Most blocks in one answer, as in go-ethereum.
const MOST_BLOCKS: u64 = 1024;

pub(super) fn answer(chain: &mut Chain, method: &str, params: &Params<'_>) -> Answer {
    match method {
        "eth_maxPriorityFeePerGas" => quantity(SUGGESTED_TIP_WEI),
        "eth_feeHistory" => {
            let count = params.number(0, "block count")?.min(MOST_BLOCKS);
            let newest = params.optional(1, "newest block")?.unwrap_or(BlockNumberOrTag::Latest);
            let percentiles: Vec<f64> = params.optional(2, "reward percentiles")?.unwrap_or_default();
            let ordered = percentiles.is_sorted() && percentiles.iter().all(|p| (0.0..=100.0).contains(p));
            if !ordered {
                return Err(RpcError::Unsupported("reward percentiles out of order or out of range"));
            }
            json(&history(chain, count, newest, &percentiles)?)
        }
        _ => Ok(None),
    }
}

fn history(chain: &Chain, count: u64, newest: BlockNumberOrTag, percentiles: &[f64]) -> Result<FeeHistory, RpcError> {
    // There is no pending block; what it would add is the base fee after the newest, which is always there.
    let newest = if newest.is_pending() { BlockNumberOrTag::Latest } else { newest };
    let last = find(chain, newest.into()).ok_or(RpcError::UnknownBlock(BlockId::Number(newest)))?.number();
    let first = last.saturating_add(1).saturating_sub(count);
    let blocks: Vec<&Block> = (first..=last).filter_map(|number| chain.block(number)).collect();
    let mut base_fee_per_gas: Vec<u128> = blocks.iter().map(|block| block.base_fee().into()).collect();
    base_fee_per_gas.push(chain.block(last.saturating_add(1)).map_or(chain.base_fee, Block::base_fee).into());
    let rewards = || blocks.iter().map(|block| rewards(block, percentiles)).collect();
    Ok(FeeHistory {
        base_fee_per_blob_gas: vec![1; base_fee_per_gas.len()],
        base_fee_per_gas,
        gas_used_ratio: blocks.iter().map(|block| ratio(block)).collect(),
        blob_gas_used_ratio: vec![0.0; blocks.len()],
        oldest_block: first,
        reward: (!percentiles.is_empty()).then(rewards),
    })
}

#[expect(clippy::as_conversions, reason = "a ratio is a float; gas is far below 2^53")]
fn ratio(block: &Block) -> f64 {
    block.header().gas_used as f64 / block.header().gas_limit.max(1) as f64
}

/// The tips below which the given shares of the block's gas were bought.
#[expect(clippy::as_conversions, reason = "percentiles are floats; gas is far below 2^53")]
fn rewards(block: &Block, percentiles: &[f64]) -> Vec<u128> {
    let mut tips: Vec<(u128, u64)> =
        block.transactions.iter().map(|mined| (mined.tip(block.base_fee()), mined.gas_used)).collect();
    tips.sort_unstable();
    let below = |percentile: &f64| {
        let wanted = block.header().gas_used as f64 * percentile / 100.0;
        let mut sum = 0_u64;
        let mut reached = tips.iter().skip_while(|(_, gas)| {
            sum = sum.saturating_add(*gas);
            (sum as f64) < wanted
        });
        reached.next().or(tips.last()).map_or(0, |(tip, _)| *tip)
    };
    percentiles.iter().map(below).collect()
}
