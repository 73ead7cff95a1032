//! The creator's share of what customers pay for in money.

use alloy_primitives::U256;
use licensing_contracts::actions::{self, payments};
use protocol::units::Amount;

use super::{Settlement, SettlementError, reports::work};

impl Settlement {
    /// Pays the royalty on every report that is on the chain, from the host's own tokens.
    pub(super) async fn pay_royalties(&mut self, index: usize) -> Result<(), SettlementError> {
        let Some(lease) = self.lease(index) else { return Ok(()) };
        let (id, splits, token) = (lease.served.id, lease.splits.clone(), lease.served.token);
        let to = self.metering.chain().deployment().clone();
        for (position, used) in self.metering.books().royalties_due(id).await? {
            let action = payments::settle_royalty(&to, id, position, used, &splits);
            let action = action.map_err(SettlementError::make("a royalty"))?;
            let work = work("royalty", id.get(), position);
            if !self.sender.is_under_way(work, &action) {
                // No royalty is more than the charge.
                self.allow(token, used.charge).await?;
            }
            let receipt = self.act(work, &action).await?;
            self.metering.books().royalty_paid(id, position, receipt.block_number.unwrap_or_default()).await?;
            self.sender.finish(work)?;
        }
        Ok(())
    }

    async fn allow(&mut self, token: alloy_primitives::Address, amount: Amount) -> Result<(), SettlementError> {
        let (chain, account) = (self.metering.chain().clone(), self.sender.account());
        let escrow = chain.deployment().payment_escrow;
        let steps = actions::allow(chain.client(), token, account, escrow, amount).await?;
        for step in steps {
            self.sender.send(&step).await?;
            tracing::debug!(amount = %U256::from(amount.get()), "{}", step.what);
        }
        Ok(())
    }
}
