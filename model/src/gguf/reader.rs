//! The header of a GGUF file: keys with values, and where each tensor lies.
//!
//! The file is untrusted. Every count is compared with a limit and with the bytes that remain before anything is read or
//! allocated for it, so memory stays within a small multiple of the header that is really there.
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>.

use std::{
    collections::BTreeMap,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use super::error::{GgufError, bad_tensor, bad_value};
use crate::quantization::Quantization;

const MAGIC: [u8; 4] = *b"GGUF";
/// The largest known vocabularies take a few megabytes.
const MAX_HEADER_BYTES: u64 = 256 << 20;
const MAX_KEYS: u64 = 1 << 16;
const MAX_TENSORS: u64 = 1 << 16;
const MAX_NAME_BYTES: u64 = 1 << 16;
/// As in ggml.
const MAX_DIMENSIONS: u32 = 4;
const DEFAULT_ALIGNMENT: u64 = 32;
const MAX_ALIGNMENT: u64 = 1 << 20;

/// A value in the header.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Unsigned(u64),
    Signed(i64),
    Float32(f32),
    Float64(f64),
    Bool(bool),
    String(String),
    Strings(Vec<String>),
    Integers(Vec<i32>),
    Floats(Vec<f32>),
    /// An array of a type that no key of interest has; its elements were skipped.
    Other,
}

/// Keys and their values.
#[derive(Debug, Default)]
pub(super) struct Metadata(BTreeMap<String, Value>);

/// Where and how a tensor is stored.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct TensorInfo {
    pub(super) quantization: Quantization,
    /// Slowest dimension first, as in PyTorch (the file has it the other way round).
    pub(super) shape: Vec<usize>,
    /// From the beginning of the file, in bytes.
    pub(super) offset: u64,
    /// In bytes.
    pub(super) size: u64,
}

/// Everything before the weights.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) metadata: Metadata,
    pub(super) tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Reads the header of a file of `length` bytes; `file` is its name for messages.
    pub(super) fn read<R: Read + Seek>(reader: R, length: u64, file: &Path) -> Result<Self, GgufError> {
        let mut input = Input { reader, left: length.min(MAX_HEADER_BYTES), position: 0 };
        let magic: [u8; 4] = match input.array("the magic number") {
            Err(GgufError::Truncated { .. }) => return Err(GgufError::NotGguf { file: file.to_owned() }),
            other => other?,
        };
        if magic != MAGIC {
            return Err(GgufError::NotGguf { file: file.to_owned() });
        }
        let version = input.u32("the version")?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { file: file.to_owned(), version });
        }
        let tensors = input.count("the number of tensors", MAX_TENSORS)?;
        let keys = input.count("the number of keys", MAX_KEYS)?;

        let mut metadata = Metadata::default();
        for index in 0..keys {
            let key = input.string(&format!("the name of key {index}"), MAX_NAME_BYTES)?;
            let value = input.value(&key)?;
            if metadata.0.insert(key.clone(), value).is_some() {
                return Err(bad_value(key, "is given twice"));
            }
        }
        let alignment = metadata.alignment()?;
        let mut described = Vec::new();
        for index in 0..tensors {
            described.push(input.tensor(index)?);
        }
        let data_start = input.position.next_multiple_of(alignment);
        let mut header = Self { metadata, tensors: BTreeMap::new() };
        for (name, quantization, shape, relative) in described {
            let info = place(&name, quantization, shape, relative, Placement { data_start, alignment, length })?;
            if header.tensors.insert(name.clone(), info).is_some() {
                return Err(bad_tensor(name, "is given twice"));
            }
        }
        Ok(header)
    }
}

struct Placement {
    data_start: u64,
    alignment: u64,
    length: u64,
}

/// Checks a tensor's size and place in the file.
fn place(
    name: &str,
    quantization: Quantization,
    shape: Vec<usize>,
    relative: u64,
    Placement { data_start, alignment, length }: Placement,
) -> Result<TensorInfo, GgufError> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(quantization.block_elements()) {
        let (kind, block) = (quantization.name(), quantization.block_elements());
        return Err(bad_tensor(name, format!("has rows of {row} elements, no multiple of the {block} of {kind}")));
    }
    if !relative.is_multiple_of(alignment) {
        return Err(bad_tensor(name, format!("begins at {relative}, no multiple of {alignment}")));
    }
    let too_large = || bad_tensor(name, format!("has the impossible shape {shape:?}"));
    let elements = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size)).ok_or_else(too_large)?;
    let size = (elements / quantization.block_elements())
        .checked_mul(quantization.block_bytes())
        .and_then(|size| u64::try_from(size).ok())
        .ok_or_else(too_large)?;
    let offset = data_start.checked_add(relative).filter(|offset| *offset <= length);
    let left = offset.map_or(0, |offset| length - offset);
    match offset {
        Some(offset) if size <= left => Ok(TensorInfo { quantization, shape, offset, size }),
        _ => Err(GgufError::Truncated { what: format!("tensor {name}"), needed: size, left }),
    }
}

impl Metadata {
    fn alignment(&self) -> Result<u64, GgufError> {
        const KEY: &str = "general.alignment";
        match self.unsigned_if_present(KEY)? {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(alignment) if alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT => Ok(alignment),
            Some(alignment) => Err(bad_value(KEY, format!("is {alignment}, which is no alignment"))),
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key)
    }

    pub(super) fn string(&self, key: &str) -> Result<&str, GgufError> {
        self.string_if_present(key)?.ok_or_else(|| missing(key))
    }

    pub(super) fn string_if_present(&self, key: &str) -> Result<Option<&str>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(bad_value(key, "is not a string")),
        }
    }

    pub(super) fn unsigned(&self, key: &str) -> Result<u64, GgufError> {
        self.unsigned_if_present(key)?.ok_or_else(|| missing(key))
    }

    pub(super) fn unsigned_if_present(&self, key: &str) -> Result<Option<u64>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(value)) => Ok(Some(*value)),
            Some(Value::Signed(value)) => {
                u64::try_from(*value).map(Some).map_err(|_| bad_value(key, format!("is {value}, which is negative")))
            }
            Some(_) => Err(bad_value(key, "is not one whole number")),
        }
    }

    /// A number, its shortest decimal form kept: an `f32` of 1e-5 is 1e-5 and not 9.99999974e-6.
    pub(super) fn number_if_present(&self, key: &str) -> Result<Option<f64>, GgufError> {
        let value = match self.get(key) {
            None => return Ok(None),
            Some(Value::Float32(value)) => value.to_string().parse().unwrap_or(f64::from(*value)),
            Some(Value::Float64(value)) => *value,
            Some(_) => return Err(bad_value(key, "is not a floating point number")),
        };
        if value.is_finite() { Ok(Some(value)) } else { Err(bad_value(key, format!("is {value}"))) }
    }

    pub(super) fn bool_if_present(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(_) => Err(bad_value(key, "is neither true nor false")),
        }
    }

    pub(super) fn strings(&self, key: &str) -> Result<&[String], GgufError> {
        match self.get(key) {
            None => Err(missing(key)),
            Some(Value::Strings(values)) => Ok(values),
            Some(_) => Err(bad_value(key, "is not a list of strings")),
        }
    }

    pub(super) fn integers(&self, key: &str) -> Result<&[i32], GgufError> {
        match self.get(key) {
            None => Err(missing(key)),
            Some(Value::Integers(values)) => Ok(values),
            Some(_) => Err(bad_value(key, "is not a list of 32-bit whole numbers")),
        }
    }

    pub(super) fn floats(&self, key: &str) -> Result<&[f32], GgufError> {
        match self.get(key) {
            None => Err(missing(key)),
            Some(Value::Floats(values)) => Ok(values),
            Some(_) => Err(bad_value(key, "is not a list of 32-bit floating point numbers")),
        }
    }
}

fn missing(key: &str) -> GgufError {
    GgufError::MissingKey { key: key.to_owned() }
}

/// Reads no further than `left` bytes.
struct Input<R> {
    reader: R,
    left: u64,
    position: u64,
}

impl<R: Read + Seek> Input<R> {
    /// Accounts for bytes that are about to be read or skipped.
    fn claim(&mut self, what: &str, bytes: u64) -> Result<(), GgufError> {
        let Some(left) = self.left.checked_sub(bytes) else {
            return Err(GgufError::Truncated { what: what.to_owned(), needed: bytes, left: self.left });
        };
        self.left = left;
        self.position += bytes;
        Ok(())
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        self.claim(what, N as u64)?;
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes).map_err(|source| GgufError::Read { what: what.to_owned(), source })?;
        Ok(bytes)
    }

    fn skip(&mut self, what: &str, bytes: u64) -> Result<(), GgufError> {
        self.claim(what, bytes)?;
        let distance = i64::try_from(bytes).unwrap_or(i64::MAX);
        self.reader
            .seek(SeekFrom::Current(distance))
            .map(|_| ())
            .map_err(|source| GgufError::Read { what: what.to_owned(), source })
    }

    fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    fn count(&mut self, what: &str, limit: u64) -> Result<u64, GgufError> {
        let found = self.u64(what)?;
        if found > limit {
            return Err(GgufError::Absurd { what: what.to_owned(), found, limit });
        }
        Ok(found)
    }

    /// A string of at most `limit` bytes. The claim comes first, so a length beyond the file allocates nothing.
    fn string(&mut self, what: &str, limit: u64) -> Result<String, GgufError> {
        let length = self.count(&format!("the length of {what}"), limit)?;
        self.claim(what, length)?;
        let size =
            usize::try_from(length).map_err(|_| GgufError::Absurd { what: what.to_owned(), found: length, limit })?;
        let mut bytes = vec![0; size];
        self.reader.read_exact(&mut bytes).map_err(|source| GgufError::Read { what: what.to_owned(), source })?;
        String::from_utf8(bytes).map_err(|_| bad_value(what, "is not UTF-8"))
    }

    fn value(&mut self, key: &str) -> Result<Value, GgufError> {
        let what = format!("the value of {key}");
        let kind = self.u32(&what)?;
        if let Some(value) = self.scalar(kind, &what)? {
            return Ok(value);
        }
        match kind {
            8 => self.string(key, MAX_HEADER_BYTES).map(Value::String),
            9 => self.list(key),
            _ => Err(bad_value(key, format!("has a value of the unknown type {kind}"))),
        }
    }

    fn scalar(&mut self, kind: u32, what: &str) -> Result<Option<Value>, GgufError> {
        Ok(Some(match kind {
            0 => Value::Unsigned(u8::from_le_bytes(self.array(what)?).into()),
            1 => Value::Signed(i8::from_le_bytes(self.array(what)?).into()),
            2 => Value::Unsigned(u16::from_le_bytes(self.array(what)?).into()),
            3 => Value::Signed(i16::from_le_bytes(self.array(what)?).into()),
            4 => Value::Unsigned(self.u32(what)?.into()),
            5 => Value::Signed(i32::from_le_bytes(self.array(what)?).into()),
            6 => Value::Float32(f32::from_le_bytes(self.array(what)?)),
            7 => Value::Bool(self.array::<1>(what)? != [0]),
            10 => Value::Unsigned(self.u64(what)?),
            11 => Value::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => Value::Float64(f64::from_le_bytes(self.array(what)?)),
            _ => return Ok(None),
        }))
    }

    fn list(&mut self, key: &str) -> Result<Value, GgufError> {
        let what = format!("the list {key}");
        let kind = self.u32(&what)?;
        let length = self.count(&format!("the length of {key}"), MAX_HEADER_BYTES)?;
        // Bytes that each element takes at least: a string is at least its length.
        let width: u64 = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            8 | 10..=12 => 8,
            9 => return Err(bad_value(key, "is a list of lists, which is not supported")),
            _ => return Err(bad_value(key, format!("is a list of the unknown type {kind}"))),
        };
        let needed = length.saturating_mul(width);
        if needed > self.left {
            return Err(GgufError::Truncated { what, needed, left: self.left });
        }
        Ok(match kind {
            5 => Value::Integers(self.elements(length, |input| input.array(&what).map(i32::from_le_bytes))?),
            6 => Value::Floats(self.elements(length, |input| input.array(&what).map(f32::from_le_bytes))?),
            8 => Value::Strings(self.elements(length, |input| input.string(key, MAX_HEADER_BYTES))?),
            _ => {
                self.skip(&what, needed)?;
                Value::Other
            }
        })
    }

    fn elements<T>(
        &mut self,
        length: u64,
        mut read: impl FnMut(&mut Self) -> Result<T, GgufError>,
    ) -> Result<Vec<T>, GgufError> {
        // Grows with what was really read.
        let mut values = Vec::new();
        for _ in 0..length {
            values.push(read(self)?);
        }
        Ok(values)
    }

    fn tensor(&mut self, index: u64) -> Result<(String, Quantization, Vec<usize>, u64), GgufError> {
        let name = self.string(&format!("the name of tensor {index}"), MAX_NAME_BYTES)?;
        let what = format!("the description of tensor {name}");
        let dimensions = self.u32(&what)?;
        if dimensions == 0 || dimensions > MAX_DIMENSIONS {
            return Err(bad_tensor(name, format!("has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let size = self.u64(&what)?;
            match usize::try_from(size) {
                Ok(size) if size > 0 => shape.push(size),
                _ => return Err(bad_tensor(name, format!("has a dimension of {size}"))),
            }
        }
        shape.reverse();
        let code = self.u32(&what)?;
        let quantization = Quantization::from_code(code).ok_or_else(|| {
            let (found, known) = (Quantization::describe(code), Quantization::SUPPORTED);
            bad_tensor(name.clone(), format!("is stored as {found}, which cannot be imported ({known} can)"))
        })?;
        let offset = self.u64(&what)?;
        Ok((name, quantization, shape, offset))
    }
}
