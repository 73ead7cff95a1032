//! Matrices that stay quantized in memory, and are widened a few rows at a time while they are used.
//!
//! Activations are not quantized: a product is that of the stored values, computed as that of any other matrix, so a row
//! of the result still depends on its own inputs alone.

use rayon::prelude::*;

use crate::quantization::Quantization;

/// Rows that one task of [`Packed::widened`] takes.
const WIDENED_ROWS: usize = 64;

/// Rows of equally many columns, which may be stored in several ways one below the other.
#[derive(Debug)]
pub(crate) struct Packed {
    columns: usize,
    rows: usize,
    parts: Vec<Part>,
}

#[derive(Clone, Debug)]
struct Part {
    first_row: usize,
    quantization: Quantization,
    row_bytes: usize,
    bytes: std::sync::Arc<[u8]>,
}

impl Packed {
    /// A matrix of whole rows.
    ///
    /// # Panics
    /// When a row is not a whole number of blocks, or `bytes` is not a whole number of rows.
    pub(crate) fn new(quantization: Quantization, columns: usize, bytes: Vec<u8>) -> Self {
        let row_bytes = quantization.bytes_of(columns);
        assert!(columns.is_multiple_of(quantization.block_elements()) && row_bytes > 0, "{columns} columns");
        assert!(bytes.len().is_multiple_of(row_bytes), "rows of {row_bytes} bytes in {}", bytes.len());
        let rows = bytes.len() / row_bytes;
        Self { columns, rows, parts: vec![Part { first_row: 0, quantization, row_bytes, bytes: bytes.into() }] }
    }

    /// The rows of both, one matrix below the other.
    ///
    /// # Panics
    /// When they have not the same number of columns.
    pub(crate) fn above(&self, below: &Self) -> Self {
        assert_eq!(self.columns, below.columns, "columns");
        let shifted = below.parts.iter().map(|part| Part { first_row: self.rows + part.first_row, ..part.clone() });
        Self {
            columns: self.columns,
            rows: self.rows + below.rows,
            parts: self.parts.iter().cloned().chain(shifted).collect(),
        }
    }

    /// (rows, columns)
    pub(crate) fn shape(&self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// All values, row by row.
    pub(crate) fn widened(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.rows * self.columns];
        let chunks = values.par_chunks_mut(WIDENED_ROWS * self.columns).enumerate();
        chunks.for_each(|(chunk, values)| {
            let first = chunk * WIDENED_ROWS * self.columns;
            self.all().slice(first..first + values.len()).widen(values);
        });
        values
    }

    /// All rows.
    pub(crate) fn all(&self) -> PackedRows<'_> {
        PackedRows { matrix: self, first: 0, count: self.rows }
    }
}

/// Some consecutive rows of a [`Packed`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct PackedRows<'a> {
    matrix: &'a Packed,
    first: usize,
    count: usize,
}

impl PackedRows<'_> {
    /// Number of elements.
    pub(crate) fn len(self) -> usize {
        self.count * self.matrix.columns
    }

    /// Elements `range`, which begin and end with rows.
    pub(crate) fn slice(self, range: std::ops::Range<usize>) -> Self {
        let columns = self.matrix.columns;
        assert!(range.start.is_multiple_of(columns) && range.end.is_multiple_of(columns), "whole rows of {columns}");
        assert!(range.end <= self.len(), "{range:?} of {}", self.len());
        Self { first: self.first + range.start / columns, count: range.len() / columns, ..self }
    }

    /// Sets `out` to the values of all these rows.
    #[inline(always)]
    pub(crate) fn widen(self, out: &mut [f32]) {
        let parts = &self.matrix.parts;
        let mut index = parts.partition_point(|part| part.first_row <= self.first) - 1;
        for (offset, out) in out.chunks_exact_mut(self.matrix.columns).enumerate() {
            let row = self.first + offset;
            while parts.get(index + 1).is_some_and(|next| next.first_row <= row) {
                index += 1;
            }
            let part = &parts[index];
            let at = (row - part.first_row) * part.row_bytes;
            part.quantization.widen(&part.bytes[at..at + part.row_bytes], out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Weights, linear::linear};

    fn bytes(count: usize, step: usize) -> Vec<u8> {
        (0..count).map(|at| (at * step % 251) as u8).collect()
    }

    fn q8_0(rows: usize, columns: usize) -> Packed {
        let mut bytes = bytes(Quantization::Q8_0.bytes_of(rows * columns), 7);
        for block in bytes.as_chunks_mut::<34>().0 {
            block[..2].copy_from_slice(&half::f16::from_f32(0.01).to_le_bytes());
        }
        Packed::new(Quantization::Q8_0, columns, bytes)
    }

    fn f32s(rows: usize, columns: usize) -> Packed {
        let values = (0..rows * columns).map(|at| (at % 17) as f32 - 8.0);
        Packed::new(Quantization::F32, columns, values.flat_map(f32::to_le_bytes).collect())
    }

    #[test]
    fn parts_are_rows_one_below_the_other_and_products_are_those_of_their_values() {
        let (n, k) = (135, 96);
        let matrix = q8_0(7, k).above(&f32s(120, k)).above(&q8_0(8, k));
        let mut wide = vec![0.0; n * k];
        matrix.all().widen(&mut wide);
        let (mut first, mut second) = (vec![0.0; 7 * k], vec![0.0; 120 * k]);
        q8_0(7, k).all().widen(&mut first);
        f32s(120, k).all().widen(&mut second);
        assert_eq!((&wide[..7 * k], &wide[7 * k..127 * k]), (&first[..], &second[..]));

        let x: Vec<f32> = (0..200 * k).map(|at| (at % 23) as f32 / 23.0 - 0.5).collect();
        for m in [1, 3, 16, 200] {
            let x = &x[..m * k];
            let (packed, dense) = (Weights::Packed(matrix.all()), Weights::F32(&wide));
            assert_eq!(linear(x, packed, None, k), linear(x, dense, None, k), "{m} rows");
        }
    }
}
