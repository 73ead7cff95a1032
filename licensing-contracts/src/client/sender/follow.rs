//! From a journalled transaction to its receipt.

use alloy::{
    consensus::Transaction as _,
    eips::BlockNumberOrTag,
    network::TransactionResponse as _,
    primitives::B256,
    providers::{Provider, utils::Eip1559Estimation},
    rpc::types::{Transaction, TransactionReceipt},
};
use tokio::time::Instant;

use super::{Open, Sender};
use crate::client::{ChainError, rpc};

/// Blocks before a transaction was signed that are searched for what took its nonce, times the looks at which nothing was
/// found: the chain may have been reorganised, or the node was behind when it told the nonce.
const MARGIN_BLOCKS: u64 = 64;

/// What is known of a transaction that is not mined.
#[derive(Debug, Default)]
struct Waiting {
    /// Why the node did not take the newest version.
    refusal: Option<String>,
    /// Looks at which the nonce was used and no version had a receipt.
    unseen: u32,
}

impl Sender {
    /// Sends a journalled transaction, as often as it takes, and waits until one version is mined. That something else took its
    /// nonce is noted; what was mined is for the caller to note.
    pub(super) async fn follow(&mut self, mut open: Open) -> Result<TransactionReceipt, ChainError> {
        let began = Instant::now();
        let mut offered = began;
        let mut waiting = Waiting { refusal: self.broadcast(&open).await?, unseen: 0 };
        loop {
            // First the nonce, then the receipts, so that a version that is mined in between is seen.
            let is_used = self.is_used(open.nonce).await?;
            if let Some(receipt) = self.mined(&open).await? {
                return Ok(receipt);
            }
            waiting.unseen = if is_used { waiting.unseen.saturating_add(1) } else { 0 };
            // A search takes many requests, and most often the receipt is a moment late.
            if waiting.unseen.is_power_of_two()
                && let Some(by) = self.displaced_by(&open, waiting.unseen).await?
            {
                self.journal.closed(open.nonce, None)?;
                return Err(ChainError::Displaced { what: open.what, account: self.account(), nonce: open.nonce, by });
            }
            if began.elapsed() >= self.settings.give_up_after {
                return Err(self.given_up(open, waiting, began));
            }
            if !is_used && offered.elapsed() >= self.settings.replace_after {
                self.raise(&mut open).await?;
                waiting.refusal = self.broadcast(&open).await?;
                offered = Instant::now();
            }
            tokio::time::sleep(self.settings.poll).await;
        }
    }

    fn given_up(&self, open: Open, waiting: Waiting, began: Instant) -> ChainError {
        if waiting.unseen > 0 {
            return ChainError::Unseen { what: open.what, account: self.account(), nonce: open.nonce };
        }
        let transaction = open.versions.last().map(|version| version.hash).unwrap_or_default();
        let waited_s = began.elapsed().as_secs();
        ChainError::NotMined { what: open.what, transaction, waited_s, refusal: waiting.refusal }
    }

    /// Offers the newest version to the network. That it is known already, or mined, is no failure: the receipts tell. Returns
    /// why the node did not take it.
    async fn broadcast(&self, open: &Open) -> Result<Option<String>, ChainError> {
        let Some(newest) = open.versions.last() else { return Ok(None) };
        match self.chain.provider().send_raw_transaction(&newest.raw).await {
            Ok(_) => Ok(None),
            Err(error) => match error.as_error_resp() {
                Some(payload) => {
                    tracing::debug!(transaction = %newest.hash, "the node did not take the transaction: {payload}");
                    Ok(Some(payload.message.to_string()).filter(|message| !message.contains("already known")))
                }
                None => Err(ChainError::Rpc { attempted: format!("send {}", open.what), source: error }),
            },
        }
    }

    /// The receipt of whichever version is mined and confirmed, on the chain as it is now.
    async fn mined(&self, open: &Open) -> Result<Option<TransactionReceipt>, ChainError> {
        let provider = self.chain.provider();
        for version in open.versions.iter().rev() {
            let receipt = provider.get_transaction_receipt(version.hash).await.map_err(rpc("read a receipt"))?;
            let Some(receipt) = receipt else { continue };
            let Some(number) = receipt.block_number else { continue };
            if self.is_confirmed(number).await? {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    async fn is_confirmed(&self, block: u64) -> Result<bool, ChainError> {
        let head = self.chain.provider().get_block_number().await.map_err(rpc("read the block number"))?;
        Ok(head.saturating_sub(block).saturating_add(1) >= self.settings.confirmations)
    }

    async fn is_used(&self, nonce: u64) -> Result<bool, ChainError> {
        let provider = self.chain.provider();
        let next = provider.get_transaction_count(self.account()).await.map_err(rpc("read the nonce"))?;
        Ok(next > nonce)
    }

    /// The other transaction that took the nonce, found on the chain and confirmed. That a node knows no receipt proves
    /// nothing: it may be behind, or not have indexed it yet.
    async fn displaced_by(&self, open: &Open, looks: u32) -> Result<Option<B256>, ChainError> {
        let Some(found) = self.transaction_with(open, looks).await? else { return Ok(None) };
        let hash = found.tx_hash();
        let Some(block) = found.block_number else { return Ok(None) };
        let is_ours = open.versions.iter().any(|version| version.hash == hash);
        Ok((!is_ours && self.is_confirmed(block).await?).then_some(hash))
    }

    /// The mined transaction of the account that has the nonce, if the node shows it.
    async fn transaction_with(&self, open: &Open, looks: u32) -> Result<Option<Transaction>, ChainError> {
        let (provider, account) = (self.chain.provider(), self.account());
        match provider.get_transaction_by_sender_nonce(account, open.nonce).await {
            Ok(Some(found)) if found.block_number.is_some() => return Ok(Some(found)),
            Ok(_) => {}
            // Many nodes do not have this method.
            Err(error) if error.is_error_resp() => {}
            Err(error) => return Err(rpc("look a nonce up")(error)),
        }
        let head = provider.get_block_number().await.map_err(rpc("read the block number"))?;
        let first = open.block.saturating_sub(MARGIN_BLOCKS.saturating_mul(looks.into()));
        for number in (first..=head).rev() {
            let block = provider.get_block_by_number(BlockNumberOrTag::Number(number)).full().await;
            let Some(block) = block.map_err(rpc("read a block"))? else { continue };
            let mut transactions = block.transactions.into_transactions();
            let found = transactions.find(|found| found.from() == account && found.nonce() == open.nonce);
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Signs the same transaction at a higher fee, if the policy allows one.
    async fn raise(&mut self, open: &mut Open) -> Result<(), ChainError> {
        let Some(newest) = open.versions.last() else { return Ok(()) };
        let last = Eip1559Estimation { max_fee_per_gas: newest.max_fee, max_priority_fee_per_gas: newest.tip };
        let now = match self.settings.fees.offer(&self.chain).await {
            Ok(now) => now,
            // At the limit of the policy the old offer stands.
            Err(ChainError::FeeTooHigh { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let Ok(fees) = self.settings.fees.raise(last, now) else { return Ok(()) };
        if let Some(version) = self.dearer(newest, fees)? {
            self.journal.signed(open, &version)?;
            open.versions.push(version);
        }
        Ok(())
    }
}
