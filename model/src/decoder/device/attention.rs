//! Attention of one stream over its cache, in shapes that follow from positions alone.

use std::{collections::BTreeMap, ops::Range};

use candle_core::{D, Device, Result, Tensor};

use super::cache::{KEY_TILE, LayerCache};
use crate::kernel::attention::Heads;

/// Queries that are answered together. The tile of a position, and its place in the tile, do not depend on which
/// positions are asked in the same pass; places that nobody asks are zeros. A tile lies within one [`KEY_TILE`].
const QUERY_TILE: usize = 16;
const _: () = assert!(KEY_TILE.is_multiple_of(QUERY_TILE));

/// What attention in one block is.
pub(super) struct Attention {
    pub(super) heads: Heads,
    /// With `Some(w)` a position sees itself and the `w - 1` before it.
    pub(super) window: Option<usize>,
}

/// Masks of tiles, which all blocks of a forward pass share.
pub(super) struct Masks {
    device: Device,
    made: BTreeMap<(usize, Option<usize>), Tensor>,
}

impl Masks {
    pub(super) fn new(device: &Device) -> Self {
        Self { device: device.clone(), made: BTreeMap::new() }
    }

    /// Mask ([`QUERY_TILE`], keys) of the tile whose first position is `first`: 0 where a key is seen, else −∞.
    fn of(&mut self, first: usize, window: Option<usize>, keys: &Range<usize>) -> Result<Tensor> {
        if let Some(mask) = self.made.get(&(first, window)) {
            return Ok(mask.clone());
        }
        let rows = first..first + QUERY_TILE;
        let values = rows.flat_map(|query| {
            let seen = window.map_or(0, |window| (query + 1).saturating_sub(window))..query + 1;
            keys.clone().map(move |key| if seen.contains(&key) { 0.0 } else { f32::NEG_INFINITY })
        });
        let mask = Tensor::from_vec(values.collect::<Vec<f32>>(), (QUERY_TILE, keys.len()), &self.device)?;
        self.made.insert((first, window), mask.clone());
        Ok(mask)
    }
}

impl Attention {
    /// What `query` (positions, heads, dim) finds in the cache: (positions, heads · dim). The cache holds the keys of all
    /// these positions.
    pub(super) fn attend(
        &self,
        query: &Tensor,
        positions: Range<usize>,
        cache: &LayerCache,
        masks: &mut Masks,
    ) -> Result<Tensor> {
        let mut found = Vec::new();
        let first_tile = positions.start / QUERY_TILE * QUERY_TILE;
        for tile in (first_tile..positions.end).step_by(QUERY_TILE) {
            let asked = positions.start.max(tile)..positions.end.min(tile + QUERY_TILE);
            let rows = query.narrow(0, asked.start - positions.start, asked.len())?;
            let filled = rows.pad_with_zeros(0, asked.start - tile, tile + QUERY_TILE - asked.end)?;
            found.push(self.attend_tile(&filled, tile, cache, masks)?.narrow(0, asked.start - tile, asked.len())?);
        }
        Tensor::cat(&found, 0)
    }

    /// What a whole tile ([`QUERY_TILE`], heads, dim) finds whose first position is `first`: ([`QUERY_TILE`], heads · dim).
    fn attend_tile(&self, query: &Tensor, first: usize, cache: &LayerCache, masks: &mut Masks) -> Result<Tensor> {
        let Heads { queries, keys: key_heads, dim } = self.heads;
        let group = queries / key_heads;
        // Whole tiles of keys: those of the last query, from those of the first query's window.
        let oldest = self.window.map_or(0, |window| (first + 1).saturating_sub(window));
        let seen = oldest / KEY_TILE * KEY_TILE..(first + QUERY_TILE).next_multiple_of(KEY_TILE);
        let mask = masks.of(first, self.window, &seen)?;
        // Copies, because the distance between heads in the cache is its capacity, which is no business of a product.
        let keys = cache.keys.narrow(1, seen.start, seen.len())?.contiguous()?;
        let values = cache.values.narrow(1, seen.start, seen.len())?.contiguous()?;

        // The queries that share a key head are rows of one product.
        let query = query.reshape((QUERY_TILE, key_heads, group, dim))?.permute((1, 2, 0, 3))?.contiguous()?;
        let query = query.reshape((key_heads, group * QUERY_TILE, dim))?;
        let scores = (query.matmul(&keys.t()?)? * (1.0 / (dim as f64).sqrt()))?;
        let scores = scores.reshape((queries, QUERY_TILE, seen.len()))?.broadcast_add(&mask)?;
        let weights = scores.broadcast_sub(&scores.max_keepdim(D::Minus1)?)?.exp()?;
        let weights = weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?)?;
        let found = weights.reshape((key_heads, group * QUERY_TILE, seen.len()))?.matmul(&values)?;
        let found = found.reshape((key_heads, group, QUERY_TILE, dim))?.permute((2, 0, 1, 3))?.contiguous()?;
        found.reshape((QUERY_TILE, queries * dim))
    }
}
