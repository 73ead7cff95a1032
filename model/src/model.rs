//! A whole model: what is in its folder, loaded and checked against each other.

use std::path::{Path, PathBuf};

use protocol::ids::ManifestDigest;

use crate::{
    ChatTemplate, Config, Decoder, DecoderError, DeviceDecoder, Error, Manifest, Tokenizer, WeightFiles,
    decoder::device::{ComputeDevice, Precision},
    error::ModelError,
    hub,
};

/// A model that can be asked. Everything in it is read-only and may be shared between threads. It runs on the CPU, or
/// with a [`DeviceDecoder`] on another device.
#[derive(Debug)]
pub struct Model<D = Decoder> {
    /// Folder that it was loaded from.
    pub directory: PathBuf,
    /// Shape of the decoder and its special tokens.
    pub config: Config,
    /// Text to ids and back.
    pub tokenizer: Tokenizer,
    /// How a conversation becomes a prompt; base models have none.
    pub chat: Option<ChatTemplate>,
    /// Digest over weights, tokenizer, template and configuration.
    pub manifest_digest: ManifestDigest,
    /// The weights.
    pub decoder: D,
}

impl Model {
    /// Loads a folder, `org/name` from the Hub, or `bundled`.
    ///
    /// # Errors
    /// When the reference leads to no model, or a part of it cannot be used.
    pub fn load(reference: &str) -> Result<Self, Error> {
        Self::open(&hub::resolve(reference)?)
    }

    /// Loads a folder.
    ///
    /// # Errors
    /// When a part of the model cannot be used.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        Self::open_with(directory, WeightFiles::load)
    }
}

impl Model<DeviceDecoder> {
    /// Loads a folder, `org/name` from the Hub, or `bundled`, in the precision of its files. On the CPU it runs in
    /// candle's operations, which is of use to tests alone.
    ///
    /// # Errors
    /// When the device cannot be used, the reference leads to no model, or a part of the model cannot be used.
    pub fn load_on(reference: &str, device: ComputeDevice) -> Result<Self, Error> {
        // A device that is not there should not wait for a download.
        let device = device.open()?;
        Self::open_with(&hub::resolve(reference)?, |weights| {
            DeviceDecoder::load(weights, &device, Precision::of(weights))
        })
    }
}

impl<D: Send> Model<D> {
    fn open_with(
        directory: &Path,
        load: impl FnOnce(&WeightFiles) -> Result<D, DecoderError> + Send,
    ) -> Result<Self, Error> {
        // Small files first: their errors should not wait for the weights.
        let weights = WeightFiles::open(directory)?;
        let tokenizer = Tokenizer::load(directory)?;
        let chat = ChatTemplate::load(directory)?;
        let config = weights.config().clone();
        if tokenizer.vocab_size() > config.vocab_size {
            return Err(Error::Model(ModelError::Vocabulary {
                directory: directory.to_owned(),
                tokenizer: tokenizer.vocab_size(),
                embeddings: config.vocab_size,
            }));
        }
        // Both read every weight once; together they read the disk once.
        let (decoder, manifest) = rayon::join(|| load(&weights), || Manifest::of(directory));
        let (decoder, manifest) = (decoder?, manifest?);
        Ok(Self {
            directory: directory.to_owned(),
            config,
            tokenizer,
            chat,
            manifest_digest: manifest.digest(),
            decoder,
        })
    }
}
