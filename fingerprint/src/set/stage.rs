//! How far a set has come, and what exists at each step.

use protocol::{
    draw::DrawnBeacon,
    ids::{Beacon, CommitmentRoot, ManifestDigest, SetRoot},
};
use rand::RngCore;

use crate::surface::Surface;

/// How far a set has come. Each step carries what exists from then on; a set only moves forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// Keys and candidate lists exist and can still be thrown away.
    Generated,
    /// Keys and candidate lists are fixed under a public root.
    Committed {
        /// Root over the parameters, keys and candidate lists.
        root: CommitmentRoot,
    },
    /// One response of each list is fixed by randomness that came after the root.
    Drawn {
        /// Root over the parameters, keys and candidate lists.
        root: CommitmentRoot,
        /// The randomness.
        beacon: DrawnBeacon,
        /// Root over the parameters with the beacon, keys, candidate lists and drawn indices.
        set_root: SetRoot,
    },
    /// The responses are in the weights of a model.
    Embedded {
        /// Root over the parameters, keys and candidate lists.
        root: CommitmentRoot,
        /// The randomness.
        beacon: DrawnBeacon,
        /// Root over the parameters with the beacon, keys, candidate lists and drawn indices.
        set_root: SetRoot,
        /// Which model, and how it was trained to be asked.
        embedding: Embedding,
    },
}

impl Stage {
    /// One lower-case word for reports and files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Generated => "generated",
            Self::Committed { .. } => "committed",
            Self::Drawn { .. } => "drawn",
            Self::Embedded { .. } => "embedded",
        }
    }
}

/// Draws a beacon from a generator of the claimant, for use with [`protocol::draw::BeaconSource::SelfDrawn`].
pub fn self_drawn_beacon(generator: &mut impl RngCore) -> Beacon {
    let mut bytes = [0; 32];
    generator.fill_bytes(&mut bytes);
    Beacon::from_bytes(bytes)
}

/// A stamped model that carries the set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Embedding {
    /// Digest of the stamped model's manifest.
    pub stamped: ManifestDigest,
    /// The ways of asking that were trained, in the order of training.
    pub surfaces: Vec<Surface>,
}
