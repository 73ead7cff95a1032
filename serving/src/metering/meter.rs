//! From a request that is paid for to the statement about it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use alloy_primitives::{Address, B256};
use protocol::{
    counts::{LaneStep, RequestUsage, UsageCounts},
    ids::{Epoch, LeaseId, StatementDigest},
    messages::{Domain, FinishReason, PaymentEscrow, Signed, Statement, Voucher},
    units::{Amount, UnixMilliseconds},
};

use super::{
    Accounts, Running,
    channel::{Charged, Reservation},
    customer::CustomerReservation,
    lease::{PricingError, ServedLease},
    untaken::TooManyUntaken,
};
use crate::{
    books::{Books, Entry, Journal, JournalError, KeptAnswer, Written, owner_of},
    chain::ChainWatch,
};

/// Everything that metering needs. Shared by all requests.
#[derive(Debug)]
pub struct Metering {
    accounts: Arc<Accounts>,
    books: Books,
    journal: Journal,
    chain: Arc<ChainWatch>,
    leases: HashMap<LeaseId, Arc<ServedLease>>,
    /// In milliseconds: when the oldest epoch began that is not to be reported yet.
    open_since: HashMap<LeaseId, AtomicU64>,
    escrow: Domain<PaymentEscrow>,
    running: Running,
    clock: fn() -> UnixMilliseconds,
}

/// Why there is no statement about a request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BillError {
    /// Counts or costs that do not fit.
    #[error(transparent)]
    Pricing(#[from] PricingError),
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What a request came to.
#[derive(Clone, Debug)]
pub(crate) struct Bill {
    /// Name of the answer in the API.
    pub(crate) answer: String,
    /// What was used.
    pub(crate) usage: RequestUsage,
    /// Digest of the request's record.
    pub(crate) request_hash: B256,
    /// Digest of what was delivered.
    pub(crate) response_hash: B256,
    /// Why the answer ended.
    pub(crate) finish_reason: FinishReason,
}

/// An answer that is to be kept: the client's key, the digest of its body, and what was answered.
pub(crate) type Keep = (String, B256, String);

/// A statement that is on its way to the disk.
#[derive(Debug)]
pub(crate) struct Billed {
    /// To be waited for before the last chunk is sent.
    pub(crate) written: Written,
}

impl Metering {
    /// Puts the parts together.
    pub(crate) fn new(
        books: Books,
        journal: Journal,
        chain: Arc<ChainWatch>,
        leases: Vec<Arc<ServedLease>>,
        clock: fn() -> UnixMilliseconds,
    ) -> Self {
        let ids = leases.iter().map(|lease| lease.id).collect();
        let open_since = leases.iter().map(|lease| (lease.id, AtomicU64::new(0))).collect();
        let deployment = chain.deployment();
        let escrow = Domain::new(protocol::ids::ChainId::new(deployment.chain_id), deployment.payment_escrow);
        Self {
            accounts: Arc::new(Accounts::new(books.clone(), ids)),
            books,
            journal,
            chain,
            leases: leases.into_iter().map(|lease| (lease.id, lease)).collect(),
            open_since,
            escrow,
            running: Running::default(),
            clock,
        }
    }

    pub(crate) fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    pub(crate) fn books(&self) -> &Books {
        &self.books
    }

    pub(crate) fn journal(&self) -> &Journal {
        &self.journal
    }

    pub(crate) fn chain(&self) -> &Arc<ChainWatch> {
        &self.chain
    }

    /// All leases.
    pub(crate) fn leases(&self) -> impl Iterator<Item = &Arc<ServedLease>> {
        self.leases.values()
    }

    /// Under which vouchers are signed.
    pub(crate) fn escrow(&self) -> &Domain<PaymentEscrow> {
        &self.escrow
    }

    /// Requests with an idempotency key that run.
    pub(crate) fn running(&self) -> &Running {
        &self.running
    }

    pub(crate) fn now(&self) -> UnixMilliseconds {
        (self.clock)()
    }

    /// The epoch of a moment, as `UsageLog.epochOf` has it.
    fn epoch_of(&self, time: UnixMilliseconds) -> Epoch {
        let seconds = time.second_down().get();
        Epoch::new(seconds.checked_div(self.chain.spans().epoch.get()).unwrap_or(seconds))
    }

    /// From now on no request of the lease ends before this epoch: what came before it is reported, or is about to be, and the
    /// contract takes no report of an epoch after that of a later one.
    pub(crate) fn close_epochs_before(&self, lease: LeaseId, epoch: Epoch) {
        let begins_ms = epoch.get().saturating_mul(self.chain.spans().epoch.get()).saturating_mul(1_000);
        if let Some(open_since) = self.open_since.get(&lease) {
            open_since.fetch_max(begins_ms, Ordering::SeqCst);
        }
    }

    /// When a request ends that ends now. A clock that was set back says less than the chain's, by which epochs are closed.
    fn end_of_request(&self, lease: LeaseId) -> UnixMilliseconds {
        let open_since = self.open_since.get(&lease).map_or(0, |since| since.load(Ordering::SeqCst));
        self.now().max(UnixMilliseconds::new(open_since))
    }

    /// Signs the statement about a request and hands it to the journal, with what `keep` makes of it. What was set aside and
    /// not charged is free again.
    pub(crate) fn bill(
        &self,
        paid: Paid,
        bill: Bill,
        keep: impl FnOnce(StatementDigest, &Signed<Statement>) -> Option<Keep>,
    ) -> Result<Billed, BillError> {
        let Paid { lease, started, by } = paid;
        let ended = self.end_of_request(lease.id);
        let statement = |channel, lane, step, previous| -> Result<(Statement, Amount), PricingError> {
            let statement = Statement {
                channel,
                lease: lease.id,
                lane,
                step,
                charge: lease.prices.charge(step.before(), step.after())?,
                request_hash: bill.request_hash,
                response_hash: bill.response_hash,
                started,
                ended,
                finish_reason: bill.finish_reason,
                execution: None,
                previous,
            };
            Ok((statement, lease.prices.cost_up(step.after())?))
        };
        match by {
            By::Channel { reservation, voucher, signer } => {
                let message = &voucher.message;
                let step = LaneStep::new(message.counts, bill.usage).map_err(PricingError::from)?;
                let (statement, lane_cost) =
                    statement(Some(message.channel), message.lane, step, message.statements_head)?;
                let charge = statement.charge;
                let (digest, statement) = lease.sign(statement);
                let kept = keep(digest, &statement);
                let account = reservation.account();
                let channel = Some((account.id(), account.channel().clone()));
                let voucher = Some((*voucher, signer));
                let entry = self.entry(bill.answer, &statement, digest, lane_cost, voucher);
                let kept = kept.map(|keep| kept_answer(owner_of(Some(account.id()), None), keep, ended));
                let written = self.journal.append(entry, channel, kept)?;
                // Now, and not when it is written: whatever happens to the disk, this request has been stated.
                reservation.settle(&Charged { counts: step.after(), head: digest, charge, lane_cost });
                Ok(Billed { written })
            }
            By::Customer(reservation) => {
                let account = reservation.account().clone();
                // Held until the entry is queued: statements of a lane are queued in their order.
                let mut lanes = account.lanes();
                let lane = lanes.entry(lease.id).or_default();
                let step = LaneStep::new(lane.counts, bill.usage).map_err(PricingError::from)?;
                let (statement, lane_cost) = statement(None, account.lane(), step, lane.head)?;
                let charge = statement.charge;
                let (digest, statement) = lease.sign(statement);
                let kept = keep(digest, &statement);
                let mut entry = self.entry(bill.answer, &statement, digest, lane_cost, None);
                entry.customer = Some(account.id().clone());
                let kept = kept.map(|keep| kept_answer(owner_of(None, Some(account.id())), keep, ended));
                let written = self.journal.append(entry, None, kept)?;
                (lane.counts, lane.head, lane.cost) = (step.after(), Some(digest), lane_cost);
                drop(lanes);
                reservation.settle(charge);
                Ok(Billed { written })
            }
        }
    }

    fn entry(
        &self,
        answer: String,
        statement: &Signed<Statement>,
        digest: StatementDigest,
        lane_cost: Amount,
        voucher: Option<(Signed<Voucher>, Address)>,
    ) -> Entry {
        let epoch = self.epoch_of(statement.message.ended);
        Entry { statement: statement.clone(), digest, answer, epoch, lane_cost, customer: None, voucher }
    }
}

fn kept_answer(owner: B256, (key, body_hash, answer): Keep, now: UnixMilliseconds) -> KeptAnswer {
    KeptAnswer { owner, key, body_hash, answer, created_at: now.second_down() }
}

/// A request for which money is set aside. Dropped without a bill it costs nothing.
#[derive(Debug)]
pub(crate) struct Paid {
    lease: Arc<ServedLease>,
    started: UnixMilliseconds,
    by: By,
}

#[derive(Debug)]
enum By {
    Channel { reservation: Box<Reservation>, voucher: Box<Signed<Voucher>>, signer: Address },
    Customer(CustomerReservation),
}

impl Paid {
    pub(crate) fn channel(
        lease: Arc<ServedLease>,
        reservation: Reservation,
        voucher: Signed<Voucher>,
        signer: Address,
        started: UnixMilliseconds,
    ) -> Self {
        let by = By::Channel { reservation: Box::new(reservation), voucher: Box::new(voucher), signer };
        Self { lease, started, by }
    }

    pub(crate) fn customer(
        lease: Arc<ServedLease>,
        reservation: CustomerReservation,
        started: UnixMilliseconds,
    ) -> Self {
        Self { lease, started, by: By::Customer(reservation) }
    }

    /// Whether its payer takes enough of what is made for him.
    pub(crate) fn check_taken(&self, now: UnixMilliseconds) -> Result<(), TooManyUntaken> {
        match &self.by {
            By::Channel { reservation, .. } => reservation.account().check_taken(now),
            By::Customer(reservation) => reservation.account().check_taken(now),
        }
    }

    /// Ends it without a bill: so much was worked for, and the payer hung up before anything arrived.
    pub(crate) fn not_taken(self, prompt: u64, completion: u64) {
        let cost = self.lease.worst_case(UsageCounts::default(), prompt, completion).unwrap_or(Amount::MAX);
        match &self.by {
            By::Channel { reservation, .. } => reservation.account().note_untaken(cost),
            By::Customer(reservation) => reservation.account().note_untaken(cost),
        }
    }
}
