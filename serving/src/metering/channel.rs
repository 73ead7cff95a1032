//! A channel as its host keeps account of it: deposit, session keys, lanes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use alloy_primitives::Address;
use protocol::{
    counts::UsageCounts,
    ids::{ChannelId, Lane, LeaseId, StatementDigest},
    messages::{Channel, Voucher},
    units::{Amount, UnixMilliseconds, UnixSeconds},
};

use super::{
    purse::{Purse, Short},
    untaken::{TooManyUntaken, Untaken},
};
use crate::books::LaneHead;

/// What the chain says of a channel's money.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChannelFacts {
    /// Everything that came in, less withdrawals.
    pub(crate) deposited: Amount,
    /// Everything that was claimed.
    pub(crate) spent: Amount,
    /// What is announced to be taken out.
    pub(crate) withdrawal: Amount,
}

/// What the chain says of a session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GrantFacts {
    pub(crate) cap: Amount,
    pub(crate) spent: Amount,
    pub(crate) per_request_cap: Amount,
    pub(crate) expires_at: UnixSeconds,
    /// The payer ended it: what it signed before can be claimed, and nothing new is accepted.
    pub(crate) is_revoked: bool,
}

/// Lanes of one channel. Each is looked up on the chain when something happens to the channel.
const MOST_LANES: usize = 256;

/// What lanes had cost when they were last claimed.
pub(crate) type ClaimedCosts = Vec<(Lane, Amount)>;

/// Why a voucher is not the next one of its lane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LaneError {
    /// A request runs on it.
    Busy,
    /// The channel has enough others.
    TooMany,
    /// The lane belongs to another lease.
    OtherLease { lease: LeaseId },
    /// The lane belongs to another key.
    OtherSigner { signer: Address },
    /// The payer did not accept the newest statement yet.
    Behind { counts: UsageCounts, head: Option<StatementDigest> },
    /// The payer accepts more than was stated.
    Ahead { counts: UsageCounts, head: Option<StatementDigest> },
    /// The counts are right and the statement is another one.
    OtherHead { head: Option<StatementDigest> },
}

/// Why a request is not admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReserveError {
    Lane(LaneError),
    /// The deposit does not cover it.
    Deposit(Short),
    /// The session key's cap does not.
    Cap(Short),
}

#[derive(Clone, Copy, Debug)]
struct LaneState {
    lease: LeaseId,
    signer: Option<Address>,
    counts: UsageCounts,
    head: Option<StatementDigest>,
    cost: Amount,
    is_busy: bool,
}

#[derive(Debug)]
struct State {
    deposit: Purse,
    /// Session keys with what is known of their grants.
    keys: HashMap<Address, (GrantFacts, Purse)>,
    lanes: HashMap<Lane, LaneState>,
    untaken: Untaken,
}

/// A channel's account. All of it is decided under one lock that is never held across a wait.
#[derive(Debug)]
pub(crate) struct ChannelAccount {
    id: ChannelId,
    channel: Channel,
    state: Mutex<State>,
}

impl ChannelAccount {
    /// The account as the books have it; the chain's facts follow with [`learn`](Self::learn).
    pub(crate) fn new(id: ChannelId, channel: Channel, heads: &[LaneHead]) -> Self {
        let charged = heads.iter().fold(0_u128, |sum, head| sum.saturating_add(head.cost.get()));
        let lanes = heads.iter().map(|head| (head.lane, LaneState::of(head))).collect();
        let deposit = Purse::new(Some(Amount::ZERO), Amount::new(charged));
        let state = State { deposit, keys: HashMap::new(), lanes, untaken: Untaken::default() };
        Self { id, channel, state: Mutex::new(state) }
    }

    pub(crate) fn id(&self) -> ChannelId {
        self.id
    }

    pub(crate) fn channel(&self) -> &Channel {
        &self.channel
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session key's grant, if it was looked up.
    pub(crate) fn grant(&self, key: Address) -> Option<GrantFacts> {
        self.lock().keys.get(&key).map(|(facts, _)| *facts)
    }

    /// Session keys whose grants are known.
    pub(crate) fn keys(&self) -> Vec<Address> {
        self.lock().keys.keys().copied().collect()
    }

    /// Whether the books have a statement of a lane, or a request runs on it.
    pub(crate) fn knows(&self, lane: Lane) -> bool {
        self.lock().lanes.contains_key(&lane)
    }

    /// Lanes that the books know, with their leases.
    pub(crate) fn lanes(&self) -> Vec<(Lane, LeaseId)> {
        self.lock().lanes.iter().filter(|(_, lane)| lane.head.is_some()).map(|(id, lane)| (*id, lane.lease)).collect()
    }

    /// Takes over what the chain says of the deposit. `claimed` is what was claimed of the lanes that the books know: what the
    /// chain says beyond it was spent elsewhere.
    pub(crate) fn learn(&self, facts: &ChannelFacts, claimed: &ClaimedCosts) {
        let ours = claimed.iter().fold(0_u128, |sum, (_, cost)| sum.saturating_add(cost.get()));
        let elsewhere = facts.spent.saturating_sub(Amount::new(ours));
        // What is announced goes out sooner or later: it pays for nothing new.
        let limit = facts.deposited.saturating_sub(facts.withdrawal);
        self.lock().deposit.set_limit(Some(limit), elsewhere);
    }

    /// Takes over what the chain says of a session key.
    pub(crate) fn learn_grant(&self, key: Address, facts: &GrantFacts, claimed: &ClaimedCosts) {
        let mut state = self.lock();
        let is_the_key_s = |lane: &Lane| state.lanes.get(lane).is_some_and(|lane| lane.signer == Some(key));
        let ours = claimed.iter().filter(|(lane, _)| is_the_key_s(lane));
        let ours = ours.fold(0_u128, |sum, (_, cost)| sum.saturating_add(cost.get()));
        let charged = state.lanes.values().filter(|lane| lane.signer == Some(key));
        let charged = charged.fold(0_u128, |sum, lane| sum.saturating_add(lane.cost.get()));
        let known = state.keys.entry(key).or_insert_with(|| (*facts, Purse::new(None, Amount::new(charged))));
        known.0 = *facts;
        known.1.set_limit(Some(facts.cap), facts.spent.saturating_sub(Amount::new(ours)));
    }

    /// Whether a request may be admitted: not if too many answers were left behind.
    pub(crate) fn check_taken(&self, now: UnixMilliseconds) -> Result<(), TooManyUntaken> {
        let mut state = self.lock();
        let charged = state.deposit.charged();
        state.untaken.admit(charged, now)
    }

    /// Notes that an answer, which would have cost so much, was not taken.
    pub(crate) fn note_untaken(&self, cost: Amount) {
        self.lock().untaken.note(cost);
    }

    /// Sets `worst` aside for a request on the voucher's lane, if the voucher is the lane's next one and there is enough. The
    /// payer's own key has no cap of its own.
    pub(crate) fn reserve(
        self: &Arc<Self>,
        voucher: &Voucher,
        signer: Address,
        worst: Amount,
    ) -> Result<Reservation, ReserveError> {
        let mut state = self.lock();
        let state = &mut *state;
        let mut lane = state.lanes.get(&voucher.lane).copied().unwrap_or(LaneState::new(voucher.lease));
        lane.check(voucher, signer).map_err(ReserveError::Lane)?;
        if lane.head.is_none() && state.lanes.len() >= MOST_LANES {
            return Err(ReserveError::Lane(LaneError::TooMany));
        }
        state.deposit.reserve(worst).map_err(ReserveError::Deposit)?;
        if signer != self.channel.payer {
            let nothing = Short { required: worst, available: Amount::ZERO };
            let reserved = state.keys.get_mut(&signer).map_or(Err(nothing), |(_, purse)| purse.reserve(worst));
            if let Err(short) = reserved {
                state.deposit.settle(worst, Amount::ZERO);
                return Err(ReserveError::Cap(short));
            }
        }
        (lane.is_busy, lane.signer) = (true, Some(signer));
        // Only now: refused vouchers leave nothing behind.
        state.lanes.insert(voucher.lane, lane);
        Ok(Reservation { account: self.clone(), lane: voucher.lane, signer, worst, is_open: true })
    }

    /// Gives the lane back, with what was charged on it.
    fn settle(&self, reservation: &Reservation, charged: Option<&Charged>) {
        let mut state = self.lock();
        let state = &mut *state;
        let charge = charged.map_or(Amount::ZERO, |charged| charged.charge);
        state.deposit.settle(reservation.worst, charge);
        if let Some((_, purse)) = state.keys.get_mut(&reservation.signer) {
            purse.settle(reservation.worst, charge);
        }
        let Some(lane) = state.lanes.get_mut(&reservation.lane) else { return };
        lane.is_busy = false;
        if let Some(charged) = charged {
            (lane.counts, lane.head, lane.cost) = (charged.counts, Some(charged.head), charged.lane_cost);
        } else if lane.head.is_none() {
            state.lanes.remove(&reservation.lane);
        }
    }

    /// Whether a request runs on it.
    pub(crate) fn is_in_use(&self) -> bool {
        self.lock().deposit.is_in_use()
    }
}

impl LaneState {
    fn new(lease: LeaseId) -> Self {
        Self { lease, signer: None, counts: UsageCounts::default(), head: None, cost: Amount::ZERO, is_busy: false }
    }

    fn of(head: &LaneHead) -> Self {
        Self {
            lease: head.lease,
            signer: head.signer,
            counts: head.counts,
            head: Some(head.head),
            cost: head.cost,
            is_busy: false,
        }
    }

    fn check(&self, voucher: &Voucher, signer: Address) -> Result<(), LaneError> {
        let Self { lease, counts, head, .. } = *self;
        if self.is_busy {
            return Err(LaneError::Busy);
        }
        if voucher.lease != lease {
            return Err(LaneError::OtherLease { lease });
        }
        if let Some(other) = self.signer.filter(|other| *other != signer && head.is_some()) {
            // A claim books all of a lane's new use under the key that signed last.
            return Err(LaneError::OtherSigner { signer: other });
        }
        if voucher.counts == counts {
            return if voucher.statements_head == head { Ok(()) } else { Err(LaneError::OtherHead { head }) };
        }
        if voucher.counts.requests() < counts.requests() {
            Err(LaneError::Behind { counts, head })
        } else {
            Err(LaneError::Ahead { counts, head })
        }
    }
}

/// What a statement charged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charged {
    pub(crate) counts: UsageCounts,
    pub(crate) head: StatementDigest,
    pub(crate) charge: Amount,
    pub(crate) lane_cost: Amount,
}

/// Money that is set aside, and the lane that nobody else may use meanwhile. Dropped without a charge it gives both back.
#[derive(Debug)]
pub(crate) struct Reservation {
    account: Arc<ChannelAccount>,
    lane: Lane,
    signer: Address,
    worst: Amount,
    is_open: bool,
}

impl Reservation {
    pub(crate) fn account(&self) -> &ChannelAccount {
        &self.account
    }

    /// Ends the reservation with a charge.
    pub(crate) fn settle(mut self, charged: &Charged) {
        self.is_open = false;
        self.account.settle(&self, Some(charged));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.is_open {
            self.account.settle(self, None);
        }
    }
}
