//! Keys and values of one stream.

use candle_core::{DType, Device, Result, Tensor};

use crate::kernel::attention::Heads;

/// Keys and values of a stream's tokens so far, one preallocated tensor (capacity, 2 · keys · dim) for each block.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<Tensor>,
    len: usize,
    capacity: usize,
}

impl KvCache {
    pub(crate) fn new(layers: usize, heads: Heads, capacity: usize) -> Result<Self> {
        let layers = (0..layers)
            .map(|_| Tensor::zeros((capacity, heads.key_value_width()), DType::F32, &Device::Cpu))
            .collect::<Result<_>>()?;
        Ok(Self { layers, len: 0, capacity })
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

    /// Forgets all tokens from position `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Forgets everything; the memory stays.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// A copy with memory of its own, so that many streams can begin behind one prefix that was computed once.
    pub fn fork(&self) -> Result<Self> {
        let layers = self.layers.iter().map(Tensor::copy).collect::<Result<_>>()?;
        Ok(Self { layers, len: self.len, capacity: self.capacity })
    }

    /// Takes over the first `tokens` tokens of another stream of the same model, in place of what was held. A stream
    /// that begins with the same tokens goes on from there as if it had computed them: a position depends on nothing
    /// behind it, and not on how it was computed.
    pub fn copy_prefix(&mut self, other: &Self, tokens: usize) -> Result<()> {
        if tokens > other.len || tokens > self.capacity {
            candle_core::bail!("no prefix of {tokens} tokens: {} are held, {} fit", other.len, self.capacity);
        }
        self.len = 0;
        if tokens > 0 {
            for (to, from) in self.layers.iter().zip(&other.layers) {
                to.slice_set(&from.narrow(0, 0, tokens)?, 0, 0)?;
            }
        }
        self.len = tokens;
        Ok(())
    }

    pub(crate) fn layer(&self, layer: usize) -> &Tensor {
        &self.layers[layer]
    }

    /// Writes rows of one block behind those held; they count once every block has them ([`Self::advance`]).
    pub(crate) fn write(&mut self, layer: usize, rows: &Tensor) -> Result<()> {
        self.layers[layer].slice_set(rows, 0, self.len)
    }

    pub(crate) fn advance(&mut self, tokens: usize) {
        self.len += tokens;
    }
}
