//! Bonds in the chain's own coin: a stranger needs no token to ask or to accuse, and whoever loses pays the other side.

use std::collections::BTreeMap;

use alloy_primitives::Address;

use super::AuditError;
use crate::units::Amount;

/// Coins that a contract holds: bonds of what is open, and bonds that wait for somebody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoinBonds {
    held: Amount,
    owed: BTreeMap<Address, Amount>,
}

impl CoinBonds {
    pub(super) const fn new() -> Self {
        Self { held: Amount::ZERO, owed: BTreeMap::new() }
    }

    /// All coins there: by conservation, the bonds of what is open and what is owed.
    pub const fn held(&self) -> Amount {
        self.held
    }

    /// What waits for an account.
    pub fn owed(&self, account: Address) -> Amount {
        self.owed.get(&account).copied().unwrap_or_default()
    }

    /// Everything that waits for somebody.
    pub fn all_owed(&self) -> impl Iterator<Item = (Address, Amount)> {
        self.owed.iter().map(|(account, amount)| (*account, *amount))
    }

    /// Takes the bond that came with a call.
    pub(super) fn take(&mut self, expected: Amount, actual: Amount) -> Result<(), AuditError> {
        require_bond(expected, actual)?;
        // There are not so many coins on any chain.
        self.held = Amount::new(self.held.get().saturating_add(expected.get()));
        Ok(())
    }

    /// Gives a bond away, to be withdrawn: an account that cannot be paid must not keep a case from being closed.
    pub(super) fn owe(&mut self, account: Address, amount: Amount) {
        if amount != Amount::ZERO {
            let owed = self.owed.entry(account).or_default();
            *owed = Amount::new(owed.get().saturating_add(amount.get()));
        }
    }

    pub(super) fn withdraw(&mut self, account: Address) -> Result<Amount, AuditError> {
        let amount = self.owed.remove(&account).ok_or(AuditError::NothingOwed { account })?;
        // What is owed is held.
        self.held = self.held.saturating_sub(amount);
        Ok(amount)
    }
}

pub(super) fn require_bond(expected: Amount, actual: Amount) -> Result<(), AuditError> {
    if actual == expected { Ok(()) } else { Err(AuditError::WrongBond { expected, actual }) }
}
