//! The decoder in tensor operations of candle, for devices that candle drives: NVIDIA GPUs.
//!
//! The same mathematics as [`Decoder`](super::Decoder), which has kernels of its own and runs on the CPU alone. A library
//! of matrix products chooses how it sums by the shapes it is given, so here no shape depends on who else is in the
//! batch: projections run in tiles of a fixed number of rows ([`product`]), attention in tiles at fixed positions of its
//! own stream ([`attention`]), and everything else is row by row.

mod attention;
mod cache;
mod choice;
mod product;

use candle_core::{D, DType, Device, Result as TensorResult, Tensor};

use self::{
    attention::{Attention, Masks},
    product::{product, widened_product},
};
pub use self::{
    cache::DeviceCache,
    choice::{ComputeDevice, DeviceError, NoSuchDevice},
};
use super::{
    DecoderError, Stream,
    block::{self, BlockOf, Shape},
    rope,
    rows::StreamRows,
};
use crate::{Config, WeightFiles};

/// How matrices lie in the device's memory, and what is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// As on the CPU: nothing is rounded.
    F32,
    /// Matrices, and the rows that they multiply, are rounded to bf16, and so are the products. Sums inside a product,
    /// the residual stream, norms, attention and logits stay in f32.
    Bf16,
}

impl Precision {
    /// That of the files: bf16 for bf16, f32 for what bf16 would round. What a GGUF file quantizes is widened to bf16.
    pub fn of(weights: &WeightFiles) -> Self {
        match weights {
            WeightFiles::Safetensors(checkpoint) if checkpoint.dtype() != DType::BF16 => Self::F32,
            WeightFiles::Safetensors(_) | WeightFiles::Gguf(_) => Self::Bf16,
        }
    }

    fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }
}

/// Weights of a decoder in the memory of a device, ready to run there.
#[derive(Debug)]
pub struct DeviceDecoder {
    config: Config,
    shape: Shape,
    device: Device,
    class: String,
    embedding: Tensor,
    blocks: Vec<BlockOf<Tensor>>,
    final_norm: Tensor,
    /// Absent where the embedding serves as the output projection.
    head: Option<Tensor>,
    frequencies: Vec<f32>,
}

/// What all blocks of a forward pass share.
struct Pass {
    /// Angles (rows, 1, dim / 2) of every row.
    cosines: Tensor,
    sines: Tensor,
    /// Index of every stream's last row.
    last: Tensor,
    masks: Masks,
}

impl DeviceDecoder {
    /// Reads all weights into the memory of a device.
    ///
    /// # Errors
    /// When a tensor cannot be read, holds a value that is no number, or does not fit into the device's memory.
    pub fn load(weights: &WeightFiles, device: &Device, precision: Precision) -> Result<Self, DecoderError> {
        let config = weights.config();
        let there = |tensor: &Tensor| tensor.to_device(device);
        let read = |name: &str| read(weights, name, precision);
        let block = |layer| -> Result<_, DecoderError> {
            // A block at a time, so that main memory never holds the model.
            let block = BlockOf::of(layer, |name| weights.contains(name), read)?;
            Ok(block.try_map(there)?)
        };
        Ok(Self {
            shape: Shape::of(config),
            class: choice::class(device, precision.name())?,
            embedding: there(&read("model.embed_tokens.weight")?)?,
            blocks: (0..config.layers).map(block).collect::<Result<_, _>>()?,
            final_norm: there(&read("model.norm.weight")?)?,
            head: (!config.tie_word_embeddings)
                .then(|| Ok::<_, DecoderError>(there(&read("lm_head.weight")?)?))
                .transpose()?,
            frequencies: rope::frequencies(&config.rope, config.head_dim),
            device: device.clone(),
            config: config.clone(),
        })
    }

    /// Shape and settings of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What gives the same bits: the kind of device, the precision and the model of a GPU, as
    /// `cuda bf16 NVIDIA H100 PCIe`.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// An empty cache for a stream of at most `capacity` tokens.
    ///
    /// # Errors
    /// When the model reads no texts of that length, or the device has no memory left.
    pub fn new_cache(&self, capacity: usize) -> Result<DeviceCache, DecoderError> {
        if capacity > self.config.max_positions {
            return Err(DecoderError::TooLong { tokens: capacity, limit: self.config.max_positions });
        }
        Ok(DeviceCache::new(self.config.layers, self.shape.heads, capacity, &self.device)?)
    }

    /// One forward pass over several streams, each adding its tokens to its own cache.
    ///
    /// Returns logits (streams, vocabulary) at each stream's last token, in f32 and on the device. The shapes in which a
    /// stream is computed depend neither on the other streams, nor on whether its tokens came in one piece or in several.
    ///
    /// # Errors
    /// When a stream adds nothing, an id that the vocabulary lacks, or more than its cache holds; or the device fails.
    /// The caches are then not to be used again.
    pub fn forward(&self, streams: &mut [Stream<'_, DeviceCache>]) -> Result<Tensor, DecoderError> {
        let held = |stream: &Stream<'_, DeviceCache>| (stream.cache.len(), stream.cache.capacity());
        let rows = StreamRows::of(streams, held)?;
        let mut pass = self.pass(&rows)?;
        let mut x = self.embed(&rows.ids)?;
        for layer in 0..self.blocks.len() {
            x = self.run_block(layer, &x, &mut pass, streams)?;
        }
        for stream in streams {
            stream.cache.advance(stream.tokens.len());
        }
        let hidden = normalise(&x, &self.final_norm, self.shape.epsilon)?;
        // Not rounded even in bf16: near ties would become ties.
        Ok(widened_product(&hidden, self.head.as_ref().unwrap_or(&self.embedding))?)
    }

    fn pass(&self, rows: &StreamRows) -> TensorResult<Pass> {
        let angles = rope::rotation(&self.frequencies, rows.positions.iter().copied());
        let shape = (rows.positions.len(), 1, self.frequencies.len());
        let last = rows.last.iter().map(|row| u32::try_from(*row).map_err(candle_core::Error::wrap));
        Ok(Pass {
            cosines: Tensor::from_vec(angles.cosines, shape, &self.device)?,
            sines: Tensor::from_vec(angles.sines, shape, &self.device)?,
            last: Tensor::from_vec(last.collect::<TensorResult<Vec<u32>>>()?, rows.last.len(), &self.device)?,
            masks: Masks::new(&self.device),
        })
    }

    /// Embeddings (rows, hidden).
    fn embed(&self, ids: &[u32]) -> Result<Tensor, DecoderError> {
        let vocabulary = self.config.vocab_size;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocabulary) {
            return Err(DecoderError::UnknownToken { id: *id, vocabulary });
        }
        let ids = Tensor::new(ids, &self.device)?;
        Ok(self.embedding.index_select(&ids, 0)?.to_dtype(DType::F32)?)
    }

    /// One block on rows `x` (rows, hidden). The last block answers for the last row of every stream alone: (streams,
    /// hidden).
    fn run_block(
        &self,
        layer: usize,
        x: &Tensor,
        pass: &mut Pass,
        streams: &mut [Stream<'_, DeviceCache>],
    ) -> TensorResult<Tensor> {
        let (block, heads, epsilon) = (&self.blocks[layer], self.shape.heads, self.shape.epsilon);
        let Pass { cosines, sines, last, masks } = pass;
        let only_last = layer + 1 == self.blocks.len();
        let select = |x: &Tensor| if only_last { x.index_select(last, 0) } else { Ok(x.clone()) };

        let normed = normalise(x, &block.attention_norm, epsilon)?;
        let query = product(&select(&normed)?, &block.query, block.query_bias.as_ref())?;
        let key_value = product(&normed, &block.key_value, block.key_value_bias.as_ref())?;
        let width = heads.keys * heads.dim;
        let query = self.place(&query, block.query_norm.as_ref(), &select(cosines)?, &select(sines)?)?;
        let keys = self.place(&key_value.narrow(1, 0, width)?, block.key_norm.as_ref(), cosines, sines)?;
        let values = key_value.narrow(1, width, width)?.reshape(((), heads.keys, heads.dim))?;

        let attention = Attention { heads, window: self.config.sliding_window[layer] };
        let mut found = Vec::with_capacity(streams.len());
        let (mut row, mut asked) = (0, 0);
        for stream in streams {
            let (held, new) = (stream.cache.len(), stream.tokens.len());
            stream.cache.write(layer, &keys.narrow(0, row, new)?, &values.narrow(0, row, new)?)?;
            let positions = if only_last { held + new - 1..held + new } else { held..held + new };
            let query = query.narrow(0, asked, positions.len())?;
            row += new;
            asked += positions.len();
            found.push(attention.attend(&query, positions, stream.cache.layer(layer), masks)?);
        }
        let attended = Tensor::cat(&found, 0)?;

        let middle = (select(x)? + product(&attended, &block.output, block.output_bias.as_ref())?)?;
        let normed = normalise(&middle, &block.mlp_norm, epsilon)?;
        let gate_up = product(&normed, &block.gate_up, block.gate_up_bias.as_ref())?;
        let gate = gate_up.narrow(1, 0, self.shape.intermediate)?;
        let up = gate_up.narrow(1, self.shape.intermediate, self.shape.intermediate)?;
        let active = (gate.silu()? * up)?;
        middle + product(&active, &block.down, block.down_bias.as_ref())?
    }

    /// Norm (if the family has it) and rotation of heads: (rows, heads · dim) to (rows, heads, dim).
    fn place(&self, x: &Tensor, norm: Option<&Tensor>, cosines: &Tensor, sines: &Tensor) -> TensorResult<Tensor> {
        let dim = self.shape.heads.dim;
        let x = x.reshape((x.dim(0)?, x.dim(1)? / dim, dim))?;
        let x = norm.map_or(Ok(x.clone()), |norm| normalise(&x, norm, self.shape.epsilon))?;
        let (first, second) = (x.narrow(2, 0, dim / 2)?, x.narrow(2, dim / 2, dim / 2)?);
        let turned_first = (first.broadcast_mul(cosines)? - second.broadcast_mul(sines)?)?;
        let turned_second = (second.broadcast_mul(cosines)? + first.broadcast_mul(sines)?)?;
        Tensor::cat(&[turned_first, turned_second], 2)
    }
}

/// One parameter, in main memory: a matrix in the precision's type, a vector in f32.
fn read(weights: &WeightFiles, name: &str, precision: Precision) -> Result<Tensor, DecoderError> {
    let tensor = match weights {
        WeightFiles::Safetensors(checkpoint) => block::read(checkpoint, name)?,
        WeightFiles::Gguf(weights) => weights.read(name)?.widened()?,
    };
    Ok(tensor.to_dtype(if tensor.rank() == 2 { precision.dtype() } else { DType::F32 })?)
}

/// RMS norm over the last dimension.
fn normalise(x: &Tensor, weight: &Tensor, epsilon: f32) -> TensorResult<Tensor> {
    let mean_square = x.sqr()?.mean_keepdim(D::Minus1)?;
    x.broadcast_div(&(mean_square + f64::from(epsilon))?.sqrt()?)?.broadcast_mul(weight)
}
