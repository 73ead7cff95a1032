//! Leases as far as the audit reaches: who is behind them, what they put up, and whether they last.

use alloy_primitives::Address;

use super::{Audit, AuditError, OperatorSet, Surroundings, after};
use crate::{
    counts::UsageTotals,
    escrow::Call,
    ids::{LeaseId, ModelId},
    money::{Prices, Shares},
    units::{Amount, StakeWeight, UnixSeconds},
};

/// Whether a lease may be served under, until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseState {
    /// It may.
    Open,
    /// Its collateral fell short; the host may fill it up and have it reinstated.
    Suspended,
    /// By a verdict, for good.
    Revoked,
}

/// A lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditedLease {
    /// What is served.
    pub model: ModelId,
    /// Who serves.
    pub host: Address,
    /// Whose key signs statements.
    pub lease_key: Address,
    /// What is charged.
    pub prices: Prices,
    /// What is due to the creator.
    pub shares: Shares,
    /// The least bond that the terms ask for.
    pub min_bond: Amount,
    /// The least restaked allocation that the terms ask for.
    pub min_restake: StakeWeight,
    /// The bond.
    pub bond: Amount,
    /// Whether it may be served under.
    pub state: LeaseState,
    /// When it ends, or ended.
    pub ends_at: UnixSeconds,
}

impl Audit {
    /// Tells the audit of a lease as it was opened.
    pub fn add_lease(&mut self, lease: LeaseId, record: AuditedLease) {
        self.leases.insert(lease, record);
    }

    /// A lease; `None` if nobody opened it.
    pub fn lease(&self, lease: LeaseId) -> Option<&AuditedLease> {
        self.leases.get(&lease)
    }

    /// All leases.
    pub fn leases(&self) -> impl Iterator<Item = (LeaseId, &AuditedLease)> {
        self.leases.iter().map(|(lease, record)| (*lease, record))
    }

    /// Until when a lease's host can be accused.
    pub fn claimable_until(&self, lease: LeaseId) -> Result<UnixSeconds, AuditError> {
        Ok(after(self.known_lease(lease)?.ends_at, self.rules.claim_delay))
    }

    /// Ends a lease now; its host calls.
    pub fn close(&mut self, call: Call, lease: LeaseId) -> Result<(), AuditError> {
        self.require_host(call, lease)?;
        let record = self.lease_mut(lease)?;
        if call.now >= record.ends_at {
            return Err(AuditError::LeaseOver { ended_at: record.ends_at });
        }
        record.ends_at = call.now;
        Ok(())
    }

    /// Adds to a lease's bond. Anybody may.
    pub fn add_bond(&mut self, lease: LeaseId, amount: Amount) -> Result<(), AuditError> {
        let record = self.lease_mut(lease)?;
        record.bond = record.bond.checked_add(amount).ok_or(AuditError::Overflow { what: "bonds" })?;
        Ok(())
    }

    /// Suspends a lease whose collateral fell below its terms. Anybody may.
    pub fn suspend(&mut self, surroundings: &impl Surroundings, lease: LeaseId) -> Result<(), AuditError> {
        let record = self.known_lease(lease)?;
        require_state(record, LeaseState::Open)?;
        if require_collateral(surroundings, record).is_ok() {
            return Err(AuditError::CollateralIsEnough);
        }
        self.lease_mut(lease)?.state = LeaseState::Suspended;
        Ok(())
    }

    /// Opens a suspended lease again once its collateral is whole; its host calls.
    pub fn reinstate(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        lease: LeaseId,
    ) -> Result<(), AuditError> {
        self.require_host(call, lease)?;
        let record = self.known_lease(lease)?;
        require_state(record, LeaseState::Suspended)?;
        if call.now >= record.ends_at {
            return Err(AuditError::LeaseOver { ended_at: record.ends_at });
        }
        require_collateral(surroundings, record)?;
        self.lease_mut(lease)?.state = LeaseState::Open;
        Ok(())
    }

    /// Returns the bond of an ended lease to its host, who calls, when nothing can be demanded of it any more: neither by an open
    /// case, nor by the creator for use that was reported and not paid.
    pub fn withdraw_bond(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        lease: LeaseId,
    ) -> Result<Amount, AuditError> {
        self.require_host(call, lease)?;
        let until = after(self.known_lease(lease)?.ends_at, self.rules.unbonding_delay);
        if call.now < until {
            return Err(AuditError::BondLocked { until });
        }
        let open = self.open_cases(lease);
        if open != 0 {
            return Err(AuditError::CasesOpen { open });
        }
        let reported = surroundings.reports(lease).last().map_or(UsageTotals::ZERO, |last| last.cumulative);
        let unpaid = reported.missing_in(&surroundings.settled(lease));
        // It fails only where the floors give more than any payment.
        let owed = self.known_lease(lease)?.shares.royalty_on_down(&unpaid).unwrap_or(Amount::MAX);
        let owed = owed.checked_add(surroundings.royalty_debt(lease)).unwrap_or(Amount::MAX);
        if owed != Amount::ZERO {
            return Err(AuditError::RoyaltyOwed { owed });
        }
        Ok(std::mem::take(&mut self.lease_mut(lease)?.bond))
    }

    /// Takes `wanted`, or what there is, for royalty that was not paid, and suspends the lease.
    pub fn collect_from_bond(&mut self, lease: LeaseId, wanted: Amount) -> Result<Amount, AuditError> {
        let collected = self.seize(lease, wanted)?;
        let record = self.lease_mut(lease)?;
        if record.state == LeaseState::Open {
            record.state = LeaseState::Suspended;
        }
        Ok(collected)
    }

    /// Takes `wanted`, or what there is. A lease whose bond falls short is suspended.
    pub(super) fn seize(&mut self, lease: LeaseId, wanted: Amount) -> Result<Amount, AuditError> {
        let record = self.lease_mut(lease)?;
        let seized = wanted.min(record.bond);
        record.bond = record.bond.saturating_sub(seized);
        if record.state == LeaseState::Open && record.bond < record.min_bond {
            record.state = LeaseState::Suspended;
        }
        Ok(seized)
    }

    /// Ends a lease at once and for good.
    pub(super) fn revoke(&mut self, now: UnixSeconds, lease: LeaseId) -> Result<(), AuditError> {
        let record = self.lease_mut(lease)?;
        record.ends_at = record.ends_at.min(now);
        record.state = LeaseState::Revoked;
        Ok(())
    }

    pub(super) fn known_lease(&self, lease: LeaseId) -> Result<&AuditedLease, AuditError> {
        self.leases.get(&lease).ok_or(AuditError::UnknownLease { lease })
    }

    fn lease_mut(&mut self, lease: LeaseId) -> Result<&mut AuditedLease, AuditError> {
        self.leases.get_mut(&lease).ok_or(AuditError::UnknownLease { lease })
    }

    fn require_host(&self, call: Call, lease: LeaseId) -> Result<(), AuditError> {
        let (expected, actual) = (self.known_lease(lease)?.host, call.caller);
        if actual == expected { Ok(()) } else { Err(AuditError::NotHost { expected, actual }) }
    }
}

fn require_state(record: &AuditedLease, expected: LeaseState) -> Result<(), AuditError> {
    let actual = record.state;
    if actual == expected { Ok(()) } else { Err(AuditError::WrongState { expected, actual }) }
}

fn require_collateral(surroundings: &impl Surroundings, record: &AuditedLease) -> Result<(), AuditError> {
    if record.bond < record.min_bond {
        return Err(AuditError::BondTooSmall { least: record.min_bond, actual: record.bond });
    }
    let stake = surroundings.stake(record.host, OperatorSet::Hosts);
    if stake < record.min_restake || !surroundings.is_member(record.host, OperatorSet::Hosts) {
        return Err(AuditError::RestakeTooSmall { least: record.min_restake, actual: stake });
    }
    Ok(())
}
