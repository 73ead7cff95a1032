//! Transactions that were sent and are in no block yet.

use std::{cmp::Reverse, collections::BTreeMap};

use alloy::{
    consensus::{Transaction as _, TxEnvelope, transaction::Recovered},
    primitives::{Address, B256, map::B256Map},
};

/// Most transactions that wait at the same time.
pub(super) const CAPACITY: usize = 16_384;

/// A replacement must raise both fees by this much, as in go-ethereum.
const REPLACEMENT_PERCENT: u128 = 10;

/// Why a transaction is not taken. The words are those of go-ethereum where clients look for them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// It waits, or is mined.
    #[error("already known")]
    AlreadyKnown,
    /// The account has used the nonce.
    #[error("nonce too low: next nonce {next}, tx nonce {found}")]
    NonceTooLow {
        /// What the account's next transaction must have.
        next: u64,
        /// What the transaction has.
        found: u64,
    },
    /// Another transaction with the nonce waits, and the fees are not 10 % above its fees.
    #[error("replacement transaction underpriced: both fees must rise by {REPLACEMENT_PERCENT} % at least")]
    Underpriced,
    /// Too many wait.
    #[error("txpool is full: {CAPACITY} transactions wait")]
    Full,
}

#[derive(Clone, Debug)]
struct Waiting {
    transaction: Recovered<TxEnvelope>,
    /// Earlier arrivals go first at the same tip.
    arrival: u64,
}

/// Sent transactions by sender and nonce. Nonces may be ahead of the account's.
#[derive(Clone, Debug, Default)]
pub(super) struct Pool {
    by_sender: BTreeMap<Address, BTreeMap<u64, Waiting>>,
    by_hash: B256Map<(Address, u64)>,
    arrivals: u64,
}

impl Pool {
    pub(super) fn len(&self) -> usize {
        self.by_hash.len()
    }

    pub(super) fn get(&self, hash: &B256) -> Option<&Recovered<TxEnvelope>> {
        let (sender, nonce) = self.by_hash.get(hash)?;
        self.at(*sender, *nonce)
    }

    pub(super) fn at(&self, sender: Address, nonce: u64) -> Option<&Recovered<TxEnvelope>> {
        Some(&self.by_sender.get(&sender)?.get(&nonce)?.transaction)
    }

    /// Takes the transaction of an account whose next nonce is `next`, and returns what it replaces.
    pub(super) fn insert(
        &mut self,
        transaction: Recovered<TxEnvelope>,
        next: u64,
    ) -> Result<Option<Recovered<TxEnvelope>>, PoolError> {
        let (hash, sender, nonce) = (*transaction.tx_hash(), transaction.signer(), transaction.nonce());
        if self.by_hash.contains_key(&hash) {
            return Err(PoolError::AlreadyKnown);
        }
        if nonce < next {
            return Err(PoolError::NonceTooLow { next, found: nonce });
        }
        match self.at(sender, nonce) {
            Some(before) if !outbids(&transaction, before) => return Err(PoolError::Underpriced),
            None if self.len() >= CAPACITY => return Err(PoolError::Full),
            _ => {}
        }
        self.arrivals = self.arrivals.saturating_add(1);
        let waiting = Waiting { transaction, arrival: self.arrivals };
        let before = self.by_sender.entry(sender).or_default().insert(nonce, waiting);
        if let Some(before) = &before {
            self.by_hash.remove(before.transaction.tx_hash());
        }
        self.by_hash.insert(hash, (sender, nonce));
        Ok(before.map(|before| before.transaction))
    }

    pub(super) fn remove(&mut self, hash: &B256) -> Option<Recovered<TxEnvelope>> {
        let (sender, nonce) = self.by_hash.remove(hash)?;
        let nonces = self.by_sender.get_mut(&sender)?;
        let waiting = nonces.remove(&nonce);
        if nonces.is_empty() {
            self.by_sender.remove(&sender);
        }
        waiting.map(|waiting| waiting.transaction)
    }

    /// Forgets what the account can no longer send because its next nonce is `next`.
    pub(super) fn remove_stale(&mut self, sender: Address, next: u64) {
        let Some(nonces) = self.by_sender.get_mut(&sender) else { return };
        let kept = nonces.split_off(&next);
        let stale = std::mem::replace(nonces, kept);
        if nonces.is_empty() {
            self.by_sender.remove(&sender);
        }
        for waiting in stale.values() {
            self.by_hash.remove(waiting.transaction.tx_hash());
        }
    }

    /// The transaction that goes next: it pays at least the base fee, its nonce is its account's next, it fits into
    /// `gas` and nothing of the kind has a higher tip.
    pub(super) fn best(
        &self,
        base_fee: u64,
        gas: u64,
        next_nonce: impl Fn(Address) -> u64,
    ) -> Option<&Recovered<TxEnvelope>> {
        let mut best: Option<(u128, Reverse<u64>, &Waiting)> = None;
        for (sender, nonces) in &self.by_sender {
            let Some(waiting) = nonces.get(&next_nonce(*sender)) else { continue };
            let Some(tip) = waiting.transaction.effective_tip_per_gas(base_fee) else { continue };
            let rank = (tip, Reverse(waiting.arrival));
            let fits = waiting.transaction.gas_limit() <= gas;
            if fits && best.is_none_or(|(tip, arrival, _)| rank > (tip, arrival)) {
                best = Some((rank.0, rank.1, waiting));
            }
        }
        best.map(|(_, _, waiting)| &waiting.transaction)
    }

    pub(super) fn senders(&self) -> Vec<Address> {
        self.by_sender.keys().copied().collect()
    }

    /// The nonce after the waiting transactions that follow on `next` without a gap.
    pub(super) fn nonce_after(&self, sender: Address, next: u64) -> u64 {
        let Some(nonces) = self.by_sender.get(&sender) else { return next };
        let in_a_row = nonces.range(next..).zip(next..).take_while(|((nonce, _), expected)| *nonce == expected);
        in_a_row.last().map_or(next, |((nonce, _), _)| nonce.saturating_add(1))
    }

    /// Everything that waits, in the order of arrival.
    pub(super) fn all(&self) -> Vec<&Recovered<TxEnvelope>> {
        let mut waiting: Vec<&Waiting> = self.by_sender.values().flat_map(BTreeMap::values).collect();
        waiting.sort_by_key(|waiting| waiting.arrival);
        waiting.into_iter().map(|waiting| &waiting.transaction).collect()
    }
}

fn outbids(new: &TxEnvelope, old: &TxEnvelope) -> bool {
    let raised = |fee: u128| fee.saturating_add(fee.saturating_mul(REPLACEMENT_PERCENT).div_ceil(100));
    let tip = |transaction: &TxEnvelope| {
        transaction.max_priority_fee_per_gas().unwrap_or_else(|| transaction.max_fee_per_gas())
    };
    new.max_fee_per_gas() >= raised(old.max_fee_per_gas()) && tip(new) >= raised(tip(old))
}
