//! Writes a bundle while the proof runs.

use std::collections::BTreeSet;

use protocol::{
    B256,
    commitment::{CommitmentError, KeyLeaf, KeyTree, SetTree, key_leaf_hash, set_leaf_hash},
    draw::query_order,
    ids::LeafIndex,
};

use super::{
    Bundle, BundleError,
    format::{
        BundleFile, CommitmentRecord, EndpointRecord, FORMAT, OpeningRecord, OrderRecord, QueryRecord, TestRecord,
        VERSION, VerdictRecord,
    },
    tally::Tally,
    verify::verify_bundle,
};
use crate::{
    commitment::Commitment,
    prove::{Exchange, Outcome, RequestShape, UnixMillis},
    set::{FingerprintSet, Opening, SetError},
};

/// A proof under way: what will be in the bundle, and the evidence so far.
pub(crate) struct Recorder {
    commitment: CommitmentRecord,
    endpoint: EndpointRecord,
    order: OrderRecord,
    test: TestRecord,
    queries: Vec<QueryRecord>,
    tally: Tally,
    time: UnixMillis,
}

impl Recorder {
    pub(crate) fn new(
        set: &FingerprintSet,
        endpoint: EndpointRecord,
        order: OrderRecord,
        test: TestRecord,
    ) -> Result<Self, BundleError> {
        let commitment = commitment_record(set)?;
        let tally =
            Tally::new(commitment.parameters.candidates, &test).map_err(|source| BundleError::Test { source })?;
        Ok(Self { commitment, endpoint, order, test, queries: Vec::new(), tally, time: UnixMillis::new(0) })
    }

    /// The leaves to ask, in the order in which they must be asked, at most as many as the budget allows.
    pub(crate) fn leaves_to_ask(&self) -> Vec<LeafIndex> {
        let burned: BTreeSet<LeafIndex> = self.order.burned_before.iter().copied().collect();
        let budget = LeafIndex::new(self.test.max_queries.get()).as_usize();
        query_order(&self.order.beacon, &self.commitment.root, self.commitment.parameters.fingerprints)
            .into_iter()
            .filter(|leaf| !burned.contains(leaf))
            .take(budget)
            .collect()
    }

    pub(crate) fn request(&self) -> &RequestShape {
        &self.endpoint.request
    }

    /// Fills in the name that the server told. Before the first record only: requests are rebuilt from it.
    pub(crate) fn set_model(&mut self, model: String) {
        self.endpoint.request.model = model;
    }

    /// Decimal logarithm of the evidence that proves ownership.
    pub(crate) fn log10_threshold(&self) -> f64 {
        f64::from(self.test.multiplicity.get()).log10() - self.test.alpha.0.log10()
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Notes one opened leaf with its answer, and counts it.
    pub(crate) fn record(&mut self, opening: Opening<'_>, exchange: Exchange) {
        let Exchange { request, response, status, attempts, started, finished, reply } = exchange;
        let matched = self.commitment.parameters.matching.match_reply(&reply, opening.candidates);
        let factors = self.tally.observe(matched, opening.drawn, &reply);
        // The system's clock may have been set back meanwhile; order is what the bundle asserts.
        let started_unix_ms = started.max(self.time);
        let finished_unix_ms = finished.max(started_unix_ms);
        self.time = finished_unix_ms;
        self.queries.push(QueryRecord {
            position: self.tally.queries().saturating_sub(1),
            leaf: opening.index,
            opening: OpeningRecord {
                salt: B256::new(opening.salt),
                key: opening.key_text.to_owned(),
                candidates: opening.candidates.to_vec(),
                drawn: opening.drawn,
                key_path: opening.key_path,
                set_path: opening.set_path,
            },
            request,
            status,
            response,
            attempts,
            started_unix_ms,
            finished_unix_ms,
            matched,
            factors,
        });
    }

    /// Closes the bundle. It is checked as any verifier would before it is handed out.
    pub(crate) fn finish(self, outcome: Outcome, commitment: &Commitment) -> Result<Bundle, BundleError> {
        let verdict: VerdictRecord = self.tally.verdict(outcome);
        let mut file = BundleFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            commitment: self.commitment,
            endpoint: self.endpoint,
            order: self.order,
            test: self.test,
            queries: self.queries,
            verdict,
            digest: None,
        };
        file.digest = Some(file.computed_digest());
        let bytes = file.canonical();
        let report = verify_bundle(&bytes, commitment)?;
        Ok(Bundle { bytes, report })
    }
}

fn commitment_record(set: &FingerprintSet) -> Result<CommitmentRecord, BundleError> {
    let set_error = |source| BundleError::Set { source };
    let parameters = set.parameters().clone();
    let root = set.root().ok_or_else(|| set_error(SetError::NotCommitted))?;
    let (beacon, set_root) = set.beacon().zip(set.set_root()).ok_or_else(|| set_error(SetError::NotDrawn))?;
    let (mut key_leaves, mut set_leaves) = (Vec::new(), Vec::new());
    for (fingerprint, index) in set.fingerprints().iter().zip(0..) {
        let leaf = KeyLeaf {
            salt: *fingerprint.salt(),
            index: LeafIndex::new(index),
            key: fingerprint.key_text(),
            candidates: fingerprint.candidates(),
        };
        let drawn = fingerprint.drawn().ok_or_else(|| set_error(SetError::NotDrawn))?;
        key_leaves.push(key_leaf_hash(&leaf));
        set_leaves.push(set_leaf_hash(&leaf, drawn));
    }
    let paths = || -> Result<_, CommitmentError> {
        let keys = KeyTree::new(&parameters, &key_leaves)?;
        let drawn = SetTree::new(&parameters, &root, &beacon.value, &set_leaves)?;
        Ok((keys.parameters_path()?, drawn.parameters_path()?))
    };
    let (parameters_path, drawn_parameters_path) = paths().map_err(|source| BundleError::Parameters { source })?;
    Ok(CommitmentRecord {
        parameters,
        root,
        beacon: beacon.value,
        beacon_source: beacon.source.clone(),
        set_root,
        parameters_path,
        drawn_parameters_path,
    })
}
