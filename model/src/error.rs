//! One error for callers that go through several modules of this package.

use thiserror::Error;

use crate::{
    chat::ChatError, checkpoint::CheckpointError, config::ConfigError, decoder::DecoderError, gguf::GgufError,
    hub::HubError, manifest::ManifestError, model::ModelError, tokenizer::TokenizerError,
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
    /// Parts of one folder that do not fit each other.
    #[error(transparent)]
    Model(#[from] ModelError),
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
