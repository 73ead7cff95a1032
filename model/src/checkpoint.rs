//! Weights on disk: one safetensors file, or several with an index, beside a `config.json`.
//!
//! Weight files are untrusted. Everything that can be known without reading the weights is checked when a checkpoint
//! is opened: sizes, offsets, types, names and shapes against the configuration. A tensor's values are checked when it
//! is read. The format: <https://github.com/huggingface/safetensors#format>.

mod error;
mod header;
mod save;
mod shards;
mod value;

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use candle_core::{DType, Device, Tensor};
use memmap2::{Mmap, MmapOptions};

pub use self::error::CheckpointError;
use self::header::{Entry, Header};
pub(crate) use self::{
    save::is_legal,
    shards::{INDEX, SINGLE, has_safetensors, shard_names},
};
use crate::{config::Config, gguf};

const EMBEDDING: &str = "model.embed_tokens.weight";
const OUTPUT: &str = "lm_head.weight";

/// Buffers that old versions of transformers saved; they follow from the configuration.
const DERIVED_SUFFIX: &str = ".rotary_emb.inv_freq";

/// An opened and checked folder of weights. The weights stay on disk until [`Checkpoint::tensor`] reads them.
///
/// A file is mapped while one of its tensors is read: another process that truncates it in that moment ends this
/// process (SIGBUS). Files are replaced by renaming, never in place, by [`Checkpoint::save`] and by hf-hub.
#[derive(Debug)]
pub struct Checkpoint {
    directory: PathBuf,
    config: Config,
    shards: Vec<Shard>,
    /// Name of a tensor to its shard and its place in that shard.
    places: HashMap<String, (usize, usize)>,
    dtype: DType,
}

/// One safetensors file. It stays open: a file that is renamed over it does not mix with it.
#[derive(Debug)]
struct Shard {
    file: PathBuf,
    opened: File,
    header: Header,
}

impl Shard {
    fn open(file: PathBuf) -> Result<Self, CheckpointError> {
        let failed = |source| CheckpointError::Read { file: file.clone(), source };
        let opened = File::open(&file).map_err(failed)?;
        let length = opened.metadata().map_err(failed)?.len();
        let header = Header::parse(&file, &map(&file, &opened, 0..length)?)?;
        Ok(Self { file, opened, header })
    }

    /// The bytes of one tensor. The map lives as long as they are needed, so that a whole model that was read once
    /// does not stay in this process's memory a second time.
    fn bytes(&self, entry: &Entry) -> Result<Mmap, CheckpointError> {
        let start = self.header.data_start as u64;
        map(&self.file, &self.opened, start + entry.range.start as u64..start + entry.range.end as u64)
    }

    /// Everything before the data.
    fn header_bytes(&self) -> Result<Mmap, CheckpointError> {
        map(&self.file, &self.opened, 0..self.header.data_start as u64)
    }
}

impl Checkpoint {
    /// Opens a model folder and checks the weight files against its configuration.
    ///
    /// # Errors
    /// When the configuration cannot be used, or a weight file is absent, truncated, inconsistent, or lacks a tensor
    /// of the configuration or has one that is not part of it. The error names the file and the tensor.
    pub fn open(directory: &Path) -> Result<Self, CheckpointError> {
        let config = Config::load(directory)?;
        let found = shards::find(directory)?;
        let shards = found.files.into_iter().map(Shard::open).collect::<Result<Vec<_>, _>>()?;
        let places = locate(&shards)?;
        if let Some(index) = &found.index {
            index.check(&shards, &places)?;
        }
        let mut checkpoint = Self { directory: directory.to_owned(), config, shards, places, dtype: DType::F32 };
        checkpoint.check_tensors()?;
        checkpoint.check_tie()?;
        checkpoint.dtype = checkpoint.stored_dtype(EMBEDDING)?;
        Ok(checkpoint)
    }

    /// The folder that was opened.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Type in which the embedding matrix is stored; single tensors may differ ([`Checkpoint::stored_dtype`]).
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Names of all stored tensors, file by file and in the order in which a file stores them.
    ///
    /// `lm_head.weight` may be among them although the embeddings are tied; it then equals the embedding matrix.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.shards.iter().flat_map(|shard| shard.header.entries.iter().map(|entry| entry.name.as_str()))
    }

    /// Whether a tensor of this name is stored.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Type in which one tensor is stored.
    ///
    /// # Errors
    /// When there is no such tensor, or its type is not f32, f16 or bf16.
    pub fn stored_dtype(&self, name: &str) -> Result<DType, CheckpointError> {
        let (shard, entry) = self.find(name)?;
        value::dtype(shard, entry)
    }

    /// One tensor as it is stored (f32, f16 or bf16), on the CPU.
    ///
    /// # Errors
    /// When there is no such tensor, or it holds NaN or infinity.
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let (shard, entry) = self.find(name)?;
        value::read(shard, entry, &Device::Cpu)
    }

    /// One tensor widened to f32, on the CPU.
    ///
    /// # Errors
    /// As [`Checkpoint::tensor`].
    pub fn tensor_f32(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let (shard, entry) = self.find(name)?;
        value::read_f32(shard, entry, &Device::Cpu)
    }

    /// Writes the same model with some tensors replaced: same files, names, order, types, metadata and companion
    /// files (configuration, tokenizer, template, licence). Values are rounded to the stored type, to nearest even.
    ///
    /// The folder appears complete or not at all: it is written beside `directory` under another name first.
    ///
    /// # Errors
    /// When `directory` already holds something, when a replacement has no counterpart of the same shape or holds
    /// NaN or infinity (after rounding), or when writing fails.
    pub fn save(&self, directory: &Path, replaced: &BTreeMap<String, Tensor>) -> Result<(), CheckpointError> {
        save::save(self, directory, replaced)
    }

    fn find(&self, name: &str) -> Result<(&Shard, &Entry), CheckpointError> {
        let &(shard, entry) = self.places.get(name).ok_or_else(|| CheckpointError::NoSuchTensor {
            directory: self.directory.clone(),
            tensor: name.to_owned(),
        })?;
        let shard = &self.shards[shard];
        Ok((shard, &shard.header.entries[entry]))
    }

    /// Names, types and shapes are those of the configuration.
    fn check_tensors(&self) -> Result<(), CheckpointError> {
        let mut expected: HashMap<String, Vec<usize>> =
            self.config.expected_tensors().into_iter().map(|tensor| (tensor.name, tensor.shape)).collect();
        for name in expected.keys() {
            if !self.contains(name) {
                return Err(self.missing(name));
            }
        }
        if self.config.tie_word_embeddings {
            // Redundant, but some exporters write it.
            expected.insert(OUTPUT.to_owned(), vec![self.config.vocab_size, self.config.hidden_size]);
        }
        for shard in &self.shards {
            for entry in &shard.header.entries {
                let Some(shape) = expected.get(&entry.name) else {
                    if entry.name.ends_with(DERIVED_SUFFIX) {
                        continue;
                    }
                    return Err(CheckpointError::Unexpected { file: shard.file.clone(), tensor: entry.name.clone() });
                };
                if *shape != entry.shape {
                    return Err(CheckpointError::Shape {
                        file: shard.file.clone(),
                        tensor: entry.name.clone(),
                        expected: shape.clone(),
                        found: entry.shape.clone(),
                    });
                }
                value::dtype(shard, entry)?;
            }
        }
        Ok(())
    }

    fn missing(&self, name: &str) -> CheckpointError {
        let file = match self.shards.as_slice() {
            [shard] => shard.file.clone(),
            _ => self.directory.join(INDEX),
        };
        CheckpointError::Missing { file, tensor: name.to_owned() }
    }

    /// A redundant output projection must be what the configuration says it is; readers differ in which one they use.
    fn check_tie(&self) -> Result<(), CheckpointError> {
        if !self.config.tie_word_embeddings || !self.contains(OUTPUT) {
            return Ok(());
        }
        let (embedding_shard, embedding) = self.find(EMBEDDING)?;
        let (output_shard, output) = self.find(OUTPUT)?;
        if embedding.dtype != output.dtype || embedding_shard.bytes(embedding)?[..] != output_shard.bytes(output)?[..] {
            return Err(CheckpointError::BrokenTie { file: output_shard.file.clone() });
        }
        Ok(())
    }
}

/// The weight files of a model folder, and the index if they are split; none of them is opened but the index.
pub(crate) fn weight_files(directory: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    if gguf::has_only_gguf(directory) {
        return Ok(vec![directory.join(gguf::FILE)]);
    }
    let mut found = shards::find(directory)?;
    if found.index.is_some() {
        found.files.push(directory.join(INDEX));
    }
    Ok(found.files)
}

/// Where every tensor is; no name may occur twice.
fn locate(shards: &[Shard]) -> Result<HashMap<String, (usize, usize)>, CheckpointError> {
    let mut places = HashMap::new();
    for (shard_index, shard) in shards.iter().enumerate() {
        for (entry_index, entry) in shard.header.entries.iter().enumerate() {
            if let Some((first, _)) = places.insert(entry.name.clone(), (shard_index, entry_index)) {
                return Err(CheckpointError::Duplicate {
                    first: shards[first].file.clone(),
                    second: shard.file.clone(),
                    tensor: entry.name.clone(),
                });
            }
        }
    }
    Ok(places)
}

/// Part of a file as bytes.
#[expect(unsafe_code, reason = "mapping a file is unsafe because another process may truncate it while it is mapped")]
fn map(file: &Path, opened: &File, range: Range<u64>) -> Result<Mmap, CheckpointError> {
    let failed = |source| CheckpointError::Read { file: file.to_owned(), source };
    let found = opened.metadata().map_err(failed)?.len();
    if found < range.end {
        return Err(CheckpointError::Truncated { file: file.to_owned(), expected: range.end, found });
    }
    let length = usize::try_from(range.end - range.start).map_err(|error| failed(io::Error::other(error)))?;
    // SAFETY: the map is read-only, inside the file, and never handed out of this module. Nothing in this program writes
    // to a file in place. Another process can, as `Checkpoint` says; then bytes change or the process ends, and no
    // reference dangles.
    unsafe { MmapOptions::new().offset(range.start).len(length).map(opened) }.map_err(failed)
}
