//! The weights of a model folder, whichever files they are in.

use std::path::Path;

use candle_core::DType;

use crate::{
    Checkpoint, Config, Decoder, DecoderError, Error,
    gguf::{GgufWeights, has_only_gguf},
};

/// Opened and checked weight files. The weights stay on disk until they are loaded.
#[derive(Debug)]
pub enum WeightFiles {
    /// `model.safetensors`, or several files with an index.
    Safetensors(Checkpoint),
    /// `model.gguf`, as it is.
    Gguf(GgufWeights),
}

impl WeightFiles {
    /// Opens the weights of a folder; safetensors win over a GGUF file.
    ///
    /// # Errors
    /// When the folder has no weights, or they do not fit its configuration.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        if has_only_gguf(directory) {
            return Ok(Self::Gguf(GgufWeights::open(directory)?));
        }
        Ok(Self::Safetensors(Checkpoint::open(directory)?))
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.config(),
            Self::Gguf(weights) => weights.config(),
        }
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        match self {
            Self::Safetensors(checkpoint) => checkpoint.contains(name),
            Self::Gguf(weights) => weights.contains(name),
        }
    }

    /// How they are stored, as `BF16` or `Q4_K, Q6_K`: types of matrices, the most frequent first.
    pub fn stored_as(&self) -> String {
        match self {
            Self::Safetensors(checkpoint) => match checkpoint.dtype() {
                DType::BF16 => "BF16".to_owned(),
                DType::F16 => "F16".to_owned(),
                _ => "F32".to_owned(),
            },
            Self::Gguf(weights) => weights.matrix_types().join(", "),
        }
    }

    /// Reads all of them.
    ///
    /// # Errors
    /// When a tensor cannot be read, or holds a value that is no number.
    pub fn load(&self) -> Result<Decoder, DecoderError> {
        match self {
            Self::Safetensors(checkpoint) => Decoder::load(checkpoint),
            Self::Gguf(weights) => Decoder::load_gguf(weights),
        }
    }
}
