//! The creator's share of what customers pay for in money.

use alloy::{rpc::types::Filter, sol_types::SolEvent as _};
use alloy_primitives::{B256, U256};
use licensing_contracts::{
    actions::{self, payments},
    bindings::PaymentEscrow,
};
use protocol::{ids::LeaseId, units::Amount};

use super::{Settlement, SettlementError, reports::work};

impl Settlement {
    /// Pays the royalty on every report that is on the chain, from the host's own tokens.
    pub(super) async fn pay_royalties(&mut self, index: usize) -> Result<(), SettlementError> {
        let Some(lease) = self.lease(index) else { return Ok(()) };
        let (id, splits, token) = (lease.served.id, lease.splits.clone(), lease.served.token);
        let to = self.metering.chain().deployment().clone();
        let books = self.metering.books().clone();
        let due = books.royalties_due(id).await?;
        let Some((first, _)) = due.first() else { return Ok(()) };
        let reports = books.reports(id).await?;
        let since = reports.iter().find(|report| report.position == *first).and_then(|report| report.block);
        let collected = self.collected(id, since.unwrap_or(to.block)).await?;
        for (position, used) in due {
            let action = payments::settle_royalty(&to, id, position, used, &splits);
            let action = action.map_err(SettlementError::make("a royalty"))?;
            let work = work("royalty", id.get(), position);
            if !self.sender.is_under_way(work, &action) {
                if let Some((_, block)) = collected.filter(|(until, _)| position <= *until) {
                    tracing::warn!("the royalty on report {position} of lease {id} was taken from its bond");
                    books.royalty_paid(id, position, block).await?;
                    continue;
                }
                // No royalty is more than the charge.
                self.allow(token, used.charge).await?;
            }
            let receipt = self.act(work, &action).await?;
            books.royalty_paid(id, position, receipt.block_number.unwrap_or_default()).await?;
            self.sender.finish(work)?;
        }
        Ok(())
    }

    /// The newest report up to which somebody had the royalty taken from the bond, and the block: what is late can be enforced.
    async fn collected(&self, lease: LeaseId, since: u64) -> Result<Option<(u64, u64)>, SettlementError> {
        let filter = Filter::new()
            .address(self.metering.chain().deployment().payment_escrow)
            .event_signature(PaymentEscrow::RoyaltyEnforced::SIGNATURE_HASH)
            .topic1(B256::from(U256::from(lease.get())));
        let (logs, _) = self.events("royalties that were enforced", &filter, since).await?;
        let enforced = logs.iter().filter_map(|log| {
            let event = PaymentEscrow::RoyaltyEnforced::decode_log_data(log.data()).ok()?;
            Some((event.reportIndex.saturating_to(), log.block_number.unwrap_or_default()))
        });
        Ok(enforced.max())
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
