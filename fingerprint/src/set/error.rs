//! Why a set, or a step of it, is refused.

use protocol::{
    commitment::CommitmentError,
    ids::{Beacon, CommitmentRoot, LeafIndex, ManifestDigest, TokenizerDigest},
};
use thiserror::Error;

/// Why a set was refused, or a step of it. Never carries a key, a candidate or a salt.
#[derive(Debug, Error)]
pub enum SetError {
    /// The parameters, the counts or a candidate list break the rules of a commitment.
    #[error(transparent)]
    Commitment(#[from] CommitmentError),
    /// An empty key, or one with white space at its end.
    #[error("the key of fingerprint {index} is empty or ends in white space")]
    Key {
        /// Which fingerprint.
        index: LeafIndex,
    },
    /// Two equal keys.
    #[error("fingerprints {first} and {second} have the same key")]
    DuplicateKey {
        /// The earlier one.
        first: LeafIndex,
        /// The later one.
        second: LeafIndex,
    },
    /// The set is already committed.
    #[error(
        "the set is already committed as {root}; a second commitment would be a second draw, so generate a new set instead"
    )]
    AlreadyCommitted {
        /// The public root.
        root: CommitmentRoot,
    },
    /// The set is not committed.
    #[error("the set is not committed yet; run `hallmark fingerprint commit` first")]
    NotCommitted,
    /// The responses are already drawn.
    #[error(
        "the responses are already drawn from beacon {beacon}; one commitment has one draw, so generate a new set instead"
    )]
    AlreadyDrawn {
        /// The randomness that drew them.
        beacon: Beacon,
    },
    /// The responses are not drawn.
    #[error("the responses are not drawn yet; run `hallmark fingerprint draw` first")]
    NotDrawn,
    /// The set was made for another base model.
    #[error(
        "the set belongs to the base model with manifest {expected}, this model has {found}; give the base that the set was generated for"
    )]
    OtherBase {
        /// The set's base.
        expected: ManifestDigest,
        /// The model at hand.
        found: ManifestDigest,
    },
    /// The set was made for another tokenizer.
    #[error(
        "the set belongs to the tokenizer {expected}, this model has {found}; give a model with the tokenizer that the set was generated for"
    )]
    OtherTokenizer {
        /// The set's tokenizer.
        expected: TokenizerDigest,
        /// The tokenizer at hand.
        found: TokenizerDigest,
    },
    /// No such fingerprint.
    #[error("there is no fingerprint {index} in a set of {count}")]
    NoSuchFingerprint {
        /// As asked.
        index: LeafIndex,
        /// How many there are.
        count: usize,
    },
    /// Stored roots or drawn responses that do not follow from the stored keys.
    #[error(
        "the set contradicts itself: its {what} does not follow from its keys and beacon; restore the file from a copy"
    )]
    Inconsistent {
        /// What does not fit.
        what: &'static str,
    },
}
