//! The two matrix products of a backward pass, by the `gemm` crate. Training does not need a row to be independent of
//! its batch, only the result to be independent of the number of threads: `gemm` splits rows and columns among threads
//! and never the sum.

use gemm::Parallelism;

use super::Weights;

fn parallelism() -> Parallelism {
    Parallelism::Rayon(rayon::current_num_threads())
}

/// A matrix as it lies in memory: element (i, j) is at `i * row_stride + j * column_stride`.
struct Strided<'a> {
    values: &'a [f32],
    row_stride: usize,
    column_stride: usize,
}

impl Strided<'_> {
    /// Index of the last of its values when it has this many rows and columns.
    fn last(&self, rows: usize, columns: usize) -> usize {
        (rows - 1) * self.row_stride + (columns - 1) * self.column_stride
    }
}

/// Rows of stored weights that are widened at one time.
const WIDEN_ROWS: usize = 1024;

/// `dx = dy w`: gradient (m, n) times weights (n, k) gives (m, k).
pub(crate) fn gradient_of_input(dy: &[f32], weight: Weights<'_>, n: usize, k: usize) -> Vec<f32> {
    let m = dy.len() / n;
    let mut dx = vec![0.0; m * k];
    let (step, mut scratch) = match weight {
        Weights::F32(_) => (n, Vec::new()),
        Weights::Bf16(_) | Weights::Packed(_) => (WIDEN_ROWS, vec![0.0; WIDEN_ROWS.min(n) * k]),
    };
    for first in (0..n).step_by(step) {
        let rows = step.min(n - first);
        let dy = Strided { values: &dy[first..], row_stride: n, column_stride: 1 };
        let weight = weight.slice(first * k..(first + rows) * k).widened(&mut scratch);
        let weight = Strided { values: weight, row_stride: k, column_stride: 1 };
        product(&mut dx, first > 0, dy, weight, (m, k, rows));
    }
    dx
}

/// `dw += dyᵀ x`: adds the gradient of the weights (n, k) from dy (m, n) and x (m, k).
pub(crate) fn add_gradient_of_weight(dw: &mut [f32], dy: &[f32], x: &[f32], n: usize, k: usize) {
    let m = dy.len() / n;
    let dy = Strided { values: dy, row_stride: 1, column_stride: n };
    let x = Strided { values: x, row_stride: k, column_stride: 1 };
    product(dw, true, dy, x, (n, k, m));
}

/// `destination` (m, n) is set to, or increased by, left (m, k) times right (k, n).
fn product(
    destination: &mut [f32],
    add: bool,
    left: Strided<'_>,
    right: Strided<'_>,
    (m, n, k): (usize, usize, usize),
) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert_eq!(destination.len(), m * n, "result of a {m}×{k}×{n} product");
    assert!(left.last(m, k) < left.values.len(), "left operand of a {m}×{k}×{n} product");
    assert!(right.last(k, n) < right.values.len(), "right operand of a {m}×{k}×{n} product");
    let stride = |value: usize| isize::try_from(value).expect("no slice is longer than isize::MAX");
    #[expect(unsafe_code, reason = "gemm takes pointers; the last index of every operand was checked just above")]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            destination.as_mut_ptr(),
            1,
            stride(n),
            add,
            left.values.as_ptr(),
            stride(left.column_stride),
            stride(left.row_stride),
            right.values.as_ptr(),
            stride(right.column_stride),
            stride(right.row_stride),
            1.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(count: usize, step: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * step) % 101) as f32 / 50.0 - 1.0).collect()
    }

    #[test]
    fn gradients_agree_with_sums_in_double_precision() {
        let (m, n, k) = (37, 29, 53);
        let (dy, w, x) = (values(m * n, 7), values(n * k, 11), values(m * k, 13));
        let dx = gradient_of_input(&dy, Weights::F32(&w), n, k);
        let mut dw = vec![1.0; n * k];
        add_gradient_of_weight(&mut dw, &dy, &x, n, k);
        for j in 0..k {
            for i in 0..m {
                let sum: f64 = (0..n).map(|c| f64::from(dy[i * n + c]) * f64::from(w[c * k + j])).sum();
                assert!((f64::from(dx[i * k + j]) - sum).abs() < 1e-4);
            }
            for c in 0..n {
                let sum: f64 = (0..m).map(|i| f64::from(dy[i * n + c]) * f64::from(x[i * k + j])).sum();
                assert!((f64::from(dw[c * k + j]) - sum - 1.0).abs() < 1e-4);
            }
        }
    }

    #[test]
    fn the_number_of_threads_does_not_change_a_bit() {
        let (m, n, k) = (700, 330, 290);
        let (dy, w, x) = (values(m * n, 7), values(n * k, 11), values(m * k, 13));
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let mut dw = vec![0.0; n * k];
                add_gradient_of_weight(&mut dw, &dy, &x, n, k);
                (gradient_of_input(&dy, Weights::F32(&w), n, k), dw)
            })
        };
        let one = run(1);
        for threads in [2, 3, 7] {
            assert_eq!(run(threads), one, "{threads} threads");
        }
    }
}
