//! Reports of epochs that are over.

use alloy::sol_types::SolValue as _;
use alloy_primitives::{B256, U256, keccak256};
use licensing_contracts::{actions::usage, bindings::UsageLog};
use protocol::{
    ids::{Epoch, EpochCommitDigest},
    merkle_sum::{Leaf, MerkleSumTree},
    messages::{Domain, EpochCommit, Message as _},
};

use super::{Settlement, SettlementError};
use crate::books::StoredReport;

/// After an epoch's end, until its report is made: clocks of hosts and chains differ a little.
const MARGIN_S: u64 = 2;
/// Epochs that are looked through again although they were reported: a clock may have been set back.
const AGAIN: u64 = 2;

impl Settlement {
    /// Sends what was written down, and makes a report of what ended in epochs that are over.
    pub(super) async fn report(&mut self, index: usize) -> Result<(), SettlementError> {
        let Some(lease) = self.lease(index).map(|lease| lease.served.id) else { return Ok(()) };
        let books = self.metering.books().clone();
        let stored = books.reports(lease).await?;
        let (client, to) = (self.metering.chain().client().clone(), self.metering.chain().deployment().clone());
        let on_chain = client.call(to.usage_log, &UsageLog::reportsCall { leaseId: lease.get() }).await?;
        let (on_chain, known): (u64, _) = (on_chain.saturating_to(), u64::try_from(stored.len()).unwrap_or(u64::MAX));
        if on_chain > known {
            return Err(SettlementError::ReportedElsewhere { lease, on_chain, known });
        }
        let mut previous = None;
        for report in stored {
            previous = Some(report.digest);
            // Also one that was in a block and no longer is.
            if report.block.is_none() || report.position >= on_chain {
                self.send_report(&report, on_chain).await?;
            }
        }
        let end = self.epochs_over();
        // Before it is looked for what ended before that.
        self.metering.close_epochs_before(lease, end);
        // Nothing while one of the statements may still be on its way to the disk.
        if !self.metering.journal().flushed().await {
            return Ok(());
        }
        for (epoch, leaves) in self.due(index, end).await? {
            let stored = self.make_report(index, epoch, &leaves, previous).await?;
            books.add_report(&stored, &leaves).await?;
            previous = Some(stored.digest);
            self.send_report(&stored, on_chain).await?;
        }
        if let Some(lease) = self.leases.get_mut(index) {
            lease.unreported_from = Epoch::new(end.get().saturating_sub(AGAIN));
        }
        Ok(())
    }

    /// The epochs before this one are over.
    fn epochs_over(&self) -> Epoch {
        let length = self.metering.chain().spans().epoch.get().max(1);
        let now = self.now().second_down().get().saturating_sub(MARGIN_S);
        // By the chain's clock too: it refuses reports of an epoch that is not over there.
        let chain_s = self.metering.chain().head().block.timestamp_s;
        Epoch::new(now.min(chain_s).checked_div(length).unwrap_or(0))
    }

    /// Statements that are in no report, by their epochs, oldest first.
    async fn due(&self, index: usize, end: Epoch) -> Result<Vec<(Epoch, Vec<Leaf>)>, SettlementError> {
        let Some(lease) = self.lease(index) else { return Ok(Vec::new()) };
        let unreported = self.metering.books().unreported(lease.served.id, lease.unreported_from..end).await?;
        let mut epochs: Vec<(Epoch, Vec<Leaf>)> = Vec::new();
        for (epoch, leaf) in unreported {
            match epochs.last_mut().filter(|(last, _)| *last == epoch) {
                Some((_, leaves)) => leaves.push(leaf),
                None => epochs.push((epoch, vec![leaf])),
            }
        }
        Ok(epochs)
    }

    async fn make_report(
        &self,
        index: usize,
        epoch: Epoch,
        leaves: &[Leaf],
        previous: Option<EpochCommitDigest>,
    ) -> Result<StoredReport, SettlementError> {
        let lease = self.lease(index).map(|lease| lease.served.id).unwrap_or(protocol::ids::LeaseId::new(0));
        let leaves = leaves.to_vec();
        // Millions of hashes take seconds.
        let tree = tokio::task::spawn_blocking(move || MerkleSumTree::new(leaves)).await;
        let tree = tree.map_err(SettlementError::make("a report"))?.map_err(SettlementError::make("a report"))?;
        let commitment = tree.commitment();
        let report = EpochCommit { lease, epoch, root: commitment.root, totals: commitment.totals, previous };
        let deployment = self.metering.chain().deployment();
        let domain = Domain::new(protocol::ids::ChainId::new(deployment.chain_id), deployment.usage_log);
        let digest = report.digest(&domain);
        let position = self.metering.books().reports(lease).await?.len();
        let position = u64::try_from(position).unwrap_or(u64::MAX);
        Ok(StoredReport { report, position, digest, block: None })
    }

    async fn send_report(&mut self, stored: &StoredReport, on_chain: u64) -> Result<(), SettlementError> {
        let StoredReport { report, position, .. } = stored;
        let block = if *position < on_chain {
            // Sent and mined before a crash. Which block it was in matters to nobody.
            self.metering.chain().head().block.number
        } else {
            let action = usage::report(self.metering.chain().deployment(), report);
            let action = action.map_err(SettlementError::make("a report"))?;
            let work = work("report", report.lease.get(), *position);
            let receipt = self.act(work, &action).await?;
            self.sender.finish(work)?;
            receipt.block_number.unwrap_or_default()
        };
        self.metering.books().report_mined(report.lease, *position, block).await?;
        Ok(())
    }
}

/// A name for something that is done once.
pub(super) fn work(kind: &str, lease: u64, position: u64) -> B256 {
    keccak256((kind, U256::from(lease), U256::from(position)).abi_encode())
}
