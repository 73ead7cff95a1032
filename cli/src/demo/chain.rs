//! The demo's chain, and what people do on it.

use std::collections::BTreeMap;

use alloy::{
    primitives::{Address, B256, U256},
    providers::Provider as _,
    rpc::types::TransactionReceipt,
};
use anyhow::Context as _;
use licensing_contracts::{
    actions,
    client::{Action, ChainClient, ChainError, Sender, TransactionJournal},
    deploy::ProtocolSetup,
    deployment::Deployment,
    devchain::Config,
    devnet::{DevAccount, Devnet, sender_settings, signer},
    eigenlayer::core::CoreBytecode,
};
use protocol::units::{Amount, UnixSeconds};
use serde_json::Value;

pub(super) use licensing_contracts::devnet::{CONTRIBUTOR, CREATOR, HOST, LEASE_KEY, PAYER, SESSION_KEY};

use super::folder::Folder;
use crate::commands::chain::Token;

/// Where the contracts' addresses and the chain's last state are kept: `hallmark devnet` goes on with them.
pub(super) const DEPLOYMENT: &str = "deployment.json";
pub(super) const STATE: &str = "chain.json";

/// The delays of the demo's contracts.
pub(super) const SETUP: ProtocolSetup = ProtocolSetup::development();

/// A development chain with everything on it, and a sender for each account that acted.
pub(crate) struct Chain {
    devnet: Devnet,
    senders: BTreeMap<Address, Sender>,
    journals: tempfile::TempDir,
    pub(super) token: Token,
    pub(super) transactions: u64,
    pub(super) gas: u64,
}

impl Chain {
    /// Deploys everything. Blocks' randomness follows from `seed`.
    pub(super) async fn start(core: &CoreBytecode, seed: B256) -> anyhow::Result<Self> {
        let devnet = Devnet::start(Config { seed: Some(seed), ..Config::default() }, core, &SETUP).await?;
        let token = Token::find(&devnet.client(), devnet.deployment(), None).await?;
        let journals = tempfile::tempdir().context("failed to make a temporary folder")?;
        Ok(Self { devnet, senders: BTreeMap::new(), journals, token, transactions: 0, gas: 0 })
    }

    pub(super) fn deployment(&self) -> &Deployment {
        self.devnet.deployment()
    }

    pub(super) fn client(&self) -> ChainClient {
        self.devnet.client()
    }

    pub(crate) fn devnet(&self) -> &Devnet {
        &self.devnet
    }

    fn sender(&mut self, account: &DevAccount) -> anyhow::Result<&mut Sender> {
        let client = self.devnet.client();
        match self.senders.entry(account.address) {
            std::collections::btree_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::btree_map::Entry::Vacant(new) => {
                let journal = TransactionJournal::open(self.journals.path(), client.chain_id(), account.address)?;
                Ok(new.insert(Sender::new(client, signer(account), journal, sender_settings())))
            }
        }
    }

    /// Does one action as an account.
    pub(super) async fn send(&mut self, account: &DevAccount, action: &Action) -> anyhow::Result<TransactionReceipt> {
        let receipt = self.sender(account)?.send(action).await?;
        self.transactions += 1;
        self.gas += receipt.gas_used;
        Ok(receipt)
    }

    /// Tries an action that the contracts must refuse, and returns the name of the error.
    pub(super) async fn refused(&mut self, account: &DevAccount, action: &Action) -> anyhow::Result<String> {
        match self.sender(account)?.simulate(action).await {
            Err(ChainError::Reverted { revert, .. }) => Ok(revert.name.clone()),
            Err(error) => Err(error.into()),
            Ok(_) => anyhow::bail!("{} was not refused", action.what),
        }
    }

    /// Lets a contract take an amount of an account's tokens.
    pub(super) async fn allow(&mut self, account: &DevAccount, spender: Address, amount: Amount) -> anyhow::Result<()> {
        for action in actions::allow(&self.client(), self.token.address, account.address, spender, amount).await? {
            self.send(account, &action).await?;
        }
        Ok(())
    }

    /// The time of the newest block.
    pub(super) async fn now(&self) -> anyhow::Result<UnixSeconds> {
        Ok(UnixSeconds::new(self.client().head().await?.timestamp_s))
    }

    /// Mines empty blocks until the newest one is beyond `block`.
    pub(super) async fn mine_beyond(&self, block: u64) -> anyhow::Result<()> {
        while self.client().head().await?.number <= block {
            self.develop("evm_mine", ()).await?;
        }
        Ok(())
    }

    /// Moves the chain's clock.
    pub(super) async fn wait_s(&self, seconds: u64) -> anyhow::Result<()> {
        self.develop("evm_increaseTime", (U256::from(seconds),)).await?;
        self.develop("evm_mine", ()).await
    }

    async fn develop<P: alloy::rpc::json_rpc::RpcSend + 'static>(
        &self,
        method: &'static str,
        parameters: P,
    ) -> anyhow::Result<()> {
        let _: Value = self.client().provider().raw_request(method.into(), parameters).await.context(method)?;
        Ok(())
    }

    /// Keeps the chain for `hallmark devnet --state`.
    pub(super) fn save(&self, folder: &Folder) -> anyhow::Result<()> {
        self.devnet.deployment().write(&folder.join(DEPLOYMENT))?;
        Ok(self.devnet.chain().save(&folder.join(STATE))?)
    }
}
