//! JSON-RPC methods. A method that is not here is an error, and so is a parameter that cannot be honoured: nothing is
//! answered from another block, another sender or another time than was asked for.

mod development;
mod fees;
mod logs;
mod params;
mod read;

use alloy::primitives::{Bytes, U64, U256, keccak256};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use self::params::Params;
use super::{chain::Chain, error::RpcError};

/// What `web3_clientVersion` says.
const CLIENT_VERSION: &str = concat!("hallmark-devnet/", env!("CARGO_PKG_VERSION"));

/// An answer, or nothing when the method is another group's.
type Answer = Result<Option<Box<RawValue>>, RpcError>;

/// Answers one request.
pub(super) fn answer(chain: &mut Chain, method: &str, params: Option<&RawValue>) -> Result<Box<RawValue>, RpcError> {
    let params = Params::parse(method, params)?;
    // A transaction brings its own block.
    if method.starts_with("eth_") && method != "eth_sendRawTransaction" {
        chain.keep_fresh();
    }
    let groups = [node, read::answer, logs::answer, fees::answer, development::answer];
    for group in groups {
        if let Some(answer) = group(chain, method, &params)? {
            return Ok(answer);
        }
    }
    Err(RpcError::UnknownMethod(method.to_owned()))
}

fn json(value: &impl Serialize) -> Answer {
    to_raw_value(value).map(Some).map_err(RpcError::Encode)
}

fn quantity(value: u64) -> Answer {
    json(&U64::from(value))
}

/// Facts about the node, and sending.
fn node(chain: &mut Chain, method: &str, params: &Params<'_>) -> Answer {
    match method {
        "eth_chainId" => quantity(chain.config.chain_id),
        "net_version" => json(&chain.config.chain_id.to_string()),
        "net_listening" => json(&true),
        "web3_clientVersion" => json(&CLIENT_VERSION),
        "web3_sha3" => json(&keccak256(params.required::<Bytes>(0, "data")?)),
        "eth_syncing" => json(&false),
        // Keys stay with their owners: the chain takes signed transactions only.
        "eth_accounts" => json(&[(); 0]),
        "eth_blockNumber" => quantity(chain.height()),
        "eth_gasPrice" => json(&U256::from(chain.base_fee.saturating_add(fees::SUGGESTED_TIP_WEI))),
        "eth_sendRawTransaction" => json(&chain.send(&params.required::<Bytes>(0, "transaction")?)?),
        _ => Ok(None),
    }
}
