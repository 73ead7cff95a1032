//! One fingerprint, and what opens it.

use std::fmt;

use protocol::{
    commitment::KeyLeaf,
    ids::{CandidateIndex, LeafIndex},
    matching::Candidate,
    merkle::MerklePath,
};
use zeroize::Zeroize;

/// One key with its candidate list, and the drawn response once there is one.
///
/// Everything in it is secret until it is opened: `Debug` prints only sizes, there is no `Serialize`, and memory is
/// wiped on drop.
pub struct Fingerprint {
    salt: [u8; 32],
    key_text: String,
    key_ids: Vec<u32>,
    candidates: Vec<Candidate>,
    pub(super) drawn: Option<CandidateIndex>,
}

impl Fingerprint {
    /// A fingerprint before the draw.
    ///
    /// `salt` hides the leaf: it must come from the generator that made the key, and from nowhere public. `key_ids` are
    /// the ids of `key_text` alone, without template or special tokens. `candidates` are in the order that is committed.
    pub fn new(salt: [u8; 32], key_text: String, key_ids: Vec<u32>, candidates: Vec<Candidate>) -> Self {
        Self { salt, key_text, key_ids, candidates, drawn: None }
    }

    /// The salt of this fingerprint's leaf.
    pub fn salt(&self) -> &[u8; 32] {
        &self.salt
    }

    /// The key as a user would type it.
    pub fn key_text(&self) -> &str {
        &self.key_text
    }

    /// Ids of [`key_text`](Self::key_text) alone, without template or special tokens.
    pub fn key_ids(&self) -> &[u32] {
        &self.key_ids
    }

    /// The committed candidates, in committed order.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// Which candidate the beacon drew; `None` before the draw.
    pub fn drawn(&self) -> Option<CandidateIndex> {
        self.drawn
    }

    /// The candidate that the beacon drew: what the stamped model answers. `None` before the draw.
    pub fn response(&self) -> Option<&Candidate> {
        self.candidates.get(self.drawn?.as_usize())
    }

    pub(super) fn leaf(&self, index: LeafIndex) -> KeyLeaf<'_> {
        KeyLeaf { salt: self.salt, index, key: &self.key_text, candidates: &self.candidates }
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Fingerprint")
            .field("key_tokens", &self.key_ids.len())
            .field("candidates", &self.candidates.len())
            .field("drawn", &self.drawn.is_some())
            .finish_non_exhaustive()
    }
}

impl Drop for Fingerprint {
    fn drop(&mut self) {
        self.salt.zeroize();
        self.key_text.zeroize();
        self.key_ids.zeroize();
        for candidate in &mut self.candidates {
            candidate.id.zeroize();
            candidate.text.zeroize();
        }
        self.drawn = None;
    }
}

/// What shows one fingerprint to a verifier: the leaf's content and its paths to both public roots.
///
/// It borrows from the set, so that opening makes no further copy of a secret. Whoever publishes it burns the leaf.
pub struct Opening<'a> {
    /// Position of the fingerprint in the set.
    pub index: LeafIndex,
    /// Salt of the leaf.
    pub salt: [u8; 32],
    /// The key as a user would type it.
    pub key_text: &'a str,
    /// The committed candidates, in committed order.
    pub candidates: &'a [Candidate],
    /// Which of them the beacon drew.
    pub drawn: CandidateIndex,
    /// From the key leaf to the root that was committed before the draw.
    pub key_path: MerklePath,
    /// From the set leaf (with the drawn index) to the root of the drawn set.
    pub set_path: MerklePath,
}

impl fmt::Debug for Opening<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Opening")
            .field("index", &self.index)
            .field("candidates", &self.candidates.len())
            .finish_non_exhaustive()
    }
}
