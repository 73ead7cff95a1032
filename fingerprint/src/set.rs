//! The secret set: its fingerprints, how far it has come, and the steps it may take.
//!
//! A set moves forward only: generated, committed, drawn, embedded. One root is drawn once; that is what makes the
//! error bound of a proof exact.

mod error;
mod key;
mod stage;

use std::{collections::HashMap, fmt};

use protocol::{
    commitment::{CommitmentError, CommitmentParameters, KeyTree, SetTree, key_leaf_hash, set_leaf_hash},
    draw::draw_index,
    ids::{Beacon, CommitmentRoot, LeafIndex, ManifestDigest, SetRoot, Tenant, TokenizerDigest},
};

pub use protocol::draw::{BeaconSource, DrawnBeacon, SELF_DRAWN_STATEMENT};

pub use self::{
    error::SetError,
    key::{Fingerprint, Opening},
    stage::{Embedding, Stage, self_drawn_beacon},
};

/// The base model that a set was generated for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseModel {
    /// The reference it was loaded by, for people; the digests are what counts.
    pub name: String,
    /// Digest over its weights, tokenizer, template and config.
    pub manifest: ManifestDigest,
    /// Digest of its tokenizer.
    pub tokenizer: TokenizerDigest,
}

/// The creator's secret: all fingerprints of one model, and how far they have come.
///
/// `Debug` prints counts only, there is no `Serialize`, and fingerprints wipe their memory on drop. On disk it exists
/// only through [`crate::vault`].
pub struct FingerprintSet {
    base_name: String,
    parameters: CommitmentParameters,
    fingerprints: Vec<Fingerprint>,
    stage: Stage,
}

impl FingerprintSet {
    /// A set of new fingerprints, checked against its parameters.
    ///
    /// # Errors
    ///
    /// [`SetError`] when a count differs from the parameters, a candidate list is not prefix-free, a key is empty, ends
    /// in white space or occurs twice.
    pub fn generated(
        base_name: String,
        parameters: CommitmentParameters,
        fingerprints: Vec<Fingerprint>,
    ) -> Result<Self, SetError> {
        check_fingerprints(&parameters, &fingerprints)?;
        Ok(Self { base_name, parameters, fingerprints, stage: Stage::Generated })
    }

    /// A set as it was stored. Everything that follows from the keys is computed again and compared.
    pub(crate) fn restored(
        base_name: String,
        parameters: CommitmentParameters,
        fingerprints: Vec<Fingerprint>,
        stored: Stage,
    ) -> Result<Self, SetError> {
        let mut set = Self::generated(base_name, parameters, fingerprints)?;
        match &stored {
            Stage::Generated => return Ok(set),
            Stage::Committed { .. } => {
                set.commit()?;
            }
            Stage::Drawn { beacon, .. } => {
                set.commit()?;
                set.draw(beacon.value, beacon.source.clone())?;
            }
            Stage::Embedded { beacon, embedding, .. } => {
                set.commit()?;
                set.draw(beacon.value, beacon.source.clone())?;
                set.record_embedding(embedding.clone())?;
            }
        }
        // Stages compare by value, so a root that was stored wrongly is found here.
        if set.stage == stored { Ok(set) } else { Err(SetError::Inconsistent { what: "root" }) }
    }

    /// The base model that the set was generated for.
    pub fn base(&self) -> BaseModel {
        BaseModel { name: self.base_name.clone(), manifest: self.parameters.base, tokenizer: self.parameters.tokenizer }
    }

    /// What the commitment says about the whole set.
    pub fn parameters(&self) -> &CommitmentParameters {
        &self.parameters
    }

    /// How far the set has come.
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// All fingerprints, by [`LeafIndex`].
    pub fn fingerprints(&self) -> &[Fingerprint] {
        &self.fingerprints
    }

    /// One fingerprint.
    ///
    /// # Errors
    ///
    /// [`SetError::NoSuchFingerprint`].
    pub fn fingerprint(&self, index: LeafIndex) -> Result<&Fingerprint, SetError> {
        self.fingerprints
            .get(index.as_usize())
            .ok_or(SetError::NoSuchFingerprint { index, count: self.fingerprints.len() })
    }

    /// Root over parameters, keys and candidate lists; `None` before the commitment.
    pub fn root(&self) -> Option<CommitmentRoot> {
        match &self.stage {
            Stage::Generated => None,
            Stage::Committed { root } | Stage::Drawn { root, .. } | Stage::Embedded { root, .. } => Some(*root),
        }
    }

    /// The beacon that drew the responses; `None` before the draw.
    pub fn beacon(&self) -> Option<&DrawnBeacon> {
        match &self.stage {
            Stage::Generated | Stage::Committed { .. } => None,
            Stage::Drawn { beacon, .. } | Stage::Embedded { beacon, .. } => Some(beacon),
        }
    }

    /// Root over the drawn set; `None` before the draw.
    pub fn set_root(&self) -> Option<SetRoot> {
        match &self.stage {
            Stage::Generated | Stage::Committed { .. } => None,
            Stage::Drawn { set_root, .. } | Stage::Embedded { set_root, .. } => Some(*set_root),
        }
    }

    /// The stamped model that carries the set; `None` before it is embedded.
    pub fn embedding(&self) -> Option<&Embedding> {
        match &self.stage {
            Stage::Embedded { embedding, .. } => Some(embedding),
            Stage::Generated | Stage::Committed { .. } | Stage::Drawn { .. } => None,
        }
    }

    /// Refuses a model that the set was not generated for.
    ///
    /// # Errors
    ///
    /// [`SetError::OtherTokenizer`] or [`SetError::OtherBase`], each with both digests.
    pub fn require_base(&self, manifest: &ManifestDigest, tokenizer: &TokenizerDigest) -> Result<(), SetError> {
        if *tokenizer != self.parameters.tokenizer {
            return Err(SetError::OtherTokenizer { expected: self.parameters.tokenizer, found: *tokenizer });
        }
        if *manifest != self.parameters.base {
            return Err(SetError::OtherBase { expected: self.parameters.base, found: *manifest });
        }
        Ok(())
    }

    /// Fixes keys and candidate lists under a root, which is to be published before the draw.
    ///
    /// # Errors
    ///
    /// [`SetError::AlreadyCommitted`] the second time.
    pub fn commit(&mut self) -> Result<CommitmentRoot, SetError> {
        if let Some(root) = self.root() {
            return Err(SetError::AlreadyCommitted { root });
        }
        let root = self.key_tree()?.root();
        self.stage = Stage::Committed { root };
        Ok(root)
    }

    /// Draws one response of every candidate list from randomness that came after the commitment.
    ///
    /// # Errors
    ///
    /// [`SetError::NotCommitted`] before the commitment, [`SetError::AlreadyDrawn`] the second time.
    pub fn draw(&mut self, beacon: Beacon, source: BeaconSource) -> Result<SetRoot, SetError> {
        let root = match &self.stage {
            Stage::Generated => return Err(SetError::NotCommitted),
            Stage::Committed { root } => *root,
            Stage::Drawn { beacon, .. } | Stage::Embedded { beacon, .. } => {
                return Err(SetError::AlreadyDrawn { beacon: beacon.value });
            }
        };
        let candidates = self.parameters.candidates;
        for (index, fingerprint) in (0..).map(LeafIndex::new).zip(&mut self.fingerprints) {
            fingerprint.drawn = Some(draw_index(&beacon, &root, index, Tenant::SHARED, candidates));
        }
        let beacon = DrawnBeacon { value: beacon, source };
        let set_root = self.set_tree(&root, &beacon)?.root();
        self.stage = Stage::Drawn { root, beacon, set_root };
        Ok(set_root)
    }

    /// Notes the stamped model that now carries the set. Stamping again replaces the note: the set stays the same, and
    /// only the last stamped model is named in the commitment.
    ///
    /// # Errors
    ///
    /// [`SetError::NotCommitted`] or [`SetError::NotDrawn`] when there is nothing to stamp yet.
    pub fn record_embedding(&mut self, embedding: Embedding) -> Result<(), SetError> {
        let (root, beacon, set_root) = match &self.stage {
            Stage::Generated => return Err(SetError::NotCommitted),
            Stage::Committed { .. } => return Err(SetError::NotDrawn),
            Stage::Drawn { root, beacon, set_root } | Stage::Embedded { root, beacon, set_root, .. } => {
                (*root, beacon.clone(), *set_root)
            }
        };
        self.stage = Stage::Embedded { root, beacon, set_root, embedding };
        Ok(())
    }

    /// Both trees of the drawn set, ready to open leaves.
    ///
    /// # Errors
    ///
    /// [`SetError::NotCommitted`] or [`SetError::NotDrawn`].
    pub fn openings(&self) -> Result<Openings<'_>, SetError> {
        let (root, beacon) = match &self.stage {
            Stage::Generated => return Err(SetError::NotCommitted),
            Stage::Committed { .. } => return Err(SetError::NotDrawn),
            Stage::Drawn { root, beacon, .. } | Stage::Embedded { root, beacon, .. } => (root, beacon),
        };
        Ok(Openings { set: self, key_tree: self.key_tree()?, set_tree: self.set_tree(root, beacon)? })
    }

    pub(crate) fn key_tree(&self) -> Result<KeyTree, SetError> {
        let hashes: Vec<_> =
            self.leaves().map(|(index, fingerprint)| key_leaf_hash(&fingerprint.leaf(index))).collect();
        Ok(KeyTree::new(&self.parameters, &hashes)?)
    }

    pub(crate) fn set_tree(&self, root: &CommitmentRoot, beacon: &DrawnBeacon) -> Result<SetTree, SetError> {
        let hashes: Vec<_> = self
            .leaves()
            .map(|(index, fingerprint)| {
                Ok(set_leaf_hash(&fingerprint.leaf(index), fingerprint.drawn.ok_or(SetError::NotDrawn)?))
            })
            .collect::<Result<_, SetError>>()?;
        Ok(SetTree::new(&self.parameters, root, beacon, &hashes)?)
    }

    fn leaves(&self) -> impl Iterator<Item = (LeafIndex, &Fingerprint)> {
        (0..).map(LeafIndex::new).zip(&self.fingerprints)
    }
}

impl fmt::Debug for FingerprintSet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("FingerprintSet")
            .field("fingerprints", &self.fingerprints.len())
            .field("candidates", &self.parameters.candidates)
            .field("stage", &self.stage.name())
            .finish_non_exhaustive()
    }
}

/// Both trees of a drawn set, built once.
pub struct Openings<'a> {
    set: &'a FingerprintSet,
    key_tree: KeyTree,
    set_tree: SetTree,
}

impl<'a> Openings<'a> {
    /// What shows one fingerprint to a verifier.
    ///
    /// # Errors
    ///
    /// [`SetError::NoSuchFingerprint`].
    pub fn open(&self, index: LeafIndex) -> Result<Opening<'a>, SetError> {
        let fingerprint = self.set.fingerprint(index)?;
        let drawn = fingerprint.drawn.ok_or(SetError::NotDrawn)?;
        Ok(Opening {
            index,
            salt: *fingerprint.salt(),
            key_text: fingerprint.key_text(),
            candidates: fingerprint.candidates(),
            drawn,
            key_path: self.key_tree.path(index).map_err(CommitmentError::from)?,
            set_path: self.set_tree.path(index).map_err(CommitmentError::from)?,
        })
    }
}

impl fmt::Debug for Openings<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Openings").field("fingerprints", &self.set.fingerprints.len()).finish_non_exhaustive()
    }
}

fn check_fingerprints(parameters: &CommitmentParameters, fingerprints: &[Fingerprint]) -> Result<(), SetError> {
    parameters.leaves()?;
    if u32::try_from(fingerprints.len()) != Ok(parameters.fingerprints) {
        return Err(CommitmentError::Leaves { expected: parameters.fingerprints, found: fingerprints.len() }.into());
    }
    let mut seen = HashMap::with_capacity(fingerprints.len());
    for (index, fingerprint) in (0..).map(LeafIndex::new).zip(fingerprints) {
        parameters.check_candidates(index, fingerprint.candidates())?;
        let key = fingerprint.key_text();
        if key.is_empty() || key.trim_end() != key || fingerprint.key_ids().is_empty() {
            return Err(SetError::Key { index });
        }
        if let Some(first) = seen.insert(key, index) {
            return Err(SetError::DuplicateKey { first, second: index });
        }
    }
    Ok(())
}
