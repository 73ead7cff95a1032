//! What a host is punished for, and how.

use alloy_primitives::Address;

use super::{Audit, AuditError, BondShares, Compensation, OperatorSet, Surroundings};
use crate::{
    ids::LeaseId,
    messages::TaskKind,
    units::{Amount, BasisPoints, UnixSeconds},
};

/// What a host is punished for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Offence {
    /// Another model answered under the lease: by verdict.
    Substitution,
    /// A bill did not follow from the delivered bytes: by verdict.
    TokenCount,
    /// The model was served outside of the protocol: by verdict.
    OutsideService,
    /// The host's own copy was served by somebody else: by verdict.
    VariantLeak,
    /// A statement was not shown in time.
    Silence,
    /// A statement is in none of its epoch's reports.
    Omission,
    /// Two statements cannot both be true.
    Equivocation,
    /// A charge is not what the prices give.
    Misprice,
}

/// What an offence costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// Share of the bond; more where those who were harmed are due more.
    pub bond: BasisPoints,
    /// Share of the allocation.
    pub allocation: BasisPoints,
    /// Whether the lease ends at once and for good.
    pub revokes: bool,
}

impl Offence {
    /// What it costs. Small where a mistake is possible, large where only intent explains it, all of it where the licence
    /// itself is broken.
    pub const fn penalty(self) -> Penalty {
        match self {
            Self::TokenCount | Self::Silence | Self::Omission | Self::Misprice => {
                Penalty { bond: FIFTH, allocation: TENTH, revokes: false }
            }
            Self::Equivocation => Penalty { bond: HALF, allocation: HALF, revokes: false },
            Self::Substitution => Penalty { bond: HALF, allocation: HALF, revokes: true },
            Self::OutsideService | Self::VariantLeak => {
                Penalty { bond: BasisPoints::WHOLE, allocation: BasisPoints::WHOLE, revokes: true }
            }
        }
    }

    /// What a host is punished for whom a verdict finds guilty; `None` for ownership, which is nobody's offence.
    pub const fn of_verdict(kind: TaskKind) -> Option<Self> {
        match kind {
            TaskKind::Substitution => Some(Self::Substitution),
            TaskKind::TokenCount => Some(Self::TokenCount),
            TaskKind::OutsideService => Some(Self::OutsideService),
            TaskKind::VariantLeak => Some(Self::VariantLeak),
            TaskKind::Ownership => None,
        }
    }
}

const TENTH: BasisPoints = BasisPoints::constant::<1_000>();
const FIFTH: BasisPoints = BasisPoints::constant::<2_000>();
const HALF: BasisPoints = BasisPoints::constant::<5_000>();

/// A punishment that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Punishment {
    /// Under which lease.
    pub lease: LeaseId,
    /// Whom.
    pub host: Address,
    /// For what.
    pub offence: Offence,
    /// Where the seized part of the bond goes.
    pub shares: BondShares,
    /// Who of those there is.
    pub compensation: Compensation,
    /// Who is paid the creator's part.
    pub creator: Address,
    /// The share of the allocation that was slashed; none where the host left too long ago.
    pub slashed: Option<BasisPoints>,
}

impl Punishment {
    /// What is credited in the escrow, in the lease's token.
    pub fn credits(&self) -> impl Iterator<Item = (Address, Amount)> {
        let payer = self.compensation.payer.map(|(payer, _)| (payer, self.shares.payer));
        let reporter = self.compensation.reporter.map(|reporter| (reporter, self.shares.reporter));
        let all = [payer, Some((self.creator, self.shares.creator)), reporter];
        all.into_iter().flatten().filter(|(_, amount)| *amount != Amount::ZERO)
    }
}

impl Audit {
    /// The bond pays, the allocation is slashed. Of the bond goes the penalty's share, or more if those who were harmed are
    /// due more, as far as it is there.
    pub(super) fn punish(
        &mut self,
        now: UnixSeconds,
        surroundings: &impl Surroundings,
        lease: LeaseId,
        offence: Offence,
        compensation: Compensation,
    ) -> Result<Punishment, AuditError> {
        let penalty = offence.penalty();
        let record = self.known_lease(lease)?;
        let (host, model) = (record.host, record.model);
        let wanted = penalty.bond.share_down(record.bond).max(compensation.harm());
        // Every lease's model has an owner.
        let creator = self.creator(model).unwrap_or_default();
        let seized = self.seize(lease, wanted)?;
        let slashed = self.slash(surroundings, host, OperatorSet::Hosts, penalty.allocation);
        if penalty.revokes {
            self.revoke(now, lease)?;
        }
        let shares = BondShares::divide_down(seized, &compensation);
        Ok(Punishment { lease, host, offence, shares, compensation, creator, slashed })
    }

    /// Slashes a share of what an operator allocated, rounded up as EigenLayer does; nothing where it left too long ago.
    pub(super) fn slash(
        &mut self,
        surroundings: &impl Surroundings,
        operator: Address,
        set: OperatorSet,
        share: BasisPoints,
    ) -> Option<BasisPoints> {
        if !surroundings.is_slashable(operator, set) {
            return None;
        }
        if let Some(magnitude) = self.allocations.get_mut(&(operator, set)) {
            // The rest rounds down, so that what is taken rounds up. At most the whole, which has 64 bits.
            let whole = BasisPoints::WHOLE.get();
            let rest = u128::from(whole.saturating_sub(share.get()));
            let left = u128::from(*magnitude).saturating_mul(rest).checked_div(u128::from(whole));
            *magnitude = left.and_then(|left| u64::try_from(left).ok()).unwrap_or_default();
        }
        Some(share)
    }
}
