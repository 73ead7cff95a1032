//! Secrets that a command needs. They are never arguments: other users of the machine can read those.

use std::{env, path::Path};

use fingerprint::{
    set::FingerprintSet,
    vault::{Vault, VaultKey},
};
use secrecy::SecretString;

use crate::{
    arguments::{SetArguments, UnlockArguments},
    failure::Advise as _,
};

const PASSPHRASE: &str = "HALLMARK_PASSPHRASE";
const API_KEY: &str = "HALLMARK_API_KEY";

/// What opens or closes a set: the identity file if one is given, else the passphrase of the environment.
pub(crate) fn vault_key(unlock: &UnlockArguments) -> anyhow::Result<VaultKey> {
    if let Some(identity) = &unlock.identity {
        return Ok(VaultKey::read_identity(identity)?);
    }
    match secret(PASSPHRASE)? {
        Some(passphrase) => Ok(VaultKey::passphrase(passphrase)),
        None => Err(anyhow::anyhow!("nothing to open the set with"))
            .advise(format!("set {PASSPHRASE}, or give an age identity with --identity FILE")),
    }
}

/// Opens a set. Slow on purpose with a passphrase: about a second.
pub(crate) fn open(arguments: &SetArguments) -> anyhow::Result<(Vault, FingerprintSet)> {
    open_with(&arguments.set, &arguments.unlock)
}

fn open_with(path: &Path, unlock: &UnlockArguments) -> anyhow::Result<(Vault, FingerprintSet)> {
    let key = vault_key(unlock)?;
    Ok(Vault::open(path, &key)?)
}

/// The key for the server that `prove` asks; local servers need none.
pub(crate) fn api_key() -> anyhow::Result<Option<SecretString>> {
    secret(API_KEY)
}

fn secret(name: &str) -> anyhow::Result<Option<SecretString>> {
    #[expect(clippy::disallowed_methods, reason = "a secret must not be an argument, so clap does not read it")]
    match env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value.into())),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(anyhow::anyhow!("{name} is not valid UTF-8")),
    }
}
