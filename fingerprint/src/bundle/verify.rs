//! Checks a bundle against a published commitment: first what is cheap (form, digest, commitment), then query by query
//! everything that follows from it.

use protocol::{
    commitment::{
        CommitmentError, CommitmentParameters, KeyLeaf, verify_drawn_parameters, verify_key_leaf, verify_parameters,
        verify_set_leaf,
    },
    draw::{draw_index, query_order},
    ids::{BundleDigest, CandidateIndex, LeafIndex, Tenant},
};
use thiserror::Error;

use super::{
    BundleError, Report,
    format::{BundleFile, EndpointRecord, FORMAT, Kind, QueryRecord, VERSION},
    tally::{FAILURES_IN_A_ROW, Tally},
};
use crate::{
    commitment::Commitment,
    prove::{EndpointKind, UnixMillis},
    surface::SystemPrompt,
};

/// What is wrong with one query of a bundle.
#[derive(Debug, Error)]
pub enum QueryFault {
    /// Positions follow one another without a gap.
    #[error("it has position {found} of the order and not {expected}")]
    Position {
        /// The start and the queries before.
        expected: u32,
        /// As written.
        found: u32,
    },
    /// The order of the set says otherwise.
    #[error("it asks leaf {found}, at its position of the order stands leaf {expected}")]
    Order {
        /// By beacon and root.
        expected: LeafIndex,
        /// As written.
        found: LeafIndex,
    },
    /// More queries than leaves.
    #[error("no leaf is left to ask")]
    NoLeafLeft,
    /// The opening is not what was committed before the draw.
    #[error("its opening does not lead to the committed root")]
    KeyPath(#[source] CommitmentError),
    /// The response is not the one that was drawn.
    #[error("it claims candidate {found} as the response, the beacon drew candidate {expected}")]
    Drawn {
        /// By the beacon.
        expected: CandidateIndex,
        /// As written.
        found: CandidateIndex,
    },
    /// The opening is not what was committed after the draw.
    #[error("its opening does not lead to the root of the drawn set")]
    SetPath(#[source] CommitmentError),
    /// The request asks something else than the key, or asks it in another way than stated.
    #[error("its request is not the one that the key and the stated endpoint give")]
    Request,
    /// The reply was matched wrongly. An answer without a reply matches nothing.
    #[error("its answer matches {}, not {} as stated", named(.expected), named(.found))]
    Matched {
        /// From the raw answer.
        expected: Option<CandidateIndex>,
        /// As written.
        found: Option<CandidateIndex>,
    },
    /// Time runs backwards.
    #[error("it begins or ends before what came before it")]
    Time,
    /// The evidence already decided.
    #[error("it comes after the evidence had decided")]
    AfterDecision,
    /// So many answers without a reply came before it that a proof ends.
    #[error("it comes after {FAILURES_IN_A_ROW} answers in a row without a reply, where a proof ends")]
    AfterFailures,
    /// The factors do not follow from the reply.
    #[error("its factors are not the ones that its reply gives")]
    Factors,
}

fn named(index: &Option<CandidateIndex>) -> String {
    index.map_or_else(|| "no candidate".to_owned(), |index| format!("candidate {index}"))
}

/// Checks that a bundle proves what it says about `commitment`. Reads nothing else: no network, no set, no clock.
///
/// What it cannot check: that the recorded server gave the recorded answers (see the warnings of this module).
///
/// # Errors
///
/// [`BundleError`] with the first thing that is wrong. Any altered byte is an error.
pub fn verify_bundle(bytes: &[u8], commitment: &Commitment) -> Result<Report, BundleError> {
    let file = parse(bytes)?;
    let digest = check_digest(&file)?;
    check_commitment(&file, commitment)?;
    check_endpoint(&file.endpoint)?;
    check_length(&file)?;
    let parameters = &file.commitment.parameters;
    let mut tally = Tally::new(parameters.candidates, &file.test).map_err(|source| BundleError::Test { source })?;
    let order = query_order(&file.commitment.beacon, &file.commitment.root, parameters.fingerprints);
    let mut trajectory = Vec::with_capacity(file.queries.len());
    let mut time = UnixMillis::new(0);
    for (query, number) in file.queries.iter().zip(0_u32..) {
        let position = file.test.start.saturating_add(number);
        check_query(&file, query, position, &order, &mut tally, &mut time).map_err(|fault| BundleError::Query {
            query: number,
            leaf: query.leaf,
            fault,
        })?;
        trajectory.push(tally.log10_e());
    }
    check_verdict(&file, &tally)?;
    Ok(Report::new(&file, &tally, digest, trajectory))
}

fn parse(bytes: &[u8]) -> Result<BundleFile, BundleError> {
    let kind: Kind =
        serde_json::from_slice(bytes).map_err(|source| BundleError::NotABundle { source: Some(source) })?;
    if kind.format != FORMAT {
        return Err(BundleError::NotABundle { source: None });
    }
    if kind.version != VERSION {
        return Err(BundleError::OtherVersion { found: kind.version });
    }
    let file: BundleFile = serde_json::from_slice(bytes).map_err(|source| BundleError::Malformed { source })?;
    let canonical = file.canonical();
    if canonical != bytes {
        let offset = canonical.iter().zip(bytes).position(|(ours, theirs)| ours != theirs);
        return Err(BundleError::NotCanonical { offset: offset.unwrap_or(canonical.len().min(bytes.len())) });
    }
    Ok(file)
}

fn check_digest(file: &BundleFile) -> Result<BundleDigest, BundleError> {
    let found = file.digest.ok_or(BundleError::NoDigest)?;
    let expected = file.computed_digest();
    if found == expected { Ok(found) } else { Err(BundleError::Digest { expected, found }) }
}

fn check_commitment(file: &BundleFile, commitment: &Commitment) -> Result<(), BundleError> {
    let record = &file.commitment;
    let other = |what| Err(BundleError::OtherCommitment { what });
    let Some(draw) = commitment.draw() else { return Err(BundleError::NotDrawn) };
    if record.root != commitment.root() {
        return other("root");
    }
    if record.parameters != *commitment.parameters() {
        return other("parameters");
    }
    if record.beacon != draw.beacon.value || record.beacon_source != draw.beacon.source {
        return other("beacon");
    }
    if record.set_root != draw.set_root {
        return other("root of the drawn set");
    }
    verify_parameters(&record.parameters, &record.parameters_path, &record.root)
        .map_err(|source| BundleError::Parameters { source })?;
    let path = &record.drawn_parameters_path;
    verify_drawn_parameters(&record.parameters, &record.root, &draw.beacon, path, &record.set_root)
        .map_err(|source| BundleError::DrawnParameters { source })
}

pub(super) fn check_endpoint(endpoint: &EndpointRecord) -> Result<(), BundleError> {
    let EndpointRecord { url, request } = endpoint;
    let call = format!("/{}", request.kind.path());
    let plain = matches!(url.scheme(), "http" | "https")
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !plain
        || !url.path().ends_with(&call)
        || (request.kind == EndpointKind::Completion && url.path().ends_with("/chat/completions"))
    {
        return Err(BundleError::Endpoint { what: "its URL is not that of the stated call" });
    }
    if request.kind == EndpointKind::Completion && request.system.is_some() {
        return Err(BundleError::Endpoint { what: "a completion has no system prompt" });
    }
    if request.system.as_deref().is_some_and(|text| SystemPrompt::with_text(text).is_none()) {
        return Err(BundleError::Endpoint { what: "its system prompt is not built in, so it could hold the answers" });
    }
    if request.max_tokens == 0 {
        return Err(BundleError::Endpoint { what: "an answer of no token says nothing" });
    }
    Ok(())
}

/// A run begins inside the order of the set.
pub(super) fn check_start(start: u32, parameters: &CommitmentParameters) -> Result<(), BundleError> {
    let leaves = parameters.fingerprints;
    if start < leaves { Ok(()) } else { Err(BundleError::Start { start, leaves }) }
}

fn check_length(file: &BundleFile) -> Result<(), BundleError> {
    check_start(file.test.start, &file.commitment.parameters)?;
    let max = file.test.max_queries.get();
    // More queries than 32 bits count are more than any budget.
    match u32::try_from(file.queries.len()).unwrap_or(u32::MAX) {
        0 => Err(BundleError::NoQueries),
        found if found > max => Err(BundleError::TooManyQueries { max, found }),
        _ => Ok(()),
    }
}

fn check_query(
    file: &BundleFile,
    query: &QueryRecord,
    position: u32,
    order: &[LeafIndex],
    tally: &mut Tally,
    time: &mut UnixMillis,
) -> Result<(), QueryFault> {
    if query.position != position {
        return Err(QueryFault::Position { expected: position, found: query.position });
    }
    let expected = *order.get(LeafIndex::new(position).as_usize()).ok_or(QueryFault::NoLeafLeft)?;
    if query.leaf != expected {
        return Err(QueryFault::Order { expected, found: query.leaf });
    }
    if tally.is_decided() {
        return Err(QueryFault::AfterDecision);
    }
    if tally.is_given_up() {
        return Err(QueryFault::AfterFailures);
    }
    check_opening(file, query)?;
    if query.request != file.endpoint.request.body(&query.opening.key) {
        return Err(QueryFault::Request);
    }
    let reply = file.endpoint.request.recorded_reply(query.status, &query.response);
    let matching = file.commitment.parameters.matching;
    let matched = reply.as_ref().and_then(|reply| matching.match_reply(reply, &query.opening.candidates));
    if matched != query.matched {
        return Err(QueryFault::Matched { expected: matched, found: query.matched });
    }
    if query.started_unix_ms < *time || query.finished_unix_ms < query.started_unix_ms {
        return Err(QueryFault::Time);
    }
    *time = query.finished_unix_ms;
    if tally.observe(matched, query.opening.drawn, reply.as_deref()) != query.factors {
        return Err(QueryFault::Factors);
    }
    Ok(())
}

fn check_opening(file: &BundleFile, query: &QueryRecord) -> Result<(), QueryFault> {
    let (record, opening) = (&file.commitment, &query.opening);
    let leaf = KeyLeaf { salt: opening.salt.0, index: query.leaf, key: &opening.key, candidates: &opening.candidates };
    verify_key_leaf(&record.parameters, &leaf, &opening.key_path, &record.root).map_err(QueryFault::KeyPath)?;
    let expected = draw_index(&record.beacon, &record.root, query.leaf, Tenant::SHARED, record.parameters.candidates);
    if opening.drawn != expected {
        return Err(QueryFault::Drawn { expected, found: opening.drawn });
    }
    verify_set_leaf(&record.parameters, &leaf, opening.drawn, &opening.set_path, &record.set_root)
        .map_err(QueryFault::SetPath)
}

fn check_verdict(file: &BundleFile, tally: &Tally) -> Result<(), BundleError> {
    let expected = tally.verdict();
    if file.verdict.outcome != expected.outcome {
        return Err(BundleError::Outcome { expected: expected.outcome, found: file.verdict.outcome });
    }
    if file.verdict != expected {
        return Err(BundleError::Verdict);
    }
    Ok(())
}
