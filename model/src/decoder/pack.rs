//! Sequences laid end to end in one batch, without padding.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::kernel::{
    View,
    attention::{Heads, Visible, attend},
};

/// Rows of several sequences. Sequences of a group begin with the same prefix, which is in the batch once: each sees the
/// prefix and itself, and nothing of its neighbours (a tree mask). A sequence without siblings is a group of one.
#[derive(Debug, Clone, Default)]
pub struct Pack {
    ids: Vec<u32>,
    positions: Vec<usize>,
    spans: Vec<Span>,
    /// Index into `spans` of every row.
    span_of: Vec<usize>,
}

/// Consecutive rows of one sequence, and the rows of the prefix that it continues.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) rows: Range<usize>,
    pub(crate) prefix: Range<usize>,
}

impl Pack {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds sequences `prefix ‖ segment`, one for each segment, and returns the rows of every segment.
    pub fn push<'a>(&mut self, prefix: &[u32], segments: impl IntoIterator<Item = &'a [u32]>) -> Vec<Range<usize>> {
        let prefix_rows = self.push_span(prefix, 0..0);
        segments.into_iter().map(|segment| self.push_span(segment, prefix_rows.clone())).collect()
    }

    fn push_span(&mut self, ids: &[u32], prefix: Range<usize>) -> Range<usize> {
        let rows = self.ids.len()..self.ids.len() + ids.len();
        if !ids.is_empty() {
            self.ids.extend_from_slice(ids);
            self.positions.extend(prefix.len()..prefix.len() + ids.len());
            self.span_of.extend(std::iter::repeat_n(self.spans.len(), ids.len()));
            self.spans.push(Span { rows: rows.clone(), prefix });
        }
        rows
    }

    /// Token ids of all rows.
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    pub(crate) fn positions(&self) -> &[usize] {
        &self.positions
    }

    pub(crate) fn spans(&self) -> &[Span] {
        &self.spans
    }

    pub(crate) fn span_of(&self, row: usize) -> &Span {
        &self.spans[self.span_of[row]]
    }

    /// Rows that `row` sees under a sliding `window`: of the prefix, and of its own sequence up to itself.
    pub(crate) fn visible(&self, row: usize, window: Option<usize>) -> [Range<usize>; 2] {
        let span = self.span_of(row);
        let first_position = window.map_or(0, |window| (self.positions[row] + 1).saturating_sub(window));
        let prefix_start = (span.prefix.start + first_position).min(span.prefix.end);
        let own_start = span.rows.start + first_position.saturating_sub(span.prefix.len());
        [prefix_start..span.prefix.end, own_start..row + 1]
    }

    /// Attention of `query` rows (those at `queries`, or all) over the key-value rows of the batch.
    pub(crate) fn attend(
        &self,
        query: &Tensor,
        key_value: &Tensor,
        queries: Option<&[usize]>,
        heads: Heads,
        window: Option<usize>,
    ) -> Result<Tensor> {
        let (q, kv) = (View::of(query)?, View::of(key_value)?);
        let (q, kv) = (q.f32()?, kv.f32()?);
        let width = heads.key_value_width();
        let out = attend(q, heads, |index| {
            let row = queries.map_or(index, |rows| rows[index]);
            Visible { runs: self.visible(row, window).map(|rows| &kv[rows.start * width..rows.end * width]) }
        });
        Tensor::from_vec(out, query.shape(), query.device())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_sees_its_prefix_and_itself_but_no_sibling() {
        let mut pack = Pack::new();
        pack.push(&[9, 9], [[1, 2, 3].as_slice(), &[4, 5]]);
        let rows = pack.push(&[], [[6, 7].as_slice()]);
        assert_eq!(rows.first(), Some(&(7..9)));
        assert_eq!(pack.positions(), [0, 1, 2, 3, 4, 2, 3, 0, 1]);
        assert_eq!(pack.visible(1, None), [0..0, 0..2]);
        assert_eq!(pack.visible(6, None), [0..2, 5..7]);
        assert_eq!(pack.visible(8, None), [7..7, 7..9]);
    }

    #[test]
    fn a_window_hides_the_oldest_rows_across_the_prefix() {
        let mut pack = Pack::new();
        pack.push(&[9, 9], [[1, 2, 3].as_slice()]);
        assert_eq!(pack.visible(3, Some(3)), [1..2, 2..4]);
        assert_eq!(pack.visible(4, Some(2)), [2..2, 3..5]);
    }
}
