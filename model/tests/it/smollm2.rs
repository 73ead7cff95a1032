//! Where SmolLM2-135M-Instruct and what transformers says about it lie on this machine.

use std::{env, ffi::OsString, fs, path::PathBuf};

use serde_json::Value;

/// The model's folder: `HALLMARK_SMOLLM2`, by default `~/.cache/hallmark/smollm2`.
pub(crate) fn folder() -> PathBuf {
    path_or("HALLMARK_SMOLLM2", || {
        let home = env::var_os("HOME").expect("HOME is set");
        PathBuf::from(home).join(".cache/hallmark/smollm2")
    })
}

/// Ids, renderings and logits from transformers: `HALLMARK_GOLDENS`, by default in the shared data.
pub(crate) fn goldens() -> Value {
    let path = path_or("HALLMARK_GOLDENS", || shared().join("data/smollm2-goldens.json"));
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap()
}

/// The shared data: `HALLMARK_SHARED`, by default beside the repository.
pub(crate) fn shared() -> PathBuf {
    path_or("HALLMARK_SHARED", || concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared").into())
}

fn path_or(variable: &str, default: impl FnOnce() -> PathBuf) -> PathBuf {
    env::var_os(variable).filter(|value: &OsString| !value.is_empty()).map_or_else(default, PathBuf::from)
}
