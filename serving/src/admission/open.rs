//! Whether anything is admitted at all.

use super::Refusal;
use crate::metering::{Metering, lease::ServedLease};

/// Refuses when a statement could not be made durable, when the chain was not heard from, and when the lease is over.
pub(crate) fn check_open(metering: &Metering, lease: &ServedLease) -> Result<(), Refusal> {
    if !metering.journal().is_healthy() {
        return Err(Refusal::Storage);
    }
    metering.chain().check_fresh().map_err(Refusal::Stale)?;
    let now = metering.now().second_down();
    match metering.chain().lease(lease.id) {
        // A lease that has run out is known before the next block says so.
        Some(facts) if facts.is_active && now < facts.to => Ok(()),
        _ => Err(Refusal::LeaseOver { lease: lease.id }),
    }
}
