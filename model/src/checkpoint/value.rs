//! Between the bytes of a file and tensors.

use candle_core::{DType, Device, Shape, Tensor, WithDType};
use half::{bf16, f16};
use safetensors::Dtype;

use super::{CheckpointError, Entry, Shard};

/// The type of a weight; others (integers, f8, f64) are refused.
pub(super) fn dtype(shard: &Shard, entry: &Entry) -> Result<DType, CheckpointError> {
    match entry.dtype {
        Dtype::F32 => Ok(DType::F32),
        Dtype::F16 => Ok(DType::F16),
        Dtype::BF16 => Ok(DType::BF16),
        other => Err(CheckpointError::UnsupportedDtype {
            file: shard.file.clone(),
            tensor: entry.name.clone(),
            dtype: other.to_string(),
        }),
    }
}

pub(super) fn read(shard: &Shard, entry: &Entry, device: &Device) -> Result<Tensor, CheckpointError> {
    match dtype(shard, entry)? {
        DType::BF16 => tensor(shard, entry, device, bf16::from_le_bytes, bf16::to_f32),
        DType::F16 => tensor(shard, entry, device, f16::from_le_bytes, f16::to_f32),
        _ => tensor(shard, entry, device, f32::from_le_bytes, |value| value),
    }
}

pub(super) fn read_f32(shard: &Shard, entry: &Entry, device: &Device) -> Result<Tensor, CheckpointError> {
    match dtype(shard, entry)? {
        DType::BF16 => {
            tensor(shard, entry, device, |bytes: [u8; 2]| bf16::from_le_bytes(bytes).to_f32(), |value| value)
        }
        DType::F16 => tensor(shard, entry, device, |bytes: [u8; 2]| f16::from_le_bytes(bytes).to_f32(), |value| value),
        _ => tensor(shard, entry, device, f32::from_le_bytes, |value| value),
    }
}

fn tensor<const BYTES: usize, T: WithDType>(
    shard: &Shard,
    entry: &Entry,
    device: &Device,
    from_bytes: impl Fn([u8; BYTES]) -> T,
    widen: impl Fn(T) -> f32,
) -> Result<Tensor, CheckpointError> {
    let bytes = shard.bytes(entry)?;
    let (chunks, _) = bytes.as_chunks::<BYTES>();
    let values: Vec<T> = chunks.iter().map(|&chunk| from_bytes(chunk)).collect();
    // Without an early exit the loop vectorises; the position is only looked for when it is needed.
    if values.iter().fold(false, |bad, &value| bad | !widen(value).is_finite()) {
        let element = values.iter().position(|&value| !widen(value).is_finite()).unwrap_or_default();
        return Err(CheckpointError::NotFinite {
            file: shard.file.clone(),
            tensor: entry.name.clone(),
            element,
            value: widen(values[element]),
        });
    }
    Tensor::from_vec(values, Shape::from(entry.shape.as_slice()), device)
        .map_err(|source| CheckpointError::Convert { tensor: entry.name.clone(), source })
}

/// Elements that are rounded at a time: a large matrix must not be in memory three times.
const BLOCK_ELEMENTS: usize = 1 << 18;

/// Hands the bytes of a replacement to `write`, block by block, in the type of the file and rounded to nearest even.
pub(super) fn encode(
    shard: &Shard,
    entry: &Entry,
    replacement: &Tensor,
    mut write: impl FnMut(&[u8]) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    let dtype = dtype(shard, entry)?;
    let failed = |source| CheckpointError::Convert { tensor: entry.name.clone(), source };
    let flat = replacement.flatten_all().map_err(failed)?;
    let elements = flat.elem_count();
    for start in (0..elements).step_by(BLOCK_ELEMENTS) {
        let values = flat
            .narrow(0, start, BLOCK_ELEMENTS.min(elements - start))
            .and_then(|block| block.to_dtype(DType::F32))
            .and_then(|block| block.to_vec1::<f32>())
            .map_err(failed)?;
        if let Some(index) = values.iter().position(|&value| !round(dtype, value).is_finite()) {
            return Err(CheckpointError::ReplacedNotFinite {
                tensor: entry.name.clone(),
                element: start + index,
                value: values[index],
                dtype,
            });
        }
        let bytes: Vec<u8> = match dtype {
            DType::BF16 => values.iter().flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
            DType::F16 => values.iter().flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        write(&bytes)?;
    }
    Ok(())
}

/// What a value becomes in a file of this type; rounding may overflow to infinity.
fn round(dtype: DType, value: f32) -> f32 {
    match dtype {
        DType::BF16 => bf16::from_f32(value).to_f32(),
        DType::F16 => f16::from_f32(value).to_f32(),
        _ => value,
    }
}
