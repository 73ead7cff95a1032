//! Where block timestamps and block randomness come from.

use std::time::{SystemTime, UNIX_EPOCH};

use alloy::primitives::{B256, Keccak256, keccak256};

/// What the chain takes for the present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The operating system's clock.
    #[default]
    System,
    /// Always this second since 1970. Time passes only as requests say; runs are reproducible.
    Fixed(u64),
}

impl Clock {
    /// Seconds since 1970-01-01 00:00:00 UTC.
    fn now(self) -> u64 {
        match self {
            Self::Fixed(seconds) => seconds,
            Self::System => {
                #[expect(
                    clippy::disallowed_methods,
                    reason = "the one implementation of the argument that others take"
                )]
                let now = SystemTime::now();
                now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
            }
        }
    }
}

/// Time on the chain: the clock, moved by an offset that requests change.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    clock: Clock,
    offset_s: i64,
    /// Asked for the next block.
    next: Option<u64>,
}

impl Time {
    pub(super) const fn new(clock: Clock, offset_s: i64) -> Self {
        Self { clock, offset_s, next: None }
    }

    pub(super) const fn offset_s(&self) -> i64 {
        self.offset_s
    }

    pub(super) const fn is_set(&self) -> bool {
        self.next.is_some()
    }

    pub(super) fn now(&self) -> u64 {
        self.clock.now().saturating_add_signed(self.offset_s)
    }

    /// The next block's timestamp after a block of `head`.
    ///
    /// Blocks of one second share its timestamp, as on anvil: with a block for each transaction, a strict increase would
    /// run ahead of the clock by a second a transaction.
    pub(super) fn next(&self, head: u64) -> u64 {
        self.next.unwrap_or_else(|| self.now()).max(head)
    }

    pub(super) const fn set_next(&mut self, timestamp: u64) {
        self.next = Some(timestamp);
    }

    /// Moves the clock, and returns by how much it is moved in all.
    pub(super) fn increase(&mut self, seconds: u64) -> i64 {
        self.offset_s = self.offset_s.saturating_add_unsigned(seconds);
        self.offset_s
    }

    /// A block with the timestamp was sealed. If it was asked for, time goes on from there.
    pub(super) fn sealed(&mut self, timestamp: u64) {
        if self.next.take().is_some() {
            let offset = i128::from(timestamp).saturating_sub(i128::from(self.clock.now()));
            self.offset_s = i64::try_from(offset).unwrap_or(i64::MAX);
        }
    }
}

/// The values that blocks show as `prevrandao`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Randomness {
    seed: B256,
    draws: u64,
    /// Asked for the next block.
    next: Option<B256>,
}

impl Randomness {
    pub(super) const fn new(seed: B256, draws: u64) -> Self {
        Self { seed, draws, next: None }
    }

    pub(super) const fn draws(&self) -> u64 {
        self.draws
    }

    pub(super) const fn is_set(&self) -> bool {
        self.next.is_some()
    }

    pub(super) const fn set_next(&mut self, value: B256) {
        self.next = Some(value);
    }

    /// The next block's value.
    pub(super) fn next(&self) -> B256 {
        self.next.unwrap_or_else(|| self.drawn())
    }

    /// The next value that nobody asked for.
    pub(super) fn drawn(&self) -> B256 {
        let mut hasher = Keccak256::new();
        hasher.update(self.seed);
        hasher.update(self.draws.to_be_bytes());
        hasher.finalize()
    }

    /// What a simulation of the next block shows. It must not tell what the block will have, unless that was asked for.
    pub(super) fn simulated(&self, head: B256) -> B256 {
        self.next.unwrap_or_else(|| keccak256(head))
    }

    /// A block was sealed. The count never goes back, not even with the chain: a replaced block has another value.
    pub(super) const fn sealed(&mut self) {
        self.draws = self.draws.saturating_add(1);
        self.next = None;
    }

    /// Takes over what was asked for `earlier`, and goes on drawing.
    pub(super) const fn restore(&mut self, earlier: Self) {
        self.next = earlier.next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_a_timestamp_that_was_asked_for() {
        let mut time = Time::new(Clock::Fixed(1_000), 0);
        assert_eq!(time.next(900), 1_000);
        assert_eq!(time.next(1_100), 1_100);
        time.set_next(5_000);
        assert_eq!(time.next(1_100), 5_000);
        time.sealed(5_000);
        assert_eq!((time.now(), time.offset_s()), (5_000, 4_000));
        assert_eq!(time.increase(60), 4_060);
        assert_eq!(time.next(5_000), 5_060);
    }

    #[test]
    fn times_out_of_range_saturate() {
        let mut time = Time::new(Clock::Fixed(1_000), 0);
        time.increase(u64::MAX);
        time.increase(u64::MAX);
        time.set_next(u64::MAX);
        time.sealed(u64::MAX);
        assert_eq!(time.offset_s(), i64::MAX);
        assert!(time.next(0) >= 1_000);
    }

    #[test]
    fn simulations_do_not_foretell_randomness() {
        let mut randomness = Randomness::new(B256::repeat_byte(1), 0);
        let (first, head) = (randomness.next(), B256::repeat_byte(2));
        assert_ne!(randomness.simulated(head), first);
        randomness.sealed();
        assert_ne!(randomness.next(), first);
        randomness.set_next(B256::repeat_byte(3));
        assert_eq!((randomness.next(), randomness.simulated(head)), (B256::repeat_byte(3), B256::repeat_byte(3)));
        randomness.sealed();
        assert!(!randomness.is_set());
    }
}
