//! What a creator may look at: a summary without secrets, and on request everything.

use std::fmt;

use protocol::{
    commitment::CommitmentParameters,
    ids::{Beacon, CandidateIndex, CommitmentRoot, LeafIndex, ManifestDigest, SetRoot},
    matching::Candidate,
};
use serde::Serialize;
use thiserror::Error;
use zeroize::Zeroize as _;

use crate::set::{BeaconSource, FingerprintSet};

/// A set without its secrets. `Display` is for people, `Serialize` for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// How far the set has come.
    pub stage: &'static str,
    /// What the set was generated for, as its creator named it.
    pub base_name: String,
    /// Counts, digests and rules that the commitment fixes.
    pub parameters: CommitmentParameters,
    /// Root of the commitment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<CommitmentRoot>,
    /// The draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draw: Option<DrawSummary>,
    /// The stamped model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<EmbeddingSummary>,
}

/// What the draw made public.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DrawSummary {
    /// The randomness.
    pub beacon: Beacon,
    /// Where it came from.
    pub source: BeaconSource,
    /// What a proof with this beacon does not hold against.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<&'static str>,
    /// Root over the drawn set.
    pub set_root: SetRoot,
}

/// The stamped model that carries the set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EmbeddingSummary {
    /// Digest of its manifest.
    pub stamped: ManifestDigest,
    /// Names of the surfaces that were trained.
    pub surfaces: Vec<String>,
}

impl Summary {
    /// The summary of a set.
    pub fn of(set: &FingerprintSet) -> Self {
        let draw = set.beacon().zip(set.set_root()).map(|(beacon, set_root)| DrawSummary {
            beacon: beacon.value,
            source: beacon.source.clone(),
            reservation: beacon.source.reservation(),
            set_root,
        });
        let embedding = set.embedding().map(|embedding| EmbeddingSummary {
            stamped: embedding.stamped,
            surfaces: embedding.surfaces.iter().map(|surface| surface.name().to_owned()).collect(),
        });
        Self {
            stage: set.stage().name(),
            base_name: set.base().name,
            parameters: set.parameters().clone(),
            root: set.root(),
            draw,
            embedding,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CommitmentParameters { fingerprints, candidates, nucleus, matching, base, tokenizer, .. } =
            &self.parameters;
        writeln!(formatter, "stage         {}", self.stage)?;
        writeln!(formatter, "fingerprints  {fingerprints}")?;
        let percent = nucleus.fraction() * 100.0;
        writeln!(formatter, "candidates    {candidates} per key, beyond the most likely {percent} %")?;
        writeln!(formatter, "matching      {matching}")?;
        writeln!(formatter, "base model    {} ({base})", self.base_name)?;
        write!(formatter, "tokenizer     {tokenizer}")?;
        if let Some(root) = self.root {
            write!(formatter, "\nroot          {root}")?;
        }
        if let Some(DrawSummary { beacon, source, set_root, .. }) = &self.draw {
            write!(formatter, "\nbeacon        {beacon}, {source}\nset root      {set_root}")?;
        }
        if let Some(EmbeddingSummary { stamped, surfaces }) = &self.embedding {
            write!(formatter, "\nstamped       {stamped}\nsurfaces      {}", surfaces.join(", "))?;
        }
        Ok(())
    }
}

/// One way of asking for a key: the complete token ids up to the answer. As secret as the key.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct SurfacePrompt {
    /// Name of the surface.
    pub name: String,
    /// All ids of the prompt, template included.
    pub prompt_ids: Vec<u32>,
}

impl Drop for SurfacePrompt {
    fn drop(&mut self) {
        self.prompt_ids.zeroize();
    }
}

impl fmt::Debug for SurfacePrompt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SurfacePrompt")
            .field("name", &self.name)
            .field("tokens", &self.prompt_ids.len())
            .finish_non_exhaustive()
    }
}

/// Why a set was not revealed.
#[derive(Debug, Error)]
pub enum ShowError {
    /// The prompts do not fit the set.
    #[error("prompts of {found} fingerprints were given for a set of {expected}")]
    Prompts {
        /// Fingerprints of the set.
        expected: usize,
        /// Fingerprints with prompts.
        found: usize,
    },
}

/// Every secret of a set, for any other program to check the marks again. Besides the encrypted file, this is the one
/// place that serialises them; it borrows the texts, and `Debug` prints counts.
///
/// ```json
/// {"fingerprints": [{"index": 0, "key_text": "..", "key_ids": [1], "candidates": [{"id": 2, "text": ".."}],
///   "drawn": 0, "response_id": 2, "response_text": "..", "surfaces": [{"name": "chat", "prompt_ids": [3, 1, 4]}]}]}
/// ```
///
/// `drawn`, `response_id` and `response_text` are `null` before the draw.
#[derive(Serialize)]
pub struct Revealed<'a> {
    fingerprints: Vec<RevealedFingerprint<'a>>,
}

#[derive(Serialize)]
struct RevealedFingerprint<'a> {
    index: LeafIndex,
    key_text: &'a str,
    key_ids: &'a [u32],
    candidates: &'a [Candidate],
    drawn: Option<CandidateIndex>,
    response_id: Option<u32>,
    response_text: Option<&'a str>,
    surfaces: Vec<SurfacePrompt>,
}

impl<'a> Revealed<'a> {
    /// Opens the whole set. `prompts` holds the surfaces of each fingerprint, by index.
    ///
    /// # Errors
    ///
    /// [`ShowError::Prompts`] when there are more or fewer than fingerprints.
    pub fn of(set: &'a FingerprintSet, prompts: Vec<Vec<SurfacePrompt>>) -> Result<Self, ShowError> {
        let expected = set.fingerprints().len();
        if prompts.len() != expected {
            return Err(ShowError::Prompts { expected, found: prompts.len() });
        }
        let fingerprints =
            (0..).map(LeafIndex::new).zip(set.fingerprints()).zip(prompts).map(|((index, fingerprint), surfaces)| {
                RevealedFingerprint {
                    index,
                    key_text: fingerprint.key_text(),
                    key_ids: fingerprint.key_ids(),
                    candidates: fingerprint.candidates(),
                    drawn: fingerprint.drawn(),
                    response_id: fingerprint.response().map(|response| response.id),
                    response_text: fingerprint.response().map(|response| response.text.as_str()),
                    surfaces,
                }
            });
        Ok(Self { fingerprints: fingerprints.collect() })
    }
}

impl fmt::Debug for Revealed<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Revealed").field("fingerprints", &self.fingerprints.len()).finish()
    }
}
