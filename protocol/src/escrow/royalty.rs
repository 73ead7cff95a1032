//! Royalty on use that no voucher pays.

use super::{Call, Escrow, EscrowError, LeaseAccount, Surroundings, claims::require_splits, require_host, sum};
use crate::{
    counts::UsageTotals,
    ids::LeaseId,
    splits::Splits,
    units::{Amount, UnixSeconds},
};

/// One report of a lease, as `UsageLog` keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// When it was made.
    pub committed_at: UnixSeconds,
    /// Everything that the lease had reported then, this report included.
    pub cumulative: UsageTotals,
}

/// What was collected from a bond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// What the lease owed.
    pub owed: Amount,
    /// What the bond paid of it.
    pub collected: Amount,
}

impl Escrow {
    /// Pays the royalty on reported use that was billed outside of the escrow; the host calls and pays. It counts as claimed.
    pub fn settle_royalty(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        lease: LeaseId,
        used: &UsageTotals,
        splits: &Splits,
    ) -> Result<Amount, EscrowError> {
        let account = lease_of(surroundings, lease)?;
        require_host(account.host, call.caller)?;
        require_splits(&account, splits)?;
        self.attempt(|next| {
            next.settle(surroundings, lease, used)?;
            let royalty = account.shares.royalty_on_down(used)?;
            next.credit_royalty(&account, splits, royalty)?;
            next.receive(account.token, royalty)?;
            Ok(royalty)
        })
    }

    /// Collects the royalty on use that was reported and not paid in time, from the lease's bond, of which `bond` is there.
    /// Anybody may call.
    pub fn enforce_royalty(
        &mut self,
        call: Call,
        surroundings: &impl Surroundings,
        lease: LeaseId,
        report: &Report,
        bond: Amount,
        splits: &Splits,
    ) -> Result<Enforced, EscrowError> {
        let account = lease_of(surroundings, lease)?;
        require_splits(&account, splits)?;
        let due_at =
            report.committed_at.checked_add(account.dispute_window).ok_or(EscrowError::Overflow { what: "times" })?;
        if call.now <= due_at {
            return Err(EscrowError::NotDue { due_at });
        }
        let known = self.settled(lease);
        let missing = report.cumulative.missing_in(&known);
        let owed = sum("royalties", account.shares.royalty_on_down(&missing)?, self.royalty_debt(lease))?;
        if owed == Amount::ZERO {
            return Err(EscrowError::NothingOwed);
        }
        self.attempt(|next| {
            next.settled.insert(lease, report.cumulative.larger(&known));
            let collected = owed.min(bond);
            next.receive(account.token, collected)?;
            next.royalty_debt.insert(lease, owed.saturating_sub(collected));
            next.credit_royalty(&account, splits, collected)?;
            Ok(Enforced { owed, collected })
        })
    }
}

fn lease_of(surroundings: &impl Surroundings, lease: LeaseId) -> Result<LeaseAccount, EscrowError> {
    surroundings.lease(lease).ok_or(EscrowError::UnknownLease { lease })
}
