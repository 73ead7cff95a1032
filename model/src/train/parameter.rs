//! Trained values: a master copy in f32, its gradient, and AdamW's state.

use std::sync::Mutex;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor};
use rayon::prelude::*;

use crate::kernel::{
    View, Weights,
    linear::linear,
    product::{add_gradient_of_weight, gradient_of_input},
    vectorised,
};

/// Values that one task updates.
const CHUNK: usize = 1 << 15;

/// Settings of AdamW (arXiv 1711.05101).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of gradients.
    pub beta1: f32,
    /// Decay of the mean of squared gradients.
    pub beta2: f32,
    /// Added to the root of the mean square.
    pub epsilon: f32,
    /// Share of the value taken off at each step, times the learning rate.
    pub weight_decay: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0 }
    }
}

/// One trained tensor.
#[derive(Debug)]
pub(crate) struct Parameter {
    pub(crate) value: Tensor,
    pub(crate) gradient: Vec<f32>,
    pub(crate) mean: Vec<f32>,
    pub(crate) square: Vec<f32>,
}

impl Parameter {
    /// Starts from a copy of `value`, widened to f32.
    pub(crate) fn new(value: &Tensor) -> Result<Self> {
        let count = value.elem_count();
        let value = value.to_dtype(DType::F32)?.copy()?;
        Ok(Self { value, gradient: vec![0.0; count], mean: vec![0.0; count], square: vec![0.0; count] })
    }

    /// Step number `step` (from 1), then a zero gradient.
    pub(crate) fn update(&mut self, adamw: &AdamW, learning_rate: f32, step: i32) -> Result<()> {
        let parts = (&self.gradient[..], &mut self.mean[..], &mut self.square[..]);
        self.value.inplace_op1(&Update { adamw: *adamw, learning_rate, step, parts: Mutex::new(parts) })?;
        self.gradient.par_chunks_mut(CHUNK).for_each(|chunk| chunk.fill(0.0));
        Ok(())
    }
}

/// One fused pass over value, gradient and both means; candle-nn's optimiser makes a dozen.
struct Update<'a> {
    adamw: AdamW,
    learning_rate: f32,
    step: i32,
    parts: Mutex<(&'a [f32], &'a mut [f32], &'a mut [f32])>,
}

impl InplaceOp1 for Update<'_> {
    fn name(&self) -> &'static str {
        "adamw"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(values) = storage else { candle_core::bail!("AdamW wants f32 values") };
        let Some((start, end)) = layout.contiguous_offsets() else {
            candle_core::bail!("AdamW wants contiguous values")
        };
        let mut parts = self.parts.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let (gradient, mean, square) = &mut *parts;
        let AdamW { beta1, beta2, epsilon, weight_decay } = self.adamw;
        let step = Step {
            beta1,
            beta2,
            epsilon,
            mean_scale: 1.0 / (1.0 - beta1.powi(self.step)),
            square_scale: 1.0 / (1.0 - beta2.powi(self.step)),
            learning_rate: self.learning_rate,
            decay: self.learning_rate * weight_decay,
        };
        values[start..end]
            .par_chunks_mut(CHUNK)
            .zip(gradient.par_chunks(CHUNK))
            .zip(mean.par_chunks_mut(CHUNK))
            .zip(square.par_chunks_mut(CHUNK))
            .for_each(|(((values, gradient), mean), square)| move_chunk(values, gradient, mean, square, step));
        Ok(())
    }
}

/// The numbers of one step.
#[derive(Clone, Copy)]
struct Step {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    mean_scale: f32,
    square_scale: f32,
    learning_rate: f32,
    decay: f32,
}

vectorised! {
    fn move_chunk(values: &'a mut [f32], gradient: &'a [f32], mean: &'a mut [f32], square: &'a mut [f32], step: Step) {
        for (((x, g), m), v) in values.iter_mut().zip(gradient).zip(mean).zip(square) {
            *m = step.beta1 * *m + (1.0 - step.beta1) * g;
            *v = step.beta2 * *v + (1.0 - step.beta2) * g * g;
            let direction = *m * step.mean_scale / ((*v * step.square_scale).sqrt() + step.epsilon);
            *x -= step.learning_rate * direction + step.decay * *x;
        }
    }

    fn interpolate_chunk(out: &'a mut [f32], from: Weights<'a>, to: &'a [f32], share: f32) {
        match from {
            Weights::F32(from) => out.copy_from_slice(from),
            narrow @ (Weights::Bf16(_) | Weights::Packed(_)) => {
                narrow.widened(out);
            }
        }
        for (out, to) in out.iter_mut().zip(to) {
            *out += share * (to - *out);
        }
    }
}

/// How a tensor of the model is trained.
#[derive(Debug)]
pub(crate) enum Trained {
    /// It stays as it is.
    Frozen,
    /// Every value.
    Full(Parameter),
    /// The sum of the base and a product of two thin matrices (LoRA, arXiv 2106.09685): base + scale · up · down.
    LowRank { up: Parameter, down: Parameter, scale: f32, gradient: Vec<f32> },
}

impl Trained {
    pub(crate) fn parameters_mut(&mut self) -> Vec<&mut Parameter> {
        match self {
            Self::Frozen => Vec::new(),
            Self::Full(parameter) => vec![parameter],
            Self::LowRank { up, down, .. } => vec![up, down],
        }
    }

    pub(crate) fn parameters(&self) -> Vec<&Parameter> {
        match self {
            Self::Frozen => Vec::new(),
            Self::Full(parameter) => vec![parameter],
            Self::LowRank { up, down, .. } => vec![up, down],
        }
    }

    /// `base + alpha · (trained − base)` in f32. The master copy itself is shared, not copied, when alpha is 1.
    pub(crate) fn effective(&self, base: &Tensor, alpha: f32) -> Result<Tensor> {
        match self {
            Self::Frozen => base.to_dtype(DType::F32),
            #[expect(clippy::float_cmp, reason = "exactly 1 means: no noise")]
            Self::Full(parameter) if alpha == 1.0 => Ok(parameter.value.clone()),
            Self::Full(parameter) => interpolate(base, &parameter.value, alpha),
            Self::LowRank { up, down, scale, .. } => {
                let delta = low_rank_product(&up.value, &down.value)?;
                base.to_dtype(DType::F32)? + (delta * f64::from(alpha * scale))?
            }
        }
    }

    /// Where the gradient of the effective weight is added up.
    pub(crate) fn gradient_mut(&mut self) -> Option<&mut [f32]> {
        match self {
            Self::Frozen => None,
            Self::Full(parameter) => Some(&mut parameter.gradient),
            Self::LowRank { gradient, .. } => Some(gradient),
        }
    }

    /// Passes the gradient of the effective weight on to the thin matrices.
    pub(crate) fn collect_gradient(&mut self) -> Result<()> {
        if let Self::LowRank { up, down, scale, gradient } = self {
            let (rank, columns) = down.value.dims2()?;
            let rows = gradient.len() / columns;
            gradient.par_chunks_mut(CHUNK).for_each(|chunk| chunk.iter_mut().for_each(|g| *g *= *scale));
            // d(up) = G downᵀ, d(down) = upᵀ G.
            let of_up = linear(gradient, View::of(&down.value)?.weights()?, None, columns);
            crate::kernel::rows::add(&mut up.gradient, &of_up);
            add_gradient_of_weight(&mut down.gradient, View::of(&up.value)?.f32()?, gradient, rank, columns);
            debug_assert_eq!(of_up.len(), rows * rank);
            gradient.fill(0.0);
        }
        Ok(())
    }
}

/// up (rows, rank) times down (rank, columns).
fn low_rank_product(up: &Tensor, down: &Tensor) -> Result<Tensor> {
    let ((rows, rank), (_, columns)) = (up.dims2()?, down.dims2()?);
    let (up, down) = (View::of(up)?, View::of(down)?);
    Tensor::from_vec(gradient_of_input(up.f32()?, down.weights()?, rank, columns), (rows, columns), &Device::Cpu)
}

/// `from + share · (to − from)` in f32.
fn interpolate(from: &Tensor, to: &Tensor, share: f32) -> Result<Tensor> {
    let (from_view, to_view) = (View::of(from)?, View::of(to)?);
    let (from_values, to_values) = (from_view.weights()?, to_view.f32()?);
    let mut out = vec![0.0; to_values.len()];
    out.par_chunks_mut(CHUNK).zip(to_values.par_chunks(CHUNK)).enumerate().for_each(|(chunk, (out, to))| {
        let first = chunk * CHUNK;
        interpolate_chunk(out, from_values.slice(first..first + to.len()), to, share);
    });
    Tensor::from_vec(out, to.shape(), to.device())
}
