//! What was read from the chain, and when.

use std::time::Duration;

use super::Head;

/// A value that held at a block, as somebody saw it. Whoever decides by it first says how old it may be.
#[derive(Clone, Debug)]
pub struct Fresh<T> {
    /// The value; it held at `block`.
    pub value: T,
    /// The newest block when it was asked for.
    pub block: Head,
    /// Time of the observation since 1970, by the reader's clock.
    pub observed_at: Duration,
}

/// The value is too old to decide by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what is known of the chain is {age_s} s old (block {block}); at most {limit_s} s are allowed")]
pub struct StaleError {
    /// Seconds since the observation, or since the block if that is longer ago.
    pub age_s: u64,
    /// Height of the block.
    pub block: u64,
    /// Seconds allowed.
    pub limit_s: u64,
}

impl<T> Fresh<T> {
    /// The value, unless it is older than `limit`. A node that stopped following the chain answers at once with what was:
    /// the block's own age counts too. A clock that went back makes the value as old as can be.
    pub fn at_most(&self, limit: Duration, now: Duration) -> Result<&T, StaleError> {
        let since_observed = now.checked_sub(self.observed_at).unwrap_or(Duration::MAX);
        // Blocks of a development chain can be ahead of the clock.
        let since_block = now.saturating_sub(Duration::from_secs(self.block.timestamp_s));
        let age = since_observed.max(since_block);
        if age <= limit {
            Ok(&self.value)
        } else {
            Err(StaleError { age_s: age.as_secs(), block: self.block.number, limit_s: limit.as_secs() })
        }
    }

    /// Another view of the same observation.
    pub fn map<U>(self, view: impl FnOnce(T) -> U) -> Fresh<U> {
        Fresh { value: view(self.value), block: self.block, observed_at: self.observed_at }
    }
}

#[cfg(test)]
mod tests {
    use alloy::primitives::B256;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn fresh(block_s: u64, observed_s: u64) -> Fresh<u8> {
        let block = Head { number: 7, hash: B256::ZERO, timestamp_s: block_s };
        Fresh { value: 1, block, observed_at: Duration::from_secs(observed_s) }
    }

    #[test]
    fn a_value_is_refused_when_it_is_too_old_or_from_the_future() {
        let seen = fresh(100, 100);
        assert_eq!(seen.at_most(LIMIT, Duration::from_secs(110)), Ok(&1));
        let stale = seen.at_most(LIMIT, Duration::from_secs(111)).unwrap_err();
        assert_eq!(stale, StaleError { age_s: 11, block: 7, limit_s: 10 });
        assert!(seen.at_most(LIMIT, Duration::from_secs(99)).is_err());
    }

    #[test]
    fn a_node_that_stands_still_is_found_out_by_its_block() {
        let stale = fresh(100, 400).at_most(LIMIT, Duration::from_secs(401)).unwrap_err();
        assert_eq!(stale, StaleError { age_s: 301, block: 7, limit_s: 10 });
        assert_eq!(fresh(900, 400).at_most(LIMIT, Duration::from_secs(401)), Ok(&1), "a chain whose time was moved");
    }
}
