//! Key-value caches that are lent to streams and used again, within a budget of positions.

use std::collections::BTreeMap;

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
}

/// A cache on loan, and the positions that it counts for.
#[derive(Debug)]
pub(super) struct Lent<C> {
    pub(super) cache: C,
    capacity: usize,
}

impl<C> CachePool<C> {
    /// `budget` is the sum of the capacities of all caches, lent and kept; at least one request of a whole `context`
    /// always fits.
    pub(super) fn new(context: usize, budget: usize) -> Self {
        Self { context, budget: budget.max(context), lent: 0, kept: 0, idle: BTreeMap::new() }
    }

    /// Whether a cache for `positions` tokens can be lent now.
    pub(super) fn fits(&self, positions: usize) -> bool {
        self.lent.saturating_add(self.capacity_for(positions)) <= self.budget
    }

    /// Lends a cache with room for `positions` tokens, which [`fits`](Self::fits) has approved.
    pub(super) fn lend<E>(&mut self, positions: usize, make: impl FnOnce(usize) -> Result<C, E>) -> Result<Lent<C>, E> {
        let capacity = self.capacity_for(positions);
        let cache = match self.idle.get_mut(&capacity).and_then(Vec::pop) {
            Some(cache) => {
                self.kept = self.kept.saturating_sub(capacity);
                cache
            }
            None => {
                self.forget_idle_until(self.budget.saturating_sub(self.lent).saturating_sub(capacity));
                make(capacity)?
            }
        };
        self.lent = self.lent.saturating_add(capacity);
        Ok(Lent { cache, capacity })
    }

    /// Takes a cleared cache back.
    pub(super) fn give_back(&mut self, lent: Lent<C>) {
        self.lent = self.lent.saturating_sub(lent.capacity);
        self.kept = self.kept.saturating_add(lent.capacity);
        self.idle.entry(lent.capacity).or_default().push(lent.cache);
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

    fn forget_idle_until(&mut self, room: usize) {
        while self.kept > room {
            let Some(mut largest) = self.idle.last_entry() else { return };
            let capacity = *largest.key();
            if largest.get_mut().pop().is_some() {
                self.kept = self.kept.saturating_sub(capacity);
            } else {
                largest.remove();
            }
        }
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

    #[test]
    fn discarded_cache_makes_room_and_is_not_lent_again() {
        let mut pool = CachePool::new(512, 512);
        let broken = lend(&mut pool, 512);
        pool.discard(broken);
        assert!(pool.fits(512));
        assert!(pool.lend(512, |_| Err::<usize, _>("made another")).is_err());
    }
}
