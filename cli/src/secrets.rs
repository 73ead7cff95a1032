//! Secrets that a command needs. They are never arguments: other users of the machine can read those.

use std::{env, path::Path};

use alloy::{primitives::B256, signers::local::PrivateKeySigner};
use anyhow::Context as _;
use fingerprint::{
    set::FingerprintSet,
    vault::{Vault, VaultKey},
};
use protocol::{bls::SecretKey, signature::SigningKey};
use rand::{TryRngCore as _, rngs::OsRng};
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroizing;

use crate::{
    arguments::{SetArguments, UnlockArguments},
    failure::Advise as _,
    models,
};

const PASSPHRASE: &str = "HALLMARK_PASSPHRASE";
const API_KEY: &str = "HALLMARK_API_KEY";
const PRIVATE_KEY: &str = "HALLMARK_PRIVATE_KEY";
const KEYSTORE_PASSWORD: &str = "HALLMARK_KEYSTORE_PASSWORD";
const UPSTREAM_API_KEY: &str = "HALLMARK_UPSTREAM_API_KEY";
const LEASE_KEY: &str = "HALLMARK_LEASE_KEY";
const LEASE_KEYSTORE_PASSWORD: &str = "HALLMARK_LEASE_KEYSTORE_PASSWORD";
const BLS_PRIVATE_KEY: &str = "HALLMARK_BLS_PRIVATE_KEY";
const BLS_KEYSTORE_PASSWORD: &str = "HALLMARK_BLS_KEYSTORE_PASSWORD";

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
        return decrypt(keystore, KEYSTORE_PASSWORD);
    }
    let key = secret(PRIVATE_KEY)?
        .context("no account to sign with")
        .advise(format!("give a keystore file with --keystore, or a key in {PRIVATE_KEY}"))?;
    parse_key(&key, PRIVATE_KEY)
}

fn parse_key(key: &SecretString, name: &str) -> anyhow::Result<PrivateKeySigner> {
    // The parser's own error would quote what it was given.
    let parsed = key.expose_secret().parse();
    parsed.map_err(|_| anyhow::anyhow!("{name} is not a private key: 64 hexadecimal digits"))
}

/// What signs a lease's statements: the key of a keystore file if one is given, else the key of the environment.
pub(crate) fn lease_key(keystore: Option<&Path>) -> anyhow::Result<SigningKey> {
    let signer = match keystore {
        Some(keystore) => decrypt(keystore, LEASE_KEYSTORE_PASSWORD)?,
        None => {
            let key = secret(LEASE_KEY)?
                .context("no key to sign statements with")
                .advise(format!("name a keystore file as [[model]] lease_keystore, or put the key in {LEASE_KEY}"))?;
            parse_key(&key, LEASE_KEY)?
        }
    };
    Ok(SigningKey::from_bytes(&signer.to_bytes().0)?)
}

/// The key of the server that runs a host's model; local ones need none.
pub(crate) fn upstream_key() -> anyhow::Result<Option<SecretString>> {
    secret(UPSTREAM_API_KEY)
}

/// A validator's key for verdicts: from a keystore file if one is given, else from the environment.
pub(crate) fn bls_key(keystore: Option<&Path>) -> anyhow::Result<SecretKey> {
    let bytes = match keystore {
        Some(keystore) => decrypt(keystore, BLS_KEYSTORE_PASSWORD)?.to_bytes(),
        None => {
            let key = secret(BLS_PRIVATE_KEY)?.context("a validator needs a BLS key").advise(format!(
                "make one with `hallmark operator new-bls-key` and give it with --bls-keystore, or put one in {BLS_PRIVATE_KEY}"
            ))?;
            let parsed = key.expose_secret().parse::<B256>();
            parsed.map_err(|_| anyhow::anyhow!("{BLS_PRIVATE_KEY} is not 64 hexadecimal digits"))?
        }
    };
    SecretKey::from_bytes(&bytes.0)
        .context("the BLS key is no number below BN254's order")
        .advise("make one with `hallmark operator new-bls-key`")
}

/// Makes a BLS key and writes it, encrypted, to a file that must not exist.
pub(crate) fn new_bls_key(keystore: &Path) -> anyhow::Result<SecretKey> {
    let password = secret(BLS_KEYSTORE_PASSWORD)?
        .context("no password to encrypt the key with")
        .advise(format!("set {BLS_KEYSTORE_PASSWORD}"))?;
    let mut entropy = Zeroizing::new([0; SecretKey::MIN_ENTROPY]);
    OsRng.try_fill_bytes(entropy.as_mut_slice()).context("failed to read randomness from the operating system")?;
    let key = SecretKey::from_entropy(entropy.as_slice())?;
    let folder = keystore.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = keystore.file_name().and_then(|name| name.to_str()).context("the file has no name")?;
    models::require_absent(keystore)?;
    let failed = || format!("failed to write the keystore {}", keystore.display());
    // The format is for accounts, and any number of 32 bytes fits into it.
    let mut random = alloy::signers::k256::elliptic_curve::rand_core::OsRng;
    PrivateKeySigner::encrypt_keystore(folder, &mut random, *key.to_bytes(), password.expose_secret(), Some(name))
        .with_context(failed)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(keystore, std::fs::Permissions::from_mode(0o600)).with_context(failed)?;
    }
    Ok(key)
}

/// The key in an encrypted keystore file (Web3 Secret Storage, version 3).
fn decrypt(keystore: &Path, password_variable: &str) -> anyhow::Result<PrivateKeySigner> {
    let password = secret(password_variable)?
        .with_context(|| format!("the keystore {} is encrypted", keystore.display()))
        .advise(format!("set {password_variable}"))?;
    PrivateKeySigner::decrypt_keystore(keystore, password.expose_secret())
        .with_context(|| format!("failed to open the keystore {}", keystore.display()))
        .advise(format!("check the file, and the password in {password_variable}"))
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
