//! The header of a safetensors file, checked so that an error can name the tensor.

use std::{ops::Range, path::Path};

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::CheckpointError;

/// The file starts with the size of the header, eight bytes, little-endian.
const SIZE_BYTES: usize = 8;
/// Limit of the format itself.
const MAX_HEADER_BYTES: u64 = 100_000_000;
const METADATA: &str = "__metadata__";

#[derive(Debug)]
pub(super) struct Header {
    /// First byte of the data.
    pub(super) data_start: usize,
    /// Tensors in the order of their data, which they cover without gap or overlap.
    pub(super) entries: Vec<Entry>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Bytes, counted from the start of the data.
    pub(super) range: Range<usize>,
}

/// An entry as the header states it, before anything is believed.
#[derive(Deserialize)]
struct RawEntry {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl Header {
    /// Checks the header of a file with these bytes. No allocation exceeds a small multiple of the header's real size.
    pub(super) fn parse(file: &Path, bytes: &[u8]) -> Result<Self, CheckpointError> {
        let header = header_bytes(file, bytes)?;
        let data_start = SIZE_BYTES + header.len();
        check_entries(file, header, (bytes.len() - data_start) as u64)?;
        // Ours are the readable errors; the crate that defines the format has the last word.
        let (_, metadata) = SafeTensors::read_metadata(bytes)
            .map_err(|source| CheckpointError::Format { file: file.to_owned(), source })?;
        let entries = metadata
            .offset_keys()
            .into_iter()
            .filter_map(|name| metadata.info(&name).map(|info| (name, info)))
            .map(|(name, info)| Entry {
                name,
                dtype: info.dtype,
                shape: info.shape.clone(),
                range: info.data_offsets.0..info.data_offsets.1,
            })
            .collect();
        Ok(Self { data_start, entries })
    }
}

fn header_bytes<'a>(file: &Path, bytes: &'a [u8]) -> Result<&'a [u8], CheckpointError> {
    let found = bytes.len() as u64;
    let Some((size, rest)) = bytes.split_first_chunk::<SIZE_BYTES>() else {
        return Err(CheckpointError::Truncated { file: file.to_owned(), expected: SIZE_BYTES as u64, found });
    };
    let size = u64::from_le_bytes(*size);
    if size > MAX_HEADER_BYTES {
        return Err(CheckpointError::HeaderSize { file: file.to_owned(), size });
    }
    // At most `MAX_HEADER_BYTES`, so the conversion is exact and the sum does not overflow.
    rest.get(..size as usize).ok_or_else(|| CheckpointError::Truncated {
        file: file.to_owned(),
        expected: size + SIZE_BYTES as u64,
        found,
    })
}

/// Everything the format demands of the entries, each with an error of its own.
fn check_entries(file: &Path, header: &[u8], available: u64) -> Result<(), CheckpointError> {
    let values: Map<String, Value> =
        serde_json::from_slice(header).map_err(|source| CheckpointError::Header { file: file.to_owned(), source })?;
    let mut entries = Vec::with_capacity(values.len());
    for (name, value) in values {
        if name == METADATA {
            continue;
        }
        let entry = RawEntry::deserialize(value).map_err(|source| CheckpointError::Entry {
            file: file.to_owned(),
            tensor: name.clone(),
            source,
        })?;
        check_byte_count(file, &name, &entry)?;
        entries.push((name, entry.data_offsets));
    }
    entries.sort_by_key(|(_, offsets)| *offsets);

    let mut previous_end = 0;
    for (name, (start, end)) in entries {
        if start != previous_end {
            return Err(CheckpointError::NotContiguous { file: file.to_owned(), tensor: name, start, previous_end });
        }
        if end > available {
            return Err(CheckpointError::OutOfRange { file: file.to_owned(), tensor: name, end, available });
        }
        previous_end = end;
    }
    match available - previous_end {
        0 => Ok(()),
        extra => Err(CheckpointError::TrailingBytes { file: file.to_owned(), extra }),
    }
}

/// Type and shape give exactly the bytes between the offsets.
fn check_byte_count(file: &Path, name: &str, entry: &RawEntry) -> Result<(), CheckpointError> {
    let dtype = Dtype::deserialize(Value::String(entry.dtype.clone())).map_err(|_| CheckpointError::UnknownDtype {
        file: file.to_owned(),
        tensor: name.to_owned(),
        dtype: entry.dtype.clone(),
    })?;
    let (start, end) = entry.data_offsets;
    let Some(bytes) = end.checked_sub(start) else {
        return Err(CheckpointError::Backwards { file: file.to_owned(), tensor: name.to_owned(), start, end });
    };
    let elements = entry.shape.iter().try_fold(1_u64, |product, &size| product.checked_mul(size));
    let bits = elements.and_then(|elements| elements.checked_mul(dtype.bitsize() as u64));
    if bits.is_none_or(|bits| Some(bits) != bytes.checked_mul(8)) {
        return Err(CheckpointError::ByteCount {
            file: file.to_owned(),
            tensor: name.to_owned(),
            dtype: entry.dtype.clone(),
            shape: entry.shape.clone(),
            bytes,
        });
    }
    Ok(())
}
