//! The JSON inside a set file. The only serialised form of a set, and private to the vault.

use std::{borrow::Cow, mem, path::Path};

use protocol::{
    commitment::CommitmentParameters,
    ids::{Beacon, CommitmentRoot, ManifestDigest, SetRoot},
    matching::Candidate,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{
    VaultError,
    key::{Lock, Recipient},
};
use crate::{
    set::{BeaconSource, DrawnBeacon, Embedding, Fingerprint, FingerprintSet, Stage},
    surface::Surface,
};

const FORMAT: &str = "hallmark fingerprint set";
const VERSION: u32 = 1;

/// The two fields that every version has. Other fields are not looked at.
#[derive(Deserialize)]
struct Kind {
    format: String,
    version: u32,
}

/// Drawn responses are not stored: they follow from the beacon and are drawn again.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetFile<'a> {
    format: Cow<'a, str>,
    version: u32,
    /// Everyone who can open the file; empty for a passphrase.
    recipients: Vec<String>,
    base_name: String,
    parameters: CommitmentParameters,
    stage: StageForm,
    fingerprints: Vec<FingerprintForm<'a>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FingerprintForm<'a> {
    salt: [u8; 32],
    key_text: Cow<'a, str>,
    key_ids: Cow<'a, [u32]>,
    candidates: Cow<'a, [Candidate]>,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
enum StageForm {
    Generated,
    Committed {
        root: CommitmentRoot,
    },
    Drawn {
        root: CommitmentRoot,
        beacon: Beacon,
        source: BeaconSource,
        set_root: SetRoot,
    },
    Embedded {
        root: CommitmentRoot,
        beacon: Beacon,
        source: BeaconSource,
        set_root: SetRoot,
        stamped: ManifestDigest,
        surfaces: Vec<Surface>,
    },
}

impl<'a> SetFile<'a> {
    /// The form of a set, borrowing its secrets.
    pub(super) fn of(set: &'a FingerprintSet, lock: &Lock) -> Self {
        let recipients = match lock {
            Lock::Passphrase { .. } => Vec::new(),
            Lock::Recipients(recipients) => recipients.iter().map(Recipient::to_string).collect(),
        };
        let fingerprints = set.fingerprints().iter().map(|fingerprint| FingerprintForm {
            salt: *fingerprint.salt(),
            key_text: fingerprint.key_text().into(),
            key_ids: fingerprint.key_ids().into(),
            candidates: fingerprint.candidates().into(),
        });
        Self {
            format: FORMAT.into(),
            version: VERSION,
            recipients,
            base_name: set.base().name,
            parameters: set.parameters().clone(),
            stage: set.stage().into(),
            fingerprints: fingerprints.collect(),
        }
    }

    /// The set in a decrypted file, and everyone who can open that.
    pub(super) fn parse(path: &Path, plain: &[u8]) -> Result<(FingerprintSet, Vec<Recipient>), VaultError> {
        let path = || path.to_owned();
        let kind: Kind = serde_json::from_slice(plain).map_err(|_| VaultError::NotASet { path: path() })?;
        if kind.format != FORMAT {
            return Err(VaultError::NotASet { path: path() });
        }
        if kind.version != VERSION {
            return Err(VaultError::OtherVersion { path: path(), found: kind.version, expected: VERSION });
        }
        let file: SetFile<'static> = serde_json::from_slice(plain).map_err(|error| VaultError::Malformed {
            path: path(),
            line: error.line(),
            column: error.column(),
        })?;
        let recipients = file.recipients.iter().map(|text| text.parse()).collect::<Result<_, _>>()?;
        let fingerprints = file.fingerprints.into_iter().map(FingerprintForm::into_fingerprint);
        let set = FingerprintSet::restored(file.base_name, file.parameters, fingerprints.collect(), file.stage.into())
            .map_err(|source| VaultError::Set { path: path(), source })?;
        Ok((set, recipients))
    }
}

impl FingerprintForm<'_> {
    /// Owned strings move: what was parsed is what the set wipes.
    fn into_fingerprint(mut self) -> Fingerprint {
        Fingerprint::new(
            self.salt,
            mem::take(&mut self.key_text).into_owned(),
            mem::take(&mut self.key_ids).into_owned(),
            mem::take(&mut self.candidates).into_owned(),
        )
    }
}

/// A form that is dropped before it becomes a fingerprint wipes what it owns. What it borrows is the set's to wipe.
impl Drop for FingerprintForm<'_> {
    fn drop(&mut self) {
        self.salt.zeroize();
        if let Cow::Owned(text) = &mut self.key_text {
            text.zeroize();
        }
        if let Cow::Owned(ids) = &mut self.key_ids {
            ids.zeroize();
        }
        if let Cow::Owned(candidates) = &mut self.candidates {
            candidates.iter_mut().for_each(|candidate| candidate.text.zeroize());
        }
    }
}

impl From<&Stage> for StageForm {
    fn from(stage: &Stage) -> Self {
        match stage {
            Stage::Generated => Self::Generated,
            Stage::Committed { root } => Self::Committed { root: *root },
            Stage::Drawn { root, beacon, set_root } => {
                Self::Drawn { root: *root, beacon: beacon.value, source: beacon.source.clone(), set_root: *set_root }
            }
            Stage::Embedded { root, beacon, set_root, embedding } => Self::Embedded {
                root: *root,
                beacon: beacon.value,
                source: beacon.source.clone(),
                set_root: *set_root,
                stamped: embedding.stamped,
                surfaces: embedding.surfaces.clone(),
            },
        }
    }
}

impl From<StageForm> for Stage {
    fn from(form: StageForm) -> Self {
        match form {
            StageForm::Generated => Self::Generated,
            StageForm::Committed { root } => Self::Committed { root },
            StageForm::Drawn { root, beacon, source, set_root } => {
                Self::Drawn { root, beacon: DrawnBeacon { value: beacon, source }, set_root }
            }
            StageForm::Embedded { root, beacon, source, set_root, stamped, surfaces } => Self::Embedded {
                root,
                beacon: DrawnBeacon { value: beacon, source },
                set_root,
                embedding: Embedding { stamped, surfaces },
            },
        }
    }
}
