//! What hosts say they served.

use std::collections::BTreeMap;

use protocol::{
    ids::{ChainId, Epoch, EpochCommitDigest, LeaseId},
    merkle_sum::{Leaf, MerkleSumError, MerkleSumTree},
    messages::{Domain, EpochCommit, Message as _, Statement},
    units::Seconds,
};

use crate::{
    bindings::{UsageLog, same},
    client::Action,
    deployment::Deployment,
};

/// The reports that a lease's statements make: one for each epoch in which a request ended, each naming the one before.
/// `previous` is the lease's last report so far, and `statements` are those that no report has yet.
pub fn reports(
    to: &Deployment,
    lease: LeaseId,
    epoch_length: Seconds,
    mut previous: Option<EpochCommitDigest>,
    statements: &[Statement],
) -> Result<Vec<EpochCommit>, MerkleSumError> {
    let chain = ChainId::new(to.chain_id);
    let (manager, log) = (Domain::new(chain, to.lease_manager), Domain::new(chain, to.usage_log));
    let mut epochs: BTreeMap<Epoch, Vec<Leaf>> = BTreeMap::new();
    for statement in statements {
        let leaf = Leaf::new(statement.digest(&manager), statement.step.usage(), statement.charge);
        epochs.entry(epoch_of(statement, epoch_length)).or_default().push(leaf);
    }
    let mut reports = Vec::with_capacity(epochs.len());
    for (epoch, leaves) in epochs {
        let commitment = MerkleSumTree::new(leaves)?.commitment();
        let report = EpochCommit { lease, epoch, root: commitment.root, totals: commitment.totals, previous };
        previous = Some(report.digest(&log));
        reports.push(report);
    }
    Ok(reports)
}

/// The epoch in which a request ended, as `UsageLog.epochOf` has it. An epoch of no length, which no contract has, is taken for one of a second.
pub fn epoch_of(statement: &Statement, length: Seconds) -> Epoch {
    let seconds = statement.ended.get().wrapping_div(1_000);
    Epoch::new(seconds.checked_div(length.get()).unwrap_or(seconds))
}

/// Reports an epoch that is over; the host sends it.
pub fn report(to: &Deployment, report: &EpochCommit) -> Result<Action, alloy::sol_types::Error> {
    let call = UsageLog::commitCall {
        newReport: same(&protocol::messages::wire::EpochCommit::from(report))?,
        signature: alloy::primitives::Bytes::new(),
    };
    Ok(Action::call(format!("report of epoch {}", report.epoch), to.usage_log, &call))
}
