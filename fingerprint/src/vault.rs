//! The set on disk: one file, encrypted to its creator with [age](https://age-encryption.org).
//!
//! The key is a passphrase (scrypt) or an age identity (X25519), so that the file also opens with the `age` program.
//! A file is written completely or not at all, readable by its owner only. What is inside is JSON of a form that is
//! private to this module: nothing else can serialise a set.

mod error;
mod form;
mod key;

use std::{
    fs,
    io::{self, Read as _, Write as _},
    iter,
    path::{Path, PathBuf},
};

use age::{DecryptError, Decryptor, Encryptor, scrypt};
use protocol::merkle;
use zeroize::Zeroizing;

pub use self::{
    error::VaultError,
    key::{Recipient, VaultKey, WorkFactor},
};
use self::{form::SetFile, key::Lock};
use crate::{
    atomic::{self, Access},
    set::FingerprintSet,
};

/// How every age file of version 1 begins.
const AGE_MAGIC: &[u8] = b"age-encryption.org/v1\n";
/// How age files of any version begin.
const AGE_FAMILY: &[u8] = b"age-encryption.org/";

/// The file of a set, and what it is encrypted to.
///
/// It remembers the file as it was when it was opened or last saved, and refuses to save over another one: two
/// commands at once cannot undo each other's step.
#[derive(Debug)]
pub struct Vault {
    path: PathBuf,
    lock: Lock,
    /// Hash of the file's bytes.
    seen: [u8; 32],
}

impl Vault {
    /// Writes a new set that `key` opens.
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] when there is a file already: a set is never overwritten by another.
    pub fn create(path: &Path, key: &VaultKey, set: &FingerprintSet) -> Result<Self, VaultError> {
        Self::create_locked(path, key.lock()?, set)
    }

    /// Writes a new set that the holders of `recipients` open; whoever writes it cannot read it again.
    ///
    /// # Errors
    ///
    /// [`VaultError::Exists`] when there is a file already, [`VaultError::NoRecipient`] without recipients.
    pub fn create_for(path: &Path, recipients: &[Recipient], set: &FingerprintSet) -> Result<Self, VaultError> {
        Self::create_locked(path, Lock::recipients(recipients.to_vec())?, set)
    }

    fn create_locked(path: &Path, lock: Lock, set: &FingerprintSet) -> Result<Self, VaultError> {
        if path.symlink_metadata().is_ok() {
            // Before the slow key derivation; `create` below decides.
            return Err(VaultError::Exists { path: path.to_owned() });
        }
        let sealed = seal(path, &lock, set)?;
        atomic::create(path, Access::Owner, |writer| writer.write_all(&sealed)).map_err(|source| {
            match source.kind() {
                io::ErrorKind::AlreadyExists => VaultError::Exists { path: path.to_owned() },
                _ => VaultError::Write { path: path.to_owned(), source },
            }
        })?;
        tracing::debug!(path = %path.display(), "wrote the new fingerprint set {}", path.display());
        Ok(Self { path: path.to_owned(), lock, seen: hash(&sealed) })
    }

    /// Opens a set.
    ///
    /// # Errors
    ///
    /// [`VaultError`] says which of these it was: unreadable, not an age file, cut off, damaged, of another version,
    /// encrypted with something else than `key`, or not a set.
    pub fn open(path: &Path, key: &VaultKey) -> Result<(Self, FingerprintSet), VaultError> {
        let sealed = fs::read(path).map_err(|source| VaultError::Read { path: path.to_owned(), source })?;
        let (set, recipients) = unseal(path, key, &sealed)?;
        // Everyone who could open the file can open what is saved next, not only the holder of this key.
        let lock = if recipients.is_empty() { key.lock()? } else { Lock::recipients(recipients)? };
        Ok((Self { path: path.to_owned(), lock, seen: hash(&sealed) }, set))
    }

    /// Writes the set in place of what was opened or saved last.
    ///
    /// # Errors
    ///
    /// [`VaultError::Changed`] when the file is no longer that one, [`VaultError::Write`] otherwise. The old file is
    /// intact in both cases.
    pub fn save(&mut self, set: &FingerprintSet) -> Result<(), VaultError> {
        let sealed = seal(&self.path, &self.lock, set)?;
        let unreadable = |source| VaultError::Read { path: self.path.clone(), source };
        // Of two commands that save at once the second sees what the first wrote: whoever waits for the lock of a file
        // that is replaced meanwhile finds another one under the name.
        let file = fs::File::open(&self.path).map_err(unreadable)?;
        match file.lock() {
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(unreadable(error)),
            _ => {}
        }
        let present = fs::read(&self.path).map_err(unreadable)?;
        if hash(&present) != self.seen {
            return Err(VaultError::Changed { path: self.path.clone() });
        }
        atomic::replace(&self.path, Access::Owner, |writer| writer.write_all(&sealed))
            .map_err(|source| VaultError::Write { path: self.path.clone(), source })?;
        self.seen = hash(&sealed);
        tracing::debug!(path = %self.path.display(), stage = set.stage().name(), "saved the fingerprint set");
        Ok(())
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    merkle::leaf_hash(bytes).0
}

/// The encrypted file. The plain text goes straight into the cipher, in chunks.
fn seal(path: &Path, lock: &Lock, set: &FingerprintSet) -> Result<Vec<u8>, VaultError> {
    let form = SetFile::of(set, lock);
    let mut sealed = Vec::new();
    let encryptor = match lock {
        Lock::Passphrase { passphrase, work_factor } => {
            let mut recipient = scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(work_factor.value());
            Encryptor::with_recipients(iter::once(&recipient as _))
        }
        Lock::Recipients(recipients) => {
            Encryptor::with_recipients(recipients.iter().map(|recipient| recipient.as_age() as _))
        }
    };
    let encrypted = encryptor.map_err(io::Error::other).and_then(|encryptor| {
        let mut writer = encryptor.wrap_output(&mut sealed)?;
        serde_json::to_writer(&mut writer, &form)?;
        writer.finish().map(|_| ())
    });
    encrypted.map_err(|source| VaultError::Write { path: path.to_owned(), source })?;
    Ok(sealed)
}

fn unseal(path: &Path, key: &VaultKey, sealed: &[u8]) -> Result<(FingerprintSet, Vec<Recipient>), VaultError> {
    let path = || path.to_owned();
    if AGE_MAGIC.starts_with(sealed) {
        return Err(VaultError::Truncated { path: path() });
    }
    if !sealed.starts_with(AGE_FAMILY) {
        return Err(VaultError::NotAnAgeFile { path: path() });
    }
    let decryptor = Decryptor::new_buffered(sealed).map_err(|error| header_error(path(), &error))?;
    match (key, decryptor.is_scrypt()) {
        (VaultKey::Passphrase { .. }, false) => return Err(VaultError::NeedsIdentity { path: path() }),
        (VaultKey::Identities(_), true) => return Err(VaultError::NeedsPassphrase { path: path() }),
        _ => {}
    }
    let decrypted = match key {
        VaultKey::Passphrase { passphrase, .. } => {
            let mut identity = scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(WorkFactor::MAX.value());
            decryptor.decrypt(iter::once(&identity as _))
        }
        VaultKey::Identities(identities) => decryptor.decrypt(identities.iter().map(|identity| identity as _)),
    };
    let mut reader = decrypted.map_err(|error| key_error(path(), &error))?;
    // As long as the cipher text, which is longer: reading never moves the plain text to a larger buffer.
    let mut plain = Zeroizing::new(Vec::with_capacity(sealed.len()));
    reader.read_to_end(&mut plain).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => VaultError::Truncated { path: path() },
        _ => VaultError::Damaged { path: path() },
    })?;
    SetFile::parse(&path(), &plain)
}

/// What is wrong with a header. The source is dropped: it says nothing that the variant does not.
fn header_error(path: PathBuf, error: &DecryptError) -> VaultError {
    match error {
        DecryptError::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => VaultError::Truncated { path },
        DecryptError::UnknownFormat => VaultError::OtherAgeVersion { path },
        _ => VaultError::Damaged { path },
    }
}

/// Why a well-formed header did not open.
fn key_error(path: PathBuf, error: &DecryptError) -> VaultError {
    match error {
        DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed => VaultError::WrongPassphrase { path },
        DecryptError::NoMatchingKeys => VaultError::OtherIdentity { path },
        DecryptError::ExcessiveWork { required, .. } => {
            VaultError::ExcessiveWork { path, required: *required, limit: WorkFactor::MAX.value() }
        }
        DecryptError::Io(source) if source.kind() == io::ErrorKind::UnexpectedEof => VaultError::Truncated { path },
        _ => VaultError::Damaged { path },
    }
}
