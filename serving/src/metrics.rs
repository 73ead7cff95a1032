//! What is counted while requests are served, for Prometheus. Labels are names of models, outcomes and codes: never of people.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::usage::Usage;

/// Counters of one host. Cloning is cheap; clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    differences: Family<ModelLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    first_text: Family<ModelLabels, Histogram, fn() -> Histogram>,
    registry: Arc<Registry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    model: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    model: String,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    status: u16,
    /// Of an error; empty for an answer.
    code: &'static str,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("hallmark");
        let first_text: fn() -> Histogram =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]);
        let metrics = Self {
            requests: Family::default(),
            tokens: Family::default(),
            differences: Family::default(),
            responses: Family::default(),
            first_text: Family::new_with_constructor(first_text),
            registry: Arc::default(),
        };
        registry.register("requests", "Requests that an engine worked on, by how they ended", metrics.requests.clone());
        registry.register("tokens", "Tokens that were billed", metrics.tokens.clone());
        let help = "Answers whose engine counts its tokens otherwise than the host";
        registry.register("count_differences", help, metrics.differences.clone());
        registry.register("responses", "HTTP responses", metrics.responses.clone());
        let help = "From the engine's acceptance of a request to its first text";
        registry.register_with_unit("first_text", help, Unit::Seconds, metrics.first_text.clone());
        Self { registry: Arc::new(registry), ..metrics }
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// A request has ended.
    pub(crate) fn request(&self, model: &str, outcome: &'static str, usage: &Usage) {
        let model = || model.to_owned();
        self.requests.get_or_create(&RequestLabels { model: model(), outcome }).inc();
        let computed = usage.prompt().get().saturating_sub(usage.cached().get());
        let kinds = [("prompt", computed), ("cached", usage.cached().get()), ("completion", usage.completion().get())];
        for (kind, count) in kinds {
            self.tokens.get_or_create(&TokenLabels { model: model(), kind }).inc_by(count);
        }
    }

    /// An engine's own count is another one.
    pub(crate) fn difference(&self, model: &str) {
        self.differences.get_or_create(&ModelLabels { model: model.to_owned() }).inc();
    }

    /// A response was made.
    pub(crate) fn response(&self, status: u16, code: &'static str) {
        self.responses.get_or_create(&ResponseLabels { status, code }).inc();
    }

    /// A request got its first text.
    pub(crate) fn first_text(&self, model: &str, after: Duration) {
        self.first_text.get_or_create(&ModelLabels { model: model.to_owned() }).observe(after.as_secs_f64());
    }
}
