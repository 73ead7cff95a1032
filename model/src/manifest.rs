//! What a model is: a digest over its weights, tokenizer, chat template and configuration.
//!
//! Every file is hashed whole with Keccak-256, the hash of the chain, so that any tool can recompute an entry. The
//! manifest's digest is Keccak-256 over its canonical JSON: the text that [`Manifest::canonical_json`] gives.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use protocol::ids::ManifestDigest;
use rayon::prelude::*;
use serde::{Serialize, Serializer};
use sha3::{Digest, Keccak256};
use thiserror::Error;

use crate::checkpoint::{CheckpointError, weight_files};

/// Names the form of the canonical JSON, so that another form can never give the same digest.
const FORMAT: &str = "hallmark-manifest-1";

/// Files other than weights that decide what a model answers. A README or a licence does not.
pub(crate) const CONFIGURATION_FILES: [&str; 11] = [
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
];

const BUFFER_BYTES: usize = 1 << 20;

/// The files of one model with their digests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    format: &'static str,
    files: Vec<ManifestFile>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ManifestFile {
    /// Name inside the model's folder.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Keccak-256 of the whole file.
    pub digest: FileDigest,
}

/// Keccak-256 of a file; shown as 0x and 64 digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileDigest([u8; 32]);

impl fmt::Display for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for FileDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FileDigest({self})")
    }
}

impl Serialize for FileDigest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Why a manifest could not be made.
#[derive(Debug, Error)]
pub enum ManifestError {
    /// The folder's weight files could not be told.
    #[error(transparent)]
    Weights(#[from] CheckpointError),
    /// A file could not be read to its end.
    #[error("failed to hash {}", file.display())]
    Read {
        /// File that was to be hashed.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Manifest {
    /// Hashes the files of a model folder. Files that are not part of the model are left out, and neither the folder's
    /// name nor the order of its entries matters.
    ///
    /// # Errors
    /// When the folder has no weights, or a file cannot be read.
    pub fn of(directory: &Path) -> Result<Self, ManifestError> {
        let mut paths = weight_files(directory)?;
        paths.extend(CONFIGURATION_FILES.iter().map(|name| directory.join(name)).filter(|path| path.is_file()));
        let mut files = paths.par_iter().map(|path| hash_file(path)).collect::<Result<Vec<_>, _>>()?;
        files.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(Self { format: FORMAT, files })
    }

    /// The files, by name.
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// The text that the digest is taken over: JSON without white space, keys in the order `format`, `files` and
    /// `name`, `bytes`, `digest`, files in the byte order of their names.
    pub fn canonical_json(&self) -> String {
        let file = |file: &ManifestFile| {
            // Names have no character that JSON escapes differently from writer to writer: see `weight_files`.
            format!(r#"{{"name":"{}","bytes":{},"digest":"{}"}}"#, file.name, file.bytes, file.digest)
        };
        let files: Vec<_> = self.files.iter().map(file).collect();
        format!(r#"{{"format":"{}","files":[{}]}}"#, self.format, files.join(","))
    }

    /// Keccak-256 over the canonical JSON.
    pub fn digest(&self) -> ManifestDigest {
        ManifestDigest::from_bytes(Keccak256::digest(self.canonical_json()).into())
    }
}

fn hash_file(path: &Path) -> Result<ManifestFile, ManifestError> {
    let failed = |source| ManifestError::Read { file: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    let mut hasher = Keccak256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut bytes = 0;
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed(error)),
        };
        hasher.update(&buffer[..read]);
        bytes += read as u64;
    }
    // Every path was made by joining the folder and a name of plain ASCII.
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(ManifestFile { name, bytes, digest: FileDigest(hasher.finalize().into()) })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, text) in files {
            fs::write(directory.join(name), text).unwrap();
        }
    }

    const MODEL: [(&str, &str); 3] =
        [("config.json", "{}"), ("model.safetensors", "weights"), ("tokenizer.json", "{\"a\":1}")];

    #[test]
    fn digest_is_keccak_over_the_documented_json() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &[("model.safetensors", "")]);
        let manifest = Manifest::of(directory.path()).unwrap();
        // Keccak-256 of the empty string, as in every Ethereum client.
        let json = "{\"format\":\"hallmark-manifest-1\",\"files\":[{\"name\":\"model.safetensors\",\"bytes\":0,\
             \"digest\":\"0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470\"}]}";
        assert_eq!(manifest.canonical_json(), json);
        assert_eq!(serde_json::to_string(&manifest).unwrap(), json);
        assert_eq!(manifest.digest().as_bytes(), Keccak256::digest(json).as_slice());
    }

    #[test]
    fn digest_depends_on_neither_folder_nor_order_nor_other_files() {
        let first = tempfile::tempdir().unwrap();
        write(first.path(), &MODEL);
        let second = tempfile::tempdir().unwrap();
        let reversed: Vec<_> = MODEL.iter().rev().copied().collect();
        write(second.path(), &reversed);
        write(second.path(), &[("README.md", "about"), ("LICENSE", "terms"), ("model.gguf", "x")]);
        let (first, second) = (Manifest::of(first.path()).unwrap(), Manifest::of(second.path()).unwrap());
        assert_eq!(first, second);
        assert_eq!(first.digest(), second.digest());
    }

    #[test]
    fn digest_changes_with_content_and_with_name() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &MODEL);
        let original = Manifest::of(directory.path()).unwrap().digest();
        write(directory.path(), &[("model.safetensors", "weightz")]);
        let altered = Manifest::of(directory.path()).unwrap().digest();
        assert_ne!(original, altered);
        write(directory.path(), &[MODEL[1], ("chat_template.jinja", "")]);
        assert_ne!(Manifest::of(directory.path()).unwrap().digest(), original);
    }

    #[test]
    fn a_folder_without_weights_has_no_manifest() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &[MODEL[0]]);
        assert!(matches!(
            Manifest::of(directory.path()),
            Err(ManifestError::Weights(CheckpointError::NoWeights { .. }))
        ));
    }
}
