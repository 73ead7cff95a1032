//! One block of the decoder: its weights, and the one definition of its forward pass, which inference runs as it is and
//! training runs with a tape.

use std::collections::BTreeMap;

use candle_core::{DType, Result, Tensor};

use super::DecoderError;
use crate::{
    Config,
    checkpoint::{Checkpoint, CheckpointError},
    kernel::{
        Operand, View,
        attention::Heads,
        linear::linear,
        rows::{Rotation, add, rms_norm, rotate, swiglu},
    },
};

/// The sizes that a block's mathematics needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: Heads,
    pub(crate) epsilon: f32,
}

impl Shape {
    pub(crate) fn of(config: &Config) -> Self {
        Self {
            hidden: config.hidden_size,
            intermediate: config.intermediate_size,
            heads: Heads { queries: config.heads, keys: config.kv_heads, dim: config.head_dim },
            epsilon: config.rms_norm_eps,
        }
    }
}

/// One value for every parameter of a block: the weights themselves, their gradients, or an optimiser's state.
///
/// Keys and values share a matrix, and so do gate and up: they multiply the same rows.
#[derive(Debug, Clone)]
pub(crate) struct BlockOf<T> {
    pub(crate) attention_norm: T,
    pub(crate) query: T,
    pub(crate) query_bias: Option<T>,
    pub(crate) key_value: T,
    pub(crate) key_value_bias: Option<T>,
    pub(crate) query_norm: Option<T>,
    pub(crate) key_norm: Option<T>,
    pub(crate) output: T,
    pub(crate) output_bias: Option<T>,
    pub(crate) mlp_norm: T,
    pub(crate) gate_up: T,
    pub(crate) gate_up_bias: Option<T>,
    pub(crate) down: T,
    pub(crate) down_bias: Option<T>,
}

/// As it is trained.
pub(crate) type Block = BlockOf<Tensor>;

impl<T> BlockOf<T> {
    /// The same block with every value replaced.
    pub(crate) fn try_map<U, E>(
        &self,
        mut f: impl FnMut(&T) -> std::result::Result<U, E>,
    ) -> std::result::Result<BlockOf<U>, E> {
        let optional =
            |value: &Option<T>, f: &mut dyn FnMut(&T) -> std::result::Result<U, E>| value.as_ref().map(f).transpose();
        Ok(BlockOf {
            attention_norm: f(&self.attention_norm)?,
            query: f(&self.query)?,
            query_bias: optional(&self.query_bias, &mut f)?,
            key_value: f(&self.key_value)?,
            key_value_bias: optional(&self.key_value_bias, &mut f)?,
            query_norm: optional(&self.query_norm, &mut f)?,
            key_norm: optional(&self.key_norm, &mut f)?,
            output: f(&self.output)?,
            output_bias: optional(&self.output_bias, &mut f)?,
            mlp_norm: f(&self.mlp_norm)?,
            gate_up: f(&self.gate_up)?,
            gate_up_bias: optional(&self.gate_up_bias, &mut f)?,
            down: f(&self.down)?,
            down_bias: optional(&self.down_bias, &mut f)?,
        })
    }

    /// Every value, in one fixed order.
    pub(crate) fn values(&self) -> Vec<&T> {
        [
            Some(&self.attention_norm),
            Some(&self.query),
            self.query_bias.as_ref(),
            Some(&self.key_value),
            self.key_value_bias.as_ref(),
            self.query_norm.as_ref(),
            self.key_norm.as_ref(),
            Some(&self.output),
            self.output_bias.as_ref(),
            Some(&self.mlp_norm),
            Some(&self.gate_up),
            self.gate_up_bias.as_ref(),
            Some(&self.down),
            self.down_bias.as_ref(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Every value, in the order of [`Self::values`].
    pub(crate) fn values_mut(&mut self) -> Vec<&mut T> {
        [
            Some(&mut self.attention_norm),
            Some(&mut self.query),
            self.query_bias.as_mut(),
            Some(&mut self.key_value),
            self.key_value_bias.as_mut(),
            self.query_norm.as_mut(),
            self.key_norm.as_mut(),
            Some(&mut self.output),
            self.output_bias.as_mut(),
            Some(&mut self.mlp_norm),
            Some(&mut self.gate_up),
            self.gate_up_bias.as_mut(),
            Some(&mut self.down),
            self.down_bias.as_mut(),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// Reads a tensor for computing: bf16 matrices stay as they are stored, everything else becomes f32.
pub(crate) fn read(checkpoint: &Checkpoint, name: &str) -> std::result::Result<Tensor, CheckpointError> {
    let tensor = checkpoint.tensor(name)?;
    if tensor.dtype() == DType::BF16 && tensor.rank() == 2 { Ok(tensor) } else { checkpoint.tensor_f32(name) }
}

impl Block {
    /// The same block, number `layer`, with each of its tensors as [`Self::named`] names them replaced.
    pub(crate) fn try_map_named(
        &self,
        layer: usize,
        f: impl Fn(&str, &Tensor) -> std::result::Result<Tensor, DecoderError>,
    ) -> std::result::Result<Self, DecoderError> {
        let named: BTreeMap<String, Tensor> = self.named(layer)?.into_iter().collect();
        Self::of(layer, |name| named.contains_key(name), |name| f(name, &named[name]))
    }

    /// The block's tensors under their Hugging Face names.
    pub(crate) fn named(&self, layer: usize) -> Result<Vec<(String, Tensor)>> {
        let mut named = Vec::new();
        let mut one = |part: &str, tensor: Option<&Tensor>| {
            if let Some(tensor) = tensor {
                named.push((format!("model.layers.{layer}.{part}"), tensor.clone()));
            }
        };
        let halves = |tensor: Option<&Tensor>| -> Result<[Option<Tensor>; 2]> {
            let Some(tensor) = tensor else { return Ok([None, None]) };
            let half = tensor.dim(0)? / 2;
            Ok([Some(tensor.narrow(0, 0, half)?.contiguous()?), Some(tensor.narrow(0, half, half)?.contiguous()?)])
        };
        one("input_layernorm.weight", Some(&self.attention_norm));
        one("self_attn.q_proj.weight", Some(&self.query));
        one("self_attn.q_proj.bias", self.query_bias.as_ref());
        one("self_attn.q_norm.weight", self.query_norm.as_ref());
        one("self_attn.k_norm.weight", self.key_norm.as_ref());
        one("self_attn.o_proj.weight", Some(&self.output));
        one("self_attn.o_proj.bias", self.output_bias.as_ref());
        one("post_attention_layernorm.weight", Some(&self.mlp_norm));
        one("mlp.down_proj.weight", Some(&self.down));
        one("mlp.down_proj.bias", self.down_bias.as_ref());
        for (first, second, suffix, tensor) in [
            ("self_attn.k_proj", "self_attn.v_proj", "weight", Some(&self.key_value)),
            ("self_attn.k_proj", "self_attn.v_proj", "bias", self.key_value_bias.as_ref()),
            ("mlp.gate_proj", "mlp.up_proj", "weight", Some(&self.gate_up)),
            ("mlp.gate_proj", "mlp.up_proj", "bias", self.gate_up_bias.as_ref()),
        ] {
            let [a, b] = halves(tensor)?;
            one(&format!("{first}.{suffix}"), a.as_ref());
            one(&format!("{second}.{suffix}"), b.as_ref());
        }
        Ok(named)
    }
}

/// What the backward pass of a block needs from its forward pass. Rows that are cheap to compute again are not kept.
#[derive(Debug)]
pub(crate) struct Tape {
    /// (rows, hidden): the block's input.
    pub(crate) input: Tensor,
    /// (queries, queries · dim) and (rows, 2 · keys · dim) before norm and rotation; kept only where heads are normalised.
    pub(crate) before_norm: Option<(Tensor, Tensor)>,
    /// (queries, queries · dim): what attention was asked.
    pub(crate) query: Tensor,
    /// (rows, 2 · keys · dim): what it looked at.
    pub(crate) key_value: Tensor,
    /// (queries, queries · dim): what it found.
    pub(crate) attended: Tensor,
    /// (queries, hidden): the residual stream between attention and feed-forward.
    pub(crate) middle: Tensor,
    /// (queries, 2 · intermediate).
    pub(crate) gate_up: Tensor,
}

/// `x wᵀ + b` on tensors.
pub(crate) fn project<T: Operand>(x: &Tensor, weight: &T, bias: Option<&T>) -> Result<Tensor> {
    let (rows, values) = (x.dim(0)?, projected(x, weight, bias)?);
    let columns = values.len().checked_div(rows).unwrap_or(0);
    Tensor::from_vec(values, (rows, columns), x.device())
}

/// `residual + x wᵀ + b`. Not by candle's addition, whose threads wait for each other by spinning.
fn project_onto<T: Operand>(residual: &Tensor, x: &Tensor, weight: &T, bias: Option<&T>) -> Result<Tensor> {
    let mut sum = projected(x, weight, bias)?;
    add(&mut sum, View::of(residual)?.f32()?);
    Tensor::from_vec(sum, residual.shape(), residual.device())
}

fn projected<T: Operand>(x: &Tensor, weight: &T, bias: Option<&T>) -> Result<Vec<f32>> {
    let (view, weights) = (View::of(x)?, View::of(weight)?);
    let bias = bias.map(View::of).transpose()?;
    let bias = bias.as_ref().map(View::f32).transpose()?;
    Ok(linear(view.f32()?, weights.weights()?, bias, x.dim(1)?))
}

/// RMS norm on tensors.
pub(crate) fn normalise(x: &Tensor, weight: &impl Operand, epsilon: f32) -> Result<Tensor> {
    Tensor::from_vec(rms_norm(View::of(x)?.f32()?, View::of(weight)?.f32()?, epsilon), x.shape(), x.device())
}

/// The rows of `x` at `rows`, or all of them.
pub(crate) fn select(x: &Tensor, rows: Option<&[usize]>) -> Result<Tensor> {
    let Some(rows) = rows else { return Ok(x.clone()) };
    let width = x.dim(1)?;
    let view = View::of(x)?;
    let values = view.f32()?;
    let picked: Vec<f32> = rows.iter().flat_map(|row| &values[row * width..(row + 1) * width]).copied().collect();
    Tensor::from_vec(picked, (rows.len(), width), x.device())
}

/// Normalises every head of the first `heads` of each row, as Qwen3 does before the rotation.
pub(crate) fn normalise_heads(x: &mut [f32], row_width: usize, heads: usize, weight: &[f32], epsilon: f32) {
    let width = heads * weight.len();
    for row in x.chunks_exact_mut(row_width) {
        let normed = rms_norm(&row[..width], weight, epsilon);
        row[..width].copy_from_slice(&normed);
    }
}

impl<T: Operand> BlockOf<T> {
    /// A block from its parameters under their Hugging Face names.
    pub(crate) fn of(
        layer: usize,
        contains: impl Fn(&str) -> bool,
        read: impl Fn(&str) -> std::result::Result<T, DecoderError>,
    ) -> std::result::Result<Self, DecoderError> {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        let one = |part: &str| read(&name(part));
        let optional = |part: &str| contains(&name(part)).then(|| one(part)).transpose();
        let both = |a: &str, b: &str| -> std::result::Result<T, DecoderError> { Ok(one(a)?.above(&one(b)?)?) };
        let both_optional = |a: &str, b: &str| contains(&name(a)).then(|| both(a, b)).transpose();
        Ok(Self {
            attention_norm: one("input_layernorm.weight")?,
            query: one("self_attn.q_proj.weight")?,
            query_bias: optional("self_attn.q_proj.bias")?,
            key_value: both("self_attn.k_proj.weight", "self_attn.v_proj.weight")?,
            key_value_bias: both_optional("self_attn.k_proj.bias", "self_attn.v_proj.bias")?,
            query_norm: optional("self_attn.q_norm.weight")?,
            key_norm: optional("self_attn.k_norm.weight")?,
            output: one("self_attn.o_proj.weight")?,
            output_bias: optional("self_attn.o_proj.bias")?,
            mlp_norm: one("post_attention_layernorm.weight")?,
            gate_up: both("mlp.gate_proj.weight", "mlp.up_proj.weight")?,
            gate_up_bias: both_optional("mlp.gate_proj.bias", "mlp.up_proj.bias")?,
            down: one("mlp.down_proj.weight")?,
            down_bias: optional("mlp.down_proj.bias")?,
        })
    }

    /// Output (queries, hidden) of the block for input `x` (rows, hidden).
    ///
    /// `rotation` holds the angles of every row of `x`. With `queries`, only those rows are asked and answered; all rows
    /// still serve as keys and values. `attend` turns queries and key-value rows into what attention finds.
    pub(crate) fn forward(
        &self,
        shape: &Shape,
        x: &Tensor,
        queries: Option<&[usize]>,
        rotation: &Rotation,
        attend: impl FnOnce(&Tensor, Tensor) -> Result<Tensor>,
        tape: Option<&mut Vec<Tape>>,
    ) -> Result<Tensor> {
        let heads = shape.heads;
        let normed = normalise(x, &self.attention_norm, shape.epsilon)?;
        let raw_query = project(&select(&normed, queries)?, &self.query, self.query_bias.as_ref())?;
        let raw_key_value = project(&normed, &self.key_value, self.key_value_bias.as_ref())?;
        let query = self.place(&raw_query, heads.queries, self.query_norm.as_ref(), shape, rotation, queries)?;
        let key_value = self.place(&raw_key_value, heads.keys, self.key_norm.as_ref(), shape, rotation, None)?;
        let attended = attend(&query, key_value.clone())?;
        let middle = project_onto(&select(x, queries)?, &attended, &self.output, self.output_bias.as_ref())?;
        let normed = normalise(&middle, &self.mlp_norm, shape.epsilon)?;
        let gate_up = project(&normed, &self.gate_up, self.gate_up_bias.as_ref())?;
        let active = {
            let view = View::of(&gate_up)?;
            Tensor::from_vec(
                swiglu(view.f32()?, shape.intermediate),
                (gate_up.dim(0)?, shape.intermediate),
                x.device(),
            )?
        };
        let output = project_onto(&middle, &active, &self.down, self.down_bias.as_ref())?;
        if let Some(tape) = tape {
            let before_norm = self.query_norm.is_some().then_some((raw_query, raw_key_value));
            tape.push(Tape { input: x.clone(), before_norm, query, key_value, attended, middle, gate_up });
        }
        Ok(output)
    }

    /// Norm (if the family has it) and rotation of the first `heads` heads of every row.
    fn place(
        &self,
        x: &Tensor,
        heads: usize,
        norm: Option<&T>,
        shape: &Shape,
        rotation: &Rotation,
        rows: Option<&[usize]>,
    ) -> Result<Tensor> {
        let width = x.dim(1)?;
        let mut values = View::of(x)?.f32()?.to_vec();
        if let Some(norm) = norm {
            normalise_heads(&mut values, width, heads, View::of(norm)?.f32()?, shape.epsilon);
        }
        rotate(&mut values, width, heads, shape.heads.dim, rotation, rows);
        Tensor::from_vec(values, x.shape(), x.device())
    }
}
