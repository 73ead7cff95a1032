//! One command for each thing that people do on the chain, and what these commands share.
//!
//! Every action is simulated before it is sent, is in a journal before it leaves, and is told with its hash and what it cost.

pub(crate) mod claim;
pub(crate) mod commit_fingerprints;
pub(crate) mod deposit;
pub(crate) mod grant;
pub(crate) mod lease;
pub(crate) mod operator;
pub(crate) mod pay_out;
pub(crate) mod publish_manifest;
pub(crate) mod register;
pub(crate) mod report;
pub(crate) mod status;
pub(crate) mod terms;
pub(crate) mod withdraw;

use std::{path::PathBuf, time::Duration};

use alloy::{
    primitives::{Address, B256, U256, utils::parse_units},
    rpc::types::TransactionReceipt,
};
use anyhow::Context as _;
use clap::{Args, builder::FalseyValueParser};
use licensing_contracts::{
    actions::{self, Erc20},
    client::{Action, ChainClient, ChainError, FeePolicy, RpcSettings, Sender, SenderSettings, TransactionJournal},
    deployment::Deployment,
};
use protocol::{
    signature::Signature,
    units::{Amount, Seconds},
};
use serde_json::{Value, json};
use url::Url;

use crate::{context::Context, failure::Advise as _, folders, output, progress, secrets};

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

/// An account on a chain, and what it did so far in this command.
#[derive(Debug)]
pub(crate) struct Session {
    sender: Sender,
    pub(crate) deployment: Deployment,
    dry_run: bool,
    done: Vec<Value>,
    words: String,
}

impl SendArguments {
    /// Blocks that must hold what counts, one at least.
    pub(crate) fn confirmations(&self) -> u64 {
        self.confirmations.max(1)
    }

    pub(crate) async fn open(&self) -> anyhow::Result<Session> {
        let signer = secrets::signer(self.keystore.as_deref())?;
        let (client, deployment) = self.chain.connect().await?;
        let folder = match &self.state {
            Some(folder) => folder.clone(),
            None => folders::state()?,
        };
        let journal = TransactionJournal::open(&folder, client.chain_id(), signer.address())?;
        let fees = FeePolicy { max_fee_per_gas: u128::from(self.max_fee) * 1_000_000_000, ..FeePolicy::default() };
        let settings = SenderSettings {
            fees,
            confirmations: self.confirmations(),
            poll: Duration::from_millis(200),
            ..SenderSettings::default()
        };
        let sender = Sender::new(client, signer, journal, settings);
        Ok(Session { sender, deployment, dry_run: self.dry_run, done: Vec::new(), words: String::new() })
    }
}

impl Session {
    pub(crate) fn account(&self) -> Address {
        self.sender.account()
    }

    pub(crate) fn client(&self) -> &ChainClient {
        self.sender.chain()
    }

    /// Signs a digest as the account.
    pub(crate) fn sign(&self, digest: B256) -> anyhow::Result<Signature> {
        let signature = self.sender.sign(digest).context("failed to sign")?;
        Ok(Signature::from_slice(&signature)?)
    }

    /// Does one action, or tries it out. `None` in a dry run.
    pub(crate) async fn act(&mut self, action: &Action) -> anyhow::Result<Option<TransactionReceipt>> {
        if self.dry_run {
            let simulation = self.sender.simulate(action).await?;
            self.note(
                &action.what,
                format!("would succeed, about {} gas", simulation.gas),
                json!({ "action": action.what, "gas": simulation.gas }),
            );
            return Ok(None);
        }
        progress::say(&format!("{} …", action.what));
        let receipt = self.sender.send(action).await?;
        let fee = U256::from(receipt.gas_used) * U256::from(receipt.effective_gas_price);
        let block = receipt.block_number.unwrap_or_default();
        let words =
            format!("block {block}, {} gas, {} coins, {}", receipt.gas_used, coins(fee), receipt.transaction_hash);
        let object = json!({
            "action": action.what,
            "transaction": receipt.transaction_hash,
            "block": block,
            "gas": receipt.gas_used,
            "fee_wei": fee.to_string(),
        });
        self.note(&action.what, words, object);
        Ok(Some(receipt))
    }

    /// Lets a contract take an amount of a token, if it may not yet.
    pub(crate) async fn allow(&mut self, token: Address, spender: Address, amount: Amount) -> anyhow::Result<()> {
        for action in actions::allow(self.client(), token, self.account(), spender, amount).await? {
            self.act(&action).await?;
        }
        Ok(())
    }

    fn note(&mut self, what: &str, words: String, object: Value) {
        self.words.push_str(&output::rows(&[(what, words)]));
        self.done.push(object);
    }

    /// Prints what was done, and what came of it.
    pub(crate) fn finish(self, context: &Context, rows: &[(&str, String)], mut object: Value) -> anyhow::Result<()> {
        let words = format!("{}{}", self.words, output::rows(rows));
        if let Some(fields) = object.as_object_mut() {
            fields.insert("dry_run".to_owned(), self.dry_run.into());
            fields.insert("transactions".to_owned(), self.done.into());
        }
        context.output.finish(&words, &object)
    }
}

/// A token that amounts are in.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) address: Address,
    decimals: u8,
    symbol: String,
}

impl Token {
    /// The token that is named, or the deployment's test token.
    pub(crate) async fn find(
        client: &ChainClient,
        deployment: &Deployment,
        named: Option<Address>,
    ) -> anyhow::Result<Self> {
        let address =
            named.or(deployment.test_token).context("no token is named").advise("name one with --payment-token")?;
        let decimals = match client.call(address, &Erc20::decimalsCall {}).await {
            Err(error @ ChainError::Rpc { .. }) => return Err(error.into()),
            answer => answer.with_context(|| format!("{address} is no token with decimals on this chain"))?,
        };
        let symbol = match client.call(address, &Erc20::symbolCall {}).await {
            Err(error @ ChainError::Rpc { .. }) => return Err(error.into()),
            // Tokens are old enough to have none, or to write it in another way.
            answer => answer.unwrap_or_else(|_| format!("of token {address}")),
        };
        Ok(Self { address, decimals, symbol })
    }

    /// A decimal number of tokens in the smallest unit.
    pub(crate) fn amount(&self, text: &str) -> anyhow::Result<Amount> {
        let wrong = || format!("{text:?} is not an amount of {} with at most {} decimals", self.symbol, self.decimals);
        let units = Some(text).filter(|text| is_decimal(text, self.decimals));
        let units = units.and_then(|text| parse_units(text, self.decimals).ok()).with_context(wrong)?;
        u128::try_from(units.get_absolute()).map(Amount::new).ok().with_context(wrong)
    }

    /// An amount as a person writes it.
    pub(crate) fn show(&self, amount: Amount) -> String {
        let text = alloy::primitives::utils::format_units(U256::from(amount.get()), self.decimals);
        format!("{} {}", trimmed(&text.unwrap_or_else(|_| amount.to_string())), self.symbol)
    }
}

/// Digits, or digits on both sides of a point with no more behind it than a token has: nothing is to be cut off.
fn is_decimal(text: &str, decimals: u8) -> bool {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && part.len() <= usize::from(decimals),
        None => digits(text),
    }
}

fn coins(wei: U256) -> String {
    trimmed(&alloy::primitives::utils::format_ether(wei)).to_owned()
}

fn trimmed(decimal: &str) -> &str {
    match decimal.contains('.') {
        true => decimal.trim_end_matches('0').trim_end_matches('.'),
        false => decimal,
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

    #[test]
    fn amounts_are_never_cut() {
        let token = Token { address: Address::ZERO, decimals: 6, symbol: "TEST".to_owned() };
        let units = |text| token.amount(text).map(Amount::get).ok();
        assert_eq!([units("1"), units("0.000001"), units("12.5")], [Some(1_000_000), Some(1), Some(12_500_000)]);
        let largest = "340282366920938463463374607431768.211455";
        assert_eq!([units("0"), units(largest)], [Some(0), Some(u128::MAX)]);
        for wrong in [
            "",
            ".",
            "1.",
            ".5",
            "-1",
            "+1",
            "1e3",
            "1_000",
            " 1",
            "0.0000001",
            "1.00000€",
            "٣",
            "340282366920938463463374607431768.211456",
        ] {
            assert_eq!(units(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn decimals_end_where_they_say_nothing() {
        assert_eq!([trimmed("1.500"), trimmed("10.0"), trimmed("100")], ["1.5", "10", "100"]);
    }
}
