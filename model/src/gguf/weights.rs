//! Weights from GGUF blocks to `model.safetensors`, a few megabytes at a time.

use std::{
    fs::File,
    io::{BufWriter, Read, Seek, SeekFrom, Write},
    path::Path,
};

use half::bf16;
use serde_json::{Map, Value, json};

use super::{
    Progress,
    error::{GgufError, bad_tensor, write_failed},
    reader::TensorInfo,
};
use crate::partial;

/// Elements that are converted at once; a multiple of every block.
const CHUNK: usize = 1 << 20;

/// What safetensors files are written in.
#[derive(Clone, Copy, Debug)]
pub(super) enum FloatType {
    Bf16,
    F32,
}

impl FloatType {
    fn bytes(self) -> u64 {
        match self {
            Self::Bf16 => 2,
            Self::F32 => 4,
        }
    }

    fn safetensors(self) -> &'static str {
        match self {
            Self::Bf16 => "BF16",
            Self::F32 => "F32",
        }
    }
}

/// One tensor of the output.
#[derive(Debug)]
pub(super) struct Job {
    /// Name in the file that is read.
    pub(super) source: String,
    /// Name in the file that is written.
    pub(super) target: String,
    pub(super) info: TensorInfo,
    /// Number of heads whose rows llama.cpp interleaved.
    pub(super) interleaved_heads: Option<usize>,
}

impl Job {
    fn elements(&self) -> usize {
        // The reader checked that the product fits.
        self.info.shape.iter().product()
    }
}

/// Writes the tensors in order; returns the size of the file.
pub(super) fn write<R: Read + Seek>(
    jobs: &[Job],
    input: &mut R,
    dtype: FloatType,
    path: &Path,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<u64, GgufError> {
    let (header, data_bytes) = safetensors_header(jobs, dtype)?;
    let file = File::create(path).map_err(write_failed(path))?;
    let mut out = Output { writer: BufWriter::with_capacity(1 << 20, file), dtype, path, buffer: Vec::new() };
    out.put(&header)?;
    let mut done = 0;
    for job in jobs {
        progress(Progress { tensor: &job.target, done_bytes: done, total_bytes: data_bytes });
        copy(job, input, &mut out)?;
        done += job.elements() as u64 * dtype.bytes();
    }
    progress(Progress { tensor: "", done_bytes: done, total_bytes: data_bytes });
    partial::sync(out.writer).map_err(write_failed(path))?;
    Ok(header.len() as u64 + data_bytes)
}

/// The length and the JSON of a safetensors header, and the size of the data after it.
fn safetensors_header(jobs: &[Job], dtype: FloatType) -> Result<(Vec<u8>, u64), GgufError> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut end = 0_u64;
    for job in jobs {
        let begin = end;
        end = (job.elements() as u64)
            .checked_mul(dtype.bytes())
            .and_then(|size| end.checked_add(size))
            .ok_or_else(|| bad_tensor(&job.source, "makes the file impossibly large"))?;
        let entry = json!({"dtype": dtype.safetensors(), "shape": job.info.shape, "data_offsets": [begin, end]});
        entries.insert(job.target.clone(), entry);
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok((header, end))
}

fn copy<R: Read + Seek>(job: &Job, input: &mut R, out: &mut Output<'_>) -> Result<(), GgufError> {
    let failed = |source| GgufError::Read { what: format!("tensor {}", job.source), source };
    input.seek(SeekFrom::Start(job.info.offset)).map_err(failed)?;
    let total = job.elements();
    let head = match job.interleaved_heads {
        Some(heads) => Some(head_shape(job, heads)?),
        None => None,
    };
    // A head is converted whole, as its rows change places.
    let chunk = head.map_or(CHUNK, |head| head.rows * head.columns);
    let (mut bytes, mut values, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut done = 0;
    while done < total {
        let count = chunk.min(total - done);
        let quantization = job.info.quantization;
        bytes.resize(quantization.bytes_of(count), 0);
        input.read_exact(&mut bytes).map_err(failed)?;
        values.resize(count, 0.0);
        quantization.widen(&bytes, &mut values);
        check_finite(&values, done, &job.source)?;
        match head {
            Some(head) => {
                rows.clear();
                head.separate(&values, &mut rows);
                out.values(&rows, &job.source)?;
            }
            None => out.values(&values, &job.source)?,
        }
        done += count;
    }
    Ok(())
}

/// `done` is the number of elements before these.
pub(super) fn check_finite(values: &[f32], done: usize, tensor: &str) -> Result<(), GgufError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(at) => Err(bad_tensor(tensor, format!("holds {} at element {}", values[at], done + at))),
        None => Ok(()),
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) struct HeadShape {
    pub(super) rows: usize,
    pub(super) columns: usize,
}

pub(super) fn head_shape(job: &Job, heads: usize) -> Result<HeadShape, GgufError> {
    // A bias is one column.
    let (rows, columns) = match job.info.shape.as_slice() {
        [rows] => (*rows, 1),
        [rows, columns] => (*rows, *columns),
        other => return Err(bad_tensor(&job.source, format!("has {} dimensions", other.len()))),
    };
    let block = job.info.quantization.block_elements();
    match rows.checked_div(heads) {
        Some(head_rows) if head_rows * heads == rows && head_rows % 2 == 0 && (head_rows * columns) % block == 0 => {
            Ok(HeadShape { rows: head_rows, columns })
        }
        _ => Err(bad_tensor(&job.source, format!("has {rows} rows, which {heads} heads cannot share"))),
    }
}

impl HeadShape {
    /// llama.cpp's rows 0, 1, 2, 3 … of a head are Hugging Face's 0, h, 1, h + 1 …, h being half the head.
    pub(super) fn separate<T: Copy>(self, values: &[T], out: &mut Vec<T>) {
        for half in 0..2 {
            for pair in 0..self.rows / 2 {
                let row = (2 * pair + half) * self.columns;
                out.extend_from_slice(&values[row..row + self.columns]);
            }
        }
    }
}

struct Output<'a> {
    writer: BufWriter<File>,
    dtype: FloatType,
    path: &'a Path,
    buffer: Vec<u8>,
}

impl Output<'_> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), GgufError> {
        self.writer.write_all(bytes).map_err(write_failed(self.path))
    }

    fn values(&mut self, values: &[f32], tensor: &str) -> Result<(), GgufError> {
        self.buffer.clear();
        match self.dtype {
            FloatType::F32 => self.buffer.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            FloatType::Bf16 => {
                for value in values {
                    // Rounds to nearest, ties to even; a value beyond bf16's range would become infinite.
                    let rounded = bf16::from_f32(*value);
                    if !rounded.is_finite() {
                        return Err(bad_tensor(tensor, format!("holds {value}, which bf16 cannot; import as f32")));
                    }
                    self.buffer.extend(rounded.to_le_bytes());
                }
            }
        }
        let Self { writer, buffer, path, .. } = self;
        writer.write_all(buffer).map_err(write_failed(*path))
    }
}
