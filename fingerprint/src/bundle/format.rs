//! The file's fields in their order. The canonical form is this order, written without white space.

use std::num::NonZeroU32;

use protocol::{
    B256,
    commitment::CommitmentParameters,
    ids::{Beacon, BundleDigest, CandidateIndex, CommitmentRoot, LeafIndex, SetRoot},
    matching::Candidate,
    merkle::MerklePath,
};
use serde::{Deserialize, Serialize};
use url::Url;

use super::number::{Exact, Rounded};
use crate::{
    prove::{Outcome, RequestShape, UnixMillis},
    set::BeaconSource,
};

pub(crate) const FORMAT: &str = "hallmark proof bundle";
pub(crate) const VERSION: u32 = 1;

/// The two fields that every version has. Other fields are not looked at.
#[derive(Deserialize)]
pub(crate) struct Kind {
    pub(crate) format: String,
    pub(crate) version: u32,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BundleFile {
    pub(crate) format: String,
    pub(crate) version: u32,
    pub(crate) commitment: CommitmentRecord,
    pub(crate) endpoint: EndpointRecord,
    pub(crate) test: TestRecord,
    pub(crate) queries: Vec<QueryRecord>,
    pub(crate) verdict: VerdictRecord,
    /// Over the canonical form of everything above; absent only while it is computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<BundleDigest>,
}

/// What the creator published, with the paths that tie the parameters to both roots.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommitmentRecord {
    pub(crate) parameters: CommitmentParameters,
    pub(crate) root: CommitmentRoot,
    pub(crate) beacon: Beacon,
    pub(crate) beacon_source: BeaconSource,
    pub(crate) set_root: SetRoot,
    pub(crate) parameters_path: MerklePath,
    pub(crate) drawn_parameters_path: MerklePath,
}

/// Who was asked, and how.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointRecord {
    pub(crate) url: Url,
    pub(crate) request: RequestShape,
}

/// What was decided before the first query.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestRecord {
    pub(crate) alpha: Exact,
    pub(crate) min_hit_rate: Exact,
    pub(crate) beta: Exact,
    /// Position of the first query in the order of the set; it decides which part of `alpha` this run may use.
    pub(crate) start: u32,
    pub(crate) max_queries: NonZeroU32,
}

/// One opened leaf and what the server made of it.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct QueryRecord {
    /// In the order of the set; the first is at `start`.
    pub(crate) position: u32,
    pub(crate) leaf: LeafIndex,
    pub(crate) opening: OpeningRecord,
    pub(crate) request: String,
    /// None when no answer came.
    pub(crate) status: Option<u16>,
    /// The whole answer if it holds a reply, else the beginning of it.
    pub(crate) response: String,
    pub(crate) attempts: NonZeroU32,
    pub(crate) started_unix_ms: UnixMillis,
    pub(crate) finished_unix_ms: UnixMillis,
    /// Which candidate the reply matches.
    pub(crate) matched: Option<CandidateIndex>,
    pub(crate) factors: FactorsRecord,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OpeningRecord {
    pub(crate) salt: B256,
    pub(crate) key: String,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) drawn: CandidateIndex,
    pub(crate) key_path: MerklePath,
    pub(crate) set_path: MerklePath,
}

/// What a query did to the two processes, as decimal logarithms.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FactorsRecord {
    /// Factor on the evidence for ownership.
    pub(crate) log10_factor: Rounded,
    /// The evidence after this query.
    pub(crate) log10_e: Rounded,
    /// Factor on the evidence that this model does not carry the set.
    pub(crate) log10_reverse_factor: Rounded,
    /// The reverse evidence after this query.
    pub(crate) log10_reverse: Rounded,
}

#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerdictRecord {
    pub(crate) outcome: Outcome,
    pub(crate) queries: u32,
    /// Replies that were the drawn response.
    pub(crate) drawn: u32,
    /// Replies that were another candidate of the same key.
    pub(crate) other_candidates: u32,
    /// Other replies.
    pub(crate) outside: u32,
    /// How many of these were empty.
    pub(crate) empty: u32,
    /// How many of these were no reply at all.
    pub(crate) failed: u32,
    pub(crate) log10_e: Rounded,
    /// Bound on the probability that a model without the set reaches this evidence in any run under the root.
    pub(crate) log10_error_bound: Rounded,
    pub(crate) log10_reverse: Rounded,
}
