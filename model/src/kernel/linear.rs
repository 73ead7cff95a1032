//! `y = x wᵀ`: rows of activations against rows of weights, both as they lie in memory.
//!
//! Every output is one dot product, summed along the shared dimension in one fixed order: vector lanes side by side,
//! then the lanes together. Neither the tile that it was computed in nor the batch around it changes that order, which
//! is what a general matrix product cannot promise (it blocks by the size of the whole problem).

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{Weights, arch};

/// Rows of `x` that one task keeps in its cache while the weights stream by.
const ROW_BLOCK: usize = 64;
/// Rows of weights that one task takes when there are few rows of `x`.
const COLUMN_BLOCK: usize = 128;

/// `x` (m, k) times the transpose of `weight` (n, k), plus `bias` (n) if there is one: (m, n).
pub(crate) fn linear(x: &[f32], weight: Weights<'_>, bias: Option<&[f32]>, k: usize) -> Vec<f32> {
    let (m, n) = (x.len() / k, weight.len() / k);
    assert_eq!((x.len(), weight.len()), (m * k, n * k), "rows of {k} values");
    let mut y = vec![0.0; m * n];
    if m >= 2 * ROW_BLOCK {
        y.par_chunks_mut(ROW_BLOCK * n)
            .zip(x.par_chunks(ROW_BLOCK * k))
            .for_each(|(y, x)| arch().dispatch(Block { x, weight, y, k, n }));
    } else if m == 1 {
        y.par_chunks_mut(COLUMN_BLOCK).enumerate().for_each(|(block, y)| {
            let (first, n) = (block * COLUMN_BLOCK, y.len());
            arch().dispatch(Block { x, weight: weight.slice(first * k..(first + n) * k), y, k, n });
        });
    } else if m > 0 {
        // Few rows: share out the weights instead, each task into a strip of its own.
        let strips: Vec<Vec<f32>> = (0..n.div_ceil(COLUMN_BLOCK))
            .into_par_iter()
            .map(|block| {
                let first = block * COLUMN_BLOCK;
                let width = COLUMN_BLOCK.min(n - first);
                let mut strip = vec![0.0; m * width];
                let weight = weight.slice(first * k..(first + width) * k);
                arch().dispatch(Block { x, weight, y: &mut strip, k, n: width });
                strip
            })
            .collect();
        y.par_chunks_mut(n).enumerate().for_each(|(row, y)| {
            for (y, strip) in y.chunks_mut(COLUMN_BLOCK).zip(&strips) {
                y.copy_from_slice(&strip[row * y.len()..(row + 1) * y.len()]);
            }
        });
    }
    if let Some(bias) = bias {
        for row in y.chunks_mut(n) {
            row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
        }
    }
    y
}

/// Rows of `x` (m, k) times rows of `weight` (n, k): (m, n), each row of it the same to the bit whatever `m` is. What every
/// matrix of a [`Decoder`](crate::Decoder) goes through, for comparison with other products.
///
/// # Panics
/// When an operand is not whole rows of `k` values.
pub fn row_products(x: &[f32], weight: &[f32], k: usize) -> Vec<f32> {
    linear(x, Weights::F32(weight), None, k)
}

struct Block<'a> {
    x: &'a [f32],
    weight: Weights<'a>,
    y: &'a mut [f32],
    k: usize,
    n: usize,
}

impl WithSimd for Block<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, weight, y, k, n } = self;
        let mut scratch = match weight {
            Weights::F32(_) => Vec::new(),
            Weights::Bf16(_) | Weights::Packed(_) => vec![0.0; 4 * k],
        };
        let m = x.len() / k;
        for first in (0..n).step_by(4) {
            let width = 4.min(n - first);
            let panel = weight.slice(first * k..(first + width) * k).widened(&mut scratch);
            if width < 4 {
                for row in 0..m {
                    for column in 0..width {
                        let w = [&panel[column * k..(column + 1) * k]];
                        y[row * n + first + column] = tile::<S, 1, 1>(simd, [&x[row * k..(row + 1) * k]], w)[0][0];
                    }
                }
                continue;
            }
            let w = [&panel[..k], &panel[k..2 * k], &panel[2 * k..3 * k], &panel[3 * k..4 * k]];
            let mut row = 0;
            while row + 4 <= m {
                let x = &x[row * k..(row + 4) * k];
                let out = tile::<S, 4, 4>(simd, [&x[..k], &x[k..2 * k], &x[2 * k..3 * k], &x[3 * k..]], w);
                for (offset, out) in out.iter().enumerate() {
                    y[(row + offset) * n + first..][..4].copy_from_slice(out);
                }
                row += 4;
            }
            while row < m {
                let out = tile::<S, 1, 4>(simd, [&x[row * k..(row + 1) * k]], w);
                y[row * n + first..][..4].copy_from_slice(&out[0]);
                row += 1;
            }
        }
    }
}

/// X × W dot products of equally long rows. Closures are avoided: they would not inherit the caller's instruction set.
#[inline(always)]
fn tile<S: Simd, const X: usize, const W: usize>(simd: S, x: [&[f32]; X], w: [&[f32]; W]) -> [[f32; W]; X] {
    let k = x[0].len();
    let vectors = k / S::F32_LANES;
    let whole = vectors * S::F32_LANES;
    let mut xs: [&[S::f32s]; X] = [&[]; X];
    let mut ws: [&[S::f32s]; W] = [&[]; W];
    for r in 0..X {
        xs[r] = &S::as_simd_f32s(&x[r][..whole]).0[..vectors];
    }
    for c in 0..W {
        ws[c] = &S::as_simd_f32s(&w[c][..whole]).0[..vectors];
    }
    let zero = simd.splat_f32s(0.0);
    let mut sums = [[zero; W]; X];
    for j in 0..vectors {
        let mut wv = [zero; W];
        for c in 0..W {
            wv[c] = ws[c][j];
        }
        for r in 0..X {
            let xv = xs[r][j];
            for c in 0..W {
                sums[r][c] = simd.mul_add_f32s(xv, wv[c], sums[r][c]);
            }
        }
    }
    if whole < k {
        for r in 0..X {
            let xv = simd.partial_load_f32s(&x[r][whole..]);
            for c in 0..W {
                sums[r][c] = simd.mul_add_f32s(xv, simd.partial_load_f32s(&w[c][whole..]), sums[r][c]);
            }
        }
    }
    let mut out = [[0.0; W]; X];
    for r in 0..X {
        for c in 0..W {
            out[r][c] = simd.reduce_sum_f32s(sums[r][c]);
        }
    }
    out
}

/// Dot product of two equally long rows, in the order of [`linear`].
#[inline(always)]
pub(crate) fn dot<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    tile::<S, 1, 1>(simd, [a], [b])[0][0]
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    fn values(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        (0..count)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / 8_388_608.0 - 1.0
            })
            .collect()
    }

    #[test]
    fn every_shape_agrees_with_a_sum_in_double_precision() {
        for (m, n, k) in [(1, 7, 5), (3, 130, 172), (4, 4, 64), (5, 129, 33), (131, 9, 20), (200, 65, 48)] {
            let (x, w, bias) = (values(m * k, 1), values(n * k, 2), values(n, 3));
            let y = linear(&x, Weights::F32(&w), Some(&bias), k);
            for row in 0..m {
                for column in 0..n {
                    let sum: f64 = (0..k).map(|j| f64::from(x[row * k + j]) * f64::from(w[column * k + j])).sum();
                    let expected = sum + f64::from(bias[column]);
                    assert!((f64::from(y[row * n + column]) - expected).abs() < 1e-4, "{m}×{n}×{k} at {row},{column}");
                }
            }
        }
    }

    #[test]
    fn a_row_has_the_same_bits_alone_and_in_any_batch() {
        let (n, k) = (300, 172);
        let w: Vec<bf16> = values(n * k, 5).into_iter().map(bf16::from_f32).collect();
        let x = values(200 * k, 6);
        let all = linear(&x, Weights::Bf16(&w), None, k);
        for batch in [1, 2, 3, 16, 63, 150] {
            let some = linear(&x[..batch * k], Weights::Bf16(&w), None, k);
            assert!(some.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits()), "batch of {batch}");
        }
    }

    #[test]
    fn stored_bf16_gives_what_its_widened_values_give() {
        let (n, k) = (12, 100);
        let narrow: Vec<bf16> = values(n * k, 8).into_iter().map(bf16::from_f32).collect();
        let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
        let x = values(5 * k, 9);
        assert_eq!(linear(&x, Weights::Bf16(&narrow), None, k), linear(&x, Weights::F32(&wide), None, k));
    }
}
