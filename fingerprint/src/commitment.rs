//! The public half of a set: what a creator publishes, and all that a verifier of a proof needs.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use protocol::{
    commitment::{CommitmentParameters, verify_drawn_parameters, verify_parameters},
    ids::{Beacon, CommitmentRoot, ManifestDigest, SetRoot},
    merkle::MerklePath,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    atomic::{self, Access},
    set::{BeaconSource, DrawnBeacon, FingerprintSet, SetError, Stage},
};

const FORMAT: &str = "hallmark commitment";
const VERSION: u32 = 1;

/// Why a commitment was refused or could not be written.
#[derive(Debug, Error)]
pub enum CommitmentError {
    /// The set cannot be published yet.
    #[error("failed to publish the commitment")]
    Set(#[source] SetError),
    /// Not readable.
    #[error("failed to read the commitment {path}; give the commitment.json that the creator published")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Not written; what was there is untouched.
    #[error("failed to write the commitment {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something else is there.
    #[error("{path} is there and is not a commitment of this set; name another file with --commitment")]
    Occupied {
        /// Which file.
        path: PathBuf,
    },
    /// Another kind of file.
    #[error("this is not a Hallmark commitment; give the commitment.json that the creator published")]
    NotACommitment {
        /// What the JSON reader objected to, if it did.
        #[source]
        source: Option<serde_json::Error>,
    },
    /// Written by another version of Hallmark.
    #[error("the commitment has version {found}, this program reads version {VERSION}; use the release that wrote it")]
    OtherVersion {
        /// The file's version.
        found: u32,
    },
    /// A field is missing, unknown or malformed.
    #[error("the commitment is damaged; fetch it again")]
    Damaged {
        /// What the JSON reader objected to.
        #[source]
        source: serde_json::Error,
    },
    /// The reservation does not fit the beacon's source.
    #[error("the commitment's reservation does not fit its beacon source; fetch it again")]
    Reservation,
    /// The parameters or the beacon are not those that the roots were made from.
    #[error("the commitment contradicts itself: its parameters are not those under its {root}; fetch it again")]
    Roots {
        /// Which root.
        root: &'static str,
        /// What does not fit.
        #[source]
        source: protocol::commitment::CommitmentError,
    },
}

/// What the draw made public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedDraw {
    /// The randomness and where it came from.
    pub beacon: DrawnBeacon,
    /// Root over the drawn set.
    pub set_root: SetRoot,
    /// Shows that this root was made from the parameters, the commitment root, this beacon and its source.
    pub parameters_path: MerklePath,
    /// The stamped model, once the set is embedded.
    pub stamped: Option<ManifestDigest>,
}

/// The public half of a set. It grows with the set and never changes what it said before.
///
/// A parsed commitment agrees with itself: the roots were made from these parameters, this beacon and what is said about
/// its source. That the root was published before the beacon, that the beacon came from there, and that the stamped model
/// carries the set are claims that no root makes true; they are checked where the commitment was published, and by a
/// proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commitment {
    parameters: CommitmentParameters,
    parameters_path: MerklePath,
    root: CommitmentRoot,
    draw: Option<PublishedDraw>,
}

impl Commitment {
    /// What may be published of a set.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::Set`] before the set is committed.
    pub fn of(set: &FingerprintSet) -> Result<Self, CommitmentError> {
        let (root, drawn, stamped) = match set.stage() {
            Stage::Generated => return Err(CommitmentError::Set(SetError::NotCommitted)),
            Stage::Committed { root } => (*root, None, None),
            Stage::Drawn { root, beacon, set_root } => (*root, Some((beacon, *set_root)), None),
            Stage::Embedded { root, beacon, set_root, embedding } => {
                (*root, Some((beacon, *set_root)), Some(embedding.stamped))
            }
        };
        let path_error = |source| CommitmentError::Set(SetError::Commitment(source));
        let key_tree = set.key_tree().map_err(CommitmentError::Set)?;
        let draw = match drawn {
            None => None,
            Some((beacon, set_root)) => {
                let set_tree = set.set_tree(&root, beacon).map_err(CommitmentError::Set)?;
                let parameters_path = set_tree.parameters_path().map_err(|source| path_error(source.into()))?;
                Some(PublishedDraw { beacon: beacon.clone(), set_root, parameters_path, stamped })
            }
        };
        let parameters_path = key_tree.parameters_path().map_err(|source| path_error(source.into()))?;
        Ok(Self { parameters: set.parameters().clone(), parameters_path, root, draw })
    }

    /// What the commitment says about the whole set.
    pub fn parameters(&self) -> &CommitmentParameters {
        &self.parameters
    }

    /// Root over parameters, keys and candidate lists.
    pub fn root(&self) -> CommitmentRoot {
        self.root
    }

    /// Shows that the root was made from the parameters.
    pub fn parameters_path(&self) -> &MerklePath {
        &self.parameters_path
    }

    /// What the draw made public; `None` before it.
    pub fn draw(&self) -> Option<&PublishedDraw> {
        self.draw.as_ref()
    }

    /// Parses and checks the content of a `commitment.json`.
    ///
    /// # Errors
    ///
    /// [`CommitmentError`] when it is something else, of another version, or damaged.
    pub fn from_json(json: &[u8]) -> Result<Self, CommitmentError> {
        let kind: Kind =
            serde_json::from_slice(json).map_err(|source| CommitmentError::NotACommitment { source: Some(source) })?;
        if kind.format != FORMAT {
            return Err(CommitmentError::NotACommitment { source: None });
        }
        if kind.version != VERSION {
            return Err(CommitmentError::OtherVersion { found: kind.version });
        }
        let file: CommitmentFile =
            serde_json::from_slice(json).map_err(|source| CommitmentError::Damaged { source })?;
        let draw = file.draw.map(PublishedDraw::try_from).transpose()?;
        let commitment =
            Self { parameters: file.parameters, parameters_path: file.parameters_path, root: file.root, draw };
        commitment.check()?;
        Ok(commitment)
    }

    /// Whether the parameters and the beacon are those that the roots were made from.
    fn check(&self) -> Result<(), CommitmentError> {
        let Self { parameters, parameters_path, root, draw } = self;
        verify_parameters(parameters, parameters_path, root)
            .map_err(|source| CommitmentError::Roots { root: "root", source })?;
        if let Some(PublishedDraw { beacon, set_root, parameters_path, .. }) = draw {
            verify_drawn_parameters(parameters, root, beacon, parameters_path, set_root)
                .map_err(|source| CommitmentError::Roots { root: "set root", source })?;
        }
        Ok(())
    }

    /// The content of `commitment.json`: indented, one line per field, a new line at the end.
    pub fn to_json(&self) -> String {
        let mut json = serde_json::to_string_pretty(self)
            .expect("serialising to memory fails only for maps with keys that are not strings, and there are none");
        json.push('\n');
        json
    }

    /// Reads a `commitment.json`.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::Read`], and as [`from_json`](Self::from_json).
    pub fn read(path: &Path) -> Result<Self, CommitmentError> {
        let json = fs::read(path).map_err(|source| CommitmentError::Read { path: path.to_owned(), source })?;
        Self::from_json(&json)
    }

    /// Whether [`write`](Self::write) would find a place: a folder that is there, and in it nothing of that name or an
    /// earlier commitment of the same set. Asked before the set is changed.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::Occupied`], and [`CommitmentError::Write`] without a folder.
    pub fn check_place(&self, path: &Path) -> Result<(), CommitmentError> {
        let folder = atomic::folder_of(path);
        if !folder.is_dir() {
            let source = io::Error::new(io::ErrorKind::NotFound, format!("there is no folder {}", folder.display()));
            return Err(CommitmentError::Write { path: path.to_owned(), source });
        }
        let ours = || Self::read(path).is_ok_and(|found| found.root == self.root);
        if !path.is_file() || ours() { Ok(()) } else { Err(CommitmentError::Occupied { path: path.to_owned() }) }
    }

    /// Writes a `commitment.json`, completely or not at all, in place of an earlier one of the same set and of nothing else.
    ///
    /// # Errors
    ///
    /// [`CommitmentError::Write`], and as [`check_place`](Self::check_place).
    pub fn write(&self, path: &Path) -> Result<(), CommitmentError> {
        self.check_place(path)?;
        atomic::replace(path, Access::Public, |writer| writer.write_all(self.to_json().as_bytes()))
            .map_err(|source| CommitmentError::Write { path: path.to_owned(), source })
    }
}

impl Serialize for Commitment {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        CommitmentFile {
            format: FORMAT.to_owned(),
            version: VERSION,
            parameters: self.parameters.clone(),
            root: self.root,
            parameters_path: self.parameters_path.clone(),
            draw: self.draw.as_ref().map(DrawFile::from),
        }
        .serialize(serializer)
    }
}

/// The two fields that every version has. Other fields are not looked at.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CommitmentFile {
    format: String,
    version: u32,
    parameters: CommitmentParameters,
    root: CommitmentRoot,
    parameters_path: MerklePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    draw: Option<DrawFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DrawFile {
    beacon: Beacon,
    source: BeaconSource,
    /// Written out so that whoever reads the file by eye reads it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reservation: Option<String>,
    set_root: SetRoot,
    parameters_path: MerklePath,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stamped: Option<ManifestDigest>,
}

impl From<&PublishedDraw> for DrawFile {
    fn from(draw: &PublishedDraw) -> Self {
        Self {
            beacon: draw.beacon.value,
            source: draw.beacon.source.clone(),
            reservation: draw.beacon.source.reservation().map(str::to_owned),
            set_root: draw.set_root,
            parameters_path: draw.parameters_path.clone(),
            stamped: draw.stamped,
        }
    }
}

impl TryFrom<DrawFile> for PublishedDraw {
    type Error = CommitmentError;

    fn try_from(file: DrawFile) -> Result<Self, CommitmentError> {
        if file.reservation.as_deref() != file.source.reservation() {
            return Err(CommitmentError::Reservation);
        }
        Ok(Self {
            beacon: DrawnBeacon { value: file.beacon, source: file.source },
            set_root: file.set_root,
            parameters_path: file.parameters_path,
            stamped: file.stamped,
        })
    }
}
