//! The bundled model: a small Llama that this project trained on Shakespeare, carried inside the program so that the
//! demo and the tests have a real model on a machine without a network. Its card is `model/bundled/README.md`;
//! `model/examples/pretrain.rs` makes it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use alloy_primitives::keccak256;
use thiserror::Error;

/// Files of the model folder.
const FILES: [(&str, &[u8]); 6] = [
    ("README.md", include_bytes!("../bundled/README.md")),
    ("config.json", include_bytes!("../bundled/config.json")),
    ("generation_config.json", include_bytes!("../bundled/generation_config.json")),
    ("model.safetensors", include_bytes!("../bundled/model.safetensors")),
    ("tokenizer.json", include_bytes!("../bundled/tokenizer.json")),
    ("tokenizer_config.json", include_bytes!("../bundled/tokenizer_config.json")),
];

/// Why the bundled model could not be laid out.
#[derive(Debug, Error)]
pub enum BundledError {
    #[error("failed to write the bundled model to {}; set TMPDIR to a folder that can be written", folder.display())]
    Write {
        folder: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// The folder of the bundled model, written on first use among the user's temporary files.
///
/// Its name holds a digest of the contents: another version of the program never finds the wrong model. It appears by
/// renaming, so it is whole or absent whatever happens meanwhile.
pub fn directory() -> Result<PathBuf, BundledError> {
    let digests: Vec<u8> = FILES.iter().flat_map(|(_, bytes)| keccak256(bytes)).collect();
    let digest = keccak256(digests);
    let parent = std::env::temp_dir();
    let folder = parent.join(format!("hallmark-bundled-{}", alloy_primitives::hex::encode(&digest[..8])));
    if is_whole(&folder) {
        return Ok(folder);
    }
    write(&parent, &folder).map_err(|source| BundledError::Write { folder: folder.clone(), source })?;
    Ok(folder)
}

/// Whether every file is there with its contents: others can write to a temporary folder too.
fn is_whole(folder: &Path) -> bool {
    FILES.iter().all(|(name, bytes)| fs::read(folder.join(name)).is_ok_and(|found| found == *bytes))
}

fn write(parent: &Path, folder: &Path) -> io::Result<()> {
    let fresh = tempfile::Builder::new().prefix("hallmark-bundled-").tempdir_in(parent)?;
    for (name, bytes) in FILES {
        fs::write(fresh.path().join(name), bytes)?;
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    match fs::rename(fresh.path(), folder) {
        // Another process was quicker.
        Err(_) if is_whole(folder) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_copy_is_written_anew() {
        let folder = directory().unwrap();
        fs::write(folder.join("config.json"), "{}").unwrap();
        assert_eq!(directory().unwrap(), folder);
        assert!(is_whole(&folder));
    }
}
