//! Key-value caches that are lent to streams and used again, within a budget of positions.

use std::collections::BTreeMap;

use super::prefixes::{Held, Prefixes};

/// Smallest cache that is made: shorter requests share this size.
const SMALLEST: usize = 64;

/// Caches by capacity. There are four capacities between a power of two and the next, below 256 one for every 64
/// positions, and the whole context: a returned cache soon fits another request, and what a request leaves unused of it
/// is less than a quarter of what it asked for, or less than 64 positions.
#[derive(Debug)]
pub(super) struct CachePool<C> {
    context: usize,
    budget: usize,
    lent: usize,
    kept: usize,
    idle: BTreeMap<usize, Vec<C>>,
    prefixes: Prefixes<C>,
}

/// A cache on loan, or kept for its prefix, and the positions that it counts for.
#[derive(Debug)]
pub(super) struct Lent<C> {
    pub(super) cache: C,
    capacity: usize,
}

impl<C> CachePool<C> {
    /// `budget` is the sum of the capacities of all caches, lent and kept; at least one request of a whole `context`
    /// always fits.
    pub(super) fn new(context: usize, budget: usize) -> Self {
        Self {
            context,
            budget: budget.max(context),
            lent: 0,
            kept: 0,
            idle: BTreeMap::new(),
            prefixes: Prefixes::new(),
        }
    }

    /// Whether a cache for `positions` tokens can be lent now.
    pub(super) fn fits(&self, positions: usize) -> bool {
        self.lent.saturating_add(self.capacity_for(positions)) <= self.budget
    }

    /// Lends a cache with room for `positions` tokens, which [`fits`](Self::fits) has approved. What it holds is left
    /// from its last use.
    pub(super) fn lend<E>(&mut self, positions: usize, make: impl FnOnce(usize) -> Result<C, E>) -> Result<Lent<C>, E> {
        let capacity = self.capacity_for(positions);
        let cache = match self.take_idle(capacity) {
            Some(cache) => cache,
            None => match self.make_room(capacity) {
                Some(cache) => cache,
                None => make(capacity)?,
            },
        };
        self.lent = self.lent.saturating_add(capacity);
        Ok(Lent { cache, capacity })
    }

    /// Takes a cache back.
    pub(super) fn give_back(&mut self, lent: Lent<C>) {
        self.lent = self.lent.saturating_sub(lent.capacity);
        self.kept = self.kept.saturating_add(lent.capacity);
        self.idle.entry(lent.capacity).or_default().push(lent.cache);
    }

    /// Takes a cache back and keeps it with what it holds, until its room is needed.
    pub(super) fn keep(&mut self, held: Held, lent: Lent<C>) {
        self.lent = self.lent.saturating_sub(lent.capacity);
        self.kept = self.kept.saturating_add(lent.capacity);
        for released in self.prefixes.keep(held, lent) {
            self.idle.entry(released.capacity).or_default().push(released.cache);
        }
    }

    /// A kept cache with a prefix of a prompt, and the prefix's length.
    pub(super) fn find(&mut self, scope: &str, prompt: &[u32]) -> Option<(&C, usize)> {
        self.prefixes.find(scope, prompt)
    }

    /// Takes a cache back that must not be used again.
    pub(super) fn discard(&mut self, lent: Lent<C>) {
        self.lent = self.lent.saturating_sub(lent.capacity);
    }

    fn capacity_for(&self, positions: usize) -> usize {
        let positions = positions.max(SMALLEST);
        let quarter = 1_usize.checked_shl(positions.ilog2()).unwrap_or(positions) / 4;
        positions.checked_next_multiple_of(quarter.max(SMALLEST)).unwrap_or(self.context).min(self.context)
    }

    fn take_idle(&mut self, capacity: usize) -> Option<C> {
        let cache = self.idle.get_mut(&capacity)?.pop()?;
        self.kept = self.kept.saturating_sub(capacity);
        Some(cache)
    }

    /// Gives caches up until there is room for a new one: empty ones first, then prefixes. Returns one that fits as it
    /// is, if it comes to that.
    fn make_room(&mut self, capacity: usize) -> Option<C> {
        while self.lent.saturating_add(self.kept).saturating_add(capacity) > self.budget {
            if let Some(mut largest) = self.idle.last_entry() {
                let size = *largest.key();
                if largest.get_mut().pop().is_some() {
                    self.kept = self.kept.saturating_sub(size);
                } else {
                    largest.remove();
                }
                continue;
            }
            let evicted = self.prefixes.evict()?;
            self.kept = self.kept.saturating_sub(evicted.capacity);
            if evicted.capacity == capacity {
                return Some(evicted.cache);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn lend(pool: &mut CachePool<usize>, positions: usize) -> Lent<usize> {
        let Ok(lent) = pool.lend(positions, Ok::<_, Infallible>);
        lent
    }

    #[test]
    fn returned_cache_serves_the_next_request_of_its_size() {
        let mut pool = CachePool::new(512, 1024);
        let lent = lend(&mut pool, 100);
        assert_eq!(lent.capacity, 128);
        pool.give_back(lent);
        let again = pool.lend(128, |_| Err("made another")).unwrap();
        assert_eq!(again.capacity, 128);
    }

    #[test]
    fn less_than_a_quarter_of_a_request_or_64_positions_are_unused() {
        let pool = CachePool::<()>::new(1 << 20, 0);
        for positions in 1..5000 {
            let capacity = pool.capacity_for(positions);
            assert!(
                capacity >= positions && (capacity - positions) * 4 < positions.max(256),
                "{positions}: {capacity}"
            );
        }
    }

    #[test]
    fn capacity_never_passes_the_context() {
        let mut pool = CachePool::new(500, 0);
        assert_eq!(lend(&mut pool, 490).capacity, 500);
    }

    #[test]
    fn budget_holds_over_lent_and_kept_caches() {
        let mut pool = CachePool::new(512, 512);
        let (first, second) = (lend(&mut pool, 256), lend(&mut pool, 256));
        assert!(!pool.fits(1));
        pool.give_back(first);
        pool.give_back(second);
        assert!(pool.fits(512));
        let whole = lend(&mut pool, 512);
        assert_eq!((whole.capacity, pool.kept, pool.lent), (512, 0, 512));
    }

    fn held(scope: &str, ids: std::ops::Range<u32>) -> Held {
        Held { scope: scope.into(), ids: ids.collect() }
    }

    fn found(pool: &mut CachePool<usize>, scope: &str, prompt: std::ops::Range<u32>) -> Option<usize> {
        pool.find(scope, &prompt.collect::<Vec<_>>()).map(|(_, tokens)| tokens)
    }

    #[test]
    fn prefix_is_found_in_its_scope_and_never_covers_the_whole_prompt() {
        let mut pool = CachePool::new(512, 4096);
        let lent = lend(&mut pool, 100);
        pool.keep(held("a", 0..100), lent);
        assert_eq!(found(&mut pool, "a", 0..200), Some(100));
        assert_eq!(found(&mut pool, "a", 0..100), Some(99));
        assert_eq!(found(&mut pool, "a", 0..17), Some(16));
        assert_eq!(found(&mut pool, "a", 0..16), None, "too short");
        assert_eq!(found(&mut pool, "a", 1..100), None);
        assert_eq!(found(&mut pool, "b", 0..200), None);
        assert_eq!(found(&mut pool, "", 0..200), None);
    }

    #[test]
    fn longer_prefix_replaces_the_shorter_one() {
        let mut pool = CachePool::new(512, 4096);
        for end in [50, 90, 20] {
            let lent = lend(&mut pool, 100);
            pool.keep(held("a", 0..end), lent);
        }
        assert_eq!(found(&mut pool, "a", 0..200), Some(90));
        assert_eq!((pool.idle.values().map(Vec::len).sum::<usize>(), pool.kept), (1, 256), "one kept, one idle");
    }

    #[test]
    fn least_recently_used_prefix_makes_room_first_and_the_budget_holds() {
        let mut pool = CachePool::new(512, 1024);
        for scope in ["a", "b", "c", "d"] {
            let lent = lend(&mut pool, 256);
            pool.keep(held(scope, 0..100), lent);
        }
        assert!(pool.fits(1024) && pool.kept == 1024);
        assert!(found(&mut pool, "a", 0..100).is_some());
        let again = pool.lend(256, |_| Err("made another")).unwrap();
        assert_eq!(pool.lent + pool.kept, 1024);
        let is_kept = ["a", "b", "c", "d"].map(|scope| found(&mut pool, scope, 0..100).is_some());
        assert_eq!(is_kept, [true, false, true, true]);
        pool.give_back(again);
        let whole = lend(&mut pool, 512);
        assert_eq!(pool.lent + pool.kept, 1024);
        pool.give_back(whole);
        let is_kept = ["a", "c", "d"].map(|scope| found(&mut pool, scope, 0..100).is_some());
        assert_eq!(is_kept, [false, true, true], "the oldest went, and the empty one before it");
    }

    #[test]
    fn discarded_cache_makes_room_and_is_not_lent_again() {
        let mut pool = CachePool::new(512, 512);
        let broken = lend(&mut pool, 512);
        pool.discard(broken);
        assert!(pool.fits(512));
        assert!(pool.lend(512, |_| Err::<usize, _>("made another")).is_err());
    }
}
