//! Products with the model's matrices, in one shape for each matrix.

use candle_core::{DType, Result, Tensor};

/// Rows of every product. More rows are several products, fewer are filled up with zeros: a library of matrix products
/// chooses its kernel, and with it the order of its sums, by the number of rows.
const ROWS: usize = 64;
/// Rows of a matrix that are widened at a time, which bounds the memory for it.
const WIDENED_ROWS: usize = 8192;

/// `x wᵀ + b` (rows, out) in f32, for `x` (rows, in) in f32 and `weight` (out, in), whose type is that of the product.
pub(super) fn product(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let y = in_tiles(x, weight)?;
    match bias {
        Some(bias) => y.broadcast_add(bias),
        None => Ok(y),
    }
}

/// `x wᵀ` (rows, out) in f32, without rounding, whatever the type of `weight` (out, in).
pub(super) fn widened_product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let columns = weight.dim(0)?;
    let slices = (0..columns).step_by(WIDENED_ROWS).map(|first| {
        let slice = weight.narrow(0, first, WIDENED_ROWS.min(columns - first))?;
        in_tiles(x, &slice.to_dtype(DType::F32)?)
    });
    Tensor::cat(&slices.collect::<Result<Vec<_>>>()?, 1)
}

fn in_tiles(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let rows = x.dim(0)?;
    let filled = rows.next_multiple_of(ROWS);
    let x = x.to_dtype(weight.dtype())?.contiguous()?.pad_with_zeros(0, 0, filled - rows)?;
    let tiles = (0..filled).step_by(ROWS).map(|first| multiply(&x.narrow(0, first, ROWS)?, weight));
    Tensor::cat(&tiles.collect::<Result<Vec<_>>>()?, 0)?.narrow(0, 0, rows)?.to_dtype(DType::F32)
}

fn multiply(tile: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if weight.dtype() == DType::BF16 && weight.device().is_cpu() {
        // candle has no product of bf16 on the CPU. GPUs sum in f32 and round the result, and so does this.
        let wide = tile.to_dtype(DType::F32)?.matmul(&weight.to_dtype(DType::F32)?.t()?)?;
        return wide.to_dtype(DType::BF16);
    }
    tile.matmul(&weight.t()?)
}
