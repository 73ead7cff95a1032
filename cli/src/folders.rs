//! Where a user's programs keep what is theirs.

use std::{env, ffi::OsString, path::PathBuf};

use licensing_contracts::eigenlayer::core::Cargo;

use crate::failure::Advise as _;

/// What can be fetched again: `XDG_CACHE_HOME/hallmark`, or `.cache/hallmark` in the home folder.
pub(crate) fn cache() -> anyhow::Result<PathBuf> {
    folder("XDG_CACHE_HOME", ".cache")
}

/// What must not be lost between two commands: `XDG_STATE_HOME/hallmark`, or `.local/state/hallmark` in the home folder.
pub(crate) fn state() -> anyhow::Result<PathBuf> {
    folder("XDG_STATE_HOME", ".local/state")
}

/// The cargo that the user has, with the user's configuration.
pub(crate) fn cargo() -> Cargo {
    let home = variable("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    Cargo { program: variable("CARGO").unwrap_or_else(|| "cargo".into()), home }
}

fn folder(name: &str, in_home: &str) -> anyhow::Result<PathBuf> {
    let named = variable(name).map(PathBuf::from);
    let folder = named.or_else(|| env::home_dir().map(|home| home.join(in_home)));
    match folder {
        Some(folder) => Ok(folder.join("hallmark")),
        None => Err(anyhow::anyhow!("this user has no home folder")).advise(format!("set {name}")),
    }
}

fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}
