//! Claims that the chain took back.
//!
//! A claim is noted when it is confirmed, and a reorganisation can go deeper than that. What the books then hold too much is taken
//! off, and the lane is due again. Nothing is paid twice by that: the contract keeps the counts of each lane, pays for what is
//! beyond them, and refuses a claim that has nothing new.

use std::collections::{BTreeMap, BTreeSet};

use alloy::{providers::Provider as _, rpc::types::Filter, sol_types::SolEvent as _};
use alloy_primitives::{B256, U256};
use licensing_contracts::{bindings::PaymentEscrow, client::ChainError};
use protocol::{
    ids::{ChannelId, Lane, LeaseId},
    units::UnixSeconds,
};

use super::{Settlement, SettlementError, claims::with_event};
use crate::{books::ClaimedLane, chain::DEPTH};

/// Lanes of a lease.
pub(super) type Lanes = BTreeSet<(ChannelId, Lane)>;

impl Settlement {
    /// Looks whether the chain still has the claims that it may take back.
    pub(super) async fn look_for_undone_claims(&mut self, index: usize) -> Result<(), SettlementError> {
        let Some(lease) = self.lease(index) else { return Ok(()) };
        let (id, looked) = (lease.served.id, lease.claims_looked_at);
        let client = self.metering.chain().client().clone();
        let head = client.head().await?.number;
        let books = self.metering.books();
        // What was deep enough when it was last looked at stays.
        let looked = match looked {
            Some(looked) => looked,
            // An earlier process looked when it noted its newest claim, or later.
            None => books.claimed(id).await?.iter().map(|lane| lane.block).max().unwrap_or(head),
        };
        let claimed = books.claimed_since(id, looked.saturating_sub(DEPTH)).await?;
        let mut recent: BTreeMap<B256, Lanes> = BTreeMap::new();
        // A node that has not come so far can say nothing.
        for lane in claimed.iter().filter(|lane| lane.block <= head) {
            recent.entry(lane.transaction).or_default().insert((lane.channel, lane.lane));
        }
        let mut undone = Lanes::new();
        for (transaction, lanes) in recent {
            let receipt = client.provider().get_transaction_receipt(transaction).await;
            let attempted = || format!("look for the claim {transaction}");
            let receipt = receipt.map_err(|source| ChainError::Rpc { attempted: attempted(), source })?;
            if !receipt.is_some_and(|receipt| receipt.status()) {
                tracing::warn!(%transaction, "the chain no longer has the claim {transaction}");
                undone.extend(lanes);
            }
        }
        if !undone.is_empty() {
            self.read_claims_again(id, &undone).await?;
        }
        if let Some(lease) = self.leases.get_mut(index) {
            lease.claims_looked_at = Some(head);
        }
        Ok(())
    }

    /// Puts into the books what the chain says now of the claims of these lanes.
    pub(super) async fn read_claims_again(&self, lease: LeaseId, lanes: &Lanes) -> Result<(), SettlementError> {
        let chain = self.metering.chain();
        let to = chain.deployment();
        let channels: BTreeSet<B256> = lanes.iter().map(|(channel, _)| channel.word()).collect();
        let filter = Filter::new()
            .address(to.payment_escrow)
            .event_signature(PaymentEscrow::Claimed::SIGNATURE_HASH)
            .topic1(channels.into_iter().collect::<Vec<_>>())
            .topic2(B256::from(U256::from(lease.get())));
        let (logs, _) = self.events("claims", &filter, to.block).await?;
        let mut found: BTreeMap<(ChannelId, Lane), ClaimedLane> = BTreeMap::new();
        for log in &logs {
            let Ok(event) = PaymentEscrow::Claimed::decode_log_data(log.data()) else { continue };
            let lane = (event.channelId.into(), Lane::new(event.lane));
            if lanes.contains(&lane) {
                let (transaction, block) =
                    (log.transaction_hash.unwrap_or_default(), log.block_number.unwrap_or_default());
                let claimed = with_event(found.get(&lane), &event, transaction, block, UnixSeconds::new(0));
                found.insert(lane, claimed);
            }
        }
        // Claims are made again after a time: that of their block, not that of this look.
        for claimed in found.values_mut() {
            let block = chain.client().block(claimed.block.into()).await?;
            claimed.claimed_at = UnixSeconds::new(block.map_or(0, |block| block.timestamp_s));
        }
        let lanes: Vec<_> = lanes.iter().copied().collect();
        let found: Vec<_> = found.into_values().collect();
        self.metering.books().replace_claims(&lanes, &found).await?;
        Ok(())
    }

    /// Whether chain and books say different things of a lane. The books then take over what the chain says.
    pub(super) async fn learn_claims(
        &self,
        lease: LeaseId,
        (channel, lane): (ChannelId, Lane),
    ) -> Result<bool, SettlementError> {
        let claimed = self.metering.books().claimed(lease).await?;
        let known = claimed.iter().find(|known| (known.channel, known.lane) == (channel, lane));
        let on_chain = self.metering.chain().claimed_requests(channel, lane).await?;
        if on_chain == known.map_or(0, |known| known.requests) {
            return Ok(false);
        }
        self.read_claims_again(lease, &Lanes::from([(channel, lane)])).await?;
        Ok(true)
    }
}
