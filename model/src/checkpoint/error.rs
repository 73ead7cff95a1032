use std::{io, path::PathBuf};

use candle_core::DType;
use thiserror::Error;

use crate::{config::ConfigError, partial::PartialError};

/// Why weights cannot be read or written. Every variant names the file, and the tensor where there is one.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The configuration beside the weights cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No safetensors in the folder.
    #[error("{} holds neither model.safetensors nor model.safetensors.index.json", directory.display())]
    NoWeights {
        /// Folder that was searched.
        directory: PathBuf,
    },
    /// Only pickled weights, which can run code when they are read.
    #[error(
        "{} holds pickled PyTorch weights only; convert them to safetensors first \
         (save_pretrained of a current transformers does)", directory.display()
    )]
    Pickle {
        /// Folder that was searched.
        directory: PathBuf,
    },
    /// A GGUF file was kept as it is.
    #[error(
        "the weights in {} are a GGUF file: it can be served, but not trained, stamped or compared; import it again \
         with --dtype bf16 for that", directory.display()
    )]
    Quantized {
        /// The folder.
        directory: PathBuf,
    },
    /// The file could not be opened, read or mapped.
    #[error("failed to read {}", file.display())]
    Read {
        /// File that was to be read.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file ends before its header or its data do.
    #[error("{} is truncated: it has {found} bytes and needs {expected}; fetch it again", file.display())]
    Truncated {
        /// Weight file.
        file: PathBuf,
        /// Bytes that header and data need.
        expected: u64,
        /// Bytes that the file has.
        found: u64,
    },
    /// The size of the header is impossible.
    #[error("{} is no safetensors file: its header would have {size} bytes", file.display())]
    HeaderSize {
        /// Weight file.
        file: PathBuf,
        /// Size that the first eight bytes state.
        size: u64,
    },
    /// The header is not the JSON that it should be.
    #[error("{} has an invalid header", file.display())]
    Header {
        /// Weight file.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The header's description of one tensor is not what it should be.
    #[error("{}: the header's entry for tensor {tensor} is invalid", file.display())]
    Entry {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the entry.
        tensor: String,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The header failed the safetensors crate's own checks after it passed ours.
    #[error("{} has an inconsistent header", file.display())]
    Format {
        /// Weight file.
        file: PathBuf,
        /// What the safetensors crate said.
        #[source]
        source: safetensors::SafeTensorError,
    },
    /// The type is unknown to the format.
    #[error("{}: tensor {tensor} has the unknown dtype {dtype:?}", file.display())]
    UnknownDtype {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the type.
        tensor: String,
        /// Type that the header states.
        dtype: String,
    },
    /// A valid type that is not implemented for weights.
    #[error("{}: tensor {tensor} has dtype {dtype}; weights must be F32, F16 or BF16", file.display())]
    UnsupportedDtype {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the type.
        tensor: String,
        /// Type that the header states.
        dtype: String,
    },
    /// Offsets run backwards.
    #[error("{}: tensor {tensor} starts at byte {start} and ends before it, at {end}", file.display())]
    Backwards {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the offsets.
        tensor: String,
        /// First byte, counted from the start of the data.
        start: u64,
        /// Byte after the last.
        end: u64,
    },
    /// A tensor would lie beyond the end of the file.
    #[error("{}: tensor {tensor} ends at byte {end} of the data, but the file holds {available}", file.display())]
    OutOfRange {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the offsets.
        tensor: String,
        /// Byte after the tensor's last.
        end: u64,
        /// Bytes of data in the file.
        available: u64,
    },
    /// Two tensors overlap, or bytes between them belong to none.
    #[error("{}: tensor {tensor} starts at byte {start} of the data, but the tensor before it ends at {previous_end}", file.display())]
    NotContiguous {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the offsets.
        tensor: String,
        /// Where it starts.
        start: u64,
        /// Where it should start.
        previous_end: u64,
    },
    /// Bytes after the last tensor.
    #[error("{} holds {extra} bytes after its last tensor", file.display())]
    TrailingBytes {
        /// Weight file.
        file: PathBuf,
        /// Bytes that belong to no tensor.
        extra: u64,
    },
    /// Shape and type do not give the number of bytes.
    #[error("{}: tensor {tensor} has {bytes} bytes, which is not {dtype} of shape {shape:?}", file.display())]
    ByteCount {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the shape.
        tensor: String,
        /// Type that the header states.
        dtype: String,
        /// Shape that the header states.
        shape: Vec<u64>,
        /// Bytes between its offsets.
        bytes: u64,
    },
    /// A shape other than the configuration's.
    #[error("{}: tensor {tensor} has shape {found:?}; config.json implies {expected:?}", file.display())]
    Shape {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the shape.
        tensor: String,
        /// Shape that follows from the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor of the configuration is in no file.
    #[error("{} lacks tensor {tensor}, which config.json implies", file.display())]
    Missing {
        /// Weight file, or the index if there are several.
        file: PathBuf,
        /// Tensor that is absent.
        tensor: String,
    },
    /// A tensor that is not part of the configured model.
    #[error("{}: tensor {tensor} is not part of the model that config.json describes", file.display())]
    Unexpected {
        /// Weight file.
        file: PathBuf,
        /// Tensor that should not be there.
        tensor: String,
    },
    /// Two files hold a tensor of the same name.
    #[error("tensor {tensor} is in {} and in {}", first.display(), second.display())]
    Duplicate {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
        /// Tensor that both hold.
        tensor: String,
    },
    /// Embeddings are tied, but the stored output projection is another matrix.
    #[error(
        "{}: tensor lm_head.weight differs from model.embed_tokens.weight although config.json ties them; \
         set tie_word_embeddings to what the model was trained with", file.display()
    )]
    BrokenTie {
        /// File with the output projection.
        file: PathBuf,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor {tensor} holds {value} at element {element}", file.display())]
    NotFinite {
        /// Weight file.
        file: PathBuf,
        /// Tensor with the value.
        tensor: String,
        /// Row-major position of the first such value.
        element: usize,
        /// The value.
        value: f32,
    },
    /// The index is not the JSON that it should be.
    #[error("{} is not a valid index", file.display())]
    Index {
        /// The index.
        file: PathBuf,
        /// Where and why.
        #[source]
        source: serde_json::Error,
    },
    /// The index is too large to be one.
    #[error("{} is larger than {limit} bytes and cannot be an index", file.display())]
    IndexSize {
        /// The index.
        file: PathBuf,
        /// Largest size that is read.
        limit: u64,
    },
    /// The index names a file that is not a plain name inside the folder.
    #[error("{} places tensor {tensor} in {shard:?}, which is not a safetensors file name", file.display())]
    ShardName {
        /// The index.
        file: PathBuf,
        /// Tensor with the entry.
        tensor: String,
        /// Name that was refused.
        shard: String,
    },
    /// The index names a file that does not exist.
    #[error("{} places tensor {tensor} in {shard}, which does not exist; fetch it", file.display())]
    MissingShard {
        /// The index.
        file: PathBuf,
        /// A tensor that should be in it.
        tensor: String,
        /// Name of the file.
        shard: String,
    },
    /// The index and a weight file disagree about where a tensor is.
    #[error("{} places tensor {tensor} in {shard}, which does not hold it", file.display())]
    WrongShard {
        /// The index.
        file: PathBuf,
        /// Tensor with the entry.
        tensor: String,
        /// Name of the file.
        shard: String,
    },
    /// A weight file holds a tensor that the index does not mention.
    #[error("{} holds tensor {tensor}, which the index does not mention", file.display())]
    NotIndexed {
        /// Weight file.
        file: PathBuf,
        /// Tensor without an entry.
        tensor: String,
    },
    /// A name that this checkpoint does not hold.
    #[error("the checkpoint in {} has no tensor {tensor}", directory.display())]
    NoSuchTensor {
        /// Folder of the checkpoint.
        directory: PathBuf,
        /// Name that was asked for.
        tensor: String,
    },
    /// The target folder already holds something.
    #[error("{} already exists and is not an empty folder; name another one or remove it", directory.display())]
    OutputExists {
        /// Folder that was to be written.
        directory: PathBuf,
    },
    /// A separate output projection cannot be given to a model that has none.
    #[error("tensor lm_head.weight cannot be replaced: config.json ties it to model.embed_tokens.weight")]
    ReplacedTie,
    /// A replacement of another shape.
    #[error("the replacement of tensor {tensor} has shape {found:?}; the checkpoint has {expected:?}")]
    ReplacedShape {
        /// Tensor to be replaced.
        tensor: String,
        /// Shape in the checkpoint.
        expected: Vec<usize>,
        /// Shape of the replacement.
        found: Vec<usize>,
    },
    /// A replacement holds NaN or infinity, possibly only after rounding to the stored type.
    #[error("the replacement of tensor {tensor} holds {value} at element {element}, which {dtype:?} cannot store")]
    ReplacedNotFinite {
        /// Tensor to be replaced.
        tensor: String,
        /// Row-major position of the first such value.
        element: usize,
        /// The value before rounding.
        value: f32,
        /// Type in which it would be stored.
        dtype: DType,
    },
    /// Candle failed to give or take a tensor's values.
    #[error("failed to convert tensor {tensor}")]
    Convert {
        /// Tensor that was read or replaced.
        tensor: String,
        /// What candle said.
        #[source]
        source: candle_core::Error,
    },
    /// A file or folder could not be written.
    #[error("failed to write {}", file.display())]
    Write {
        /// What was to be written.
        file: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl From<PartialError> for CheckpointError {
    fn from(error: PartialError) -> Self {
        match error {
            PartialError::Occupied(directory) => Self::OutputExists { directory },
            PartialError::Write { path: file, source } => Self::Write { file, source },
        }
    }
}
