//! A GGUF file that is served as it is: its matrices stay quantized.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
    sync::Arc,
};

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::{
    Family, Progress,
    error::{GgufError, bad_tensor, write_failed},
    jobs, open,
    reader::Header,
    weights::{Job, check_finite, head_shape},
};
use crate::{Config, checkpoint, decoder::weight::Weight, kernel::packed::Packed, partial};

/// Name of the weights of a folder whose weights are a GGUF file.
pub(crate) const FILE: &str = "model.gguf";

const CHUNK_BYTES: usize = 1 << 20;

/// Whether a folder's weights are a GGUF file; safetensors beside it win.
pub(crate) fn has_only_gguf(directory: &Path) -> bool {
    !checkpoint::has_safetensors(directory) && directory.join(FILE).is_file()
}

/// Weights in a folder's `model.gguf`, checked against the folder's `config.json`. They stay on disk until they are read.
#[derive(Debug)]
pub struct GgufWeights {
    config: Config,
    opened: File,
    /// By their Hugging Face names.
    tensors: BTreeMap<String, Job>,
}

impl GgufWeights {
    /// Opens a folder.
    ///
    /// # Errors
    /// When the configuration or the file cannot be used, or they do not belong together.
    pub fn open(directory: &Path) -> Result<Self, GgufError> {
        let config = Config::load(directory).map_err(GgufError::Config)?;
        let file = directory.join(FILE);
        let (mut input, length) = open(&file)?;
        let header = Header::read(&mut input, length, &file)?;
        let jobs = jobs(Family::of(&header.metadata)?, &config, &header)?;
        let tensors = jobs.into_iter().map(|job| (job.target.clone(), job)).collect();
        Ok(Self { config, opened: input.into_inner(), tensors })
    }

    /// Configuration of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Storage types of the matrices, the most frequent first.
    pub fn matrix_types(&self) -> Vec<&'static str> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for job in self.tensors.values().filter(|job| job.info.shape.len() > 1) {
            *counts.entry(job.info.quantization.name()).or_default() += 1;
        }
        let mut types: Vec<_> = counts.into_iter().collect();
        types.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        types.into_iter().map(|(name, _)| name).collect()
    }

    /// Reads every tensor once, for its values.
    pub(super) fn check(&self) -> Result<(), GgufError> {
        self.tensors.keys().try_for_each(|name| self.read(name).map(drop))
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A matrix as it is stored, its rows in Hugging Face's order; a vector in f32.
    pub(crate) fn read(&self, name: &str) -> Result<Weight, GgufError> {
        let job = self.tensors.get(name).ok_or_else(|| GgufError::MissingTensor { tensor: name.to_owned() })?;
        let failed = |source| GgufError::Read { what: format!("tensor {}", job.source), source };
        let quantization = job.info.quantization;
        // The reader compared the size with that of the file.
        let size = usize::try_from(job.info.size).map_err(|error| failed(std::io::Error::other(error)))?;
        let mut bytes = vec![0; size];
        let mut input = &self.opened;
        input.seek(SeekFrom::Start(job.info.offset)).map_err(failed)?;
        input.read_exact(&mut bytes).map_err(failed)?;
        if let Some(heads) = job.interleaved_heads {
            let mut head = head_shape(job, heads)?;
            head.columns = quantization.bytes_of(head.columns);
            let mut separated = Vec::with_capacity(size);
            bytes.chunks_exact(head.rows * head.columns).for_each(|rows| head.separate(rows, &mut separated));
            bytes = separated;
        }
        match job.info.shape.as_slice() {
            [_, columns] => {
                let row_bytes = quantization.bytes_of(*columns);
                bytes.par_chunks(row_bytes).enumerate().try_for_each_init(
                    || vec![0.0; *columns],
                    |values, (row, bytes)| {
                        quantization.widen(bytes, values);
                        check_finite(values, row * columns, &job.source)
                    },
                )?;
                Ok(Weight::Packed(Arc::new(Packed::new(quantization, *columns, bytes))))
            }
            [length] => {
                let mut values = vec![0.0; *length];
                quantization.widen(&bytes, &mut values);
                check_finite(&values, 0, &job.source)?;
                let tensor = Tensor::from_vec(values, *length, &Device::Cpu);
                tensor.map(Weight::Plain).map_err(|error| failed(std::io::Error::other(error)))
            }
            other => Err(bad_tensor(&job.source, format!("has {} dimensions", other.len()))),
        }
    }
}

/// Copies the whole file; returns its size.
pub(super) fn copy(
    mut input: BufReader<File>,
    length: u64,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<u64, GgufError> {
    let failed = |source| GgufError::Read { what: "the file".to_owned(), source };
    input.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut out = BufWriter::with_capacity(CHUNK_BYTES, File::create(path).map_err(write_failed(path))?);
    let (mut done, mut chunk) = (0, vec![0; CHUNK_BYTES]);
    loop {
        progress(Progress { tensor: "", done_bytes: done, total_bytes: length });
        let read = input.read(&mut chunk).map_err(failed)?;
        if read == 0 {
            break;
        }
        out.write_all(&chunk[..read]).map_err(write_failed(path))?;
        done += read as u64;
    }
    partial::sync(out).map_err(write_failed(path))?;
    Ok(done)
}
