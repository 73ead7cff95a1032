//! What was read from the chain, and when.

use std::time::Duration;

use super::Head;

/// A value that held at a block, as somebody saw it. Whoever decides by it first says how old it may be.
#[derive(Clone, Debug)]
pub struct Fresh<T> {
    /// The value; it holds at `block` or later.
    pub value: T,
    /// The newest block when it was asked for.
    pub block: Head,
    /// Time of the observation since 1970, by the reader's clock.
    pub observed_at: Duration,
}

/// The value is too old to decide by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the chain was last seen {age_s} s ago, at block {block}; at most {limit_s} s are allowed")]
pub struct StaleError {
    /// Seconds since the observation.
    pub age_s: u64,
    /// Height of the block.
    pub block: u64,
    /// Seconds allowed.
    pub limit_s: u64,
}

impl<T> Fresh<T> {
    /// The value, unless it is older than `limit`. A clock that went back makes it as old as can be.
    pub fn at_most(&self, limit: Duration, now: Duration) -> Result<&T, StaleError> {
        let age = now.checked_sub(self.observed_at).unwrap_or(Duration::MAX);
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

    #[test]
    fn a_value_is_refused_when_it_is_too_old_or_from_the_future() {
        let head = Head { number: 7, hash: B256::ZERO, timestamp_s: 0 };
        let fresh = Fresh { value: 1, block: head, observed_at: Duration::from_secs(100) };
        let limit = Duration::from_secs(10);
        assert_eq!(fresh.at_most(limit, Duration::from_secs(110)), Ok(&1));
        let stale = fresh.at_most(limit, Duration::from_secs(111)).unwrap_err();
        assert_eq!(stale, StaleError { age_s: 11, block: 7, limit_s: 10 });
        assert!(fresh.at_most(limit, Duration::from_secs(99)).is_err());
    }
}
