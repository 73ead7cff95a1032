//! The decoder: Llama 2 and 3, Mistral, Qwen2, Qwen3 and SmolLM2, from one definition of a block.
//!
//! Pre-norm blocks of grouped-query attention and SwiGLU as in `transformers/models/llama/modeling_llama.py`; the
//! families differ in biases, norms of heads, rotation and windows, all of which [`Config`] spells out.

pub(crate) mod block;
mod cache;
pub mod device;
pub(crate) mod pack;
pub(crate) mod rope;
mod rows;
pub(crate) mod weight;

use candle_core::{Device, Tensor};
use thiserror::Error;

use self::{
    block::{BlockOf, Shape, normalise, project, read},
    rows::StreamRows,
    weight::Weight,
};
pub use self::{cache::KvCache, pack::Pack};
use crate::{
    Checkpoint, Config,
    checkpoint::CheckpointError,
    gguf::{GgufError, GgufWeights},
    kernel::{
        View, Weights,
        attention::{Visible, attend},
        rows::{Rotation, log_softmax},
    },
};

/// Rows whose logits are held at one time.
pub(crate) const LOGIT_ROWS: usize = 64;
/// Rows of a batch that [`Decoder::next_token_logits`] computes at one time, which bounds its memory.
const PACK_ROWS: usize = 1024;

/// Why a decoder could not be made or run.
#[derive(Debug, Error)]
pub enum DecoderError {
    #[error("a tensor operation failed")]
    Tensor(#[from] candle_core::Error),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    #[error(transparent)]
    Gguf(Box<GgufError>),
    #[error("quantized weights cannot be trained; import the GGUF file with --dtype bf16, which training takes")]
    Quantized,
    #[error("token {id} is outside of the model's vocabulary of {vocabulary}")]
    UnknownToken { id: u32, vocabulary: usize },
    #[error("a sequence of {tokens} tokens does not fit; at most {limit} do")]
    TooLong { tokens: usize, limit: usize },
    #[error("nothing to compute: a sequence has no tokens")]
    Empty,
}

impl From<GgufError> for DecoderError {
    fn from(error: GgufError) -> Self {
        Self::Gguf(Box::new(error))
    }
}

/// Tokens that one stream adds to its cache in a forward pass.
#[derive(Debug)]
pub struct Stream<'a, C = KvCache> {
    /// New tokens, at least one.
    pub tokens: &'a [u32],
    /// What came before; receives the new tokens.
    pub cache: &'a mut C,
}

/// Weights of a decoder, ready to run. Computes in f32; matrices that are stored in bf16 or quantized stay so in memory.
#[derive(Debug)]
pub struct Decoder {
    config: Config,
    pub(crate) shape: Shape,
    pub(crate) embedding: Weight,
    pub(crate) blocks: Vec<BlockOf<Weight>>,
    pub(crate) final_norm: Weight,
    /// Absent where the embedding serves as the output projection.
    pub(crate) head: Option<Weight>,
    frequencies: Vec<f32>,
}

impl Decoder {
    /// Reads all weights of a checkpoint.
    pub fn load(checkpoint: &Checkpoint) -> Result<Self, DecoderError> {
        let read = |name: &str| Ok(Weight::Plain(read(checkpoint, name)?));
        Self::of(checkpoint.config(), |name| checkpoint.contains(name), read)
    }

    /// Reads all weights of a GGUF file; its matrices stay as they are.
    pub fn load_gguf(weights: &GgufWeights) -> Result<Self, DecoderError> {
        Self::of(weights.config(), |name| weights.contains(name), |name| Ok(weights.read(name)?))
    }

    fn of(
        config: &Config,
        contains: impl Fn(&str) -> bool,
        read: impl Fn(&str) -> Result<Weight, DecoderError>,
    ) -> Result<Self, DecoderError> {
        let blocks = (0..config.layers).map(|layer| BlockOf::of(layer, &contains, &read)).collect::<Result<_, _>>()?;
        Ok(Self {
            shape: Shape::of(config),
            embedding: read("model.embed_tokens.weight")?,
            blocks,
            final_norm: read("model.norm.weight")?,
            head: (!config.tie_word_embeddings).then(|| read("lm_head.weight")).transpose()?,
            frequencies: rope::frequencies(&config.rope, config.head_dim),
            config: config.clone(),
        })
    }

    /// Shape and settings of the model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// An empty cache for a stream of at most `capacity` tokens.
    pub fn new_cache(&self, capacity: usize) -> Result<KvCache, DecoderError> {
        if capacity > self.config.max_positions {
            return Err(DecoderError::TooLong { tokens: capacity, limit: self.config.max_positions });
        }
        Ok(KvCache::new(self.config.layers, self.shape.heads, capacity)?)
    }

    /// One forward pass over several streams, each adding its tokens to its own cache.
    ///
    /// Returns logits (streams, vocabulary) at each stream's last token. A stream's logits do not depend, bit for bit,
    /// on the other streams, nor on whether its tokens came in one piece or in several.
    pub fn forward(&self, streams: &mut [Stream<'_>]) -> Result<Tensor, DecoderError> {
        let held = |stream: &Stream<'_>| (stream.cache.len(), stream.cache.capacity());
        let StreamRows { ids, positions, owner, last } = StreamRows::of(streams, held)?;
        let rotation = self.rotation(positions.iter().copied());
        let mut x = self.embed(&ids)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let queries = (layer + 1 == self.blocks.len() && last.len() < ids.len()).then_some(last.as_slice());
            x = block.forward(
                &self.shape,
                &x,
                queries,
                &rotation,
                |query, key_value| self.attend_cached(streams, layer, query, &key_value, queries, &positions, &owner),
                None,
            )?;
        }
        for stream in streams {
            stream.cache.advance(stream.tokens.len());
        }
        Ok(self.logits(&normalise(&x, &self.final_norm, self.shape.epsilon)?)?)
    }

    #[expect(clippy::too_many_arguments, reason = "one call, from the closure above; a struct would only rename them")]
    fn attend_cached(
        &self,
        streams: &mut [Stream<'_>],
        layer: usize,
        query: &Tensor,
        key_value: &Tensor,
        queries: Option<&[usize]>,
        positions: &[usize],
        owner: &[usize],
    ) -> candle_core::Result<Tensor> {
        let mut first = 0;
        for stream in streams.iter_mut() {
            let rows = key_value.narrow(0, first, stream.tokens.len())?.contiguous()?;
            stream.cache.write(layer, &rows)?;
            first += stream.tokens.len();
        }
        let caches = streams.iter().map(|stream| View::of(stream.cache.layer(layer))).collect::<Result<Vec<_>, _>>()?;
        let caches = caches.iter().map(View::f32).collect::<Result<Vec<_>, _>>()?;
        let window = self.config.sliding_window[layer];
        let width = self.shape.heads.key_value_width();
        let view = View::of(query)?;
        let out = attend(view.f32()?, self.shape.heads, |index| {
            let row = queries.map_or(index, |rows| rows[index]);
            let end = positions[row] + 1;
            let start = window.map_or(0, |window| end.saturating_sub(window));
            Visible { runs: [&[], &caches[owner[row]][start * width..end * width]] }
        });
        Tensor::from_vec(out, query.shape(), query.device())
    }

    /// Logits (segments, vocabulary) at the last token of every segment, each of which sees `prefix` and itself.
    pub fn next_token_logits(&self, prefix: &[u32], segments: &[Vec<u32>]) -> Result<Tensor, DecoderError> {
        let mut parts = Vec::new();
        let mut rest = segments;
        while !rest.is_empty() {
            let mut rows = prefix.len();
            let count = rest.iter().take_while(|segment| {
                rows += segment.len();
                rows <= PACK_ROWS
            });
            let (now, later) = rest.split_at(count.count().max(1));
            rest = later;
            let mut pack = Pack::new();
            let answers = pack.push(prefix, now.iter().map(Vec::as_slice));
            if answers.iter().any(|rows| rows.is_empty()) {
                return Err(DecoderError::Empty);
            }
            let answers: Vec<usize> = answers.iter().map(|rows| rows.end - 1).collect();
            parts.push(self.logits(&self.hidden(&pack, &answers)?)?);
        }
        if parts.is_empty() {
            return Err(DecoderError::Empty);
        }
        Ok(Tensor::cat(&parts, 0)?)
    }

    /// Negative log-likelihood in nats of every token but the first, given those before it.
    pub fn token_losses(&self, ids: &[u32]) -> Result<Vec<f32>, DecoderError> {
        if ids.len() < 2 {
            return Err(DecoderError::Empty);
        }
        let mut pack = Pack::new();
        pack.push(&[], [ids]);
        let rows: Vec<usize> = (0..ids.len() - 1).collect();
        let hidden = self.hidden(&pack, &rows)?;
        let mut losses = Vec::with_capacity(rows.len());
        for chunk in rows.chunks(LOGIT_ROWS) {
            let logits = self.logits(&hidden.narrow(0, chunk[0], chunk.len())?.contiguous()?)?;
            for (row, mut logits) in chunk.iter().zip(logits.to_vec2::<f32>()?) {
                log_softmax(&mut logits);
                losses.push(-logits[ids[row + 1] as usize]);
            }
        }
        Ok(losses)
    }

    /// Normalised hidden states (rows, hidden) of the batch at `rows`.
    fn hidden(&self, pack: &Pack, rows: &[usize]) -> Result<Tensor, DecoderError> {
        let x = self.run(pack, self.embed_checked(pack)?, 0..self.blocks.len() - 1)?;
        let last = self.blocks.len() - 1;
        let x = self.blocks[last].forward(
            &self.shape,
            &x,
            Some(rows),
            &self.rotation(pack.positions().iter().copied()),
            |query, key_value| {
                pack.attend(query, &key_value, Some(rows), self.shape.heads, self.config.sliding_window[last])
            },
            None,
        )?;
        Ok(normalise(&x, &self.final_norm, self.shape.epsilon)?)
    }

    /// Runs `x` (rows, hidden) through blocks of the decoder.
    pub(crate) fn run(
        &self,
        pack: &Pack,
        mut x: Tensor,
        blocks: std::ops::Range<usize>,
    ) -> Result<Tensor, DecoderError> {
        let rotation = self.rotation(pack.positions().iter().copied());
        for layer in blocks {
            let window = self.config.sliding_window[layer];
            x = self.blocks[layer].forward(
                &self.shape,
                &x,
                None,
                &rotation,
                |query, key_value| pack.attend(query, &key_value, None, self.shape.heads, window),
                None,
            )?;
        }
        Ok(x)
    }

    /// Embeddings of a batch whose sequences fit into the model.
    pub(crate) fn embed_checked(&self, pack: &Pack) -> Result<Tensor, DecoderError> {
        match pack.positions().iter().max() {
            None => return Err(DecoderError::Empty),
            Some(last) if *last >= self.config.max_positions => {
                return Err(DecoderError::TooLong { tokens: last + 1, limit: self.config.max_positions });
            }
            Some(_) => {}
        }
        self.embed(pack.ids())
    }

    fn embed(&self, ids: &[u32]) -> Result<Tensor, DecoderError> {
        let (vocabulary, width) = (self.config.vocab_size, self.shape.hidden);
        let view = View::of(&self.embedding)?;
        let table = view.weights()?;
        let mut rows = vec![0.0; ids.len() * width];
        for (row, id) in rows.chunks_exact_mut(width).zip(ids) {
            let at = *id as usize * width;
            if *id as usize >= vocabulary {
                return Err(DecoderError::UnknownToken { id: *id, vocabulary });
            }
            if let Weights::F32(values) = table.slice(at..at + width) {
                row.copy_from_slice(values);
            } else {
                table.slice(at..at + width).widened(row);
            }
        }
        Ok(Tensor::from_vec(rows, (ids.len(), width), &Device::Cpu)?)
    }

    pub(crate) fn rotation(&self, positions: impl Iterator<Item = usize>) -> Rotation {
        rope::rotation(&self.frequencies, positions)
    }

    /// Logits (rows, vocabulary) of normalised hidden states (rows, hidden).
    pub(crate) fn logits(&self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        project(hidden, self.head.as_ref().unwrap_or(&self.embedding), None)
    }
}
