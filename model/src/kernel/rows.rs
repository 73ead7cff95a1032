//! Row-wise operations and their derivatives: RMS normalisation, SwiGLU, rotary embedding, softmax.

use rayon::prelude::*;

use super::vectorised;

/// Rows that one task takes; fixed, so that sums over rows are always added up in the same order.
const BLOCK: usize = 32;
/// Values that one task takes where rows do not matter.
const CHUNK: usize = 1 << 14;
/// Sums and maxima run over so many interleaved lanes: they vectorise, and their order depends on the length alone.
const LANES: usize = 16;

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

#[inline(always)]
fn sum(values: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        *lane += value;
    }
    lanes.iter().sum()
}

#[inline(always)]
fn maximum(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, tail) = values.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] = if chunk[lane] > lanes[lane] { chunk[lane] } else { lanes[lane] };
        }
    }
    let mut greatest = f32::NEG_INFINITY;
    for value in lanes.iter().chain(tail) {
        greatest = greatest.max(*value);
    }
    greatest
}

#[inline(always)]
fn inverse_rms(x: &[f32], epsilon: f32) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let (chunks, tail) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            lanes[lane] += chunk[lane] * chunk[lane];
        }
    }
    for (lane, value) in lanes.iter_mut().zip(tail) {
        *lane += value * value;
    }
    1.0 / (lanes.iter().sum::<f32>() / x.len() as f32 + epsilon).sqrt()
}

/// Sum of `a · b · c`.
#[inline(always)]
fn triple_dot(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut lanes = [0.0f32; LANES];
    let ((a, a_tail), (b, b_tail), (c, c_tail)) =
        (a.as_chunks::<LANES>(), b.as_chunks::<LANES>(), c.as_chunks::<LANES>());
    for ((a, b), c) in a.iter().zip(b).zip(c) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane] * c[lane];
        }
    }
    for (((lane, a), b), c) in lanes.iter_mut().zip(a_tail).zip(b_tail).zip(c_tail) {
        *lane += a * b * c;
    }
    lanes.iter().sum()
}

#[inline(always)]
pub(crate) fn softmax_inline(row: &mut [f32]) {
    let greatest = maximum(row);
    for x in row.iter_mut() {
        *x = exp(*x - greatest);
    }
    let scale = 1.0 / sum(row);
    for x in row.iter_mut() {
        *x *= scale;
    }
}

vectorised! {
    fn rms_norm_rows(y: &'a mut [f32], x: &'a [f32], weight: &'a [f32], epsilon: f32) {
        let width = weight.len();
        for (y, x) in y.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = inverse_rms(x, epsilon);
            for ((y, x), w) in y.iter_mut().zip(x).zip(weight) {
                *y = x * scale * w;
            }
        }
    }

    fn add_rms_norm_gradient_rows(
        dx: &'a mut [f32],
        dweight: &'a mut [f32],
        dy: &'a [f32],
        x: &'a [f32],
        weight: &'a [f32],
        epsilon: f32,
    ) {
        let width = weight.len();
        for ((dx, dy), x) in dx.chunks_exact_mut(width).zip(dy.chunks_exact(width)).zip(x.chunks_exact(width)) {
            let scale = inverse_rms(x, epsilon);
            let pull = triple_dot(dy, x, weight) * scale * scale * scale / width as f32;
            for (((dx, g), x), w) in dx.iter_mut().zip(dy).zip(x).zip(weight) {
                *dx += g * w * scale - x * pull;
            }
            for ((dw, g), x) in dweight.iter_mut().zip(dy).zip(x) {
                *dw += g * x * scale;
            }
        }
    }

    fn swiglu_row(y: &'a mut [f32], gate: &'a [f32], up: &'a [f32]) {
        for ((y, gate), up) in y.iter_mut().zip(gate).zip(up) {
            *y = gate / (1.0 + exp(-gate)) * up;
        }
    }

    fn swiglu_gradient_row(dgate: &'a mut [f32], dup: &'a mut [f32], gate: &'a [f32], up: &'a [f32], dy: &'a [f32]) {
        for ((((dgate, dup), gate), up), dy) in dgate.iter_mut().zip(dup).zip(gate).zip(up).zip(dy) {
            let sigmoid = 1.0 / (1.0 + exp(-gate));
            *dgate = dy * up * sigmoid * (1.0 + gate * (1.0 - sigmoid));
            *dup = dy * gate * sigmoid;
        }
    }

    fn rotate_row(heads: &'a mut [f32], cosines: &'a [f32], sines: &'a [f32]) {
        let half = cosines.len();
        for head in heads.chunks_exact_mut(2 * half) {
            let (first, second) = head.split_at_mut(half);
            for (((a, b), c), s) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                (*a, *b) = (*a * c - *b * s, *b * c + *a * s);
            }
        }
    }

    fn add_chunk(to: &'a mut [f32], from: &'a [f32]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    }

    /// Turns logits into log-probabilities in place.
    pub fn log_softmax(row: &'a mut [f32]) {
        let greatest = maximum(row);
        let mut lanes = [0.0f32; LANES];
        let (chunks, tail) = row.as_chunks::<LANES>();
        for chunk in chunks {
            for lane in 0..LANES {
                lanes[lane] += exp(chunk[lane] - greatest);
            }
        }
        for (lane, x) in lanes.iter_mut().zip(tail) {
            *lane += exp(x - greatest);
        }
        let shift = greatest + lanes.iter().sum::<f32>().ln();
        for x in row.iter_mut() {
            *x -= shift;
        }
    }

    /// Turns logits into probabilities in place.
    pub fn softmax(row: &'a mut [f32]) {
        softmax_inline(row);
    }

    /// Turns log-probabilities into probabilities times `scale` in place.
    pub fn scaled_exp(row: &'a mut [f32], scale: f32) {
        for x in row.iter_mut() {
            *x = exp(*x) * scale;
        }
    }
}

/// Root-mean-square normalisation (arXiv 1910.07467) of rows as wide as `weight`.
pub(crate) fn rms_norm(x: &[f32], weight: &[f32], epsilon: f32) -> Vec<f32> {
    let block = BLOCK * weight.len();
    let mut y = vec![0.0; x.len()];
    y.par_chunks_mut(block).zip(x.par_chunks(block)).for_each(|(y, x)| rms_norm_rows(y, x, weight, epsilon));
    y
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
    let block = BLOCK * weight.len();
    let blocks = dx.par_chunks_mut(block).zip(dy.par_chunks(block)).zip(x.par_chunks(block));
    let parts = blocks.map(|((dx, dy), x)| {
        let mut part = vec![0.0; weight.len()];
        add_rms_norm_gradient_rows(dx, &mut part, dy, x, weight, epsilon);
        part
    });
    let parts: Vec<Vec<f32>> = parts.collect();
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
        let (gate, up) = row.split_at(width);
        swiglu_row(y, gate, up);
    });
    y
}

/// Gradient of (gate ‖ up) through [`swiglu`].
pub(crate) fn swiglu_gradient(gate_up: &[f32], dy: &[f32], width: usize) -> Vec<f32> {
    let mut d = vec![0.0; gate_up.len()];
    let rows = d.par_chunks_mut(2 * width).with_min_len(8).zip(gate_up.par_chunks(2 * width)).zip(dy.par_chunks(width));
    rows.for_each(|((d, row), dy)| {
        let ((gate, up), (dgate, dup)) = (row.split_at(width), d.split_at_mut(width));
        swiglu_gradient_row(dgate, dup, gate, up, dy);
    });
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
        rotate_row(&mut row[..heads * head_dim], &rotation.cosines[at..at + half], &rotation.sines[at..at + half]);
    });
}

/// `to += from`.
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    assert_eq!(to.len(), from.len());
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| add_chunk(to, from));
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    /// (rows, width) with values between −2 and 2.
    fn values(rows: usize, width: usize, step: usize) -> Vec<f32> {
        (0..rows * width).map(|i| ((i * step) % 401) as f32 / 100.0 - 2.0).collect()
    }

    fn tensor(values: &[f32], shape: &[usize]) -> Tensor {
        Tensor::from_slice(values, shape, &Device::Cpu).unwrap()
    }

    fn assert_close(found: &[f32], expected: &Tensor) {
        let expected: Vec<f32> = expected.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!((found - expected).abs() < 2e-6 * expected.abs().max(1.0), "{index}: {found} for {expected}");
        }
    }

    #[test]
    fn forward_rows_agree_with_candle_nn() {
        let (rows, width) = (37, 52);
        let (x, weight) = (values(rows, width, 17), values(1, width, 29));
        let normed = candle_nn::ops::rms_norm(&tensor(&x, &[rows, width]), &tensor(&weight, &[width]), 1e-5).unwrap();
        assert_close(&rms_norm(&x, &weight, 1e-5), &normed);

        let gate_up = tensor(&x, &[rows, width]);
        let gate = gate_up.narrow(1, 0, width / 2).unwrap().silu().unwrap();
        let active = (gate * gate_up.narrow(1, width / 2, width / 2).unwrap()).unwrap();
        assert_close(&swiglu(&x, width / 2), &active);

        let probabilities = candle_nn::ops::softmax_last_dim(&tensor(&x[..width], &[1, width])).unwrap();
        let mut row = x[..width].to_vec();
        softmax(&mut row);
        assert_close(&row, &probabilities);
    }

    #[test]
    fn rotation_agrees_with_candle_nn_and_is_undone_by_its_inverse() {
        let (rows, heads, dim) = (9, 3, 16);
        let x = values(rows, heads * dim, 31);
        let angles = values(rows, dim / 2, 7);
        let rotation = Rotation {
            cosines: angles.iter().map(|angle| angle.cos()).collect(),
            sines: angles.iter().map(|angle| angle.sin()).collect(),
        };
        let by_head = tensor(&x, &[1, rows, heads, dim]).transpose(1, 2).unwrap().contiguous().unwrap();
        let (cosines, sines) = (tensor(&rotation.cosines, &[rows, dim / 2]), tensor(&rotation.sines, &[rows, dim / 2]));
        let expected = candle_nn::rotary_emb::rope(&by_head, &cosines, &sines).unwrap().transpose(1, 2).unwrap();
        let mut turned = x.clone();
        rotate(&mut turned, heads * dim, heads, dim, &rotation, None);
        assert_close(&turned, &expected);
        rotate(&mut turned, heads * dim, heads, dim, &rotation.inverse(), None);
        assert_close(&turned, &tensor(&x, &[rows * heads * dim]));
    }

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
