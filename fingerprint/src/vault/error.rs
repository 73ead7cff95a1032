//! Why a set file could not be opened or written, one sentence each. No variant carries anything from inside a set.

use std::{io, path::PathBuf};

use thiserror::Error;

use crate::set::SetError;

/// Why a set file could not be opened or written.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "every variant says what it is in its message, and `path` is always the file")]
pub enum VaultError {
    #[error("failed to read the fingerprint set {path}; give the file that `hallmark fingerprint generate` wrote")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} exists already and may hold a set; choose another name or move it away")]
    Exists { path: PathBuf },
    #[error("failed to write the fingerprint set {path}; what was there is untouched")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} was changed by another command meanwhile; nothing was saved, run this one again")]
    Changed { path: PathBuf },
    #[error("{path} is not an encrypted fingerprint set; give the file that `hallmark fingerprint generate` wrote")]
    NotAnAgeFile { path: PathBuf },
    #[error("the fingerprint set {path} is cut off; restore it from a copy")]
    Truncated { path: PathBuf },
    #[error("the fingerprint set {path} is damaged or cut off; restore it from a copy")]
    Damaged { path: PathBuf },
    #[error("the fingerprint set {path} uses a newer version of the age format; open it with a newer release")]
    OtherAgeVersion { path: PathBuf },
    #[error("wrong passphrase for the fingerprint set {path}; try again")]
    WrongPassphrase { path: PathBuf },
    #[error("the fingerprint set {path} is encrypted to another identity; give the identity file that it was made for")]
    OtherIdentity { path: PathBuf },
    #[error(
        "the fingerprint set {path} is encrypted with a passphrase; give the passphrase instead of an identity file"
    )]
    NeedsPassphrase { path: PathBuf },
    #[error("the fingerprint set {path} is encrypted to an identity; give its identity file instead of a passphrase")]
    NeedsIdentity { path: PathBuf },
    #[error(
        "the passphrase of {path} has work factor {required}, the limit is {limit}; re-encrypt it with `age` and a smaller one"
    )]
    ExcessiveWork { path: PathBuf, required: u8, limit: u8 },
    #[error("{path} opens, but holds no fingerprint set; give the file that `hallmark fingerprint generate` wrote")]
    NotASet { path: PathBuf },
    #[error(
        "the fingerprint set {path} has version {found}, this program reads version {expected}; use the release that wrote it"
    )]
    OtherVersion { path: PathBuf, found: u32, expected: u32 },
    // The JSON reader's own message may quote what it read, so only the place is kept.
    #[error("the fingerprint set {path} is malformed at line {line}, column {column}; restore it from a copy")]
    Malformed { path: PathBuf, line: usize, column: usize },
    #[error("the fingerprint set {path} is refused")]
    Set {
        path: PathBuf,
        #[source]
        source: SetError,
    },
    #[error("failed to read the identity file {path}; give one that `age-keygen` wrote")]
    ReadIdentity {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("failed to write the identity file {path}")]
    WriteIdentity {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "line {line} of the identity file {path} is not an age identity; give a file that `age-keygen` wrote, decrypted"
    )]
    NotAnIdentity { path: PathBuf, line: usize },
    #[error("the identity file {path} holds no identity; give one that `age-keygen` wrote")]
    NoIdentity { path: PathBuf },
    #[error("this is not an age recipient; it begins with age1, and `age-keygen -y` prints it")]
    Recipient,
    #[error("no recipient is given; name at least one that begins with age1")]
    NoRecipient,
    #[error("the passphrase is empty; choose one")]
    EmptyPassphrase,
    #[error("the work factor {found} lies outside 1 to {limit}")]
    WorkFactor { found: u8, limit: u8 },
}
