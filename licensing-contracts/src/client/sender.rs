//! Sends transactions, each at most once.
//!
//! 1. What an earlier process left on its way is found again first; the same action again means that transaction.
//! 2. The action is simulated, so that a refusal costs nothing and has a name.
//! 3. It is signed and journalled, then sent: the journal is ahead of the network at every moment.
//! 4. While it is not mined it is offered again, dearer, under the same nonce.

use std::time::Duration;

use alloy::{
    consensus::{SignableTransaction, TxEip1559, TxEnvelope},
    eips::{BlockId, Encodable2718},
    network::TxSignerSync,
    primitives::{Address, B256, Bytes, TxKind, U256, keccak256},
    providers::{Provider, utils::Eip1559Estimation},
    rpc::types::{TransactionReceipt, TransactionRequest},
    signers::local::PrivateKeySigner,
    sol_types::{SolCall, SolValue},
};
use tokio::time::Instant;

use super::{
    ChainClient, ChainError, FeePolicy, Revert, TransactionJournal,
    journal::{Open, Version},
    refused, rpc,
};

/// Something to be done on the chain.
#[derive(Clone, Debug)]
pub struct Action {
    /// For people: "lease open", "claim of 12 vouchers".
    pub what: String,
    /// The contract, or `None` to make one.
    pub to: Option<Address>,
    /// Call or creation code.
    pub data: Bytes,
    /// Wei sent along.
    pub value: U256,
}

impl Action {
    /// A call of a function.
    pub fn call<C: SolCall>(what: impl Into<String>, contract: Address, call: &C) -> Self {
        Self { what: what.into(), to: Some(contract), data: call.abi_encode().into(), value: U256::ZERO }
    }

    /// The same, with coins.
    #[must_use]
    pub fn with_value(mut self, wei: U256) -> Self {
        self.value = wei;
        self
    }

    /// What makes two actions of one account the same one.
    fn intent(&self) -> B256 {
        keccak256((self.to.unwrap_or_default(), self.to.is_none(), &self.data, self.value).abi_encode())
    }

    fn request(&self, from: Address) -> TransactionRequest {
        TransactionRequest {
            from: Some(from),
            to: Some(self.to.map_or(TxKind::Create, TxKind::Call)),
            input: self.data.clone().into(),
            value: Some(self.value),
            ..TransactionRequest::default()
        }
    }
}

/// What an action would cost, and give back.
#[derive(Clone, Debug)]
pub struct Simulation {
    /// Units of gas.
    pub gas: u64,
    /// What the function would return.
    pub output: Bytes,
}

/// How long to wait.
#[derive(Clone, Debug)]
pub struct SenderSettings {
    /// The gas policy.
    pub fees: FeePolicy,
    /// Blocks on top of a transaction's own, that one included, before it counts as mined.
    pub confirmations: u64,
    /// Between two looks.
    pub poll: Duration,
    /// Without being mined, until it is offered at a higher fee.
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

/// One account's way to the chain.
#[derive(Debug)]
pub struct Sender {
    chain: ChainClient,
    signer: PrivateKeySigner,
    journal: TransactionJournal,
    settings: SenderSettings,
}

impl Sender {
    /// Sends as the signer's account, with its journal.
    pub const fn new(
        chain: ChainClient,
        signer: PrivateKeySigner,
        journal: TransactionJournal,
        settings: SenderSettings,
    ) -> Self {
        Self { chain, signer, journal, settings }
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

    /// Does an action and returns its receipt once it is mined. Called again after a crash or a time-out, it goes on with the
    /// transaction that is on its way.
    pub async fn send(&mut self, action: &Action) -> Result<TransactionReceipt, ChainError> {
        let intent = action.intent();
        for open in self.journal.pending().cloned().collect::<Vec<_>>() {
            let resumed = open.intent == intent;
            let outcome = self.follow(open).await;
            if resumed {
                return self.judged(action, outcome?).await;
            }
            // An older action that is lost or refused is not this one's failure; one that is still open is, for its nonce.
            match outcome {
                Ok(_) | Err(ChainError::Displaced { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let open = self.start(action, intent).await?;
        let receipt = self.follow(open).await?;
        self.judged(action, receipt).await
    }

    /// Simulates, numbers, signs and journals.
    async fn start(&mut self, action: &Action, intent: B256) -> Result<Open, ChainError> {
        let gas = self.settings.fees.gas_limit(self.simulate(action).await?.gas);
        let fees = self.settings.fees.offer(&self.chain).await?;
        self.check_balance(action, gas, fees).await?;
        let provider = self.chain.provider();
        // Pending ones too: a wallet may have sent some with the same account.
        let nonce = provider.get_transaction_count(self.account()).pending().await.map_err(rpc("read the nonce"))?;
        let nonce = self.journal.next_nonce().map_or(nonce, |next| nonce.max(next));
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
        self.journal.signed(nonce, intent, &action.what, &version)?;
        Ok(Open { nonce, intent, what: action.what.clone(), versions: vec![version] })
    }

    async fn check_balance(&self, action: &Action, gas: u64, fees: Eip1559Estimation) -> Result<(), ChainError> {
        let account = self.account();
        let balance = self.chain.provider().get_balance(account).await.map_err(rpc("read the balance"))?;
        let gas_cost = U256::from(gas).saturating_mul(U256::from(fees.max_fee_per_gas));
        let needed = action.value.saturating_add(gas_cost);
        if balance >= needed { Ok(()) } else { Err(ChainError::Unfunded { account, balance, needed }) }
    }

    fn sign_transaction(&self, mut transaction: TxEip1559) -> Result<Version, ChainError> {
        let signature =
            self.signer.sign_transaction_sync(&mut transaction).map_err(|source| ChainError::Sign { source })?;
        let (max_fee, tip) = (transaction.max_fee_per_gas, transaction.max_priority_fee_per_gas);
        let envelope = TxEnvelope::Eip1559(transaction.into_signed(signature));
        Ok(Version { hash: *envelope.tx_hash(), raw: envelope.encoded_2718().into(), max_fee, tip })
    }

    /// Sends a journalled transaction, as often as it takes, and waits until one version is mined.
    async fn follow(&mut self, mut open: Open) -> Result<TransactionReceipt, ChainError> {
        let began = Instant::now();
        let mut offered = began;
        self.broadcast(&open).await?;
        loop {
            if let Some(receipt) = self.mined(&open).await? {
                self.journal.closed(open.nonce, Some(receipt.transaction_hash))?;
                return Ok(receipt);
            }
            if self.is_displaced(&open).await? {
                self.journal.closed(open.nonce, None)?;
                let account = self.account();
                return Err(ChainError::Displaced { what: open.what, account, nonce: open.nonce });
            }
            if began.elapsed() >= self.settings.give_up_after {
                let transaction = open.versions.last().map(|version| version.hash).unwrap_or_default();
                return Err(ChainError::NotMined { what: open.what, transaction, waited_s: began.elapsed().as_secs() });
            }
            if offered.elapsed() >= self.settings.replace_after {
                self.raise(&mut open).await?;
                self.broadcast(&open).await?;
                offered = Instant::now();
            }
            tokio::time::sleep(self.settings.poll).await;
        }
    }

    /// Offers the newest version to the network. That it is known already, or mined, is no failure: the receipts tell.
    async fn broadcast(&self, open: &Open) -> Result<(), ChainError> {
        let Some(newest) = open.versions.last() else { return Ok(()) };
        match self.chain.provider().send_raw_transaction(&newest.raw).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_error_resp() => {
                tracing::debug!(transaction = %newest.hash, "the node did not take the transaction: {error}");
                Ok(())
            }
            Err(source) => Err(ChainError::Rpc { attempted: format!("send {}", open.what), source }),
        }
    }

    /// The receipt of whichever version is mined and confirmed, on the chain as it is now.
    async fn mined(&self, open: &Open) -> Result<Option<TransactionReceipt>, ChainError> {
        let provider = self.chain.provider();
        for version in open.versions.iter().rev() {
            let receipt = provider.get_transaction_receipt(version.hash).await.map_err(rpc("read a receipt"))?;
            let Some(receipt) = receipt else { continue };
            let Some(number) = receipt.block_number else { continue };
            let head = provider.get_block_number().await.map_err(rpc("read the block number"))?;
            if head.saturating_sub(number).saturating_add(1) >= self.settings.confirmations {
                return Ok(Some(receipt));
            }
        }
        Ok(None)
    }

    /// Whether the account's nonce is used, and by none of the versions. Both are asked of one moment: first the nonce, then
    /// the receipts, so that a version mined in between is seen.
    async fn is_displaced(&self, open: &Open) -> Result<bool, ChainError> {
        let provider = self.chain.provider();
        let used = provider.get_transaction_count(self.account()).await.map_err(rpc("read the nonce"))?;
        if used <= open.nonce {
            return Ok(false);
        }
        for version in &open.versions {
            let receipt = provider.get_transaction_receipt(version.hash).await.map_err(rpc("read a receipt"))?;
            if receipt.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Signs the same transaction at a higher fee.
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
        let Ok(TxEnvelope::Eip1559(signed)) = alloy::eips::Decodable2718::decode_2718(&mut newest.raw.as_ref()) else {
            return Ok(());
        };
        let transaction = TxEip1559 {
            max_fee_per_gas: fees.max_fee_per_gas,
            max_priority_fee_per_gas: fees.max_priority_fee_per_gas,
            ..signed.strip_signature()
        };
        let version = self.sign_transaction(transaction)?;
        self.journal.signed(open.nonce, open.intent, &open.what, &version)?;
        open.versions.push(version);
        Ok(())
    }

    /// A receipt that says "reverted" is an error; the reason is what the contract says to the same call now.
    async fn judged(&self, action: &Action, receipt: TransactionReceipt) -> Result<TransactionReceipt, ChainError> {
        if receipt.status() {
            return Ok(receipt);
        }
        let at = BlockId::latest();
        let answer = self.chain.provider().call(action.request(self.account())).block(at).await;
        let revert = answer.err().and_then(|error| Revert::of(&error)).unwrap_or_else(|| Revert::decode(Bytes::new()));
        Err(ChainError::Failed {
            what: action.what.clone(),
            transaction: receipt.transaction_hash,
            revert: Box::new(revert),
        })
    }
}
