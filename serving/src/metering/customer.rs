//! A customer who pays in money, as the host keeps account of it.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use protocol::{
    counts::UsageCounts,
    ids::{Lane, LeaseId, StatementDigest},
    units::{Amount, UnixMilliseconds},
};

use super::{
    purse::{Purse, Short},
    untaken::{TooManyUntaken, Untaken},
};
use crate::books::{Customer, CustomerId, LaneHead};

const MINUTE_MS: u64 = 60_000;

/// Where the customer's lane stands under one lease.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct LaneState {
    pub(crate) counts: UsageCounts,
    pub(crate) head: Option<StatementDigest>,
    pub(crate) cost: Amount,
}

#[derive(Debug)]
struct State {
    purse: Purse,
    requests_per_minute: Option<u64>,
    /// Requests of the minute that began then.
    minute: (u64, u64),
    untaken: Untaken,
}

/// A customer's account.
#[derive(Debug)]
pub(crate) struct CustomerAccount {
    id: CustomerId,
    lane: Lane,
    state: Mutex<State>,
    /// A lane's statements are made one after the other, each upon the one before.
    lanes: Mutex<HashMap<LeaseId, LaneState>>,
}

impl CustomerAccount {
    /// The account as the books have it.
    pub(crate) fn new(customer: &Customer, charged: Amount, heads: &[LaneHead]) -> Self {
        let purse = Purse::new(customer.budget, charged);
        let requests_per_minute = customer.requests_per_minute;
        let state = State { purse, requests_per_minute, minute: (0, 0), untaken: Untaken::default() };
        let lane = |head: &LaneHead| LaneState { counts: head.counts, head: Some(head.head), cost: head.cost };
        let lanes = heads.iter().map(|head| (head.lease, lane(head))).collect();
        Self { id: customer.id.clone(), lane: customer.lane, state: Mutex::new(state), lanes: Mutex::new(lanes) }
    }

    pub(crate) fn id(&self) -> &CustomerId {
        &self.id
    }

    /// Its lane on channel 0 of every lease.
    pub(crate) fn lane(&self) -> Lane {
        self.lane
    }

    /// Takes over what the books say now.
    pub(crate) fn learn(&self, customer: &Customer) {
        let mut state = self.lock();
        state.purse.set_limit(customer.budget, Amount::ZERO);
        state.requests_per_minute = customer.requests_per_minute;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request against the customer's rate; how long to wait if it is one too many.
    pub(crate) fn count(&self, now: UnixMilliseconds) -> Result<(), u64> {
        let mut state = self.lock();
        let Some(most) = state.requests_per_minute else { return Ok(()) };
        let minute = now.get() / MINUTE_MS;
        let (begun, requests) = state.minute;
        let requests = if begun == minute { requests } else { 0 };
        if requests >= most {
            return Err(MINUTE_MS.saturating_sub(now.get() % MINUTE_MS).div_ceil(1_000));
        }
        state.minute = (minute, requests.saturating_add(1));
        Ok(())
    }

    /// Whether a request may be admitted: not if too many answers were left behind.
    pub(crate) fn check_taken(&self, now: UnixMilliseconds) -> Result<(), TooManyUntaken> {
        let mut state = self.lock();
        let charged = state.purse.charged();
        state.untaken.admit(charged, now)
    }

    /// Notes that an answer, which would have cost so much, was not taken.
    pub(crate) fn note_untaken(&self, cost: Amount) {
        self.lock().untaken.note(cost);
    }

    /// The counts under a lease.
    pub(crate) fn counts(&self, lease: LeaseId) -> UsageCounts {
        self.lanes().get(&lease).map(|lane| lane.counts).unwrap_or_default()
    }

    /// The lanes, to make a statement on one of them.
    pub(crate) fn lanes(&self) -> MutexGuard<'_, HashMap<LeaseId, LaneState>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets an amount aside.
    pub(crate) fn reserve(self: &Arc<Self>, worst: Amount) -> Result<CustomerReservation, Short> {
        self.lock().purse.reserve(worst)?;
        Ok(CustomerReservation { account: self.clone(), worst, charge: Amount::ZERO })
    }
}

/// Money of a customer that is set aside. When it is dropped, what was not charged is given back.
#[derive(Debug)]
pub(crate) struct CustomerReservation {
    account: Arc<CustomerAccount>,
    worst: Amount,
    charge: Amount,
}

impl CustomerReservation {
    pub(crate) fn account(&self) -> &Arc<CustomerAccount> {
        &self.account
    }

    /// Ends the reservation with a charge.
    pub(crate) fn settle(mut self, charge: Amount) {
        self.charge = charge;
    }
}

impl Drop for CustomerReservation {
    fn drop(&mut self) {
        self.account.lock().purse.settle(self.worst, self.charge);
    }
}
