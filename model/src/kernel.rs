//! CPU kernels of the decoder, on row-major `f32` slices.
//!
//! Two properties matter more than the last per cent of speed. A row of a result depends on its own inputs alone, never
//! on how many rows are computed with it or on the number of threads, so that a request is answered with the same bytes
//! whoever shares the batch. And every kernel is safe code: SIMD comes from `pulp`, which picks the widest instruction
//! set at run time, and the one call into `gemm` stands behind checked lengths.

use std::{ops::Deref, sync::OnceLock};

use candle_core::{CpuStorage, DType, Error, Result, Storage, Tensor};
use half::bf16;

use self::packed::{Packed, PackedRows};

pub(crate) mod attention;
pub(crate) mod linear;
pub(crate) mod packed;
pub(crate) mod product;
pub(crate) mod rows;

/// The instruction set of this machine, detected once.
pub(crate) fn arch() -> pulp::Arch {
    static ARCH: OnceLock<pulp::Arch> = OnceLock::new();
    *ARCH.get_or_init(pulp::Arch::new)
}

/// Defines functions whose bodies are compiled once for every instruction set and dispatched at run time.
///
/// A closure would not do: it is compiled on its own, without the instruction set of its caller, and where it is not
/// inlined `mul_add` becomes a call into libm. For the same reason the bodies use loops and no closures.
macro_rules! vectorised {
    ($($(#[$meta:meta])* $vis:vis fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $output:ty)? $body:block)*) => {
        $(
            $(#[$meta])*
            $vis fn $name<'a>($($argument: $kind),*) $(-> $output)? {
                struct Body<'a> { $($argument: $kind,)* marker: std::marker::PhantomData<&'a ()> }
                impl<'a> pulp::WithSimd for Body<'a> {
                    type Output = $crate::kernel::vectorised!(@output $($output)?);
                    #[inline(always)]
                    fn with_simd<S: pulp::Simd>(self, _: S) -> Self::Output {
                        let Self { $($argument,)* marker: _ } = self;
                        $body
                    }
                }
                $crate::kernel::arch().dispatch(Body { $($argument,)* marker: std::marker::PhantomData })
            }
        )*
    };
    (@output) => { () };
    (@output $output:ty) => { $output };
}
pub(crate) use vectorised;

/// What a kernel reads: a contiguous tensor in main memory, or a matrix that stays quantized.
pub(crate) trait Operand: Sized {
    fn view(&self) -> Result<View<'_>>;

    /// These rows and those of `below` under them.
    fn above(&self, below: &Self) -> Result<Self>;
}

impl Operand for Tensor {
    fn view(&self) -> Result<View<'_>> {
        let (storage, layout) = self.storage_and_layout();
        let (start, end) = layout
            .contiguous_offsets()
            .ok_or_else(|| Error::Msg(format!("kernel wants a contiguous tensor, not {layout:?}")).bt())?;
        Ok(View::Tensor { storage: Box::new(storage), start, end })
    }

    fn above(&self, below: &Self) -> Result<Self> {
        if self.dtype() == below.dtype() {
            return Self::cat(&[self, below], 0);
        }
        Self::cat(&[self.to_dtype(DType::F32)?, below.to_dtype(DType::F32)?], 0)
    }
}

/// Row-major contents of an operand, borrowed for as long as the view lives.
pub(crate) enum View<'a> {
    Tensor {
        /// candle's read guard, whose own type belongs to its choice of lock.
        storage: Box<dyn Deref<Target = Storage> + 'a>,
        start: usize,
        end: usize,
    },
    Packed(&'a Packed),
}

impl<'a> View<'a> {
    pub(crate) fn of(operand: &'a impl Operand) -> Result<Self> {
        operand.view()
    }

    pub(crate) fn weights(&self) -> Result<Weights<'_>> {
        let (storage, start, end) = match self {
            Self::Tensor { storage, start, end } => (&**storage, *start, *end),
            Self::Packed(matrix) => return Ok(Weights::Packed(matrix.all())),
        };
        let Storage::Cpu(storage) = &**storage else {
            return Err(Error::Msg("kernels run in main memory only".into()).bt());
        };
        match storage {
            CpuStorage::BF16(values) => Ok(Weights::Bf16(&values[start..end])),
            _ => Ok(Weights::F32(&storage.as_slice::<f32>()?[start..end])),
        }
    }

    pub(crate) fn f32(&self) -> Result<&[f32]> {
        match self.weights()? {
            Weights::F32(values) => Ok(values),
            Weights::Bf16(_) => Err(Error::Msg("kernel wants f32 values, not bf16".into()).bt()),
            Weights::Packed(_) => Err(Error::Msg("kernel wants f32 values, not quantized ones".into()).bt()),
        }
    }
}

/// Stored weights, widened to `f32` as they are read.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Weights<'a> {
    F32(&'a [f32]),
    Bf16(&'a [bf16]),
    Packed(PackedRows<'a>),
}

impl<'a> Weights<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::Packed(rows) => rows.len(),
        }
    }

    pub(crate) fn slice(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[range]),
            Self::Bf16(values) => Self::Bf16(&values[range]),
            Self::Packed(rows) => Self::Packed(rows.slice(range)),
        }
    }

    /// The values as `f32`: borrowed when they are, widened into `scratch` when they are not.
    #[inline(always)]
    pub(crate) fn widened<'b>(self, scratch: &'b mut [f32]) -> &'b [f32]
    where
        'a: 'b,
    {
        match self {
            Self::F32(values) => values,
            Self::Bf16(values) => {
                let scratch = &mut scratch[..values.len()];
                for (wide, narrow) in scratch.iter_mut().zip(values) {
                    *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
                }
                scratch
            }
            Self::Packed(rows) => {
                let scratch = &mut scratch[..rows.len()];
                rows.widen(scratch);
                scratch
            }
        }
    }
}
