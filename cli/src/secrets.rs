//! Secrets that a command needs. They are never arguments: other users of the machine can read those.

use std::{env, path::Path};

use alloy::signers::local::PrivateKeySigner;
use anyhow::Context as _;
use fingerprint::{
    set::FingerprintSet,
    vault::{Vault, VaultKey},
};
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    arguments::{SetArguments, UnlockArguments},
    failure::Advise as _,
};

const PASSPHRASE: &str = "HALLMARK_PASSPHRASE";
const API_KEY: &str = "HALLMARK_API_KEY";
const PRIVATE_KEY: &str = "HALLMARK_PRIVATE_KEY";
const KEYSTORE_PASSWORD: &str = "HALLMARK_KEYSTORE_PASSWORD";

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

/// Who signs on the chain: the account of a keystore file if one is given, else the key of the environment.
pub(crate) fn signer(keystore: Option<&Path>) -> anyhow::Result<PrivateKeySigner> {
    if let Some(keystore) = keystore {
        let password = secret(KEYSTORE_PASSWORD)?
            .with_context(|| format!("the keystore {} is encrypted", keystore.display()))
            .advise(format!("set {KEYSTORE_PASSWORD}"))?;
        return PrivateKeySigner::decrypt_keystore(keystore, password.expose_secret())
            .with_context(|| format!("failed to open the keystore {}", keystore.display()))
            .advise(format!("check the file, and the password in {KEYSTORE_PASSWORD}"));
    }
    let key = secret(PRIVATE_KEY)?
        .context("no account to sign with")
        .advise(format!("give a keystore file with --keystore, or a key in {PRIVATE_KEY}"))?;
    // The parser's own error would quote what it was given.
    key.expose_secret()
        .parse()
        .map_err(|_| anyhow::anyhow!("{PRIVATE_KEY} is not a private key: 64 hexadecimal digits"))
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
