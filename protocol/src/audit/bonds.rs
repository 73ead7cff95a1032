//! How what is taken of a bond is shared.

use alloy_primitives::Address;

use crate::units::{Amount, BasisPoints};

/// The reporter's share of what is left once those who were harmed are whole: 30 %.
const REPORTER: BasisPoints = BasisPoints::constant::<3_000>();

/// Who was harmed, by how much, and who reported it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compensation {
    /// A customer, and what he is to be paid back.
    pub payer: Option<(Address, Amount)>,
    /// What the creator lost.
    pub creator_loss: Amount,
    /// Who reported.
    pub reporter: Option<Address>,
}

impl Compensation {
    /// What those who were harmed are due.
    pub(super) fn harm(&self) -> Amount {
        let refund = self.payer.map_or(Amount::ZERO, |(_, refund)| refund);
        // More than any bond is as good as that.
        refund.checked_add(self.creator_loss).unwrap_or(Amount::MAX)
    }
}

/// Where the seized part of a bond goes; the parts add up to it exactly.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BondShares {
    /// The customer's.
    pub payer: Amount,
    /// The creator's: his loss, and what the reporter leaves.
    pub creator: Amount,
    /// The reporter's.
    pub reporter: Amount,
}

impl BondShares {
    /// In this order: the customer up to his refund, the creator up to his loss, the reporter's share of the rest rounded
    /// down, and what is left to the creator.
    pub fn divide_down(seized: Amount, compensation: &Compensation) -> Self {
        let payer = compensation.payer.map_or(Amount::ZERO, |(_, refund)| refund.min(seized));
        let left = seized.saturating_sub(payer);
        let loss = compensation.creator_loss.min(left);
        let rest = left.saturating_sub(loss);
        let reporter = compensation.reporter.map_or(Amount::ZERO, |_| REPORTER.share_down(rest));
        // Nothing saturates: each part is at most what was left before it.
        Self { payer, creator: left.saturating_sub(reporter), reporter }
    }

    /// Everything together.
    pub const fn total(&self) -> Amount {
        // Parts of one amount.
        Amount::new(self.payer.get().saturating_add(self.creator.get()).saturating_add(self.reporter.get()))
    }
}
