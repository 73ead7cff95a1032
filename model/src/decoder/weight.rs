//! One parameter of a decoder as it lies in memory.

use std::sync::Arc;

use candle_core::{Device, Result, Tensor};

use super::DecoderError;
use crate::kernel::{Operand, View, packed::Packed};

/// A tensor of numbers, or a matrix that stays quantized.
#[derive(Clone, Debug)]
pub(crate) enum Weight {
    Plain(Tensor),
    Packed(Arc<Packed>),
}

impl Weight {
    /// The tensor, which training needs.
    pub(crate) fn plain(&self) -> std::result::Result<&Tensor, DecoderError> {
        match self {
            Self::Plain(tensor) => Ok(tensor),
            Self::Packed(_) => Err(DecoderError::Quantized),
        }
    }
}

impl Weight {
    /// The tensor, of a quantized matrix its values in f32.
    pub(crate) fn widened(self) -> Result<Tensor> {
        match self {
            Self::Plain(tensor) => Ok(tensor),
            Self::Packed(matrix) => Tensor::from_vec(matrix.widened(), matrix.shape(), &Device::Cpu),
        }
    }
}

impl Operand for Weight {
    fn view(&self) -> Result<View<'_>> {
        match self {
            Self::Plain(tensor) => tensor.view(),
            Self::Packed(matrix) => Ok(View::Packed(matrix)),
        }
    }

    fn above(&self, below: &Self) -> Result<Self> {
        match (self, below) {
            (Self::Plain(upper), Self::Plain(lower)) => upper.above(lower).map(Self::Plain),
            (Self::Packed(upper), Self::Packed(lower)) => Ok(Self::Packed(Arc::new(upper.above(lower)))),
            _ => candle_core::bail!("a quantized matrix and one that is not belong together"),
        }
    }
}
