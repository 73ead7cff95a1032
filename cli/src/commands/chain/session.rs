//! An account on a chain, for one command.

use alloy::{
    primitives::{Address, B256, U256, hex, keccak256},
    rpc::types::TransactionReceipt,
};
use anyhow::Context as _;
use licensing_contracts::{
    actions,
    client::{Action, ChainClient, ChainError, FeePolicy, Leftover, Sender, SenderSettings, TransactionJournal},
    deployment::Deployment,
};
use protocol::{signature::Signature, units::Amount};
use serde::Serialize;
use serde_json::{Value, json};

use super::{POLL, SendArguments, Token, token::coins_up};
use crate::{context::Context, folders, format, output, progress, secrets};

/// An account on a chain, and what it did so far in this command.
#[derive(Debug)]
pub(crate) struct Session {
    sender: Sender,
    pub(crate) deployment: Deployment,
    /// Digest of what was asked for. The same command, run again after it was cut off, goes on where it was.
    work: B256,
    dry_run: bool,
    /// The first action of a dry run: what builds on it cannot be tried.
    tried: Option<String>,
    done: Vec<Value>,
    rows: Vec<(String, String)>,
}

impl SendArguments {
    /// Blocks that must hold what counts, one at least.
    pub(crate) fn confirmations(&self) -> u64 {
        self.confirmations.max(1)
    }

    /// Opens the account's way to the chain for one command. `request` is everything that makes two runs of the command the
    /// same wish.
    pub(crate) async fn open(&self, command: &str, request: &impl Serialize) -> anyhow::Result<Session> {
        let signer = secrets::signer(self.keystore.as_deref())?;
        let (client, deployment) = self.chain.connect().await?;
        let folder = match &self.state {
            Some(folder) => folder.clone(),
            None => folders::state()?,
        };
        // Development chains with one number come and go, and what was on its way goes with them.
        let folder = folder.join(hex::encode(&client.genesis().await?[..8]));
        let journal = TransactionJournal::open(&folder, client.chain_id(), signer.address())?;
        let fees = FeePolicy { max_fee_per_gas: u128::from(self.max_fee) * 1_000_000_000, ..FeePolicy::default() };
        let confirmations = self.confirmations();
        let settings = SenderSettings { fees, confirmations, poll: POLL, ..SenderSettings::default() };
        let mut session = Session {
            sender: Sender::new(client, signer, journal, settings),
            deployment,
            work: keccak256(serde_json::to_vec(&(command, request))?),
            dry_run: self.dry_run,
            tried: None,
            done: Vec::new(),
            rows: Vec::new(),
        };
        if !self.dry_run {
            session.settle_others().await?;
        }
        Ok(session)
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

    /// Says what became of transactions of commands that were cut off.
    async fn settle_others(&mut self) -> anyhow::Result<()> {
        for Leftover { what, outcome } in self.sender.settle_others(self.work).await? {
            let told = match outcome {
                Ok(receipt) if receipt.status() => format!("was done in transaction {}", receipt.transaction_hash),
                Ok(receipt) => format!("was refused in transaction {}", receipt.transaction_hash),
                Err(error) => format!("was not done: {error}"),
            };
            progress::say(&format!("an earlier command was cut off; its {what} {told}"));
        }
        Ok(())
    }

    /// Does one action, or tries it out. `None` in a dry run.
    pub(crate) async fn act(&mut self, action: &Action) -> anyhow::Result<Option<TransactionReceipt>> {
        if self.dry_run {
            self.try_out(action).await?;
            return Ok(None);
        }
        match self.sender.is_under_way(self.work, action) {
            true => progress::say(&format!("{}, which an earlier run of this command sent …", action.what)),
            false => progress::say(&format!("{} …", action.what)),
        }
        let receipt = self.sender.send_in(self.work, action).await.inspect_err(|_| self.say_what_is_done())?;
        let fee = U256::from(receipt.gas_used) * U256::from(receipt.effective_gas_price);
        let block = receipt.block_number.unwrap_or_default();
        let gas = format::thousands(receipt.gas_used);
        let words = format!("block {block}, {gas} gas, {} coins, {}", coins_up(fee), receipt.transaction_hash);
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

    async fn try_out(&mut self, action: &Action) -> anyhow::Result<()> {
        let simulated = self.sender.simulate(action).await;
        let (words, gas) = match (&simulated, &self.tried) {
            (Ok(simulation), _) => {
                (format!("would succeed, about {} gas", format::thousands(simulation.gas)), Some(simulation.gas))
            }
            (Err(ChainError::Reverted { .. }), Some(first)) => (format!("cannot be tried before the {first}"), None),
            _ => return simulated.map(|_| ()).map_err(anyhow::Error::from),
        };
        self.note(&action.what, words, json!({ "action": action.what, "gas": gas }));
        self.tried.get_or_insert_with(|| action.what.clone());
        Ok(())
    }

    /// Does an action that takes an amount of a token from the account, which first lets `spender` take it.
    pub(crate) async fn pay(
        &mut self,
        token: &Token,
        spender: Address,
        amount: Amount,
        action: &Action,
    ) -> anyhow::Result<Option<TransactionReceipt>> {
        // One that is under way may have used its allowance up.
        if !self.sender.is_under_way(self.work, action) {
            for step in actions::allow(self.client(), token.address, self.account(), spender, amount).await? {
                self.act(&step).await?;
            }
        }
        self.act(action).await
    }

    fn note(&mut self, what: &str, words: String, object: Value) {
        self.rows.push((what.to_owned(), words));
        self.done.push(object);
    }

    /// A command that fails in the middle still did what it did.
    fn say_what_is_done(&self) {
        for (what, words) in &self.rows {
            progress::say(&format!("done: {what}, {words}"));
        }
    }

    /// Prints what was done, and what came of it.
    pub(crate) fn finish(
        mut self,
        context: &Context,
        rows: &[(&str, String)],
        mut object: Value,
    ) -> anyhow::Result<()> {
        let done = self.rows.iter().map(|(what, words)| (what.as_str(), words.clone()));
        let none = self.dry_run.then(|| ("dry run", "nothing was sent".to_owned()));
        let words = output::rows(&none.into_iter().chain(done).chain(rows.iter().cloned()).collect::<Vec<_>>());
        if let Some(fields) = object.as_object_mut() {
            fields.insert("dry_run".to_owned(), self.dry_run.into());
            fields.insert("transactions".to_owned(), self.done.into());
        }
        context.output.finish(&words, &object)?;
        // Told: from now on the same command is another wish.
        if !self.dry_run {
            self.sender.finish(self.work)?;
        }
        Ok(())
    }
}
