//! What opens a set, and what a set is encrypted to.

use std::{fmt, fs, io::Write as _, path::Path, str::FromStr};

use age::x25519;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use super::VaultError;
use crate::atomic::{self, Access};

/// Cost of trying one passphrase: scrypt with N = 2^value, that is 2^value KiB of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkFactor(u8);

impl WorkFactor {
    /// What the `age` program uses: about a second and 256 MiB.
    pub const DEFAULT: Self = Self(18);
    /// The most that opening accepts, so that a foreign file cannot take all memory: 1 GiB.
    pub const MAX: Self = Self(20);

    /// Small values are for tests: they make a passphrase cheap to guess.
    ///
    /// # Errors
    ///
    /// [`VaultError::WorkFactor`] outside 1 to [`MAX`](Self::MAX).
    pub fn new(value: u8) -> Result<Self, VaultError> {
        if (1..=Self::MAX.0).contains(&value) {
            Ok(Self(value))
        } else {
            Err(VaultError::WorkFactor { found: value, limit: Self::MAX.0 })
        }
    }

    /// The exponent.
    pub fn value(self) -> u8 {
        self.0
    }
}

/// What opens a set. `Debug` prints its kind only.
pub enum VaultKey {
    /// A passphrase.
    Passphrase {
        /// The secret.
        passphrase: SecretString,
        /// For saving; opening takes what the file says.
        work_factor: WorkFactor,
    },
    /// Age identities, any of which may open the set.
    Identities(Vec<x25519::Identity>),
}

impl VaultKey {
    /// A passphrase with the default work factor.
    pub fn passphrase(passphrase: SecretString) -> Self {
        Self::Passphrase { passphrase, work_factor: WorkFactor::DEFAULT }
    }

    /// Reads an identity file as `age-keygen` writes it: one identity a line, comments after `#`.
    ///
    /// # Errors
    ///
    /// [`VaultError::ReadIdentity`], [`VaultError::NotAnIdentity`] or [`VaultError::NoIdentity`].
    pub fn read_identity(path: &Path) -> Result<Self, VaultError> {
        let bytes = fs::read(path).map_err(|source| VaultError::ReadIdentity { path: path.to_owned(), source })?;
        let bytes = Zeroizing::new(bytes);
        let mut identities = Vec::new();
        for (line, number) in bytes.split(|byte| *byte == b'\n').zip(1..) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let identity = std::str::from_utf8(line).ok().and_then(|text| text.parse().ok());
            identities.push(identity.ok_or_else(|| VaultError::NotAnIdentity { path: path.to_owned(), line: number })?);
        }
        if identities.is_empty() {
            return Err(VaultError::NoIdentity { path: path.to_owned() });
        }
        Ok(Self::Identities(identities))
    }

    /// Makes a new identity and writes it where nothing was, readable by its owner only.
    ///
    /// # Errors
    ///
    /// [`VaultError::WriteIdentity`], also when the file exists.
    pub fn create_identity(path: &Path) -> Result<Self, VaultError> {
        let identity = x25519::Identity::generate();
        atomic::create(path, Access::Owner, |writer| {
            writeln!(writer, "# public key: {}", identity.to_public())?;
            writeln!(writer, "{}", identity.to_string().expose_secret())
        })
        .map_err(|source| VaultError::WriteIdentity { path: path.to_owned(), source })?;
        Ok(Self::Identities(vec![identity]))
    }

    /// Whom a set is encrypted to when this key is the only one that is known.
    pub(super) fn lock(&self) -> Result<Lock, VaultError> {
        match self {
            Self::Passphrase { passphrase, .. } if passphrase.expose_secret().is_empty() => {
                Err(VaultError::EmptyPassphrase)
            }
            Self::Passphrase { passphrase, work_factor } => {
                Ok(Lock::Passphrase { passphrase: passphrase.clone(), work_factor: *work_factor })
            }
            Self::Identities(identities) => {
                Lock::recipients(identities.iter().map(|identity| Recipient(identity.to_public())).collect())
            }
        }
    }
}

impl fmt::Debug for VaultKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase { work_factor, .. } => {
                formatter.debug_struct("Passphrase").field("work_factor", work_factor).finish_non_exhaustive()
            }
            Self::Identities(identities) => {
                formatter.debug_struct("Identities").field("count", &identities.len()).finish_non_exhaustive()
            }
        }
    }
}

/// The public half of an identity: `age1…`.
#[derive(Clone, PartialEq, Eq)]
pub struct Recipient(x25519::Recipient);

impl Recipient {
    pub(super) fn as_age(&self) -> &x25519::Recipient {
        &self.0
    }
}

impl FromStr for Recipient {
    type Err = VaultError;

    fn from_str(text: &str) -> Result<Self, VaultError> {
        text.parse().map(Self).map_err(|_| VaultError::Recipient)
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Recipient({})", self.0)
    }
}

/// What a set is encrypted to.
pub(super) enum Lock {
    Passphrase {
        passphrase: SecretString,
        work_factor: WorkFactor,
    },
    /// Never empty.
    Recipients(Vec<Recipient>),
}

impl Lock {
    pub(super) fn recipients(recipients: Vec<Recipient>) -> Result<Self, VaultError> {
        if recipients.is_empty() { Err(VaultError::NoRecipient) } else { Ok(Self::Recipients(recipients)) }
    }
}

impl fmt::Debug for Lock {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passphrase { work_factor, .. } => {
                formatter.debug_struct("Passphrase").field("work_factor", work_factor).finish_non_exhaustive()
            }
            Self::Recipients(recipients) => formatter.debug_tuple("Recipients").field(recipients).finish(),
        }
    }
}
