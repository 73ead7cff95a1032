//! Row-wise operations and their derivatives: RMS normalisation, SwiGLU, rotary embedding, softmax.

use rayon::prelude::*;

use super::arch;

/// Rows that one task takes; fixed, so that sums over rows are always added up in the same order.
const BLOCK: usize = 32;

/// `e^x` to about 2 units in the last place, without a call that would stop vectorisation. Cephes' `expf` polynomial.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    // 1.5 · 2²³ rounds to the nearest integer and leaves it in the low bits.
    let shifted = x.mul_add(std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, x));
    let mut p = 1.987_569_1e-4f32;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_66, 0.5] {
        p = p.mul_add(r, coefficient);
    }
    let value = (p * r).mul_add(r, r) + 1.0;
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    value * power
}

/// Root-mean-square normalisation (arXiv 1910.07467) of rows as wide as `weight`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let width = weight.len();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(BLOCK * width).zip(x.par_chunks(BLOCK * width)).for_each(|(y, x)| {
        arch().dispatch(|| {
            for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
                let scale = inverse_rms(x, epsilon);
                for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                    *y = x * scale * w;
                }
            }
        });
    });
    y
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    1.0 / (lanes_sum(x.len(), |i| x[i] * x[i]) / x.len() as f32 + epsilon).sqrt()
}

/// Sum of `term(0) .. term(count)` over sixteen interleaved lanes: vectorises, and its order depends on the count alone.
#[inline(always)]
fn lanes_sum(count: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0f32; 16];
    let whole = count / 16 * 16;
    for first in (0..whole).step_by(16) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += term(first + lane);
        }
    }
    for (sum, index) in lanes.iter_mut().zip(whole..count) {
        *sum += term(index);
    }
    lanes.iter().sum()
}

/// Adds to `dx` the gradient through [`rms_norm`], and to `dweight` that of its weight when it is trained.
pub(crate) fn add_rms_norm_gradient(
    dx: &mut [f32],
    dweight: Option<&mut [f32]>,
    dy: &[f32],
    x: &[f32],
    weight: &[f32],
    epsilon: f32,
) {
    let width = weight.len();
    let parts: Vec<Vec<f32>> = dx
        .par_chunks_mut(BLOCK * width)
        .zip(dy.par_chunks(BLOCK * width))
        .zip(x.par_chunks(BLOCK * width))
        .map(|((dx, dy), x)| {
            let mut part = vec![0.0; width];
            arch().dispatch(|| {
                for ((dx, dy), x) in dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width)) {
                    let scale = inverse_rms(x, epsilon);
                    let inner = lanes_sum(width, |i| dy[i] * x[i] * weight[i]);
                    let pull = inner * scale * scale * scale / width as f32;
                    for ((dx, part), ((g, x), w)) in dx.iter_mut().zip(&mut part).zip(dy.iter().zip(x).zip(weight)) {
                        *dx += g * w * scale - x * pull;
                        *part += g * x * scale;
                    }
                }
            });
            part
        })
        .collect();
    if let Some(dweight) = dweight {
        for part in parts {
            add(dweight, &part);
        }
    }
}

/// `silu(gate) · up` for rows (gate ‖ up) of width 2·`width` (arXiv 2002.05202).
pub(crate) fn swiglu(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut y = vec![0.0; gate_up.len() / 2];
    y.par_chunks_mut(width).with_min_len(8).zip(gate_up.par_chunks(2 * width)).for_each(|(y, row)| {
        arch().dispatch(|| {
            let (gate, up) = row.split_at(width);
            for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
                *y = gate / (1.0 + exp(-gate)) * up;
            }
        });
    });
    y
}

/// Gradient of (gate ‖ up) through [`swiglu`].
pub(crate) fn swiglu_gradient(gate_up: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let mut d = vec![0.0; gate_up.len()];
    d.par_chunks_mut(2 * width).with_min_len(8).zip(gate_up.par_chunks(2 * width)).zip(dy.par_chunks(width)).for_each(
        |((d, row), dy)| {
            arch().dispatch(|| {
                let (gate, up) = row.split_at(width);
                let (dgate, dup) = d.split_at_mut(width);
                for ((((dgate, dup), gate), up), dy) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
                    let sigmoid = 1.0 / (1.0 + exp(-gate));
                    *dgate = dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
                    *dup = dy * gate * sigmoid;
                }
            });
        },
    );
    d
}

/// Cosines and sines of every row's rotation, (rows, head_dim / 2) each.
#[derive(Debug, Clone)]
pub(crate) struct Rotation {
    pub(crate) cosines: Vec<f32>,
    pub(crate) sines: Vec<f32>,
}

impl Rotation {
    /// Rotates by the same angles the other way: the derivative of a rotation.
    pub(crate) fn inverse(&self) -> Self {
        Self { cosines: self.cosines.clone(), sines: self.sines.iter().map(|s| -s).collect() }
    }
}

/// Rotates the first `heads` heads of every row of `x` in place (arXiv 2104.09864, halves paired as transformers does).
/// Rows are `row_width` wide; row i turns by the angles of row `rows[i]` of `rotation`, or of row i without `rows`.
pub(crate) fn rotate(
    x: &mut [f32],
    row_width: usize,
    heads: usize,
    head_dim: usize,
    rotation: &Rotation,
    rows: Option<&[usize]>,
) {
    let half = head_dim / 2;
    x.par_chunks_mut(row_width).with_min_len(BLOCK).enumerate().for_each(|(index, row)| {
        let at = rows.map_or(index, |rows| rows[index]) * half;
        let (cosines, sines) = (&rotation.cosines[at..at + half], &rotation.sines[at..at + half]);
        arch().dispatch(|| {
            for head in row[..heads * head_dim].chunks_exact_mut(head_dim) {
                let (first, second) = head.split_at_mut(half);
                for (((a, b), c), s) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                    (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
                }
            }
        });
    });
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len());
    to.par_chunks_mut(1 << 14).zip(from.par_chunks(1 << 14)).for_each(|(to, from)| {
        arch().dispatch(|| to.iter_mut().zip(from).for_each(|(to, from)| *to += from));
    });
}

/// Turns logits into log-probabilities in place.
pub fn log_softmax(row: &mut [f32]) {
    arch().dispatch(|| {
        let (max, sum) = max_and_sum_of_exp(row);
        let shift = max + sum.ln();
        row.iter_mut().for_each(|x| *x -= shift);
    });
}

/// Turns logits into probabilities in place.
pub fn softmax(row: &mut [f32]) {
    arch().dispatch(|| softmax_inline(row));
}

#[inline(always)]
pub(crate) fn softmax_inline(row: &mut [f32]) {
    let max = maximum(row);
    row.iter_mut().for_each(|x| *x = exp(*x - max));
    let scale = 1.0 / lanes_sum(row.len(), |i| row[i]);
    row.iter_mut().for_each(|x| *x *= scale);
}

#[inline(always)]
fn max_and_sum_of_exp(row: &[f32]) -> (f32, f32) {
    let max = maximum(row);
    (max, lanes_sum(row.len(), |i| exp(row[i] - max)))
}

#[inline(always)]
fn maximum(row: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = row.chunks_exact(16);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = if *value > *lane { *value } else { *lane };
        }
    }
    tail.iter().chain(&lanes).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close_over_its_whole_range() {
        for step in -8700..8800 {
            let x = step as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!((f64::from(exp(x)) - exact).abs() <= exact * 3e-7, "e^{x}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(-1000.0) < 1e-37);
    }

    #[test]
    fn softmax_and_log_softmax_agree_and_sum_to_one() {
        let mut row: Vec<f32> = (0..101).map(|i| ((i * 37) % 101) as f32 / 7.0 - 5.0).collect();
        let mut logs = row.clone();
        softmax(&mut row);
        log_softmax(&mut logs);
        assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!(row.iter().zip(&logs).all(|(p, l)| (p.ln() - l).abs() < 1e-5));
    }
}
