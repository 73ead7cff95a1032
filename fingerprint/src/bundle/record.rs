//! Writes a bundle while the proof runs.

use protocol::{B256, draw::query_order, ids::LeafIndex};

use super::{
    Bundle, BundleError,
    format::{
        BundleFile, CommitmentRecord, EndpointRecord, FORMAT, OpeningRecord, QueryRecord, TestRecord, VERSION,
        VerdictRecord,
    },
    tally::Tally,
    verify::{check_endpoint, check_start, verify_bundle},
};
use crate::{
    commitment::Commitment,
    prove::{ClientError, Exchange, RequestShape, UnixMillis},
    set::Opening,
};

/// A proof under way: what will be in the bundle, and the evidence so far.
pub(crate) struct Recorder<'a> {
    published: &'a Commitment,
    commitment: CommitmentRecord,
    endpoint: EndpointRecord,
    test: TestRecord,
    queries: Vec<QueryRecord>,
    tally: Tally,
    time: UnixMillis,
}

impl<'a> Recorder<'a> {
    /// Refuses before anything is asked whatever a verifier would refuse afterwards.
    pub(crate) fn new(
        published: &'a Commitment,
        endpoint: EndpointRecord,
        test: TestRecord,
    ) -> Result<Self, BundleError> {
        let commitment = CommitmentRecord::of(published).ok_or(BundleError::NotDrawn)?;
        check_endpoint(&endpoint)?;
        check_start(test.start, &commitment.parameters)?;
        let tally =
            Tally::new(commitment.parameters.candidates, &test).map_err(|source| BundleError::Test { source })?;
        Ok(Self { published, commitment, endpoint, test, queries: Vec::new(), tally, time: UnixMillis::new(0) })
    }

    /// The positions to ask and their leaves, at most as many as the budget allows.
    pub(crate) fn window(&self) -> Vec<(u32, LeafIndex)> {
        let CommitmentRecord { beacon, root, parameters, .. } = &self.commitment;
        let end = self.test.start.saturating_add(self.test.max_queries.get());
        (0..end)
            .zip(query_order(beacon, root, parameters.fingerprints))
            .filter(|(position, _)| *position >= self.test.start)
            .collect()
    }

    pub(crate) fn request(&self) -> &RequestShape {
        &self.endpoint.request
    }

    /// Fills in the name that the server told. Before the first record only: requests are rebuilt from it.
    pub(crate) fn set_model(&mut self, model: String) {
        self.endpoint.request.model = model;
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Notes one opened leaf with what came of its question, and counts it.
    /// Returns why there was no reply, if there was none.
    pub(crate) fn record(&mut self, opening: Opening<'_>, exchange: Exchange) -> Option<ClientError> {
        let Exchange { request, response, status, attempts, started, finished, reply: received } = exchange;
        let position = self.test.start.saturating_add(self.tally.queries());
        // Judged by what is kept, as a verifier will.
        let reply = self.endpoint.request.recorded_reply(status, &response);
        let matching = self.commitment.parameters.matching;
        let matched = reply.as_ref().and_then(|reply| matching.match_reply(reply, opening.candidates));
        let factors = self.tally.observe(matched, opening.drawn, reply.as_deref());
        // The system's clock may have been set back meanwhile; order is what the bundle asserts.
        let started_unix_ms = started.max(self.time);
        let finished_unix_ms = finished.max(started_unix_ms);
        self.time = finished_unix_ms;
        self.queries.push(QueryRecord {
            position,
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
        received.err()
    }

    /// Closes the bundle. It is checked as any verifier would before it is handed out.
    pub(crate) fn finish(self) -> Result<Bundle, BundleError> {
        let verdict: VerdictRecord = self.tally.verdict();
        let mut file = BundleFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            commitment: self.commitment,
            endpoint: self.endpoint,
            test: self.test,
            queries: self.queries,
            verdict,
            digest: None,
        };
        file.digest = Some(file.computed_digest());
        let bytes = file.canonical();
        let report = verify_bundle(&bytes, self.published)?;
        Ok(Bundle { bytes, report })
    }
}

impl CommitmentRecord {
    /// What a bundle repeats of a commitment; `None` before the draw.
    pub(super) fn of(commitment: &Commitment) -> Option<Self> {
        let draw = commitment.draw()?;
        Some(Self {
            parameters: commitment.parameters().clone(),
            root: commitment.root(),
            beacon: draw.beacon.value,
            beacon_source: draw.beacon.source.clone(),
            set_root: draw.set_root,
            parameters_path: commitment.parameters_path().clone(),
            drawn_parameters_path: draw.parameters_path.clone(),
        })
    }
}
