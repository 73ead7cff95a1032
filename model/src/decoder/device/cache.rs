//! Keys and values of one stream in the memory of a device.

use candle_core::{DType, Device, Result, Tensor};

use crate::kernel::attention::Heads;

/// Attention reads whole tiles of so many positions.
pub(super) const KEY_TILE: usize = 64;

/// Keys and values of a stream's tokens so far, in f32. Takes memory for `capacity` tokens, rounded up to a multiple of 64.
#[derive(Debug)]
pub struct DeviceCache {
    layers: Vec<LayerCache>,
    len: usize,
    capacity: usize,
}

/// Those of one block, each (keys, positions, dim). Behind the last position that was written, the rest of its tile is
/// zeros: what an earlier stream left is never read, not even to be masked.
#[derive(Debug)]
pub(super) struct LayerCache {
    pub(super) keys: Tensor,
    pub(super) values: Tensor,
}

impl DeviceCache {
    pub(super) fn new(layers: usize, heads: Heads, capacity: usize, device: &Device) -> Result<Self> {
        let zeros = || Tensor::zeros((heads.keys, capacity.next_multiple_of(KEY_TILE), heads.dim), DType::F32, device);
        let layers = (0..layers).map(|_| Ok(LayerCache { keys: zeros()?, values: zeros()? }));
        Ok(Self { layers: layers.collect::<Result<_>>()?, len: 0, capacity })
    }

    /// Tokens held.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no token is held.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Tokens that it can hold.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Forgets everything; the memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Takes over the first `tokens` tokens of another stream of the same model, in place of what was held, as
    /// [`KvCache::copy_prefix`](crate::KvCache::copy_prefix) does.
    ///
    /// # Errors
    /// When the other stream has fewer tokens, fewer fit, or the device fails; the cache is then empty.
    pub fn copy_prefix(&mut self, other: &Self, tokens: usize) -> Result<()> {
        self.len = 0;
        if tokens > other.len || tokens > self.capacity {
            candle_core::bail!("no prefix of {tokens} tokens: {} are held, {} fit", other.len, self.capacity);
        }
        if tokens > 0 {
            for (to, from) in self.layers.iter().zip(&other.layers) {
                put(&to.keys, &from.keys.narrow(1, 0, tokens)?, 0)?;
                put(&to.values, &from.values.narrow(1, 0, tokens)?, 0)?;
            }
        }
        self.len = tokens;
        Ok(())
    }

    pub(super) fn layer(&self, layer: usize) -> &LayerCache {
        &self.layers[layer]
    }

    /// Writes `keys` and `values` (positions, keys, dim) of one block behind those held; they count once every block has
    /// them ([`Self::advance`]).
    pub(super) fn write(&mut self, layer: usize, keys: &Tensor, values: &Tensor) -> Result<()> {
        let layer = &self.layers[layer];
        put(&layer.keys, &keys.transpose(0, 1)?, self.len)?;
        put(&layer.values, &values.transpose(0, 1)?, self.len)
    }

    pub(super) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}

/// Writes `rows` (keys, positions, dim) from position `first` on, and zeros up to the end of the last one's tile.
fn put(to: &Tensor, rows: &Tensor, first: usize) -> Result<()> {
    let end = first + rows.dim(1)?;
    let rows = rows.contiguous()?.pad_with_zeros(1, 0, end.next_multiple_of(KEY_TILE) - end)?;
    to.slice_set(&rows.contiguous()?, 1, first)
}
