//! Sealed blocks, and how JSON-RPC shows them.

use alloy::{
    consensus::{
        EMPTY_ROOT_HASH, Header, Receipt, ReceiptEnvelope, ReceiptWithBloom, Sealable as _, Sealed, Transaction as _,
        TxEnvelope, TxReceipt as _, TxType, Typed2718 as _, constants::EMPTY_OMMER_ROOT_HASH, proofs,
        transaction::Recovered,
    },
    eips::{eip4895::Withdrawals, eip7685::EMPTY_REQUESTS_HASH},
    primitives::{Address, B256, Bloom, Log as ConsensusLog, U256},
    rpc::types::{self, BlockTransactions, Log, TransactionReceipt},
};
use revm::context::BlockEnv;

use super::world::UndoPosition;

/// A transaction with what it did.
#[derive(Debug)]
pub(super) struct Mined {
    pub(super) transaction: Recovered<TxEnvelope>,
    pub(super) receipt: Receipt,
    /// Gas of this transaction alone; the receipt has the block's sum so far.
    pub(super) gas_used: u64,
    /// Address of the contract that it created.
    pub(super) created: Option<Address>,
}

#[derive(Debug)]
pub(super) struct Block {
    header: Sealed<Header>,
    pub(super) transactions: Vec<Mined>,
    /// Where the undo log stood when the block was sealed.
    pub(super) undo: UndoPosition,
}

impl Block {
    /// Seals the block that was executed in `environment`.
    pub(super) fn seal(
        environment: &BlockEnv,
        parent: Option<&Self>,
        transactions: Vec<Mined>,
        undo: UndoPosition,
    ) -> Self {
        let envelopes: Vec<&TxEnvelope> = transactions.iter().map(|mined| mined.transaction.inner()).collect();
        let receipts: Vec<ReceiptEnvelope> = transactions.iter().map(Mined::envelope).collect();
        let logs_bloom = receipts.iter().fold(Bloom::ZERO, |sum, receipt| sum | receipt.bloom());
        let header = Header {
            parent_hash: parent.map(Self::hash).unwrap_or_default(),
            ommers_hash: EMPTY_OMMER_ROOT_HASH,
            beneficiary: environment.beneficiary,
            // No state trie is kept. Zero is the hash of nothing, so nobody can mistake it for a root.
            state_root: B256::ZERO,
            transactions_root: proofs::calculate_transaction_root(&envelopes),
            receipts_root: proofs::calculate_receipt_root(&receipts),
            withdrawals_root: Some(EMPTY_ROOT_HASH),
            logs_bloom,
            number: environment.number.saturating_to(),
            gas_limit: environment.gas_limit,
            gas_used: receipts.last().map(|receipt| receipt.cumulative_gas_used()).unwrap_or_default(),
            timestamp: environment.timestamp.saturating_to(),
            mix_hash: environment.prevrandao.unwrap_or_default(),
            base_fee_per_gas: Some(environment.basefee),
            blob_gas_used: Some(0),
            excess_blob_gas: Some(0),
            parent_beacon_block_root: Some(B256::ZERO),
            requests_hash: Some(EMPTY_REQUESTS_HASH),
            ..Header::default()
        };
        Self { header: header.seal_slow(), transactions, undo }
    }

    /// A block that was sealed earlier and read from a file; its hash is computed again.
    pub(super) fn restore(header: Header, transactions: Vec<Mined>, undo: UndoPosition) -> Self {
        Self { header: header.seal_slow(), transactions, undo }
    }

    pub(super) fn header(&self) -> &Header {
        self.header.inner()
    }

    pub(super) fn hash(&self) -> B256 {
        self.header.seal()
    }

    pub(super) fn number(&self) -> u64 {
        self.header.number
    }

    pub(super) fn base_fee(&self) -> u64 {
        self.header.base_fee_per_gas.unwrap_or_default()
    }

    /// As `eth_getBlockBy…` answers.
    pub(super) fn to_rpc(&self, full: bool) -> types::Block {
        let transactions = if full {
            BlockTransactions::Full(self.transactions.iter().zip(0..).map(|(t, i)| t.to_rpc(self, i)).collect())
        } else {
            BlockTransactions::Hashes(self.transactions.iter().map(Mined::hash).collect())
        };
        let header = types::Header::from_consensus(self.header.clone(), None, None);
        types::Block { header, uncles: Vec::new(), transactions, withdrawals: Some(Withdrawals::default()) }
    }

    pub(super) fn transaction(&self, index: usize) -> Option<types::Transaction> {
        let mined = self.transactions.get(index)?;
        Some(mined.to_rpc(self, u64::try_from(index).ok()?))
    }

    pub(super) fn receipts(&self) -> Vec<TransactionReceipt> {
        let mut first_log = 0;
        let mut receipts = Vec::with_capacity(self.transactions.len());
        for (mined, index) in self.transactions.iter().zip(0..) {
            receipts.push(mined.receipt_to_rpc(self, index, first_log));
            first_log += mined.receipt.logs.len();
        }
        receipts
    }

    /// Every log of the block, marked as `removed` when the block no longer belongs to the chain.
    pub(super) fn logs(&self, removed: bool) -> impl Iterator<Item = Log> + '_ {
        let receipts = self.receipts().into_iter();
        receipts.flat_map(|receipt| receipt.inner.logs().to_vec()).map(move |log| Log { removed, ..log })
    }

    /// Whether the block can hold a log that `filter` matches; a cheap no.
    pub(super) fn may_match(&self, filter: &types::Filter) -> bool {
        !self.header.logs_bloom.is_zero() && filter.matches_bloom(self.header.logs_bloom)
    }
}

impl Mined {
    pub(super) fn hash(&self) -> B256 {
        *self.transaction.tx_hash()
    }

    /// What the receipts root is made of.
    pub(super) fn envelope(&self) -> ReceiptEnvelope {
        typed(self.transaction.inner(), self.receipt.clone().with_bloom())
    }

    fn to_rpc(&self, block: &Block, index: u64) -> types::Transaction {
        types::Transaction {
            inner: self.transaction.clone(),
            block_hash: Some(block.hash()),
            block_number: Some(block.number()),
            transaction_index: Some(index),
            effective_gas_price: Some(self.transaction.effective_gas_price(Some(block.base_fee()))),
            block_timestamp: Some(block.header.timestamp),
        }
    }

    fn receipt_to_rpc(&self, block: &Block, index: u64, first_log: usize) -> TransactionReceipt {
        let located = |(log, position): (&ConsensusLog, usize)| Log {
            inner: log.clone(),
            block_hash: Some(block.hash()),
            block_number: Some(block.number()),
            block_timestamp: Some(block.header.timestamp),
            transaction_hash: Some(self.hash()),
            transaction_index: Some(index),
            log_index: u64::try_from(position).ok(),
            removed: false,
        };
        let logs_bloom = self.receipt.bloom();
        let receipt = Receipt {
            status: self.receipt.status,
            cumulative_gas_used: self.receipt.cumulative_gas_used,
            logs: self.receipt.logs.iter().zip(first_log..).map(located).collect(),
        };
        TransactionReceipt {
            inner: typed(self.transaction.inner(), ReceiptWithBloom { receipt, logs_bloom }),
            transaction_hash: self.hash(),
            transaction_index: Some(index),
            block_hash: Some(block.hash()),
            block_number: Some(block.number()),
            gas_used: self.gas_used,
            effective_gas_price: self.transaction.effective_gas_price(Some(block.base_fee())),
            blob_gas_used: None,
            blob_gas_price: None,
            from: self.transaction.signer(),
            to: self.transaction.to(),
            contract_address: self.created,
        }
    }

    /// What the sender pays the block's beneficiary for each unit of gas, in wei.
    pub(super) fn tip(&self, base_fee: u64) -> u128 {
        self.transaction.effective_tip_per_gas(base_fee).unwrap_or_default()
    }
}

/// A transaction that is in no block yet.
pub(super) fn pending_to_rpc(transaction: &Recovered<TxEnvelope>) -> types::Transaction {
    types::Transaction {
        inner: transaction.clone(),
        block_hash: None,
        block_number: None,
        transaction_index: None,
        effective_gas_price: None,
        block_timestamp: None,
    }
}

fn typed<T>(transaction: &TxEnvelope, receipt: ReceiptWithBloom<Receipt<T>>) -> ReceiptEnvelope<T> {
    match TxType::try_from(transaction.ty()) {
        Ok(TxType::Eip2930) => ReceiptEnvelope::Eip2930(receipt),
        Ok(TxType::Eip1559) => ReceiptEnvelope::Eip1559(receipt),
        Ok(TxType::Eip4844) => ReceiptEnvelope::Eip4844(receipt),
        Ok(TxType::Eip7702) => ReceiptEnvelope::Eip7702(receipt),
        Ok(TxType::Legacy) | Err(_) => ReceiptEnvelope::Legacy(receipt),
    }
}

/// Header fields as a transaction of the same block would see them.
pub(super) fn environment(header: &Header) -> BlockEnv {
    BlockEnv {
        number: U256::from(header.number),
        beneficiary: header.beneficiary,
        timestamp: U256::from(header.timestamp),
        gas_limit: header.gas_limit,
        basefee: header.base_fee_per_gas.unwrap_or_default(),
        prevrandao: Some(header.mix_hash),
        ..BlockEnv::default()
    }
}
