//! Figures and counters in the form that Prometheus reads.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::figures::{Figures, LeaseFigures, MeteredFigures};
use crate::state::AppState;

/// OpenMetrics, which Prometheus asks for first.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LeaseLabels {
    lease: u64,
}

/// Everything at once. What is counted while requests run comes first, then what holds now.
pub(super) fn text(state: &AppState, figures: &Figures) -> Result<String, fmt::Error> {
    let mut written = String::new();
    text::encode_registry(&mut written, state.metrics().registry())?;
    let mut registry = Registry::with_prefix("hallmark");
    gauge(&mut registry, "open_requests", "Requests that are open", figures.open_requests);
    if let Some(metered) = &figures.metered {
        metered_gauges(&mut registry, metered);
    }
    text::encode_registry(&mut written, &registry)?;
    text::encode_eof(&mut written)?;
    Ok(written)
}

fn metered_gauges(registry: &mut Registry, metered: &MeteredFigures) {
    gauge(registry, "chain_block", "Newest block that was heard of", metered.block);
    gauge(registry, "chain_age_seconds", "Time since the chain was heard of", metered.chain_age_s);
    gauge(registry, "journal_healthy", "Whether the journal can be written", u64::from(metered.journal_is_healthy));
    gauge(registry, "journal_pending", "Statements that are not on the disk yet", metered.journal_pending);
    gauge(registry, "journal_statements", "Statements written since the start", metered.journal_entries);
    gauge(registry, "journal_commits", "Commits that it took", metered.journal_commits);
    type Part = (&'static str, &'static str, fn(&LeaseFigures) -> u128);
    let parts: [Part; 8] = [
        ("lease_active", "Whether the lease allows to serve", |lease| u128::from(lease.is_active)),
        ("lease_requests", "Requests that were stated under the lease", |lease| lease.totals.requests.into()),
        ("lease_charged", "Charged to channels, in the token's smallest unit", |lease| lease.charged.get()),
        ("lease_claimed", "Claimed of it", |lease| lease.claimed.get()),
        ("lease_owed", "Charged to channels and not claimed yet", |lease| lease.owed().get()),
        ("lease_royalty", "The creator's side's part of what was claimed", |lease| lease.royalty.get()),
        ("lease_billed", "Charged to customers who pay in money", |lease| lease.billed.get()),
        ("lease_reports_unsent", "Reports that are on no block yet", |lease| {
            lease.reports.iter().filter(|report| report.block.is_none()).count().try_into().unwrap_or(u128::MAX)
        }),
    ];
    for (name, help, part) in parts {
        let family = Family::<LeaseLabels, Gauge<f64, std::sync::atomic::AtomicU64>>::default();
        for lease in &metered.leases {
            family.get_or_create(&LeaseLabels { lease: lease.id.get() }).set(float(part(lease)));
        }
        registry.register(name, help, family);
    }
}

fn gauge(registry: &mut Registry, name: &'static str, help: &'static str, value: impl TryInto<u128>) {
    let gauge = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    gauge.set(float(value.try_into().unwrap_or(u128::MAX)));
    registry.register(name, help, gauge);
}

/// Prometheus knows no other numbers. Nobody settles by a graph.
#[expect(clippy::as_conversions, clippy::cast_precision_loss, reason = "a graph loses only digits")]
fn float(value: u128) -> f64 {
    value as f64
}
