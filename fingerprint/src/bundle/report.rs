//! What a checked bundle says, for people and for `--json`.

use protocol::{
    draw::BeaconSource,
    ids::{Beacon, BundleDigest, CommitmentRoot, SetRoot},
};
use serde::Serialize;

use super::{format::BundleFile, tally::Tally};
use crate::{
    prove::{Outcome, RequestShape, UnixMillis},
    surface::SystemPrompt,
};

/// What holds of every beacon that somebody else is said to have drawn.
const LOOK_UP_STATEMENT: &str = "neither the beacon nor its source is checked here: look the beacon up at its source, and check that the root was published before it";

/// What holds of every bound.
const EACH_ROOT_STATEMENT: &str = "the error bound holds for each published root, asked at one server in one way: whoever publishes many roots, or tries many servers or ways of asking, multiplies it by their number";

/// What holds of a bundle with answers that held no reply.
const FAILED_STATEMENT: &str =
    "some questions got no usable answer and count for nothing either way; that they failed is the prover's word";

/// The content of a bundle that passed every check.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How the proof ended.
    pub outcome: Outcome,
    /// The call that was asked.
    pub url: String,
    /// How it was asked: call, model, system prompt, tokens.
    pub request: RequestShape,
    /// Name of the built-in system prompt that was used, if one was.
    pub system: Option<&'static str>,
    /// Leaves that were asked.
    pub queries: u32,
    /// Replies that were the drawn response.
    pub drawn: u32,
    /// Replies that were another candidate of the same key: the sign of a model that was not trained on this draw.
    pub other_candidates: u32,
    /// Other replies.
    pub outside: u32,
    /// Of the other replies, those without any text. Many of them say that the server is misused rather than that the model is another.
    pub empty: u32,
    /// Answers without a reply: a status that is no success, a body that is no completion, or nothing at all. They count
    /// on neither side.
    pub failed: u32,
    /// Decimal logarithm of the evidence for ownership, at the end.
    pub log10_e: f64,
    /// The same after each query.
    pub log10_e_by_query: Vec<f64>,
    /// Decimal logarithm of the evidence that proves ownership.
    pub log10_threshold: f64,
    /// Decimal logarithm of the probability at most which a model without the set reaches this evidence in any run under
    /// the root.
    pub log10_error_bound: f64,
    /// Error bound that the proof aimed at, over all runs under the root.
    pub alpha: f64,
    /// The part of it that this run was tested at, because of where it began.
    pub level: f64,
    /// Position of the first query in the order of the set.
    pub start: u32,
    /// Smallest hit rate that "not this model" is about.
    pub min_hit_rate: f64,
    /// Error bound of "not this model".
    pub beta: f64,
    /// Most queries that were allowed.
    pub max_queries: u32,
    /// Candidates of each key.
    pub candidates: u16,
    /// Leaves of the set.
    pub leaves: u32,
    /// When the first query was sent.
    pub started_unix_ms: Option<UnixMillis>,
    /// When the last answer was complete.
    pub finished_unix_ms: Option<UnixMillis>,
    /// The randomness that drew the responses and fixed the order.
    pub beacon: Beacon,
    /// Where the claimant says that it came from.
    pub beacon_source: BeaconSource,
    /// Root over keys and candidate lists.
    pub root: CommitmentRoot,
    /// Root over the drawn set.
    pub set_root: SetRoot,
    /// Digest of the bundle.
    pub digest: BundleDigest,
    /// What every reader must be told with the verdict.
    pub reservations: Vec<&'static str>,
}

impl Report {
    pub(super) fn new(file: &BundleFile, tally: &Tally, digest: BundleDigest, log10_e_by_query: Vec<f64>) -> Self {
        let verdict = &file.verdict;
        let of_the_beacon = file.commitment.beacon_source.reservation().unwrap_or(LOOK_UP_STATEMENT);
        let mut reservations = vec![of_the_beacon, EACH_ROOT_STATEMENT];
        reservations.extend((verdict.failed > 0).then_some(FAILED_STATEMENT));
        let system = file.endpoint.request.system.as_deref().and_then(SystemPrompt::with_text);
        Self {
            outcome: verdict.outcome,
            url: file.endpoint.url.to_string(),
            request: file.endpoint.request.clone(),
            system: system.map(SystemPrompt::name),
            queries: verdict.queries,
            drawn: verdict.drawn,
            other_candidates: verdict.other_candidates,
            outside: verdict.outside,
            failed: verdict.failed,
            empty: verdict.empty,
            log10_e: tally.log10_e(),
            log10_e_by_query,
            log10_threshold: tally.log10_threshold(),
            log10_error_bound: tally.log10_error_bound(),
            alpha: file.test.alpha.0,
            level: tally.level(),
            start: file.test.start,
            min_hit_rate: file.test.min_hit_rate.0,
            beta: file.test.beta.0,
            max_queries: file.test.max_queries.get(),
            candidates: file.commitment.parameters.candidates.get(),
            leaves: file.commitment.parameters.fingerprints,
            started_unix_ms: file.queries.first().map(|query| query.started_unix_ms),
            finished_unix_ms: file.queries.last().map(|query| query.finished_unix_ms),
            beacon: file.commitment.beacon,
            beacon_source: file.commitment.beacon_source.clone(),
            root: file.commitment.root,
            set_root: file.commitment.set_root,
            digest,
            reservations,
        }
    }
}
