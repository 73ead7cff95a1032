//! How far a set has come, and what exists at each step.

use std::fmt;

use protocol::ids::{Beacon, CommitmentRoot, ManifestDigest, SetRoot};
use rand::RngCore;
use serde::{Deserialize, Serialize};

use crate::surface::Surface;

/// What every report says when the claimant drew the beacon: nobody else can know how often it was drawn.
pub const SELF_DRAWN_STATEMENT: &str = "the proof holds against innocent models but not against a claimant who grinds";

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

/// The randomness that drew the responses, and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnBeacon {
    /// The 32 bytes.
    pub value: Beacon,
    /// Where they came from.
    pub source: BeaconSource,
}

/// Where a beacon came from. It decides against whom a proof holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum BeaconSource {
    /// The claimant's own tool drew it: see [`SELF_DRAWN_STATEMENT`].
    SelfDrawn,
    /// Public randomness from after the commitment, described so that a reader can look it up. Hallmark does not
    /// check the description offline: whoever relies on the proof does.
    Given {
        /// For example "ethereum mainnet, prevrandao of block 21000000".
        description: String,
    },
}

impl BeaconSource {
    /// What a report must say about a proof that rests on this beacon; `None` when there is nothing to hold against it.
    pub fn reservation(&self) -> Option<&'static str> {
        match self {
            Self::SelfDrawn => Some(SELF_DRAWN_STATEMENT),
            Self::Given { .. } => None,
        }
    }
}

impl fmt::Display for BeaconSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SelfDrawn => write!(formatter, "drawn by the claimant ({SELF_DRAWN_STATEMENT})"),
            Self::Given { description } => formatter.write_str(description),
        }
    }
}

/// Draws a beacon from a generator of the claimant, for use with [`BeaconSource::SelfDrawn`].
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
