#![doc = include_str!("../README.md")]

pub mod bundled;
pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod error;
pub mod gguf;
pub mod hub;
mod kernel;
pub mod manifest;
mod model;
mod partial;
mod quantization;
pub mod sampler;
pub mod tokenizer;
pub mod train;
mod weight_files;

pub use chat::{ChatTemplate, Message};
pub use checkpoint::Checkpoint;
pub use config::Config;
pub use decoder::{
    Decoder, DecoderError, KvCache, Stream,
    device::{ComputeDevice, DeviceCache, DeviceDecoder, DeviceError},
};
pub use error::Error;
pub use kernel::linear::row_products;
pub use manifest::Manifest;
pub use model::Model;
pub use sampler::{Likelihood, LogitAdjuster, LogitAdjustments, Sampler, SamplingParameters};
pub use tokenizer::{SpecialTokens, StreamDecoder, Tokenizer};
pub use weight_files::WeightFiles;
