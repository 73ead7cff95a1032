//! Logs and filters.

use alloy::rpc::types::{Filter, FilterBlockOption, Log};

use super::{
    Answer, json,
    params::{Params, number},
    quantity,
};
use crate::devchain::{block::Block, chain::Chain, error::RpcError};

pub(super) fn answer(chain: &mut Chain, method: &str, params: &Params<'_>) -> Answer {
    match method {
        "eth_getLogs" => json(&logs(chain, &params.required(0, "filter")?)?),
        "eth_newFilter" => quantity(chain.filters.add_logs(params.required(0, "filter")?)),
        "eth_newBlockFilter" => quantity(chain.filters.add_blocks()),
        "eth_newPendingTransactionFilter" => quantity(chain.filters.add_transactions()),
        "eth_getFilterChanges" => {
            json(&chain.filters.poll(params.number(0, "filter")?).ok_or(RpcError::UnknownFilter)?)
        }
        "eth_getFilterLogs" => {
            let filter = chain.filters.log_filter(params.number(0, "filter")?).ok_or(RpcError::UnknownFilter)?;
            json(&logs(chain, filter)?)
        }
        "eth_uninstallFilter" => {
            let id = params.number(0, "filter")?;
            json(&chain.filters.remove(id))
        }
        _ => Ok(None),
    }
}

fn logs(chain: &Chain, filter: &Filter) -> Result<Vec<Log>, RpcError> {
    let blocks = in_range(chain, filter)?;
    let candidates = blocks.iter().filter(|block| block.may_match(filter)).flat_map(|block| block.logs(false));
    Ok(candidates.filter(|log| filter.matches(&log.inner)).collect())
}

fn in_range<'a>(chain: &'a Chain, filter: &Filter) -> Result<&'a [Block], RpcError> {
    let (from, to) = match filter.block_option {
        // A block that was replaced is an error, not a block without logs.
        FilterBlockOption::AtBlockHash(hash) => {
            let block = chain.block_by_hash(&hash).ok_or_else(|| RpcError::UnknownBlock(hash.into()))?;
            (block.number(), block.number())
        }
        FilterBlockOption::Range { from_block, to_block } => {
            let bound = |tag: Option<_>| tag.map_or(chain.height(), |tag| number(chain, tag));
            (bound(from_block), bound(to_block))
        }
    };
    if from > to && to < chain.height() {
        return Err(RpcError::BlockRange { from, to });
    }
    let index = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
    let end = index(to).saturating_add(1).min(chain.blocks.len());
    // From a block above the head there is nothing yet.
    Ok(chain.blocks.get(index(from)..end).unwrap_or_default())
}
