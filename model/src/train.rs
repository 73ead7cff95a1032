//! Fine-tuning: any run of top blocks, or everything, or thin updates to be merged (LoRA).
//!
//! The base model stays as it was loaded. What is trained has a master copy in f32; a step evaluates the loss at
//! weights made from the masters ([`Trainer::effective`]), adds up gradients ([`Trainer::accumulate`]) and moves the
//! masters ([`Trainer::step`]). Losses are asked for at chosen rows only, a few rows at a time: no tensor of
//! (batch × sequence × vocabulary) exists at any moment.

mod backward;
mod parameter;
mod state;

use std::{collections::BTreeMap, ops::Range};

use candle_core::{DType, Device, Tensor};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

pub use self::parameter::AdamW;
use self::parameter::{Parameter, Trained};
use crate::{
    checkpoint::CheckpointError,
    decoder::{
        Decoder, DecoderError, LOGIT_ROWS, Pack,
        block::{Block, BlockOf, Tape, normalise, project},
        weight::Weight,
    },
    kernel::{
        View,
        product::{add_gradient_of_weight, gradient_of_input},
        rows::add_rms_norm_gradient,
    },
};

pub use crate::kernel::rows::{log_softmax, scaled_exp, softmax};

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// What is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct Scope {
    /// Blocks from this one to the top.
    pub first_block: usize,
    /// Also the embedding, the output projection and the final norm; wants `first_block` 0.
    pub embeddings: bool,
    /// Thin updates of this rank to the blocks' matrices instead of the matrices themselves; norms stay frozen then.
    pub low_rank: Option<LowRank>,
}

/// A LoRA (arXiv 2106.09685): the update is `scale · up · down`, `up` (rows, rank) starting at zero.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LowRank {
    /// Rank of the update.
    pub rank: usize,
    /// Factor on the update (alpha / rank in the paper).
    pub scale: f32,
    /// Seeds the start of `down`.
    pub seed: u64,
}

/// Weights that a loss is evaluated at.
#[derive(Debug)]
pub struct Effective {
    blocks: Vec<Block>,
    final_norm: Tensor,
    embedding: Option<Tensor>,
    head: Option<Tensor>,
    /// d(weights) / d(masters): gradients are multiplied by it.
    alpha: f32,
}

/// What training starts from.
#[derive(Debug)]
struct Base<'a> {
    blocks: Vec<Block>,
    embedding: &'a Tensor,
    final_norm: &'a Tensor,
    head: Option<&'a Tensor>,
}

impl<'a> Base<'a> {
    fn of(decoder: &'a Decoder, first_block: usize) -> Result<Self, DecoderError> {
        let blocks = decoder.blocks[first_block..].iter();
        Ok(Self {
            blocks: blocks.map(|block| block.try_map(|weight| weight.plain().cloned())).collect::<Result<_, _>>()?,
            embedding: decoder.embedding.plain()?,
            final_norm: decoder.final_norm.plain()?,
            head: decoder.head.as_ref().map(Weight::plain).transpose()?,
        })
    }
}

/// Trains a part of a decoder.
#[derive(Debug)]
pub struct Trainer<'a> {
    decoder: &'a Decoder,
    base: Base<'a>,
    scope: Scope,
    adamw: AdamW,
    blocks: Vec<BlockOf<Trained>>,
    final_norm: Trained,
    embedding: Trained,
    head: Trained,
    steps: usize,
}

impl<'a> Trainer<'a> {
    /// Starts at the base weights.
    ///
    /// # Panics
    /// When `scope` names a block that the decoder does not have, or embeddings without every block.
    ///
    /// # Errors
    /// When the decoder's weights are quantized.
    pub fn new(decoder: &'a Decoder, scope: Scope, adamw: AdamW) -> Result<Self, DecoderError> {
        assert!(scope.first_block < decoder.blocks.len(), "block {} of {}", scope.first_block, decoder.blocks.len());
        assert!(!scope.embeddings || scope.first_block == 0, "embeddings are below every block");
        let mut generator = ChaCha8Rng::seed_from_u64(scope.low_rank.map_or(0, |low_rank| low_rank.seed));
        let base = Base::of(decoder, scope.first_block)?;
        let blocks = base
            .blocks
            .iter()
            .map(|block| block.try_map(|base| start(base, scope.low_rank, &mut generator)))
            .collect::<Result<_, _>>()?;
        let whole = |base: &Tensor| Parameter::new(base).map(Trained::Full);
        let [embedding, final_norm, head] = match base.head {
            _ if !scope.embeddings => [Trained::Frozen, Trained::Frozen, Trained::Frozen],
            None => [whole(base.embedding)?, whole(base.final_norm)?, Trained::Frozen],
            Some(head) => [whole(base.embedding)?, whole(base.final_norm)?, whole(head)?],
        };
        Ok(Self { decoder, base, scope, adamw, blocks, final_norm, embedding, head, steps: 0 })
    }

    /// Steps taken so far.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// Hidden states (rows, hidden) of a batch at the input of the lowest trained block. They depend on frozen weights
    /// only, so they can be computed once and kept; with trained embeddings they are made anew in every step.
    pub fn boundary(&self, pack: &Pack) -> Result<Tensor, DecoderError> {
        self.decoder.run(pack, self.decoder.embed_checked(pack)?, 0..self.scope.first_block)
    }

    /// Weights at `base + alpha · (masters − base)`: 1 for the masters themselves, less for a merge with the base.
    pub fn effective(&self, alpha: f32) -> Result<Effective, DecoderError> {
        let optional = |trained: &Trained, base: &Tensor| match trained {
            Trained::Frozen => Ok(None),
            trained => trained.effective(base, alpha).map(Some),
        };
        Ok(Effective {
            blocks: self.effective_blocks(alpha)?,
            final_norm: self.final_norm.effective(self.base.final_norm, alpha)?,
            embedding: optional(&self.embedding, self.base.embedding)?,
            head: self.base.head.map(|base| optional(&self.head, base)).transpose()?.flatten(),
            alpha,
        })
    }

    fn effective_blocks(&self, alpha: f32) -> Result<Vec<Block>, DecoderError> {
        self.blocks
            .iter()
            .zip(&self.base.blocks)
            .map(|(trained, base)| {
                let mut bases = base.values().into_iter();
                trained.try_map(|trained| {
                    let base = bases.next().expect("a block and its training state have the same parameters");
                    Ok(trained.effective(base, alpha)?)
                })
            })
            .collect()
    }

    /// Weights as they will be shipped: averaged `towards_base`, then each rounded to the type in which it is stored
    /// under its Hugging Face name (see [`crate::Checkpoint::stored_dtype`]).
    pub fn shipped(
        &self,
        towards_base: f32,
        stored_dtype: impl Fn(&str) -> Result<DType, CheckpointError>,
    ) -> Result<Effective, DecoderError> {
        let mut weights = self.effective(1.0 - towards_base)?;
        let round = |name: &str, tensor: &Tensor| -> Result<Tensor, DecoderError> {
            Ok(tensor.to_dtype(stored_dtype(name)?)?.to_dtype(DType::F32)?)
        };
        for (offset, block) in weights.blocks.iter_mut().enumerate() {
            *block = block.try_map_named(self.scope.first_block + offset, round)?;
        }
        weights.final_norm = round(FINAL_NORM, &weights.final_norm)?;
        weights.embedding = weights.embedding.as_ref().map(|tensor| round(EMBEDDING, tensor)).transpose()?;
        weights.head = weights.head.as_ref().map(|tensor| round(HEAD, tensor)).transpose()?;
        Ok(weights)
    }

    /// The shipped tensors that differ from the base, under their Hugging Face names, in f32: what
    /// [`crate::Checkpoint::save`] puts in place of the base's.
    pub fn tensors(&self, towards_base: f32) -> Result<BTreeMap<String, Tensor>, DecoderError> {
        let weights = self.effective(1.0 - towards_base)?;
        let mut named = BTreeMap::new();
        for (offset, block) in weights.blocks.iter().enumerate() {
            named.extend(block.named(self.scope.first_block + offset)?);
        }
        let whole = [(EMBEDDING, weights.embedding), (HEAD, weights.head)];
        named.extend(whole.into_iter().filter_map(|(name, tensor)| Some((name.to_owned(), tensor?))));
        if !matches!(self.final_norm, Trained::Frozen) {
            named.insert(FINAL_NORM.to_owned(), weights.final_norm);
        }
        Ok(named)
    }

    /// Calls `read` with the logits (vocabulary) at every one of `rows`, in order.
    pub fn read_logits(
        &self,
        weights: &Effective,
        hidden: &Tensor,
        pack: &Pack,
        rows: &[usize],
        mut read: impl FnMut(usize, &mut [f32]),
    ) -> Result<(), DecoderError> {
        let top = self.forward(weights, hidden, pack, rows, None)?;
        let normed = normalise(&top, &weights.final_norm, self.decoder.shape.epsilon)?;
        for first in (0..rows.len()).step_by(LOGIT_ROWS) {
            let count = LOGIT_ROWS.min(rows.len() - first);
            let logits = project(&normed.narrow(0, first, count)?, self.output_weight(weights), None)?;
            for (offset, mut row) in logits.to_vec2::<f32>()?.into_iter().enumerate() {
                read(first + offset, &mut row);
            }
        }
        Ok(())
    }

    /// Adds the gradient of a sum of losses at `rows` (ascending) of a batch, and returns the sum.
    ///
    /// `hidden` is the batch's [`Self::boundary`]. `loss(i, logits)` returns the loss at `rows[i]` and leaves its
    /// derivative in place of the logits.
    pub fn accumulate(
        &mut self,
        weights: &Effective,
        hidden: &Tensor,
        pack: &Pack,
        rows: &[usize],
        loss: &(dyn Fn(usize, &mut [f32]) -> f64 + Sync),
    ) -> Result<f64, DecoderError> {
        assert!(rows.is_sorted_by(|a, b| a < b), "rows are ascending");
        let mut tapes = Vec::with_capacity(self.blocks.len());
        let top = self.forward(weights, hidden, pack, rows, Some(&mut tapes))?;
        let (total, mut gradient) = self.head_gradient(weights, &top, rows.len(), loss)?;
        // Losses that are content with what they see, as those of responses that are learnt.
        if gradient.iter().all(|g| *g == 0.0) {
            return Ok(total);
        }
        let rotation = self.decoder.rotation(pack.positions().iter().copied());
        for (index, tape) in tapes.iter().enumerate().rev() {
            let last = index + 1 == self.blocks.len();
            let context = backward::Context {
                shape: &self.decoder.shape,
                pack,
                rotation: &rotation,
                window: self.decoder.config().sliding_window[self.scope.first_block + index],
                queries: last.then_some(rows),
                needs_input: index > 0 || self.scope.embeddings,
            };
            gradient = backward::block(&context, &weights.blocks[index], &mut self.blocks[index], tape, gradient)?;
        }
        if let Some(embedding) = self.embedding.gradient_mut() {
            let width = self.decoder.shape.hidden;
            for (id, gradient) in pack.ids().iter().zip(gradient.chunks_exact(width)) {
                let at = *id as usize * width;
                embedding[at..at + width].iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
            }
        }
        Ok(total)
    }

    /// Loss and gradient at the output of the top block, a few rows of logits at a time.
    fn head_gradient(
        &mut self,
        weights: &Effective,
        top: &Tensor,
        rows: usize,
        loss: &(dyn Fn(usize, &mut [f32]) -> f64 + Sync),
    ) -> Result<(f64, Vec<f32>), DecoderError> {
        let (hidden, epsilon) = (self.decoder.shape.hidden, self.decoder.shape.epsilon);
        let normed = normalise(top, &weights.final_norm, epsilon)?;
        let normed = View::of(&normed)?;
        let normed = normed.f32()?;
        let tied = self.base.head.is_none();
        let output = weights.head.as_ref().or(weights.embedding.as_ref().filter(|_| tied));
        let output = output.unwrap_or_else(|| self.base.head.unwrap_or(self.base.embedding));
        let (vocabulary, output) = (output.dim(0)?, View::of(output)?);
        let mut total = 0.0;
        let mut dnormed = Vec::with_capacity(rows * hidden);
        for first in (0..rows).step_by(LOGIT_ROWS) {
            let normed = &normed[first * hidden..(first + LOGIT_ROWS).min(rows) * hidden];
            let mut logits = crate::kernel::linear::linear(normed, output.weights()?, None, hidden);
            let losses: Vec<f64> = logits
                .par_chunks_mut(vocabulary)
                .enumerate()
                .map(|(offset, row)| {
                    let loss = loss(first + offset, row);
                    row.iter_mut().for_each(|g| *g *= weights.alpha);
                    loss
                })
                .collect();
            total += losses.iter().sum::<f64>();
            let trained = if tied { &mut self.embedding } else { &mut self.head };
            if let Some(gradient) = trained.gradient_mut() {
                add_gradient_of_weight(gradient, &logits, normed, vocabulary, hidden);
            }
            dnormed.extend(gradient_of_input(&logits, output.weights()?, vocabulary, hidden));
        }
        let mut gradient = vec![0.0; dnormed.len()];
        let (top, norm) = (View::of(top)?, View::of(&weights.final_norm)?);
        let dnorm = self.final_norm.gradient_mut();
        add_rms_norm_gradient(&mut gradient, dnorm, &dnormed, top.f32()?, norm.f32()?, epsilon);
        Ok((total, gradient))
    }

    /// Output (rows, hidden) of the top block at `rows` of the batch.
    fn forward(
        &self,
        weights: &Effective,
        hidden: &Tensor,
        pack: &Pack,
        rows: &[usize],
        mut tapes: Option<&mut Vec<Tape>>,
    ) -> Result<Tensor, DecoderError> {
        let (decoder, shape) = (self.decoder, &self.decoder.shape);
        let rotation = decoder.rotation(pack.positions().iter().copied());
        let mut x = match &weights.embedding {
            Some(table) => embed(table, pack.ids())?,
            None => hidden.clone(),
        };
        for (index, block) in weights.blocks.iter().enumerate() {
            let queries = (index + 1 == weights.blocks.len()).then_some(rows);
            let window = decoder.config().sliding_window[self.scope.first_block + index];
            x = block.forward(
                shape,
                &x,
                queries,
                &rotation,
                |query, key_value| pack.attend(query, &key_value, queries, shape.heads, window),
                tapes.as_deref_mut(),
            )?;
        }
        Ok(x)
    }

    fn output_weight<'b>(&'b self, weights: &'b Effective) -> &'b Tensor {
        match self.base.head {
            Some(base) => weights.head.as_ref().unwrap_or(base),
            None => weights.embedding.as_ref().unwrap_or(self.base.embedding),
        }
    }

    /// Moves the masters along the gradients added up since the last step, and clears them.
    pub fn step(&mut self, learning_rate: f32) -> Result<(), DecoderError> {
        self.steps += 1;
        let step = i32::try_from(self.steps).unwrap_or(i32::MAX);
        let adamw = self.adamw;
        for trained in self.trained_mut() {
            trained.collect_gradient()?;
            for parameter in trained.parameters_mut() {
                parameter.update(&adamw, learning_rate, step)?;
            }
        }
        Ok(())
    }

    fn trained_mut(&mut self) -> impl Iterator<Item = &mut Trained> {
        let blocks = self.blocks.iter_mut().flat_map(BlockOf::values_mut);
        blocks.chain([&mut self.final_norm, &mut self.embedding, &mut self.head])
    }

    fn trained(&self) -> impl Iterator<Item = &Trained> {
        let blocks = self.blocks.iter().flat_map(BlockOf::values);
        blocks.chain([&self.final_norm, &self.embedding, &self.head])
    }
}

/// The training state of one tensor of a block.
fn start(base: &Tensor, low_rank: Option<LowRank>, generator: &mut ChaCha8Rng) -> Result<Trained, DecoderError> {
    let Some(LowRank { rank, scale, .. }) = low_rank else { return Ok(Trained::Full(Parameter::new(base)?)) };
    let Ok((rows, columns)) = base.dims2() else { return Ok(Trained::Frozen) };
    let bound = 1.0 / (columns as f32).sqrt();
    let down: Vec<f32> = (0..rank * columns).map(|_| generator.random_range(-bound..bound)).collect();
    Ok(Trained::LowRank {
        up: Parameter::new(&Tensor::zeros((rows, rank), DType::F32, &Device::Cpu)?)?,
        down: Parameter::new(&Tensor::from_vec(down, (rank, columns), &Device::Cpu)?)?,
        scale,
        gradient: vec![0.0; rows * columns],
    })
}

fn embed(table: &Tensor, ids: &[u32]) -> candle_core::Result<Tensor> {
    let rows: Vec<usize> = ids.iter().map(|id| *id as usize).collect();
    crate::decoder::block::select(table, Some(&rows))
}

/// Blocks of the default recipe: the top fifth, at least one.
pub fn top_fifth(layers: usize) -> Range<usize> {
    layers - layers.div_ceil(5)..layers
}

#[cfg(test)]
mod tests;
