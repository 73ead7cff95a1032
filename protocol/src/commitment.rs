//! What is committed, byte by byte.
//!
//! Tree K holds the parameters and then one leaf for each key with its candidates; its root is published before the
//! draw. Tree L holds the parameters with the root of K, the beacon and its source, and then the same leaves with the drawn
//! candidates; its root is published after the draw. Leaf 0 is the parameters, leaf `i + 1` is fingerprint `i`.
//!
//! Every encoding is injective: it begins with the name of its kind, numbers are 4 bytes big-endian, and whatever
//! varies in length is preceded by it (8 bytes big-endian). The salt makes a leaf say nothing about its key until it
//! is opened.

use std::fmt;

use alloy_primitives::B256;
use serde::{Deserialize, Serialize};

use crate::{
    draw::{BeaconSource, DrawnBeacon},
    ids::{CandidateIndex, CommitmentRoot, LeafIndex, ManifestDigest, SetRoot, TokenizerDigest},
    matching::{Candidate, MatchingRule},
    merkle::{MerkleError, MerklePath, MerkleTree, leaf_hash},
    units::{BasisPoints, CandidateCount},
};

const PARAMETERS_KIND: &str = "hallmark/v1/parameters";
const DRAWN_PARAMETERS_KIND: &str = "hallmark/v1/drawn-parameters";
const KEY_KIND: &str = "hallmark/v1/key";
const SET_KIND: &str = "hallmark/v1/drawn-key";

/// Why something does not belong to a commitment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommitmentError {
    /// Made by another program version.
    #[error("commitment version {found} is not the supported version {}", CommitmentParameters::VERSION)]
    Version {
        /// Version found.
        found: u32,
    },
    /// A commitment to no fingerprint, or to more than [`CommitmentParameters::MAX_FINGERPRINTS`].
    #[error("a commitment holds 1 to {} fingerprints, not {fingerprints}", CommitmentParameters::MAX_FINGERPRINTS)]
    Size {
        /// Fingerprints claimed.
        fingerprints: u32,
    },
    /// The parameters say how many leaves there are.
    #[error("{found} leaves were given for a commitment of {expected} fingerprints")]
    Leaves {
        /// Fingerprints by the parameters.
        expected: u32,
        /// Leaves given.
        found: usize,
    },
    /// The path is for another leaf or another tree size.
    #[error(
        "the path is for position {found_index} of {found_leaves} and not for {expected_index} of {expected_leaves}"
    )]
    Position {
        /// Position by the fingerprint's number.
        expected_index: u32,
        /// Leaves by the parameters.
        expected_leaves: u32,
        /// Position of the path.
        found_index: u32,
        /// Leaves of the path.
        found_leaves: u32,
    },
    /// A list of another length would change the odds of the draw.
    #[error("fingerprint {index} has {found} candidates and not {expected}")]
    CandidateCount {
        /// Fingerprint's number.
        index: LeafIndex,
        /// Candidates by the parameters.
        expected: CandidateCount,
        /// Candidates found.
        found: usize,
    },
    /// A reply could match two of the candidates.
    #[error("the candidates of fingerprint {index} are not prefix-free under the rule {rule}")]
    NotPrefixFree {
        /// Fingerprint's number.
        index: LeafIndex,
        /// The rule.
        rule: MatchingRule,
    },
    /// The tree refused the path or the leaves.
    #[error("failed to follow the Merkle tree")]
    Merkle(#[from] MerkleError),
}

/// What a commitment says about all of its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommitmentParameters {
    /// Version of encodings, draw and rules; [`Self::VERSION`].
    pub version: u32,
    /// Number of fingerprints, `n`.
    pub fingerprints: u32,
    /// Candidates of each key, `k`.
    pub candidates: CandidateCount,
    /// Probability mass that candidates lie beyond, `t`.
    pub nucleus: BasisPoints,
    /// How replies are compared with candidates.
    pub matching: MatchingRule,
    /// The base model that candidates were taken from.
    pub base: ManifestDigest,
    /// Its tokenizer.
    pub tokenizer: TokenizerDigest,
}

impl CommitmentParameters {
    /// The only version so far.
    pub const VERSION: u32 = 1;

    /// Most fingerprints of one commitment. A proof asks a few dozen and a model holds some thousands, while a verifier
    /// shuffles as many numbers as a foreign file claims: this many take it a fraction of a second and a few megabytes.
    pub const MAX_FINGERPRINTS: u32 = 1 << 20;

    /// Number of leaves of either tree: the parameters and one for each fingerprint. Refuses an unknown version and
    /// sizes beyond [`Self::MAX_FINGERPRINTS`].
    pub fn leaves(&self) -> Result<u32, CommitmentError> {
        if self.version != Self::VERSION {
            return Err(CommitmentError::Version { found: self.version });
        }
        let size = CommitmentError::Size { fingerprints: self.fingerprints };
        if self.fingerprints == 0 || self.fingerprints > Self::MAX_FINGERPRINTS {
            return Err(size);
        }
        self.fingerprints.checked_add(1).ok_or(size)
    }

    /// Checks that a key's list has `k` candidates and is prefix-free. Opened leaves must pass before their replies
    /// count.
    pub fn check_candidates(&self, index: LeafIndex, candidates: &[Candidate]) -> Result<(), CommitmentError> {
        if candidates.len() != self.candidates.as_usize() {
            return Err(CommitmentError::CandidateCount { index, expected: self.candidates, found: candidates.len() });
        }
        if !self.matching.is_prefix_free(candidates) {
            return Err(CommitmentError::NotPrefixFree { index, rule: self.matching });
        }
        Ok(())
    }

    fn encode(&self, kind: &str) -> Encoder {
        let mut encoder = Encoder::new(kind);
        encoder.number(self.version);
        encoder.number(self.fingerprints);
        encoder.number(u32::from(self.candidates.get()));
        encoder.number(u32::from(self.nucleus.get()));
        encoder.text(self.matching.name());
        encoder.word(self.base.as_bytes());
        encoder.word(self.tokenizer.as_bytes());
        encoder
    }

    /// Position of a fingerprint's leaf, checked against the parameters.
    fn position(&self, index: LeafIndex) -> Result<(u32, u32), CommitmentError> {
        let leaves = self.leaves()?;
        let out_of_range = MerkleError::OutOfRange { index: index.get(), leaves };
        if index.get() >= self.fingerprints {
            return Err(out_of_range.into());
        }
        Ok((index.get().checked_add(1).ok_or(out_of_range)?, leaves))
    }
}

/// One key as it is committed. Secret until it is opened, therefore `Debug` hides all but the number.
#[derive(Clone, Copy)]
pub struct KeyLeaf<'a> {
    /// Random bytes that hide the leaf.
    pub salt: [u8; 32],
    /// Number of the fingerprint.
    pub index: LeafIndex,
    /// Text of the key.
    pub key: &'a str,
    /// The admissible responses, in the order that the draw indexes.
    pub candidates: &'a [Candidate],
}

impl KeyLeaf<'_> {
    fn encode(&self, kind: &str) -> Encoder {
        let mut encoder = Encoder::new(kind);
        encoder.word(&self.salt);
        encoder.number(self.index.get());
        encoder.text(self.key);
        encoder.length(self.candidates.len());
        for candidate in self.candidates {
            encoder.number(candidate.id);
            encoder.text(&candidate.text);
        }
        encoder
    }
}

impl fmt::Debug for KeyLeaf<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyLeaf").field("index", &self.index).finish_non_exhaustive()
    }
}

/// Leaf `i + 1` of tree K.
pub fn key_leaf_hash(leaf: &KeyLeaf<'_>) -> B256 {
    leaf.encode(KEY_KIND).leaf_hash()
}

/// Leaf `i + 1` of tree L.
pub fn set_leaf_hash(leaf: &KeyLeaf<'_>, drawn: CandidateIndex) -> B256 {
    let mut encoder = leaf.encode(SET_KIND);
    encoder.number(u32::from(drawn.get()));
    encoder.leaf_hash()
}

/// Leaf 0 of tree K.
pub fn parameters_leaf_hash(parameters: &CommitmentParameters) -> B256 {
    parameters.encode(PARAMETERS_KIND).leaf_hash()
}

/// Leaf 0 of tree L: binds the draw to the commitment that it was made for, to the beacon, and to what was said about
/// the beacon's source, so that a draw of the claimant's own cannot be called public afterwards.
pub fn parameters_leaf_hash_drawn(
    parameters: &CommitmentParameters,
    root: &CommitmentRoot,
    beacon: &DrawnBeacon,
) -> B256 {
    let (kind, description) = match &beacon.source {
        BeaconSource::SelfDrawn => ("self-drawn", ""),
        BeaconSource::Given { description } => ("given", description.as_str()),
    };
    let mut encoder = parameters.encode(DRAWN_PARAMETERS_KIND);
    encoder.word(root.as_bytes());
    encoder.word(beacon.value.as_bytes());
    encoder.text(kind);
    encoder.text(description);
    encoder.leaf_hash()
}

/// Tree K: what is committed before the draw.
#[derive(Clone, Debug)]
pub struct KeyTree {
    tree: MerkleTree,
}

impl KeyTree {
    /// Builds the tree from the hashes of fingerprints 0, 1, … by [`key_leaf_hash`].
    pub fn new(parameters: &CommitmentParameters, leaf_hashes: &[B256]) -> Result<Self, CommitmentError> {
        Ok(Self { tree: build(parameters, parameters_leaf_hash(parameters), leaf_hashes)? })
    }

    /// The root K.
    pub fn root(&self) -> CommitmentRoot {
        self.tree.root().into()
    }

    /// Path of a fingerprint's leaf.
    pub fn path(&self, index: LeafIndex) -> Result<MerklePath, MerkleError> {
        fingerprint_path(&self.tree, index)
    }

    /// Path of the parameters' leaf.
    pub fn parameters_path(&self) -> Result<MerklePath, MerkleError> {
        self.tree.path(0)
    }
}

/// Tree L: what is committed after the draw.
#[derive(Clone, Debug)]
pub struct SetTree {
    tree: MerkleTree,
}

impl SetTree {
    /// Builds the tree from the hashes of fingerprints 0, 1, … by [`set_leaf_hash`].
    pub fn new(
        parameters: &CommitmentParameters,
        root: &CommitmentRoot,
        beacon: &DrawnBeacon,
        leaf_hashes: &[B256],
    ) -> Result<Self, CommitmentError> {
        let first = parameters_leaf_hash_drawn(parameters, root, beacon);
        Ok(Self { tree: build(parameters, first, leaf_hashes)? })
    }

    /// The root L.
    pub fn root(&self) -> SetRoot {
        self.tree.root().into()
    }

    /// Path of a fingerprint's leaf.
    pub fn path(&self, index: LeafIndex) -> Result<MerklePath, MerkleError> {
        fingerprint_path(&self.tree, index)
    }

    /// Path of the parameters' leaf.
    pub fn parameters_path(&self) -> Result<MerklePath, MerkleError> {
        self.tree.path(0)
    }
}

/// Checks that the parameters are those of commitment K.
pub fn verify_parameters(
    parameters: &CommitmentParameters,
    path: &MerklePath,
    root: &CommitmentRoot,
) -> Result<(), CommitmentError> {
    check_position(path, 0, parameters.leaves()?)?;
    Ok(path.verify(parameters_leaf_hash(parameters), root.word())?)
}

/// Checks that L was made from these parameters, commitment K, this beacon and this source of it.
pub fn verify_drawn_parameters(
    parameters: &CommitmentParameters,
    root: &CommitmentRoot,
    beacon: &DrawnBeacon,
    path: &MerklePath,
    set_root: &SetRoot,
) -> Result<(), CommitmentError> {
    check_position(path, 0, parameters.leaves()?)?;
    Ok(path.verify(parameters_leaf_hash_drawn(parameters, root, beacon), set_root.word())?)
}

/// Checks an opened key against commitment K: its place, its list of candidates and its path. The parameters are
/// taken as true: check them first with [`verify_parameters`].
pub fn verify_key_leaf(
    parameters: &CommitmentParameters,
    leaf: &KeyLeaf<'_>,
    path: &MerklePath,
    root: &CommitmentRoot,
) -> Result<(), CommitmentError> {
    let (position, leaves) = parameters.position(leaf.index)?;
    check_position(path, position, leaves)?;
    parameters.check_candidates(leaf.index, leaf.candidates)?;
    Ok(path.verify(key_leaf_hash(leaf), root.word())?)
}

/// Checks an opened key with its drawn candidate against L, like [`verify_key_leaf`]. That the candidate is the one
/// that the beacon draws is another question: [`crate::draw::draw_index`].
pub fn verify_set_leaf(
    parameters: &CommitmentParameters,
    leaf: &KeyLeaf<'_>,
    drawn: CandidateIndex,
    path: &MerklePath,
    set_root: &SetRoot,
) -> Result<(), CommitmentError> {
    let (position, leaves) = parameters.position(leaf.index)?;
    check_position(path, position, leaves)?;
    parameters.check_candidates(leaf.index, leaf.candidates)?;
    Ok(path.verify(set_leaf_hash(leaf, drawn), set_root.word())?)
}

fn build(parameters: &CommitmentParameters, first: B256, leaf_hashes: &[B256]) -> Result<MerkleTree, CommitmentError> {
    // Refuses what the verifying side would refuse later.
    parameters.leaves()?;
    if u32::try_from(leaf_hashes.len()) != Ok(parameters.fingerprints) {
        return Err(CommitmentError::Leaves { expected: parameters.fingerprints, found: leaf_hashes.len() });
    }
    Ok(MerkleTree::new(std::iter::once(first).chain(leaf_hashes.iter().copied()).collect())?)
}

fn fingerprint_path(tree: &MerkleTree, index: LeafIndex) -> Result<MerklePath, MerkleError> {
    let out_of_range = MerkleError::OutOfRange { index: index.get(), leaves: tree.leaves() };
    tree.path(index.get().checked_add(1).ok_or(out_of_range)?)
}

/// A root alone binds neither the position nor the number of leaves.
fn check_position(path: &MerklePath, expected_index: u32, expected_leaves: u32) -> Result<(), CommitmentError> {
    if path.index == expected_index && path.leaves == expected_leaves {
        return Ok(());
    }
    Err(CommitmentError::Position {
        expected_index,
        expected_leaves,
        found_index: path.index,
        found_leaves: path.leaves,
    })
}

/// Collects the bytes of a leaf.
struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    fn new(kind: &str) -> Self {
        let mut encoder = Self { bytes: Vec::new() };
        encoder.text(kind);
        encoder
    }

    fn number(&mut self, number: u32) {
        self.bytes.extend(number.to_be_bytes());
    }

    fn length(&mut self, length: usize) {
        // No target has lengths beyond 64 bits.
        self.bytes.extend(u64::try_from(length).unwrap_or(u64::MAX).to_be_bytes());
    }

    fn text(&mut self, text: &str) {
        self.length(text.len());
        self.bytes.extend(text.as_bytes());
    }

    fn word(&mut self, word: &[u8; 32]) {
        self.bytes.extend(word);
    }

    fn leaf_hash(self) -> B256 {
        leaf_hash(&self.bytes)
    }
}
