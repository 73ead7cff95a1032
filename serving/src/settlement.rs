//! Turns statements into money: reports them when their epoch is over, claims what was reported, pays the royalty on what
//! customers pay for in money, and shows statements to whoever asks for them on the chain.
//!
//! One task does one thing after the other, each written down before it is sent. Whatever is cut off is found again: a report
//! and a royalty by their place, a claim by what the chain says of the lanes, also one that the chain took back.

mod claims;
mod inclusion;
mod reports;
mod royalty;
mod undone;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use alloy::{
    providers::Provider as _,
    rpc::types::{Filter, Log},
};
use alloy_primitives::B256;
use licensing_contracts::{
    actions::{
        leases::{self, LeaseDetails},
        registry,
    },
    client::{Action, ChainError, Sender},
};
use protocol::{
    ids::{Epoch, LeaseId, StatementDigest},
    splits::Splits,
    units::{Amount, UnixMilliseconds, UnixSeconds},
};
use tokio::time;
use tokio_util::sync::CancellationToken;

use crate::{
    books::BooksError,
    causes::Causes,
    metering::{Metering, lease::ServedLease},
};

/// Blocks whose events are asked for at once.
const PAGE: u64 = 9_999;
/// How long answers are kept for whoever asks again with the same key.
const KEEP_ANSWERS_S: u64 = 86_400;

/// Why a step of settlement failed. The next round tries again.
#[derive(Debug, thiserror::Error)]
pub enum SettlementError {
    /// The books.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// The chain.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// A tree or a message that cannot be made.
    #[error("failed to make {what}")]
    Make {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The chain has reports of this lease that the books do not know.
    #[error(
        "lease {lease} has {on_chain} reports on the chain and {known} in the books: it was reported by somebody else, who must \
         go on doing so"
    )]
    ReportedElsewhere {
        /// The lease.
        lease: LeaseId,
        /// Reports on the chain.
        on_chain: u64,
        /// Reports in the books.
        known: u64,
    },
    /// The node does not have the event of the lease's terms.
    #[error("the node does not have the event in which the terms of lease {lease} were published: name another node")]
    Splits {
        /// The lease.
        lease: LeaseId,
    },
}

impl SettlementError {
    fn make<E: std::error::Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Make { what, source: Box::new(source) }
    }
}

/// How often settlement looks.
#[derive(Clone, Copy, Debug)]
pub struct SettlementSettings {
    /// Between two rounds.
    pub every: Duration,
}

/// When a lease's lanes are claimed, in the smallest unit of its token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClaimSettings {
    /// A lane that owes as much is claimed in the next round: as much as makes the gas worth it.
    pub(crate) from: Amount,
    /// A lane that owes less is never claimed.
    pub(crate) least: Amount,
}

/// A lease with what settling it needs.
#[derive(Debug)]
struct SettledLease {
    served: Arc<ServedLease>,
    details: LeaseDetails,
    splits: Splits,
    claims: ClaimSettings,
    /// Statements of earlier epochs are all reported.
    unreported_from: Epoch,
    /// The newest block when it was last looked whether the chain still has its claims.
    claims_looked_at: Option<u64>,
}

/// The task that settles.
#[derive(Debug)]
pub struct Settlement {
    metering: Arc<Metering>,
    sender: Sender,
    settings: SettlementSettings,
    leases: Vec<SettledLease>,
    /// Block up to which demands for statements were looked for.
    looked_until: Option<u64>,
    /// Statements that are asked for and not shown yet.
    asked_for: BTreeSet<StatementDigest>,
    /// Failures that were logged and still hold.
    told: HashMap<String, String>,
}

impl Settlement {
    /// Reads what never changes. `sender` is the host's account.
    pub(crate) async fn new(
        metering: Arc<Metering>,
        sender: Sender,
        settings: SettlementSettings,
        leases: Vec<(Arc<ServedLease>, LeaseDetails, ClaimSettings)>,
    ) -> Result<Self, SettlementError> {
        let (client, to) = (metering.chain().client().clone(), metering.chain().deployment().clone());
        let mut settled = Vec::with_capacity(leases.len());
        for (served, details, claims) in leases {
            if let Some(newest) = metering.books().reports(served.id).await?.last() {
                metering.close_epochs_before(served.id, Epoch::new(newest.report.epoch.get().saturating_add(1)));
            }
            let splits = registry::splits(&client, &to, details.terms).await?;
            let splits = splits.ok_or(SettlementError::Splits { lease: served.id })?;
            let unreported_from = Epoch::new(0);
            settled.push(SettledLease { served, details, splits, claims, unreported_from, claims_looked_at: None });
        }
        Ok(Self {
            metering,
            sender,
            settings,
            leases: settled,
            looked_until: None,
            asked_for: BTreeSet::new(),
            told: HashMap::new(),
        })
    }

    /// Settles until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut is_ready = false;
        loop {
            if !is_ready {
                let begun = self.begin().await;
                is_ready = begun.is_ok();
                self.tell("begin to settle", None, begun);
            }
            if is_ready {
                self.round().await;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = time::sleep(self.settings.every) => {}
            }
        }
    }

    /// Finds out what became of what an earlier process sent.
    async fn begin(&mut self) -> Result<(), SettlementError> {
        // What has a name of its own finds itself, and is noted where it belongs.
        for index in 0..self.leases.len() {
            let reported = self.report(index).await;
            self.tell("report", Some(index), reported);
            let paid = self.pay_royalties(index).await;
            self.tell("pay royalties", Some(index), paid);
        }
        for left in self.sender.settle_others(B256::ZERO).await? {
            match left.outcome {
                Ok(receipt) if receipt.status() => tracing::info!("{}, sent before the restart, is mined", left.what),
                Ok(_) => tracing::warn!("{}, sent before the restart, was refused", left.what),
                Err(error) => tracing::warn!(%error, "{}, sent before the restart, was not done", left.what),
            }
        }
        for index in 0..self.leases.len() {
            self.recall_claims(index).await?;
        }
        Ok(())
    }

    /// Everything that is due, for every lease. What fails does not keep the rest from being done.
    async fn round(&mut self) {
        for index in 0..self.leases.len() {
            let read = self.read_lease(index).await;
            self.tell("read the lease", Some(index), read);
            let reported = self.report(index).await;
            self.tell("report", Some(index), reported);
            let paid = self.pay_royalties(index).await;
            self.tell("pay royalties", Some(index), paid);
            let looked = self.look_for_undone_claims(index).await;
            self.tell("look for claims that the chain took back", Some(index), looked);
            let claimed = self.claim(index).await;
            self.tell("claim", Some(index), claimed);
        }
        let forgotten = self.forget_answers().await;
        self.tell("forget old answers", None, forgotten);
        let answered = self.answer_challenges().await;
        self.tell("answer who asks for statements", None, answered);
    }

    /// A renewal moves a lease's end.
    async fn read_lease(&mut self, index: usize) -> Result<(), SettlementError> {
        let Some(lease) = self.leases.get_mut(index) else { return Ok(()) };
        let chain = self.metering.chain();
        if let Some(details) = leases::details(chain.client(), chain.deployment(), lease.served.id).await? {
            lease.details = details;
        }
        Ok(())
    }

    async fn forget_answers(&self) -> Result<(), SettlementError> {
        let now = self.now().second_down().get();
        let before = UnixSeconds::new(now.saturating_sub(KEEP_ANSWERS_S));
        self.metering.books().forget_answers(before).await.map(|_| ()).map_err(Into::into)
    }

    /// Logs a failure when it is new, and its end.
    fn tell(&mut self, what: &str, index: Option<usize>, outcome: Result<(), SettlementError>) {
        let lease = index.and_then(|index| self.lease(index));
        let what = lease.map_or_else(|| what.to_owned(), |lease| format!("{what} (lease {})", lease.served.id));
        match outcome {
            Ok(()) => {
                if self.told.remove(&what).is_some() {
                    tracing::info!("settlement can {what} again");
                }
            }
            Err(error) => {
                let error = Causes(&error).to_string();
                if self.told.insert(what.clone(), error.clone()).is_none_or(|told| told != error) {
                    tracing::warn!(%error, "settlement failed to {what}: {error}");
                }
            }
        }
    }

    fn lease(&self, index: usize) -> Option<&SettledLease> {
        self.leases.get(index)
    }

    fn now(&self) -> UnixMilliseconds {
        self.metering.now()
    }

    /// Does one thing on the chain, once: asked for again after a crash, it is the transaction that is on its way.
    async fn act(&mut self, work: B256, action: &Action) -> Result<Receipt, SettlementError> {
        let receipt = self.sender.send_in(work, action).await?;
        tracing::info!(transaction = %receipt.transaction_hash, "{}", action.what);
        Ok(receipt)
    }

    /// Events since a block, and the block up to which they were looked for. `what` they are, for errors.
    async fn events(&self, what: &str, filter: &Filter, mut from: u64) -> Result<(Vec<Log>, u64), ChainError> {
        let client = self.metering.chain().client();
        let head = client.head().await?.number;
        let mut events = Vec::new();
        while from <= head {
            let until = from.saturating_add(PAGE).min(head);
            let page = filter.clone().from_block(from).to_block(until);
            let logs = client.provider().get_logs(&page).await;
            let attempted = || format!("look for {what} in blocks {from} to {until}");
            events.extend(logs.map_err(|source| ChainError::Rpc { attempted: attempted(), source })?);
            from = until.saturating_add(1);
        }
        Ok((events, head))
    }
}

type Receipt = alloy::rpc::types::TransactionReceipt;
