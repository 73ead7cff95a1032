//! Sends transactions, each at most once.
//!
//! 1. What an earlier process left on its way is found again first; the same action again means that transaction.
//! 2. The action is simulated, so that a refusal costs nothing and has a name.
//! 3. It is signed and journalled, then sent: the journal is ahead of the network at every moment.
//! 4. While it is not mined it is offered again, dearer, under the same nonce.

mod follow;

use std::time::Duration;

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::{BlockId, Encodable2718},
    network::TxSignerSync,
    primitives::{Address, B256, TxKind, U256},
    providers::{Provider, utils::Eip1559Estimation},
    rpc::types::TransactionReceipt,
    signers::local::PrivateKeySigner,
};
use tokio::time::Instant;

use super::{
    Action, ChainClient, ChainError, FeePolicy, Revert, Simulation, TransactionJournal,
    journal::{Open, Version},
    refused, rpc,
};

/// How long to wait.
#[derive(Clone, Debug)]
pub struct SenderSettings {
    /// The gas policy.
    pub fees: FeePolicy,
    /// Blocks on top of a transaction's own, that one included, before it counts as mined.
    pub confirmations: u64,
    /// Between two looks.
    pub poll: Duration,
    /// Without being mined, until it is offered at a higher fee; also how long a node may take to catch up.
    pub replace_after: Duration,
    /// Until this process stops waiting. The transaction stays in the journal.
    pub give_up_after: Duration,
}

impl Default for SenderSettings {
    fn default() -> Self {
        Self {
            fees: FeePolicy::default(),
            confirmations: 1,
            poll: Duration::from_millis(500),
            replace_after: Duration::from_secs(45),
            give_up_after: Duration::from_secs(300),
        }
    }
}

/// What became of a transaction whose process ended before it could say so.
#[derive(Debug)]
pub struct Leftover {
    /// The action.
    pub what: String,
    /// Its receipt (which may say that it was refused), or [`ChainError::Displaced`].
    pub outcome: Result<TransactionReceipt, ChainError>,
}

/// One account's way to the chain.
#[derive(Debug)]
pub struct Sender {
    chain: ChainClient,
    signer: PrivateKeySigner,
    journal: TransactionJournal,
    settings: SenderSettings,
    /// Finished while another action was waiting for its nonce, and not yet asked for again.
    finished: Vec<(B256, TransactionReceipt)>,
}

impl Sender {
    /// Sends as the signer's account, with its journal.
    pub const fn new(
        chain: ChainClient,
        signer: PrivateKeySigner,
        journal: TransactionJournal,
        settings: SenderSettings,
    ) -> Self {
        Self { chain, signer, journal, settings, finished: Vec::new() }
    }

    /// The account.
    pub const fn account(&self) -> Address {
        self.signer.address()
    }

    /// The chain.
    pub const fn chain(&self) -> &ChainClient {
        &self.chain
    }

    /// Signs a digest as the account: r, s, v.
    pub fn sign(&self, digest: B256) -> Result<[u8; 65], ChainError> {
        use alloy::signers::SignerSync as _;
        let signature = self.signer.sign_hash_sync(&digest).map_err(|source| ChainError::Sign { source })?;
        Ok(signature.as_bytes())
    }

    /// Tries an action out at the newest block, without sending anything.
    pub async fn simulate(&self, action: &Action) -> Result<Simulation, ChainError> {
        let request = action.request(self.account());
        let provider = self.chain.provider();
        let output = provider.call(request.clone()).latest().await.map_err(|error| refused(&action.what, error))?;
        let gas = provider.estimate_gas(request).await.map_err(|error| refused(&action.what, error))?;
        Ok(Simulation { gas, output })
    }

    /// Does an action and returns its receipt once it is mined. The same action, asked for again after a crash, a time-out or
    /// a failure of the node, is the transaction that is on its way; asked for again after this returned, it is another one.
    pub async fn send(&mut self, action: &Action) -> Result<TransactionReceipt, ChainError> {
        self.perform(None, action).await
    }

    /// Does an action of a work: of transactions that belong together and are done once, even if the process ends anywhere in
    /// between and starts the work from its beginning. `work` is a digest of what was asked for, and within it actions are
    /// told apart by [`Action::what`]. It is done when [`Sender::finish`] says so.
    pub async fn send_in(&mut self, work: B256, action: &Action) -> Result<TransactionReceipt, ChainError> {
        self.perform(Some(work), action).await
    }

    /// Whether an earlier process signed this action of an unfinished work.
    pub fn is_under_way(&self, work: B256, action: &Action) -> bool {
        let intent = action.intent(Some(work));
        self.journal.open_transactions().any(|open| open.intent == intent)
    }

    /// Ends a work whose result is told: the same digest means another work from now on.
    pub fn finish(&mut self, work: B256) -> Result<(), ChainError> {
        let done = |open: &&Open| open.work == Some(work) && open.settled.is_some();
        let done: Vec<Open> = self.journal.open_transactions().filter(done).cloned().collect();
        for open in done {
            self.journal.closed(open.nonce, open.settled)?;
        }
        Ok(())
    }

    /// Waits for everything that earlier processes left behind, but for `work`, and says what became of it. Each is told once.
    pub async fn settle_others(&mut self, work: B256) -> Result<Vec<Leftover>, ChainError> {
        let mut leftovers = Vec::new();
        let others = self.journal.open_transactions().filter(|open| open.work != Some(work));
        for open in others.cloned().collect::<Vec<_>>() {
            let (what, nonce) = (open.what.clone(), open.nonce);
            let outcome = self.follow(open).await;
            if let Err(error) = &outcome
                && !matches!(error, ChainError::Displaced { .. })
            {
                return outcome.map(|_| Vec::new());
            }
            if let Ok(receipt) = &outcome {
                self.journal.closed(nonce, Some(receipt.transaction_hash))?;
            }
            leftovers.push(Leftover { what, outcome });
        }
        Ok(leftovers)
    }

    async fn perform(&mut self, work: Option<B256>, action: &Action) -> Result<TransactionReceipt, ChainError> {
        let intent = action.intent(work);
        for open in self.journal.open_transactions().cloned().collect::<Vec<_>>() {
            if open.intent == intent {
                return self.conclude(open, action).await;
            }
            // A nonce is used once all before it are.
            if open.settled.is_none() {
                self.clear_the_way(open).await?;
            }
        }
        if let Some(position) = self.finished.iter().position(|(finished, _)| *finished == intent) {
            let (_, receipt) = self.finished.swap_remove(position);
            return self.judged(action, receipt).await;
        }
        let open = self.start(action, work).await?;
        self.conclude(open, action).await
    }

    /// Waits for an action until it is mined, and notes that it is told or, within a work, that it is going to be.
    async fn conclude(&mut self, open: Open, action: &Action) -> Result<TransactionReceipt, ChainError> {
        let (nonce, work, settled) = (open.nonce, open.work, open.settled);
        let receipt = self.follow(open).await?;
        let hash = receipt.transaction_hash;
        match work {
            // What was refused is not done: a work that is started again tries it again.
            Some(_) if receipt.status() && settled == Some(hash) => {}
            Some(_) if receipt.status() => self.journal.settled(nonce, hash)?,
            _ => self.journal.closed(nonce, Some(hash))?,
        }
        self.judged(action, receipt).await
    }

    /// Waits for an older action. That it is lost or refused is not the failure of the one that waits for its nonce; that it is
    /// still open is.
    async fn clear_the_way(&mut self, open: Open) -> Result<(), ChainError> {
        let (nonce, work, intent) = (open.nonce, open.work, open.intent);
        let receipt = match self.follow(open).await {
            Ok(receipt) => receipt,
            Err(ChainError::Displaced { .. }) => return Ok(()),
            Err(error) => return Err(error),
        };
        let hash = receipt.transaction_hash;
        match work {
            Some(_) => self.journal.settled(nonce, hash)?,
            None => {
                self.journal.closed(nonce, Some(hash))?;
                self.finished.push((intent, receipt));
            }
        }
        Ok(())
    }

    /// Simulates, numbers, signs and journals.
    async fn start(&mut self, action: &Action, work: Option<B256>) -> Result<Open, ChainError> {
        let balance = self.balance().await?;
        // Nodes refuse to simulate what the account cannot pay, with an error of their own.
        self.check_balance(balance, action.value)?;
        let gas = self.settings.fees.gas_limit(self.simulate(action).await?.gas);
        let fees = self.settings.fees.offer(&self.chain).await?;
        let gas_cost = U256::from(gas).saturating_mul(U256::from(fees.max_fee_per_gas));
        self.check_balance(balance, action.value.saturating_add(gas_cost))?;
        let block = self.chain.head().await?.number;
        let nonce = self.next_nonce().await?;
        let transaction = TxEip1559 {
            chain_id: self.chain.chain_id(),
            nonce,
            gas_limit: gas,
            max_fee_per_gas: fees.max_fee_per_gas,
            max_priority_fee_per_gas: fees.max_priority_fee_per_gas,
            to: action.to.map_or(TxKind::Create, TxKind::Call),
            value: action.value,
            input: action.data.clone(),
            ..TxEip1559::default()
        };
        let version = self.sign_transaction(transaction)?;
        let mut open = Open {
            nonce,
            intent: action.intent(work),
            work,
            what: action.what.clone(),
            block,
            versions: Vec::new(),
            settled: None,
        };
        self.journal.signed(&open, &version)?;
        open.versions.push(version);
        Ok(open)
    }

    async fn balance(&self) -> Result<U256, ChainError> {
        self.chain.provider().get_balance(self.account()).await.map_err(rpc("read the balance"))
    }

    fn check_balance(&self, balance: U256, needed: U256) -> Result<(), ChainError> {
        if balance >= needed { Ok(()) } else { Err(ChainError::Unfunded { account: self.account(), balance, needed }) }
    }

    async fn next_nonce(&self) -> Result<u64, ChainError> {
        let began = Instant::now();
        loop {
            let provider = self.chain.provider();
            // Pending ones too: a wallet may have sent some with the same account.
            let told = provider.get_transaction_count(self.account()).pending().await.map_err(rpc("read the nonce"))?;
            let nonce = self.journal.next_nonce().map_or(told, |next| told.max(next));
            // A node that is behind would have a number used twice. One that stays behind serves a chain that went back: if it
            // does not, it refuses the transaction, and nothing is done twice either way.
            let is_behind = self.journal.mined_nonce().is_some_and(|mined| nonce <= mined);
            if !is_behind || began.elapsed() >= self.settings.replace_after {
                return Ok(nonce);
            }
            tokio::time::sleep(self.settings.poll).await;
        }
    }

    fn sign_transaction(&self, mut transaction: TxEip1559) -> Result<Version, ChainError> {
        let signature =
            self.signer.sign_transaction_sync(&mut transaction).map_err(|source| ChainError::Sign { source })?;
        let (max_fee, tip) = (transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas);
        let envelope = TxEnvelope::Eip1559(transaction.into_signed(signature));
        Ok(Version { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into(), max_fee, tip })
    }

    /// The newest version at a higher fee.
    fn dearer(&self, newest: &Version, fees: Eip1559Estimation) -> Result<Option<Version>, ChainError> {
        // The journal holds what was signed here, so this is no other kind of transaction.
        let Ok(TxEnvelope::Eip1559(signed)) = alloy::eips::Decodable2718::decode_2718(&mut newest.raw.as_ref()) else {
            return Ok(None);
        };
        let transaction = TxEip1559 {
            max_fee_per_gas: fees.max_fee_per_gas,
            max_priority_fee_per_gas: fees.max_priority_fee_per_gas,
            ..signed.strip_signature()
        };
        self.sign_transaction(transaction).map(Some)
    }

    /// A receipt that says "reverted" is an error; the reason is what the contract says to the same call now.
    async fn judged(&self, action: &Action, receipt: TransactionReceipt) -> Result<TransactionReceipt, ChainError> {
        if receipt.status() {
            return Ok(receipt);
        }
        let call = action.request(self.account());
        let answer = self.chain.provider().call(call).block(BlockId::latest()).await;
        let revert = answer.err().and_then(|error| Revert::of(&error)).map(Box::new);
        Err(ChainError::Failed { what: action.what.clone(), transaction: receipt.transaction_hash, revert })
    }
}
