//! One error for callers that go through several modules of this package.

use std::path::PathBuf;

use thiserror::Error;

use crate::{
    chat::ChatError,
    checkpoint::CheckpointError,
    config::ConfigError,
    decoder::{DecoderError, device::DeviceError},
    gguf::GgufError,
    hub::HubError,
    manifest::ManifestError,
    tokenizer::TokenizerError,
};

/// Whatever went wrong with a model. Each variant speaks for itself: the message is that of the module's error.
#[derive(Debug, Error)]
pub enum Error {
    /// `config.json` or `generation_config.json`.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Weight files.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// `tokenizer.json` or `tokenizer_config.json`.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The chat template.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// The manifest's digests.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// From a reference to a folder.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A GGUF file.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Forward or backward pass.
    #[error(transparent)]
    Decoder(#[from] DecoderError),
    /// The device that should compute.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Parts of one folder that do not fit each other.
    #[error(transparent)]
    Model(#[from] ModelError),
}

/// Parts of one folder that do not fit each other.
#[derive(Debug, Error)]
pub enum ModelError {
    /// The tokenizer gives ids for which there is no embedding.
    #[error(
        "the tokenizer in {} has {tokenizer} tokens, but the model has embeddings for {embeddings}; \
         they belong to different models", directory.display()
    )]
    Vocabulary {
        /// Folder with both.
        directory: PathBuf,
        /// Size of the tokenizer's vocabulary.
        tokenizer: usize,
        /// Rows of the embedding.
        embeddings: usize,
    },
}

impl Error {
    /// Whether the same call may succeed later without any change.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Hub(error) => error.is_retryable(),
            _ => false,
        }
    }
}
