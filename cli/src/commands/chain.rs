//! One command for each thing that people do on the chain, and what these commands share.
//!
//! Every action is simulated before it is sent, is in a journal before it leaves, and is told with its hash and what it cost.

pub(crate) mod claim;
pub(crate) mod commit_fingerprints;
pub(crate) mod deposit;
mod files;
pub(crate) mod grant;
pub(crate) mod lease;
pub(crate) mod operator;
pub(crate) mod pay_out;
pub(crate) mod publish_manifest;
pub(crate) mod register;
pub(crate) mod report;
mod session;
pub(crate) mod status;
pub(crate) mod terms;
mod token;
pub(crate) mod usage;
pub(crate) mod withdraw;

use std::{path::PathBuf, time::Duration};

use clap::{Args, builder::FalseyValueParser};
use licensing_contracts::{
    client::{ChainClient, RpcSettings},
    deployment::Deployment,
};
use protocol::units::Seconds;
use url::Url;

pub(crate) use self::{session::Session, token::Token};
use crate::failure::Advise as _;

/// Between two looks whether a transaction is mined.
const POLL: Duration = Duration::from_millis(200);

/// Which chain, and where the contracts are.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Chain")]
pub(crate) struct ChainArguments {
    /// Address of a node's JSON-RPC; of several, separated by commas, the next is asked when one fails
    #[arg(
        long = "rpc",
        env = "HALLMARK_RPC",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ',',
        default_value = "http://127.0.0.1:8545"
    )]
    nodes: Vec<Url>,

    /// The file with the contracts' addresses
    #[arg(long, env = "HALLMARK_DEPLOYMENT", value_name = "FILE", default_value = "deployment.json")]
    deployment: PathBuf,
}

/// Who sends, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Account")]
pub(crate) struct SendArguments {
    #[command(flatten)]
    chain: ChainArguments,

    /// Encrypted keystore file of the account; its password is in HALLMARK_KEYSTORE_PASSWORD [default: the key in HALLMARK_PRIVATE_KEY]
    #[arg(long, env = "HALLMARK_KEYSTORE", value_name = "FILE")]
    keystore: Option<PathBuf>,

    /// Simulate, and send nothing
    #[arg(long, env = "HALLMARK_DRY_RUN", value_parser = FalseyValueParser::new())]
    dry_run: bool,

    /// Most gwei for a unit of gas
    #[arg(long, env = "HALLMARK_MAX_FEE", value_name = "GWEI", default_value_t = 500)]
    max_fee: u32,

    /// Blocks that must hold a transaction before it counts
    #[arg(long, env = "HALLMARK_CONFIRMATIONS", value_name = "BLOCKS", default_value_t = 1)]
    confirmations: u64,

    /// Folder of the journal of sent transactions [default: in the user's state folder]
    #[arg(long, env = "HALLMARK_STATE", value_name = "FOLDER")]
    state: Option<PathBuf>,
}

impl ChainArguments {
    /// The contracts, and a client of their chain.
    pub(crate) async fn connect(&self) -> anyhow::Result<(ChainClient, Deployment)> {
        let deployment = Deployment::read(&self.deployment)
            .advise("name the file that `hallmark devnet` wrote, or that of your chain, with --deployment")?;
        let client = ChainClient::connect(&self.nodes, Some(deployment.chain_id), &RpcSettings::default())
            .await
            .advise("start `hallmark devnet`, or name a node with --rpc")?;
        Ok((client, deployment))
    }
}

/// `90s`, `15m`, `12h`, `30d`.
pub(crate) fn duration(text: &str) -> Result<Seconds, String> {
    let wrong = || "give a whole number and a unit: 90s, 15m, 12h or 30d".to_owned();
    let (number, scale) = match text.char_indices().next_back() {
        Some((end, 's')) => (&text[..end], 1),
        Some((end, 'm')) => (&text[..end], 60),
        Some((end, 'h')) => (&text[..end], 3_600),
        Some((end, 'd')) => (&text[..end], 86_400),
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(scale).map(Seconds::new).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90s"), Ok(Seconds::new(90)));
        assert_eq!(duration("30d"), Ok(Seconds::new(30 * 86_400)));
        for wrong in ["", "d", "30", "1.5h", "-1s", "99999999999999999999d", "9999999999999999d"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
