use std::{io, path::PathBuf};

use crate::{
    chat::ChatError, checkpoint::CheckpointError, config::ConfigError, partial::PartialError, tokenizer::TokenizerError,
};

/// Why a GGUF file could not be imported. No output folder is left behind when it could not; folders above it that had
/// to be made are.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// The file is missing or unreadable.
    #[error("failed to open {file}")]
    Open {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Reading stopped in the middle.
    #[error("failed to read {what}")]
    Read {
        /// What was being read.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The file does not begin as a GGUF file does.
    #[error("{file} is not a GGUF file: it does not begin with `GGUF`")]
    NotGguf {
        /// The file.
        file: PathBuf,
    },
    /// Only little-endian versions 2 and 3 are read.
    #[error("{file} is version {version} of GGUF; versions 2 and 3 (little-endian) can be imported")]
    Version {
        /// The file.
        file: PathBuf,
        /// The version, as read.
        version: u32,
    },
    /// Something claims more bytes than there are.
    #[error("{what} needs {needed} bytes and the file has {left} left; it is truncated or corrupt")]
    Truncated {
        /// What was being read.
        what: String,
        /// Bytes that it claims.
        needed: u64,
        /// Bytes that remain.
        left: u64,
    },
    /// A count or length that no model has.
    #[error("{what} is {found}, more than the {limit} that any model has; the file is corrupt")]
    Absurd {
        /// What is counted.
        what: String,
        /// The count in the file.
        found: u64,
        /// The largest that is accepted.
        limit: u64,
    },
    /// A key that the import needs is absent.
    #[error("the file has no key {key}")]
    MissingKey {
        /// The key.
        key: String,
    },
    /// A value that cannot be right, or that is not supported.
    #[error("key {key} {problem}")]
    Value {
        /// The key.
        key: String,
        /// What is wrong with its value, as the end of a sentence.
        problem: String,
    },
    /// A tensor's description that cannot be right, or that is not supported.
    #[error("tensor {tensor} {problem}")]
    Tensor {
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong with it, as the end of a sentence.
        problem: String,
    },
    /// The model needs a tensor that the file does not have.
    #[error("the file has no tensor {tensor}")]
    MissingTensor {
        /// The tensor's name in GGUF.
        tensor: String,
    },
    /// An architecture other than those of this package.
    #[error("architecture {found} is not supported (llama, which Mistral uses too, qwen2 and qwen3 are)")]
    Architecture {
        /// What the file says.
        found: String,
    },
    /// The model's shape is not one that can run.
    #[error("the model that the file describes cannot be used")]
    Config(#[source] ConfigError),
    /// The written weights do not fit the written configuration.
    #[error("the imported weights cannot be used")]
    Checkpoint(#[source] CheckpointError),
    /// The vocabulary does not make a tokenizer.
    #[error("the vocabulary in the file cannot be used")]
    Tokenizer(#[source] TokenizerError),
    /// The chat template is broken.
    #[error("the chat template in the file cannot be used")]
    ChatTemplate(#[source] ChatError),
    /// The output folder has files in it.
    #[error("{directory} exists and is not empty; choose another folder")]
    OutputExists {
        /// The folder.
        directory: PathBuf,
    },
    /// Writing failed.
    #[error("failed to write {path}")]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl From<PartialError> for GgufError {
    fn from(error: PartialError) -> Self {
        match error {
            PartialError::Occupied(directory) => Self::OutputExists { directory },
            PartialError::Write { path, source } => Self::Write { path, source },
        }
    }
}

/// A closure for `map_err` that names what was being written.
pub(super) fn write_failed(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> GgufError {
    let path = path.into();
    move |source| GgufError::Write { path, source }
}

/// A key whose value is wrong.
pub(super) fn bad_value(key: impl Into<String>, problem: impl Into<String>) -> GgufError {
    GgufError::Value { key: key.into(), problem: problem.into() }
}

/// A tensor that is wrong.
pub(super) fn bad_tensor(tensor: impl Into<String>, problem: impl Into<String>) -> GgufError {
    GgufError::Tensor { tensor: tensor.into(), problem: problem.into() }
}
