//! Causal attention (arXiv 1706.03762, grouped queries arXiv 2305.13245) of single rows over runs of earlier rows, and
//! its derivative. Nothing of size (rows × rows) is kept: the derivative computes its probabilities anew.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::{arch, linear::dot, rows::softmax_inline};

/// Head counts and width of one attention layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) queries: usize,
    pub(crate) keys: usize,
    pub(crate) dim: usize,
}

impl Heads {
    /// Query heads that share one key and value head.
    fn group(self) -> usize {
        self.queries / self.keys
    }

    /// Width of a row (keys ‖ values).
    pub(crate) fn key_value_width(self) -> usize {
        2 * self.keys * self.dim
    }

    fn scale(self) -> f32 {
        1.0 / (self.dim as f32).sqrt()
    }
}

/// Rows (keys ‖ values) that a query sees, oldest first: two runs, of which the first may be empty.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visible<'a> {
    pub(crate) runs: [&'a [f32]; 2],
}

impl<'a> Visible<'a> {
    fn rows(self, heads: Heads) -> impl Iterator<Item = &'a [f32]> {
        let [first, second] = self.runs;
        let width = heads.key_value_width();
        first.chunks_exact(width).chain(second.chunks_exact(width))
    }

    fn len(self, heads: Heads) -> usize {
        (self.runs[0].len() + self.runs[1].len()) / heads.key_value_width()
    }
}

/// Output (rows, queries · dim) of query rows `q`, where row i sees `visible(i)`.
pub(crate) fn attend<'a>(q: &[f32], heads: Heads, visible: impl Fn(usize) -> Visible<'a> + Sync) -> Vec<f32> {
    let width = heads.queries * heads.dim;
    let mut out = vec![0.0; q.len()];
    out.par_chunks_mut(width).zip(q.par_chunks(width)).enumerate().for_each(|(row, (out, q))| {
        arch().dispatch(Attend { q, heads, visible: visible(row), out });
    });
    out
}

struct Attend<'a> {
    q: &'a [f32],
    heads: Heads,
    visible: Visible<'a>,
    out: &'a mut [f32],
}

impl WithSimd for Attend<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, heads, visible, out } = self;
        let dim = heads.dim;
        let mut weights = vec![0.0; visible.len(heads)];
        for head in 0..heads.queries {
            let q = &q[head * dim..(head + 1) * dim];
            let key = head / heads.group() * dim;
            probabilities(simd, q, key, heads, visible, &mut weights);
            let value = (heads.keys * dim) + key;
            let out = &mut out[head * dim..(head + 1) * dim];
            for (weight, row) in weights.iter().zip(visible.rows(heads)) {
                axpy(simd, *weight, &row[value..value + dim], out);
            }
        }
    }
}

#[inline(always)]
fn probabilities<S: Simd>(simd: S, q: &[f32], key: usize, heads: Heads, visible: Visible<'_>, weights: &mut [f32]) {
    let scale = heads.scale();
    for (weight, row) in weights.iter_mut().zip(visible.rows(heads)) {
        *weight = dot(simd, q, &row[key..key + heads.dim]) * scale;
    }
    softmax_inline(weights);
}

/// `y += a x`.
#[inline(always)]
fn axpy<S: Simd>(simd: S, a: f32, x: &[f32], y: &mut [f32]) {
    let (xs, x_tail) = S::as_simd_f32s(x);
    let (ys, y_tail) = S::as_mut_simd_f32s(y);
    let factor = simd.splat_f32s(a);
    for (y, x) in ys.iter_mut().zip(xs) {
        *y = simd.mul_add_f32s(factor, *x, *y);
    }
    for (y, x) in y_tail.iter_mut().zip(x_tail) {
        *y = a.mul_add(*x, *y);
    }
}

/// What one query row passes back: into its own query, and into the keys and values that it saw.
pub(crate) struct Backward<'a, 'b> {
    pub(crate) q: &'a [f32],
    pub(crate) dout: &'a [f32],
    pub(crate) heads: Heads,
    pub(crate) visible: Visible<'a>,
    /// Set to the gradient of `q`.
    pub(crate) dq: &'b mut [f32],
    /// Increased by the gradients of the visible rows, run by run.
    pub(crate) dvisible: [&'b mut [f32]; 2],
}

impl Backward<'_, '_> {
    pub(crate) fn run(self) {
        arch().dispatch(self);
    }
}

impl WithSimd for Backward<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { q, dout, heads, visible, dq, dvisible: [first, second] } = self;
        let (dim, width) = (heads.dim, heads.key_value_width());
        let mut weights = vec![0.0; visible.len(heads)];
        let mut dweights = vec![0.0; weights.len()];
        for head in 0..heads.queries {
            let range = head * dim..(head + 1) * dim;
            let (q, dout, dq) = (&q[range.clone()], &dout[range.clone()], &mut dq[range]);
            let key = head / heads.group() * dim;
            let value = heads.keys * dim + key;
            probabilities(simd, q, key, heads, visible, &mut weights);
            let mut mean = 0.0;
            for ((dweight, weight), row) in dweights.iter_mut().zip(&weights).zip(visible.rows(heads)) {
                *dweight = dot(simd, dout, &row[value..value + dim]);
                mean += *dweight * weight;
            }
            let drows = first.chunks_exact_mut(width).chain(second.chunks_exact_mut(width));
            for (((dweight, weight), row), drow) in dweights.iter().zip(&weights).zip(visible.rows(heads)).zip(drows) {
                axpy(simd, *weight, dout, &mut drow[value..value + dim]);
                let dscore = weight * (dweight - mean) * heads.scale();
                axpy(simd, dscore, &row[key..key + dim], dq);
                axpy(simd, dscore, q, &mut drow[key..key + dim]);
            }
        }
    }
}
