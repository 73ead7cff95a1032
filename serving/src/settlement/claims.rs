//! Vouchers become money.

use alloy::{primitives::U256, rpc::types::Filter, sol_types::SolEvent as _};
use alloy_primitives::{B256, keccak256};
use licensing_contracts::{actions::payments, bindings::PaymentEscrow, client::ChainError};
use protocol::{
    ids::{ChannelId, Lane, LeaseId},
    units::{Amount, UnixSeconds},
};

use super::{Receipt, Settlement, SettlementError, undone::Lanes};
use crate::books::{ClaimedLane, Entry};

/// Lanes of one claim.
const BATCH: usize = 50;

/// A lane that is worth a claim.
#[derive(Debug)]
struct Due {
    entry: Entry,
    owed: Amount,
}

impl Due {
    fn key(&self) -> Option<(ChannelId, Lane)> {
        let statement = &self.entry.statement.message;
        statement.channel.map(|channel| (channel, statement.lane))
    }
}

impl Settlement {
    /// Claims what is due, the most valuable lanes first.
    pub(super) async fn claim(&mut self, index: usize) -> Result<(), SettlementError> {
        let mut due = self.due_lanes(index).await?;
        due.sort_by_key(|due| std::cmp::Reverse(due.owed));
        for batch in due.chunks(BATCH) {
            self.claim_batch(index, batch).await?;
        }
        Ok(())
    }

    async fn due_lanes(&self, index: usize) -> Result<Vec<Due>, SettlementError> {
        let Some(lease) = self.lease(index) else { return Ok(Vec::new()) };
        let books = self.metering.books();
        let claimed = books.claimed(lease.served.id).await?;
        let mut due = Vec::new();
        for (entry, first_ended) in books.claimable(lease.served.id).await? {
            let statement = &entry.statement.message;
            let Some(channel) = statement.channel else { continue };
            let before = claimed.iter().find(|lane| (lane.channel, lane.lane) == (channel, statement.lane));
            if statement.step.after().requests() <= before.map_or(0, |lane| lane.requests) {
                continue;
            }
            let owed = entry.lane_cost.saturating_sub(before.map_or(Amount::ZERO, |lane| lane.cost));
            let since = before.map_or(first_ended.second_down(), |lane| lane.claimed_at);
            let is_worth_it = owed >= lease.claims.from || self.is_closing(index, &entry, since);
            if is_worth_it && owed >= lease.claims.least {
                due.push(Due { entry, owed });
            }
        }
        Ok(due)
    }

    /// Whether waiting for more would risk what there is: half of the time in which a host is expected to claim is over, or the
    /// voucher or the lease will not last for long.
    fn is_closing(&self, index: usize, entry: &Entry, since: UnixSeconds) -> bool {
        let now = self.now().second_down();
        let interval = self.metering.chain().spans().claim_interval.get();
        let is_near = |time: UnixSeconds| time.get() <= now.get().saturating_add(interval);
        let age = now.get().saturating_sub(since.get());
        age >= interval / 2
            || entry.voucher.as_ref().is_some_and(|(voucher, _)| is_near(voucher.message.expires_at))
            || self.lease(index).is_some_and(|lease| is_near(lease.details.claimable_until))
    }

    async fn claim_batch(&mut self, index: usize, batch: &[Due]) -> Result<(), SettlementError> {
        let Some(action) = self.claim_of(index, batch).await? else { return Ok(()) };
        match self.sender.simulate(&action).await {
            Ok(_) => {}
            Err(ChainError::Reverted { what, revert }) if batch.len() == 1 => {
                let lease = self.lease(index).map(|lease| lease.served.id);
                // It may be mined already, as when the chain took a claim back and now has it again.
                match lease.zip(batch.first().and_then(Due::key)) {
                    Some((lease, lane)) if self.learn_claims(lease, lane).await? => {}
                    _ => tracing::warn!("{what} is refused: {revert}"),
                }
                return Ok(());
            }
            // One lane that cannot be claimed must not keep the others from being paid.
            Err(ChainError::Reverted { .. }) => {
                let (first, second) = batch.split_at(batch.len() / 2);
                Box::pin(self.claim_batch(index, first)).await?;
                return Box::pin(self.claim_batch(index, second)).await;
            }
            Err(error) => return Err(error.into()),
        }
        let work = work(batch);
        let receipt = self.act(work, &action).await?;
        self.note(index, &receipt).await?;
        self.sender.finish(work)?;
        Ok(())
    }

    async fn claim_of(
        &self,
        index: usize,
        batch: &[Due],
    ) -> Result<Option<licensing_contracts::client::Action>, SettlementError> {
        let Some(lease) = self.lease(index) else { return Ok(None) };
        let mut claims = Vec::with_capacity(batch.len());
        for due in batch {
            let Some((voucher, _)) = &due.entry.voucher else { continue };
            let Some(channel) = self.metering.books().channel(voucher.message.channel).await? else { continue };
            claims.push(payments::Claim {
                channel,
                voucher: voucher.clone(),
                in_flight: Some(due.entry.statement.clone()),
            });
        }
        if claims.is_empty() {
            return Ok(None);
        }
        let to = self.metering.chain().deployment();
        let action = payments::claim(to, lease.served.id, &lease.splits, &claims);
        action.map(Some).map_err(SettlementError::make("a claim"))
    }

    /// Writes down what a claim paid.
    async fn note(&mut self, index: usize, receipt: &Receipt) -> Result<(), SettlementError> {
        let (transaction, block) = (receipt.transaction_hash, receipt.block_number.unwrap_or_default());
        let claimed = payments::claimed(self.metering.chain().deployment(), receipt);
        self.note_events(index, &claimed, transaction, block).await
    }

    async fn note_events(
        &mut self,
        index: usize,
        events: &[PaymentEscrow::Claimed],
        transaction: B256,
        block: u64,
    ) -> Result<(), SettlementError> {
        let Some(lease) = self.lease(index).map(|lease| lease.served.id) else { return Ok(()) };
        let books = self.metering.books().clone();
        let known = books.claimed(lease).await?;
        let claimed_at = self.now().second_down();
        let mut doubted = Lanes::new();
        for event in events.iter().filter(|event| event.leaseId == lease.get()) {
            let (channel, lane) = (ChannelId::from(event.channelId), Lane::new(event.lane));
            let requests: u64 = event.counts.requests.to();
            let before = known.iter().find(|known| (known.channel, known.lane) == (channel, lane));
            if before.is_some_and(|before| before.requests >= requests) {
                continue;
            }
            let claimed = with_event(before, event, transaction, block, claimed_at);
            books.note_claim(&claimed).await?;
            // All claims of a lane together cost what the lane does: otherwise one of them is not in the books.
            if claimed.cost != books.lane_cost(lease, channel, lane, requests).await? {
                doubted.insert((channel, lane));
            }
        }
        if doubted.is_empty() { Ok(()) } else { self.read_claims_again(lease, &doubted).await }
    }

    /// Notes claims that were mined and not written down, as when the process was killed in between.
    pub(super) async fn recall_claims(&mut self, index: usize) -> Result<(), SettlementError> {
        let Some(lease) = self.lease(index).map(|lease| lease.served.id) else { return Ok(()) };
        let to = self.metering.chain().deployment().clone();
        let known = self.metering.books().claimed(lease).await?;
        let newest = known.iter().map(|lane| lane.block).max();
        let from = newest.map_or(to.block, |block| block.saturating_add(1));
        let filter = Filter::new()
            .address(to.payment_escrow)
            .event_signature(PaymentEscrow::Claimed::SIGNATURE_HASH)
            .topic2(B256::from(U256::from(lease.get())));
        let (logs, _) = self.events("claims", &filter, from).await?;
        for log in &logs {
            let Ok(event) = PaymentEscrow::Claimed::decode_log_data(log.data()) else { continue };
            let (transaction, block) = (log.transaction_hash.unwrap_or_default(), log.block_number.unwrap_or_default());
            self.note_events(index, &[event], transaction, block).await?;
        }
        Ok(())
    }
}

/// What is known of a lane's claims with one more.
pub(super) fn with_event(
    before: Option<&ClaimedLane>,
    event: &PaymentEscrow::Claimed,
    transaction: B256,
    block: u64,
    claimed_at: UnixSeconds,
) -> ClaimedLane {
    let sum = |part: fn(&ClaimedLane) -> Amount, more: u128| {
        Amount::new(before.map_or(0, |before| part(before).get()).saturating_add(more))
    };
    let (cost, royalty, validators): (u128, u128, u128) =
        (event.cost.saturating_to(), event.royalty.saturating_to(), event.validatorShare.saturating_to());
    let host = cost.saturating_sub(royalty).saturating_sub(validators);
    ClaimedLane {
        channel: event.channelId.into(),
        lane: Lane::new(event.lane),
        lease: LeaseId::new(event.leaseId),
        requests: event.counts.requests.to(),
        cost: sum(|lane| lane.cost, cost),
        host_share: sum(|lane| lane.host_share, host),
        royalty: sum(|lane| lane.royalty, royalty),
        validator_share: sum(|lane| lane.validator_share, validators),
        transaction,
        block,
        claimed_at,
    }
}

/// A claim is of these lanes up to these requests.
fn work(batch: &[Due]) -> B256 {
    let mut bytes = Vec::new();
    for due in batch {
        if let Some((channel, lane)) = due.key() {
            bytes.extend_from_slice(channel.as_bytes());
            bytes.extend_from_slice(&lane.get().to_be_bytes());
            bytes.extend_from_slice(&due.entry.statement.message.step.after().requests().to_be_bytes());
        }
    }
    keccak256(bytes)
}
